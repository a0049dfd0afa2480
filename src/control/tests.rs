//! The socket as the command line uses it, over a real socket.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::client::{ClientError, request};
use super::socket::Peer;
use super::*;
use crate::gateway::accounts::Removed;
use crate::gateway::{ReloadOrder, ReloadReport};
use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationTarget};
use crate::ids::{Digest, PolicyRevision, RevocationEpoch, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::policy::{AdminOperation, Weight};
use crate::record::Who;
use crate::record::event::AdminNote;

#[derive(Default)]
pub(super) struct Recorder {
    pub(super) revoked: Mutex<Vec<Revocation>>,
    pub(super) reloads: Mutex<Vec<(String, ReloadOrder)>>,
    pub(super) administered: Mutex<Vec<String>>,
    pub(super) brakes: Mutex<Vec<bool>>,
    pub(super) went_back: bool,
    /// Everybody has an account everywhere.
    pub(super) has_accounts: bool,
    pub(super) disk_full: bool,
}

impl governs::Governs for Recorder {
    fn may_change(&self, weight: Weight) -> Result<(), Failure> {
        if self.went_back && weight != Weight::Look {
            return Err(Failure::before(Reason::StoreUnavailable, "it went back"));
        }
        Ok(())
    }
}

impl Operations for Recorder {
    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<Revoked, Failure>> {
        let mut revoked = self.revoked.lock().unwrap();
        if revocation.note == "fail" {
            return std::future::ready(Err(Failure::before(Reason::StoreUnavailable, "disk full"))).boxed();
        }
        revoked.push(revocation);
        std::future::ready(Ok(Revoked::at(RevocationEpoch(revoked.len() as u64)))).boxed()
    }

    fn lift(&self, _: Lifting) -> BoxFuture<'_, Result<Option<RevocationEpoch>, Failure>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>> {
        let revoked = self.revoked.lock().unwrap().clone();
        let since = (1..).map(RevocationEpoch);
        let held: Vec<Held> = since.zip(revoked).map(|(since, revocation)| Held { since, revocation }).collect();
        std::future::ready(Ok((RevocationEpoch(held.len() as u64), held))).boxed()
    }

    fn reload(&self, actor: String, order: ReloadOrder) -> BoxFuture<'_, Result<ReloadReport, Failure>> {
        self.reloads.lock().unwrap().push((actor, order));
        let problems =
            if order.allow_widening { Vec::new() } else { vec!["policies/policy.csv:3:1: wider".to_owned()] };
        let to = order.allow_widening.then(|| PolicyRevision(Digest::sha256(b"rows")));
        std::future::ready(Ok(ReloadReport { problems, to, ..ReloadReport::default() })).boxed()
    }

    fn status(&self) -> BoxFuture<'_, serde_json::Value> {
        std::future::ready(serde_json::json!({ "version": "0.1.0" })).boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Readiness> {
        let check = |name: &str, well, optional| ReadinessCheck {
            name: name.to_owned(),
            well,
            optional,
            detail: String::new(),
        };
        let journal = self.revoked.lock().unwrap().is_empty();
        std::future::ready(Readiness {
            checks: vec![check("server:git", false, true), check("journal", journal, false)],
        })
        .boxed()
    }

    fn now_s(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        Box::pin(std::future::ready(Ok(crate::identity::now_s())))
    }

    fn unlink<'a>(&'a self, owner: &'a str, server: &'a ServerId) -> BoxFuture<'a, Result<Option<Removed>, Failure>> {
        let (owner, server) = (owner.to_owned(), server.to_string());
        let removed = Removed { owner, server, upstream: "revoked".to_owned(), expires_at: None };
        std::future::ready(Ok(Some(removed).filter(|_| self.has_accounts))).boxed()
    }

    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }

    fn administered<'a>(
        &'a self,
        note: &'a AdminNote<'a>,
        _who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let reason = note.reason.map_or(String::new(), |reason| format!(" ({reason})"));
        let told = format!("{} {} by {}{reason}: {}", note.operation, note.outcome, note.actor, note.about);
        if self.disk_full {
            return std::future::ready(Err(Failure::before(Reason::RecordUnavailable, "disk full"))).boxed();
        }
        self.administered.lock().unwrap().push(told);
        self.brakes.lock().unwrap().push(note.brakes);
        std::future::ready(Ok(())).boxed()
    }
}

