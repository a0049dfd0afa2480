//! What the front needs of the rooms behind it, in one place, so that the protocol is tested without them.
//!
//! Decides nothing: each method is one function of `gateway`, `call`, `list` or `watch`.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::call::{self, ClientFacts, Endpoint, Request, Running};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::gateway::sessions::Since;
use crate::gateway::whole::Proven;
use crate::identity::{Caller, Shown};
use crate::ids::{Digest, ParkId, PrincipalKey, ReplicaId};
use crate::link;
use crate::list;
use crate::outcome::{Failure, Outcome, Reason, Refusal, Stop};
use crate::record::event::RelayNote;
use crate::upstream::Event;
use crate::watch::{self, Interest, Watch, Watched};
use crate::wire::mcp::{Kind, Version};
use crate::wire::voids::Holder;
use crate::wire::{Json, Message};

/// The rooms behind the front.
pub trait Pipeline: Send + Sync + 'static {
    /// The proof that somebody was authenticated.
    type Caller: Clone + Send + Sync + 'static;
    /// A call under way; dropping it cancels the call.
    type Running: Send + 'static;
    /// An open watch; dropping it ends it.
    type Watch: Send + 'static;

    /// Where the living replica of that name is reached.
    fn peer(&self, _replica: ReplicaId) -> Option<String> {
        None
    }
    /// The replica that a task or a waiting call which the message names is bound to.
    fn home(&self, _caller: &Self::Caller, _message: &Message) -> Option<ReplicaId> {
        None
    }
    /// Records that a request was handed to another replica, and how it answered.
    fn handed_on(&self, _: &Self::Caller, _to: ReplicaId, _verb: &str, _answer: Result<StatusCode, &Failure>) {}
    /// Who asks about the record with this proof, where that is another replica.
    fn asked_by_replica(&self, _proof: &str) -> Option<Proven> {
        None
    }
    /// Answers it.
    fn tell_replica(&self, _: &Proven, _body: &[u8]) -> impl Future<Output = Result<Vec<u8>, Stop>> + Send {
        std::future::ready(Err(Refusal::new(Reason::TargetUnknown).into()))
    }
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;
    /// A nonce for the next proofs of possession, where they need one.
    fn proof_nonce(&self) -> Option<String> {
        None
    }
    /// Who shows this here; refusals are counted and recorded behind this.
    fn authenticate(
        &self,
        shown: Shown<'_>,
        endpoint: &Endpoint,
        peer: IpAddr,
    ) -> impl Future<Output = Result<Self::Caller, Stop>> + Send;
    /// Counts a refusal of somebody who was not authenticated.
    fn refused_unauthenticated(&self, reason: Reason, peer: IpAddr);
    /// Counts and records a refusal of a caller which nothing behind the front has: calls and lists tell their own.
    fn refused(&self, caller: &Self::Caller, reason: Reason);
    /// Who sessions belong to.
    fn principal(caller: &Self::Caller) -> PrincipalKey;
    /// Whom handles of theirs are sealed for, and what these rest on.
    fn holder(&self, caller: &Self::Caller) -> Holder;
    /// Tells what somebody came with from everything else that they could have come with.
    fn credential(caller: &Self::Caller) -> Digest;
    /// One call, door to door.
    fn call(
        self: Arc<Self>,
        caller: Self::Caller,
        request: Box<Request>,
    ) -> impl Future<Output = Self::Running> + Send + 'static;
    /// The next event of a call; cancel-safe.
    fn next_event(running: &mut Self::Running) -> impl Future<Output = Event> + Send;
    /// Gives up a call that waits for input.
    fn abandon(&self, parked: ParkId);
    /// Tells the server of a call that waits how far its client is with the answer to the question of that name.
    fn report(&self, _caller: &Self::Caller, _asked: (ParkId, &str), _said: &Json) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
    /// Stops the task that a call goes on as, whose question nobody answers; the request is the one that would have.
    fn give_up(self: Arc<Self>, caller: Self::Caller, request: Request) -> impl Future<Output = ()> + Send + 'static;
    /// Tells servers that the roots of a legacy client have changed.
    fn roots_changed(
        self: Arc<Self>,
        caller: Self::Caller,
        endpoint: Endpoint,
        client: ClientFacts,
    ) -> impl Future<Output = ()> + Send + 'static;
    /// The result of a list method, in the shape of the client's era.
    fn list(
        self: &Arc<Self>,
        caller: &Self::Caller,
        request: &Request,
        kind: Kind,
    ) -> impl Future<Output = Result<Json, Stop>> + Send;
    /// The result of `server/discover`.
    fn discover(
        self: &Arc<Self>,
        caller: &Self::Caller,
        request: &Request,
    ) -> impl Future<Output = Result<Json, Stop>> + Send;
    /// The result of `initialize`.
    fn initialize(
        self: &Arc<Self>,
        caller: &Self::Caller,
        request: &Request,
        version: Version,
    ) -> impl Future<Output = Result<Json, Stop>> + Send;
    /// What is kept of a legacy session.
    fn session(&self, session: &str) -> impl Future<Output = Result<Since, Failure>> + Send;
    /// Keeps that a session has ended, or else that it has subscribed, or else its log level, until it would be too old, in
    /// microseconds since 1970.
    fn keep_session(
        &self,
        caller: &Self::Caller,
        session: &str,
        since: &Since,
        ends_us: i64,
    ) -> impl Future<Output = Result<(), Stop>> + Send;
    /// Opens a watch.
    fn watch(
        self: &Arc<Self>,
        caller: &Self::Caller,
        endpoint: &Endpoint,
        client: &ClientFacts,
        interest: Interest,
    ) -> impl Future<Output = Result<Self::Watch, Stop>> + Send;
    /// What a watch will tell of.
    fn honoured(watch: &Self::Watch) -> Interest;
    /// Lets a watch hear with the rights of somebody who came later, of the same principal.
    fn renew(watch: &mut Self::Watch, caller: Self::Caller) -> impl Future<Output = ()> + Send;
    /// Lets a watch hear of one more resource.
    fn subscribe(watch: &mut Self::Watch, uri: String) -> impl Future<Output = Outcome> + Send + 'static;
    /// Lets a watch hear of one resource less.
    fn unsubscribe(watch: &mut Self::Watch, uri: &str);
    /// Lets a watch hear of a task that its legacy client follows.
    fn follow_task(watch: &mut Self::Watch, id: String);
    /// What a watch yields next; cancel-safe.
    fn next_watched(watch: &mut Self::Watch) -> impl Future<Output = Watched> + Send;
    /// Done once somebody who was authenticated may not act any more.
    fn fallen(self: Arc<Self>, caller: Self::Caller) -> impl Future<Output = ()> + Send + 'static;
    /// Fires when the gateway begins to stop.
    fn stopping(&self) -> CancellationToken;
    /// Whether a path below the public URL is a page for people.
    fn has_page(&self, path: &str) -> bool {
        link::is_own(path)
    }
    /// A page for people.
    fn page(
        self: &Arc<Self>,
        method: &http::Method,
        visit: link::Visit<'_>,
    ) -> impl Future<Output = http::Response<String>> + Send;
    /// Whether calls can be served: policy loaded, journal and store writable.
    fn is_ready(&self) -> bool;
}

