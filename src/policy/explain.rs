//! Answers for people: why a decision is what it is, who can do something, what somebody can do.
//!
//! Decides nothing of its own: every answer comes from the same cells and the same Casbin as a call.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::asker::Asker;
use super::class::{Class, SubjectKind};
use super::condition::{Arguments, Facts, Quantifier, Situation, Truth, UNKNOWN};
use super::model::applies;
use super::object;
use super::operation::{AdminOperation, opens_mandate};
use super::rule::{Effect, Rule};
use super::verdict::{Part, Verdict};
use super::{Ask, ConditionRecord, Policy};
use crate::catalog::Hints;
use crate::config::{GateConfig, GateKind};
use crate::identity::{Groups, Persona};
use crate::ids::{Action, ServerId, Subject};
use crate::limit::NEAR_MISSES_MAX;
use crate::outcome::{Reason, Refusal};

/// Why a decision is what it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked, as a sentence.
    pub question: String,
    /// Whose the token is, where the question brought one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Asker>,
    /// Whether it is allowed.
    pub allowed: bool,
    /// Whether lists show it.
    pub visible: bool,
    /// The reason code of the refusal.
    pub reason: Option<Reason>,
    /// What to do about it.
    pub hint: Option<String>,
    /// All scopes that are needed, where the token lacks one.
    pub scopes_needed: Vec<String>,
    /// What each subject's rules say; all must allow.
    pub subjects: Vec<SubjectExplanation>,
    /// Rules that would allow somebody else.
    pub near_misses: Vec<String>,
    /// The gates that the call meets: what it needs beside the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// What flows say of it, which depends on what was seen before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<String>,
}

/// What the rules say about one subject.
#[derive(Debug, Serialize, Deserialize)]
pub struct SubjectExplanation {
    /// Who.
    pub subject: String,
    /// Whether its rules allow.
    pub allowed: bool,
    /// The rules that mean the object.
    pub rules: Vec<RuleExplanation>,
}

/// One rule, and whether it applies.
#[derive(Debug, Serialize, Deserialize)]
pub struct RuleExplanation {
    /// `file:line`.
    pub place: String,
    /// What it says.
    pub sentence: String,
    /// Whether it applies here.
    pub applies: bool,
    /// Its condition, with what it read.
    pub condition: Option<ConditionRecord>,
    /// The condition as a sentence.
    pub condition_sentence: Option<String>,
}

/// Somebody whom rules allow something, or might.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoCan {
    /// The subject, as rules name it; a token's groups add up.
    pub subject: String,
    /// Whether conditions decide.
    pub depends: bool,
    /// The rules, as `file:line: sentence`.
    pub rules: Vec<String>,
}

impl Explanation {
    /// Of a call by whoever brings a token that gets nobody in.
    #[must_use]
    pub fn of_nobody(ask: &Ask<'_>, refusal: &Refusal) -> Self {
        Self::refused(ask, refusal.reason, format!("the token gets nobody in: {}", refusal.hint))
    }

    /// Of a call to a server that the files have and that nobody reaches.
    #[must_use]
    pub fn of_gone(ask: &Ask<'_>) -> Self {
        let hint = format!("the server `{}` was taken back, or is stopped: ask its owner", ask.server);
        Self::refused(ask, Reason::TargetUnknown, hint)
    }

    /// Without a look at any rule.
    fn refused(ask: &Ask<'_>, reason: Reason, hint: String) -> Self {
        Self {
            question: asked(ask),
            caller: None,
            allowed: false,
            visible: false,
            reason: Some(reason),
            hint: Some(hint),
            scopes_needed: Vec::new(),
            subjects: Vec::new(),
            near_misses: Vec::new(),
            gates: Vec::new(),
            flows: Vec::new(),
        }
    }
}

/// What is asked, as a sentence.
fn asked(ask: &Ask<'_>) -> String {
    format!("{} {}/{} in {}", ask.action, ask.server, ask.name, ask.environment)
}

impl Policy {
    /// Explains one question.
    #[must_use]
    pub fn explain(&self, persona: &Persona, ask: &Ask<'_>, arguments: Arguments<'_>, now: Timestamp) -> Explanation {
        self.explain_within(persona, ask, (arguments, now), &UNKNOWN)
    }

