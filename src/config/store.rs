//! Where what happens at run time is kept: SQLite in the state directory, or PostgreSQL for several replicas.
//!
//! Decides which addresses of a database may stand in a file. Invariant: no password is written down, none is ever
//! printed, and a connection that leaves this machine is encrypted or somebody wrote that it is not.

use std::fmt;
use std::path::Path;

use url::{Host, Url};

use super::SecretReference;

/// What a file says that needs no name of its own: SQLite in the state directory.
const SQLITE: &str = "sqlite";
/// What the address of a database may say beside host, user and database. Others would be ignored, and logged with
/// their value.
const PARAMETERS: [&str; 8] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "application_name", "options"];

/// `[gateway] store`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreConfig {
    /// In the state directory, for one gateway.
    #[default]
    Sqlite,
    /// A database that several replicas have in common.
    Postgres(PostgresConfig),
}

/// How the database is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// The address, written in the file without a password, or kept elsewhere whole.
    pub url: SecretReference,
    /// The password, kept elsewhere.
    pub password: Option<SecretReference>,
}

impl StoreConfig {
    /// Reads what a file says: `sqlite`, `postgres://...`, or where the address is kept.
    ///
    /// # Errors
    /// A lower-case sentence that says what is wrong and what to write.
    pub fn parse(text: &str, password: Option<SecretReference>, base: &Path) -> Result<Self, String> {
        if text == SQLITE {
            return match password {
                None => Ok(Self::Sqlite),
                Some(_) => Err("store_password means nothing for a store of SQLite: remove it".to_owned()),
            };
        }
        let url = if is_address(text) {
            let url = address(text)?;
            if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
                return Err("a password is never written here: use store_password = \"env:NAME\"".to_owned());
            }
            SecretReference::Plain(text.to_owned())
        } else {
            match SecretReference::parse(text) {
                Ok(SecretReference::File(path)) => SecretReference::File(base.join(path)),
                Ok(reference) => reference,
                Err(_) => {
                    return Err("write \"sqlite\", \"postgres://user@host/database\", or where that address is kept: \
                                \"env:NAME\", \"file:PATH\""
                        .to_owned());
                }
            }
        };
        Ok(Self::Postgres(PostgresConfig { url, password }))
    }

    /// Whether replicas have it in common.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

fn is_address(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// The address of a database, judged: also one that was kept elsewhere.
///
/// # Errors
/// A lower-case sentence that says what is wrong; it holds nothing of the address.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|_| is_address(text));
    let url = url.ok_or("the store's address is not one: write postgres://user@host/database")?;
    if let Some((key, _)) = url.query_pairs().find(|(key, _)| *key != "password" && !PARAMETERS.contains(&&**key)) {
        let key: String = key.chars().take(40).collect();
        return Err(format!(
            "the store's address has the parameter `{key}`, which is not one of {}",
            PARAMETERS.join(", ")
        ));
    }
    if !stays_here(&url) && !url.query_pairs().any(|(key, _)| key == "sslmode") {
        return Err(
            "the store is on another machine: add ?sslmode=verify-full (and &sslrootcert=PATH where its authority \
                    is your own), or another sslmode that you chose"
                .to_owned(),
        );
    }
    Ok(url)
}

/// Whether a connection stays on this machine: loopback, or the path of a socket.
fn stays_here(url: &Url) -> bool {
    let host = url.query_pairs().filter(|(key, _)| key == "host").last().map(|(_, host)| host.into_owned());
    let host = host.or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
    if host.starts_with('/') || host.starts_with("%2F") || host.starts_with("%2f") || host == "localhost" {
        return true;
    }
    match Host::parse(&host) {
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgresConfig({})", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<StoreConfig, String> {
        StoreConfig::parse(text, None, Path::new("/etc/b"))
    }

    #[test]
    fn an_address_is_written_without_its_password_or_kept_elsewhere() {
        assert_eq!(parsed("sqlite").unwrap(), StoreConfig::Sqlite);
        for good in [
            "postgres://bailiwick@localhost/bailiwick",
            "postgresql://bailiwick@127.0.0.1:5433/bailiwick",
            "postgres://bailiwick@db.example.com/bailiwick?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgres://bailiwick@db.example.com/bailiwick?sslmode=disable",
            "postgres:///bailiwick?host=/run/postgresql",
            "env:STORE",
            "file:store-url",
        ] {
            assert!(parsed(good).unwrap().is_shared(), "{good}");
        }
        for (bad, what) in [
            ("postgres://me:hunter2@localhost/b", "never written here"),
            ("postgres://me@localhost/b?password=hunter2", "never written here"),
            ("postgres://me@localhost/b?passwrod=hunter2", "the parameter `passwrod`"),
            ("postgres://me@db.example.com/b", "sslmode=verify-full"),
            ("mysql://me@localhost/b", "write \"sqlite\""),
            ("SQLite", "write \"sqlite\""),
        ] {
            let message = parsed(bad).unwrap_err();
            assert!(message.contains(what) && !message.contains("hunter2"), "{bad}: {message}");
        }
        let password = Some(SecretReference::Environment("P".to_owned()));
        assert!(StoreConfig::parse("sqlite", password, Path::new("/")).unwrap_err().contains("remove it"));
    }

    #[test]
    fn what_is_shown_of_an_address_is_nothing() {
        let shown = format!("{:?}", parsed("postgres://me@localhost/b").unwrap());
        assert_eq!(shown, "Postgres(PostgresConfig((written in the file)))");
    }
}
