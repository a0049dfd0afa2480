//! Making a mandate of what somebody wishes: narrower than its template, shorter, and inside of the one above it.
//!
//! Decides what may be wished. Refuses to know whether the rules let the opener open it; they were asked before.
//! Invariant: what is left open is taken from the template, and nothing that is wished ever adds to it.

use serde::{Deserialize, Serialize};

use super::{Held, Mandate};
use crate::config::{Budget, TemplateConfig};
use crate::guard::Party;
use crate::guard::approval::Token;
use crate::ids::{AgentId, Digest, Environment, MandateId, TemplateName};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::policy::Policy;

/// What somebody wishes to open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// From which template; freely where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateName>,
    /// For which agent; for the opener's own where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// For which client of that agent, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// For whom that agent acts: `user:ISSUER/SUB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only these of the template's tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// These conditions as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Only these of the template's environments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environments: Option<Vec<Environment>>,
    /// For so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// No more than this may be used up.
    #[serde(default, skip_serializing_if = "Budget::is_open")]
    pub budget: Budget,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub purpose: String,
    /// Without the labels of what went before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolate: bool,
}

/// Who opens what for whom.
#[derive(Debug)]
pub struct Opening<'a> {
    /// What is wished.
    pub wish: &'a Wish,
    /// The template that it names.
    pub template: Option<&'a TemplateConfig>,
    /// The mandate that it becomes a part of.
    pub above: Option<&'a Held>,
    /// The digest of the caller who may use it.
    pub holder: Digest,
    /// The agent that the holder is.
    pub agent: Option<AgentId>,
    /// For whom the holder acts.
    pub subject: Option<String>,
    /// Who opens it, as the record names them.
    pub opener: String,
    /// The digest of the caller who opens it, where that is one.
    pub opener_key: Option<Digest>,
    /// What is known of them.
    pub opened_by: Party,
    /// By what revocations know the holder.
    pub bearer: Token,
    /// The agent that opens it, where it is not a person who does.
    pub opening_agent: Option<AgentId>,
    /// What objects and conditions mean.
    pub policy: &'a Policy,
    /// The store's clock.
    pub now_us: i64,
}

