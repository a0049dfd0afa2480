//! The configuration and the policies, as `serve` would load them, and who may read and write their files.
//!
//! Invariant: a file that holds a secret is named when somebody else may read it, and its content never is.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::finding::{Finding, Group};
use crate::cli::check::counted;
use crate::cli::files::{Files, Understood};
use crate::config::{Config, CredentialConfig, ExportPlace, Mistake, SecretReference, StoreConfig, TransportConfig};

/// The files as they would be served, if they would be.
pub fn understood(files: &Files, demo: bool) -> (Option<Understood>, Vec<Finding>) {
    let understood = if demo { files.as_demo() } else { files.as_served() };
    match understood {
        Ok(understood) => {
            let findings = findings(&understood);
            (Some(understood), findings)
        }
        Err(mistakes) => {
            let mut findings: Vec<Finding> = mistakes.iter().map(mistaken).collect();
            if !demo && files.as_demo().is_ok() {
                findings.push(Finding::warn("files", "these are a demo's files", "bailiwick doctor --demo"));
            }
            (None, findings)
        }
    }
}

fn mistaken(mistake: &Mistake) -> Finding {
    Finding::bad("mistake", mistake.to_string(), "change it there, then: bailiwick check")
}

fn findings(understood: &Understood) -> Vec<Finding> {
    let config = understood.config();
    let files = &understood.loaded.files;
    let mut findings = vec![Finding::ok(
        "files",
        format!(
            "{}, {}, {}, {}, revision {}",
            counted(config.servers.len(), "server"),
            counted(config.issuers.len(), "issuer"),
            counted(config.agents.len(), "agent"),
            counted(understood.policy.rules().len(), "rule"),
            files.digest().short()
        ),
    )];
    findings.extend(
        understood
            .warnings
            .iter()
            .map(|warning| Finding::warn("warning", warning.to_string(), "change it there, or know that it is meant")),
    );
    if let Some(mistake) = files.seal_mistake() {
        findings.push(Finding::bad("seal", mistake.to_string(), "review the change, then: bailiwick check --seal"));
    }
    let report = understood.policy.run_tests();
    for failed in &report.failed {
        findings.push(Finding::bad(
            "test",
            format!("{}: {}", files.shown(&failed.place), failed.message),
            "correct the rule or the expectation, then: bailiwick check",
        ));
    }
    if report.failed.is_empty() {
        findings.push(match report.passed {
            0 => Finding::warn(
                "tests",
                "no decision is expected, so no change of the rules can break one",
                "write some into policies/tests.toml: docs/policy.md",
            ),
            passed => Finding::ok("tests", format!("{passed} expected decisions hold")),
        });
    }
    findings
}

/// Who may read and write the files that the configuration names.
pub fn permissions(config: &Config) -> Group {
    let mut findings = Vec::new();
    let ours = rustix::process::geteuid().as_raw();
    // Whoever can write the rules makes them; loading has refused what everybody can write.
    match owner(&config.policies) {
        Ok(owner) if owner == ours || owner == 0 => {
            findings.push(Finding::ok("policies", format!("{} is ours alone to write", config.policies.display())));
        }
        Ok(owner) => findings.push(Finding::warn(
            "policies",
            format!("{} belongs to user {owner}, who can allow whatever they like", config.policies.display()),
            format!("chown -R root {}", config.policies.display()),
        )),
        Err(problem) => findings.push(Finding::bad("policies", problem, "bailiwick check")),
    }
    let mut secret_count = 0;
    let mut variables: Vec<String> = Vec::new();
    for (place, reference) in references(config) {
        match reference {
            SecretReference::File(path) => {
                secret_count += 1;
                findings.extend(kept_private(&place, &path));
            }
            SecretReference::Environment(name) if std::env::var_os(&name).is_none() => variables.push(name),
            _ => {}
        }
    }
    let pairs = [
        ("gateway.tls", config.gateway.tls.as_ref()),
        ("admin.tls", config.admin.as_ref().and_then(|admin| admin.tls.as_ref())),
        ("cluster", config.cluster.as_ref().map(|cluster| &cluster.tls)),
    ];
    for (place, tls) in pairs.into_iter().filter_map(|(place, tls)| Some((place, tls?))) {
        secret_count += 1;
        findings.extend(kept_private(place, &tls.key));
    }
    if secret_count > 0 && findings.len() == 1 {
        findings.push(Finding::ok("secrets", format!("{secret_count} files with secrets are readable by us alone")));
    }
    variables.sort_unstable();
    variables.dedup();
    if !variables.is_empty() {
        findings.push(Finding::warn(
            "variables",
            format!("not set here, and perhaps where the gateway runs: {}", variables.join(", ")),
            "run this where the gateway's variables are set, such as with its EnvironmentFile",
        ));
    }
    Group { name: "files".to_owned(), findings }
}

