//! Nobody is authenticated by a token that the issuer did not sign, nor by one that says the wrong things.
//!
//! An input that begins with `=` is a header and, on the next line, claims; both are signed with the issuer's
//! key, with `ISSUER`, `AUDIENCE`, `NOW` and `LATER` filled in. Every other input is a token as it came.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a check panics where something that must hold does not")]

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::routing::get;
use bailiwick::identity::{Caller, Identity, Presented, Resource, Revocations};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const AUDIENCE: &str = "http://127.0.0.1:7800/mcp";

/// An issuer, and the room that believes it.
struct World {
    runtime: Runtime,
    identity: Identity,
    key: EcdsaKeyPair,
    issuer: String,
}

/// Panics where something that must hold does not.
pub fn check(data: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(World::new);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(parts) = text.strip_prefix('=') else {
        assert!(world.authenticate(text).is_none(), "a token that nobody signed is accepted: {text:?}");
        return;
    };
    let now = seconds();
    let filled = parts
        .replace("ISSUER", &world.issuer)
        .replace("AUDIENCE", AUDIENCE)
        .replace("NOW", &now.to_string())
        .replace("LATER", &(now + 600).to_string());
    let (header, claims) = filled.split_once('\n').unwrap_or((&filled, ""));
    if let Some(caller) = world.authenticate(&world.sign(header, claims)) {
        let (header, claims) = (object(header), object(claims));
        check_accepted(&world.issuer, &header, &claims, &caller, now);
    }
}

fn check_accepted(issuer: &str, header: &Value, claims: &Value, caller: &Caller, now: i64) {
    assert_eq!(header["alg"], "ES256");
    let typ = header["typ"].as_str().expect("a type").to_ascii_lowercase();
    assert!(["at+jwt", "application/at+jwt"].contains(&typ.as_str()), "accepted as {typ}");
    assert!(header.get("crit").is_none(), "an extension that nobody understands is accepted");
    assert_eq!(claims["iss"], issuer);
    let named = |value: &Value| value.as_str() == Some(AUDIENCE);
    let audience = &claims["aud"];
    assert!(named(audience) || audience.as_array().is_some_and(|all| all.iter().any(named)), "not for us");
    let expires = claims["exp"].as_f64().expect("it expires");
    // A minute of leeway, and a second for the time that this takes.
    assert!(expires > (now - 62) as f64, "it has expired");
    assert!(claims["nbf"].as_f64().is_none_or(|from| from <= (now + 62) as f64), "it is not valid yet");
    assert!(claims["sub"].as_str().is_some_and(|subject| !subject.is_empty()), "it is about nobody");
    assert!(claims.get("cnf").is_none_or(Value::is_null), "it is bound to a key");
    assert_eq!(caller.token().subject.as_deref(), claims["sub"].as_str());
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).expect("what was accepted is JSON")
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
        let point = key.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        let jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "one", "x": x, "y": y});
        let issuer = runtime.block_on(serve(json!({ "keys": [jwk] })));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("servers.toml");
        let servers = format!(
            "[gateway]\npublic_url = \"http://127.0.0.1:7800\"\nallow_loopback_issuers = true\n\
             [issuers.one]\nissuer = \"{issuer}\"\nalgorithms = [\"ES256\"]\ninteractive_default = \"any\"\n"
        );
        let agents = "[agents.any]\nowner = \"user:one/owner\"\npurpose = \"x\"\nkind = \"interactive\"\n\
                      environments = [\"test\"]\n";
        std::fs::create_dir(directory.path().join("policies")).unwrap();
        std::fs::write(&file, format!("environments = [\"test\"]\n{servers}")).unwrap();
        std::fs::write(directory.path().join("policies/agents.toml"), agents).unwrap();
        let config = bailiwick::config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).config;
        let identity = {
            let _entered = runtime.enter();
            let revocations = Arc::new(Revocations::default());
            Identity::new(&config, revocations, TaskTracker::new(), CancellationToken::new())
        };
        let world = Self { runtime, identity, key, issuer };
        world.accepts_a_good_token();
        world
    }

    /// Without it, a room that accepts nothing would pass.
    fn accepts_a_good_token(&self) {
        let now = seconds();
        let claims = json!({
            "iss": self.issuer, "sub": "somebody", "aud": AUDIENCE, "client_id": "client", "jti": "one",
            "iat": now, "exp": now + 600,
        });
        let token = self.sign(r#"{"alg":"ES256","typ":"at+jwt","kid":"one"}"#, &claims.to_string());
        for _ in 0..500 {
            if self.authenticate(&token).is_some() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("a good token is refused");
    }

    fn authenticate(&self, token: &str) -> Option<Caller> {
        self.runtime.block_on(self.identity.authenticate(Presented::Bearer(token), &Resource::Gateway)).ok()
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Discovery and keys; answers the issuer's URL.
async fn serve(keys: Value) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    let router = axum::Router::new()
        .route("/.well-known/openid-configuration", get(move || std::future::ready(axum::Json(metadata.clone()))))
        .route("/keys", get(move || std::future::ready(axum::Json(keys.clone()))));
    tokio::spawn(async { axum::serve(listener, router).await });
    url
}

fn seconds() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}
