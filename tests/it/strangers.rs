//! Whoever knocks too often is turned away unseen, and nobody else: not others, and not whom we know at the same address.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::authority::{Authority, Leaf};
use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Setup};
use crate::support::holder::call_as;
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

fn reason(answer: &Answer) -> &str {
    answer.response()["error"]["data"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn who_knocks_too_often_is_turned_away_unseen_and_neither_others_nor_whom_we_know() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .gateway("trusted_proxies = [\"127.0.0.1\"]\n")
        .limits("refusals_per_second = 1\nrefusals_burst = 5\n")
        .start()
        .await;
    let call = async |token: &str, from: &str| {
        call_as(&gateway.resource(), &format!("Bearer {token}"), &[("x-forwarded-for", from.to_owned())]).await
    };
    let (known, other) = ("203.0.113.7", "203.0.113.8");
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    assert_eq!(call(&token, known).await.status, 200);
    let mut guesses = Vec::new();
    for number in 0..12 {
        guesses.push(call(&format!("guess-{number}"), known).await);
    }
    assert!(guesses[..5].iter().all(|answer| answer.status == 401), "{}", guesses[0].text);
    let last = guesses.last().unwrap();
    assert_eq!(
        (last.status, reason(last), last.header("retry-after")),
        (429, "strangers_limited", "1"),
        "{}",
        last.text
    );
    // What is good is not looked at either, but for what was found good before.
    let again = issuer.token("alice", &["developers"], &gateway.resource());
    assert_ne!(again, token, "another login");
    assert_eq!(call(&again, known).await.status, 429);
    assert_eq!(call(&token, known).await.status, 200);
    assert_eq!(call(&again, other).await.status, 200);
    // Nor do we forget them where everything is verified anew.
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, user:test/somebody, *, tools/echo, call, -, deny\n"));
    let reloaded = gateway.command(&["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    let mut statuses = Vec::new();
    for number in 0..12 {
        statuses.push(call(&format!("another-{number}"), known).await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(call(&token, known).await.status, 200);
    // The proxy itself is another address.
    let bare = call_as(&gateway.resource(), "", &[]).await;
    assert_eq!((bare.status, reason(&bare)), (401, "token_missing"), "{}", bare.text);
    eventually("a pause to be enough", async || call("guess", known).await.status == 401).await;
    // One line each at once, and the others in counts.
    assert_eq!(upstream.calls().len(), 4);
    let mut gateway = gateway;
    assert!(gateway.stop().await.success());
    let noise = gateway.records("noise");
    let of = |name: &str| noise.iter().filter(|line| line["noise"]["reason"] == name).collect::<Vec<_>>();
    let limited = of("strangers_limited");
    assert!(limited.iter().all(|line| line["noise"]["source"] == known) && !limited.is_empty(), "{noise:?}");
    let count: u64 = limited.iter().map(|line| line["noise"]["count"].as_u64().unwrap()).sum();
    assert!(count >= 7 && limited.len() <= 3, "{noise:?}");
    assert!(!noise.iter().any(|line| line.to_string().contains("guess")), "{noise:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_found_good_is_no_way_around_it_and_one_that_was_is() {
    let (issuer, upstream, authority) = (Issuer::start().await, Scripted::echo().await, Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("mesh.json");
    let root = json!({ "use": "x509-svid", "kty": "EC", "crv": "P-256", "x": "", "y": "", "x5c": [authority.x5c()] });
    std::fs::write(&bundle, json!({ "keys": [root], "spiffe_sequence": 1 }).to_string()).unwrap();
    let bot = "spiffe://mesh.test/bot";
    let agents = format!(
        "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n\
         [agents.bot]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"autonomous\"\nmandates = \"optional\"\n\
         environments = [\"development\"]\nclients = [{{ issuer = \"mesh\", client_id = \"{bot}\" }}]\n"
    );
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .gateway("trusted_proxies = [\"127.0.0.1\"]\nclient_certificate_header = \"client-cert\"\n")
        .limits("refusals_per_second = 1\nrefusals_burst = 5\n")
        .sections(&format!(
            "[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"file:{}\"\n",
            bundle.display()
        ))
        .policy("p, anyone, *, */*, call, -, allow\n")
        .policy_file("agents.toml", &agents)
        .start()
        .await;
    let svid = |authority: &Authority| {
        let uri = format!("subjectAltName=URI:{bot}");
        authority.issue("svid", &[&uri, "basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"])
    };
    let call = async |leaf: &Leaf| {
        let shown = format!(":{}:", STANDARD.encode(&leaf.der));
        let from = "203.0.113.7".to_owned();
        call_as(&gateway.resource(), "", &[("client-cert", shown), ("x-forwarded-for", from)]).await
    };
    let (known, fresh, forged) = (svid(&authority), svid(&authority), svid(&Authority::new()));
    let answer = call(&known).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let first = call(&forged).await;
    assert_eq!((first.status, reason(&first)), (401, "certificate_refused"), "{}", first.text);
    let mut last = first;
    for _ in 0..11 {
        last = call(&forged).await;
    }
    assert_eq!((last.status, reason(&last)), (429, "strangers_limited"), "{}", last.text);
    assert_eq!(call(&fresh).await.status, 429, "nobody has looked at it yet");
    assert_eq!(call(&known).await.status, 200);
}

#[tokio::test]
async fn the_administrators_listener_turns_them_away_as_well() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let rules = "g, group:test/admins, role:admin, *\np, role:admin, *, bailiwick/*, admin, -, allow\n";
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .limits("refusals_per_second = 1\nrefusals_burst = 5\n")
        .policy(&format!("{DEVELOPERS_MAY}{rules}"))
        .admin("acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\" }]")
        .start()
        .await;
    let ask = async |token: &str| {
        let client = Client::new(&format!("{}/api/v1/status", gateway.admin), Some(token));
        client.bare(reqwest::Method::GET, &[]).await
    };
    let ann = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    assert_eq!(ask(&ann).await.status, 200);
    let mut guesses = Vec::new();
    for number in 0..12 {
        guesses.push(ask(&format!("guess-{number}")).await);
    }
    assert_eq!(guesses[0].status, 401, "{}", guesses[0].text);
    let last = guesses.last().unwrap();
    assert_eq!((last.status, last.header("retry-after")), (429, "1"), "{}", last.text);
    assert_eq!(last.response()["reason"], "strangers_limited", "{}", last.text);
    let bob = issuer.sign(&issuer.administrator("bob", &["admins"], &gateway.admin));
    assert_eq!(ask(&bob).await.status, 429, "nobody has looked at it yet");
    assert_eq!(ask(&ann).await.status, 200);
}
