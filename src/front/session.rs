//! Legacy sessions: what `initialize` settled, carried by the client in a sealed session id.
//!
//! Decides which session ids are alive. What changes in a session and has to outlive the process, that it has ended, that
//! it has subscribed and its log level, is a row of the store, read when the session is first seen; memory holds copies of
//! these, the calls in flight and the open stream. Invariants: a session opens only for the principal and the endpoint that
//! began it, for at most [`limit::SESSION_AGE_MAX`], and until something that it rests on is taken back; one that has ended
//! opens no more, whatever was forgotten or started anew since.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio_util::sync::CancellationToken;

use self::kept::Kept;
use crate::call::{ClientFacts, Endpoint};
use crate::gateway::sessions::Since;
use crate::ids::{PrincipalKey, ReplicaId};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::wire::handle::Sealer;
use crate::wire::mcp::{LogLevel, Version};
use crate::wire::voids::Holder;
use crate::wire::{Json, LastWords, Source, Value};

mod kept;

const KEY_LENGTH: usize = 16;
const REPLICA_LENGTH: usize = 26;
const SHARDS: usize = 16;
/// What the client says of itself stands behind this in the sealed content, or is kept here.
const SEALED: u8 = 1;
const KEPT: u8 = 2;

/// The random part of a session id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct SessionKey([u8; KEY_LENGTH]);

impl SessionKey {
    /// As the store names it.
    pub(super) fn name(self) -> String {
        self.0.iter().fold(String::new(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        })
    }
}

