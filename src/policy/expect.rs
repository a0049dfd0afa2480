//! Expected decisions: `policies/tests.toml`, and which rules they cover.
//!
//! ```toml
//! [[test]]
//! name = "developers roll out small changes"
//! user = "user:corp/alice"                  # or agent, or both
//! groups = ["group:corp/platform-eng"]
//! agent = "claude"
//! object = "deploy/rollout"
//! action = "call"                           # the default
//! arguments = '{ "service": "web", "replicas": 3 }'   # JSON text
//! at = "2026-11-23T10:00:00Z"               # the default is 2026-01-01T12:00:00Z
//! client_proof = "private_key"              # the default is public, and secret for an agent without a user
//! scopes = ["mcp:deploy"]
//! mandate = "nightly"                       # the template of its mandate, "" for none; unknown unless it is written
//! seen = ["private"]                        # what its caller has seen; unknown unless it is written
//! expect = "allow"                          # or "deny"
//! reason = "condition_unmet"                # optional, with deny
//! ```
//!
//! A test that cannot be read is a mistake of the policy, like a rule.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Policy;
use super::condition::{Arguments, Situation, Table};
use super::label::Seen;
use super::persona::Described;
use super::rule::Effect;
use super::source::{Mistake, position};
use crate::identity::ClientProof;
use crate::ids::{Action, AgentId, Subject};
use crate::outcome::Reason;

const FILE: &str = "tests.toml";

/// One expected decision.
#[derive(Debug)]
pub(super) struct Expected {
    line: u32,
    name: String,
    who: Described,
    server: String,
    object: String,
    action: Action,
    arguments: Option<String>,
    at: Timestamp,
    situation: Situation,
    allow: bool,
    reason: Option<Reason>,
}

/// What the expected decisions said.
#[derive(Debug, Default, Serialize)]
pub struct TestReport {
    /// How many were as expected.
    pub passed: usize,
    /// Those that were not.
    pub failed: Vec<FailedTest>,
    /// Rules that decided nothing in any test, as `file:line: sentence`.
    pub uncovered_rules: Vec<String>,
    /// Servers without a test that allows, or without one that denies.
    pub untested_servers: Vec<String>,
}

/// An expectation that was not met.
#[derive(Debug, Serialize)]
pub struct FailedTest {
    /// `tests.toml:line`.
    pub place: String,
    /// How far it is from what was expected.
    pub wrong: Wrong,
    /// Its name, what was decided instead, and why.
    pub message: String,
}

/// How far a decision is from what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It is allowed and was to be denied: a set that does that never loads.
    LetThrough,
    /// It is denied and was to be allowed: what only narrows may do that.
    Denied,
    /// It is denied as it was to be, for another reason.
    Reason,
    /// Nobody can ask it any more: what it names is not there.
    Unasked,
}

impl fmt::Display for FailedTest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

impl TestReport {
    /// Whether every expectation was met.
    #[must_use]
    pub const fn is_passed(&self) -> bool {
        self.failed.is_empty()
    }

    /// Whether every rule decided something, and every server has both kinds of test.
    #[must_use]
    pub const fn is_covered(&self) -> bool {
        self.uncovered_rules.is_empty() && self.untested_servers.is_empty()
    }
}

impl Policy {
    /// Runs `tests.toml`, and tells what it covers.
    #[must_use]
    pub fn run_tests(&self) -> TestReport {
        let mut report = TestReport::default();
        let mut decided: BTreeSet<String> = BTreeSet::new();
        let mut tested: BTreeSet<(String, bool)> = BTreeSet::new();
        for test in &self.tests {
            match self.run(test) {
                Ok(rules) => {
                    report.passed += 1;
                    decided.extend(rules);
                    tested.insert((test.server.clone(), test.allow));
                }
                Err((wrong, message)) => report.failed.push(FailedTest {
                    place: format!("{FILE}:{}", test.line),
                    wrong,
                    message: format!("`{}`: {message}", test.name),
                }),
            }
        }
        report.uncovered_rules = self
            .rules
            .iter()
            .filter(|rule| !decided.contains(&*rule.place))
            .map(|rule| format!("{}: {rule}", rule.place))
            .collect();
        for (server, _) in &self.world.servers {
            for (allow, word) in [(true, "allows"), (false, "denies")] {
                if !tested.contains(&(server.to_string(), allow)) {
                    report.untested_servers.push(format!("{server}: no test {word}"));
                }
            }
        }
        report
    }

