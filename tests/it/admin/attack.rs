//! What somebody would try at the administrators' listener.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{ADMIN, RULES, Running, reason, start};
use crate::support::client::Client;
use crate::support::gateway::{DEVELOPERS_MAY, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

/// Sends bytes and reads whatever comes until the connection ends or nothing comes any more.
async fn raw(running: &Running, text: &str) -> String {
    let address = running.gateway.admin.trim_start_matches("http://").trim_end_matches("/admin");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut read)).await;
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn no_other_page_and_no_rebound_name_reaches_it() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let client = running.at("/status", &ann);
    let own = running.gateway.admin.trim_end_matches("/admin").to_owned();
    for (header, value, expected) in [
        ("host", "evil.example".to_owned(), "host_refused"),
        ("host", "127.0.0.1.evil.example".to_owned(), "host_refused"),
        ("origin", "https://evil.example".to_owned(), "origin_refused"),
        ("origin", "http://localhost:3000".to_owned(), "origin_refused"),
        ("origin", "null".to_owned(), "origin_refused"),
    ] {
        let answer = client.bare(reqwest::Method::GET, &[(header, value.clone())]).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (403, expected), "{header}: {value}");
        assert!(answer.headers.get("access-control-allow-origin").is_none());
    }
    assert_eq!(client.bare(reqwest::Method::GET, &[("origin", own)]).await.status, 200);
    let preflight =
        [("origin", "https://evil.example".to_owned()), ("access-control-request-method", "POST".to_owned())];
    assert_eq!(client.bare(reqwest::Method::OPTIONS, &preflight).await.status, 403);
}

#[tokio::test]
async fn what_is_too_large_or_no_order_is_refused() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let huge = json!({ "target": "everything", "note": "x".repeat(70_000) });
    let answer = running.post("/revoke", &ann, huge).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (413, "body_too_large"));
    for body in [
        "",
        "[]",
        "{",
        "{\"target\":\"everything\",\"actor\":\"user:test/boss\"}",
        "{\"target\":\"everything\",\"target\":\"token\"}",
    ] {
        let answer = running.at("/revoke", &ann).post(&[], body.to_owned()).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (400, "parameters_invalid"), "{body}");
    }
    assert!(running.gateway.records("revocation").is_empty());
}

#[tokio::test]
async fn no_other_spelling_of_a_path_or_a_method_gets_past_the_token() {
    let running = start().await;
    let host = running.gateway.admin.trim_start_matches("http://").trim_end_matches("/admin").to_owned();
    for path in [
        "/api/v1/status",
        "/admin/api/v1/status",
        "/api/v1/status/",
        "/api/v1//status",
        "/api/v1/./status",
        "/api/v1/../v1/status",
        "/api/v1/%73tatus",
        "/api%2fv1/status",
        "//api/v1/status",
        "/admin/../api/v1/status",
        "/ADMIN/api/v1/status",
        "/api/v1;x=1/status",
        "/api/v1/openapi.json/../status",
        "/.well-known/oauth-protected-resource/../../api/v1/status",
        "/revoke",
        "/status",
        "/metrics",
        "/mcp",
    ] {
        for verb in ["GET", "POST", "DELETE", "PUT", "TRACE", "PROPFIND"] {
            let told = raw(
                &running,
                &format!("{verb} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
            )
            .await;
            let status: u16 = told.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
            assert!(matches!(status, 400 | 401 | 404 | 405), "{verb} {path}: {told}");
            assert!(!told.contains("revision"), "{verb} {path}: {told}");
        }
    }
    let ann = running.administrator("ann", &["admins"]);
    for (verb, path, expected) in [
        (reqwest::Method::PUT, "/revoke", 405),
        (reqwest::Method::GET, "/revoke", 405),
        (reqwest::Method::DELETE, "/revocations", 405),
        (reqwest::Method::GET, "/approve", 404),
        (reqwest::Method::GET, "/status/more", 404),
    ] {
        assert_eq!(running.at(path, &ann).bare(verb.clone(), &[]).await.status, expected, "{verb} {path}");
    }
    // An absolute target names the host, and that is the one that counts.
    let told = raw(
        &running,
        &format!("GET http://evil.example/api/v1/status HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
    )
    .await;
    assert!(told.starts_with("HTTP/1.1 403"), "{told}");
}

#[tokio::test]
async fn two_tokens_a_query_token_or_a_cookie_are_no_token() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let url = format!("{}/api/v1/status", running.gateway.admin);
    let nobody = Client::new(&url, None);
    for headers in [
        vec![("cookie", format!("access_token={ann}"))],
        vec![("authorization", format!("Basic {ann}"))],
        vec![("authorization", format!("Bearer {ann}")), ("authorization", "Bearer other".to_owned())],
        vec![("x-authorization", format!("Bearer {ann}"))],
    ] {
        assert_eq!(nobody.bare(reqwest::Method::GET, &headers).await.status, 401, "{headers:?}");
    }
    let query = Client::new(&format!("{url}?access_token={ann}"), None);
    assert_eq!(query.bare(reqwest::Method::GET, &[]).await.status, 401);
}

#[tokio::test]
async fn an_administrator_who_asks_without_end_is_slowed_down() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .limits("requests_per_second = 1\nrequests_burst = 5\n")
        .admin(ADMIN)
        .start()
        .await;
    let token = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let client = Client::new(&format!("{}/api/v1/status", gateway.admin), Some(&token));
    let mut slowed = false;
    for _ in 0..20 {
        let answer = client.bare(reqwest::Method::GET, &[]).await;
        slowed |= answer.status == 429 && !answer.header("retry-after").is_empty();
    }
    assert!(slowed);
}