impl Opening<'_> {
    /// The mandate that this opens.
    ///
    /// # Errors
    /// `mandate_refused`, and what of the wish is too much; `mandate_ended` below one that is over.
    pub fn mandate(&self) -> Result<Mandate, Refusal> {
        let Self { wish, template, above, .. } = self;
        if let Some(over) = above.iter().flat_map(|held| held.all()).find(|above| above.is_over(self.now_us)) {
            return Err(super::scope::ended(over, self.now_us));
        }
        let lineage: Vec<MandateId> = above.iter().flat_map(|held| held.all()).map(|above| above.id.clone()).collect();
        if lineage.len() >= limit::MANDATE_DEPTH_MAX {
            return Err(refused(format!("mandates nest at most {} deep", limit::MANDATE_DEPTH_MAX)));
        }
        self.check_words()?;
        let Some(agent) = &self.agent else {
            return Err(refused("a mandate is for an agent: name one".to_owned()));
        };
        if template.is_some_and(|template| !template.agents.contains(agent)) {
            return Err(refused(format!("the template is not for the agent `{agent}`")));
        }
        let life_us = self.life_us()?;
        let ends_us = self.now_us.saturating_add(life_us);
        let ends_us = above.map_or(ends_us, |held| held.ends_us().min(ends_us));
        let mandate = Mandate {
            id: MandateId::fresh(),
            template: wish.template.clone(),
            holder: self.holder,
            agent: Some(agent.clone()),
            subject: self.subject.clone(),
            opener: self.opener.clone(),
            opener_key: self.opener_key,
            opened_by: Some(self.opened_by.clone()),
            bearer: Some(self.bearer.clone()),
            purpose: wish.purpose.clone(),
            above: lineage,
            tools: wish.tools.clone(),
            conditions: wish.conditions.clone(),
            environments: wish.environments.clone(),
            budget: self.budget()?,
            isolated: wish.isolate,
            opened_us: self.now_us,
            ends_us,
            ended: None,
            told: false,
        };
        let length = serde_json::to_string(&mandate).map_or(usize::MAX, |written| written.len());
        if length > limit::MANDATE_BYTES_MAX {
            return Err(refused(format!("all that it says is longer than {} bytes", limit::MANDATE_BYTES_MAX)));
        }
        Ok(mandate)
    }

    fn check_words(&self) -> Result<(), Refusal> {
        let Self { wish, template, .. } = self;
        if wish.purpose.len() > limit::MANDATE_PURPOSE_BYTES_MAX {
            return Err(refused(format!("the purpose is longer than {} bytes", limit::MANDATE_PURPOSE_BYTES_MAX)));
        }
        if wish.purpose.trim().is_empty()
            && template.is_some_and(|template| template.purpose_required)
            && !inversion::is_off(Control::Purpose)
        {
            return Err(refused("the template wants to know what it is for: say so in `purpose`".to_owned()));
        }
        let named = wish.tools.iter().flatten().chain(&wish.conditions);
        if named.count() > limit::MANDATE_PATTERNS_MAX
            || wish.environments.iter().flatten().count() > limit::MANDATE_PATTERNS_MAX
        {
            return Err(refused(format!("more than {} tools and conditions are named", limit::MANDATE_PATTERNS_MAX)));
        }
        if wish.tools.as_ref().is_some_and(Vec::is_empty) || wish.environments.as_ref().is_some_and(Vec::is_empty) {
            return Err(refused("an empty list leaves nothing: leave it out, or name something".to_owned()));
        }
        for tool in wish.tools.iter().flatten() {
            self.policy.check_pattern(tool).map_err(refused)?;
            let covered = |template: &TemplateConfig| {
                template.tools.iter().any(|wide| self.policy.pattern_covers(&wide.text, tool))
            };
            if template.is_some_and(|template| !covered(template)) {
                return Err(refused(format!("`{tool}` is not among the tools of the template")));
            }
        }
        for environment in wish.environments.iter().flatten() {
            if template.is_some_and(|template| !template.environments.contains(environment)) {
                return Err(refused(format!("`{environment}` is not among the environments of the template")));
            }
        }
        if let Some(unknown) = wish.conditions.iter().find(|name| !self.policy.has_condition(name)) {
            return Err(refused(format!("there is no condition `{unknown}`")));
        }
        if template.is_none() && (wish.tools.is_none() || wish.environments.is_none()) {
            return Err(refused("without a template, name tools and environments".to_owned()));
        }
        if wish.isolate && (self.above.is_some() || !template.is_some_and(|template| template.may_isolate)) {
            return Err(refused("it cannot begin without the labels of what went before".to_owned()));
        }
        // Whoever has seen something would shed it by itself.
        if wish.isolate && self.opening_agent.is_some() && self.opening_agent == self.agent {
            let hint = "no agent begins without the labels of what it has seen itself; a person or another agent opens \
                        such a mandate for it";
            return Err(refused(hint.to_owned()));
        }
        Ok(())
    }

    fn life_us(&self) -> Result<i64, Refusal> {
        let longest = self.template.map_or(limit::MANDATE_FREE_LIFE_MAX, |template| template.wall_time);
        let wished = self.wish.seconds.map_or(longest, std::time::Duration::from_secs);
        if wished > longest || wished.is_zero() {
            return Err(refused(format!("it may last 1 to {} seconds", longest.as_secs().max(1))));
        }
        Ok(i64::try_from(wished.as_micros()).unwrap_or(i64::MAX))
    }

    /// What is wished is a part of the template's, and never more than is left above.
    fn budget(&self) -> Result<Budget, Refusal> {
        let wish = self.wish.budget;
        let offered = self.template.map(|template| template.budget).unwrap_or_default();
        let both = offered.within(wish);
        let asked = [
            ("calls", wish.calls.map(u64::from), both.calls.map(u64::from)),
            ("calls_per_minute", wish.calls_per_minute.map(u64::from), both.calls_per_minute.map(u64::from)),
            ("bytes", wish.bytes, both.bytes),
        ];
        if let Some((what, ..)) = asked.iter().find(|(_, wished, left)| wished.is_some() && wished > left) {
            return Err(refused(format!("the template leaves fewer {what}")));
        }
        if asked.iter().any(|(_, wished, _)| *wished == Some(0)) {
            return Err(refused("a budget of nothing lets nothing be called".to_owned()));
        }
        // What is used below is counted above as well; this only says so at once.
        let above = self.above.iter().flat_map(|held| held.all());
        Ok(above.fold(both, |budget, above| budget.within(above.budget)))
    }
}

fn refused(hint: String) -> Refusal {
    Refusal::new(Reason::MandateRefused).hint(hint)
}
