//! Accounts of the Copernicus Data Space: credentials, and the one token that all processes share.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::http::{Ask, Body};
use super::slots::{self, Slot};
use super::{Client, Error, Result};
use crate::{Algorithm, Checksum};

const IDENTITY: &str =
    "https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/token";
/// A token goes to no other hosts than these and what is below them.
const SITE: &str = "dataspace.copernicus.eu";
/// Copernicus General User (Quotas of the Data Space's documentation).
const CONNECTIONS: usize = 4;
/// A token is renewed so long before its end, but at most a quarter of its life.
const MARGIN: Duration = Duration::from_secs(60);

/// User name and password. They are shown nowhere, not by `Debug` either.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: String,
    /// One-time password of accounts with a second factor.
    totp: Option<String>,
    /// Where they are from, for messages.
    origin: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Takes a user name and a password.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into(), totp: None, origin: "the program".to_owned() }
    }

    /// Looks for the credentials of the Copernicus Data Space: `CDSE_USERNAME` and `CDSE_PASSWORD` (and `CDSE_TOTP`)
    /// in the environment, then `machine identity.dataspace.copernicus.eu` or `machine dataspace.copernicus.eu` in
    /// the file that `NETRC` names, or `.netrc` in the home folder.
    ///
    /// # Errors
    ///
    /// [`Error::Credentials`] when there are none, or none of the kind that downloads want; it says which are needed.
    pub fn find() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = || Some(Path::new(&variable("HOME")?).join(".netrc"));
        let netrc = variable("NETRC").map(PathBuf::from).or_else(home);
        Self::look(variable, netrc.as_deref())
    }

    /// Adds them to a request as they are.
    pub(super) fn basic(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        request.basic_auth(&self.user, Some(&self.password))
    }

    fn look(variable: impl Fn(&str) -> Option<String>, netrc: Option<&Path>) -> Result<Self> {
        let found = match (variable("CDSE_USERNAME"), variable("CDSE_PASSWORD")) {
            (Some(user), Some(password)) => Some((user, password, "CDSE_USERNAME".to_owned())),
            (Some(_), None) => {
                return Err(Error::credentials("CDSE_USERNAME is set, but CDSE_PASSWORD is not: set both"));
            }
            (None, Some(_)) => {
                return Err(Error::credentials("CDSE_PASSWORD is set, but CDSE_USERNAME is not: set both"));
            }
            (None, None) => None,
        };
        let in_netrc = || {
            let path = netrc?;
            let text = std::fs::read_to_string(path).ok()?;
            let (user, password) = machine(&text, &["identity.dataspace.copernicus.eu", SITE])?;
            Some((user, password, path.display().to_string()))
        };
        let Some((user, password, origin)) = found.or_else(in_netrc) else {
            let other = ["AWS_ACCESS_KEY_ID", "SH_CLIENT_ID", "CDSE_CLIENT_ID"];
            let wrong = other.iter().find(|name| variable(name).is_some()).map_or(String::new(), |name| {
                format!(" ({name} is set, but that is another kind of credential)")
            });
            return Err(Error::credentials(format!(
                "downloads from the Copernicus Data Space want the user name and password of an account \
                 (dataspace.copernicus.eu, free of charge): set CDSE_USERNAME and CDSE_PASSWORD, or write \"machine \
                 identity.dataspace.copernicus.eu login … password …\" into .netrc{wrong}"
            )));
        };
        if user.starts_with("sh-") {
            return Err(Error::credentials(format!(
                "the user name in {origin} is an OAuth client of Sentinel Hub (sh-…): downloads want the user name \
                 (an e-mail address) and password of the account"
            )));
        }
        Ok(Self { user, password, totp: variable("CDSE_TOTP"), origin })
    }
}

/// Login and password of the first of some machines in a `.netrc` file (the format of `ftp(1)`).
fn machine(text: &str, machines: &[&str]) -> Option<(String, String)> {
    // A macro runs to the next empty line; what it holds are no credentials.
    let mut in_macro = false;
    let words = text.lines().flat_map(|line| {
        in_macro = (in_macro || line.trim_start().starts_with("macdef")) && !line.trim().is_empty();
        let line = if in_macro || line.trim_start().starts_with('#') { "" } else { line };
        line.split_whitespace()
    });
    let mut entries: Vec<(&str, Option<&str>, Option<&str>)> = Vec::new();
    let mut words = words;
    while let Some(word) = words.next() {
        match word {
            "machine" => entries.push((words.next()?, None, None)),
            "default" => entries.push(("", None, None)),
            "login" => entries.last_mut()?.1 = words.next(),
            "password" => entries.last_mut()?.2 = words.next(),
            "account" => drop(words.next()),
            _ => {}
        }
    }
    machines.iter().find_map(|machine| match entries.iter().find(|entry| entry.0 == *machine)? {
        (_, Some(login), Some(password)) => Some(((*login).to_owned(), (*password).to_owned())),
        _ => None,
    })
}

