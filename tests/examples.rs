//! Every configuration in the repository can be loaded, so that none of them teaches something that is refused.
#![expect(clippy::unwrap_used, reason = "a test that stumbles shall fail")]

use std::path::{Path, PathBuf};

use bailiwick::config::{Loaded, Mistake, Overrides, load_with};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn as_served(path: &Path) -> Result<Loaded, Vec<Mistake>> {
    let overrides = Overrides { today: Some(jiff::civil::date(2026, 11, 30)), ..Overrides::default() };
    load_with(path, &overrides)
}

fn as_demo(path: &Path) -> Result<Loaded, Vec<Mistake>> {
    let today = Some(jiff::civil::date(2026, 11, 30));
    load_with(path, &Overrides { today, ..Overrides::for_demo()? })
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Every `servers.toml`: the repository's and the examples'.
fn configurations() -> Vec<PathBuf> {
    let mut found = vec![root().join("servers.toml")];
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let file = path.join("servers.toml");
            assert!(file.is_file(), "{} has no servers.toml", path.display());
            found.push(file);
        }
    }
    assert!(found.len() > 4, "{found:?}");
    found
}

#[test]
fn every_configuration_can_be_served_or_run_as_a_demo() {
    for path in configurations() {
        let demo = std::fs::read_to_string(&path).unwrap().contains(":demo/");
        let loaded = if demo { as_demo(&path) } else { as_served(&path) };
        let loaded = loaded.unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)));
        assert_eq!(lines(&loaded.warnings), "", "{}", path.display());
        assert!(loaded.files.policy_files().contains_key("policy.csv"), "{} has no policy", path.display());
        if demo {
            // A demo's files open nothing in production: `serve` refuses them, because nobody can log in.
            let refused = lines(&as_served(&path).unwrap_err());
            assert!(refused.contains("issuer `demo` is not declared"), "{refused}");
        }
    }
}