fn owner(path: &Path) -> Result<u32, String> {
    std::fs::metadata(path)
        .map(|metadata| metadata.uid())
        .map_err(|error| format!("{} cannot be looked at: {error}", path.display()))
}

fn kept_private(place: &str, path: &Path) -> Option<Finding> {
    match std::fs::metadata(path) {
        Err(error) => Some(Finding::bad(
            place,
            format!("its secret cannot be read: {}: {error}", path.display()),
            format!("write the secret there: install -m 600 /dev/stdin {}", path.display()),
        )),
        Ok(metadata) if metadata.mode() & 0o077 != 0 => Some(Finding::warn(
            place,
            format!("others may read its secret: {} has mode {:03o}", path.display(), metadata.mode() & 0o777),
            format!("chmod 600 {}", path.display()),
        )),
        Ok(_) => None,
    }
}

/// Every secret that is named, with the table that names it.
fn references(config: &Config) -> Vec<(String, SecretReference)> {
    let mut all = Vec::new();
    for server in &config.servers {
        let place = format!("servers.{}", server.id);
        let credentials = std::iter::once(&server.credential).chain(server.tool_credentials.values());
        all.extend(credentials.flat_map(CredentialConfig::secrets).map(|secret| (place.clone(), secret.clone())));
        if let TransportConfig::Stdio { environment, .. } = &server.transport {
            all.extend(environment.values().map(|value| (place.clone(), value.clone())));
        }
    }
    let keys = [("keys.seal", &config.keys.seal), ("keys.journal", &config.keys.journal)];
    for (place, list) in keys.into_iter().chain([("keys.checkpoint", &config.keys.checkpoint)]) {
        all.extend(list.iter().map(|reference| (place.to_owned(), reference.clone())));
    }
    if let StoreConfig::Postgres(postgres) = &config.gateway.store {
        let (url, password) = (Some(&postgres.url), postgres.password.as_ref());
        for (place, reference) in [("gateway.store", url), ("gateway.store_password", password)] {
            all.extend(reference.map(|reference| (place.to_owned(), reference.clone())));
        }
    }
    for export in &config.exports {
        if let ExportPlace::Http { header: Some((_, _, secret)), .. } = &export.to {
            all.push((format!("export.{}", export.name), secret.clone()));
        }
    }
    for issuer in &config.issuers {
        let secret = issuer.registration.as_ref().and_then(|registration| registration.client_secret.clone());
        all.extend(secret.map(|secret| (format!("issuers.{}.registration", issuer.alias), secret)));
    }
    for feed in &config.feeds {
        all.extend(feed.references().map(|reference| (format!("feeds.{}", feed.name), reference.clone())));
    }
    let headers = config.telemetry.iter().flat_map(|telemetry| &telemetry.headers);
    all.extend(headers.map(|(_, secret)| ("telemetry.headers".to_owned(), secret.clone())));
    let console = config.admin.as_ref().and_then(|admin| admin.console.as_ref());
    let client_secret = console.and_then(|console| console.client_secret.clone());
    all.extend(client_secret.map(|secret| ("admin.console".to_owned(), secret)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{Text, parse};
    use crate::config::load::Overrides;

    #[test]
    fn every_secret_that_a_file_names_is_looked_at() {
        let text = "[gateway]\npublic_url = \"https://mcp.example.com\"\nstore = \"file:s1\"\nstore_password = \"file:s2\"\n\
                    [issuers.corp]\nissuer = \"https://idp.example.com\"\n\
                    [keys]\nseal = [\"file:s6\"]\njournal = [\"file:s7\"]\ncheckpoint = [\"file:s8\"]\n\
                    [telemetry]\notlp = \"https://c\"\nheaders = { a = \"file:s3\" }\n\
                    [export.siem]\nformat = \"ocsf\"\nto = \"https://x\"\nsecret = \"file:s4\"\n\
                    [admin]\nlisten = \"127.0.0.1:7802\"\npublic_url = \"https://admin.example.com\"\n\
                    [admin.console]\nissuer = \"corp\"\nclient_id = \"console\"\nclient_secret = \"file:s5\"\n\
                    [admin.tls]\ncertificate = \"c\"\nkey = \"k2\"\n\
                    [cluster]\nlisten = \"127.0.0.1:7801\"\nadvertise = \"a:1\"\ncertificate = \"c\"\nkey = \"k1\"\nca = \"ca\"\n";
        let text = Text { file: "servers.toml", text };
        let (config, _) = parse(text, None, Path::new("/nowhere"), &Overrides::default()).unwrap();
        let Group { findings, .. } = permissions(&config);
        for missing in ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "k1", "k2"] {
            let path = format!("/nowhere/{missing}:");
            assert!(findings.iter().any(|finding| finding.found.contains(&path)), "{missing}: {findings:?}");
        }
    }
}
