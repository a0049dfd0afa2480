//! What a server asks in the middle of a call, on its way to the client.
//!
//! Decides whether it may be asked at all, and sees to it that the user sees who asks. Refuses to know
//! transports. Invariant: a client is asked only what it declared, what policy allows in this moment, and
//! never to visit a host that no administrator wrote down; one question that may not be asked ends the call.

use std::fmt::Write as _;
use std::sync::Arc;

use super::bound;
use super::declared::is_of_one;
use super::mandate::{self, Mandated};
use super::retry::{self, About};
use super::{ClientFacts, Endpoint};
use crate::config::ServerConfig;
use crate::delegate::Grant;
use crate::gateway::Gateway;
use crate::ids::ParkId;
use crate::limit;
use crate::outcome::{Failure, Origin, Outcome, Reason, Refusal, Resume, Stop};
use crate::wire::mcp::{Era, code, meta};
use crate::wire::{Askable, Edit, InputKind, Json, Object, Source, Value};

/// The key in `_meta` of a question that names the server which asks.
const ASKING_SERVER: &str = "dev.bailiwick/server";

/// What every task came of: a question of a task belongs to that, whichever request it came with.
pub const TASKS_BEGIN_WITH: &str = "tools/call";

/// What the leg that was asked in knows of its client.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking<'a> {
    /// What the client declared.
    pub declared: Askable,
    /// The request for approval that the call has used, where the leg that was asked in uses none.
    pub used: Option<&'a str>,
    /// How many rounds of questions this call had before.
    pub round: u32,
    /// The client itself asks for the result of its task: what it answers with is good for that only.
    pub own_task: bool,
    /// One server is all that its client has here, so that this server's context is its own.
    pub is_of_one: bool,
    /// The client can tell how far it is with an answer: only legacy ones can.
    pub reports: bool,
}

impl Asking<'_> {
    /// What is known of a client that declared this, at an endpoint.
    pub fn of(client: &ClientFacts, endpoint: &Endpoint, declared: Askable) -> Self {
        let reports = client.version.era() == Era::Legacy;
        Self { declared, is_of_one: is_of_one(endpoint), reports, ..Self::default() }
    }
}

/// The question as the client may see it, or the end of the call.
pub fn relayed(gateway: &Arc<Gateway>, grant: &Grant, asking: Asking<'_>, result: &Json, resume: Resume) -> Outcome {
    let asked = question(gateway, grant, asking, result, resume);
    if let Some(parked) = resume.parked {
        match &asked {
            Ok(_) => watch(gateway, grant, parked),
            Err(_) => gateway.upstreams().abandon(parked),
        }
    }
    asked.unwrap_or_else(Outcome::from)
}