/// An account of the Copernicus Data Space.
///
/// All processes of a user share one token and the account's four connections, through files in the state folder
/// (`XDG_STATE_HOME`, else `~/.local/state`, then `s2-io`). The token's file can be read by its owner only; the
/// password is never written.
#[derive(Clone, Debug)]
pub struct Account {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    credentials: Credentials,
    identity: Url,
    folder: PathBuf,
    connections: usize,
    token: Mutex<Option<Token>>,
}

/// A token and the one that renews it, with their times. They are counted from when they came, by the clock of this
/// machine, so that a wrong clock does no harm.
#[derive(Clone, Deserialize, Serialize)]
struct Token {
    access_token: String,
    expires_in: u64,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    refresh_expires_in: u64,
    /// Seconds since 1970.
    #[serde(default)]
    came: f64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl Token {
    fn lives(&self, seconds: u64) -> bool {
        let life = Duration::from_secs(seconds);
        let margin = MARGIN.min(life / 4);
        // A clock that was set back makes ages negative: the token counts as old.
        Duration::try_from_secs_f64(now() - self.came).is_ok_and(|age| age + margin < life)
    }

    fn good(&self, refused: Option<&str>) -> bool {
        self.lives(self.expires_in) && refused != Some(&*self.access_token)
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Account {
    /// The account of these credentials.
    ///
    /// # Errors
    ///
    /// When the state folder cannot be made.
    pub fn new(credentials: Credentials) -> Result<Self> {
        Self::at(credentials, IDENTITY, &slots::state_folder())
    }

    /// The same with another token endpoint (of a mirror, or of a test) and another folder for what processes share.
    ///
    /// # Errors
    ///
    /// When the address is none, or the folder cannot be made.
    pub fn at(credentials: Credentials, identity: &str, state_folder: &Path) -> Result<Self> {
        let identity = Url::parse(identity)
            .map_err(|error| Error::query(format!("{identity:?} is no address: {error}")))?;
        let key = Checksum::of(Algorithm::Sha256, format!("{identity} {}", credentials.user).as_bytes());
        let key = key.map(|sum| sum.hex()).unwrap_or_default();
        let folder = state_folder.join(&key[..key.len().min(16)]);
        std::fs::create_dir_all(&folder).map_err(|source| Error::Io {
            what: "make",
            path: folder.clone(),
            source,
        })?;
        let token = Mutex::default();
        let shared = Shared { credentials, identity, folder, connections: CONNECTIONS, token };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Waits for one of the account's connections.
    pub(super) fn connection(&self, client: &Client) -> Result<Slot> {
        slots::take(client, &self.shared.folder, self.shared.connections)
    }

    /// Whether a host may see the token: one of the site that gives it, over TLS. A token that a server on this machine
    /// gave may go to other servers on this machine without.
    pub(super) fn trusts(&self, url: &Url) -> bool {
        if is_loopback(&self.shared.identity) {
            return is_loopback(url);
        }
        let name = url.host_str().unwrap_or_default();
        let site = Some(name) == self.shared.identity.host_str();
        url.scheme() == "https" && (site || name == SITE || name.ends_with(&format!(".{SITE}")))
    }

    /// A token that lives for a while yet and is not the one that was refused. One caller fetches it, the others wait.
    pub(super) fn token(&self, client: &Client, refused: Option<&str>) -> Result<String> {
        let shared = &self.shared;
        let mut mine = shared.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = mine.as_ref().filter(|token| token.good(refused)) {
            return Ok(token.access_token.clone());
        }
        let path = shared.folder.join("token.json");
        let _lock = slots::lock(client, &shared.folder.join("token.lock"))?;
        let stored = std::fs::read(&path).ok().and_then(|json| serde_json::from_slice::<Token>(&json).ok());
        let token = match stored {
            Some(token) if token.good(refused) => token,
            last => {
                let token = self.fetch(client, last.or_else(|| mine.take()))?;
                // Others fetch one of their own where this one cannot be kept.
                if let Err(error) = keep(&path, &token) {
                    tracing::warn!("{}: the token cannot be shared: {error}", path.display());
                }
                token
            }
        };
        Ok(mine.insert(token).access_token.clone())
    }

    fn fetch(&self, client: &Client, last: Option<Token>) -> Result<Token> {
        let credentials = &self.shared.credentials;
        let refresh = last.filter(|last| last.lives(last.refresh_expires_in));
        if let Some(refresh) = refresh.and_then(|last| last.refresh_token) {
            let form = vec![("grant_type", "refresh_token".to_owned()), ("refresh_token", refresh)];
            match self.ask(client, form) {
                // Sessions end on the server, too: then the password helps.
                Err(Error::Refused { status: 400 | 401, .. }) => {}
                answer => return answer,
            }
        }
        let mut form = vec![
            ("grant_type", "password".to_owned()),
            ("username", credentials.user.clone()),
            ("password", credentials.password.clone()),
        ];
        form.extend(credentials.totp.clone().map(|totp| ("totp", totp)));
        self.ask(client, form).map_err(|error| match error {
            Error::Refused { status: 400 | 401, problem, url } => Error::credentials(format!(
                "{url} refuses user name and password (from {}): {problem}; accounts with a second factor want \
                 CDSE_TOTP as well",
                credentials.origin
            )),
            error => error,
        })
    }

    fn ask(&self, client: &Client, mut form: Vec<(&'static str, String)>) -> Result<Token> {
        form.push(("client_id", "cdse-public".to_owned()));
        let came = now();
        let answer: Token = client.json(&Ask::post(self.shared.identity.clone(), Body::Form(form)))?;
        Ok(Token { came, ..answer })
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    }
}

/// Writes a token where its owner alone can read it.
fn keep(path: &Path, token: &Token) -> std::io::Result<()> {
    // Temporary files can be read by their owner alone, and so can what they are renamed to.
    let mut file = tempfile::NamedTempFile::new_in(crate::store::folder_of(path))?;
    serde_json::to_writer(&mut file, token)?;
    file.flush()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(variables: &[(&str, &str)], netrc: &str) -> Result<(String, String), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".netrc");
        std::fs::write(&path, netrc).unwrap();
        let get =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let found = Credentials::look(get, Some(&path)).map_err(|error| error.to_string())?;
        assert!(!format!("{found:?}").contains(&found.password), "Debug shows no password");
        Ok((found.user, found.password))
    }

    const NETRC: &str = "# mine\nmachine example.org login a password b\nmacdef init\nmachine \
                         identity.dataspace.copernicus.eu login trap password trap\n\nmachine \
                         dataspace.copernicus.eu\n  login me@example.org\n  account x password p#1\ndefault login d \
                         password e\n";

    #[test]
    fn the_environment_comes_before_netrc() {
        let both = [("CDSE_USERNAME", "you"), ("CDSE_PASSWORD", "secret")];
        assert_eq!(look(&both, NETRC), Ok(("you".into(), "secret".into())));
        assert_eq!(look(&[], NETRC), Ok(("me@example.org".into(), "p#1".into())));
        let identity = format!("machine identity.{SITE} login i password another-secret\n{NETRC}");
        assert_eq!(look(&[], &identity), Ok(("i".into(), "another-secret".into())));
    }

    #[test]
    fn missing_credentials_are_named() {
        let error = look(&[], "machine example.org login a password b").unwrap_err();
        assert!(error.contains("CDSE_USERNAME and CDSE_PASSWORD") && error.contains(".netrc"), "{error}");
        let error = look(&[("AWS_ACCESS_KEY_ID", "k")], "").unwrap_err();
        assert!(error.contains("AWS_ACCESS_KEY_ID is set, but that is another kind"), "{error}");
        let error = look(&[("CDSE_USERNAME", "you")], "").unwrap_err();
        assert!(error.contains("CDSE_PASSWORD is not"), "{error}");
        let client = [("CDSE_USERNAME", "sh-1234"), ("CDSE_PASSWORD", "secret")];
        let error = look(&client, "").unwrap_err();
        assert!(error.contains("OAuth client of Sentinel Hub") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_token_goes_to_hosts_of_its_site_only() {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::at(Credentials::new("a", "b"), IDENTITY, folder.path()).unwrap();
        for (url, trusted) in [
            ("https://download.dataspace.copernicus.eu/odata/v1/Products(1)/$value", true),
            ("https://dataspace.copernicus.eu/", true),
            ("http://download.dataspace.copernicus.eu/", false),
            ("https://dataspace.copernicus.eu.example.org/", false),
            ("https://evildataspace.copernicus.eu/", false),
            ("https://example.org/", false),
            ("http://127.0.0.1:8000/", false),
        ] {
            assert_eq!(account.trusts(&Url::parse(url).unwrap()), trusted, "{url}");
        }
        let local =
            Account::at(Credentials::new("a", "b"), "http://127.0.0.1:1/token", folder.path()).unwrap();
        for (url, trusted) in [
            ("http://127.0.0.1:8000/", true),
            ("http://[::1]:8000/", true),
            ("http://192.168.0.1/", false),
            ("https://example.org/", false),
        ] {
            assert_eq!(local.trusts(&Url::parse(url).unwrap()), trusted, "{url}");
        }
    }
}
