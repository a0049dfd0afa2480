//! The listeners' certificates: whether each fits its key, for whom it is, until when, and who believes it.
//!
//! Asks `rustls` the questions that a client asks, at the moments that matter. Invariant: nothing of the key is shown.

use std::path::Path;
use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use super::finding::Finding;
use crate::config::{Config, TlsConfig};
use crate::front::Certificates;

/// Whoever renews by hand wants to know so long before.
const SOON: Duration = Duration::from_secs(14 * 86_400);
/// No certificate is valid so late: asked for then, one says when it ends.
const NEVER: Duration = Duration::from_secs(253_402_300_799);

/// Looks at the files. Blocking.
pub fn findings(config: &Config) -> Vec<Finding> {
    let gateway = config.gateway.tls.iter().map(|files| Pair {
        of: "",
        files,
        host: config.gateway.public_url.host_str().map(|host| (host, "public_url")),
        authority: None,
    });
    let admin = config.admin.iter().filter_map(|admin| {
        let host = admin.public_url.host_str().map(|host| (host, "public_url of [admin]"));
        Some(Pair { of: "admin ", files: admin.tls.as_ref()?, host, authority: None })
    });
    let cluster = config.cluster.iter().map(|cluster| Pair {
        of: "cluster ",
        files: &cluster.tls,
        // Where nothing is written, what a replica is called may be said when it is started.
        host: cluster.advertise.as_deref().and_then(|told| Some((told.rsplit_once(':')?.0, "advertise"))),
        authority: Some(&cluster.ca),
    });
    gateway.chain(admin).chain(cluster).flat_map(|pair| pair.findings()).collect()
}

/// A certificate and its key.
struct Pair<'a> {
    /// Before the name of what is found.
    of: &'static str,
    files: &'a TlsConfig,
    /// By which name it is reached, and which key says so.
    host: Option<(&'a str, &'static str)>,
    /// Who has to have signed it; anybody whom this machine believes where that is nobody.
    authority: Option<&'a Path>,
}

impl Pair<'_> {
    fn findings(&self) -> Vec<Finding> {
        let loaded = match self.authority {
            None => Certificates::load(self.files.clone()),
            Some(authority) => Certificates::load_mutual(self.files.clone(), authority.to_owned()),
        };
        let mut findings = match loaded.map(|_| self.looked(UnixTime::now())) {
            Ok(Ok(findings)) => findings,
            Ok(Err(problem)) => {
                vec![Finding::bad("certificate", problem, "openssl x509 -text -noout -in FILE")]
            }
            Err(error) => {
                let fix = "write the chain (leaf first) and the key of the same pair, in PEM; then: bailiwick reload";
                vec![Finding::bad("pair", error.to_string(), fix)]
            }
        };
        findings.iter_mut().for_each(|finding| finding.name.insert_str(0, self.of));
        findings
    }

    fn looked(&self, now: UnixTime) -> Result<Vec<Finding>, String> {
        let chain = certificates(&self.files.certificate)?;
        let (leaf, rest) = chain.split_first().ok_or("it holds no certificate")?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
        let mut findings = vec![Finding::ok("pair", format!("{} and its key fit", self.files.certificate.display()))];
        findings.push(expiry(&parsed, rest, now));
        if let Some((host, key)) = self.host {
            // An address in a URL has brackets; a certificate has none.
            let plain = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(plain.to_owned()).map_err(|error| format!("`{plain}`: {error}"))?;
            findings.push(match verify_server_name(&parsed, &name) {
                Ok(()) => Finding::ok("name", format!("it is for {plain}")),
                Err(_) => Finding::bad(
                    "name",
                    format!("it is not for {plain}, the host of {key}: clients refuse it"),
                    format!("get one with the subject alternative name {plain}, or change {key}"),
                ),
            });
        }
        findings.push(match self.authority {
            None => trust(&parsed, rest, now),
            Some(authority) => signed(&parsed, rest, authority, now)?,
        });
        Ok(findings)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| error.to_string())
}

