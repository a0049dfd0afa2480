//! What is kept of a login: tokens and how to renew them, one file for each gateway.
//!
//! Decides where it is and who may read it. Invariants: a file that others can read is not used; it is replaced as a
//! whole and never written into; of two processes one at a time changes it, because a refresh token works once.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::identity;
use crate::ids::Digest;
use crate::limit;
pub(super) use crate::oauth::Registered;
use crate::oauth::dpop::ProofKey;
use crate::oauth::register::{close, close_optional, open, open_optional};

/// What is kept of one login.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// The gateway's MCP endpoint.
    pub gateway: String,
    /// What the token is for.
    pub resource: String,
    /// Who issued it.
    pub issuer: String,
    /// Where it is renewed.
    pub token_endpoint: Url,
    /// Where it is given back (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// Who we are there.
    pub client: Registered,
    #[serde(serialize_with = "open", deserialize_with = "close")]
    pub access_token: SecretString,
    #[serde(serialize_with = "open_optional", deserialize_with = "close_optional")]
    pub refresh_token: Option<SecretString>,
    /// Seconds since 1970; absent where the issuer did not say.
    pub expires_at: Option<i64>,
    /// What was granted, as far as the issuer said.
    pub scope: Option<String>,
    /// The key that the tokens are bound to, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ProofKey>,
}

/// Where the login at one gateway is kept.
#[derive(Debug, Clone)]
pub(super) struct Place {
    directory: PathBuf,
    name: String,
}

/// The right to change what is kept; ends with the value.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: File,
}

impl Kept {
    /// Whether the access token can be used for a while yet.
    pub(super) fn is_fresh(&self) -> bool {
        let margin = i64::try_from(limit::LOGIN_RENEW_MARGIN.as_secs()).unwrap_or_default();
        self.expires_at.is_none_or(|at| identity::now_s() < at.saturating_sub(margin))
    }

    /// Whether the access token is past its time.
    pub(super) fn is_over(&self) -> bool {
        self.expires_at.is_some_and(|at| identity::now_s() >= at)
    }
}

