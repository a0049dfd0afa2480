//! The `requestState` that clients get: sealed, bound, and all that is needed to go on with a call.
//!
//! Decides whether a retry belongs to the question that it answers. Keeps nothing: what a retry needs
//! stands in its own state. Invariant: a state goes on with the call of this principal, this primitive and
//! these arguments only, and answers are only taken to what was asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::Target;
use crate::gateway::since_epoch;
use crate::guard::Charge;
use crate::ids::{CallId, Digest, MandateId, ParkId, PrincipalKey, ReplicaId, ServerId};
use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::wire::handle::Sealer;
use crate::wire::voids::Holder;
use crate::wire::{Json, Object, Value};

const PURPOSE: &str = "input";

/// What a sealed `requestState` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    #[serde(rename = "s")]
    server: ServerId,
    #[serde(rename = "c")]
    call: String,
    /// The digest of method, name and arguments.
    #[serde(rename = "d")]
    asked_for: Digest,
    /// Until when it is good, seconds since 1970.
    #[serde(rename = "u")]
    until: u64,
    #[serde(rename = "r")]
    round: u32,
    /// The names of the questions.
    #[serde(rename = "k")]
    keys: Vec<String>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    parked: Option<String>,
    /// The replica where it waits.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    home: Option<String>,
    /// The gateway itself asked.
    #[serde(rename = "o", default, skip_serializing_if = "std::ops::Not::not")]
    own: bool,
    /// The call was sent, and so it was counted.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    charged: bool,
    /// The mandate that the call is part of.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    mandate: Option<MandateId>,
    /// The upstream's own state.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    inner: Option<String>,
    /// The request for approval that we asked about ourselves.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    approval: Option<String>,
    /// The request for approval that the leg has used in which its server asked.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    used: Option<String>,
}

/// What a question belongs to.
pub struct About<'a> {
    pub call: CallId,
    pub method: &'a str,
    pub target: &'a Target,
    pub arguments: Option<&'a Json>,
    pub round: u32,
    /// The mandate that it is part of.
    pub mandate: Option<&'a MandateId>,
    /// The replica that alone can go on with it.
    pub home: Option<ReplicaId>,
    /// The request for approval that was used in the leg that was asked in.
    pub used: Option<&'a str>,
}

/// A retry: its state was ours and is still good.
#[derive(Debug)]
pub struct Retry {
    state: State,
    call: CallId,
    parked: Option<ParkId>,
}

impl Retry {
    /// Reads the state of a request; `None` where it has none.
    ///
    /// # Errors
    /// `input_state_invalid`, `input_expired`.
    pub fn read(params: Object<'_>, sealer: &Sealer, principal: PrincipalKey) -> Result<Option<Self>, Refusal> {
        match Self::read_late(params, sealer, principal)? {
            Some(retry) if since_epoch().as_secs() > retry.state.until => Err(Refusal::new(Reason::InputExpired)),
            retry => Ok(retry),
        }
    }

    /// The same of what is not gone on with, however late that is.
    ///
    /// # Errors
    /// `input_state_invalid`.
    pub fn read_late(params: Object<'_>, sealer: &Sealer, principal: PrincipalKey) -> Result<Option<Self>, Refusal> {
        let Some(handle) = params.get("requestState").filter(|state| !state.is_null()) else { return Ok(None) };
        let invalid = || Refusal::new(Reason::InputStateInvalid);
        let handle = handle.as_str().ok_or_else(invalid)?;
        let content = sealer.open_within(PURPOSE, principal, &handle, limit::INPUT_HANDLE_BYTES_MAX);
        let state: State = serde_json::from_slice(&content.ok_or_else(invalid)?).map_err(|_| invalid())?;
        let call = state.call.parse().map_err(|_| invalid())?;
        let parked = state.parked.as_deref().map(str::parse).transpose().map_err(|_| invalid())?;
        Ok(Some(Self { state, call, parked }))
    }