#[tokio::test]
async fn without_the_section_nothing_listens_and_the_socket_is_as_it_was() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, role:developer, *, */*, complete, -, allow\n"));
    let widened = super::command(&gateway, &["reload", "--allow-widening"]);
    assert!(widened.status.success(), "{}", String::from_utf8_lossy(&widened.stderr));
    let record = &gateway.records("admin").pop().unwrap()["admin"];
    assert_eq!((&record["operation"], &record["outcome"]), (&json!("reload"), &json!("done")));
}

#[tokio::test]
async fn so_many_connections_are_served_at_once_and_more_wait() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let address = running.gateway.admin.trim_start_matches("http://").trim_end_matches("/admin").to_owned();
    let mut idle = Vec::new();
    for _ in 0..bailiwick::limit::ADMIN_CONNECTIONS_MAX {
        idle.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let client = running.at("/status", &ann);
    let asked = tokio::spawn(async move { client.bare(reqwest::Method::GET, &[]).await.status });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!asked.is_finished(), "there was still a place");
    let calls = running.gateway.client(&running.issuer.token("dora", &["developers"], &running.gateway.resource()));
    assert_eq!(calls.call_tool("tools__echo", json!({})).await.status, 200, "no call waits for administrators");
    drop(idle);
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap().unwrap(), 200);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
async fn with_a_certificate_nothing_is_said_in_the_clear() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let fixture = format!("{}/src/front/fixture/localhost", env!("CARGO_MANIFEST_DIR"));
    let tls = format!("{ADMIN}\n[admin.tls]\ncertificate = \"{fixture}.crt\"\nkey = \"{fixture}.key\"");
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .admin(&tls)
        .start()
        .await;
    let token = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let url = format!("{}/api/v1/status", gateway.admin);
    let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
    let secure = client.get(url.replace("http://", "https://")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(secure.status(), 200);
    assert!(client.get(&url).bearer_auth(&token).send().await.is_err(), "plain HTTP is not answered");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
async fn a_certificate_is_exchanged_at_both_listeners_by_a_reload_and_what_is_connected_goes_on() {
    use crate::support::authority::Authority;
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let (old, new) = (Authority::new(), Authority::new());
    let ((certificate, key), fresh) = (old.server(), new.server());
    let tls = format!("{ADMIN}\n[admin.tls]\ncertificate = {certificate:?}\nkey = {key:?}");
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .tls(&old, std::path::Path::new(""))
        .admin(&tls)
        .admin_origin("https://localhost")
        .start()
        .await;
    let places = [format!("{}/healthz", gateway.url), format!("{}/api/v1/openapi.json", gateway.admin)];
    let who_trusts = |authority: &Authority| {
        let root = reqwest::Certificate::from_pem(&std::fs::read(authority.path()).unwrap()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
    };
    let (connected, stranger) = (who_trusts(&old), who_trusts(&new));
    for place in &places {
        assert!(connected.get(place).send().await.is_ok(), "{place}");
        assert!(stranger.get(place).send().await.is_err(), "{place}");
    }
    std::fs::copy(&fresh.0, &certificate).unwrap();
    std::fs::copy(&fresh.1, &key).unwrap();
    let reloaded = gateway.command(&["reload", "--config", "servers.toml"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    for place in &places {
        assert!(stranger.get(place).send().await.is_ok(), "{place}: whoever connects is shown the new one");
        assert!(who_trusts(&old).get(place).send().await.is_err(), "{place}: and the old one no more");
        assert!(connected.get(place).send().await.is_ok(), "{place}: whoever is connected stays so");
    }
}

#[tokio::test]
async fn a_reload_that_is_in_force_is_told_as_one_although_a_certificate_cannot_be_read() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let fixture = format!("{}/src/front/fixture/localhost", env!("CARGO_MANIFEST_DIR"));
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&format!("{DEVELOPERS_MAY}{RULES}"));
    let certificate = setup.directory().join("localhost.crt");
    std::fs::copy(format!("{fixture}.crt"), &certificate).unwrap();
    let tls = format!("{ADMIN}\n[admin.tls]\ncertificate = \"{}\"\nkey = \"{fixture}.key\"", certificate.display());
    let gateway = setup.admin(&tls).start().await;
    std::fs::write(&certificate, "nothing").unwrap();
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{RULES}p, user:test/mallory, *, */*, call, -, deny\n"));
    let output = gateway.command(&["reload", "--json", "--config", "servers.toml"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(report["to"].is_string() && report["warnings"].to_string().contains("localhost.crt"), "{report}");
    let reload = gateway.records("reload").pop().unwrap();
    assert_eq!(reload["reload"]["outcome"], "loaded", "{reload}");
    let order = gateway.records("admin").pop().unwrap();
    assert_eq!((&order["admin"]["operation"], &order["admin"]["outcome"]), (&json!("reload"), &json!("done")));
}

#[tokio::test]
async fn with_a_full_disk_the_brake_works_and_one_sees_why_and_nothing_is_given_back() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .admin(ADMIN);
    let Some(setup) = setup.record("reserve_bytes = \"256KiB\"\n").disk("4m") else { return };
    let gateway = setup.start().await;
    if std::fs::metadata(gateway.state()).is_err() {
        crate::support::untested("the disk of another process cannot be looked at here");
        return;
    }
    let running = Running { issuer, upstream, gateway };
    let ann = running.administrator("ann", &["admins"]);
    let dora = running.gateway.client(&running.issuer.token("dora", &["developers"], &running.gateway.resource()));
    let order = json!({ "target": "session", "value": "s1" });
    assert_eq!(running.post("/revoke", &ann, order).await.status, 200);
    let reserve = running.gateway.state().join("reserve");
    crate::support::eventually("the reserve", async || reserve.metadata().is_ok_and(|held| held.len() == 256 * 1024))
        .await;
    let mut file = std::fs::File::create(running.gateway.state().join("filler")).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    crate::support::eventually("calls to be refused", async || {
        dora.call_tool("tools__echo", json!({})).await.status == 503
    })
    .await;
    crate::support::eventually("the reserve to be given back", async || !reserve.exists()).await;
    for path in ["/status", "/servers", "/metrics", "/revocations"] {
        assert_eq!(running.get(path, &ann).await.status, 200, "{path}");
    }
    let question = json!({ "object": "tools/echo", "as": "user:test/dora" });
    let answer = running.post("/explain", &ann, question).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (503, "record_unavailable"));
    let answer = running.at("/revocations/1", &ann).bare(reqwest::Method::DELETE, &[]).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (503, "record_unavailable"));
    assert_eq!(running.get("/revocations", &ann).await.response()["revocations"][0]["since"], 1, "it still holds");
    let order = json!({ "target": "subject", "issuer": "test", "value": "dora" });
    let answer = running.post("/revoke", &ann, order).await;
    assert_eq!(answer.status, 200, "the brake works: {}", answer.text);
    assert_eq!(dora.call_tool("tools__echo", json!({})).await.status, 401);
    let last = running.ended().pop().unwrap();
    assert_eq!((&last["operation"], &last["outcome"]), (&json!("revoke"), &json!("done")), "on the record, too");
}
