//! API keys: whose they are, when they are good no more, and where they get in at all.

use super::*;
use crate::config::ApiKeyConfig;

fn key(id: &str, text: &str) -> ApiKeyConfig {
    ApiKeyConfig {
        id: id.to_owned(),
        digest: Digest::sha256(text.as_bytes()),
        owner: "user:corp/anna".to_owned(),
        owner_person: None,
        created: jiff::Timestamp::from_second(now_s() - 60).unwrap(),
        expires: jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date(),
    }
}

/// The fixture's configuration where `bot` has that key.
fn config_with(keys: Vec<ApiKeyConfig>) -> Config {
    let mut config = config_at("http://127.0.0.1:9");
    let bot = config.agents.values_mut().find(|agent| agent.id.as_str() == "bot").unwrap();
    Arc::make_mut(bot).keys = keys;
    config
}

#[tokio::test]
async fn a_key_is_its_agents_alone_and_no_persons() {
    use secrecy::ExposeSecret as _;
    let fresh = super::super::api_key::fresh().unwrap();
    let text = fresh.expose_secret();
    assert_eq!(text.len(), "bwk_".len() + 43);
    let config = config_with(vec![key("other", "bwk_x"), key("nightly-1", text)]);
    let room = room(&config);
    let caller = room.ask(text).await.unwrap();
    let persona = caller.persona();
    assert_eq!((persona.agent.as_ref().unwrap().id.as_str(), &persona.user), ("bot", &None));
    assert_eq!((persona.client_proof, persona.lacks_proof()), (ClientProof::Secret, false));
    assert_eq!((caller.token().id.as_deref(), caller.token().issuer.as_str()), (Some("nightly-1"), KEYS));
    assert!(caller.token().is_key() && caller.subject_token().is_none());
    assert!(still_stands(&config, &caller).is_ok());
    assert_eq!(room.ask_at(text, &Resource::Admin).await.map(|_| ()), Err(Reason::AudienceMismatch));
    assert!(room.ask_at(text, &Resource::Server(ServerId::new("git").unwrap())).await.is_ok());
    // Another key of the same agent is another principal, and a key that is gone stands for nobody.
    assert_ne!(room.ask("bwk_x").await.unwrap().principal(), caller.principal());
    assert_eq!(still_stands(&config_with(Vec::new()), &caller).unwrap_err().reason, Reason::KeyUnknown);
    room.identity.reload(&config_with(Vec::new()));
    assert_eq!(room.ask(text).await.map(|_| ()), Err(Reason::KeyUnknown));
}

#[tokio::test]
async fn what_begins_like_a_key_and_is_none_is_refused() {
    let room = room(&config_with(vec![key("one", "bwk_one")]));
    for text in ["bwk_", "bwk_on", "bwk_onee", "bwk_ONE", "bwk_one.two.three", "bwk_{}"] {
        assert_eq!(room.ask(text).await.map(|_| ()), Err(Reason::KeyUnknown), "{text}");
    }
    let digest = Digest::sha256(b"bwk_one").to_string();
    assert_eq!(room.ask(&format!("bwk_{digest}")).await.map(|_| ()), Err(Reason::KeyUnknown));
    assert_eq!(room.ask(&digest).await.map(|_| ()), Err(Reason::TokenMalformed), "what the file has opens nothing");
}

#[tokio::test]
async fn a_key_ends_with_its_day_and_with_its_agent() {
    let expired = ApiKeyConfig { expires: jiff::civil::date(2020, 1, 1), ..key("old", "bwk_old") };
    let mut config = config_with(vec![expired, key("one", "bwk_one")]);
    let room = room(&config);
    assert_eq!(room.ask("bwk_old").await.map(|_| ()), Err(Reason::TokenExpired));
    let caller = room.ask("bwk_one").await.unwrap();
    assert!((1..=86_400).contains(&(caller.token().expires_at - now_s())));
    let bot = config.agents.values_mut().find(|agent| agent.id.as_str() == "bot").unwrap();
    Arc::make_mut(bot).state = crate::config::AgentState::Suspended;
    room.identity.reload(&config);
    assert_eq!(room.ask("bwk_one").await.map(|_| ()), Err(Reason::AgentInactive));
}

#[tokio::test]
async fn a_key_is_revoked_by_its_name_and_whoever_signs_everyone_out_means_it_too() {
    let room = room(&config_with(vec![key("one", "bwk_one"), key("two", "bwk_two")]));
    assert!(room.ask("bwk_one").await.is_ok());
    let held = |target, mode| {
        let revocation = Revocation { target, mode, actor: "host:0".into(), note: String::new(), at: 0 };
        vec![Held { since: RevocationEpoch(1), revocation }]
    };
    room.revocations.replace(RevocationEpoch(1), held(RevocationTarget::Key("one".into()), RevocationMode::Block));
    assert_eq!(room.ask("bwk_one").await.map(|_| ()), Err(Reason::Revoked));
    assert!(room.ask("bwk_two").await.is_ok());
    let before = |at: i64| RevocationMode::SignOut { issued_before: now_s() + at };
    room.revocations.replace(RevocationEpoch(2), held(RevocationTarget::Everything, before(-120)));
    assert!(room.ask("bwk_one").await.is_ok(), "it was made later");
    room.revocations.replace(RevocationEpoch(3), held(RevocationTarget::Everything, before(0)));
    assert_eq!(room.ask("bwk_one").await.map(|_| ()), Err(Reason::Revoked));
}