    /// The replica that alone can go on with a call, as its state says.
    #[must_use]
    pub fn home(handle: &str, sealer: &Sealer, principal: PrincipalKey) -> Option<ReplicaId> {
        let content = sealer.open_within(PURPOSE, principal, handle, limit::INPUT_HANDLE_BYTES_MAX)?;
        let state: State = serde_json::from_slice(&content).ok()?;
        state.home?.parse().ok()
    }

    /// The replica where the call waits, where it waits at one of several.
    #[must_use]
    pub fn waits_at(&self) -> Option<ReplicaId> {
        self.parked?;
        self.state.home.as_deref()?.parse().ok()
    }

    /// Whether this is the retry of the very request that was asked about.
    ///
    /// # Errors
    /// `input_state_invalid`.
    pub fn check(&self, method: &str, target: &Target, arguments: Option<&Json>) -> Result<(), Refusal> {
        let same =
            self.state.server == *target.server_id() && self.state.asked_for == digest(method, target, arguments);
        if same { Ok(()) } else { Err(Refusal::new(Reason::InputStateInvalid)) }
    }

    /// The call that goes on.
    pub const fn call(&self) -> CallId {
        self.call
    }

    /// The mandate that the call is part of.
    pub const fn mandate(&self) -> Option<&MandateId> {
        self.state.mandate.as_ref()
    }

    /// Which round of questions was answered.
    pub const fn round(&self) -> u32 {
        self.state.round
    }

    /// Whether the gateway itself asked: the answer is no server's.
    pub const fn is_own(&self) -> bool {
        self.state.own
    }

    /// Whether it is counted against budgets: a call is counted once, when it is first sent, and what the gateway
    /// itself asks is asked before that.
    pub fn charge(&self) -> Charge {
        match (self.state.charged, self.parked) {
            (false, _) => Charge::Now,
            // What waits is answered once anyway.
            (true, Some(_)) => Charge::Before,
            (true, None) => Charge::Answer { round: self.state.round, until: Duration::from_secs(self.state.until) },
        }
    }

    /// The exchange that waits, where one does.
    pub const fn parked(&self) -> Option<ParkId> {
        self.parked
    }

    /// The request for approval that the gateway asked about itself; no upstream hears of such a round.
    pub fn approval(&self) -> Option<&str> {
        self.state.approval.as_deref()
    }

    /// The request for approval that the call has used, where its server asked afterwards.
    pub fn used(&self) -> Option<&str> {
        self.state.used.as_deref().filter(|_| !self.is_own() && self.approval().is_none())
    }

    /// Whether a question of that name was asked.
    pub fn was_asked(&self, key: &str) -> bool {
        self.state.approval.is_some() && self.state.keys.iter().any(|asked| asked == key)
    }

    /// The upstream's own state.
    pub fn inner(&self) -> Option<&str> {
        self.state.inner.as_deref()
    }

    /// The answers to what was asked; others are left out.
    ///
    /// # Errors
    /// `parameters_invalid`.
    pub fn answers(&self, params: Object<'_>) -> Result<Json, Refusal> {
        let asked = |key: &str| self.state.keys.iter().any(|asked| asked == key);
        Ok(answers(params, asked)?.unwrap_or_else(|| Json::joined("{}".to_owned())))
    }
}

/// Answers that come without a state: a client may know beforehand what a server will ask.
///
/// # Errors
/// `parameters_invalid`.
pub fn unasked(params: Object<'_>) -> Result<Option<Json>, Refusal> {
    answers(params, |_| true)
}

