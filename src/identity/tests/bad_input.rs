//! What a hostile client or a careless issuer puts into tokens, keys and metadata.

use super::*;

/// Asks once; where that is no matter of a moment, the remembered answer is not of interest.
async fn answer(room: &Room, token: &str) -> Result<(), Reason> {
    let asked = room.identity.authenticate(Presented::Bearer(token), &Resource::Gateway).await;
    asked.map(|_| ()).map_err(|stop| stop.reason())
}

#[tokio::test]
async fn a_key_id_is_compared_and_means_nothing_else() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let good = claims(&idp.url);
    let header = |kid: Value| json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid });
    for kid in [
        "../../../../etc/passwd",
        "/dev/null",
        "file:///dev/null",
        "https://evil.example/key",
        "one' OR '1'='1",
        "one; cat /etc/shadow",
        "one\0",
        "one\n",
        " one",
        "ONE",
        "",
        &"k".repeat(10 * 1024),
    ] {
        let answer = answer(&room, &signer.token_with(&header(json!(kid)), &good)).await;
        assert_eq!(answer, Err(Reason::SignatureInvalid), "{kid:.40}");
    }
    for kid in [json!(1), json!(["one"]), json!({ "a": "one" }), json!(true)] {
        let answer = answer(&room, &signer.token_with(&header(kid.clone()), &good)).await;
        assert_eq!(answer, Err(Reason::TokenMalformed), "{kid}");
    }
    assert!(idp.fetches.load(Ordering::SeqCst) <= 2, "all of them made the gateway ask once more");
    assert!(answer(&room, &signer.token(&good)).await.is_ok());
}

#[tokio::test]
async fn of_a_hundred_keys_the_named_one_counts_and_beyond_the_limit_none() {
    let signer = Signer::new("ours");
    let stranger = Signer::new("ours");
    let noise =
        |count: usize| -> Vec<Value> { (0..count).map(|number| Signer::new(&format!("k{number}")).jwk()).collect() };
    let mut keys = noise(100);
    // Keys of the same name that are for something else, or whose secret everybody knows, verify nothing.
    let mut encrypts = stranger.jwk();
    encrypts["use"] = json!("enc");
    let mut svid = stranger.jwk();
    svid["use"] = json!("jwt-svid");
    keys.extend([encrypts, svid, json!({ "kty": "oct", "kid": "ours", "k": "c2VjcmV0" }), signer.jwk()]);
    let idp = Idp::start(keys).await;
    let room = super::room(&config_at(&idp.url));
    assert!(answer(&room, &signer.token(&claims(&idp.url))).await.is_ok());
    assert_eq!(answer(&room, &stranger.token(&claims(&idp.url))).await, Err(Reason::SignatureInvalid));
    for alg in ["HS256", "none"] {
        let token = stranger.token_with(&json!({ "alg": alg, "typ": "at+jwt", "kid": "ours" }), &claims(&idp.url));
        assert_eq!(answer(&room, &token).await, Err(Reason::AlgorithmRefused), "{alg}");
    }

    let mut many = noise(limit::JWKS_KEYS_MAX);
    many.push(signer.jwk());
    let full = Idp::start(many).await;
    let room = super::room(&config_at(&full.url));
    assert_eq!(answer(&room, &signer.token(&claims(&full.url))).await, Err(Reason::SignatureInvalid));
}

#[tokio::test]
async fn an_id_token_is_no_access_token_however_it_is_presented() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let mut config = config_at(&idp.url);
    Arc::make_mut(&mut config.issuers[0]).audiences.push("desk-client".to_owned());
    let room = room(&config);
    // Even where somebody wrote the client's id into `audiences`, and plain JWTs are accepted.
    let id = with(claims(&idp.url), json!({ "aud": "desk-client", "azp": "desk-client", "client_id": null }));
    let plain = json!({ "alg": "ES256", "typ": "JWT", "kid": "one" });
    for telling in [
        json!({ "nonce": "n" }),
        json!({ "at_hash": "h" }),
        json!({ "token_use": "id" }),
        json!({ "typ": "ID" }),
        json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
        json!({ "token_use": "refresh" }),
    ] {
        let token = signer.token_with(&plain, &with(id.clone(), telling.clone()));
        assert_eq!(answer(&room, &token).await, Err(Reason::TokenTypeRefused), "{telling}");
    }
    for typ in
        ["id_token+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt", "oauth-id-jag+jwt", "client-authentication+jwt"]
    {
        let token = signer.token_with(&json!({ "alg": "ES256", "typ": typ, "kid": "one" }), &claims(&idp.url));
        assert_eq!(answer(&room, &token).await, Err(Reason::TokenTypeRefused), "{typ}");
    }
}

#[tokio::test]
async fn metadata_that_is_another_issuers_or_leads_elsewhere_brings_no_keys() {
    let signer = Signer::new("one");
    type Metadata = fn(&str) -> Value;
    let spoilt: [(&str, Metadata); 6] = [
        ("equal to the character", |url| json!({ "issuer": format!("{url}/"), "jwks_uri": format!("{url}/jwks") })),
        ("equal to the character", |url| json!({ "issuer": "https://idp.example", "jwks_uri": format!("{url}/jwks") })),
        ("cannot be read", |url| json!({ "jwks_uri": format!("{url}/jwks") })),
        ("no jwks_uri", |url| json!({ "issuer": url })),
        ("cannot be read", |url| json!({ "issuer": url, "jwks_uri": "not a place" })),
        ("never allowed", |url| json!({ "issuer": url, "jwks_uri": "http://169.254.169.254/latest/" })),
    ];
    for (expected, metadata) in spoilt {
        let idp = Idp::start_with(vec![signer.jwk()], &metadata).await;
        let room = room(&config_at(&idp.url));
        assert_eq!(answer(&room, &signer.token(&claims(&idp.url))).await, Err(Reason::IssuerUnavailable), "{expected}");
        let problem = room.identity.readiness()[0].problem.clone().unwrap();
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
}

#[tokio::test]
async fn groups_that_were_cut_off_are_unknown_and_not_fewer() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    for changes in [
        json!({ "groups": null }),
        json!({ "groups": null, "hasgroups": true }),
        json!({ "groups": ["dev"], "hasgroups": true }),
        json!({ "groups": null, "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": { "endpoint": "https://x" } } }),
        json!({ "groups": "dev" }),
        json!({ "groups": ["dev", 7] }),
    ] {
        let caller = room.ask(&signer.token(&with(claims(&idp.url), changes.clone()))).await.unwrap();
        assert!(matches!(caller.persona().groups, Groups::Unknown(_)), "{changes}");
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_tolerated_as_far_as_the_leeway_goes() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let token =
        |there: i64| signer.token(&with(claims(&idp.url), json!({ "iat": there, "nbf": there, "exp": there + 300 })));
    let now = now_s();
    // The fixture's leeway is half a minute.
    assert!(answer(&room, &token(now + 25)).await.is_ok());
    assert_eq!(answer(&room, &token(now + 40)).await, Err(Reason::TokenNotYetValid));
    assert!(answer(&room, &token(now - 320)).await.is_ok());
    assert_eq!(answer(&room, &token(now - 340)).await, Err(Reason::TokenExpired));
    assert_eq!(answer(&room, &token(i64::MAX - 300)).await, Err(Reason::TokenNotYetValid));
    assert_eq!(answer(&room, &token(i64::MIN + 1)).await, Err(Reason::TokenExpired));
}
