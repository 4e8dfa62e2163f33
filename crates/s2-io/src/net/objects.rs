//! Products as folders of an object store: S3 of the Copernicus Data Space, buckets of one's own, local folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path as StorePath;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};

use super::{Downloader, Error, Progress, Result};
use crate::remote::wait;

/// Folders that products have and object stores lose, because there is nothing in them.
const EMPTY: [&str; 3] = ["AUX_DATA", "HTML", "rep_info"];
/// Bytes of an object that are in memory at once.
const PIECE: u64 = 8 << 20;

/// The Sentinel-2 archive of the Copernicus Data Space on S3, bucket `eodata`. It wants S3 keys of its own
/// (`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` in the environment), not the account's password.
///
/// # Errors
///
/// [`Error::Credentials`] when there are no keys.
pub fn eodata() -> Result<Arc<dyn ObjectStore>> {
    let key = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(id), Some(secret)) = (key("AWS_ACCESS_KEY_ID"), key("AWS_SECRET_ACCESS_KEY")) else {
        return Err(Error::credentials(
            "S3 of the Copernicus Data Space wants keys of its own: make them at \
             eodata-s3keysmanager.dataspace.copernicus.eu and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    };
    eodata_at("https://eodata.dataspace.copernicus.eu", &id, &secret)
}

/// The same bucket behind another endpoint: a mirror, or a server of a test. TLS is wanted, but on this machine.
///
/// # Errors
///
/// When the endpoint is none.
pub fn eodata_at(endpoint: &str, id: &str, secret: &str) -> Result<Arc<dyn ObjectStore>> {
    let store = AmazonS3Builder::new()
        .with_allow_http(endpoint.starts_with("http://127.0.0.1:"))
        .with_endpoint(endpoint)
        .with_bucket_name("eodata")
        .with_region("default")
        .with_virtual_hosted_style_request(false)
        .with_access_key_id(id)
        .with_secret_access_key(secret);
    Ok(Arc::new(store.build().map_err(|error| Error::query(format!("cannot use S3: {error}")))?))
}

impl Downloader {
    /// Brings a product that is a folder of an object store, `prefix` being its path there, to `target`, unless it is
    /// there; then checks it against its manifest.
    ///
    /// Files that were brought before stay; one that was cut off goes on where it stopped, if it is still the same in
    /// the store. Until all are there the folder has `.part` at the end of its name.
    ///
    /// # Errors
    ///
    /// There is no such folder, the store cannot be reached, the disk cannot be written, or the product is damaged.
    pub fn fetch_folder(
        &self,
        store: &Arc<dyn ObjectStore>,
        prefix: &str,
        target: &Path,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<PathBuf> {
        if target.is_dir() {
            return Ok(target.to_owned());
        }
        let part = target
            .with_file_name(format!("{}.part", target.file_name().unwrap_or_default().to_string_lossy()));
        let failed = |path: &Path, source| Error::Io { what: "write", path: path.to_owned(), source };
        let prefix = StorePath::from(prefix.trim_matches('/'));
        let (asked, at) = (Arc::clone(store), prefix.clone());
        let list = async move {
            let mut folders = vec![at];
            let mut objects: Vec<ObjectMeta> = Vec::new();
            while let Some(folder) = folders.pop() {
                let found = asked.list_with_delimiter(Some(&folder)).await?;
                folders.extend(found.common_prefixes);
                objects.extend(found.objects);
            }
            Ok(objects)
        };
        let answer = |source| Error::Answer { url: prefix.to_string(), problem: chain(&source) };
        let mut objects = wait(list).map_err(answer)?;
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        // Keys that end in `/` are folders without anything in them.
        let total: u64 = objects.iter().map(|object| object.size).sum();
        if total == 0 {
            return Err(Error::query(format!("there is nothing at {prefix}")));
        }
        std::fs::create_dir_all(&part).map_err(|source| failed(&part, source))?;
        super::download::space(&part, total)?;
        let mut received = 0;
        for object in &objects {
            let Some(relative) = object.location.as_ref().strip_prefix(prefix.as_ref()) else { continue };
            let relative = relative.trim_start_matches('/');
            if relative.is_empty() || !crate::safe::is_inside(relative) {
                continue;
            }
            let path = part.join(relative);
            let folder = crate::store::folder_of(&path);
            std::fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
            if std::fs::metadata(&path).is_ok_and(|found| found.len() == object.size) {
                received += object.size;
                continue;
            }
            let before = received;
            self.fetch_object(store, object, &path, &mut |bytes| {
                received = before + bytes;
                progress(Progress { received, total: Some(total) });
            })?;
            received = before + object.size;
        }
        for folder in EMPTY {
            let folder = part.join(folder);
            std::fs::create_dir_all(&folder).map_err(|source| failed(&folder, source))?;
        }
        crate::verify(&part)?;
        std::fs::rename(&part, target).map_err(|source| failed(target, source))?;
        Ok(target.to_owned())
    }

    /// Brings one object, piece by piece.
    fn fetch_object(
        &self,
        store: &Arc<dyn ObjectStore>,
        object: &ObjectMeta,
        path: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let remote = Object { store, object };
        let part =
            path.with_file_name(format!("{}.part", path.file_name().unwrap_or_default().to_string_lossy()));
        let failed = |source| Error::Io { what: "write", path: part.clone(), source };
        let mut file = std::fs::File::options().create(true).append(true).open(&part).map_err(failed)?;
        let mut at = file.metadata().map_err(failed)?.len();
        // Nothing would tell whether an older part is of this version, but for its length.
        if at > object.size || object.e_tag.is_none() {
            file.set_len(0).map_err(failed)?;
            at = 0;
        }
        while at < object.size {
            self.client().check()?;
            let bytes = remote.piece(at)?;
            std::io::Write::write_all(&mut file, &bytes).map_err(failed)?;
            at += bytes.len() as u64;
            progress(at);
        }
        file.sync_all().and_then(|()| std::fs::rename(&part, path)).map_err(failed)
    }
}

struct Object<'a> {
    store: &'a Arc<dyn ObjectStore>,
    object: &'a ObjectMeta,
}

impl Object<'_> {
    fn piece(&self, at: u64) -> Result<Vec<u8>> {
        let end = (at + PIECE).min(self.object.size);
        let options = GetOptions {
            range: Some(GetRange::Bounded(at..end)),
            if_match: self.object.e_tag.clone(),
            ..GetOptions::default()
        };
        let (store, path) = (Arc::clone(self.store), self.object.location.clone());
        let bytes = wait(async move { store.get_opts(&path, options).await?.bytes().await });
        let problem = match bytes {
            Ok(bytes) if bytes.len() as u64 == end - at => return Ok(bytes.into()),
            Ok(bytes) => format!("{} bytes came instead of {}", bytes.len(), end - at),
            Err(error) => chain(&error),
        };
        Err(Error::Answer { url: self.object.location.to_string(), problem })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
