//! The proof of the third stage: the rules allow this caller this target with these arguments.

use std::sync::Arc;

use jiff::Timestamp;

use super::class::Class;
use super::condition::{Arguments, Situation};
use super::decide::{ConditionRecord, Decision};
use super::label::{Asked, Seen};
use super::{Ask, Policy};
use crate::catalog::Target;
use crate::config::GateConfig;
use crate::identity::Caller;
use crate::ids::{ClassKey, Digest, PolicyRevision};
use crate::outcome::Refusal;

/// The proof that the rules allow this call. Made only by [`Policy::authorize`] and
/// [`Policy::authorize_following`].
#[derive(Debug)]
pub struct Permit {
    caller: Caller,
    target: Target,
    class: ClassKey,
    revision: PolicyRevision,
    base: Digest,
    rules: Arc<[Arc<str>]>,
    conditions: Vec<ConditionRecord>,
    following: bool,
    gates: Vec<Arc<GateConfig>>,
    /// What else was known of the moment.
    situation: Situation,
    /// The same with those that flows ask, and what these are about.
    asked: Option<(Vec<Arc<GateConfig>>, Asked)>,
}

/// A refusal with what the record and the answer need.
#[derive(Debug)]
pub struct Denied {
    /// Why.
    pub refusal: Refusal,
    /// Whether lists show the target to this caller; where they do not, it is answered as unknown.
    pub visible: bool,
    /// Who asked.
    pub caller: Caller,
    /// For what.
    pub target: Target,
    /// By which policy.
    pub revision: PolicyRevision,
    /// The rules that decided, as `file:line`.
    pub rules: Arc<[Arc<str>]>,
    /// The conditions that were read.
    pub conditions: Vec<ConditionRecord>,
    /// What else was known of the moment.
    pub situation: Situation,
}

impl Denied {
    /// A denial for which no rule had to be looked at, and which is the same for every target.
    #[must_use]
    pub fn before_rules(refusal: Refusal, caller: Caller, target: Target, revision: PolicyRevision) -> Box<Self> {
        let (rules, conditions) = (Arc::from([]), Vec::new());
        let situation = Situation::default();
        Box::new(Self { refusal, visible: true, caller, target, revision, rules, conditions, situation })
    }
}

impl Policy {
    /// Decides a call.
    ///
    /// # Errors
    /// [`Denied`], with `insufficient_scope` only where the rules would allow.
    pub fn authorize(
        &self,
        caller: Caller,
        target: Target,
        arguments: Arguments<'_>,
        now: Timestamp,
        situation: Situation,
    ) -> Result<Permit, Box<Denied>> {
        let class = self.class_of(&caller);
        let ask = Ask {
            environment: target.environment(),
            server: target.server_id(),
            name: target.name(),
            action: target.action(),
        };
        // A URI that the client chose may match a template; only what was listed is remembered.
        if target.definition().is_some_and(|definition| *definition.name == *target.name()) {
            self.remember(&class, &ask);
        }
        let mut decision = self.decide_within(&class, caller.persona(), &ask, (arguments, now), &situation);
        self.hide_secrets(&mut decision, &target, caller.persona(), arguments);
        let hints = target.definition().map(|definition| definition.hints).unwrap_or_default();
        let gates = if decision.is_allowed() {
            self.gates_of(&ask, hints, caller.persona(), (arguments, now, &situation))
        } else {
            Vec::new()
        };
        match self.permit(caller, target, &class, decision, false) {
            Ok(permit) => Ok(Permit { gates, situation, ..permit }),
            Err(denied) => Err(Box::new(Denied { situation, ..*denied })),
        }
    }

    /// Decides whether a caller may ask about, answer and cancel a task that its call of `target` became:
    /// whoever is shown the tool may.
    ///
    /// # Errors
    /// As [`Policy::authorize`].
    pub fn authorize_following(&self, caller: Caller, target: Target) -> Result<Permit, Box<Denied>> {
        let class = self.class_of(&caller);
        let ask = Ask {
            environment: target.environment(),
            server: target.server_id(),
            name: target.name(),
            action: target.action(),
        };
        let decision = self.decide_following(&class, caller.persona(), &ask);
        self.permit(caller, target, &class, decision, true)
    }

    fn permit(
        &self,
        caller: Caller,
        target: Target,
        class: &Class,
        decision: Decision,
        following: bool,
    ) -> Result<Permit, Box<Denied>> {
        let (revision, rules, conditions) = (self.revision, decision.rules, decision.conditions);
        match decision.refusal {
            None => Ok(Permit {
                caller,
                target,
                class: class.key(),
                revision,
                base: self.base,
                rules,
                conditions,
                following,
                gates: Vec::new(),
                situation: Situation::default(),
                asked: None,
            }),
            Some(refusal) => Err(Box::new(Denied {
                refusal,
                visible: decision.visible,
                caller,
                target,
                revision,
                rules,
                conditions,
                situation: Situation::default(),
            })),
        }
    }
}

impl Permit {
    /// Who was allowed.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What was allowed.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The class that was decided about.
    #[must_use]
    pub const fn class(&self) -> ClassKey {
        self.class
    }

    /// The policy that allowed.
    #[must_use]
    pub const fn revision(&self) -> PolicyRevision {
        self.revision
    }

    /// That policy with all that belongs to it: the same files may allow less once a grant has ended.
    #[must_use]
    pub const fn base(&self) -> Digest {
        self.base
    }

    /// The rules that allowed, as `file:line`.
    #[must_use]
    pub fn rules(&self) -> &[Arc<str>] {
        &self.rules
    }

    /// What else was known of the moment of the call.
    #[must_use]
    pub const fn situation(&self) -> &Situation {
        &self.situation
    }

    /// Whether it permits to follow a task, and not to call.
    #[must_use]
    pub const fn is_following(&self) -> bool {
        self.following
    }

    /// The gates that it met, those that flows ask with them, in the order of their names.
    #[must_use]
    pub fn gates(&self) -> &[Arc<GateConfig>] {
        self.asked.as_ref().map_or(&self.gates, |(gates, _)| gates)
    }

    /// The gates that it met by what it is, whatever was seen before.
    #[must_use]
    pub fn own_gates(&self) -> &[Arc<GateConfig>] {
        &self.gates
    }

    /// The gates that flows ask.
    #[must_use]
    pub fn flow_gates(&self) -> &[Arc<GateConfig>] {
        self.asked.as_ref().map_or(&[], |(_, asked)| &asked.gates)
    }

    /// What of what was seen before flows ask about; nothing where none does.
    #[must_use]
    pub fn flows_from(&self) -> Seen {
        self.asked.as_ref().map_or(Seen::NOTHING, |(_, asked)| asked.from)
    }

    /// The same call, which needs the word of these persons as well. Nothing that it needed falls away.
    #[must_use]
    pub fn asking(self, asked: Asked) -> Self {
        let mut gates = self.gates.clone();
        gates.extend(asked.gates.iter().filter(|gate| !self.gates.contains(gate)).cloned());
        gates.sort_by(|one, other| one.name.cmp(&other.name));
        Self { asked: Some((gates, asked)), ..self }
    }

    /// The conditions that were read, with what they read.
    #[must_use]
    pub fn condition_values(&self) -> &[ConditionRecord] {
        &self.conditions
    }
}
