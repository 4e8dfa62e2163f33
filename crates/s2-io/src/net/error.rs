//! What can go wrong between here and a service.

use std::path::PathBuf;

/// The result of this module's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be found or brought. Addresses are shown without what follows a `?`, where secrets may be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A query cannot be asked.
    #[error("{problem}")]
    Query {
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Credentials are missing, of the wrong kind, or refused.
    #[error("{problem}")]
    Credentials {
        /// Which are needed, and where they are looked for.
        problem: String,
    },
    /// A service refuses a request, and will again.
    #[error("{url} answers {status}: {problem}")]
    Refused {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the service says of it.
        problem: String,
    },
    /// Trying again did not help.
    #[error("gave up {url} after {tries} tries; the last one: {problem}")]
    GaveUp {
        /// What was asked for.
        url: String,
        /// How often.
        tries: u32,
        /// Why the last one failed.
        problem: String,
    },
    /// The time or the tries of a run are used up.
    #[error("stopped at {url}: the run's {budget} is used up; the last failure: {problem}")]
    Budget {
        /// What was asked for.
        url: String,
        /// Which budget.
        budget: &'static str,
        /// Why the last try failed.
        problem: String,
    },
    /// An answer is not what the service documents.
    #[error("cannot understand the answer of {url}: {problem}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A product has to be restored from an archive before it can be downloaded.
    #[error("{name} is offline: it has to be restored first; keep it in an archive list and ask again")]
    Offline {
        /// The product.
        name: String,
    },
    /// What came is not what the catalogue promised.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file that was to be.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A file or folder could not be used.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
    /// [`Client::cancel`](super::Client::cancel) was called.
    #[error("interrupted")]
    Interrupted,
    /// A raster or product could not be read or written.
    #[error(transparent)]
    Product(#[from] crate::Error),
}

impl Error {
    pub(super) fn query(problem: impl Into<String>) -> Self {
        Self::Query { problem: problem.into() }
    }

    pub(super) fn credentials(problem: impl Into<String>) -> Self {
        Self::Credentials { problem: problem.into() }
    }
}
