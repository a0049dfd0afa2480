//! A client that has a key of its own and proves it with every request (DPoP).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::client::{Answer, Client, modern_request};

/// A client with a P-256 key.
pub struct Holder {
    pkcs8: Vec<u8>,
    /// The public key.
    pub jwk: Value,
}

impl Holder {
    pub fn new() -> Self {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        let random = aws_lc_rs::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        Self { pkcs8: pkcs8.as_ref().to_vec(), jwk: json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }) }
    }

    /// What `cnf` of a token says that is bound to the key.
    pub fn confirmation(&self) -> Value {
        confirmation(&self.jwk)
    }

    /// Header and claims of a good proof; tests spoil them.
    pub fn parts(&self, method: &str, url: &str, token: &str) -> (Value, Value) {
        let now = jiff::Timestamp::now().as_second();
        let id = ulid::Ulid::generate().to_string();
        (
            json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk }),
            json!({ "htm": method, "htu": url, "iat": now, "jti": id, "ath": sha256(token) }),
        )
    }

    /// Signs a proof with exactly these.
    pub fn sign(&self, (header, claims): &(Value, Value)) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let key = EncodingKey::from_ec_der(&self.pkcs8);
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::ES256).unwrap();
        format!("{signed}.{signature}")
    }

    /// A good proof.
    pub fn proof(&self, method: &str, url: &str, token: &str) -> String {
        self.sign(&self.parts(method, url, token))
    }
}

/// What `cnf` of a token says that is bound to that P-256 key.
fn confirmation(jwk: &Value) -> Value {
    let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
    json!({ "jkt": sha256(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)) })
}

/// What a proof says, and to which key a token is bound that was asked for with it; it must be signed by that key.
pub fn proven(proof: &str) -> (Value, Value) {
    let (signed, signature) = proof.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let header = read(header);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(header["jwk"].clone()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    assert!(jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key, Algorithm::ES256).unwrap());
    (read(claims), confirmation(&header["jwk"]))
}

/// A tool call with an `Authorization` header as given, and these further headers.
pub async fn call_as(url: &str, authorization: &str, further: &[(&'static str, String)]) -> Answer {
    call_over(&Client::new(url, None), authorization, further).await
}

/// The same over a client of the test's.
pub async fn call_over(client: &Client, authorization: &str, further: &[(&'static str, String)]) -> Answer {
    let (mut headers, body) = modern_request("tools/call", json!({ "name": "tools__echo", "arguments": {} }));
    if !authorization.is_empty() {
        headers.push(("authorization", authorization.to_owned()));
    }
    headers.extend_from_slice(further);
    client.post(&headers, body.to_string()).await
}

/// The SHA-256 of a text as JWTs spell it.
pub fn sha256(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()))
}
