//! Certificates are replaced while listeners serve with them.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::tls::TlsInfo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::support::authority::Authority;
use crate::support::eventually_within;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

/// A client that keeps its connection and tells which certificate it was served with.
#[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).tls_info(true);
    builder.http1_only().build().unwrap()
}

async fn served_with(client: &reqwest::Client, url: &str) -> Vec<u8> {
    let answer = client.get(url).send().await.unwrap();
    let certificate = answer.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap().to_vec();
    // Taken in to its end, so that the connection carries the next one.
    answer.bytes().await.unwrap();
    certificate
}

#[tokio::test]
async fn a_certificate_that_is_replaced_serves_new_connections_and_open_ones_go_on() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let authority = Authority::new();
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "");
    let files: Vec<(PathBuf, PathBuf)> = ["gateway", "admin"]
        .map(|name| {
            let place = |end: &str| setup.directory().join(format!("{name}.{end}"));
            (place("crt"), place("key"))
        })
        .to_vec();
    let replace = || {
        let (certificate, key) = authority.server();
        for (own_certificate, own_key) in &files {
            std::fs::copy(&key, own_key).unwrap();
            std::fs::copy(&certificate, own_certificate).unwrap();
        }
        CertificateDer::from_pem_file(&certificate).unwrap().to_vec()
    };
    let first = replace();
    let table = |of: &str, (certificate, key): &(PathBuf, PathBuf)| {
        format!("[{of}.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n")
    };
    let clients = "clients = [{ issuer = \"test\", client_id = \"test-admin\" }]";
    let admin = format!("acr = [\"strong\"]\n{clients}\n{}", table("admin", &files[1]));
    let gateway = setup.secured(&table("gateway", &files[0])).admin(&admin).start().await;
    let urls = [format!("{}/healthz", gateway.url), format!("https://{}/admin/", gateway.admin_address)];
    let open = [client(), client()];
    for (open, url) in open.iter().zip(&urls) {
        assert_eq!(served_with(open, url).await, first, "{url}");
    }
    let reload = || gateway.command(&["reload", "--config", "servers.toml"]);
    let second = replace();
    assert!(reload().status.success());
    // What is no certificate changes nothing.
    for (certificate, _) in &files {
        std::fs::write(certificate, "garbage").unwrap();
    }
    reload();
    for url in &urls {
        assert_eq!(served_with(&client(), url).await, second, "{url}");
    }
    // Nobody has to say so.
    let third = replace();
    assert!(first != second && second != third);
    for (open, url) in open.iter().zip(&urls) {
        let replaced = async || served_with(&client(), url).await == third;
        eventually_within(Duration::from_secs(60), "the new certificate", replaced).await;
        assert_eq!(served_with(open, url).await, first, "the connection is the same one: {url}");
    }
}
