//! Downloads: checked, gone on with, shared between processes; files one by one and whole folders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use s2_io::Algorithm;
use s2_io::net::{Client, Downloader, Error, Remote, RetryPolicy};
use serde_json::json;

use crate::server::{self, FAULTS, Fault, PASSWORD, Product, Server, archive};
use crate::{NAME, Site, client};

#[test]
fn a_product_is_brought_checked_and_not_brought_twice() {
    let site = Site::new();
    let fetched = site.fetch().unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), site.expected());
    assert_eq!(fetched.checksum.unwrap().algorithm, Algorithm::Md5);
    assert_eq!(site.left(), [format!("{NAME}.SAFE.zip")]);
    let again = site.fetch().unwrap();
    assert!(again.was_there && again.bytes == fetched.bytes, "it is there");
    assert_eq!((site.server.count("/download/"), site.server.lock().password_grants), (1, 1));
}

#[test]
fn every_failure_that_passes_is_survived() {
    for ranges in [false, true] {
        for fault in FAULTS {
            let site = Site::new();
            site.server.lock().ignores_ranges = !ranges;
            site.server.lock().faults = vec![fault];
            site.fetch().unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert_eq!(std::fs::read(site.target()).unwrap(), site.expected(), "{fault:?}");
            assert_eq!(site.server.count("/download/"), 2, "{fault:?}");
            // A cut costs no second time what was received where ranges work.
            let bytes = site.server.lock().bytes;
            if ranges && fault == Fault::Cut {
                assert!(bytes < 370_000, "{bytes} bytes");
            }
            let state = site.server.lock();
            let grants = (state.password_grants, state.refresh_grants);
            assert_eq!(grants, (1, usize::from(fault == Fault::TokenExpired)), "{fault:?}");
        }
    }
}

#[test]
fn what_another_run_received_is_used_if_the_file_is_the_same() {
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    let expected = site.expected();
    let part = site.target().with_file_name(format!("{NAME}.SAFE.zip.part"));
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, &expected[..150_000]).unwrap();
    let before = site.server.lock().bytes;
    site.fetch().unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), expected);
    let bytes = site.server.lock().bytes - before;
    assert!(bytes < expected.len() - 150_000 + 3000, "{bytes} bytes: only the rest came");

    // The part is of something else: the checksum tells, and the file comes whole.
    std::fs::remove_file(site.target()).unwrap();
    std::fs::write(&part, vec![b'P'; 150_000]).unwrap();
    site.fetch().unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), expected);

    // More is there than the file has.
    std::fs::remove_file(site.target()).unwrap();
    std::fs::write(&part, vec![b'P'; 300_000]).unwrap();
    site.fetch().unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), expected);
}

#[test]
fn a_file_that_is_replaced_between_two_tries_is_not_mixed() {
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    // Nothing but the version tells: there is no checksum.
    let first: Vec<u8> = vec![b'a'; 100_000];
    site.server.lock().files.insert("/file.bin".into(), Arc::new(first.clone()));
    let remote = Remote::new(site.server.at("/file.bin"));
    let target = site.folder.path().join("file.bin");
    std::fs::write(target.with_file_name("file.bin.part"), &first[..40_000]).unwrap();
    let record = json!({ "url": remote.url, "validator": "\"v0\"" }).to_string();
    std::fs::write(target.with_file_name("file.bin.part.json"), record).unwrap();
    let second: Vec<u8> = vec![b'b'; 90_000];
    site.server.lock().files.insert("/file.bin".into(), Arc::new(second.clone()));
    site.server.lock().version = 1;
    let fetched = site.downloader().fetch(&remote, &target, &|_| {}).unwrap();
    assert_eq!((std::fs::read(&target).unwrap() == second, fetched.checksum), (true, None));
}

#[test]
fn a_wrong_checksum_is_told_and_leaves_nothing() {
    let site = Site::new();
    site.server.lock().products[0].md5 = Some("0".repeat(32));
    let error = site.fetch().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Damaged { .. }), "{text}");
    assert!(
        text.contains("its checksum is MD5 ") && text.contains("the catalogue says MD5 000000"),
        "{text}"
    );
    assert!(!site.target().exists(), "nothing stands at the target");
    assert_eq!(site.server.count("/download/"), 2, "it is tried once more only");
}