impl Session {
    /// When it would be too old, microseconds since 1970.
    pub(super) fn ends_us(&self) -> i64 {
        i64::try_from(self.ends.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
impl SessionKey {
    pub(super) const fn of_test(byte: u8) -> Self {
        Self([byte; KEY_LENGTH])
    }
}

/// A live session, as the request's session id says.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: SessionKey,
    pub(super) version: Version,
    /// When it would be too old, seconds since 1970.
    ends: u64,
    /// It was begun here, and what changes in it is known here.
    pub(super) is_own: bool,
    /// It has subscribed to something.
    pub(super) subscribed: bool,
    said: Said,
}

/// What the client said of itself.
#[derive(Debug, Clone)]
struct Said {
    capabilities: Json,
    info: Option<Json>,
}

/// What is remembered of sessions.
pub(super) struct Sessions {
    sealer: Arc<Sealer>,
    replica: ReplicaId,
    /// Copies of what the store says, or would say.
    seen: Cache<SessionKey, Arc<Since>>,
    /// What has no place in a session id.
    kept: Kept<Said>,
    live: [Mutex<HashMap<SessionKey, Live>>; SHARDS],
}

/// What goes on in one session.
#[derive(Default)]
struct Live {
    calls: HashMap<String, (CancellationToken, LastWords)>,
    stream: Option<CancellationToken>,
}

impl Sessions {
    pub(super) fn new(sealer: Arc<Sealer>, replica: ReplicaId) -> Self {
        Self {
            sealer,
            replica,
            seen: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(limit::SESSIONS_SEEN_MAX)
                .time_to_live(limit::SESSION_AGE_MAX)
                .build(),
            kept: Kept::new(limit::SESSION_AGE_MAX),
            live: Default::default(),
        }
    }

    /// Begins a session; answers its id.
    pub(super) fn begin(&self, holder: &Holder, endpoint: &Endpoint, client: &ClientFacts) -> Result<String, Stop> {
        let said = Said { capabilities: client.capabilities.clone(), info: client.info.as_ref().map(short_info) };
        if said.length() > limit::SESSION_CLIENT_BYTES_MAX {
            return Err(Refusal::new(Reason::ParametersInvalid).hint("declare smaller capabilities").into());
        }
        let trouble = |what: &str| Stop::from(Failure::before(Reason::Internal, what));
        let mut key = [0_u8; KEY_LENGTH];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| trouble("no random bytes for a session id"))?;
        let key = SessionKey(key);
        let sealed = said.length() <= limit::SESSION_SEALED_BYTES_MAX;
        let mut content = Vec::with_capacity(64 + if sealed { said.length() } else { 0 });
        content.extend_from_slice(&key.0);
        content.extend_from_slice(&now_seconds().to_be_bytes());
        content.extend_from_slice(self.replica.to_string().as_bytes());
        content.extend_from_slice(client.version.as_str().as_bytes());
        if sealed {
            content.push(SEALED);
            content.extend_from_slice(said.capabilities.as_bytes());
            // A scan leaves no line feed in JSON, so one separates.
            content.push(b'\n');
            content.extend_from_slice(said.info.as_ref().map_or(&[][..], |info| info.as_bytes()));
        } else {
            content.push(KEPT);
            self.kept.keep(holder.principal, key, said.length(), said);
        }
        self.seen.insert(key, Arc::default());
        self.sealer
            .seal_for(&purpose(endpoint), holder, &content)
            .map_err(|error| trouble(&format!("a session id cannot be sealed: {error}")))
    }

    /// The session of that id, if it is this principal's at this endpoint and neither too old nor known to have ended. Of
    /// another replica's it is if that one says so, which has handed on what only this one can answer.
    pub(super) fn open(
        &self,
        principal: PrincipalKey,
        endpoint: &Endpoint,
        id: &str,
        via: Option<ReplicaId>,
    ) -> Option<Session> {
        let content = self.sealer.open(&purpose(endpoint), principal, id)?;
        let (key, rest) = content.split_first_chunk::<KEY_LENGTH>()?;
        let (created, rest) = rest.split_first_chunk::<8>()?;
        let (replica, rest) = rest.split_first_chunk::<REPLICA_LENGTH>()?;
        // What goes on in it is known where it was begun, and nowhere else.
        let is_own = *replica == *self.replica.to_string().as_bytes();
        if !is_own && via.is_none_or(|via| *replica != *via.to_string().as_bytes()) {
            return None;
        }
        let (version, rest) = rest.split_first_chunk::<10>()?;
        let (place, rest) = rest.split_first()?;
        let key = SessionKey(*key);
        let ends = u64::from_be_bytes(*created).saturating_add(limit::SESSION_AGE_MAX.as_secs());
        let since = self.seen.get(&key);
        if now_seconds() > ends || since.as_ref().is_some_and(|since| since.ended) {
            return None;
        }
        let version = Version::parse(std::str::from_utf8(version).ok()?)?;
        let said = match *place {
            KEPT if is_own => self.kept.get(key)?,
            // It is kept there, and what is handed on is about what its client has declared before.
            KEPT => Said { capabilities: Json::of(&serde_json::Map::new()), info: None },
            _ => Said::read(rest)?,
        };
        Some(Session { key, version, ends, is_own, subscribed: since.is_some_and(|since| since.subscribed), said })
    }

    /// The replica that began the session of that id, if it is this principal's at this endpoint.
    pub(super) fn home(&self, principal: PrincipalKey, endpoint: &Endpoint, id: &str) -> Option<ReplicaId> {
        let content = self.sealer.open(&purpose(endpoint), principal, id)?;
        let replica = content.get(KEY_LENGTH + 8..KEY_LENGTH + 8 + REPLICA_LENGTH)?;
        std::str::from_utf8(replica).ok()?.parse().ok()
    }

    /// Whether the store has to be asked what has changed in a session.
    pub(super) fn is_unseen(&self, session: &Session) -> bool {
        session.is_own && !self.seen.contains_key(&session.key)
    }

    /// Takes in what the store says of a session that was not seen yet; answers whether it is alive. What has changed here
    /// meanwhile is newer.
    pub(super) fn learn(&self, key: SessionKey, since: Since) -> bool {
        !self.seen.entry(key).or_insert_with(|| Arc::new(since)).value().ended
    }

    /// What has changed in a session since it began, as far as is known here.
    pub(super) fn since(&self, key: SessionKey) -> Arc<Since> {
        self.seen.get(&key).unwrap_or_default()
    }

    /// Ends a session: its calls are cancelled, its stream ends, and its id is not accepted again.
    pub(super) fn end(&self, key: SessionKey) {
        self.change(key, |since| since.ended = true);
        self.kept.forget(key);
        if let Some(live) = self.shard(key).remove(&key) {
            live.calls.values().map(|(token, _)| token).chain(&live.stream).for_each(CancellationToken::cancel);
        }
    }

    /// Log messages of this level and above are wanted from now on.
    pub(super) fn set_log_level(&self, key: SessionKey, level: LogLevel) {
        self.change(key, |since| since.level = Some(level.as_str().to_owned()));
    }

    /// It has subscribed to something.
    pub(super) fn has_subscribed(&self, key: SessionKey) {
        if !self.since(key).subscribed {
            self.change(key, |since| since.subscribed = true);
        }
    }

    /// It has unsubscribed from all of it.
    pub(super) fn has_unsubscribed(&self, key: SessionKey) {
        self.change(key, |since| since.subscribed = false);
    }

    /// Two changes at once are both known afterwards.
    fn change(&self, key: SessionKey, change: impl FnOnce(&mut Since)) {
        self.seen.entry(key).and_upsert_with(|before| {
            let mut since = before.map_or_else(Since::default, |before| Since::clone(before.value()));
            change(&mut since);
            Arc::new(since)
        });
    }

    /// What the client said of itself, as each of its requests would say it in the modern era.
    pub(super) fn client(&self, session: &Session) -> ClientFacts {
        ClientFacts {
            version: session.version,
            capabilities: session.said.capabilities.clone(),
            info: session.said.info.clone(),
            // The specification leaves to the server what a session gets that set none: nothing that nobody asked for.
            log_level: self.since(session.key).level.as_ref().map(Json::of),
        }
    }

    /// Registers a call, so that `notifications/cancelled` finds it.
    pub(super) fn register(self: &Arc<Self>, key: SessionKey, id: &Json) -> Result<Registration, Refusal> {
        let call = call_key(id.value());
        let (token, last_words) = (CancellationToken::new(), LastWords::default());
        let mut shard = self.shard(key);
        let live = shard.entry(key).or_default();
        if live.calls.len() >= limit::SESSION_CALLS_MAX {
            return Err(Refusal::new(Reason::ConcurrencyLimited));
        }
        if live.calls.contains_key(&call) {
            return Err(Refusal::new(Reason::RequestInvalid).hint("a request with this id is in flight already"));
        }
        live.calls.insert(call.clone(), (token.clone(), last_words.clone()));
        Ok(Registration { sessions: Arc::clone(self), key, call, token, last_words })
    }

    /// Cancels the call of that id, if it is in flight, for the reason that its client gives.
    pub(super) fn cancel(&self, key: SessionKey, id: Value<'_>, reason: Option<&str>) {
        if let Some((token, last_words)) = self.shard(key).get(&key).and_then(|live| live.calls.get(&call_key(id))) {
            if let Some(reason) = reason {
                last_words.say(reason);
            }
            token.cancel();
        }
    }

    /// Makes a new stream the session's only one, so that no message goes out twice; the older one ends.
    pub(super) fn take_stream(self: &Arc<Self>, key: SessionKey) -> StreamLease {
        let token = CancellationToken::new();
        let older = self.shard(key).entry(key).or_default().stream.replace(token.clone());
        if let Some(older) = older {
            older.cancel();
        }
        StreamLease { sessions: Arc::clone(self), key, token }
    }

    fn shard(&self, key: SessionKey) -> MutexGuard<'_, HashMap<SessionKey, Live>> {
        let [first, ..] = key.0;
        let [zero, ..] = &self.live;
        let shard = self.live.get(usize::from(first) % SHARDS).unwrap_or(zero);
        // Nothing in here can be left half done by a panic.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in flight; dropping it takes it off the list.
pub(super) struct Registration {
    sessions: Arc<Sessions>,
    key: SessionKey,
    call: String,
    token: CancellationToken,
    /// What the client says when it cancels.
    pub(super) last_words: LastWords,
}

impl Registration {
    /// Fires when the client cancels the call or ends the session.
    pub(super) const fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut shard = self.sessions.shard(self.key);
        if let Some(live) = shard.get_mut(&self.key) {
            live.calls.remove(&self.call);
            if live.calls.is_empty() && live.stream.is_none() {
                shard.remove(&self.key);
            }
        }
    }
}

/// The session's open stream; dropping it gives the place free.
pub(super) struct StreamLease {
    sessions: Arc<Sessions>,
    key: SessionKey,
    token: CancellationToken,
}

impl StreamLease {
    /// Fires when a newer stream took the place or the session ended.
    pub(super) const fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        // Cancelled: a newer stream has the place.
        if self.token.is_cancelled() {
            return;
        }
        let mut shard = self.sessions.shard(self.key);
        if let Some(live) = shard.get_mut(&self.key)
            && !self.token.is_cancelled()
        {
            live.stream = None;
            if live.calls.is_empty() {
                shard.remove(&self.key);
            }
        }
    }
}

