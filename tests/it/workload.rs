//! Workloads that are known by their SVIDs: JWT-SVIDs, and certificates of their connections.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::authority::{Authority, Leaf};
use crate::support::client::{Answer, Client, Stream, modern_request};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::holder::{Holder, call_as, call_over};
use crate::support::issuer::Issuer;
use crate::support::refused::came_to_nothing;
use crate::support::scripted::Scripted;

const BOT: &str = "spiffe://mesh.test/ns/tools/sa/bot";
const RULES: &str = "p, anyone, *, */*, call, -, allow\n";
const SVID: [&str; 2] = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"];

fn agents() -> String {
    let agent = |name: &str, kind: &str, clients: &str| {
        format!(
            "[agents.{name}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"{kind}\"\n\
             mandates = \"optional\"\nenvironments = [\"development\"]\nclients = [{clients}]\n"
        )
    };
    let bot =
        format!("{{ issuer = \"mesh\", client_id = \"{BOT}\" }}, {{ issuer = \"test\", client_id = \"bot-client\" }}");
    [
        agent("assistant", "interactive", ""),
        agent("bot", "autonomous", &bot),
        agent("other", "autonomous", "{ issuer = \"mesh\", client_id = \"spiffe://mesh.test/other\" }"),
    ]
    .concat()
}

fn reason(answer: &Answer) -> &str {
    answer.response()["error"]["data"]["reason"].as_str().unwrap_or_default()
}

