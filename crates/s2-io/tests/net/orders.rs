//! Products that are offline: each is ordered once and waited for.

use std::time::Duration;

use s2_io::Level;
use s2_io::net::{Archive, Catalog, Credentials, HubOrders, OrderState, ProductOrders, Query, WaitOnly};

use crate::server::{PASSWORD, Product, USER, archive};
use crate::{NAME, Site, common, query};

/// A list of three products that are offline for some polls.
fn offline(polls: usize) -> (Site, Archive) {
    let site = Site::new();
    site.server.lock().products.clear();
    for number in 0..3 {
        let name = NAME.replace("T14", &format!("T1{number}"));
        let mut product = Product::new(number, &name, archive(&name, 5000, number));
        product.offline_polls = Some(polls);
        site.server.lock().products.push(product);
    }
    let list = Archive::open(site.folder.path().join("orders").join("list.json")).unwrap();
    let all = Query { tiles: vec!["29RKH".to_owned()], ..query(Level::L2A, "2020-02-01", "2020-02-29") };
    for item in site.odata().search(&all).unwrap() {
        assert!(!item.online, "all are offline");
        list.add(&site.client, &item).unwrap();
        list.add(&site.client, &item).unwrap();
    }
    (site, list)
}

fn states(list: &Archive) -> Vec<OrderState> {
    list.entries().unwrap().into_iter().map(|entry| entry.state).collect()
}

#[test]
fn an_offline_product_is_ordered_once_and_waited_for() {
    let (site, list) = offline(3);
    let orders = ProductOrders::new(&site.client, &site.odata(), site.account(PASSWORD));
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Requested; 3]);
    assert!(list.entries().unwrap().iter().all(|entry| entry.order.is_some()), "the orders have numbers");
    site.server.lock().order_states.values_mut().for_each(|state| "in_progress".clone_into(state));
    // Another process goes on.
    let list = Archive::open(site.folder.path().join("orders").join("list.json")).unwrap();
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Staging; 3]);
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Online; 3]);
    assert_eq!(site.server.lock().orders.len(), 3, "each was ordered once");
    let first = list.entries().unwrap().remove(0);
    list.settle(&site.client, &first.product, Ok(())).unwrap();
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Downloaded, OrderState::Online, OrderState::Online]);
}

#[test]
fn several_processes_order_each_product_once() {
    let (site, list) = offline(100);
    site.server.lock().latency = Duration::from_millis(5);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let orders = ProductOrders::new(&site.client, &site.odata(), site.account(PASSWORD));
                list.poll(&site.client, &orders).unwrap();
            });
        }
    });
    assert_eq!(site.server.lock().orders.len(), 3);
    assert_eq!(states(&list), [OrderState::Requested; 3]);
}

#[test]
fn an_order_of_which_nobody_knows_is_not_placed_again() {
    let (site, list) = offline(3);
    // A process was killed while it ordered.
    let path = site.folder.path().join("orders").join("list.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"offline\"", "\"ordering\"", 1)).unwrap();
    let orders = ProductOrders::new(&site.client, &site.odata(), site.account(PASSWORD));
    for _ in 0..3 {
        list.poll(&site.client, &orders).unwrap();
    }
    assert_eq!(site.server.lock().orders.len(), 2, "the first was not ordered again");
    assert_eq!(states(&list), [OrderState::Online; 3]);
}

#[test]
fn an_order_that_is_cancelled_is_told() {
    let (site, list) = offline(100);
    let orders = ProductOrders::new(&site.client, &site.odata(), site.account(PASSWORD));
    list.poll(&site.client, &orders).unwrap();
    site.server.lock().order_states.values_mut().for_each(|state| "cancelled".clone_into(state));
    let entries = list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Failed; 3]);
    assert!(entries[0].problem.as_ref().unwrap().contains("is cancelled"), "{entries:?}");
}

#[test]
fn the_old_hub_orders_by_asking_and_its_quota_is_no_failure() {
    let (site, list) = offline(2);
    let credentials = Credentials::new(USER, PASSWORD);
    let orders = HubOrders::new(&site.client, &site.server.at("/dhus"), credentials);
    // Twenty orders of others: the quota is used up.
    site.server.lock().orders = vec![String::new(); 20];
    let entries = list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Offline; 3]);
    assert!(entries[0].problem.as_ref().unwrap().contains("quota exceeded"), "{entries:?}");
    assert_eq!(site.server.count("/dhus/"), 2, "nothing more is asked after that");
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(site.server.count("/dhus/"), 2, "nor for an hour");

    let (site, list) = offline(2);
    let orders = HubOrders::new(&site.client, &site.server.at("/dhus"), Credentials::new(USER, PASSWORD));
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Requested; 3]);
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Online; 3]);
    assert_eq!(site.server.lock().orders.len(), 3);
}

#[test]
fn a_product_that_is_ordered_by_hand_is_waited_for() {
    let (site, list) = offline(3);
    let orders = WaitOnly::new(&site.odata());
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Requested; 3]);
    list.poll(&site.client, &orders).unwrap();
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Online; 3]);
    assert_eq!(site.server.lock().orders.len(), 0);
    std::fs::write(site.folder.path().join("orders").join("list.json"), "[]").unwrap();
    let error = list.entries().unwrap_err();
    assert!(common::chain(&error).contains("no list of orders"), "{error}");
}
