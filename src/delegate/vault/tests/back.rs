//! What changes under an account that is linked, and what becomes of its tokens when it is taken back.

use super::*;
use crate::identity::revoked::{Held as Holding, Revocation, RevocationMode, RevocationTarget};
use crate::ids::IssuerAlias;

fn nobodys(spoken: &Spoken, secret: &str) -> bool {
    let basic = |proof: &Option<String>| {
        use base64::Engine as _;
        let encoded = proof.as_deref().and_then(|proof| proof.strip_prefix("Basic ")).unwrap_or_default();
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap()).unwrap()
    };
    let forms = spoken.forms.lock().unwrap().iter().all(|form| !form.contains(secret));
    let given_back = spoken.given_back.lock().unwrap();
    forms && given_back.iter().all(|(proof, form)| !form.contains(secret) && !basic(proof).contains(secret))
}

#[tokio::test]
async fn the_secret_of_another_authorization_server_is_never_shown_to_the_one_that_gave_the_tokens() {
    let mut world = world(1).await;
    let vault = world.replica();
    let owner = world.link_written(&vault).await;
    assert_eq!(world.secret(&vault).await.unwrap(), "at-0", "as long as the files say the same");
    let elsewhere = OauthConfig {
        issuer: Some("http://127.0.0.1:9".to_owned()),
        client_id: Some("them".to_owned()),
        client_secret: Some(crate::config::SecretReference::Plain("secret-b".into())),
        ..OauthConfig::clone(&world.account)
    };
    let renamed = OauthConfig { issuer: Some(world.origin.clone()), ..elsewhere.clone() };
    for written in [elsewhere, renamed] {
        world.write(written);
        let stop = world.secret(&vault).await.unwrap_err();
        assert_eq!(stop.reason(), Reason::AccountLinkRequired, "neither what is remembered nor what is kept is used");
        assert_eq!(world.asked.load(Ordering::SeqCst), 1);
    }
    let removed = vault.remove(&world.config(), &owner.spelled(), &world.server.id).await.unwrap().unwrap();
    assert_eq!(world.spoken.given_back.lock().unwrap().len(), 2, "{removed:?}");
    assert!(nobodys(&world.spoken, "secret-b"));
}

#[tokio::test]
async fn every_token_is_given_back_as_whoever_got_it_and_only_then_it_is_called_revoked() {
    let mut world = world(1).await;
    let vault = world.replica();
    let owner = world.link_written(&vault).await;
    let removed = vault.remove(&world.config(), &owner.spelled(), &world.server.id).await.unwrap().unwrap();
    assert_eq!((removed.upstream.as_str(), removed.expires_at), ("revoked", None));
    let given_back = world.spoken.given_back.lock().unwrap().clone();
    let [(proof, refresh), (_, access)] = given_back.as_slice() else { panic!("{given_back:?}") };
    assert_eq!(proof.as_deref(), Some("Basic dXM6c2VjcmV0LWE="), "us:secret-a");
    assert!(refresh.contains("token=rt-old&token_type_hint=refresh_token") && !refresh.contains("secret"), "{refresh}");
    assert!(access.contains("token=at-old&token_type_hint=access_token"), "{access}");
    assert_eq!(world.owed(), 0);
    let none = vault.remove(&world.config(), &owner.spelled(), &world.server.id).await.unwrap();
    assert!(none.is_none(), "{none:?}");
}

#[tokio::test]
async fn what_a_service_did_not_take_back_is_tried_again_by_whichever_replica_is_there() {
    let mut world = world(1).await;
    let vault = world.replica();
    let owner = world.link_written(&vault).await;
    world.spoken.taking.store(503, Ordering::SeqCst);
    let removed = vault.remove(&world.config(), &owner.spelled(), &world.server.id).await.unwrap().unwrap();
    assert_eq!(
        (removed.upstream.as_str(), removed.taken_back().state),
        ("unknown", super::super::super::Taken::Pending)
    );
    assert_eq!(world.secret(&vault).await.unwrap_err().reason(), Reason::AccountLinkRequired, "nobody uses it");
    assert_eq!(world.owed(), 1);
    let rested = format!("{:?}", world.rows.rows.lock().unwrap());
    let age_us = i64::try_from(limit::VAULT_OWED_AGE_MAX.as_micros()).unwrap();
    assert!(rested.contains(&format!("Some({})", 1_000_000_000 + age_us)), "not for ever: {rested}");
    assert_eq!(owed::OWED.rows_max, limit::VAULT_OWED_MAX);
    assert!(!rested.contains("rt-old") && !rested.contains("at-old"), "{rested}");
    // After a restart, and not before its time.
    let other = world.replica();
    other.settle(&world.config()).await.unwrap();
    assert_eq!(world.spoken.given_back.lock().unwrap().len(), 2);
    let later_us = |duration: Duration| i64::try_from(duration.as_micros()).unwrap() + 1;
    world.rows.clock_us.fetch_add(later_us(limit::VAULT_OWED_RETRY_MIN), Ordering::SeqCst);
    other.settle(&world.config()).await.unwrap();
    assert_eq!((world.spoken.given_back.lock().unwrap().len(), world.owed()), (4, 1), "it is still away");
    world.spoken.taking.store(0, Ordering::SeqCst);
    world.rows.clock_us.fetch_add(later_us(limit::VAULT_OWED_RETRY_MAX), Ordering::SeqCst);
    other.settle(&world.config()).await.unwrap();
    assert_eq!((world.spoken.given_back.lock().unwrap().len(), world.owed()), (6, 0));
}