impl Said {
    fn length(&self) -> usize {
        self.capabilities.as_bytes().len() + self.info.as_ref().map_or(0, |info| info.as_bytes().len())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let line = bytes.iter().position(|byte| *byte == b'\n')?;
        let (capabilities, info) = bytes.split_at_checked(line)?;
        let info = info.get(1..).filter(|info| !info.is_empty());
        Some(Self {
            capabilities: Json::parse(capabilities, Source::Client).ok()?,
            info: match info {
                Some(info) => Some(Json::parse(info, Source::Client).ok()?),
                None => None,
            },
        })
    }
}

/// A client's description, cut down to its name and version when it is long (some carry icons).
fn short_info(info: &Json) -> Json {
    if info.as_bytes().len() <= limit::SESSION_INFO_BYTES_MAX {
        return info.clone();
    }
    let text = |key: &str| {
        let value = info.value().as_object().and_then(|object| object.get(key)).and_then(Value::as_str);
        value.unwrap_or_default().chars().take(100).collect::<String>()
    };
    Json::of(&serde_json::json!({ "name": text("name"), "version": text("version") }))
}

/// A request id as one text: a string and a number never collide, however the string is escaped.
pub(super) fn call_key(id: Value<'_>) -> String {
    match id.as_str() {
        Some(text) => format!("\"{text}"),
        None => id.raw().to_owned(),
    }
}

fn purpose(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Merged => "session".to_owned(),
        Endpoint::Server(server) => format!("session/{server}"),
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
