//! What each service answers: identity, catalogues, downloads, orders, object store.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::http::{Answer, Request, encode, pairs};
use super::{FAULTS, Fault, PASSWORD, State, USER};

pub(super) fn answer(state: &mut State, request: &Request, here: &str, active: usize) -> Answer {
    if state.maintenance {
        let page =
            b"<!DOCTYPE html>\n<html><head><title>Scheduled maintenance</title></head></html>".to_vec();
        return Answer::bytes(200, "text/html", page);
    }
    let path = request.path.as_str();
    if path == "/identity/token" {
        return token(state, request);
    }
    if path == "/catalogue/odata/v1/Products" {
        return products(state, request, here);
    }
    if let Some(id) = between(path, "/catalogue/odata/v1/Products(", ")/$value") {
        let host = state.download_host.clone().unwrap_or_else(|| here.to_owned());
        let target = format!("{host}/download/odata/v1/Products({id})/$value");
        return Answer::bytes(301, "text/plain", Vec::new()).with("Location", &target);
    }
    if let Some(id) = between(path, "/catalogue/odata/v1/Products(", ")/OData.CSC.Order") {
        return order(state, request, id);
    }
    if path == "/catalogue/odata/v1/Orders" {
        let filter = request.get("$filter").unwrap_or_default();
        let id = filter.strip_prefix("Id eq ").unwrap_or_default().trim_matches('\'').to_owned();
        let value: Vec<_> = state
            .order_states
            .get(&id)
            .map(|status| json!({ "Id": id, "Status": status }))
            .into_iter()
            .collect();
        return Answer::json(200, &json!({ "value": value }));
    }
    if let Some(id) = between(path, "/download/odata/v1/Products(", ")/$value") {
        return download(state, request, id, active);
    }
    if let Some(id) = between(path, "/dhus/odata/v1/Products('", "')/$value") {
        return old_hub(state, request, id, false);
    }
    if let Some(id) = between(path, "/dhus/odata/v1/Products('", "')/Online/$value") {
        return old_hub(state, request, id, true);
    }
    if path.starts_with("/foreign/") {
        state.leaked += usize::from(request.header("authorization").is_some());
        return Answer::bytes(200, "application/zip", b"PK\x03\x04".to_vec());
    }
    if let Some(key) = path.strip_prefix("/eodata") {
        return bucket(state, request, key.trim_start_matches('/'));
    }
    if path.ends_with("/search") {
        return search(state, request, here);
    }
    if path.contains("/sas/token/") {
        let expiry = chrono::Utc::now()
            + chrono::Duration::seconds(state.clock_ahead)
            + chrono::Duration::seconds(state.signature_life_s);
        let token = format!("st=x&se=y&sig={}", state.signatures.len());
        state.signatures.insert(token.clone());
        return Answer::json(200, &json!({ "msft:expiry": expiry.to_rfc3339(), "token": token }));
    }
    file(state, request)
}

fn between<'a>(path: &'a str, start: &str, end: &str) -> Option<&'a str> {
    path.strip_prefix(start)?.strip_suffix(end)
}

fn token(state: &mut State, request: &Request) -> Answer {
    let form: HashMap<_, _> = pairs(&String::from_utf8_lossy(&request.body)).into_iter().collect();
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let known = match field("grant_type") {
        "password" => {
            state.password_grants += 1;
            field("username") == USER && field("password") == PASSWORD
        }
        "refresh_token" => {
            state.refresh_grants += 1;
            // Each serves once.
            state.refreshes.remove(field("refresh_token"))
        }
        _ => false,
    };
    if !known || field("client_id") != "cdse-public" {
        let text = json!({ "error": "invalid_grant", "error_description": "Invalid user credentials" });
        return Answer::json(401, &text);
    }
    let number = state.password_grants + state.refresh_grants;
    let (access, refresh) = (format!("access-{number}"), format!("refresh-{number}"));
    let life = Duration::from_secs(state.token_life_s);
    state.tokens.insert(access.clone(), Instant::now() + life);
    state.refreshes.insert(refresh.clone());
    let life = state.token_life_s;
    Answer::json(
        200,
        &json!({ "access_token": access, "expires_in": life, "refresh_expires_in": 6 * life, "refresh_token": refresh,
            "token_type": "Bearer", "not-before-policy": 0, "scope": "profile" }),
    )
}