#[test]
fn an_archive_without_checksum_is_checked_by_its_content() {
    let site = Site::new();
    site.server.lock().products[0].md5 = None;
    let fetched = site.fetch().unwrap();
    assert_eq!(fetched.checksum, None);
    // One byte of a file in it differs: CRC and manifest tell.
    let site = Site::new();
    let mut bytes = site.expected();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    {
        let mut state = site.server.lock();
        state.products[0].md5 = None;
        state.products[0].archive = Arc::new(bytes);
    }
    let text = site.fetch().unwrap_err().to_string();
    assert!(text.contains("band.bin"), "{text}");
    assert!(!site.target().exists(), "nothing stands at the target");
}

#[test]
fn processes_and_threads_share_one_token_and_four_connections() {
    let site = Site::new();
    let names: Vec<_> =
        (0..12).map(|n| NAME.replace("20200219T14", &format!("202002{:02}T14", n + 10))).collect();
    for (number, name) in names.iter().enumerate() {
        site.server.lock().products.push(Product::new(number + 1, name, archive(name, 50_000, number)));
    }
    site.server.lock().latency = Duration::from_millis(10);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            // Each with an account of its own, as processes have.
            scope.spawn(|| {
                let downloader = Downloader::new(&site.client).with_account(site.account(PASSWORD));
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let remote = site.odata().product(name).unwrap().unwrap().archive.unwrap();
                    let target = site.folder.path().join("archive").join(format!("{name}.SAFE.zip"));
                    downloader.fetch(&remote, &target, &|_| {}).unwrap();
                }
            });
        }
    });
    let state = site.server.lock();
    assert_eq!((state.password_grants, state.refresh_grants), (1, 0));
    assert!((2..=4).contains(&state.most_connections), "{} connections", state.most_connections);
    assert_eq!(
        state.requests.iter().filter(|line| line.contains("/download/")).count(),
        12,
        "none was refused"
    );
}

#[test]
fn two_that_want_the_same_file_fetch_it_once() {
    let site = Site::new();
    site.server.lock().latency = Duration::from_millis(20);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| site.fetch().unwrap().was_there)).collect();
        let there = threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(()));
        assert_eq!(there.count(), 3);
    });
    assert_eq!(site.server.count("/download/"), 1);
    assert_eq!(site.left(), [format!("{NAME}.SAFE.zip")]);
}

#[test]
fn a_short_lived_token_is_renewed_in_time_and_kept_from_others() {
    let site = Site::new();
    site.server.lock().token_life_s = 1;
    let remote = site.remote();
    let downloader = site.downloader();
    for _ in 0..3 {
        downloader.fetch(&remote, &site.target(), &|_| {}).unwrap();
        std::fs::remove_file(site.target()).unwrap();
        std::thread::sleep(Duration::from_millis(800));
    }
    let grants = |state: &server::State| (state.password_grants, state.refresh_grants);
    assert_eq!(grants(&site.server.lock()), (1, 2));
    assert_eq!(site.server.count("/download/"), 3, "no token was refused");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(site.folder.path().join("state")).unwrap() {
        files.extend(std::fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    #[cfg(unix)]
    for file in files.iter().filter(|file| file.ends_with("token.json")) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "others cannot read it");
    }
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains(PASSWORD) && !text.contains("horse"), "{}", file.display());
    }
}

#[test]
fn wrong_credentials_are_told_without_showing_them() {
    let site = Site::new();
    let remote = site.remote();
    let wrong = Downloader::new(&site.client).with_account(site.account("wrong horse"));
    let error = wrong.fetch(&remote, &site.target(), &|_| {}).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Credentials { .. }), "{text}");
    assert!(text.contains("Invalid user credentials") && !text.contains("horse"), "{text}");
    assert_eq!(site.server.lock().password_grants, 1, "a password that was refused is not tried again");
    let real = Remote::new("https://download.dataspace.copernicus.eu/odata/v1/Products(1)/$value");
    let text = Downloader::new(&site.client).fetch(&real, &site.target(), &|_| {}).unwrap_err().to_string();
    assert!(text.contains("CDSE_USERNAME"), "{text}");
}

