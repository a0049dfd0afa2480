//! Tokens that are good only for whoever they were issued to: to a key (DPoP) or to a certificate (mutual TLS).

use serde_json::{Value, json};

use crate::support::authority::Authority;
use crate::support::client::{Answer, Client};
use crate::support::gateway::{Gateway, Setup};
use crate::support::holder::{Holder, call_as, call_over};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

fn reason(answer: &Answer) -> &str {
    answer.response()["error"]["data"]["reason"].as_str().unwrap_or_default()
}

fn bound(issuer: &Issuer, gateway: &Gateway, confirmation: Value) -> String {
    let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
    claims["cnf"] = confirmation;
    issuer.sign(&claims)
}

fn challenges(answer: &Answer) -> Vec<String> {
    answer.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

async fn dpop(url: &str, token: &str, proof: String) -> Answer {
    call_as(url, &format!("DPoP {token}"), &[("dpop", proof)]).await
}

async fn start(more: &str) -> (Issuer, Scripted, Gateway) {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "");
    let gateway = if more.starts_with("dpop") { setup.gateway(more) } else { setup.issuer_lines(more) };
    (issuer, upstream, gateway.start().await)
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_comes_with_a_proof_for_each_request() {
    let (issuer, upstream, gateway) = start("").await;
    let (holder, url) = (Holder::new(), gateway.resource());
    let token = bound(&issuer, &gateway, holder.confirmation());
    for _ in 0..3 {
        let answer = dpop(&url, &token, holder.proof("POST", &url, &token)).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    }
    // The address that counts is the public one, whatever the request says of itself.
    let there = format!("{url}/tools");
    let headers = [("dpop", holder.proof("POST", &there, &token))];
    let (mut further, body) =
        crate::support::client::modern_request("tools/call", json!({ "name": "echo", "arguments": {} }));
    further.push(("authorization", format!("dpop {token}")));
    further.extend(headers);
    let answer = Client::new(&format!("{there}?a=b"), None).post(&further, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(upstream.calls().len(), 4);
    for request in upstream.everything() {
        assert!(request.headers.keys().all(|name| name != "dpop"), "{:?}", request.headers);
        assert!(request.headers.values().all(|value| !value.contains(&token)), "{:?}", request.headers);
    }
}

#[tokio::test]
async fn a_bound_token_is_refused_without_a_proof_of_its_own_for_this_request_and_now() {
    let (issuer, upstream, mut gateway) = start("").await;
    let (holder, thief, url) = (Holder::new(), Holder::new(), gateway.resource());
    let token = bound(&issuer, &gateway, holder.confirmation());
    let plain = issuer.token("alice", &["developers"], &url);
    let now = jiff::Timestamp::now().as_second();
    let spoilt = |spoil: &dyn Fn(&mut Value, &mut Value)| {
        let mut parts = holder.parts("POST", &url, &token);
        spoil(&mut parts.0, &mut parts.1);
        holder.sign(&parts)
    };
    let with = |proof: String| (format!("DPoP {token}"), vec![("dpop", proof)]);
    let good = || holder.proof("POST", &url, &token);
    let first = good();
    assert_eq!(dpop(&url, &token, first.clone()).await.status, 200);
    let cases = [
        ("token_bound", (format!("Bearer {token}"), Vec::new())),
        ("token_bound", (format!("Bearer {token}"), vec![("dpop", good())])),
        ("token_unbound", (format!("DPoP {plain}"), vec![("dpop", holder.proof("POST", &url, &plain))])),
        ("dpop_proof_invalid", (format!("DPoP {token}"), Vec::new())),
        ("dpop_proof_invalid", (format!("DPoP {token}"), vec![("dpop", good()), ("dpop", good())])),
        ("dpop_proof_invalid", with("nonsense".to_owned())),
        ("dpop_proof_invalid", with(token.clone())),
        ("dpop_proof_invalid", with(thief.proof("POST", &url, &token))),
        ("dpop_proof_invalid", with(thief.sign(&holder.parts("POST", &url, &token)))),
        ("dpop_proof_invalid", with(holder.proof("GET", &url, &token))),
        ("dpop_proof_invalid", with(holder.proof("POST", &format!("{url}/tools"), &token))),
        ("dpop_proof_invalid", with(holder.proof("POST", &url.replace("http:", "https:"), &token))),
        ("dpop_proof_invalid", with(holder.proof("POST", &url, &plain))),
        ("dpop_proof_invalid", with(spoilt(&|_, claims| claims["iat"] = json!(now - 120)))),
        ("dpop_proof_invalid", with(spoilt(&|_, claims| claims["iat"] = json!(now + 120)))),
        ("dpop_proof_invalid", with(spoilt(&|header, _| header["alg"] = json!("none")))),
        ("dpop_proof_invalid", with(spoilt(&|header, _| header["typ"] = json!("JWT")))),
        ("dpop_proof_invalid", with(spoilt(&|header, _| header["jwk"]["d"] = json!("AAAA")))),
        ("dpop_proof_replayed", with(first.clone())),
        ("dpop_proof_replayed", with(first)),
    ];
    for (expected, (authorization, headers)) in cases {
        let answer = call_as(&url, &authorization, &headers).await;
        assert_eq!((answer.status, reason(&answer)), (401, expected), "{}", answer.text);
        let challenges = challenges(&answer);
        assert!(challenges[0].starts_with("Bearer resource_metadata="), "{challenges:?}");
        assert!(challenges[1].starts_with("DPoP ") && challenges[1].contains("algs=\"ES256 "), "{challenges:?}");
        let error = if expected.starts_with("dpop") { "invalid_dpop_proof" } else { "invalid_token" };
        assert!(challenges[1].contains(&format!("error=\"{error}\"")), "{challenges:?}");
    }
    assert_eq!(upstream.calls().len(), 1, "only the good one");
    gateway.stop().await;
    let recorded: Vec<Value> = gateway.records("noise");
    for expected in ["token_bound", "token_unbound", "dpop_proof_invalid", "dpop_proof_replayed"] {
        assert!(recorded.iter().any(|record| record["noise"]["reason"] == expected), "{expected}: {recorded:?}");
    }
}

#[tokio::test]
async fn a_binding_that_is_not_known_here_is_refused_however_it_comes() {
    let (issuer, upstream, gateway) = start("").await;
    let (holder, url) = (Holder::new(), gateway.resource());
    let mut more = holder.confirmation();
    more["kid"] = json!("a");
    for confirmation in [json!({}), json!({ "jwk": holder.jwk }), json!({ "kid": "a" }), json!("x"), more] {
        let token = bound(&issuer, &gateway, confirmation);
        for answer in [
            gateway.client(&token).call_tool("tools__echo", json!({})).await,
            dpop(&url, &token, holder.proof("POST", &url, &token)).await,
        ] {
            assert_eq!((answer.status, reason(&answer)), (401, "token_bound"), "{}", answer.text);
        }
    }
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn an_issuer_can_be_made_to_bind_its_tokens() {
    let (issuer, upstream, gateway) = start("sender_constraint = \"dpop\"\n").await;
    let (holder, url) = (Holder::new(), gateway.resource());
    let plain = gateway.client(&issuer.token("alice", &["developers"], &url)).call_tool("tools__echo", json!({})).await;
    assert_eq!((plain.status, reason(&plain)), (401, "token_unbound"), "{}", plain.text);
    assert!(upstream.calls().is_empty());
    let token = bound(&issuer, &gateway, holder.confirmation());
    assert_eq!(dpop(&url, &token, holder.proof("POST", &url, &token)).await.status, 200);
    let place = format!("{}/.well-known/oauth-protected-resource/mcp", gateway.url);
    let metadata = Client::new(&place, None).bare(reqwest::Method::GET, &[]).await;
    assert_eq!(metadata.response()["dpop_bound_access_tokens_required"], true, "{}", metadata.text);
    assert_eq!(metadata.response()["dpop_signing_alg_values_supported"][0], "ES256");
    assert_eq!(metadata.response().get("tls_client_certificate_bound_access_tokens"), None);
}

#[tokio::test]
async fn where_proofs_need_a_nonce_the_refusal_brings_one() {
    let (issuer, upstream, gateway) = start("dpop = \"nonce\"\n").await;
    let (holder, url) = (Holder::new(), gateway.resource());
    let token = bound(&issuer, &gateway, holder.confirmation());
    let with = |nonce: &str| {
        let mut parts = holder.parts("POST", &url, &token);
        parts.1["nonce"] = json!(nonce);
        holder.sign(&parts)
    };
    let mut refused = dpop(&url, &token, holder.proof("POST", &url, &token)).await;
    for nonce in ["", "made-up"] {
        assert_eq!((refused.status, reason(&refused)), (401, "dpop_nonce_required"), "{}", refused.text);
        assert!(challenges(&refused)[1].contains("error=\"use_dpop_nonce\""), "{:?}", challenges(&refused));
        assert!(!refused.header("dpop-nonce").is_empty());
        refused = dpop(&url, &token, with(nonce)).await;
    }
    assert!(upstream.calls().is_empty());
    let nonce = refused.header("dpop-nonce").to_owned();
    let proof = with(&nonce);
    assert_eq!(dpop(&url, &token, proof.clone()).await.status, 200);
    assert_eq!(dpop(&url, &token, with(&nonce)).await.status, 200, "good for a while");
    assert_eq!(reason(&dpop(&url, &token, proof).await), "dpop_proof_replayed");
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_certificate_comes_over_a_connection_with_it() {
    let (issuer, upstream, authority) = (Issuer::start().await, Scripted::echo().await, Authority::new());
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").tls(&authority, &authority.path());
    let gateway = setup.start().await;
    let plain = ["basicConstraints=critical,CA:FALSE"];
    let (own, other) = (authority.issue("own", &plain), authority.issue("other", &plain));
    let url = gateway.resource();
    let token = bound(&issuer, &gateway, own.confirmation());
    let call = async |client: Client| call_over(&client, &format!("Bearer {token}"), &[]).await;
    let answer = call(Client::with_certificate(&url, &own.pem)).await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    for client in [Client::with_certificate(&url, &other.pem), Client::new(&url, None)] {
        let answer = call(client).await;
        assert_eq!((answer.status, reason(&answer)), (401, "certificate_mismatch"), "{}", answer.text);
    }
    assert_eq!(upstream.calls().len(), 1);
    // Nobody has to show one, and one of a stranger is not let in at all.
    let unbound = gateway.client(&issuer.token("alice", &["developers"], &url));
    assert_eq!(unbound.call_tool("tools__echo", json!({})).await.status, 200);
    let foreign = Authority::new().issue("own", &plain);
    assert!(Client::with_certificate(&url, &foreign.pem).refused().await);
    let place = format!("{}/.well-known/oauth-protected-resource/mcp", gateway.url);
    let metadata = Client::new(&place, None).bare(reqwest::Method::GET, &[]).await;
    assert_eq!(metadata.response()["tls_client_certificate_bound_access_tokens"], true, "{}", metadata.text);
}

/// A token that is bound to a certificate and came over it: its client has shown more than a name, where it is one that has
/// to show something.
#[tokio::test]
async fn a_token_that_came_over_the_certificate_that_it_is_bound_to_counts_as_mutual_tls_where_somebody_vouches() {
    let (issuer, upstream, authority) = (Issuer::start().await, Scripted::echo().await, Authority::new());
    let own = authority.issue("own", &["basicConstraints=critical,CA:FALSE"]);
    let agents = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
                  environments = [\"development\", \"production\"]\n[agents.nightly]\nowner = \"user:test/owner\"\n\
                  purpose = \"tests\"\nkind = \"autonomous\"\nmandates = \"optional\"\n\
                  environments = [\"development\", \"production\"]\nclients = [{ issuer = \"test\", client_id = \"nightly\" }, { issuer = \"test\", client_id = \"vouched\", proof = \"secret\" }]\n";
    // Production wants more than a public client, as docs/policy.md writes it.
    let rules = "p, anyone, *, */*, call, -, allow\np, anyone, production, */*, call, public, deny\n";
    let gateway = Setup::new(&issuer)
        .tls(&authority, &authority.path())
        .http_server("tools", &upstream.url, "")
        .sections(&format!(
            "[servers.live]\nowner = \"user:test/owner\"\nenvironment = \"production\"\nurl = \"{}\"\nallow_private = true\npins = \"off\"\n",
            upstream.url
        ))
        .policy(rules)
        .policy_file("conditions.toml", "[public]\nnot = { client_proof = \"secret\" }\n")
        .policy_file("agents.toml", agents)
        .start()
        .await;
    let token = |client: &str, confirmation: Option<Value>| {
        let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
        claims["client_id"] = json!(client);
        if let Some(confirmation) = confirmation {
            claims["cnf"] = confirmation;
        }
        issuer.sign(&claims)
    };
    let call = async |server: &str, token: &str| {
        let client = Client::with_certificate(&format!("{}/{server}", gateway.resource()), &own.pem);
        let (mut headers, body) =
            crate::support::client::modern_request("tools/call", json!({ "name": "echo", "arguments": {} }));
        headers.push(("authorization", format!("Bearer {token}")));
        client.post(&headers, body.to_string()).await
    };
    // A certificate beside a token that names none proves nothing of the token's client.
    let plain = call("tools", &token("nightly", None)).await;
    assert_eq!((plain.status, reason(&plain)), (403, "client_proof_insufficient"), "{}", plain.text);
    let public = call("live", &token("some-assistant", None)).await;
    assert!(public.text.contains("denied") || public.error_code() == -32602, "{}", public.text);
    // Nor does one that a public client's token is bound to: anybody with a certificate gets one under that name.
    let plain = call("tools", &token("nightly", Some(own.confirmation()))).await;
    assert_eq!((plain.status, reason(&plain)), (403, "client_proof_insufficient"), "{}", plain.text);
    let public = call("live", &token("some-assistant", Some(own.confirmation()))).await;
    assert!(public.text.contains("denied") || public.error_code() == -32602, "{}", public.text);
    assert!(upstream.calls().is_empty());
    let bound = |client| token(client, Some(own.confirmation()));
    let all = [
        ("tools", bound("vouched")),
        ("live", bound("vouched")),
        ("tools", token("vouched", None)),
        ("tools", bound("some-assistant")),
    ];
    for (server, token) in all {
        let answer = call(server, &token).await;
        assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{server}: {}", answer.text);
    }
    let proofs: Vec<Value> = gateway.records("intent").iter().map(|intent| intent["agent"]["proof"].clone()).collect();
    assert_eq!(proofs, ["mtls", "mtls", "secret", "public"].map(|proof| json!(proof)));
}

#[tokio::test]
async fn a_header_with_a_certificate_is_believed_from_a_trusted_proxy_alone() {
    use base64::Engine as _;
    let (issuer, upstream, authority) = (Issuer::start().await, Scripted::echo().await, Authority::new());
    let own = authority.issue("own", &["basicConstraints=critical,CA:FALSE"]);
    let header = format!(":{}:", base64::engine::general_purpose::STANDARD.encode(&own.der));
    let hash: String = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &own.der)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let forwarded = format!("By=spiffe://proxy;Hash={hash}");
    for (proxies, named, sent, expected) in [
        ("127.0.0.1", "client-cert", ("client-cert", header.clone()), 200),
        ("127.0.0.1", "x-forwarded-client-cert", ("x-forwarded-client-cert", forwarded.clone()), 200),
        ("127.0.0.1", "x-forwarded-client-cert", ("client-cert", header.clone()), 401),
        ("10.0.0.0/8", "client-cert", ("client-cert", header.clone()), 401),
        ("127.0.0.1", "", ("client-cert", header.clone()), 401),
        ("127.0.0.1", "client-cert", ("client-cert", "MIIB".to_owned()), 401),
    ] {
        let mut lines = format!("trusted_proxies = [\"{proxies}\"]\n");
        if !named.is_empty() {
            lines.push_str(&format!("client_certificate_header = \"{named}\"\n"));
        }
        let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").gateway(&lines);
        let gateway = setup.start().await;
        let before = upstream.calls().len();
        let token = bound(&issuer, &gateway, own.confirmation());
        let answer = call_as(&gateway.resource(), &format!("Bearer {token}"), std::slice::from_ref(&sent)).await;
        assert_eq!(answer.status, expected, "{proxies} {named} {sent:?}: {}", answer.text);
        if expected == 401 {
            let readable = sent.1.starts_with(':');
            let expected = if readable { "certificate_mismatch" } else { "certificate_refused" };
            assert_eq!(reason(&answer), expected, "{}", answer.text);
            assert_eq!(upstream.calls().len(), before);
        }
        for request in upstream.everything() {
            assert!(request.headers.keys().all(|name| !name.contains("client-cert")), "{:?}", request.headers);
        }
    }
}
