//! The store that replicas have in common: whether it is reached, and whether this program knows its tables.
//!
//! Invariant: nothing is made or changed, in the database or in the state directory.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use url::Url;

use super::finding::Finding;
use crate::config::{Config, SecretReference, StoreConfig};
use crate::store::Store;
use crate::store::state::is_elsewhere;

/// Connects and looks.
pub async fn findings(config: &Config, state: &Path) -> Vec<Finding> {
    let StoreConfig::Postgres(postgres) = &config.gateway.store else { return Vec::new() };
    let name = "store";
    // Whoever looks gives itself a name where the state has none yet, which is for the first start to do.
    let place = (!is_elsewhere(state)).then(Place::make);
    let place = place.as_ref().map_or(state, |place| place.0.as_path());
    vec![match Store::look(&config.gateway.store, place).await {
        Ok(looked) if looked.version > looked.version_known => Finding::bad(
            name,
            format!("its tables have version {}, and this program knows {}", looked.version, looked.version_known),
            "start the newer program that wrote them",
        ),
        Ok(looked) if looked.version < looked.version_known => {
            Finding::ok(name, format!("reached; the next start upgrades its tables from version {}", looked.version))
        }
        Ok(looked) => Finding::ok(
            name,
            format!("reached, at epoch {}, its tables have version {}", looked.epoch.0, looked.version),
        ),
        Err(error) if error.to_string().contains("no tables yet") => {
            Finding::ok(name, "reached; the first start makes its tables")
        }
        Err(error) => Finding::bad(
            name,
            error.to_string(),
            format!(
                "{}; then look at `store` and `store_password` in [gateway], and try: bailiwick store status",
                question(&postgres.url)
            ),
        ),
    }]
}

/// Whether anything answers there, without what the address may hold beside.
fn question(reference: &SecretReference) -> String {
    let SecretReference::Plain(text) = reference else { return "pg_isready -h HOST".to_owned() };
    let url = Url::parse(text).ok();
    let host = url.as_ref().and_then(Url::host_str).filter(|host| !host.is_empty()).unwrap_or("HOST");
    let port = url.as_ref().and_then(Url::port).unwrap_or(5432);
    format!("pg_isready -h {host} -p {port}")
}

/// A directory that is gone afterwards.
struct Place(PathBuf);

impl Place {
    fn make() -> Self {
        let place = std::env::temp_dir().join(format!("bailiwick-doctor-{}", ulid::Ulid::generate()));
        // Without it the look fails, and says so.
        let _made = std::fs::DirBuilder::new().mode(0o700).create(&place);
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Mark;
    use crate::config::file::{Text, parse};
    use crate::config::load::Overrides;

    #[tokio::test]
    async fn a_store_that_cannot_be_reached_is_bad_and_its_password_is_not_told() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("password"), "hunter2").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "[gateway]\npublic_url = \"https://mcp.example.com\"\n\
             store = \"postgres://me@127.0.0.1:{port}/b\"\nstore_password = \"file:password\"\n\
             [issuers.corp]\nissuer = \"https://idp.example.com\"\n\
             [keys]\nseal = [\"env:S\"]\njournal = [\"env:S\"]\ncheckpoint = [\"env:S\"]\n\
             [cluster]\nlisten = \"127.0.0.1:7801\"\ncertificate = \"c\"\nkey = \"k\"\nca = \"ca\"\n"
        );
        let text = Text { file: "servers.toml", text: &text };
        let (config, _) = parse(text, None, place.path(), &Overrides::default()).unwrap();
        let state = place.path().join("state");
        let found = findings(&config, &state).await;
        let fix = found[0].fix.as_deref().unwrap();
        assert!(
            found[0].mark == Mark::Bad && fix.contains(&format!("pg_isready -h 127.0.0.1 -p {port};")),
            "{found:?}"
        );
        assert!(!format!("{found:?}").contains("hunter2") && !state.exists(), "{found:?}");
    }
}
