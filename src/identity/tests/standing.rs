//! Whoever was let in, after the files, the keys or a clock have moved on.

use super::*;
use crate::config::KnownBy;
use crate::ids::AgentId;

fn agent_of<'c>(config: &'c mut Config, name: &str) -> &'c mut crate::config::AgentConfig {
    Arc::make_mut(config.agents.get_mut(&AgentId::new(name).unwrap()).unwrap())
}

#[tokio::test]
async fn a_caller_stands_for_as_long_as_the_files_would_let_them_in_as_the_same() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let config = config_at(&idp.url);
    let room = room(&config);
    let ask = |changes: Value| {
        let token = signer.token(&with(claims(&idp.url), changes));
        let room = &room;
        async move { room.ask(&token).await.unwrap() }
    };
    let software = ask(json!({ "sub": "bot-client", "client_id": "bot-client" })).await;
    let assistant = ask(json!({ "client_id": "somebody-elses" })).await;
    let desk = ask(json!({})).await;
    let chained = ask(json!({ "act": { "sub": "h1" } })).await;
    for caller in [&software, &assistant, &desk, &chained] {
        assert!(still_stands(&config, caller).is_ok());
    }
    type Edit = fn(&mut Config);
    let cases: [(&Caller, &str, Reason, Edit); 9] = [
        (&software, "its client is taken away", Reason::AgentInactive, |config| {
            agent_of(config, "bot").clients.clear();
        }),
        (&desk, "its client is another agent's", Reason::AgentInactive, |config| {
            let clients = std::mem::take(&mut agent_of(config, "desk").clients);
            agent_of(config, "assistant").clients = clients;
        }),
        (&desk, "its client is a subject now", Reason::AgentInactive, |config| {
            agent_of(config, "desk").clients[0].known_by = KnownBy::Subject;
        }),
        (&assistant, "there is another default", Reason::AgentInactive, |config| {
            Arc::make_mut(&mut config.issuers[0]).interactive_default = Some(AgentId::new("desk").unwrap());
        }),
        (&assistant, "there is no default", Reason::AgentInactive, |config| {
            Arc::make_mut(&mut config.issuers[0]).interactive_default = None;
        }),
        (&assistant, "its client is an agent of its own", Reason::AgentInactive, |config| {
            agent_of(config, "desk").clients[0].client_id = "somebody-elses".into();
        }),
        (&chained, "an actor's client is taken away", Reason::AgentInactive, |config| {
            agent_of(config, "hop1").clients[0].client_id = "other".into();
        }),
        (&desk, "there are fewer default roles", Reason::IssuerUnknown, |config| {
            Arc::make_mut(&mut config.issuers[0]).default_roles.clear();
        }),
        (&desk, "the alias is another issuer", Reason::IssuerUnknown, |config| {
            Arc::make_mut(&mut config.issuers[0]).issuer = "https://new.example".into();
        }),
    ];
    for (caller, what, reason, edit) in cases {
        let mut edited = config.clone();
        edit(&mut edited);
        assert_eq!(still_stands(&edited, caller).unwrap_err().reason, reason, "{what}");
    }
    // What concerns them not disturbs them not.
    let mut edited = config.clone();
    agent_of(&mut edited, "hop2").clients.clear();
    Arc::make_mut(&mut edited.issuers[0]).jwks_stale_max = Duration::from_secs(7);
    for caller in [&software, &assistant, &desk, &chained] {
        assert!(still_stands(&edited, caller).is_ok());
    }
    Arc::make_mut(&mut edited.issuers[0]).interactive_default = None;
    assert!(still_stands(&edited, &desk).is_ok() && still_stands(&edited, &software).is_ok());
}

#[tokio::test]
async fn a_caller_is_verified_for_as_long_as_the_key_is_there_whatever_comes_beside_it() {
    let (signer, other) = (Signer::new("one"), Signer::new("two"));
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let caller = room.ask(&signer.token(&claims(&idp.url))).await.unwrap();
    let mut news = room.identity.news();
    let served = |keys: Vec<Value>| {
        *idp.keys.lock().unwrap() = Some(keys);
        let issuer = Arc::clone(&room.identity.settings.load().issuers[&idp.url].issuer);
        async move {
            issuer.forget_last_question();
            assert!(issuer.refresh_for_unknown_key().await);
        }
    };
    served(vec![other.jwk(), signer.jwk()]).await;
    assert!(news.has_changed().unwrap());
    assert!(caller.still_verified().is_ok());
    news.mark_unchanged();
    served(vec![other.jwk()]).await;
    assert!(news.has_changed().unwrap(), "whoever acts looks again");
    assert_eq!(caller.still_verified().unwrap_err().reason, Reason::SignatureInvalid);
}

#[tokio::test]
async fn an_issuer_that_withdraws_all_its_keys_has_none_at_once() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("two"));
    for left in [Vec::new(), vec![json!({ "kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA", "kid": "pq" })]] {
        let idp = Idp::start(vec![signer.jwk()]).await;
        let room = room(&config_at(&idp.url));
        let token = signer.token(&claims(&idp.url));
        assert!(room.ask(&token).await.is_ok() && room.identity.is_ready());
        *idp.keys.lock().unwrap() = Some(left);
        // Whoever comes with a key that is not known makes us look.
        let unknown = room.ask(&stranger.token(&claims(&idp.url))).await;
        assert_eq!(unknown.map(|_| ()), Err(Reason::SignatureInvalid));
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(Reason::SignatureInvalid));
        let told = &room.identity.readiness()[0];
        assert!(told.keys == 0 && told.problem.as_ref().unwrap().contains("can verify a signature"), "{told:?}");
        assert!(!room.identity.is_ready());
    }
}

#[tokio::test]
async fn a_sign_out_reaches_what_an_issuer_whose_clock_is_ahead_had_issued() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let mut config = config_at(&idp.url);
    Arc::make_mut(&mut config.issuers[0]).leeway = Duration::from_secs(300);
    let room = room(&config);
    let now = now_s();
    let ahead = |seconds: i64| {
        let times = json!({ "iat": now + seconds, "exp": now + 900, "jti": format!("j{seconds}") });
        signer.token(&with(claims(&idp.url), times))
    };
    let alice = RevocationTarget::Subject(IssuerAlias::new("corp").unwrap(), "alice".into());
    let skew = i64::try_from(limit::SIGN_OUT_SKEW.as_secs()).unwrap();
    let mode = RevocationMode::SignOut { issued_before: now - 100 + skew };
    let revocation = Revocation { target: alice, mode, actor: "host:0".into(), note: String::new(), at: now };
    assert!(room.ask(&ahead(140)).await.is_ok());
    room.revocations.replace(RevocationEpoch(1), vec![Held { since: RevocationEpoch(1), revocation }]);
    // The sign-out was a hundred seconds ago; by a clock that is four minutes ahead that was 140 s from now.
    assert_eq!(room.ask(&ahead(140)).await.map(|_| ()), Err(Reason::Revoked));
    assert!(room.ask(&ahead(250)).await.is_ok(), "what was issued since is not concerned");
}