/// Replaces a bundle as whoever keeps it does: whole.
fn write_bundle(path: &Path, keys: &[Value], sequence: u64) {
    let bundle = json!({ "keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 1 });
    let next = path.with_extension("next");
    std::fs::write(&next, bundle.to_string()).unwrap();
    std::fs::rename(next, path).unwrap();
}

fn jwt_key(holder: &Holder, id: &str) -> Value {
    let mut key = holder.jwk.clone();
    key["use"] = json!("jwt-svid");
    key["kid"] = json!(id);
    key
}

/// Opens a stream with an `Authorization` header as given.
async fn listen(client: &Client, authorization: &str) -> Stream {
    let (mut headers, body) =
        modern_request("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    if !authorization.is_empty() {
        headers.push(("authorization", authorization.to_owned()));
    }
    let mut stream = client.stream_as_given(&headers, body.to_string()).await;
    stream.next().await;
    stream
}

async fn ends(stream: &mut Stream, seconds: u64, why: &str) {
    tokio::time::timeout(std::time::Duration::from_secs(seconds), stream.end()).await.expect(why);
}

/// A gateway with the trust domains `mesh.test` and `other.test`, each with one key.
struct Mesh {
    upstream: Scripted,
    issuer: Issuer,
    gateway: Gateway,
    key: Holder,
    other: Holder,
    bundle: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mesh {
    async fn start() -> Self {
        Self::with("").await
    }

    /// With these lines more for `mesh.test`.
    async fn with(more: &str) -> Self {
        let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
        let (key, other) = (Holder::new(), Holder::new());
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("mesh.json");
        write_bundle(&bundle, &[jwt_key(&key, "one")], 5);
        write_bundle(&directory.path().join("other.json"), &[jwt_key(&other, "one")], 1);
        let domain = |alias: &str, name: &str| {
            format!(
                "[issuers.{alias}]\nkind = \"spiffe\"\ntrust_domain = \"{name}\"\nbundle = \"file:{}/{alias}.json\"\n",
                directory.path().display()
            )
        };
        let gateway = Setup::new(&issuer)
            .http_server("tools", &upstream.url, "")
            .sections(&[domain("mesh", "mesh.test").as_str(), more, &domain("other", "other.test")].concat())
            .policy(RULES)
            .policy_file("agents.toml", &agents())
            .start()
            .await;
        Self { upstream, issuer, gateway, key, other, bundle, _directory: directory }
    }

    fn claims(&self) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({ "sub": BOT, "aud": [self.gateway.resource()], "exp": now + 300, "iat": now })
    }

    fn svid(&self) -> String {
        self.key.sign(&(json!({ "alg": "ES256", "kid": "one" }), self.claims()))
    }

    async fn call(&self, token: &str) -> Answer {
        call_as(&self.gateway.resource(), &format!("Bearer {token}"), &[]).await
    }
}

#[tokio::test]
async fn a_workload_gets_in_with_a_jwt_svid_and_the_record_says_how() {
    let mesh = Mesh::start().await;
    let without_time = json!({ "sub": BOT, "aud": mesh.gateway.resource(), "exp": mesh.claims()["exp"] });
    for (header, claims) in [
        (json!({ "alg": "ES256", "kid": "one", "typ": "JWT" }), mesh.claims()),
        (json!({ "alg": "ES256", "kid": "one", "typ": "JOSE" }), mesh.claims()),
        (json!({ "alg": "ES256" }), without_time),
        // SPIRE writes the place of its discovery document there, which is no name of a trust domain.
        (json!({ "alg": "ES256", "kid": "one" }), {
            let mut claims = mesh.claims();
            claims["iss"] = json!("https://oidc.example.org");
            claims
        }),
    ] {
        let answer = mesh.call(&mesh.key.sign(&(header, claims))).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    }
    // It comes from a cache, so it comes again.
    let again = mesh.svid();
    for _ in 0..2 {
        assert_eq!(mesh.call(&again).await.status, 200);
    }
    for intent in mesh.gateway.records("intent") {
        assert_eq!((&intent["agent"]["id"], &intent["agent"]["proof"]), (&json!("bot"), &json!("svid")), "{intent}");
        assert_eq!(intent["agent"]["client"], BOT, "{intent}");
    }
    for request in mesh.upstream.everything() {
        assert!(!request.text.contains(&again) && request.headers.values().all(|value| !value.contains(&again)));
    }
    let place = format!("{}/.well-known/oauth-protected-resource/mcp", mesh.gateway.url);
    let metadata = Client::new(&place, None).bare(reqwest::Method::GET, &[]).await;
    assert_eq!(metadata.response()["authorization_servers"], json!([mesh.issuer.url]), "nobody logs in at a domain");
}

#[tokio::test]
async fn an_svid_that_is_not_for_us_from_its_own_domain_and_now_is_refused() {
    let mut mesh = Mesh::start().await;
    let now = jiff::Timestamp::now().as_second();
    let header = |changes: Value| {
        let mut header = json!({ "alg": "ES256", "kid": "one" });
        header.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        mesh.key.sign(&(header, mesh.claims()))
    };
    let claims = |changes: Value| {
        let mut claims = mesh.claims();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        mesh.key.sign(&(json!({ "alg": "ES256", "kid": "one" }), claims))
    };
    let good_header = json!({ "alg": "ES256", "kid": "one" });
    let cases = [
        ("audience_mismatch", claims(json!({ "aud": "https://elsewhere.example/mcp" }))),
        ("claim_missing", claims(json!({ "aud": null }))),
        ("claim_missing", claims(json!({ "exp": null }))),
        ("token_expired", claims(json!({ "exp": now - 120, "iat": now - 600 }))),
        ("token_not_yet_valid", claims(json!({ "nbf": now + 600 }))),
        ("token_lifetime_exceeded", claims(json!({ "exp": now + 86_400 }))),
        ("token_lifetime_exceeded", claims(json!({ "exp": now + 86_400, "iat": null }))),
        // Another domain's key, and a name that is another domain's.
        ("signature_invalid", mesh.other.sign(&(good_header.clone(), mesh.claims()))),
        ("signature_invalid", claims(json!({ "sub": "spiffe://other.test/bot" }))),
        ("issuer_unknown", claims(json!({ "sub": "spiffe://undeclared.test/bot" }))),
        ("claim_missing", claims(json!({ "sub": "spiffe://mesh.test" }))),
        ("claim_missing", claims(json!({ "sub": "spiffe://mesh.test/../x" }))),
        ("agent_unknown", claims(json!({ "sub": "spiffe://mesh.test/nobody" }))),
        ("agent_unknown", claims(json!({ "sub": "spiffe://mesh.test/ns/tools/sa/BOT" }))),
        // A token that names a configured issuer is looked at with that issuer's eyes.
        ("token_type_refused", claims(json!({ "iss": mesh.issuer.url }))),
        ("algorithm_refused", header(json!({ "alg": "HS256" }))),
        ("algorithm_refused", header(json!({ "alg": "none" }))),
        ("algorithm_refused", header(json!({ "alg": "EdDSA" }))),
        ("signature_invalid", header(json!({ "alg": "ES384" }))),
        ("signature_invalid", header(json!({ "alg": "RS256" }))),
        ("signature_invalid", header(json!({ "kid": "two" }))),
        ("token_type_refused", header(json!({ "typ": "at+jwt" }))),
        ("token_malformed", header(json!({ "crit": ["x"] }))),
        ("token_bound", claims(json!({ "cnf": mesh.key.confirmation() }))),
    ];
    let mut refused = Vec::new();
    for (expected, token) in cases {
        let answer = mesh.call(&token).await;
        assert_eq!(reason(&answer), expected, "{}", answer.text);
        assert_eq!(answer.status, if expected == "agent_unknown" { 403 } else { 401 }, "{}", answer.text);
        refused.push((expected, answer));
    }
    came_to_nothing(&mut mesh.gateway, (&mesh.upstream, 0), &refused).await;
}

#[tokio::test]
async fn an_svid_may_be_for_another_name_by_which_the_domain_knows_the_gateway() {
    let ours = "spiffe://mesh.test/gateway";
    let mut mesh = Mesh::with(&format!("audiences = [\"{ours}\"]\n")).await;
    let for_whom = |aud: Value| {
        let mut claims = mesh.claims();
        claims["aud"] = aud;
        mesh.key.sign(&(json!({ "alg": "ES256", "kid": "one" }), claims))
    };
    for aud in [json!(ours), json!([ours]), json!(["spiffe://mesh.test/other", ours])] {
        let answer = mesh.call(&for_whom(aud)).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    }
    let mut refused = Vec::new();
    for aud in ["spiffe://mesh.test/gateway/", "spiffe://mesh.test/other", "spiffe://other.test/gateway"] {
        refused.push(("audience_mismatch", mesh.call(&for_whom(json!(aud))).await));
    }
    // It is that domain's name for us, and no other's.
    let mut claims = mesh.claims();
    claims["sub"] = json!("spiffe://other.test/bot");
    claims["aud"] = json!(ours);
    let elsewhere = mesh.other.sign(&(json!({ "alg": "ES256", "kid": "one" }), claims));
    refused.push(("audience_mismatch", mesh.call(&elsewhere).await));
    came_to_nothing(&mut mesh.gateway, (&mesh.upstream, 3), &refused).await;
}

#[tokio::test]
async fn a_key_that_a_domain_withdraws_is_refused_and_a_new_one_works_within_its_refresh_hint() {
    let mesh = Mesh::start().await;
    let old = mesh.svid();
    assert_eq!(mesh.call(&old).await.status, 200);
    let fresh = Holder::new();
    let new = fresh.sign(&(json!({ "alg": "ES256", "kid": "two" }), mesh.claims()));
    assert_eq!(reason(&mesh.call(&new).await), "signature_invalid");
    // Somebody serves an old bundle with a key of theirs: it is not taken.
    write_bundle(&mesh.bundle, &[jwt_key(&fresh, "two")], 4);
    eventually("a sequence that went back to be noticed", async || {
        mesh.gateway.log().contains("went back from 5 to 4")
    })
    .await;
    assert_eq!(mesh.call(&old).await.status, 200);
    assert_eq!(reason(&mesh.call(&new).await), "signature_invalid");
    let mut stream = listen(&Client::new(&mesh.gateway.resource(), None), &format!("Bearer {old}")).await;
    write_bundle(&mesh.bundle, &[jwt_key(&mesh.key, "one"), jwt_key(&fresh, "two")], 6);
    eventually("the key beside it", async || mesh.call(&new).await.status == 200).await;
    assert_eq!(stream.next_within(std::time::Duration::from_secs(1)).await, None::<Value>);
    assert!(!stream.is_over(), "what comes beside the key that counts disturbs nobody");
    write_bundle(&mesh.bundle, &[jwt_key(&fresh, "two")], 7);
    ends(&mut stream, 3, "a stream ends with its key").await;
    let another = fresh.sign(&(json!({ "alg": "ES256", "kid": "two", "typ": "JWT" }), mesh.claims()));
    eventually("the new key", async || mesh.call(&another).await.status == 200).await;
    let refused = mesh.call(&old).await;
    assert_eq!((refused.status, reason(&refused)), (401, "signature_invalid"), "{}", refused.text);
    // A bundle that others can write is not read, and what was read before stays.
    std::process::Command::new("chmod").arg("o+w").arg(&mesh.bundle).status().unwrap();
    eventually("the file to be refused", async || mesh.gateway.log().contains("others can write it")).await;
    assert_eq!(mesh.call(&another).await.status, 200);
}

#[tokio::test]
async fn a_bundle_endpoint_is_asked_and_a_domain_without_a_bundle_fails_closed() {
    use axum::routing::get;
    let (issuer, upstream, key) = (Issuer::start().await, Scripted::echo().await, Holder::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/bundle", listener.local_addr().unwrap());
    let served = std::sync::Arc::new(std::sync::Mutex::new("not a bundle".to_owned()));
    let shared = std::sync::Arc::clone(&served);
    let router = axum::Router::new().route("/bundle", get(async move || shared.lock().unwrap().clone()));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .sections(&format!("[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"{url}\"\n"))
        .policy(RULES)
        .policy_file("agents.toml", &agents())
        .start()
        .await;
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({ "sub": BOT, "aud": gateway.resource(), "exp": now + 300 });
    let token = key.sign(&(json!({ "alg": "ES256" }), claims));
    let call = async || call_as(&gateway.resource(), &format!("Bearer {token}"), &[]).await;
    let refused = call().await;
    assert_eq!((refused.status, reason(&refused)), (503, "issuer_unavailable"), "{}", refused.text);
    assert!(upstream.calls().is_empty());
    *served.lock().unwrap() = json!({ "keys": [jwt_key(&key, "one")], "spiffe_refresh_hint": 1 }).to_string();
    eventually("the bundle", async || call().await.status == 200).await;
    *served.lock().unwrap() = json!({ "keys": [], "spiffe_refresh_hint": 1 }).to_string();
    eventually("the key to be withdrawn", async || reason(&call().await) == "signature_invalid").await;
}

/// A gateway that speaks TLS, with the trust domain `mesh.test`.
struct Tls {
    upstream: Scripted,
    issuer: Issuer,
    gateway: Gateway,
    authority: Authority,
    bundle: PathBuf,
    _directory: tempfile::TempDir,
}

impl Tls {
    async fn start() -> Self {
        let (issuer, upstream, authority) = (Issuer::start().await, Scripted::echo().await, Authority::new());
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("mesh.json");
        write_bundle(&bundle, &[root(&authority)], 1);
        let lines = format!(
            "[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"file:{}\"\n",
            bundle.display()
        );
        let gateway = Setup::new(&issuer)
            .http_server("tools", &upstream.url, "")
            .tls(&authority, Path::new(""))
            .sections(&lines)
            .policy(RULES)
            .policy_file("agents.toml", &agents())
            .start()
            .await;
        Self { upstream, issuer, gateway, authority, bundle, _directory: directory }
    }

    fn svid(&self, uri: &str) -> Leaf {
        let names = format!("subjectAltName={uri}");
        self.authority.issue("svid", &[&names, SVID[0], SVID[1]])
    }

    fn client(&self, leaf: &Leaf) -> Client {
        Client::with_certificate(&self.gateway.resource(), &leaf.pem)
    }
}

fn root(authority: &Authority) -> Value {
    json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "use": "x509-svid", "x5c": [authority.x5c()] })
}

#[tokio::test]
async fn a_workload_gets_in_with_the_certificate_of_its_connection() {
    let tls = Tls::start().await;
    let leaf = tls.svid(&format!("URI:{BOT}"));
    eventually("the bundle", async || !tls.client(&leaf).refused().await).await;
    let client = tls.client(&leaf);
    for _ in 0..2 {
        let answer = call_over(&client, "", &[]).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    }
    for intent in tls.gateway.records("intent") {
        assert_eq!((&intent["agent"]["id"], &intent["agent"]["proof"]), (&json!("bot"), &json!("svid")), "{intent}");
    }
    let revoked = tls.gateway.command(&["revoke", "client", &format!("mesh/{BOT}"), "--config", "servers.toml"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let answer = call_over(&client, "", &[]).await;
    assert_eq!((answer.status, reason(&answer)), (401, "revoked"), "{}", answer.text);
    assert_eq!(tls.upstream.calls().len(), 2);
}

#[tokio::test]
async fn a_certificate_that_is_no_svid_of_a_registered_workload_names_nobody() {
    let tls = Tls::start().await;
    let good = tls.svid(&format!("URI:{BOT}"));
    eventually("the bundle", async || !tls.client(&good).refused().await).await;
    let uri = format!("subjectAltName=URI:{BOT}");
    let issue = |extensions: &[&str]| tls.authority.issue("leaf", extensions);
    // The handshake does not let these in: nobody who is trusted here has issued them for a workload.
    for leaf in [
        issue(&[&format!("subjectAltName=URI:{BOT},URI:spiffe://mesh.test/other"), SVID[0], SVID[1]]),
        issue(&[&uri, "basicConstraints=critical,CA:TRUE", "keyUsage=critical,digitalSignature"]),
        issue(&[&uri, SVID[0], "keyUsage=critical,digitalSignature,keyCertSign"]),
        issue(&[&uri, SVID[0], "keyUsage=critical,keyEncipherment"]),
        issue(&[&uri, SVID[0]]),
        issue(&["subjectAltName=URI:spiffe://undeclared.test/bot", SVID[0], SVID[1]]),
        issue(&["subjectAltName=DNS:bot.mesh.test", SVID[0], SVID[1]]),
        issue(&["subjectAltName=URI:spiffe://mesh.test", SVID[0], SVID[1]]),
        issue(&[&uri, SVID[0], SVID[1], "extendedKeyUsage=serverAuth"]),
        Authority::new().issue("leaf", &[&uri, SVID[0], SVID[1]]),
    ] {
        assert!(tls.client(&leaf).refused().await, "{}", leaf.pem);
    }
    let old = tls.authority.issue_for("400", "old", &[&uri, SVID[0], SVID[1]]);
    let old = call_over(&tls.client(&old), "", &[]).await;
    assert_eq!((old.status, reason(&old)), (401, "token_lifetime_exceeded"), "{}", old.text);
    assert!(old.text.contains("svid_life_max"), "{}", old.text);
    let unregistered = call_over(&tls.client(&tls.svid("URI:spiffe://mesh.test/nobody")), "", &[]).await;
    assert_eq!((unregistered.status, reason(&unregistered)), (403, "agent_unknown"), "{}", unregistered.text);
    let nobody = call_over(&Client::new(&tls.gateway.resource(), None), "", &[]).await;
    assert_eq!((nobody.status, reason(&nobody)), (401, "token_missing"), "{}", nobody.text);
    assert!(tls.upstream.calls().is_empty());
}

#[tokio::test]
async fn a_certificate_and_a_token_name_the_same_agent_or_nobody_gets_in() {
    let tls = Tls::start().await;
    let (own, other) = (tls.svid(&format!("URI:{BOT}")), tls.svid("URI:spiffe://mesh.test/other"));
    eventually("the bundle", async || !tls.client(&own).refused().await).await;
    let token = |client: &str| {
        let mut claims = tls.issuer.claims("alice", &["developers"], &tls.gateway.resource());
        claims["client_id"] = json!(client);
        format!("Bearer {}", tls.issuer.sign(&claims))
    };
    let bot = token("bot-client");
    for (leaf, authorization) in [(&other, &bot), (&own, &token("some-assistant"))] {
        let answer = call_over(&tls.client(leaf), authorization, &[]).await;
        assert_eq!((answer.status, reason(&answer)), (401, "identity_mismatch"), "{}", answer.text);
    }
    // The client id alone is public, and an agent that acts on its own needs more.
    let plain = call_over(&Client::new(&tls.gateway.resource(), None), &bot, &[]).await;
    assert_eq!((plain.status, reason(&plain)), (403, "client_proof_insufficient"), "{}", plain.text);
    assert!(tls.upstream.calls().is_empty());
    let answer = call_over(&tls.client(&own), &bot, &[]).await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    let intent = tls.gateway.records("intent").pop().unwrap();
    assert_eq!((&intent["agent"]["id"], &intent["agent"]["proof"]), (&json!("bot"), &json!("mtls")), "{intent}");
    let plain = call_over(&Client::new(&tls.gateway.resource(), None), &bot, &[]).await;
    assert_eq!(reason(&plain), "client_proof_insufficient", "what the certificate proved goes with it");
}

#[tokio::test]
async fn what_is_taken_back_of_a_certificate_that_came_with_a_token_ends_what_it_raised() {
    let tls = Tls::start().await;
    let (own, second) = (
        tls.svid(&format!("URI:{BOT}")),
        tls.authority.issue("second", &["subjectAltName=URI:spiffe://mesh.test/second", SVID[0], SVID[1]]),
    );
    eventually("the bundle", async || !tls.client(&own).refused().await).await;
    let mut claims = tls.issuer.claims("alice", &["developers"], &tls.gateway.resource());
    claims["client_id"] = json!("bot-client");
    let bot = format!("Bearer {}", tls.issuer.sign(&claims));
    // Two workloads of one agent with one token.
    let listed = agents().replace(
        "{ issuer = \"test\", client_id = \"bot-client\" }",
        "{ issuer = \"test\", client_id = \"bot-client\" }, { issuer = \"mesh\", client_id = \"spiffe://mesh.test/second\" }",
    );
    let reload = |content: &str| {
        std::fs::write(tls.gateway.directory().join("policies/agents.toml"), content).unwrap();
        let output = tls.gateway.command(&["reload", "--allow-widening"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    reload(&listed);
    let mut first = listen(&tls.client(&own), &bot).await;
    let mut other = listen(&tls.client(&second), &bot).await;
    reload(&agents());
    ends(&mut other, 2, "the second workload is not the agent's any more").await;
    assert_eq!(first.next_within(std::time::Duration::from_millis(1_500)).await, None::<Value>);
    assert!(!first.is_over(), "the first one is");
    let revoked = tls.gateway.command(&["revoke", "client", &format!("mesh/{BOT}"), "--config", "servers.toml"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    ends(&mut first, 1, "a stream ends with the workload that opened it").await;
    let answer = call_over(&tls.client(&own), &bot, &[]).await;
    assert_eq!((answer.status, reason(&answer)), (401, "revoked"), "{}", answer.text);
}

#[tokio::test]
async fn a_root_that_a_domain_withdraws_ends_what_it_vouched_for_on_open_connections_as_well() {
    let tls = Tls::start().await;
    let leaf = tls.svid(&format!("URI:{BOT}"));
    eventually("the bundle", async || !tls.client(&leaf).refused().await).await;
    let client = tls.client(&leaf);
    assert_eq!(call_over(&client, "", &[]).await.status, 200);
    let mut stream = listen(&client, "").await;
    write_bundle(&tls.bundle, &[root(&Authority::new())], 2);
    ends(&mut stream, 3, "a stream ends with its root").await;
    eventually("the root to be withdrawn", async || {
        let answer = call_over(&client, "", &[]).await;
        answer.status == 401 && reason(&answer) == "certificate_refused"
    })
    .await;
    assert!(tls.client(&leaf).refused().await, "no further connection is let in");
}

#[tokio::test]
async fn a_proxy_that_ends_tls_tells_of_the_certificate_and_it_is_verified_again() {
    use base64::Engine as _;
    let (issuer, upstream, authority) = (Issuer::start().await, Scripted::echo().await, Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("mesh.json");
    write_bundle(&bundle, &[root(&authority)], 1);
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .gateway("trusted_proxies = [\"127.0.0.1\"]\nclient_certificate_header = \"client-cert\"\n")
        .sections(&format!(
            "[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"file:{}\"\n",
            bundle.display()
        ))
        .policy(RULES)
        .policy_file("agents.toml", &agents())
        .start()
        .await;
    let names = format!("subjectAltName=URI:{BOT}");
    let call = async |leaf: &Leaf| {
        let header = format!(":{}:", base64::engine::general_purpose::STANDARD.encode(&leaf.der));
        call_as(&gateway.resource(), "", &[("client-cert", header)]).await
    };
    let answer = call(&authority.issue("svid", &[&names, SVID[0], SVID[1]])).await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    let stranger = "subjectAltName=URI:spiffe://undeclared.test/bot";
    for leaf in [
        Authority::new().issue("svid", &[&names, SVID[0], SVID[1]]),
        authority.issue("svid", &[stranger, SVID[0], SVID[1]]),
        authority.issue("svid", &[&names, SVID[0]]),
        authority.issue("svid", &[&names, "basicConstraints=critical,CA:TRUE", SVID[1]]),
        authority.issue("svid", &[&format!("{names},URI:https://a.example"), SVID[0], SVID[1]]),
    ] {
        let answer = call(&leaf).await;
        assert_eq!((answer.status, reason(&answer)), (401, "certificate_refused"), "{}", answer.text);
    }
    let plain = authority.issue("plain", &[SVID[0], SVID[1]]);
    let nobody = call(&plain).await;
    assert_eq!((nobody.status, reason(&nobody)), (401, "token_missing"), "{}", nobody.text);
    assert_eq!(upstream.calls().len(), 1);
    // A token helps nobody whose certificate names a workload that nobody here can vouch for.
    let token = format!("Bearer {}", issuer.token("alice", &["developers"], &gateway.resource()));
    let with = async |leaf: &Leaf| {
        let header = format!(":{}:", base64::engine::general_purpose::STANDARD.encode(&leaf.der));
        call_as(&gateway.resource(), &token, &[("client-cert", header)]).await
    };
    let other = with(&authority.issue("svid", &[stranger, SVID[0], SVID[1]])).await;
    assert_eq!((other.status, reason(&other)), (401, "identity_mismatch"), "{}", other.text);
    let answer = with(&plain).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}