#[tokio::test]
async fn an_account_that_is_renewed_while_it_is_taken_back_goes_with_its_newest_tokens() {
    let mut world = world(1).await;
    let vault = world.replica();
    let owner = world.link_written(&vault).await;
    // As it was read before it was renewed.
    let before = rows::all(world.rows.as_ref(), Some(&owner.spelled())).await.unwrap();
    assert_eq!(world.secret(&vault).await.unwrap(), "at-0");
    let gone = owed::unhook(world.rows.as_ref(), before).await.unwrap();
    assert_eq!(gone.len(), 1);
    let entry = gone[0].0.open(&vault.sealer, &owner, &world.server.id).unwrap();
    assert_eq!(entry.refresh.unwrap().expose_secret(), "rt-0");
    assert_eq!(world.secret(&world.replica()).await.unwrap_err().reason(), Reason::AccountLinkRequired);
}

#[tokio::test]
async fn tokens_of_another_account_are_given_back_when_it_is_linked_over_and_those_of_the_same_are_not() {
    let mut world = world(1).await;
    let vault = world.replica();
    let owner = world.link_written(&vault).await;
    let named = |name: &str| Entry { account: Some(name.to_owned()), client_is_written: true, ..world.over() };
    for (name, owed) in [("ann@up", 0), ("ann@up", 0), ("ann@other", 1)] {
        vault.keep(&owner, &world.server.id, &named(name)).await.unwrap();
        assert_eq!(world.owed(), owed, "{name}");
    }
}

#[tokio::test]
async fn what_a_block_names_is_taken_back_also_by_whoever_comes_later() {
    let mut world = world(1).await;
    let vault = world.replica();
    let owner = world.link_written(&vault).await;
    let target = RevocationTarget::Subject(IssuerAlias::new(owner.issuer.as_str()).unwrap(), owner.subject.clone());
    let holding = |mode| {
        let revocation =
            Revocation { target: target.clone(), mode, actor: "host:0".into(), note: String::new(), at: 0 };
        vec![Holding { since: RevocationEpoch(3), revocation }]
    };
    let sign_out = holding(RevocationMode::SignOut { issued_before: 1 });
    assert_eq!(vault.sweep(&world.config(), &sign_out, RevocationEpoch(3)).await.unwrap(), 0, "they may sign in again");
    let other = world.replica();
    assert!(other.is_behind(RevocationEpoch(4)));
    let block = holding(RevocationMode::Block);
    world.rows.broken.store(true, Ordering::SeqCst);
    let blocked: Vec<Holding> = block.into_iter().map(|held| Holding { since: RevocationEpoch(4), ..held }).collect();
    assert!(other.sweep(&world.config(), &blocked, RevocationEpoch(4)).await.is_err());
    assert!(other.is_behind(RevocationEpoch(4)), "it is tried again");
    world.rows.broken.store(false, Ordering::SeqCst);
    assert_eq!(other.sweep(&world.config(), &blocked, RevocationEpoch(4)).await.unwrap(), 1);
    assert!(!other.is_behind(RevocationEpoch(4)));
    assert_eq!(other.sweep(&world.config(), &blocked, RevocationEpoch(4)).await.unwrap(), 0);
    // Offline there is nobody who could give anything back: the next one does.
    world.link_written(&vault).await;
    let removed = take_offline(Arc::clone(&world.rows) as _, &target).await.unwrap();
    assert_eq!((removed.len(), removed[0].upstream.as_str(), world.owed()), (1, "unknown", 1));
}