    /// Runs one; answers the rules that decided.
    fn run(&self, test: &Expected) -> Result<Vec<String>, (Wrong, String)> {
        let unasked = |message: String| (Wrong::Unasked, message);
        let persona = self.persona(&test.who).map_err(unasked)?;
        let ask = self.ask_about(&test.server, &test.object, &test.action).map_err(unasked)?;
        let arguments = Arguments::of(&test.action, test.arguments.as_deref());
        let explained = self.explain_within(&persona, &ask, (arguments, test.at), &test.situation);
        match (test.allow, explained.reason) {
            (true, Some(reason)) => return Err((Wrong::Denied, format!("expected allow, got {reason}; {explained}"))),
            (false, None) => return Err((Wrong::LetThrough, format!("expected deny, got allow; {explained}"))),
            (false, Some(reason)) if test.reason.is_some_and(|expected| expected != reason) => {
                return Err((Wrong::Reason, format!("expected another reason, got {reason}; {explained}")));
            }
            _ => {}
        }
        let mut places = Vec::new();
        for rule in explained.subjects.into_iter().flat_map(|subject| subject.rules).filter(|rule| rule.applies) {
            let effect = if test.allow { Effect::Allow } else { Effect::Deny };
            if self.rules.iter().any(|known| *known.place == *rule.place && known.effect == effect) {
                places.push(rule.place);
            }
        }
        Ok(places)
    }
}