fn ask(
    parsed: &ParsedCertificate<'_>,
    rest: &[CertificateDer<'_>],
    roots: &RootCertStore,
    at: UnixTime,
) -> Option<CertificateError> {
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    match verify_server_cert_signed_by_trust_anchor(parsed, roots, rest, at, algorithms) {
        Err(Error::InvalidCertificate(problem)) => Some(problem),
        _ => None,
    }
}

fn expiry(parsed: &ParsedCertificate<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Finding {
    let name = "expiry";
    let late = ask(parsed, rest, &RootCertStore::empty(), UnixTime::since_unix_epoch(NEVER));
    let early = ask(parsed, rest, &RootCertStore::empty(), now);
    if let Some(CertificateError::NotValidYetContext { not_before, .. }) = early {
        let found = format!("it is not valid before {}", date(not_before));
        return Finding::bad(name, found, "compare with: date -u");
    }
    let Some(CertificateError::ExpiredContext { not_after, .. }) = late else {
        return Finding::warn(name, "it does not say until when it is valid", "openssl x509 -enddate -noout -in FILE");
    };
    let left = not_after.as_secs().saturating_sub(now.as_secs());
    let renew = "renew it; the gateway reads it again by itself when the files change";
    if left == 0 {
        Finding::bad(name, format!("it ended on {}", date(not_after)), renew)
    } else if left < SOON.as_secs() {
        Finding::warn(name, format!("it ends on {}, in {} days", date(not_after), left / 86_400), renew)
    } else {
        Finding::ok(name, format!("until {}, {} days", date(not_after), left / 86_400))
    }
}

fn trust(parsed: &ParsedCertificate<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Finding {
    let mut roots = RootCertStore::empty();
    let _counts = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match ask(parsed, rest, &roots, now) {
        None => Finding::ok("chain", "this machine's roots believe it"),
        Some(CertificateError::UnknownIssuer) => Finding::warn(
            "chain",
            "this machine's roots do not believe it, so clients with the same roots will not",
            "put the intermediates behind the leaf, or have the clients trust your own authority",
        ),
        Some(problem) => Finding::warn("chain", format!("clients will not believe it: {problem}"), "renew it"),
    }
}

/// Whether the replicas' own authority believes it: nobody else's word counts among them.
fn signed(
    parsed: &ParsedCertificate<'_>,
    rest: &[CertificateDer<'_>],
    authority: &Path,
    now: UnixTime,
) -> Result<Finding, String> {
    let mut roots = RootCertStore::empty();
    let _counts = roots.add_parsable_certificates(certificates(authority)?);
    let shown = authority.display();
    Ok(match ask(parsed, rest, &roots, now) {
        None => Finding::ok("chain", format!("{shown} signed it")),
        Some(problem) => Finding::bad(
            "chain",
            format!("other replicas will not believe it, by {shown}: {problem}"),
            "have that authority sign it, or name the one that did in `ca`",
        ),
    })
}

fn date(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| "a day that no calendar has".to_owned(),
        |at| jiff::tz::TimeZone::UTC.to_datetime(at).date().to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Mark;
    use crate::config::ClusterConfig;
    use crate::config::file::{Text, parse};
    use crate::config::load::Overrides;

    fn at(host: &str, now: UnixTime) -> Vec<Finding> {
        let place = tempfile::tempdir().unwrap();
        let files = TlsConfig { certificate: place.path().join("c"), key: place.path().join("k") };
        std::fs::write(&files.certificate, include_str!("../../front/fixture/localhost.crt")).unwrap();
        let pair = Pair { of: "", files: &files, host: Some((host, "public_url")), authority: None };
        pair.looked(now).unwrap()
    }

    fn mark(findings: &[Finding], name: &str) -> Mark {
        findings.iter().find(|finding| finding.name == name).unwrap().mark
    }

    #[test]
    fn expiry_and_name_are_read_from_the_certificate() {
        let found = at("localhost", UnixTime::now());
        assert_eq!((mark(&found, "name"), mark(&found, "expiry")), (Mark::Ok, Mark::Ok), "{found:?}");
        assert_eq!(mark(&found, "chain"), Mark::Warn, "nobody's roots have it");
        assert_eq!(mark(&at("mcp.example.com", UnixTime::now()), "name"), Mark::Bad);
        let later = at("localhost", UnixTime::since_unix_epoch(Duration::from_secs(253_000_000_000)));
        assert_eq!(mark(&later, "expiry"), Mark::Bad, "{later:?}");
        let before = at("localhost", UnixTime::since_unix_epoch(Duration::from_secs(86_400)));
        assert_eq!(mark(&before, "expiry"), Mark::Bad, "{before:?}");
    }

    #[test]
    fn the_certificates_of_administrators_and_replicas_are_looked_at_too() {
        let place = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("c", include_str!("../../front/fixture/localhost.crt")),
            ("k", include_str!("../../front/fixture/localhost.key")),
        ] {
            std::fs::write(place.path().join(name), content).unwrap();
        }
        let text = "[gateway]\npublic_url = \"https://mcp.example.com\"\n[issuers.corp]\nissuer = \"https://idp.example.com\"\n\
                    [admin]\nlisten = \"127.0.0.1:7802\"\npublic_url = \"https://admin.example.com\"\n\
                    [admin.tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        let text = Text { file: "servers.toml", text };
        let (mut config, _) = parse(text, None, place.path(), &Overrides::default()).unwrap();
        let files = config.admin.as_ref().unwrap().tls.clone().unwrap();
        config.cluster = Some(ClusterConfig {
            listen: "127.0.0.1:7801".parse().unwrap(),
            advertise: Some("localhost:7801".to_owned()),
            ca: files.certificate.clone(),
            tls: files,
        });
        let found = findings(&config);
        assert_eq!((mark(&found, "admin pair"), mark(&found, "admin name")), (Mark::Ok, Mark::Bad), "{found:?}");
        assert_eq!((mark(&found, "cluster name"), mark(&found, "cluster expiry")), (Mark::Ok, Mark::Ok), "{found:?}");
        assert!(found.iter().any(|finding| finding.name == "cluster chain"), "{found:?}");
        config.cluster.as_mut().unwrap().ca = place.path().join("k");
        assert_eq!(mark(&findings(&config), "cluster pair"), Mark::Bad, "that is no authority");
    }
}