fn answers(params: Object<'_>, taken: impl Fn(&str) -> bool) -> Result<Option<Json>, Refusal> {
    let wrong = |hint: &'static str| Refusal::new(Reason::ParametersInvalid).hint(hint);
    let Some(responses) = params.get("inputResponses") else { return Ok(None) };
    let responses = responses.as_object().ok_or_else(|| wrong("send inputResponses, as an object"))?;
    if responses.raw().len() > limit::INPUT_ANSWERS_BYTES_MAX {
        return Err(wrong("send shorter answers in inputResponses"));
    }
    let mut text = String::from("{");
    for (key, answer) in responses.members().filter(|(key, _)| taken(key)) {
        if answer.as_object().is_none() {
            return Err(wrong("send an object for each answer in inputResponses"));
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(Json::of(key.as_ref()).as_str());
        text.push(':');
        text.push_str(answer.raw());
    }
    text.push('}');
    Ok(Some(Json::joined(text)))
}

/// Seals the state of a question that a server asks, in the middle of a call that was sent to it.
///
/// # Errors
/// When the cipher fails, or too many rounds were asked.
pub fn seal(
    sealer: &Sealer,
    holder: &Holder,
    about: &About<'_>,
    keys: Vec<String>,
    resume: (Option<ParkId>, Option<String>),
    within: Duration,
) -> Option<String> {
    let (parked, inner) = resume;
    let parked = parked.map(|id| id.to_string());
    let state = State { parked, inner, charged: true, ..state(about, keys, within) };
    sealer.seal_for(PURPOSE, holder, &serde_json::to_vec(&state).ok()?).ok()
}

/// Seals the state of a question that the gateway asks itself, about a request for approval.
pub fn seal_approval(
    sealer: &Sealer,
    holder: &Holder,
    about: &About<'_>,
    key: &str,
    approval: &str,
    within: Duration,
) -> Option<String> {
    let own = State { approval: Some(approval.to_owned()), ..state(about, vec![key.to_owned()], within) };
    sealer.seal_for(PURPOSE, holder, &serde_json::to_vec(&own).ok()?).ok()
}

fn state(about: &About<'_>, keys: Vec<String>, within: Duration) -> State {
    State {
        server: about.target.server_id().clone(),
        call: about.call.to_string(),
        asked_for: digest(about.method, about.target, about.arguments),
        until: (since_epoch() + within).as_secs(),
        round: about.round,
        keys,
        parked: None,
        home: about.home.map(|replica| replica.to_string()),
        own: false,
        charged: false,
        mandate: about.mandate.cloned(),
        inner: None,
        approval: None,
        used: about.used.map(str::to_owned),
    }
}

/// Seals the state of a question of the gateway's own.
pub fn seal_own(sealer: &Sealer, holder: &Holder, about: &About<'_>, key: &str, within: Duration) -> Option<String> {
    if about.round > limit::INPUT_ROUNDS_MAX {
        return None;
    }
    // It is asked and answered at any replica.
    let state = State { own: true, home: None, ..state(about, vec![key.to_owned()], within) };
    sealer.seal_for(PURPOSE, holder, &serde_json::to_vec(&state).ok()?).ok()
}

/// What a request asks for, however it is spelled: the order of members and escapes make no difference.
fn digest(method: &str, target: &Target, arguments: Option<&Json>) -> Digest {
    let mut written = String::new();
    if let Some(arguments) = arguments {
        canonical(arguments.value(), &mut written);
    }
    let parts = [method, target.server_id().as_str(), target.name(), &written];
    Digest::of("bailiwick/input/v1", &parts.map(str::as_bytes))
}

/// Members in the order of their names, strings without escapes that are not needed, numbers as they are spelled.
fn canonical(value: Value<'_>, text: &mut String) {
    if let Some(object) = value.as_object() {
        let mut members: Vec<_> = object.members().collect();
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (number, (key, value)) in members.into_iter().enumerate() {
            text.push(if number == 0 { '{' } else { ',' });
            text.push_str(Json::of(key.as_ref()).as_str());
            text.push(':');
            canonical(value, text);
        }
        text.push('}');
    } else if let Some(elements) = value.as_array() {
        text.push('[');
        for element in elements {
            canonical(element, text);
            text.push(',');
        }
        text.push(']');
    } else if let Some(string) = value.as_str() {
        text.push_str(Json::of(string.as_ref()).as_str());
    } else {
        text.push_str(value.raw());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn json(text: &str) -> Json {
        Json::parse(text, Source::Client).unwrap()
    }

    fn written(text: &str) -> String {
        let mut written = String::new();
        canonical(json(text).value(), &mut written);
        written
    }

    fn principal(name: &str) -> PrincipalKey {
        PrincipalKey(Digest::sha256(name.as_bytes()))
    }

    fn sealed(sealer: &Sealer, until: u64) -> String {
        let state = State {
            server: ServerId::new("s").unwrap(),
            call: CallId::new().to_string(),
            asked_for: Digest::sha256(b"x"),
            until,
            round: 1,
            keys: vec!["name".to_owned(), "a\"b".to_owned()],
            home: None,
            mandate: None,
            parked: None,
            own: false,
            charged: false,
            inner: Some("theirs".to_owned()),
            approval: None,
            used: None,
        };
        sealer.seal(PURPOSE, principal("alice"), &serde_json::to_vec(&state).unwrap()).unwrap()
    }

    fn read(sealer: &Sealer, state: &str, who: &str) -> Result<Option<Retry>, Reason> {
        let params = json(&serde_json::json!({ "requestState": state }).to_string());
        let params = params.value().as_object().unwrap();
        Retry::read(params, sealer, principal(who)).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn the_spelling_of_arguments_makes_no_difference_and_their_values_do() {
        assert_eq!(
            written(r#"{"b":[1,"\u0061"], "a":{"y":null,"x":true}}"#),
            written(r#"{"a":{"x":true,"y":null},"b":[1,"a"]}"#)
        );
        let all = [
            "{}",
            "[]",
            "[[]]",
            "[{}]",
            "\"\"",
            "1",
            "1.0",
            "\"1\"",
            r#"{"a":1}"#,
            r#"{"a":[1]}"#,
            "[1,2]",
            "[[1],2]",
            "null",
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(written(one) == written(other), at == other_at, "{one} {other}");
            }
        }
    }

    #[test]
    fn a_state_opens_for_its_principal_until_it_expires() {
        let sealer = Sealer::new([&[1_u8; 32][..]]).unwrap();
        let later = since_epoch().as_secs() + 60;
        let state = sealed(&sealer, later);
        assert_eq!(read(&sealer, &state, "alice").unwrap().unwrap().inner(), Some("theirs"));
        assert_eq!(read(&sealer, &state, "mallory").unwrap_err(), Reason::InputStateInvalid);
        let mut tampered = state.into_bytes();
        let last = tampered.len() - 3;
        tampered[last] = if tampered[last] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(tampered).unwrap();
        assert_eq!(read(&sealer, &tampered, "alice").unwrap_err(), Reason::InputStateInvalid);
        assert_eq!(read(&sealer, "", "alice").unwrap_err(), Reason::InputStateInvalid);
        let expired = sealed(&sealer, since_epoch().as_secs() - 5);
        assert_eq!(read(&sealer, &expired, "alice").unwrap_err(), Reason::InputExpired);
        let long = "A".repeat(limit::INPUT_HANDLE_BYTES_MAX + 1);
        assert_eq!(read(&sealer, &long, "alice").unwrap_err(), Reason::InputStateInvalid);
    }

    #[test]
    fn only_answers_to_what_was_asked_are_taken() {
        let sealer = Sealer::new([&[1_u8; 32][..]]).unwrap();
        let retry = read(&sealer, &sealed(&sealer, since_epoch().as_secs() + 60), "alice").unwrap().unwrap();
        let answers = |text: &str| {
            let params = json(&format!(r#"{{"inputResponses":{text}}}"#));
            let answers = retry.answers(params.value().as_object().unwrap());
            answers.map(|answers| answers.as_str().to_owned()).map_err(|refusal| refusal.reason)
        };
        assert_eq!(
            answers(r#"{"other":{},"name":{"z":1.0,"a":2},"a\u0022b":{}}"#).unwrap(),
            r#"{"name":{"z":1.0,"a":2},"a\"b":{}}"#
        );
        assert_eq!(answers("{}").unwrap(), "{}");
        assert_eq!(answers(r#"{"name":7}"#).unwrap_err(), Reason::ParametersInvalid);
        assert_eq!(answers("[]").unwrap_err(), Reason::ParametersInvalid);
        let long = format!(r#"{{"name":{{"x":"{}"}}}}"#, "y".repeat(limit::INPUT_ANSWERS_BYTES_MAX));
        assert_eq!(answers(&long).unwrap_err(), Reason::ParametersInvalid);
    }
}