struct Running {
    place: tempfile::TempDir,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

fn run() -> Running {
    let place = tempfile::tempdir().unwrap();
    let control = Control::bind(place.path()).unwrap();
    let (recorder, stop) = (Arc::new(Recorder::default()), CancellationToken::new());
    let served = tokio::spawn(control.serve(recorder.clone(), stop.clone()));
    Running { place, recorder, stop, served }
}

fn order(target: &str, issuer: &str, value: &str) -> RevocationOrder {
    RevocationOrder {
        target: target.to_owned(),
        issuer: issuer.to_owned(),
        value: value.to_owned(),
        sign_out: false,
        note: String::new(),
    }
}

#[tokio::test]
async fn the_actor_is_who_the_kernel_says() {
    let running = run();
    let state = running.place.path();
    let ours = format!("host:{}", rustix::process::geteuid().as_raw());
    let answer = request(state, Method::POST, "/revoke", Some(&order("subject", "corp", "ann"))).await.unwrap();
    assert_eq!(answer.read::<Revoked>().unwrap().epoch, RevocationEpoch(1));
    let revoked = running.recorder.revoked.lock().unwrap().clone();
    assert_eq!(revoked[0].actor, ours);
    assert!(
        matches!(&revoked[0].target, RevocationTarget::Subject(issuer, sub) if issuer.as_str() == "corp" && sub == "ann")
    );
    assert_eq!(revoked[0].mode, RevocationMode::Block);

    let forged = serde_json::json!({ "target": "everything", "actor": "user:corp/boss" });
    let answer = request(state, Method::POST, "/revoke", Some(&forged)).await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "an actor cannot be claimed");
    request(state, Method::POST, "/reload", Some(&ReloadOrder { allow_widening: true })).await.unwrap();
    assert_eq!(running.recorder.reloads.lock().unwrap()[0].0, ours);
}

