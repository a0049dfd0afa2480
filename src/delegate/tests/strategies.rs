//! Each strategy against authorization servers that answer what the test wants.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;
use crate::config::{ActorToken, IdJagConfig, PrivateKey, SigningAlgorithm};

const JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";

/// A fresh key for our client, in PEM.
fn private_key() -> ClientAuthentication {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.as_ref()));
    ClientAuthentication::PrivateKey(PrivateKey {
        key: SecretReference::Plain(pem),
        algorithm: SigningAlgorithm::Es256,
        id: Some("ours".into()),
    })
}

fn part(token: &str, number: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap()).unwrap()
}

/// A token that can be read and that nobody signed: what is in it is for its server to verify.
fn readable(typ: &str, claims: &Value) -> String {
    let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.c2ln", encode(json!({"alg": "ES256", "typ": typ})), encode(claims.clone()))
}

fn bearer(token: &str) -> Value {
    json!({"access_token": token, "token_type": "Bearer", "expires_in": 600})
}

fn own(url: &str, client: ClientAuthentication) -> TokenRequest {
    TokenRequest { issuer: Some(format!("{url}/as")), client, ..asks("read") }
}

#[tokio::test]
async fn the_gateways_own_token_is_asked_for_with_its_secret_in_either_place_and_shared_by_everyone() {
    let secret = || SecretReference::Plain("s3cret".into());
    for (client, in_header) in
        [(ClientAuthentication::Basic(secret()), true), (ClientAuthentication::Post(secret()), false)]
    {
        let world = world_with(
            |url| server(CredentialConfig::ClientCredentials(Arc::new(own(url, client)))),
            |delegate| delegate,
        )
        .await;
        world.answers(200, bearer("ours"));
        let (alice, _) = world.caller("alice", 600).await;
        let (bob, _) = world.caller("bob", 20).await;
        let credential = world.ask(&alice, None).await.unwrap();
        assert_eq!(value(&credential), "Bearer ours");
        assert_eq!(credential.context, AuthorizationContext::Gateway);
        assert_eq!(credential.facts.kind, CredentialKind::ClientCredentials);
        // It is nobody's but the gateway's: its use for him ends with his token, and it goes on for everybody else.
        let for_bob = world.ask(&bob, None).await.unwrap();
        assert_eq!(for_bob.ends.used_until, Some(bob.token().expires_at));
        assert!(for_bob.header.unwrap().used_until.unwrap() > now_s() + 100);
        assert!(for_bob.ends.expires_at.unwrap() >= now_s() + 590, "the record has both times");
        assert!(world.ask(&alice, None).await.unwrap().ends.used_until.unwrap() > now_s() + 100);
        assert!(world.delegate.gateway_credential(&world.config.servers[0], None).await.is_ok());
        let asked = world.asked_at("/as/token");
        assert_eq!((asked.len(), asked[0]["grant_type"].as_str()), (1, "client_credentials"));
        assert_eq!(asked[0].contains_key("client_secret"), !in_header);
        assert_eq!(world.script.asked.lock().unwrap()[0].0.is_some(), in_header);
        assert!(!asked[0].contains_key("subject_token"));
    }
}

#[tokio::test]
async fn a_signed_assertion_is_good_at_one_issuer_for_a_minute_and_once() {
    let world = world_with(
        |url| {
            let mut server = server(CredentialConfig::ClientCredentials(Arc::new(own(url, private_key()))));
            let other = TokenRequest { scope: Some("write".into()), ..own(url, private_key()) };
            server.tool_credentials.insert("push".into(), CredentialConfig::ClientCredentials(Arc::new(other)));
            server
        },
        |delegate| delegate,
    )
    .await;
    world.answers(200, bearer("ours"));
    let (alice, _) = world.caller("alice", 600).await;
    for tool in ["log", "push"] {
        world.ask(&alice, Some(tool)).await.unwrap();
    }
    let asked = world.asked_at("/as/token");
    let assertions: Vec<&str> = asked.iter().map(|form| form["client_assertion"].as_str()).collect();
    assert_eq!(asked[0]["client_assertion_type"], assertion::TYPE);
    let (header, claims) = (part(assertions[0], 0), part(assertions[0], 1));
    assert_eq!((header["alg"].as_str(), header["kid"].as_str()), (Some("ES256"), Some("ours")));
    assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some("gate way"), Some("gate way")));
    assert_eq!(claims["aud"], format!("{}/as", world.url), "its issuer, and no address of it");
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(life, i64::try_from(limit::ASSERTION_LIFE.as_secs()).unwrap());
    assert_ne!(claims["jti"], part(assertions[1], 1)["jti"], "each of them once");
}

