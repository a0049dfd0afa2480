//! The listener's certificate: whether it fits its key, for whom it is, until when, and who believes it.
//!
//! Asks `rustls` the questions that a client asks, at the moments that matter. Invariant: nothing of the key is shown.

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
    let Some(files) = &config.gateway.tls else { return Vec::new() };
    if let Err(error) = Certificates::load(files.clone()) {
        let fix = "write the chain (leaf first) and the key of the same pair, in PEM; then: bailiwick reload";
        return vec![Finding::bad("pair", error.to_string(), fix)];
    }
    let host = config.gateway.public_url.host_str().unwrap_or_default();
    match looked(files, host, UnixTime::now()) {
        Ok(findings) => findings,
        Err(problem) => vec![Finding::bad("certificate", problem, "openssl x509 -text -noout -in FILE")],
    }
}

fn looked(files: &TlsConfig, host: &str, now: UnixTime) -> Result<Vec<Finding>, String> {
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| error.to_string())?;
    let (leaf, rest) = chain.split_first().ok_or("it holds no certificate")?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
    let mut findings = vec![Finding::ok("pair", format!("{} and its key fit", files.certificate.display()))];
    findings.push(expiry(&parsed, rest, now));
    // An address in a URL has brackets; a certificate has none.
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(plain.to_owned()).map_err(|error| format!("`{plain}`: {error}"))?;
    findings.push(match verify_server_name(&parsed, &name) {
        Ok(()) => Finding::ok("name", format!("it is for {plain}")),
        Err(_) => Finding::bad(
            "name",
            format!("it is not for {plain}, the host of public_url: clients refuse it"),
            format!("get one with the subject alternative name {plain}, or change public_url"),
        ),
    });
    findings.push(trust(&parsed, rest, now));
    Ok(findings)
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

    fn at(host: &str, now: UnixTime) -> Vec<Finding> {
        let place = tempfile::tempdir().unwrap();
        let files = TlsConfig { certificate: place.path().join("c"), key: place.path().join("k") };
        std::fs::write(&files.certificate, include_str!("../../front/fixture/localhost.crt")).unwrap();
        looked(&files, host, now).unwrap()
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
}