    /// The same with what else is known of the moment of the call.
    #[must_use]
    pub fn explain_within(
        &self,
        persona: &Persona,
        ask: &Ask<'_>,
        (arguments, now): (Arguments<'_>, Timestamp),
        situation: &Situation,
    ) -> Explanation {
        let class = self.class(persona);
        let decision = self.decide_within(&class, persona, ask, (arguments, now), situation);
        let parts = match self.reachable(&class, ask) {
            Ok(environment) => self.cell(&class, environment, ask, false).map(|cell| cell.parts).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let facts = Facts::new(persona, arguments, now).within(situation);
        let subjects: Vec<SubjectExplanation> = class
            .slices
            .iter()
            .zip(&parts)
            .map(|(slice, part)| self.explain_part(subject_name(persona, &slice.kind), part, &facts))
            .collect();
        let refusal = decision.refusal.as_ref();
        let mut hint = refusal.map(|refusal| refusal.hint.to_string());
        if let (Groups::Unknown(why), Some(hint)) = (&persona.groups, &mut hint) {
            *hint = format!("{hint} ({why})");
        }
        let gates = if decision.is_allowed() {
            self.gates_of(ask, Hints::default(), persona, (arguments, now, situation))
        } else {
            Vec::new()
        };
        let flows = if decision.is_allowed() { self.flows_told(persona, ask, arguments, now) } else { Vec::new() };
        Explanation {
            caller: None,
            flows,
            gates: gates.iter().map(|gate| gate_told(gate)).collect(),
            question: asked(ask),
            allowed: decision.is_allowed(),
            visible: decision.visible,
            reason: refusal.map(|refusal| refusal.reason),
            hint,
            scopes_needed: refusal.map(|refusal| refusal.scopes.clone()).unwrap_or_default(),
            near_misses: if refusal.is_some_and(|refusal| refusal.reason == Reason::NotAllowed) {
                self.near_misses(ask)
            } else {
                Vec::new()
            },
            subjects,
        }
    }

    fn explain_part(&self, subject: String, part: &Part, facts: &Facts<'_>) -> SubjectExplanation {
        let rules: Vec<RuleExplanation> =
            self.rules_of(&part.rules).map(|rule| self.explain_rule(rule, facts)).collect();
        let any = |effect: Effect| {
            self.rules_of(&part.rules).zip(&rules).any(|(rule, told)| rule.effect == effect && told.applies)
        };
        SubjectExplanation { subject, allowed: any(Effect::Allow) && !any(Effect::Deny), rules }
    }

    fn explain_rule(&self, rule: &Rule, facts: &Facts<'_>) -> RuleExplanation {
        let condition = rule.condition.and_then(|index| self.conditions.get(index));
        let record = condition.map(|condition| ConditionRecord {
            name: condition.name.to_string(),
            as_allow: condition.value(facts, Quantifier::Every),
            as_deny: condition.value(facts, Quantifier::Any),
            read: condition.values_read(facts),
        });
        let value = record.as_ref().map_or(Truth::True, |record| match rule.effect {
            Effect::Allow => record.as_allow,
            Effect::Deny => record.as_deny,
        });
        RuleExplanation {
            place: rule.place.to_string(),
            sentence: rule.sentence(),
            applies: applies(rule.effect, value, false),
            condition: record,
            condition_sentence: condition.map(ToString::to_string),
        }
    }

    /// Rules that allow the object to somebody else.
    fn near_misses(&self, ask: &Ask<'_>) -> Vec<String> {
        let object = object::object(ask.server.as_str(), ask.name);
        let sets = self.index.sets_of(&object);
        let Some(environment) = self.environments.of_server(ask.server.as_str()) else { return Vec::new() };
        let names: Vec<_> = self.graph.names().map(|(id, _)| id).collect();
        let found = self.index.candidates(&self.rules, &names, environment, &object, &sets, ask.action);
        self.rules_of(&found).filter(|rule| rule.effect == Effect::Allow).take(NEAR_MISSES_MAX).map(told).collect()
    }

    /// Everyone whom the rules name, by subject, and whom they let do this, surely or under conditions.
    /// A role is told as its members.
    #[must_use]
    pub fn who_can(&self, ask: &Ask<'_>) -> Vec<WhoCan> {
        let mut found = Vec::new();
        for (_, name) in self.graph.names().filter(|(_, name)| !name.starts_with("role:")) {
            let class = Class::of_name(self, name);
            let Ok(environment) = self.reachable(&class, ask) else { continue };
            let Ok(cell) = self.cell(&class, environment, ask, false) else { continue };
            let Some(part) = cell.parts.first().filter(|part| part.shape.verdict != Verdict::Refuse) else { continue };
            found.push(WhoCan {
                subject: name.to_string(),
                depends: part.shape.verdict == Verdict::Depends,
                rules: self.rules_of(&part.rules).map(told).collect(),
            });
        }
        found.sort_by(|one, other| one.subject.cmp(&other.subject));
        found
    }

    /// Every rule that speaks about a subject, directly, through roles or as `anyone`.
    #[must_use]
    pub fn what_can(&self, subject: &Subject) -> Vec<&Rule> {
        let class = Class::of_name(self, subject.as_str());
        let named = |rule: &&Rule| {
            class.slices.iter().flat_map(|slice| slice.environments.iter().enumerate()).any(|(environment, reach)| {
                rule.environments.contains(environment) && reach.names.contains(&rule.subject_id)
            })
        };
        self.rules.iter().filter(named).collect()
    }

    /// A question about an object of a configured server, as an administrator asks it.
    ///
    /// # Errors
    /// A lower-case fragment: there is no such server.
    pub fn ask_about<'a>(&'a self, server: &str, name: &'a str, action: &'a Action) -> Result<Ask<'a>, String> {
        if server == super::GATEWAY_SERVER {
            if AdminOperation::named(name).is_none() && !opens_mandate(name, &self.world.templates) {
                return Err(format!("there is no operation `{name}`; write one of {}", AdminOperation::names()));
            }
            return Ok(Ask { action, ..self.operation(name) });
        }
        let found = self.world.servers.iter().find(|(known, _): &&(ServerId, _)| known.as_str() == server);
        let (server, environment) = found.ok_or_else(|| format!("there is no server `{server}` in servers.toml"))?;
        Ok(Ask { environment, server, name, action })
    }
}