fn refused(state: &State, request: &Request) -> Option<Answer> {
    let Some(token) = request.header("authorization").and_then(|text| text.strip_prefix("Bearer ")) else {
        return Some(Answer::code(401, "DAT-ZIP-604", "Token not found"));
    };
    match state.tokens.get(token) {
        None if token.starts_with("sh-") => {
            Some(Answer::code(401, "DAT-ZIP-609", "Token audience not allowed"))
        }
        Some(until) if *until > Instant::now() => None,
        _ => Some(Answer::code(401, "DAT-ZIP-109", "Token expired")),
    }
}

fn products(state: &mut State, request: &Request, here: &str) -> Answer {
    let filter = request.get("$filter").unwrap_or_default().to_owned();
    let number = |key| request.get(key).and_then(|text| text.parse::<usize>().ok());
    let (top, skip) = (number("$top").unwrap_or(20).min(state.page), number("$skip").unwrap_or(0));
    if skip > 10_000 {
        let detail = json!([{ "type": "less_than_equal", "loc": ["query", "$skip"],
            "msg": "Input should be less than or equal to 10000", "input": skip.to_string() }]);
        return Answer::json(422, &json!({ "detail": detail }));
    }
    let with_id = filter.strip_prefix("Id eq '").and_then(|rest| rest.strip_suffix('\'')).map(str::to_owned);
    let named = filter.strip_prefix("Name eq '").and_then(|rest| rest.strip_suffix('\'')).map(str::to_owned);
    let tile = filter.split("att/Name eq 'tileId'").nth(1).and_then(|rest| rest.split('\'').nth(1));
    let after = |key: &str| {
        let at = filter.find(key)? + key.len();
        chrono::DateTime::parse_from_rfc3339(filter[at..].split(' ').next()?).ok()
    };
    let (least, most) = (after("ContentDate/Start ge "), after("ContentDate/Start lt "));
    let level = if filter.contains("S2MSI1C") { "MSIL1C" } else { "MSIL2A" };
    let mut found = Vec::new();
    for product in &state.products {
        let parts: Vec<_> = product.name.split('_').collect();
        let start = chrono::NaiveDateTime::parse_from_str(parts[2], "%Y%m%dT%H%M%S").unwrap().and_utc();
        let taken = match (&named, &with_id) {
            (Some(name), _) => *name == format!("{}.SAFE", product.name),
            (None, Some(id)) => *id == product.id,
            (None, None) => {
                parts[1] == level
                    && tile.is_none_or(|tile| parts[5] == format!("T{tile}"))
                    && least.is_none_or(|least| start >= least)
                    && most.is_none_or(|most| start < most)
            }
        };
        if taken {
            found.push((start, product.clone()));
        }
    }
    found.sort_by_key(|(start, _)| *start);
    let count = found.len();
    let mut value = Vec::new();
    for (start, product) in found.into_iter().skip(skip).take(top) {
        let polls = state.polls.entry(product.id.clone()).or_default();
        *polls += 1;
        let online = product.offline_polls.is_some_and(|offline| *polls > offline);
        // Old records have 3 digits, new ones 6.
        let digits = if value.len() % 2 == 0 { "%Y-%m-%dT%H:%M:%S.%3fZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
        let date = start.format(digits).to_string();
        let checksum = match &product.md5 {
            Some(md5) => json!([{ "Value": md5, "Algorithm": "MD5", "ChecksumDate": date },
                { "Value": "00".repeat(32), "Algorithm": "BLAKE3", "ChecksumDate": date }]),
            None => json!([{}]),
        };
        value.push(json!({
            "@odata.mediaContentType": "application/octet-stream", "Id": product.id,
            "Name": format!("{}.SAFE", product.name), "ContentLength": product.archive.len() - 35, "Online": online,
            "S3Path": format!("/eodata/Sentinel-2/MSI/{}.SAFE", product.name), "Checksum": checksum,
            "ContentDate": { "Start": date, "End": date },
            "GeoFootprint": { "type": "Polygon", "coordinates": [[[-9, 29], [-8, 29], [-8, 30], [-9, 30], [-9, 29]]] },
            "Attributes": [
                { "@odata.type": "#OData.CSC.DoubleAttribute", "Name": "cloudCover", "Value": 3.5, "ValueType": "Double" },
                { "@odata.type": "#OData.CSC.StringAttribute", "Name": "processorVersion", "Value": "05.09" }
            ],
        }));
    }
    let mut answer = json!({ "@odata.context": "$metadata#Products(Attributes())", "value": value });
    if skip + top < count && skip + top <= 10_000 {
        let mut next = format!("{here}/catalogue/odata/v1/Products?%24skip={}", skip + top);
        for (key, value) in request.query.iter().filter(|(key, _)| key != "$skip") {
            let _ = write!(next, "&{}={}", encode(key), encode(value));
        }
        answer["@odata.nextLink"] = json!(next);
    }
    Answer::json(200, &answer)
}

fn download(state: &mut State, request: &Request, id: &str, active: usize) -> Answer {
    if request.method == "HEAD" {
        return Answer::bytes(405, "text/plain", Vec::new());
    }
    if let Some(answer) = refused(state, request) {
        return answer;
    }
    if active > 4 {
        return Answer::code(429, "DAT-ZIP-100", "Max session number 4 exceeded.");
    }
    let product = state.products.iter().find(|product| product.id == id && !state.gone.contains(id)).cloned();
    let Some(product) = product else {
        return Answer::code(404, "DAT-ZIP-001", "Product not found");
    };
    let fault = if state.faults.is_empty() {
        // A fraction of thousand, and one fault in turn.
        let fails = state.random() % 1000 < state.failures_of_1000;
        fails.then(|| FAULTS[state.random() % FAULTS.len()])
    } else {
        Some(state.faults.remove(0))
    };
    match fault {
        Some(Fault::Status(status)) => return Answer::bytes(status, "text/plain", b"try later".to_vec()),
        Some(Fault::TooMany) => return Answer::code(429, "DAT-ZIP-100", "Max session number 4 exceeded."),
        Some(Fault::Html) => {
            let page = b"<html><head><title>Maintenance</title></head></html>".to_vec();
            return Answer::bytes(200, "text/html", page);
        }
        Some(Fault::Json) => return Answer::code(200, "DAT-ZIP-500", "Internal trouble"),
        Some(Fault::TokenExpired) => {
            let token = request.header("authorization").unwrap_or_default().trim_start_matches("Bearer ");
            state.tokens_lost += usize::from(state.tokens.remove(token).is_some());
            return Answer::code(401, "DAT-ZIP-109", "Token expired");
        }
        _ => {}
    }
    if fault.is_none() {
        *state.served.entry(product.name.clone()).or_default() += 1;
    }
    let name = format!("attachment; filename={}.zip", product.name);
    let answer = ranged(state, request, product.archive).with("Content-Disposition", &name);
    Answer { fault, ..answer }
}

/// A file, or the range of it that is asked for.
fn ranged(state: &State, request: &Request, body: Arc<Vec<u8>>) -> Answer {
    let e_tag = format!("\"v{}\"", state.version);
    if request.header("if-match").is_some_and(|asked| asked != e_tag) {
        return Answer::bytes(412, "text/plain", Vec::new());
    }
    let size = body.len();
    let same = request.header("if-range").is_none_or(|asked| asked == e_tag);
    let range = request.header("range").filter(|_| same && !state.ignores_ranges).and_then(|text| {
        let (start, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let start = start.parse::<usize>().ok()?;
        Some((start, last.parse::<usize>().map_or(size, |last| (last + 1).min(size))))
    });
    let (status, range) = match range {
        Some((start, _)) if start >= size => return Answer::bytes(416, "text/plain", Vec::new()),
        Some(range) => (206, range),
        None => (200, (0, size)),
    };
    let mut headers = vec![("Content-Type".to_owned(), "application/octet-stream".to_owned())];
    if status == 206 {
        headers.push(("Content-Range".to_owned(), format!("bytes {}-{}/{size}", range.0, range.1 - 1)));
    }
    if !state.ignores_ranges {
        headers.push(("ETag".to_owned(), e_tag));
    }
    Answer { status, headers, body, range, fault: None }
}

fn file(state: &mut State, request: &Request) -> Answer {
    let Some(body) = state.files.get(&request.path).cloned() else {
        return Answer::json(404, &json!({ "message": "no such file" }));
    };
    if request.path.starts_with("/blob/") {
        let signed = request.query.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&");
        if !state.signatures.contains(&signed) {
            return Answer::bytes(403, "text/plain", b"AuthenticationFailed: signature not valid".to_vec());
        }
    }
    ranged(state, request, body)
}

/// Pages of STAC, with the next one as Earth Search links it (POST), or as a GET.
fn search(state: &mut State, request: &Request, here: &str) -> Answer {
    let body = request.json();
    let by_get = request.method == "GET";
    let next = if by_get {
        request.get("next").map(str::to_owned)
    } else {
        body["next"].as_str().map(str::to_owned)
    };
    let start = next.and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let end = (start + state.page).min(state.features.len());
    let features = state.features.get(start..end).unwrap_or_default().to_vec();
    let mut links = vec![json!({ "rel": "root", "href": here })];
    // One more page is linked than there is: Earth Search does so.
    if !features.is_empty() {
        links.push(if request.path.starts_with("/pc/") {
            json!({ "rel": "next", "method": "GET", "href": format!("{here}/pc/search?next={end}") })
        } else {
            let mut body = body;
            body["next"] = json!(end.to_string());
            json!({ "rel": "next", "method": "POST", "href": format!("{here}/es/search"), "merge": false, "body": body })
        });
    }
    let page = json!({ "type": "FeatureCollection", "features": features, "links": links });
    Answer::json(200, &page)
}

/// A bucket of S3: lists of keys below a prefix, folder by folder, and objects; only for requests that are signed.
fn bucket(state: &mut State, request: &Request, key: &str) -> Answer {
    let signed = request.header("authorization").is_some_and(|text| {
        text.starts_with("AWS4-HMAC-SHA256 Credential=key/") && text.contains("/default/s3/aws4_request")
    });
    if !signed {
        let text = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        return Answer::bytes(403, "application/xml", text.into());
    }
    if !key.is_empty() {
        let name = format!("/eodata/{key}");
        return match state.files.get(&name).cloned() {
            Some(body) => ranged(state, request, body).with("Last-Modified", "Wed, 19 Feb 2020 14:00:00 GMT"),
            None => Answer::bytes(404, "application/xml", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        };
    }
    let prefix = request.get("prefix").unwrap_or_default();
    let (mut folders, mut objects) = (std::collections::BTreeSet::new(), String::new());
    for (name, body) in &state.files {
        let Some(rest) = name.strip_prefix("/eodata/").and_then(|key| key.strip_prefix(prefix)) else {
            continue;
        };
        match rest.split_once('/') {
            Some((folder, _)) => drop(folders.insert(format!("{prefix}{folder}/"))),
            None => {
                let _ = write!(
                    objects,
                    "<Contents><Key>{prefix}{rest}</Key><LastModified>2020-02-19T14:00:00.000Z</LastModified>\
                     <ETag>&quot;v{}&quot;</ETag><Size>{}</Size></Contents>",
                    state.version,
                    body.len()
                );
            }
        }
    }
    let folders: String = folders
        .iter()
        .map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"))
        .collect();
    let list = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>eodata</Name><Prefix>{prefix}</Prefix>\
         <IsTruncated>false</IsTruncated>{objects}{folders}</ListBucketResult>"
    );
    Answer::bytes(200, "application/xml", list.into_bytes())
}

/// Orders of the Long Term Archive's interface.
fn order(state: &mut State, request: &Request, id: &str) -> Answer {
    if let Some(answer) = refused(state, request) {
        return answer;
    }
    state.orders.push(id.to_owned());
    let number = format!("{}", 9_000 + state.orders.len());
    state.order_states.insert(number.clone(), "queued".to_owned());
    Answer::json(201, &json!({ "Id": number, "Status": "queued", "Priority": 50 }))
}

/// The hub before CDSE: asking for an offline product orders it.
fn old_hub(state: &mut State, request: &Request, id: &str, asks_only: bool) -> Answer {
    if request.header("authorization").is_none() {
        return Answer::bytes(401, "text/plain", Vec::new());
    }
    let Some(product) = state.products.iter().find(|product| product.id == id).cloned() else {
        return Answer::bytes(404, "text/plain", b"InvalidKeyException".to_vec());
    };
    let polls = state.polls.entry(product.id.clone()).or_default();
    *polls += usize::from(asks_only);
    let online = product.offline_polls.is_some_and(|offline| *polls > offline);
    if asks_only {
        return Answer::bytes(200, "text/plain", online.to_string().into_bytes());
    }
    if online {
        return ranged(state, request, product.archive);
    }
    if state.orders.len() >= 20 {
        let text =
            "User 'me' offline products retrieval quota exceeded (20 fetches max) trying to fetch product";
        return Answer::bytes(403, "text/plain", Vec::new()).with("cause-message", text);
    }
    state.orders.push(id.to_owned());
    Answer::bytes(202, "text/plain", Vec::new())
}