impl Pipeline for Gateway {
    type Caller = Caller;
    type Running = Box<Running>;
    type Watch = Watch;

    fn config(&self) -> Arc<Config> {
        Self::config(self)
    }

    fn proof_nonce(&self) -> Option<String> {
        self.identity().proof_nonce()
    }

    async fn authenticate(&self, shown: Shown<'_>, endpoint: &Endpoint, peer: IpAddr) -> Result<Caller, Stop> {
        Self::authenticate(self, shown, endpoint, peer).await
    }

    fn refused_unauthenticated(&self, reason: Reason, peer: IpAddr) {
        Self::refused_unauthenticated(self, reason, peer);
    }

    fn refused(&self, caller: &Caller, reason: Reason) {
        self.declined(caller, reason);
    }

    fn principal(caller: &Caller) -> PrincipalKey {
        caller.principal()
    }

    fn holder(&self, caller: &Caller) -> Holder {
        caller.holder(&self.config())
    }

    fn credential(caller: &Caller) -> Digest {
        let digests: Vec<&[u8]> = caller.credentials().map(|token| token.digest.as_bytes().as_slice()).collect();
        Digest::of("bailiwick credentials", &digests)
    }

    async fn call(self: Arc<Self>, caller: Caller, request: Box<Request>) -> Box<Running> {
        call::call(&self, &caller, request).await
    }