fn gate_told(gate: &GateConfig) -> String {
    let who: Vec<String> = gate.approvers.iter().map(ToString::to_string).collect();
    match gate.kind {
        GateKind::Confirm => format!("{}: whoever calls has to confirm it", gate.name),
        GateKind::Approve if gate.approvals == 1 => {
            format!("{}: somebody of {} has to approve it", gate.name, who.join(", "))
        }
        GateKind::Approve => {
            format!("{}: {} persons of {} have to approve it", gate.name, gate.approvals, who.join(", "))
        }
    }
}

fn told(rule: &Rule) -> String {
    format!("{}: {rule}", rule.place)
}

fn subject_name(persona: &Persona, kind: &SubjectKind) -> String {
    match kind {
        SubjectKind::User => persona.user.as_ref().map_or("anyone", Subject::as_str).to_owned(),
        SubjectKind::Agent(id) | SubjectKind::Actor(id) => Subject::agent(id).as_str().to_owned(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.question, if self.allowed { "allowed" } else { "refused" })?;
        if let Some(reason) = self.reason {
            write!(formatter, " ({reason})")?;
        }
        if let Some(hint) = &self.hint {
            write!(formatter, "\n  {hint}")?;
        }
        if !self.scopes_needed.is_empty() {
            write!(formatter, "\n  scopes needed: {}", self.scopes_needed.join(" "))?;
        }
        for subject in &self.subjects {
            let word = if subject.allowed { "allowed" } else { "not allowed" };
            write!(formatter, "\n{}: {word}", subject.subject)?;
            if subject.rules.is_empty() {
                formatter.write_str("\n  no rule of this subject means the object")?;
            }
            for rule in &subject.rules {
                let word = if rule.applies { "applies" } else { "does not apply" };
                write!(formatter, "\n  {}: {} [{word}]", rule.place, rule.sentence)?;
                if let (Some(condition), Some(sentence)) = (&rule.condition, &rule.condition_sentence) {
                    write!(formatter, "\n    {}: {sentence}: {}", condition.name, condition.as_allow)?;
                    for (what, value) in &condition.read {
                        write!(formatter, "\n      {what} = {value}")?;
                    }
                }
            }
        }
        for gate in &self.gates {
            write!(formatter, "\ngate {gate}")?;
        }
        for flow in &self.flows {
            write!(formatter, "\nflow {flow}")?;
        }
        for near in &self.near_misses {
            write!(formatter, "\nsomebody else: {near}")?;
        }
        Ok(())
    }
}