#[tokio::test]
async fn the_identity_provider_vouches_and_the_upstreams_server_gives_a_token_for_that() {
    let world = world_with(|url| server(vouched(url)), |delegate| delegate).await;
    let claims = |world: &World| {
        json!({
            "iss": world.url, "sub": "alice", "aud": format!("{}/as", world.url), "client_id": "at-upstream",
            "resource": "https://up.example/mcp", "jti": "j", "exp": now_s() + 60, "iat": now_s(), "scope": "read",
        })
    };
    let answer =
        |token: &str| json!({"access_token": token, "issued_token_type": JAG, "token_type": "N_A", "expires_in": 60});
    let assertion = readable("oauth-id-jag+jwt", &claims(&world));
    world.answers_at("/token", 200, answer(&assertion));
    world.answers_at("/as/token", 200, bearer("upstream's"));
    let (alice, token) = world.caller("alice", 600).await;
    let credential = world.ask(&alice, None).await.unwrap();
    assert_eq!((value(&credential).as_str(), credential.facts.kind), ("Bearer upstream's", CredentialKind::IdJag));
    let (first, second) = (&world.asked_at("/token")[0], &world.asked_at("/as/token")[0]);
    assert_eq!((first["requested_token_type"].as_str(), &first["subject_token"]), (JAG, &token));
    assert_eq!(first["audience"], format!("{}/as", world.url));
    assert_eq!((first["resource"].as_str(), first["scope"].as_str()), ("https://up.example/mcp", "read write"));
    assert_eq!(second["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert_eq!((&second["assertion"], second["scope"].as_str()), (&assertion, "read"), "what was vouched for");
    assert!(second.values().all(|value| *value != token), "the caller's token goes to the identity provider only");

    // Whatever is not for us is presented nowhere, and every other wrong answer stops it as well.
    let with = |name: &str, value: Value| {
        let mut wrong = claims(&world);
        wrong[name] = value;
        answer(&readable("oauth-id-jag+jwt", &wrong))
    };
    let changed = |name: &str, value: Value| {
        let mut wrong = answer(&assertion);
        wrong[name] = value;
        wrong
    };
    let wrong = [
        with("aud", json!("https://elsewhere.example")),
        with("aud", json!([format!("{}/as", world.url), "https://elsewhere.example"])),
        with("resource", json!("https://up.example/mcp/")),
        with("client_id", json!("somebody")),
        with("client_id", Value::Null),
        with("exp", json!(now_s() - 1)),
        with("scope", json!("read admin")),
        answer(&readable("JWT", &claims(&world))),
        answer("opaque"),
        changed("issued_token_type", json!("urn:ietf:params:oauth:token-type:access_token")),
        changed("token_type", json!("Bearer")),
    ];
    for (number, wrong) in wrong.into_iter().enumerate() {
        let before = world.asked_at("/as/token").len();
        world.answers_at("/token", 200, wrong.clone());
        let (caller, _) = world.caller("alice", 700 + i64::try_from(number).unwrap()).await;
        let stop = world.ask(&caller, None).await.unwrap_err();
        assert_eq!(stop.reason(), Reason::CredentialUnavailable, "{number} {wrong}: {stop}");
        assert_eq!(world.asked_at("/as/token").len(), before, "{number}: nothing is asked with it");
    }
    world.answers_at("/token", 400, json!({"error": "access_denied"}));
    let (caller, _) = world.caller("alice", 800).await;
    assert_eq!(world.ask(&caller, None).await.unwrap_err().reason(), Reason::ExchangeRefused);
    // More than was vouched for, and our own question handed back.
    world.answers_at("/token", 200, answer(&assertion));
    let (caller, token) = world.caller("alice", 801).await;
    for answered in [json!({"access_token": "t", "token_type": "Bearer", "scope": "read write"}), bearer(&token)] {
        world.answers_at("/as/token", 200, answered);
        assert_eq!(world.ask(&caller, None).await.unwrap_err().reason(), Reason::CredentialUnavailable);
    }
}

fn vouched(url: &str) -> CredentialConfig {
    let asks = TokenRequest {
        client_id: "at-upstream".into(),
        audience: None,
        resource: Some("https://up.example/mcp".into()),
        scope: Some("read write".into()),
        ..own(url, ClientAuthentication::None)
    };
    let provider = TokenRequest { audience: None, scope: None, ..super::asks("") };
    let subject_token_type = "urn:ietf:params:oauth:token-type:access_token".into();
    CredentialConfig::IdJag(Arc::new(IdJagConfig { provider, subject_token_type, asks }))
}

#[tokio::test]
async fn an_agent_is_named_as_the_actor_and_an_answer_that_names_none_is_refused() {
    let config = |url: &str| ExchangeConfig { asks: own(url, private_key()), actor: Some(ActorToken::Agent) };
    let world = world_with(|url| server(CredentialConfig::Exchange(Arc::new(config(url)))), |delegate| delegate).await;
    let (alice, _) = world.caller("alice", 600).await;
    world.answers(200, good(&readable("at+jwt", &json!({"sub": "alice", "act": {"sub": "desk"}})), json!(600)));
    world.ask(&alice, None).await.unwrap();
    let asked = &world.asked_at("/as/token")[0];
    let actor = part(&asked["actor_token"], 1);
    let agent = alice.persona().agent.as_ref().map(|agent| agent.id.to_string()).unwrap();
    assert_eq!((actor["sub"].as_str(), actor["iss"].as_str()), (Some(agent.as_str()), Some("gate way")));
    assert_eq!(actor["aud"], format!("{}/as", world.url));
    assert_eq!(asked["actor_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    let (bob, _) = world.caller("bob", 600).await;
    world.answers(200, good(&readable("at+jwt", &json!({"sub": "bob"})), json!(600)));
    assert!(world.ask(&bob, None).await.unwrap_err().to_string().contains("does not say who acts"));
}

#[tokio::test]
async fn a_token_in_which_somebody_else_acts_than_who_was_named_is_refused() {
    let kept = readable("JWT", &json!({"iss": "https://idp.example", "sub": "spiffe://example/gw"}));
    let kept = ActorToken::Kept { token: SecretReference::Plain(kept), kind: "urn:x".into() };
    let opaque = ActorToken::Kept { token: SecretReference::Plain("opaque".into()), kind: "urn:x".into() };
    for (actor, good_acts, bad_acts) in [
        (
            ActorToken::Agent,
            vec![
                json!({"sub": "desk"}),
                json!({"sub": "desk-client", "client_id": "gate way"}),
                json!({"client_id": "desk-client"}),
                json!({"sub": "desk", "iss": "gate way", "act": {"sub": "somebody"}}),
            ],
            vec![
                json!({"sub": "somebody"}),
                json!({"sub": "somebody", "act": {"sub": "desk"}}),
                json!({"sub": "gate way"}),
                json!({"sub": "somebody", "client_id": "desk-client"}),
                json!({"sub": "desk", "client_id": "somebody"}),
                json!({"sub": "desk", "iss": "https://elsewhere.example"}),
                json!({"sub": ["desk"]}),
                json!("desk"),
                json!({}),
            ],
        ),
        (ActorToken::Gateway, vec![json!({"sub": "gate way"})], vec![json!({"sub": "desk"})]),
        (
            kept,
            vec![json!({"sub": "spiffe://example/gw", "iss": "https://idp.example"})],
            vec![json!({"sub": "gate way"}), json!({"sub": "spiffe://example/gw", "iss": "https://evil.example"})],
        ),
        (opaque, vec![json!({"sub": "whoever"})], vec![json!({}), json!({"iss": "https://idp.example"})]),
    ] {
        let config = |url: &str| ExchangeConfig { asks: own(url, private_key()), actor: Some(actor) };
        let world =
            world_with(|url| server(CredentialConfig::Exchange(Arc::new(config(url)))), |delegate| delegate).await;
        let mut life = 600;
        for (act, good_one) in good_acts.iter().map(|act| (act, true)).chain(bad_acts.iter().map(|act| (act, false))) {
            life += 1;
            let (alice, _) = world.caller("alice", life).await;
            world.answers(200, good(&readable("at+jwt", &json!({"sub": "alice", "act": act})), json!(600)));
            match world.ask(&alice, None).await {
                Ok(_) => assert!(good_one, "{act}"),
                Err(stop) => {
                    assert!(!good_one && stop.reason() == Reason::CredentialUnavailable, "{act}: {stop}");
                    assert!(stop.to_string().contains("somebody else acts"), "{stop}");
                }
            }
        }
        // What cannot be read only its issuer knows.
        let (alice, _) = world.caller("alice", 590).await;
        world.answers(200, good("unreadable", json!(600)));
        assert!(world.ask(&alice, None).await.is_ok());
    }
}

#[tokio::test]
async fn a_token_that_says_who_may_act_is_exchanged_by_nobody_else() {
    let world = world(server(CredentialConfig::Exchange(Arc::new(exchange("read"))))).await;
    let asked = |world: &World| world.asked_at("/token").len();
    let caller = async |world: &World, may_act: Value| {
        let now = now_s();
        let token = world.signer.token(&json!({
            "iss": world.url, "sub": "alice", "aud": "https://gw.example/mcp", "exp": now + 600, "iat": now,
            "jti": may_act.to_string(), "client_id": "desk-client", "groups": [], "may_act": may_act,
        }));
        world.identity.authenticate(Presented::Bearer(&token), &Resource::Gateway).await.unwrap()
    };
    for named in [
        json!({"sub": "somebody"}),
        json!({"sub": "somebody", "client_id": "gate way"}),
        json!({"sub": "gate way", "iss": "https://elsewhere.example"}),
        json!({}),
        json!("gate way"),
        json!([{"sub": "gate way"}]),
        // The agent is not the one who is sent, unless it is named as the actor.
        json!({"client_id": "desk-client"}),
    ] {
        let stop = world.ask(&caller(&world, named.clone()).await, None).await.unwrap_err();
        assert_eq!(stop.reason(), Reason::MayActRefused, "{named}");
    }
    assert_eq!(asked(&world), 0, "nothing was asked");
    for named in
        [json!({"sub": "gate way"}), json!({"client_id": "gate way"}), json!({"sub": "gate way", "iss": world.url})]
    {
        world.ask(&caller(&world, named.clone()).await, None).await.unwrap();
    }
    assert_eq!(asked(&world), 3);
}

#[tokio::test]
async fn a_token_that_says_who_may_act_is_shown_to_no_identity_provider_for_anybody_else() {
    let world = world_with(|url| server(vouched(url)), |delegate| delegate).await;
    let now = now_s();
    let token = world.signer.token(&json!({
        "iss": world.url, "sub": "alice", "aud": "https://gw.example/mcp", "exp": now + 600, "iat": now,
        "jti": "j", "client_id": "desk-client", "groups": [], "may_act": { "sub": "somebody" },
    }));
    let alice = world.identity.authenticate(Presented::Bearer(&token), &Resource::Gateway).await.unwrap();
    assert_eq!(world.ask(&alice, None).await.unwrap_err().reason(), Reason::MayActRefused);
    assert!(world.asked_at("/token").is_empty() && world.asked_at("/as/token").is_empty());
}

#[tokio::test]
async fn a_token_that_is_good_at_the_gateway_itself_goes_to_no_upstream() {
    let world = world(server(CredentialConfig::Exchange(Arc::new(exchange("read"))))).await;
    let (alice, _) = world.caller("alice", 600).await;
    let issued = |iss: &str, aud: Value| {
        let claims = json!({ "iss": iss, "sub": "alice", "aud": aud, "jti": "fresh", "exp": now_s() + 600 });
        good(&readable("at+jwt", &claims), json!(600))
    };
    for aud in [
        json!("https://gw.example/mcp"),
        json!("https://gw.example/mcp/git"),
        json!("https://gw.example/admin"),
        json!(["https://up.example", "https://gw.example/mcp"]),
    ] {
        world.answers(200, issued(&world.url, aud.clone()));
        let stop = world.ask(&alice, None).await.unwrap_err();
        assert_eq!(stop.reason(), Reason::CredentialUnavailable, "{aud}");
        assert!(stop.to_string().contains("good at this gateway itself"), "{stop}");
    }
    // What nobody would take here is none of ours, whatever it is called.
    world.answers(200, issued("https://elsewhere.example", json!("https://gw.example/mcp")));
    assert!(world.ask(&alice, None).await.is_ok());
    let (bob, _) = world.caller("bob", 600).await;
    world.answers(200, issued(&world.url, json!(["https://up.example", "account"])));
    assert!(world.ask(&bob, None).await.is_ok());
}

#[tokio::test]
async fn a_token_that_lives_longer_than_allowed_is_refused_whoever_says_so() {
    let mut short = exchange("read");
    short.asks.token_life_max = Some(Duration::from_secs(300));
    let world = world(server(CredentialConfig::Exchange(Arc::new(short)))).await;
    let mut life = 600;
    let mut ask = async |answer: Value| {
        life += 1;
        let (caller, _) = world.caller("alice", life).await;
        world.answers(200, answer);
        world.ask(&caller, None).await.map(|credential| credential.ends.expires_at.unwrap() - now_s())
    };
    let said = |exp: i64| readable("at+jwt", &json!({"exp": now_s() + exp}));
    for long in
        [good("t", json!(301)), good("t", Value::Null), good(&said(3_600), json!(60)), good(&said(3_600), Value::Null)]
    {
        assert_eq!(ask(long.clone()).await.unwrap_err().reason(), Reason::CredentialLifeExceeded, "{long}");
    }
    assert!((298..=300).contains(&ask(good("t", json!(300))).await.unwrap()));
    // The record tells the later of two ends.
    assert!((198..=200).contains(&ask(good(&said(200), json!(60))).await.unwrap()));
}

#[tokio::test]
async fn a_task_has_a_token_of_its_own_that_is_used_until_it_ends() {
    let world = world(server(CredentialConfig::Exchange(Arc::new(exchange("read"))))).await;
    let (alice, _) = world.caller("alice", 600).await;
    let server = &world.config.servers[0];
    let ask = async |mandate: &str, ends_at: i64| {
        let bound = Bound { mandate: Some(mandate), ends_at: Some(ends_at) };
        world.delegate.credential_for(&alice, server, None, bound).await
    };
    let now = now_s();
    let (one, two) = (ask("m1", now + 20).await.unwrap(), ask("m2", now + 900).await.unwrap());
    assert_ne!(value(&one), value(&two));
    assert_eq!(one.ends.used_until, Some(now + 20));
    assert!(two.ends.used_until.unwrap() <= now + 301);
    assert_eq!(value(&ask("m1", now + 10).await.unwrap()), value(&one), "the same token, used for less long");
    assert_eq!(ask("m1", now).await.unwrap_err().reason(), Reason::CredentialUnavailable, "it has ended");
    assert!(one.ends.expires_at.unwrap() >= now + 600, "the record has both ends");
}

#[tokio::test]
async fn an_authorization_server_that_says_nothing_or_too_much_is_trouble_and_no_decision() {
    let world = world(server(CredentialConfig::Exchange(Arc::new(exchange("read"))))).await;
    let (alice, _) = world.caller("alice", 600).await;
    world.answers(200, json!({"access_token": "t", "padding": "x".repeat(limit::OAUTH_RESPONSE_BYTES_MAX)}));
    let stop = world.ask(&alice, None).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::CredentialUnavailable);
    assert!(stop.to_string().contains("is larger than"), "{stop}");
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = Url::parse(&format!("http://{}/token", silent.local_addr().unwrap())).unwrap();
    let slow = TokenRequest { token_endpoint: Some(endpoint), ..asks("read") };
    let slow = Arc::new(server(CredentialConfig::Exchange(Arc::new(ExchangeConfig { asks: slow, actor: None }))));
    let asked = async { world.delegate.credential_for(&alice, &slow, None, Bound::default()).await };
    let stop = asked.await.unwrap_err();
    assert_eq!(stop.reason(), Reason::CredentialUnavailable);
    assert!(stop.to_string().contains("it took too long"), "{stop}");
}

#[tokio::test]
async fn metadata_that_names_another_issuer_leads_nowhere() {
    let wrong = |url: &str| TokenRequest { issuer: Some(format!("{url}/as/")), ..asks("read") };
    let world =
        world_with(|url| server(CredentialConfig::ClientCredentials(Arc::new(wrong(url)))), |delegate| delegate).await;
    let (alice, _) = world.caller("alice", 600).await;
    let stop = world.ask(&alice, None).await.unwrap_err();
    assert!(stop.to_string().contains("write issuer exactly"), "{stop}");
    assert!(world.asked_at("/as/token").is_empty());
}

#[tokio::test]
async fn a_secret_is_changed_in_two_places_without_a_call_that_fails() {
    let slots = vec![SecretReference::Plain("new".into()), SecretReference::Plain("old".into())];
    let fixed = StaticConfig {
        header: "x-api-key".into(),
        prefix: String::new(),
        slots,
        max_age: None,
        rotated_at: None,
        on_stale: OnStale::Warn,
    };
    let world = world(server(CredentialConfig::Static(Arc::new(fixed)))).await;
    let (alice, _) = world.caller("alice", 600).await;
    let first = world.ask(&alice, None).await.unwrap();
    assert_eq!(value(&first), "new");
    let spare = first.header.unwrap().spare.unwrap();
    assert_eq!(spare.other().await.unwrap().unwrap().expose_secret(), "old");
    assert_eq!(value(&world.ask(&alice, None).await.unwrap()), "new", "trying it is not yet choosing it");
    spare.accepted();
    let again = world.ask(&alice, None).await.unwrap();
    assert_eq!(value(&again), "old");
    let spare = again.header.unwrap().spare.unwrap();
    assert_eq!(spare.other().await.unwrap().unwrap().expose_secret(), "new");
    spare.accepted();
    assert_eq!(value(&world.ask(&alice, None).await.unwrap()), "new");
    let listed = world.delegate.static_secrets(&world.config).await;
    assert_eq!(listed.iter().map(|one| one.presented).collect::<Vec<_>>(), [true, false]);
    assert!(listed.iter().all(|one| one.used_at.is_some() && !one.stale));
}

#[tokio::test]
async fn a_secret_that_is_too_old_is_said_to_be_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let aged = |on_stale| {
        CredentialConfig::Static(Arc::new(StaticConfig {
            header: "authorization".into(),
            prefix: "Bearer ".into(),
            slots: vec![SecretReference::File(path.clone())],
            max_age: Some(Duration::from_secs(3_600)),
            rotated_at: None,
            on_stale,
        }))
    };
    std::fs::write(&path, "one").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7_200);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let mut both = server(aged(OnStale::Warn));
    both.tool_credentials.insert("strict".into(), aged(OnStale::Refuse));
    let world = world(both).await;
    let (alice, _) = world.caller("alice", 600).await;
    let warned = world.ask(&alice, None).await.unwrap();
    assert_eq!(value(&warned), "Bearer one");
    assert_eq!(world.ask(&alice, Some("strict")).await.unwrap_err().reason(), Reason::CredentialStale);
    assert!(world.delegate.static_secrets(&world.config).await.iter().all(|one| one.stale));
    // The upstream refuses it and its file has changed: what is there now is tried at once.
    let spare = warned.header.unwrap().spare.unwrap();
    assert!(spare.other().await.unwrap().is_none(), "what was refused is not tried again");
    std::fs::write(&path, "two").unwrap();
    assert_eq!(spare.other().await.unwrap().unwrap().expose_secret(), "Bearer two");
    assert_eq!(value(&world.ask(&alice, Some("strict")).await.unwrap()), "Bearer two");
    assert!(world.delegate.static_secrets(&world.config).await.iter().all(|one| !one.stale));
    // One that is refused for its age has an end of its own, and one that is only warned of goes on after it.
    let (warned, strict) = (world.ask(&alice, None).await.unwrap(), world.ask(&alice, Some("strict")).await.unwrap());
    assert!((3_590..=3_600).contains(&(strict.ends.expires_at.unwrap() - now_s())));
    assert_eq!(warned.ends.expires_at, strict.ends.expires_at);
    assert_eq!(strict.header.unwrap().used_until, strict.ends.expires_at);
    assert_eq!(warned.header.unwrap().used_until, None);
}

#[tokio::test]
async fn a_place_that_a_refused_secret_cannot_be_read_from_is_waited_for_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "one").unwrap();
    let fixed = StaticConfig {
        header: "authorization".into(),
        prefix: "Bearer ".into(),
        slots: vec![SecretReference::File(path.clone())],
        max_age: None,
        rotated_at: None,
        on_stale: OnStale::Warn,
    };
    let world = world(server(CredentialConfig::Static(Arc::new(fixed)))).await;
    let (alice, _) = world.caller("alice", 600).await;
    let spare = world.ask(&alice, None).await.unwrap().header.unwrap().spare.unwrap();
    // A pipe into which nobody writes.
    std::fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let began = std::time::Instant::now();
    assert!(spare.other().await.unwrap().is_none());
    assert!(began.elapsed() >= limit::SECRET_REREAD_TIMEOUT && began.elapsed() < 5 * limit::SECRET_REREAD_TIMEOUT);
    // Lets go of whoever reads it.
    drop(std::fs::File::options().write(true).open(&path).unwrap());
}