#[test]
fn a_refusal_says_what_the_service_says() {
    let site = Site::new();
    let mut remote = site.remote();
    remote.url = remote.url.replace("000000000000)", "000000000099)");
    let error = site.downloader().fetch(&remote, &site.target(), &|_| {}).unwrap_err();
    assert!(matches!(error, Error::Refused { status: 404, .. }), "{error}");
    assert!(error.to_string().ends_with("answers 404: Product not found"), "{error}");
    assert_eq!(site.server.count("/download/"), 1);
}

#[test]
fn a_token_follows_a_redirection_but_not_to_strangers() {
    let site = Site::new();
    let other = Server::with(Arc::clone(&site.server.state));
    site.server.lock().download_host = Some(other.address.clone());
    let mut remote = site.remote();
    remote.url = remote.url.replace("/download/", "/catalogue/");
    site.downloader().fetch(&remote, &site.target(), &|_| {}).unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), site.expected());

    // The same server under another name than that of this machine is a stranger.
    let stranger = other.address.replace("127.0.0.1", "localhost") + "/foreign";
    site.server.lock().download_host = Some(stranger);
    std::fs::remove_file(site.target()).unwrap();
    let _ = site.downloader().fetch(&remote, &site.target(), &|_| {});
    assert!(site.server.count("/foreign/") > 0, "it was asked");
    assert_eq!(site.server.lock().leaked, 0, "without the token");
}

#[test]
fn patience_ends_with_the_last_problem() {
    let site = Site::new();
    site.server.lock().faults = vec![Fault::Status(503); 100];
    let error = site.fetch().unwrap_err();
    assert!(matches!(error, Error::GaveUp { tries: 8, .. }), "{error}");
    assert!(error.to_string().contains("HTTP 503: try later"), "{error}");
    let policy =
        RetryPolicy { run_retries: 3, first_wait: Duration::from_millis(1), ..RetryPolicy::default() };
    let poor = Site { client: Client::new(policy).unwrap(), ..Site::new() };
    poor.server.lock().faults = vec![Fault::Status(503); 100];
    let error = poor.fetch().unwrap_err().to_string();
    assert!(error.contains("number of retries is used up"), "{error}");
    let policy = RetryPolicy { run_time: Some(Duration::from_millis(50)), ..RetryPolicy::default() };
    let late = Site { client: Client::new(policy).unwrap(), ..Site::new() };
    late.server.lock().faults = vec![Fault::TooMany; 100];
    let start = Instant::now();
    let error = late.fetch().unwrap_err().to_string();
    assert!(error.contains("time is used up") && error.contains("Max session number"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "it does not wait for what cannot come");
    let nobody = Remote::new("http://127.0.0.1:9/file.bin");
    let error =
        Downloader::new(&client()).fetch(&nobody, &site.folder.path().join("x"), &|_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[test]
fn a_run_is_cancelled_soon_and_goes_on_later() {
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    site.server.lock().faults = vec![Fault::Stall];
    let patient = RetryPolicy { idle_timeout: Duration::from_secs(60), ..RetryPolicy::default() };
    let first = Site { client: Client::new(patient).unwrap(), ..Site::new() };
    let downloader = Downloader::new(&first.client).with_account(site.account(PASSWORD));
    let remote = site.remote();
    let cancelled = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let progress = |progress: s2_io::net::Progress| {
            if progress.received > 90_000 && !cancelled.swap(true, Ordering::Relaxed) {
                let client = first.client.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(300));
                    client.cancel();
                });
            }
        };
        let target = site.target();
        let fetch =
            scope.spawn(move || downloader.fetch(&remote, &target, &progress).unwrap_err().to_string());
        assert_eq!(fetch.join().unwrap(), "interrupted");
    });
    assert!(start.elapsed() < Duration::from_secs(10), "not after the stalled connection timed out");
    let part = site.target().with_file_name(format!("{NAME}.SAFE.zip.part"));
    let there = std::fs::metadata(&part).unwrap().len();
    assert!(there > 90_000, "half of it is there: {there}");
    // The server counts what it sent once it sees that the connection is closed.
    std::thread::sleep(Duration::from_millis(500));
    let before = site.server.lock().bytes;
    site.fetch().unwrap();
    assert!(site.server.lock().bytes - before < 150_000, "only the rest came");
    assert_eq!(std::fs::read(site.target()).unwrap(), site.expected());
}

