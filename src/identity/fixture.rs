//! What the tests of this room and of `delegate` are made of: a configuration, agents, and a signer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use crate::config::{
    AgentClient, AgentConfig, AgentKind, AgentState, Algorithm, ClaimNames, Config, DeclaredProof, Durability,
    GatewayConfig, IssuerConfig, KnownBy, QuotaConfig, ReloadMode, ScopeMode, ScopeRule,
};
use crate::ids::{AgentId, Environment, IssuerAlias};

/// An issuer's signing key.
pub struct Signer {
    id: String,
    key: jsonwebtoken::EncodingKey,
    public: Vec<u8>,
}

impl Signer {
    /// A fresh P-256 key with that `kid`.
    pub fn new(id: &str) -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
        let key = jsonwebtoken::EncodingKey::from_ec_der(document.as_ref());
        Self { id: id.to_owned(), key, public: pair.public_key().as_ref().to_vec() }
    }

    /// The public key.
    pub fn jwk(&self) -> serde_json::Value {
        let (x, y) = (&self.public[1..33], &self.public[33..]);
        serde_json::json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// The ES256 signature of a text.
    pub fn signature(&self, signed: &str) -> String {
        jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, jsonwebtoken::Algorithm::ES256).unwrap()
    }

    /// A token with exactly this header.
    pub fn token_with(&self, header: &serde_json::Value, claims: &serde_json::Value) -> String {
        let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(&signed);
        format!("{signed}.{signature}")
    }

    /// An access token as RFC 9068 wants it.
    pub fn token(&self, claims: &serde_json::Value) -> String {
        self.token_with(&serde_json::json!({"alg": "ES256", "typ": "at+jwt", "kid": self.id}), claims)
    }
}

/// A JWKS of these keys.
pub(super) fn jwks(keys: &[serde_json::Value]) -> super::keys::Jwks {
    serde_json::from_value(serde_json::json!({ "keys": keys })).unwrap()
}

/// Issuer `corp` at `https://idp.example`.
pub fn issuer_config() -> IssuerConfig {
    IssuerConfig {
        alias: IssuerAlias::new("corp").unwrap(),
        issuer: "https://idp.example".into(),
        audiences: vec!["api://bailiwick".into()],
        admin_audiences: Vec::new(),
        algorithms: vec![Algorithm::Es256],
        token_types: vec!["at+jwt".into(), "jwt".into()],
        token_life_max: Duration::from_secs(3600),
        leeway: Duration::from_secs(30),
        claims: ClaimNames {
            client: vec!["client_id".into(), "azp".into()],
            groups: Some("groups".into()),
            groups_age_max: None,
            scope: vec!["scope".into(), "scp".into()],
            person: None,
        },
        optional_claims: Vec::new(),
        own_tokens: crate::config::OwnSign::USUAL.to_vec(),
        default_roles: vec!["employee".into()],
        scopes: ScopeMode::Required(vec![ScopeRule {
            scope: "deploy".into(),
            object: "deploy/*".into(),
            actions: vec!["call".into()],
        }]),
        interactive_default: Some(AgentId::new("assistant").unwrap()),
        jwks_stale_max: Duration::from_secs(86_400),
        sender_constraint: crate::config::SenderConstraint::None,
        kind: crate::config::spiffe::IssuerKind::Oidc,
        introspection: None,
        registration: None,
        link: None,
    }
}

/// An active interactive agent that `corp` knows by that client id.
pub fn agent(id: &str, client: &str) -> AgentConfig {
    AgentConfig {
        id: AgentId::new(id).unwrap(),
        owner: "user:corp/owner".into(),
        owner_person: None,
        sponsor_group: None,
        purpose: "tests".into(),
        kind: AgentKind::Interactive,
        environments: vec![Environment::new("development").unwrap()],
        clients: vec![AgentClient {
            issuer: IssuerAlias::new("corp").unwrap(),
            known_by: KnownBy::Client,
            client_id: client.into(),
            proof: DeclaredProof::Public,
        }],
        keys: Vec::new(),
        state: AgentState::Active,
        expires: None,
        review: None,
        mandates: None,
        budget: crate::config::AgentBudget::default(),
    }
}

/// A configuration with two issuers and agents in every state.
pub fn config() -> Config {
    let other = IssuerConfig {
        alias: IssuerAlias::new("other").unwrap(),
        issuer: "https://other.example".into(),
        ..issuer_config()
    };
    let mut agents = vec![
        AgentConfig { clients: Vec::new(), ..agent("assistant", "") },
        agent("desk", "desk-client"),
        AgentConfig { kind: AgentKind::Autonomous, ..agent("bot", "bot-client") },
        AgentConfig { state: AgentState::Suspended, ..agent("suspended", "suspended-client") },
        AgentConfig { state: AgentState::Retired, ..agent("retired", "retired-client") },
        AgentConfig { state: AgentState::Proposed, ..agent("proposed", "proposed-client") },
        AgentConfig { expires: Some(jiff::civil::date(2020, 1, 1)), ..agent("expired", "expired-client") },
    ];
    agents.extend((1..=5).map(|n| agent(&format!("hop{n}"), &format!("h{n}"))));
    let mut foreign = agent("foreign", "foreign-client");
    foreign.clients[0].issuer = other.alias.clone();
    agents.push(foreign);
    Config {
        gateway: GatewayConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: Url::parse("https://gw.example").unwrap(),
            state: PathBuf::from("/nonexistent"),
            store: crate::config::StoreConfig::Sqlite,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            client_ca: None,
            client_certificate_header: None,
            dpop: crate::config::DpopMode::Proof,
            allow_loopback_issuers: true,
            reload: ReloadMode::Signal,
            durability: Durability::Fsync,
            shutdown_grace: Duration::from_secs(1),
        },
        cluster: None,
        record: crate::config::RecordConfig::fixture(),
        keys: crate::config::KeysConfig::default(),
        telemetry: None,
        exports: Vec::new(),
        feeds: Vec::new(),
        quota: QuotaConfig {
            requests_per_second: 100,
            requests_burst: 100,
            calls_in_flight_max: 10,
            streams_max: 10,
            refusals_per_second: 10,
            refusals_burst: 10,
        },
        issuers: vec![Arc::new(issuer_config()), Arc::new(other)],
        anonymous: false,
        local: None,
        admin: None,
        servers: Vec::new(),
        environments: vec![Environment::new("development").unwrap()],
        agents: agents.into_iter().map(|agent| (agent.id.clone(), Arc::new(agent))).collect::<BTreeMap<_, _>>(),
        pins: Arc::default(),
        attest_every: crate::limit::ATTEST_EVERY,
        breaker: crate::config::BreakerConfig::default(),
        templates: BTreeMap::new(),
        gates: Vec::new(),
        break_glass: Vec::new(),
        webhooks: Vec::new(),
        policies: PathBuf::from("/nonexistent"),
        file: PathBuf::from("/nonexistent/servers.toml"),
    }
}

/// Somebody of `corp` whose token never ends.
pub fn somebody() -> super::Caller {
    let alias = IssuerAlias::new("corp").unwrap();
    let verified = super::nobody::without_token(alias, "ann", None, crate::ids::Digest::sha256(b"token"), 0);
    super::Caller { verified: Arc::new(verified), by: None, epoch: crate::ids::RevocationEpoch(0), elevation: None }
}