#[tokio::test]
async fn every_path_answers() {
    let running = run();
    let state = running.place.path();
    let nothing = None::<&()>;
    let answer = request(state, Method::GET, "/readyz", nothing).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "a server that is down is in nobody's way");
    let order = RevocationOrder { sign_out: true, note: "gone".to_owned(), ..order("everything", "", "") };
    request(state, Method::POST, "/revoke", Some(&order)).await.unwrap();
    let answer = request(state, Method::GET, "/readyz", nothing).await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let held: HeldRevocations = request(state, Method::GET, "/revocations", nothing).await.unwrap().read().unwrap();
    assert_eq!(held.revocations[0].mode, "sign_out");
    assert!(held.revocations[0].issued_before > Some(held.revocations[0].at), "the skew is allowed for");
    let answer = request(state, Method::POST, "/reload", Some(&ReloadOrder::default())).await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let answer = request(state, Method::GET, "/metrics", nothing).await.unwrap();
    assert_eq!(answer.body, "# EOF\n");
    let answer = request(state, Method::GET, "/status", nothing).await.unwrap();
    assert_eq!(answer.body, r#"{"version":"0.1.0"}"#);
    assert_eq!(request(state, Method::GET, "/approve", nothing).await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_order_that_makes_no_sense_or_cannot_be_kept_is_not_acknowledged() {
    let running = run();
    let state = running.place.path();
    let long = "x".repeat(limit::REVOCATION_VALUE_BYTES_MAX + 1);
    for bad in [order("subject", "", "ann"), order("planet", "", "x"), order("token", "", &long)] {
        let answer = request(state, Method::POST, "/revoke", Some(&bad)).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad:?}");
        assert!(matches!(answer.read::<Revoked>(), Err(ClientError::Refused { .. })));
    }
    let failing = RevocationOrder { note: "fail".to_owned(), ..order("everything", "", "") };
    let answer = request(state, Method::POST, "/revoke", Some(&failing)).await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let huge = RevocationOrder { note: "x".repeat(limit::CONTROL_BODY_BYTES_MAX), ..order("everything", "", "") };
    let answer = request(state, Method::POST, "/revoke", Some(&huge)).await.unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(running.recorder.revoked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_that_was_pasted_is_kept_as_its_digest_alone() {
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
    let running = run();
    let state = running.place.path();
    let digest = Digest::sha256(TOKEN.as_bytes()).to_string();
    let long = format!("{TOKEN}{}", "x".repeat(limit::REVOCATION_VALUE_BYTES_MAX));
    for pasted in [TOKEN, &format!(" Bearer {TOKEN}\n"), &long] {
        let answer = request(state, Method::POST, "/revoke", Some(&order("token", "", pasted))).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body.escape_ascii());
    }
    let misnamed = request(state, Method::POST, "/revoke", Some(&order("session", "", TOKEN))).await.unwrap();
    assert_eq!(misnamed.status, StatusCode::BAD_REQUEST, "it would stop nothing");
    let revoked = running.recorder.revoked.lock().unwrap().clone();
    assert_eq!(revoked.len(), 3);
    assert!(matches!(&revoked[0].target, RevocationTarget::Token(value) if *value == digest), "{revoked:?}");
    assert_eq!(revoked[0].target, revoked[1].target);
    let told = running.recorder.administered.lock().unwrap().join("\n");
    assert!(!format!("{revoked:?}{told}").contains("eyJ") && told.contains(&digest), "{told}");
}

#[tokio::test]
async fn a_gateway_that_does_not_run_is_told_apart() {
    let running = run();
    let state = running.place.path();
    let mode = std::fs::metadata(socket(state)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    running.stop.cancel();
    running.served.await.unwrap().unwrap();
    let asked = request(state, Method::GET, "/status", None::<&()>).await;
    assert!(matches!(asked, Err(ClientError::NotRunning(_))));
    // A process that was killed leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(socket(state)).unwrap());
    let asked = request(state, Method::GET, "/status", None::<&()>).await;
    assert!(matches!(asked, Err(ClientError::NotRunning(_))));
    Control::bind(state).unwrap();
}

#[test]
fn another_user_is_refused() {
    let ours = 1000;
    assert!(Peer { user: Some(1001), process: None }.actor(ours).is_none());
    assert!(Peer { user: None, process: None }.actor(ours).is_none());
    assert_eq!(Peer { user: Some(0), process: None }.actor(ours).unwrap().name(), "host:0");
    assert_eq!(Peer { user: Some(1000), process: None }.actor(ours).unwrap().name(), "host:1000");
}

/// Every operation of the document, as `VERB path`, with what it says of the operation.
fn described() -> std::collections::BTreeMap<String, (String, String)> {
    let document: serde_json::Value = serde_json::from_str(routes::DOCUMENT).unwrap();
    let paths = document["paths"].as_object().unwrap().clone();
    let operations = paths.into_iter().flat_map(|(path, verbs)| {
        let verbs = verbs.as_object().unwrap().clone();
        verbs.into_iter().map(move |(verb, operation)| {
            let text = |name: &str| operation[name].as_str().unwrap().to_owned();
            (format!("{} {path}", verb.to_uppercase()), (text("x-object"), text("x-weight")))
        })
    });
    operations.collect()
}

#[test]
fn every_path_is_described_with_its_object_and_no_other_is() {
    let weight = |operation: AdminOperation| match operation.weight() {
        Weight::Look => "look",
        Weight::Brake => "brake",
        Weight::Loosen => "loosen",
    };
    let served: std::collections::BTreeMap<_, _> = routes::ROUTES
        .iter()
        .map(|route| {
            let told = (route.operation.object().to_owned(), weight(route.operation).to_owned());
            (format!("{} {}", route.verb.as_str(), route.path), told)
        })
        .collect();
    assert_eq!(described(), served, "src/control/openapi.json (left) and src/control/routes.rs (right) differ");
    assert_eq!(served.len(), routes::ROUTES.len(), "a path stands twice in the table");
    let used: Vec<_> = routes::ROUTES.iter().map(|route| route.operation).collect();
    assert!(AdminOperation::ALL.iter().all(|operation| used.contains(operation)), "an operation that nobody can order");
}

#[tokio::test]
async fn what_gives_something_back_is_refused_at_the_socket_and_everything_is_on_the_record() {
    let running = run();
    let state = running.place.path();
    let ours = format!("host:{}", rustix::process::geteuid().as_raw());
    let nothing = None::<&()>;
    let lifted = request(state, Method::DELETE, "/api/v1/revocations/1", nothing).await.unwrap();
    assert_eq!(lifted.status, StatusCode::FORBIDDEN);
    request(state, Method::GET, "/api/v1/status", nothing).await.unwrap();
    request(state, Method::POST, "/revoke", Some(&order("planet", "", "x"))).await.unwrap();
    request(state, Method::GET, "/nowhere", nothing).await.unwrap();
    assert_eq!(request(state, Method::POST, "/status", nothing).await.unwrap().status, StatusCode::METHOD_NOT_ALLOWED);
    let expected = [
        format!("lift refused by {ours} (administrator_required): the revocation since epoch 1"),
        format!("status done by {ours}: "),
        format!("revoke refused by {ours} (parameters_invalid): "),
    ];
    assert_eq!(*running.recorder.administered.lock().unwrap(), expected);
}

#[test]
fn a_process_that_we_started_operates_nothing() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let peer = Peer { user: Some(1000), process: i32::try_from(child.id()).ok() };
    let actor = peer.actor(1000).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let refusal = actor.may(&Recorder::default(), AdminOperation::Status).unwrap_err();
    assert_eq!(refusal.reason, Reason::NotAllowed);
    assert!(actor.may_loosen(None, AdminOperation::Reload, 0).is_err());
}

#[test]
fn what_no_store_could_keep_is_not_ordered_and_not_written_down() {
    assert!(order("subject", "corp", "ann\0").at("host:0", 1).is_err());
    let noted = RevocationOrder { note: "lost\0 it".to_owned(), ..order("subject", "corp", "ann") };
    assert_eq!(noted.at("host:0", 1).unwrap().note, "lost\u{fffd} it");
}