#[test]
fn a_product_in_an_object_store_becomes_a_folder() {
    use object_store::ObjectStore;
    let site = Site::new();
    // The store is a local folder with an unpacked product in it.
    let root = site.folder.path().join("store");
    let packed = site.folder.path().join("packed.SAFE.zip");
    std::fs::write(&packed, site.expected()).unwrap();
    std::fs::create_dir_all(root.join("Sentinel-2")).unwrap();
    let source = s2_io::unpack(&packed, root.join("Sentinel-2")).unwrap();
    let store: Arc<dyn ObjectStore> =
        Arc::new(object_store::local::LocalFileSystem::new_with_prefix(&root).unwrap());
    let prefix = format!("Sentinel-2/{}", source.file_name().unwrap().to_str().unwrap());
    let target = site.folder.path().join("out").join(format!("{NAME}.SAFE"));
    // One file was cut off by an earlier run.
    let part = target.with_file_name(format!("{NAME}.SAFE.part")).join("GRANULE");
    std::fs::create_dir_all(&part).unwrap();
    let band = std::fs::read(source.join("GRANULE/band.bin")).unwrap();
    std::fs::write(part.join("band.bin.part"), &band[..70_000]).unwrap();
    let least = std::sync::Mutex::new(u64::MAX);
    let downloader = Downloader::new(&site.client);
    let progress = |progress: s2_io::net::Progress| {
        let mut least = least.lock().unwrap();
        *least = progress.received.min(*least);
    };
    downloader.fetch_folder(&store, &prefix, &target, &progress).unwrap();
    assert_eq!(std::fs::read(target.join("GRANULE/band.bin")).unwrap(), band);
    assert!(target.join("AUX_DATA").is_dir() && s2_io::verify(&target).is_ok(), "it is whole");

    // What differs from the manifest is not taken for a product.
    std::fs::write(source.join("GRANULE/band.bin"), vec![0; band.len()]).unwrap();
    let other = site.folder.path().join("other").join(format!("{NAME}.SAFE"));
    let error = downloader.fetch_folder(&store, &prefix, &other, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("band.bin") && !other.exists(), "{error}");
    let error = downloader.fetch_folder(&store, "nothing", &other, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("there is nothing at nothing"), "{error}");
}

#[test]
fn a_product_comes_from_s3_with_keys_of_its_own() {
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    let packed = site.folder.path().join("packed.SAFE.zip");
    std::fs::write(&packed, site.expected()).unwrap();
    let source = s2_io::unpack(&packed, site.folder.path()).unwrap();
    let root = format!("Sentinel-2/MSI/L2A/2020/02/19/{NAME}.SAFE");
    for file in ["manifest.safe", "MTD_MSIL2A.xml", "GRANULE/band.bin"] {
        let bytes = std::fs::read(source.join(file)).unwrap();
        site.server.lock().files.insert(format!("/eodata/{root}/{file}"), Arc::new(bytes));
    }
    // The catalogue names the folder.
    let item = site.odata().product(NAME).unwrap().unwrap();
    assert_eq!(item.folder.as_deref(), Some(&*format!("s3://eodata/Sentinel-2/MSI/{NAME}.SAFE")));
    let store = s2_io::net::eodata_at(&site.server.address, "key", "secret").unwrap();
    let target = site.folder.path().join("s3").join(format!("{NAME}.SAFE"));
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    Downloader::new(&site.client).fetch_folder(&store, &root, &target, &|_| {}).unwrap();
    assert!(s2_io::verify(&target).is_ok() && target.join("HTML").is_dir(), "it is whole");
    let stranger = s2_io::net::eodata_at(&site.server.address, "stranger", "secret").unwrap();
    let other = target.with_file_name("other.SAFE");
    let downloader = Downloader::new(&site.client);
    let text = downloader.fetch_folder(&stranger, &root, &other, &|_| {}).unwrap_err().to_string();
    assert!(text.contains("Access Denied") || text.contains("403"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
