//! Revocations as they are typed, with a gateway and without one.

use clap::Parser as _;

use super::*;
use crate::control::{Control, HeldRevocations};
use crate::identity::revoked::{RevocationMode, RevocationTarget};
use crate::outcome::Failure;
use crate::record::{Verdict, verify};

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    revoke: RevokeArguments,
}

fn typed(words: &[&str]) -> RevokeArguments {
    Line::try_parse_from([&["revoke"], words].concat()).unwrap().revoke
}

fn ordered(words: &[&str], stdin: &str) -> RevocationOrder {
    order(&typed(words), &mut stdin.as_bytes()).unwrap()
}

#[test]
fn a_pasted_token_becomes_its_digest_at_once() {
    let digest = Digest::sha256(TOKEN.as_bytes()).to_string();
    for stdin in [TOKEN.to_owned(), format!("{TOKEN}\n"), format!("Authorization: Bearer {TOKEN}\r\n")] {
        assert_eq!(ordered(&["token", "-"], &stdin).value, digest);
    }
    assert_eq!(ordered(&["token", TOKEN], "").value, digest);
    assert_eq!(ordered(&["token", "jti-1"], "").value, "jti-1");
    assert!(order(&typed(&["token", "-"]), &mut "two words".as_bytes()).is_err());
    assert!(order(&typed(&["token", "-"]), &mut "".as_bytes()).is_err());
    let long = "x".repeat(limit::TOKEN_BYTES_MAX + 1);
    assert!(order(&typed(&["token", "-"]), &mut long.as_bytes()).is_err());
}

