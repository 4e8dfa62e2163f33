//! Places that processes share: as many connections as an account may have.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Client, Error, Result};

const POLL: Duration = Duration::from_millis(20);

/// A place taken; dropping it, or the end of the process, gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    _lock: File,
}

/// Waits for one of `count` places, which are locks on files of a folder.
pub(super) fn take(client: &Client, folder: &Path, count: usize) -> Result<Slot> {
    loop {
        for slot in 0..count {
            if let Some(lock) = try_lock(&folder.join(format!("connection-{slot}.lock")))? {
                return Ok(Slot { _lock: lock });
            }
        }
        client.sleep(POLL)?;
    }
}

/// Waits for a lock of its own.
pub(super) fn lock(client: &Client, path: &Path) -> Result<File> {
    loop {
        if let Some(lock) = try_lock(path)? {
            return Ok(lock);
        }
        client.sleep(POLL)?;
    }
}

pub(super) fn try_lock(path: &Path) -> Result<Option<File>> {
    let failed = |source| Error::Io { what: "lock", path: path.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Where what processes share is kept: `XDG_STATE_HOME`, the state folder of the home, or that of temporary files.
pub(super) fn state_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || Some(variable("HOME")?.join(".local").join("state"));
    variable("XDG_STATE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir).join("s2-io")
}