impl Place {
    /// The place for a gateway, below `XDG_STATE_HOME` or `~/.local/state`.
    pub(super) fn of(url: &Url) -> Result<Self, String> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        let state = state.ok_or("there is no home directory to keep a login in: set HOME or XDG_STATE_HOME")?;
        Ok(Self::below(&state, url))
    }

    pub(super) fn below(state: &Path, url: &Url) -> Self {
        let digest = Digest::sha256(url.as_str().trim_end_matches('/').as_bytes()).to_string();
        Self { directory: state.join("bailiwick").join("logins"), name: digest.chars().take(32).collect() }
    }

    /// The file.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join(format!("{}.json", self.name))
    }

    /// What is kept, if anything is.
    pub(super) fn read(&self) -> Result<Option<Kept>, String> {
        let path = self.file();
        let refuse = |problem: String| format!("the login in {} cannot be used: {problem}", path.display());
        let file = match OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refuse(error.to_string())),
        };
        let metadata = file.metadata().map_err(|error| refuse(error.to_string()))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(refuse("others can read it; remove it, revoke what it held, and log in again".to_owned()));
        }
        let mut text = Vec::new();
        file.take(limit::LOGIN_FILE_BYTES_MAX).read_to_end(&mut text).map_err(|error| refuse(error.to_string()))?;
        // The text of the error could repeat what stands there.
        let kept = serde_json::from_slice(&text);
        kept.map(Some).map_err(|_| refuse("it is not what this version keeps; remove it and log in again".to_owned()))
    }

    /// Keeps a login in place of the one before. The turn says that nobody else does.
    pub(super) fn write(&self, kept: &Kept, _turn: &Turn) -> Result<(), String> {
        let path = self.file();
        let failed = |error: std::io::Error| format!("the login cannot be kept in {}: {error}", path.display());
        let text = serde_json::to_vec_pretty(kept).map_err(|error| failed(error.into()))?;
        let fresh = self.directory.join(format!("{}.new", self.name));
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&fresh, &path).map_err(failed)
    }

    /// Forgets it; whether there was one.
    pub(super) fn remove(&self, _turn: &Turn) -> Result<bool, String> {
        match std::fs::remove_file(self.file()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(format!("{} cannot be removed: {error}", self.file().display())),
        }
    }

    /// Waits until no other process changes this login.
    pub(super) async fn turn(&self) -> Result<Turn, String> {
        let path = self.directory.join(format!("{}.lock", self.name));
        let failed = |problem: String| format!("the login cannot be kept in {}: {problem}", self.directory.display());
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&self.directory)
            .map_err(|error| failed(error.to_string()))?;
        let metadata = std::fs::symlink_metadata(&self.directory).map_err(|error| failed(error.to_string()))?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(failed("others can write there; make it yours, mode 0700".to_owned()));
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| failed(error.to_string()))?;
        let waited = async {
            loop {
                match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => return Ok(()),
                    Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(limit::LOGIN_TURN_POLL).await,
                    Err(error) => return Err(failed(error.to_string())),
                }
            }
        };
        match tokio::time::timeout(limit::LOGIN_TIMEOUT, waited).await {
            Ok(locked) => locked.map(|()| Turn { _lock: lock }),
            Err(_) => Err("another process is still logging in at this gateway; finish or end that first".to_owned()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    /// A login that ends at that time.
    pub(in crate::cli::login) fn kept(expires_at: Option<i64>) -> Kept {
        Kept {
            gateway: "https://gw.example/mcp".to_owned(),
            resource: "https://gw.example/mcp".to_owned(),
            issuer: "https://idp.example".to_owned(),
            token_endpoint: Url::parse("https://idp.example/token").unwrap(),
            revocation_endpoint: None,
            client: Registered { id: "c".to_owned(), secret: None, secret_in_body: false },
            access_token: "at-secret".to_owned().into(),
            refresh_token: Some("rt-secret".to_owned().into()),
            expires_at,
            scope: None,
            key: None,
        }
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_login_is_kept_for_us_alone_and_for_one_gateway() {
        let state = tempfile::tempdir().unwrap();
        let place = Place::below(state.path(), &url("https://gw.example/mcp"));
        assert!(place.read().unwrap().is_none());
        let turn = place.turn().await.unwrap();
        place.write(&kept(Some(7)), &turn).unwrap();
        place.write(&kept(Some(8)), &turn).unwrap();
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(place.file()), mode(place.directory.clone())), (0o600, 0o700));
        let read = place.read().unwrap().unwrap();
        assert_eq!((read.access_token.expose_secret(), read.expires_at), ("at-secret", Some(8)));
        assert_eq!(Place::below(state.path(), &url("https://gw.example/mcp/")).file(), place.file());
        assert!(Place::below(state.path(), &url("https://gw.example/mcp/git")).read().unwrap().is_none());
        assert!(place.remove(&turn).unwrap() && !place.remove(&turn).unwrap());
    }

    #[tokio::test]
    async fn a_login_that_others_can_read_or_that_is_a_link_is_not_used() {
        let state = tempfile::tempdir().unwrap();
        let place = Place::below(state.path(), &url("https://gw.example/mcp"));
        let turn = place.turn().await.unwrap();
        place.write(&kept(None), &turn).unwrap();
        std::fs::set_permissions(place.file(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let problem = place.read().unwrap_err();
        assert!(problem.contains("others can read it") && !problem.contains("secret"), "{problem}");
        let elsewhere = state.path().join("elsewhere");
        std::fs::rename(place.file(), &elsewhere).unwrap();
        std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, place.file()).unwrap();
        assert!(place.read().is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_without_its_secrets() {
        let state = tempfile::tempdir().unwrap();
        let place = Place::below(state.path(), &url("https://gw.example/mcp"));
        drop(place.turn().await.unwrap());
        for text in [
            r#"{"access_token":"at-secret"}"#.to_owned(),
            "x".repeat(usize::try_from(limit::LOGIN_FILE_BYTES_MAX).unwrap() + 1),
        ] {
            let _old = std::fs::remove_file(place.file());
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place.file()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let problem = place.read().unwrap_err();
            assert!(problem.contains("log in again") && !problem.contains("secret"), "{problem}");
        }
    }

    #[tokio::test]
    async fn one_process_at_a_time_changes_a_login() {
        let state = tempfile::tempdir().unwrap();
        let place = Place::below(state.path(), &url("https://gw.example/mcp"));
        let first = place.turn().await.unwrap();
        assert!(tokio::time::timeout(std::time::Duration::from_millis(300), place.turn()).await.is_err());
        drop(first);
        assert!(tokio::time::timeout(std::time::Duration::from_secs(5), place.turn()).await.unwrap().is_ok());
    }

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let now = identity::now_s();
        assert!(kept(None).is_fresh() && kept(Some(now + 3600)).is_fresh());
        let margin = i64::try_from(limit::LOGIN_RENEW_MARGIN.as_secs()).unwrap();
        assert!(kept(Some(now + margin + 30)).is_fresh() && !kept(Some(now + margin - 1)).is_fresh());
        assert!(!kept(Some(now + 1)).is_fresh() && !kept(Some(now + 1)).is_over());
        assert!(kept(Some(now)).is_over());
    }
}