#[test]
fn subjects_are_named_as_the_log_shows_them() {
    let order = ordered(&["subject", "user:corp/a%2Fb", "--sign-out", "--note", "x"], "");
    assert_eq!((order.issuer.as_str(), order.value.as_str(), order.sign_out), ("corp", "a/b", true));
    assert_eq!(ordered(&["client", "corp/https://app.example/id"], "").value, "https://app.example/id");
    let order = ordered(&["account", "user:corp/a%2Fb", "notes"], "");
    assert_eq!((order.issuer.as_str(), order.value.as_str()), ("corp", "notes/a/b"));
    assert!(Line::try_parse_from(["revoke", "account", "user:corp/a"]).is_err(), "at which server?");
    assert!(super::order(&typed(&["subject", "user:corp/a", "notes"]), &mut "".as_bytes()).is_err());
    assert_eq!(subject("corp/auth0|1").unwrap().value, "auth0|1");
    for bad in ["corp", "user:corp", "group:corp/x", "agent:x", "/x", "corp/"] {
        assert!(subject(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn revoking_works_while_no_gateway_runs() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    assert!(
        revoke(&state, || Ok(StoreConfig::Sqlite), &ordered(&["everything"], "")).await.is_err(),
        "a typing mistake makes no directory"
    );
    drop(StateDirectory::open(&state).unwrap());
    let mut out = Vec::new();
    let path = state.to_str().unwrap();
    let arguments = typed(&["subject", "user:corp/ann", "--note", "left", "--state", path]);
    assert_eq!(run(&arguments, Output { json: false }, &mut out).await, Ending::Done);
    let text = anstream::adapter::strip_bytes(&out).into_vec();
    insta::assert_snapshot!("revoked_offline", String::from_utf8(text).unwrap());
    out.clear();
    let arguments = typed(&["client", "corp/bot", "--sign-out", "--state", path]);
    assert_eq!(run(&arguments, Output { json: true }, &mut out).await, Ending::Done);
    insta::assert_snapshot!("revoked_offline_json", String::from_utf8(out).unwrap());

    let held = StateDirectory::open(&state).unwrap();
    let store = Store::open(&held, &StoreConfig::Sqlite).await.unwrap();
    let (epoch, all) = store.revocations().await.unwrap();
    assert_eq!((epoch, all.len()), (RevocationEpoch(2), 2));
    assert!(matches!(all[0].revocation.target, RevocationTarget::Subject(..)));
    assert!(matches!(all[1].revocation.mode, RevocationMode::SignOut { .. }));
    assert!(!state.join("keys").exists(), "a brake makes no key: the files may name others");
    let journal = crate::record::journal::directory(&state);
    let Verdict::Whole(walk) = verify(&journal).unwrap() else { panic!("the chain broke") };
    assert_eq!(walk.records, 2);
}

#[test]
fn only_a_refusal_says_that_nothing_was_revoked() {
    use http::StatusCode;
    let of = |status, reason: &str| {
        let body = format!("{{\"reason\":\"{reason}\",\"detail\":\"x\"}}").into();
        answered(Ok(client::Answer { status, body })).unwrap_err()
    };
    assert!(matches!(of(StatusCode::FORBIDDEN, "not_allowed"), Unrevoked::Nothing(_)));
    assert!(matches!(of(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"), Unrevoked::Unconfirmed(_)));
    let gone = ClientError::Unreachable { place: "there".to_owned(), problem: "it went away".to_owned() };
    assert!(matches!(answered(Err(gone)), Err(Unrevoked::Unconfirmed(_))));
}

#[tokio::test]
async fn what_the_store_has_and_the_record_does_not_is_told_before_what_comes_next() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    drop(StateDirectory::open(&state).unwrap());
    let order = |name: &str| ordered(&["subject", name], "");
    revoke(&state, || Ok(StoreConfig::Sqlite), &order("user:corp/ann")).await.unwrap();
    // A process that another test starts has the lock until it is itself.
    let mut held = StateDirectory::open(&state);
    for _ in 0..100 {
        if held.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            held = StateDirectory::open(&state);
        }
    }
    let held = held.unwrap();
    let store = Store::open(&held, &StoreConfig::Sqlite).await.unwrap();
    // Whoever ordered it was killed before it was recorded.
    store.revoke(&order("user:corp/bob").at("host:0", 0).unwrap()).await.unwrap();
    store.close().await;
    drop(held);
    revoke(&state, || Ok(StoreConfig::Sqlite), &order("user:corp/eve")).await.unwrap();
    let Verdict::Whole(walk) = verify(&crate::record::journal::directory(&state)).unwrap() else {
        panic!("the chain broke")
    };
    assert_eq!(walk.records, 3);
}

#[tokio::test]
async fn a_running_gateway_is_asked() {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use crate::control::{Operations, Readiness};
    use crate::gateway::{ReloadOrder, ReloadReport};
    use crate::identity::revoked::{Held, Revocation};

    struct Seven;
    impl crate::control::governs::Governs for Seven {}

    impl Operations for Seven {
        fn revoke(&self, _: Revocation) -> BoxFuture<'_, Result<Revoked, Failure>> {
            async { Ok(Revoked::at(RevocationEpoch(7))) }.boxed()
        }
        fn lift(&self, _: crate::control::Lifting) -> BoxFuture<'_, Result<Option<RevocationEpoch>, Failure>> {
            async { Ok(None) }.boxed()
        }
        fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>> {
            async { Ok((RevocationEpoch(7), Vec::new())) }.boxed()
        }
        fn reload(&self, _: String, _: ReloadOrder) -> BoxFuture<'_, Result<ReloadReport, Failure>> {
            async { Ok(ReloadReport::default()) }.boxed()
        }
        fn status(&self) -> BoxFuture<'_, serde_json::Value> {
            async { serde_json::Value::Null }.boxed()
        }
        fn ready(&self) -> BoxFuture<'_, Readiness> {
            async { Readiness::default() }.boxed()
        }
        fn now_s(&self) -> BoxFuture<'_, Result<i64, Failure>> {
            async { Ok(0) }.boxed()
        }
        fn metrics(&self) -> String {
            String::new()
        }
        fn administered<'a>(
            &'a self,
            _note: &'a crate::record::event::AdminNote<'a>,
            _who: Option<&'a crate::record::Who>,
        ) -> BoxFuture<'a, Result<(), Failure>> {
            async { Ok(()) }.boxed()
        }
    }

    let place = tempfile::tempdir().unwrap();
    let held = StateDirectory::open(&place.path().join("state")).unwrap();
    let control = Control::bind(held.path()).unwrap();
    tokio::spawn(control.serve(Arc::new(Seven), tokio_util::sync::CancellationToken::new()));
    let revoked = revoke(held.path(), || Ok(StoreConfig::Sqlite), &ordered(&["everything"], "")).await.unwrap();
    assert_eq!(revoked, (Revoked::at(RevocationEpoch(7)), "running"));
    let answer = client::request(held.path(), Method::GET, "/revocations", None::<&()>).await.unwrap();
    assert_eq!(answer.read::<HeldRevocations>().unwrap().epoch, RevocationEpoch(7));
}