    async fn next_event(running: &mut Box<Running>) -> Event {
        running.next().await
    }

    fn abandon(&self, parked: ParkId) {
        self.upstreams().abandon(parked);
    }

    async fn report(&self, caller: &Caller, asked: (ParkId, &str), said: &Json) {
        if let Err(stop) = call::report(self, caller, asked, said).await {
            tracing::debug!(reason = stop.reason().code(), "no server is told how far an answer is");
        }
    }

    async fn give_up(self: Arc<Self>, caller: Caller, request: Request) {
        call::give_up(&self, &caller, &request).await;
    }

    async fn roots_changed(self: Arc<Self>, caller: Caller, endpoint: Endpoint, client: ClientFacts) {
        match call::roots_changed(&self, &caller, &endpoint, &client).await {
            Ok(()) => {}
            Err(Stop::Refused(refusal)) => Pipeline::refused(&*self, &caller, refusal.reason),
            Err(Stop::Failed(failure)) => {
                tracing::debug!(reason = failure.reason.code(), "no server is told that roots have changed");
            }
        }
    }

    async fn list(self: &Arc<Self>, caller: &Caller, request: &Request, kind: Kind) -> Result<Json, Stop> {
        list::list(self, caller, request, kind).await
    }

    async fn discover(self: &Arc<Self>, caller: &Caller, request: &Request) -> Result<Json, Stop> {
        list::discover(self, caller, request).await
    }

    async fn initialize(self: &Arc<Self>, caller: &Caller, request: &Request, version: Version) -> Result<Json, Stop> {
        list::initialize(self, caller, request, version).await
    }

    async fn session(&self, session: &str) -> Result<Since, Failure> {
        Self::session(self, session).await
    }

    async fn keep_session(&self, caller: &Caller, session: &str, since: &Since, ends_us: i64) -> Result<(), Stop> {
        Self::keep_session(self, caller, session, since, ends_us).await
    }

    async fn watch(
        self: &Arc<Self>,
        caller: &Caller,
        endpoint: &Endpoint,
        client: &ClientFacts,
        interest: Interest,
    ) -> Result<Watch, Stop> {
        watch::watch(self, caller, endpoint, client, interest).await
    }

    fn honoured(watch: &Watch) -> Interest {
        watch.honoured()
    }

    async fn renew(watch: &mut Watch, caller: Caller) {
        watch.renew(caller).await;
    }

    fn subscribe(watch: &mut Watch, uri: String) -> impl Future<Output = Outcome> + Send + 'static {
        watch.subscribe(uri)
    }

    fn unsubscribe(watch: &mut Watch, uri: &str) {
        watch.unsubscribe(uri);
    }

    fn follow_task(watch: &mut Watch, id: String) {
        watch.follow_task(id);
    }

    async fn next_watched(watch: &mut Watch) -> Watched {
        watch.next().await
    }

    async fn fallen(self: Arc<Self>, caller: Caller) {
        let mut decisions = self.decisions();
        while !self.is_cut_off(&caller) {
            // The sender lives as long as we do.
            if decisions.changed().await.is_err() {
                return;
            }
        }
    }

    fn stopping(&self) -> CancellationToken {
        Self::stopping(self)
    }

    async fn page(self: &Arc<Self>, method: &http::Method, visit: link::Visit<'_>) -> http::Response<String> {
        link::answer(self, method, visit).await
    }

    fn peer(&self, replica: ReplicaId) -> Option<String> {
        self.standing().address_of(replica)
    }

    fn home(&self, caller: &Caller, message: &Message) -> Option<ReplicaId> {
        call::home(self, caller, message)
    }

    fn asked_by_replica(&self, proof: &str) -> Option<Proven> {
        Self::asked_by_replica(self, proof)
    }

    async fn tell_replica(&self, proven: &Proven, body: &[u8]) -> Result<Vec<u8>, Stop> {
        Self::tell_replica(self, proven, body).await
    }

    fn handed_on(&self, caller: &Caller, to: ReplicaId, verb: &str, answer: Result<StatusCode, &Failure>) {
        let status = answer.as_ref().ok().map(StatusCode::as_u16);
        let note = RelayNote { to, verb, status, reason: answer.err().map(|failure| failure.reason) };
        self.journal().handed_on(caller.who(), &note);
    }

    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }
}