#[tokio::test]
async fn an_account_that_is_used_does_not_run_out_also_where_its_token_never_does() {
    let world = world(1).await;
    let vault = world.replica();
    let owner = Owner::of(&crate::identity::fixture::somebody()).unwrap();
    let endless = Entry { expires_at: None, refresh: None, ..world.over() };
    vault.keep(&owner, &world.server.id, &endless).await.unwrap();
    let first = world.only_row();
    let idle_us = i64::try_from(limit::VAULT_IDLE_MAX.as_micros()).unwrap();
    for (passed_us, moved) in [(idle_us / 3, false), (idle_us / 3, true)] {
        world.rows.clock_us.fetch_add(passed_us, Ordering::SeqCst);
        assert_eq!(world.secret(&world.replica()).await.unwrap(), "at-old");
        assert_eq!(world.only_row().expires_at_us > first.expires_at_us, moved, "{passed_us}");
    }
}

#[tokio::test]
async fn a_registration_that_was_forgotten_is_made_anew_and_our_own_document_is_not_doubted() {
    let mut world = world(1).await;
    let vault = world.replica();
    world.write(OauthConfig::clone(&world.account));
    let authority = vault.authority(&world.server, &world.account).await.unwrap();
    assert_eq!(authority.client.id, "us");
    let clients = || world.rows.rows.lock().unwrap().keys().filter(|(name, _)| *name == "account client").count();
    assert_eq!(clients(), 1);
    let made = world.rows.rows.lock().unwrap().values().next().unwrap().expires_at_us.unwrap();
    let age_us = i64::try_from(limit::VAULT_CLIENT_AGE_MAX.as_micros()).unwrap();
    assert!((made - age_us - now_s() * 1_000_000).abs() < 60_000_000, "a service that forgets us says so to nobody");
    world.link(&vault).await;
    *world.spoken.error.lock().unwrap() = Some("invalid_client");
    assert_eq!(world.secret(&vault).await.unwrap_err().reason(), Reason::AccountLinkRequired);
    assert_eq!(clients(), 0);
    // An authorization server that could not read our document for a moment ends nobody's account.
    let document = vault.authorities().ourselves().document.clone();
    let owner = Owner::of(&crate::identity::fixture::somebody()).unwrap();
    let entry = Entry { client: Registered::public(document), linked_at: 2, ..world.over() };
    vault.keep(&owner, &world.server.id, &entry).await.unwrap();
    assert_eq!(world.secret(&vault).await.unwrap_err().reason(), Reason::CredentialUnavailable);
    let kept: Kept = serde_json::from_str(&world.only_row().body).unwrap();
    assert!(!kept.dead);
}

#[tokio::test]
async fn what_the_store_had_kept_and_could_not_say_is_used_and_not_given_back() {
    let mut world = world(1).await;
    let vault = world.replica();
    world.link_written(&vault).await;
    let (rows, asked) = (Arc::clone(&world.rows), Arc::clone(&world.asked));
    let losing = tokio::spawn(async move {
        // While the authorization server thinks: the lease is written, and the answer is not yet.
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        rows.lost.store(true, Ordering::SeqCst);
    });
    assert_eq!(world.secret(&vault).await.unwrap(), "at-0");
    losing.await.unwrap();
    assert!(!world.rows.lost.load(Ordering::SeqCst), "an answer was lost");
    assert_eq!((world.spoken.given_back.lock().unwrap().len(), world.owed()), (0, 0));
    assert_eq!(world.secret(&world.replica()).await.unwrap(), "at-0");
}

#[tokio::test]
async fn an_authorization_server_that_is_away_is_not_asked_by_every_call() {
    let world = world(1).await;
    let vault = world.replica();
    world.link(&vault).await;
    *world.spoken.error.lock().unwrap() = Some("temporarily_unavailable");
    for _ in 0..5 {
        assert_eq!(world.secret(&vault).await.unwrap_err().reason(), Reason::CredentialUnavailable);
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 1);
    assert!(limit::VAULT_FAILED_PAUSE < Duration::from_secs(30));
}

#[tokio::test]
async fn what_hangs_on_an_account_stands_as_long_as_that_one_does() {
    let mut world = world(1).await;
    let vault = world.replica();
    let owner = world.link_written(&vault).await;
    let caller = crate::identity::fixture::somebody();
    let (held, _) = vault.account(&caller, &world.server, &world.account).await.unwrap();
    assert!(vault.stands(held.tie()).await.unwrap(), "also once it was renewed");
    vault.keep(&owner, &world.server.id, &Entry { linked_at: 5, ..world.over() }).await.unwrap();
    assert!(!vault.stands(held.tie()).await.unwrap(), "another account was linked instead");
    vault.remove(&world.config(), &owner.spelled(), &world.server.id).await.unwrap();
    assert!(!vault.stands(held.tie()).await.unwrap());
}