/// What an error of 2025-11-25 asks for, which says that pages must be visited before the call is made again.
pub fn required(error: &Json) -> Option<Json> {
    let object = error.value().as_object()?;
    object.get("code").and_then(Value::as_i64).filter(|number| *number == i64::from(code::LEGACY_URL_REQUIRED))?;
    let pages = object.get("data").and_then(Value::as_object)?.get("elicitations")?;
    // What cannot be read cannot be decided: a result that asks for nothing ends the call.
    let unreadable = || Some(Json::joined(r#"{"resultType":"input_required"}"#.to_owned()));
    let Some(pages) = pages.as_array() else { return unreadable() };
    let mut text = String::new();
    for (number, page) in pages.take(limit::INPUT_REQUESTS_MAX + 1).enumerate() {
        let Some(page) = page.as_object() else { return unreadable() };
        let page = page.edited(&[Edit::Set("mode", Json::of("url"))]);
        let separator = if number == 0 { "" } else { "," };
        let _ =
            write!(text, r#"{separator}"page-{number}":{{"method":"elicitation/create","params":{}}}"#, page.as_str());
    }
    Some(Json::joined(format!(r#"{{"resultType":"input_required","inputRequests":{{{text}}}}}"#)))
}

/// The end of what nobody decides about any more: a task that was followed. Pages that it wants visited are refused.
pub fn undecided(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Error(error) if required(&error).is_some() => Refusal::new(Reason::InputRefused).into(),
        outcome => outcome,
    }
}

/// Gives a call up that waits, as soon as its caller may not make it any more.
fn watch(gateway: &Arc<Gateway>, grant: &Grant, parked: ParkId) {
    let Some(gone) = gateway.upstreams().until_unparked(parked) else { return };
    let (mut decisions, within) = (gateway.decisions(), grant.target().server().health.input_timeout);
    let mandated = grant.mandate().map(|held| Mandated::used(gateway, held));
    let (gateway, following) = (Arc::downgrade(gateway), grant.is_following());
    let (caller, target, arguments) = (grant.caller().clone(), grant.target().clone(), grant.arguments().cloned());
    let situation = grant.situation().clone();
    let watching = async move {
        loop {
            let Some(gateway) = gateway.upgrade().filter(|_| !gone.is_cancelled()) else { return };
            let stands = gateway.still_trusted(&caller).is_ok()
                && if following {
                    gateway.authorize_following(&caller, target.clone()).is_ok()
                } else {
                    let situation = situation.clone();
                    gateway.authorize_within(&caller, target.clone(), arguments.as_ref(), situation).is_ok()
                };
            // That nobody could look is no end of it.
            let is_over = match &mandated {
                Some(mandated) => matches!(gateway.still_mandated(mandated.held()).await, Err(Stop::Refused(_))),
                None => false,
            };
            if !stands || is_over {
                return gateway.upstreams().abandon(parked);
            }
            drop(gateway);
            tokio::select! {
                // What was answered must not be held until it would have expired.
                () = gone.cancelled() => return,
                () = mandate::at(mandated.as_ref().map(Mandated::ends)) => {}
                changed = decisions.changed() => if changed.is_err() { return },
            }
        }
    };
    // Whoever waits longer is given up by the room that holds it.
    tokio::spawn(tokio::time::timeout(within, watching));
}

fn question(
    gateway: &Gateway,
    grant: &Grant,
    asking: Asking<'_>,
    result: &Json,
    resume: Resume,
) -> Result<Outcome, Stop> {
    let garbage = |detail: &str| Stop::from(Failure::after(Reason::UpstreamGarbage, detail));
    if asking.round >= limit::INPUT_ROUNDS_MAX {
        return Err(garbage("it asked for input again and again"));
    }
    let object = result.value().as_object().ok_or_else(|| garbage("its result is no object"))?;
    let inner = match object.get("requestState").filter(|state| !state.is_null()) {
        None => None,
        Some(state) => Some(state.as_str().ok_or_else(|| garbage("its requestState is no string"))?.into_owned()),
    };
    if inner.as_ref().is_some_and(|state| state.len() > limit::INPUT_STATE_BYTES_MAX) {
        return Err(garbage("its requestState is too long"));
    }
    let server = grant.target().server();
    let may = gateway.askable(grant.caller(), server, asking.declared);
    let reported = is_reported(grant, asking, resume);
    let (mut keys, mut edits) = (Vec::new(), Vec::new());
    if let Some(requests) = object.get("inputRequests").filter(|requests| !requests.is_null()) {
        // A key that stands twice would be decided by its first value and asked by its last.
        let alike = Json::parse(requests.raw(), Source::Client)
            .map_err(|_| garbage("not everybody reads its inputRequests alike"))?;
        let requests = alike.value().as_object().ok_or_else(|| garbage("its inputRequests are no object"))?;
        let mut text = String::from("{");
        for (key, request) in requests.members() {
            if keys.len() >= limit::INPUT_REQUESTS_MAX || key.len() > limit::INPUT_KEY_BYTES_MAX {
                return Err(garbage("it asked for too much at once"));
            }
            let request = request.as_object().ok_or_else(|| garbage("one of its inputRequests is no object"))?;
            let params = request.get("params").and_then(Value::as_object);
            let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
            let kind = InputKind::of(&method, params).ok_or_else(|| garbage("it asked for something unknown"))?;
            if !asking.declared.has(kind) {
                return Err(garbage("it asked for what the client did not say it can be asked"));
            }
            if !may.has(kind) {
                return Err(Refusal::new(Reason::InputRefused).into());
            }
            if kind == InputKind::Url {
                check_url(params, server)?;
            }
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(Json::of(key.as_ref()).as_str());
            text.push(':');
            text.push_str(attributed(request, params, kind, (server, asking.is_of_one), reported).as_str());
            keys.push(key.into_owned());
        }
        text.push('}');
        edits.push(Edit::Set("inputRequests", Json::joined(text)));
    }
    if keys.is_empty() && inner.is_none() {
        return Err(garbage("it asked for input and did not say which"));
    }
    let within = server.health.input_timeout;
    let about = About {
        call: grant.leg().call,
        method: if grant.is_following() && !asking.own_task { TASKS_BEGIN_WITH } else { &grant.leg().method },
        target: grant.target(),
        arguments: grant.arguments(),
        round: asking.round + 1,
        mandate: grant.mandate().map(|held| &held.mandate().id),
        used: grant.approval().map(|used| used.kept.id.as_str()).or(asking.used),
        home: bound::here(gateway, server, resume.parked.is_some() || grant.is_following()),
    };
    let holder = grant.caller().holder_at(&gateway.config(), server);
    let state = retry::seal(gateway.sealer(), &holder, &about, keys, (resume.parked, inner), within);
    let state = state.ok_or_else(|| Stop::from(Failure::after(Reason::Internal, "a state cannot be sealed")))?;
    edits.push(Edit::Set("requestState", Json::of(&state)));
    let resume = Resume { within, ..resume };
    Ok(Outcome::InputRequired { origin: Origin::Upstream, result: object.edited(&edits), resume })
}

/// Whether a server that waits may hear how far its client is with the answer. Not where something about the call hung on
/// what its caller says, because nobody looks at what is said until then; of a task nobody knows any more whether it did.
fn is_reported(grant: &Grant, asking: Asking<'_>, resume: Resume) -> bool {
    let is_looked_at = grant.hangs_on_words() || grant.is_following() || asking.used.is_some();
    asking.reports && resume.parked.is_some() && !is_looked_at
}

/// The request with the name of the server that asks, where the user or the client can see it.
fn attributed(
    request: Object<'_>,
    params: Option<Object<'_>>,
    kind: InputKind,
    (server, is_of_one): (&ServerConfig, bool),
    reported: bool,
) -> Json {
    let empty = Json::of(&serde_json::Map::new());
    let Some(params) = params.or_else(|| empty.value().as_object()) else { return empty.clone() };
    let own = params.get("_meta").and_then(Value::as_object).or_else(|| empty.value().as_object());
    // A task goes by another id here.
    let mut gone = vec![Edit::RemovePrefix(meta::OWN_PREFIX), Edit::Remove(meta::RELATED_TASK)];
    if !reported {
        gone.push(Edit::Remove(meta::PROGRESS_TOKEN));
    }
    let own = own.map(|own| own.edited(&gone));
    let own = own.as_ref().and_then(|own| own.value().as_object());
    let own = own.map(|own| own.edited(&[Edit::Set(ASKING_SERVER, Json::of(server.id.as_str()))]));
    let mut edits: Vec<_> = own.into_iter().map(|own| Edit::Set("_meta", own)).collect();
    match kind {
        InputKind::Form | InputKind::Url => {
            let message = params.get("message").and_then(Value::as_str).unwrap_or_default();
            edits.push(Edit::Set("message", Json::of(&format!("[{}] {message}", server.id))));
        }
        // Where the whole gateway is one server to a client this would show one server what others said.
        InputKind::Sampling | InputKind::SamplingWithTools if !is_of_one => edits.push(Edit::Remove("includeContext")),
        // What is this server's is its own; a client may have other servers, here and elsewhere.
        InputKind::Sampling | InputKind::SamplingWithTools => {
            let wanted = params.get("includeContext").filter(|wanted| !wanted.is_null());
            let is_own = |wanted: &Value<'_>| matches!(wanted.as_str().as_deref(), Some("thisServer" | "none"));
            if wanted.is_some_and(|wanted| !is_own(&wanted)) {
                edits.push(Edit::Set("includeContext", Json::of("thisServer")));
            }
        }
        InputKind::Roots => {}
    }
    request.edited(&[Edit::Set("params", params.edited(&edits))])
}

/// Whether users may be sent to the page that a server names.
fn check_url(params: Option<Object<'_>>, server: &ServerConfig) -> Result<(), Refusal> {
    let refused = || {
        Refusal::new(Reason::InputRefused)
            .hint("the server asked to open a page at a host that is not on its list; ask its owner")
    };
    let text = params.and_then(|params| params.get("url")).and_then(Value::as_str).ok_or_else(refused)?;
    if may_visit(&text, &server.elicit_url_hosts) { Ok(()) } else { Err(refused()) }
}

/// HTTPS at a listed host, spelled so that everybody reads the same host out of it.
fn may_visit(text: &str, hosts: &[String]) -> bool {
    let confusing = |byte: u8| byte.is_ascii_control() || byte.is_ascii_whitespace() || byte == b'\\';
    let Ok(url) = url::Url::parse(text) else { return false };
    let host = url.host_str().unwrap_or_default();
    let (scheme, rest) = text.split_at_checked("https://".len()).unwrap_or_default();
    let plain = scheme.eq_ignore_ascii_case("https://") && !rest.starts_with('/');
    let listed = |entry: &String| match entry.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => host == entry,
    };
    plain
        && !text.bytes().any(confusing)
        && url.username().is_empty()
        && url.password().is_none()
        && hosts.iter().any(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_wants_pages_visited_becomes_questions_and_no_other_does() {
        let json = |text: &str| Json::parse(text, crate::wire::Source::Upstream).unwrap();
        let asks = json(
            r#"{"code":-32042,"message":"m","data":{"elicitations":[{"url":"https://a","mode":"form"},{"url":"https://b"}]}}"#,
        );
        assert_eq!(
            required(&asks).unwrap().as_str(),
            r#"{"resultType":"input_required","inputRequests":{"page-0":{"method":"elicitation/create","params":{"url":"https://a","mode":"url"}},"page-1":{"method":"elicitation/create","params":{"url":"https://b","mode":"url"}}}}"#
        );
        assert!(required(&json(r#"{"code":-32602,"data":{"elicitations":[]}}"#)).is_none());
        assert!(required(&json(r#"{"code":-32042,"message":"m"}"#)).is_none());
    }

    #[test]
    fn a_server_asks_for_its_own_context_or_none_and_where_it_is_one_of_several_for_none_at_all() {
        let server = crate::catalog::fake::server("one");
        let asked = |wanted: &str, is_of_one: bool| {
            let text = format!(r#"{{"method":"sampling/createMessage","params":{{"maxTokens":1{wanted}}}}}"#);
            let json = Json::parse(text, Source::Client).unwrap();
            let request = json.value().as_object().unwrap();
            let params = request.get("params").and_then(Value::as_object);
            let shown = attributed(request, params, InputKind::Sampling, (&server, is_of_one), false);
            let shown: serde_json::Value = serde_json::from_str(shown.as_str()).unwrap();
            shown["params"].get("includeContext").cloned()
        };
        for (wanted, passed) in [
            ("", None),
            (r#","includeContext":"thisServer""#, Some("thisServer")),
            (r#","includeContext":"none""#, Some("none")),
            (r#","includeContext":"allServers""#, Some("thisServer")),
            (r#","includeContext":"AllServers""#, Some("thisServer")),
            (r#","includeContext":["allServers"]"#, Some("thisServer")),
        ] {
            assert_eq!(asked(wanted, true), passed.map(Into::into), "{wanted}");
            assert_eq!(asked(wanted, false), None, "{wanted}");
        }
    }

    #[test]
    fn users_are_sent_to_listed_hosts_only_however_the_address_is_spelled() {
        let hosts = ["github.com".to_owned(), "*.example.com".to_owned()];
        for (url, may) in [
            ("https://github.com/login?x=1#y", true),
            ("HTTPS://GitHub.com:8443/", true),
            ("https://a.b.example.com/", true),
            ("https://example.com/", false),
            ("https://.example.com/", false),
            ("https://badexample.com/", false),
            ("https://github.com.evil.org/", false),
            ("https://evil.org/github.com", false),
            ("https://github.com@evil.org/", false),
            ("https://user@github.com/", false),
            ("https://:secret@github.com/", false),
            ("http://github.com/", false),
            ("javascript:alert(1)//https://github.com/", false),
            ("https:github.com/", false),
            ("https:///github.com/", false),
            ("https://github.com\\@evil.org/", false),
            ("https://git\thub.com/", false),
            (" https://github.com/", false),
            ("", false),
        ] {
            assert_eq!(may_visit(url, &hosts), may, "{url}");
        }
        assert!(!may_visit("https://github.com/", &[]));
    }
}
