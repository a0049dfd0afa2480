//! An OIDC issuer in this process: discovery, one ES256 key, and a token for each of 200 people.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::Result;

/// The issuer; it serves until this process ends.
pub struct Issuer {
    /// Its `iss`.
    pub url: String,
    key: EncodingKey,
}

impl Issuer {
    /// Makes a key and serves it.
    pub async fn start() -> Result<Self> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_unspecified| "no key could be made")?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref())
            .map_err(|rejected| rejected.to_string())?;
        // The uncompressed point: 4, then both coordinates.
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let keys = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "bench", "x": x, "y": y,
        }]});
        let metadata = json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "jwks_uri": format!("{url}/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let serve = |document: serde_json::Value| {
            let text = document.to_string();
            get(move || std::future::ready(([(CONTENT_TYPE, "application/json")], text.clone())))
        };
        let router =
            axum::Router::new().route("/.well-known/openid-configuration", serve(metadata)).route("/keys", serve(keys));
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self { url, key: EncodingKey::from_ec_der(document.as_ref()) })
    }

    /// An access token (RFC 9068) for person `number`, good for an hour.
    pub fn token(&self, number: usize, audience: &str) -> Result<String> {
        self.token_of(&format!("person-{number}"), "bench-assistant", number, audience)
    }

    /// An access token of somebody by their name, through that client.
    pub fn token_of(&self, subject: &str, client: &str, number: usize, audience: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some("bench".to_owned());
        let claims = json!({
            "iss": self.url,
            "sub": subject,
            "aud": audience,
            "client_id": client,
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "jti": format!("token-{number}"),
            "groups": ["staff", format!("team-{}", number % 50)],
        });
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}