/// Reads the file.
pub(super) fn read(text: &str, mistakes: &mut Vec<Mistake>) -> Vec<Expected> {
    let mut refuse = |offset: usize, message: String| {
        let (line, column) = position(text, offset);
        mistakes.push(Mistake::at(FILE, line, column, message));
    };
    let document = match DeTable::parse(text) {
        Ok(document) => document.into_inner(),
        Err(error) => {
            refuse(error.span().map_or(0, |span| span.start), error.message().to_owned());
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (key, value) in &document {
        let tests = value.get_ref().as_array().filter(|_| key.get_ref() == "test");
        let Some(tests) = tests else {
            refuse(key.span().start, format!("`{}` does not belong here; write [[test]]", key.get_ref()));
            continue;
        };
        for test in tests.iter() {
            match one(test) {
                Ok(mut expected) => {
                    expected.line = position(text, test.span().start).0;
                    found.push(expected);
                }
                Err((offset, message)) => refuse(offset, message),
            }
        }
    }
    found
}

fn one(value: &Spanned<DeValue<'_>>) -> Result<Expected, (usize, String)> {
    let start = value.span().start;
    let mut table = Table::of(value).ok_or_else(|| (start, "a test is a table".to_owned()))?;
    let mut text = |key: &str| match table.take(key) {
        None => Ok(None),
        Some(value) => match value.get_ref().as_str() {
            Some(text) => Ok(Some((text.to_owned(), value.span().start))),
            None => Err((value.span().start, format!("`{key}` is a text"))),
        },
    };
    let name = text("name")?.map_or_else(String::new, |(name, _)| name);
    let subject = |(text, at): (String, usize)| Subject::parse(&text).map_err(|error| (at, error.to_string()));
    let agent_id = |(text, at): (String, usize)| AgentId::new(&text).map_err(|error| (at, error.to_string()));
    let user = text("user")?.map(subject).transpose()?;
    let agent = text("agent")?.map(agent_id).transpose()?;
    let (object, object_at) = text("object")?.ok_or_else(|| (start, "write object = \"SERVER/NAME\"".to_owned()))?;
    let (server, object) =
        object.split_once('/').ok_or_else(|| (object_at, "write object = \"SERVER/NAME\"".to_owned()))?;
    let action = match text("action")? {
        None => Action::Call,
        Some((text, at)) => Action::parse(&text).ok_or_else(|| (at, format!("`{text}` is not an action")))?,
    };
    let arguments = match text("arguments")? {
        None => None,
        Some((text, at)) => match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
            Ok(_) if text.trim_start().starts_with('{') => Some(text),
            _ => return Err((at, "arguments is the JSON text of an object, in single quotes".to_owned())),
        },
    };
    let at = match text("at")? {
        None => DEFAULT_TIME,
        Some((text, at)) => text.parse().map_err(|_| (at, "write a moment such as 2026-11-23T10:00:00Z".to_owned()))?,
    };
    let client_proof = match text("client_proof")? {
        // Software gets a token for itself only after it has proven itself.
        None if user.is_none() => ClientProof::Secret,
        None => ClientProof::Public,
        Some((text, at)) => super::condition::client_proof(&text)
            .ok_or_else(|| (at, "write none, public, secret, private_key, mtls or svid".to_owned()))?,
    };
    let acr = text("acr")?.map(|(acr, _)| acr);
    let situation = match text("mandate")? {
        None => Situation::default(),
        Some((template, _)) if template.is_empty() => Situation::without_mandate(),
        Some((template, _)) => Situation::under(Some(&template)),
    };
    let allow = match text("expect")? {
        Some((text, _)) if text == "allow" => true,
        Some((text, _)) if text == "deny" => false,
        Some((_, at)) => return Err((at, "write expect = \"allow\" or \"deny\"".to_owned())),
        None => return Err((start, "write expect = \"allow\" or \"deny\"".to_owned())),
    };
    let reason = match text("reason")? {
        None => None,
        Some((text, at)) => {
            Some(Reason::from_code(&text).ok_or_else(|| (at, format!("`{text}` is not a reason code")))?)
        }
    };
    let mut texts = |key: &str| -> Result<Vec<(String, usize)>, (usize, String)> {
        let Some(value) = table.take(key) else { return Ok(Vec::new()) };
        let list = value.get_ref().as_array().and_then(|list| {
            list.iter().map(|text| Some((text.get_ref().as_str()?.to_owned(), text.span().start))).collect()
        });
        list.ok_or_else(|| (value.span().start, format!("`{key}` is a list of texts")))
    };
    let groups = texts("groups")?.into_iter().map(subject).collect::<Result<_, _>>()?;
    let chain = texts("chain")?.into_iter().map(agent_id).collect::<Result<_, _>>()?;
    let scopes = texts("scopes")?.into_iter().map(|(scope, _)| scope).collect();
    let authenticated_at = match table.take("authenticated_at") {
        None => None,
        Some(value) => {
            let at = value.get_ref().as_str().and_then(|text| text.parse::<Timestamp>().ok());
            let refuse = || (value.span().start, "write a moment such as 2026-11-23T10:00:00Z".to_owned());
            Some(at.ok_or_else(refuse)?.as_second())
        }
    };
    let situation = match table.take("seen") {
        None => situation,
        Some(value) => situation.having_seen(seen(value)?),
    };
    if let Some((key, span)) = table.rest().next() {
        return Err((span.start, format!("`{key}` is not part of a test")));
    }
    let who = Described { user, groups, agent, chain, scopes, client_proof, authenticated_at, acr };
    let (server, object) = (server.to_owned(), object.to_owned());
    Ok(Expected { line: 0, name, who, server, object, action, arguments, at, situation, allow, reason })
}

fn seen(value: &Spanned<DeValue<'_>>) -> Result<Seen, (usize, String)> {
    let refuse = || (value.span().start, "`seen` is a list of untrusted, internal, private and regulated".to_owned());
    let labels = value.get_ref().as_array().ok_or_else(refuse)?;
    labels.iter().try_fold(Seen::NOTHING, |seen, label| {
        let named = label.get_ref().as_str().and_then(Seen::named);
        named.map(|label| seen.with(label)).ok_or_else(refuse)
    })
}

/// 2026-01-01T12:00:00Z, a Thursday.
const DEFAULT_TIME: Timestamp = Timestamp::constant(1_767_268_800, 0);
