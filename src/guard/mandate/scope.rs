//! Whether a call is part of the mandate that it names, or needs one and names none.
//!
//! Decides it after the rules have allowed: a mandate only ever narrows. Refuses to know how arguments are read; the
//! policy's conditions do that. Invariant: what a template in force does not say any more is no part of its mandates.

use super::Mandate;
use crate::config::{Config, MandateNeed};
use crate::guard::Wanted;
use crate::ids::AgentId;
use crate::inversion::{self, Control};
use crate::outcome::{Reason, Refusal};
use crate::policy::{Arguments, Ask, Permit};
use crate::wire::Json;

/// Checks a call against its mandate.
///
/// # Errors
/// `mandate_required`, `mandate_ended`, `mandate_scope`.
pub fn check(permit: &Permit, wanted: &Wanted<'_>) -> Result<(), Refusal> {
    let Some(held) = wanted.mandate else { return needed(permit, wanted, |_| false) };
    // One agent's mandate is none for another that acts along with it.
    needed(permit, wanted, |agent| held.all().any(|mandate| is_for(mandate, agent, wanted.config)))?;
    let now = jiff::Timestamp::now();
    for mandate in held.all() {
        if mandate.is_over(wanted.now_us) {
            return Err(ended(mandate, wanted.now_us));
        }
        in_time(wanted, mandate)?;
        if !inversion::is_off(Control::TaskScope) {
            within(permit, wanted, mandate, now)?;
        }
    }
    Ok(())
}

/// A template that lasts less long than when a mandate was opened ends it then.
fn in_time(wanted: &Wanted<'_>, mandate: &Mandate) -> Result<(), Refusal> {
    let Some(template) = mandate.template.as_ref().and_then(|name| wanted.config.templates.get(name)) else {
        return Ok(());
    };
    let wall_time_us = i64::try_from(template.wall_time.as_micros()).unwrap_or(i64::MAX);
    if mandate.opened_us.saturating_add(wall_time_us) > wanted.now_us {
        return Ok(());
    }
    let hint = format!("the mandate {} has expired, its template lasts no longer; open another one", mandate.id);
    Err(Refusal::new(Reason::MandateEnded).hint(hint))
}

/// The refusal of a mandate that is over.
pub(super) fn ended(mandate: &Mandate, now_us: i64) -> Refusal {
    let how = match mandate.state(now_us) {
        "completed" => "was completed",
        _ => "has expired",
    };
    Refusal::new(Reason::MandateEnded)
        .hint(format!("the mandate {} {how}; open another one if the task goes on", mandate.id))
}

/// Whether a mandate was given to that agent.
fn is_for(mandate: &Mandate, agent: &AgentId, config: &Config) -> bool {
    let template = mandate.template.as_ref().and_then(|name| config.templates.get(name));
    mandate.agent.as_ref() == Some(agent) || template.is_some_and(|template| template.agents.contains(agent))
}

fn needed(permit: &Permit, wanted: &Wanted<'_>, has: impl Fn(&AgentId) -> bool) -> Result<(), Refusal> {
    let persona = permit.caller().persona();
    let needs = |id: &AgentId| {
        wanted.config.agents.get(id).is_none_or(|agent| agent.mandate_need() == MandateNeed::Required) && !has(id)
    };
    let agent = persona.agent.iter().chain(&persona.chain).find(|agent| needs(&agent.id));
    agent.map_or(Ok(()), |agent| {
        Err(Refusal::new(Reason::MandateRequired).hint(format!(
            "the agent `{}` needs a mandate for what it calls: open one with bailiwick__mandate_open, and send its \
             handle with each call",
            agent.id
        )))
    })
}

fn within(permit: &Permit, wanted: &Wanted<'_>, mandate: &Mandate, now: jiff::Timestamp) -> Result<(), Refusal> {
    let outside = |what: &str| {
        Refusal::new(Reason::MandateScope)
            .hint(format!("{what} lies outside of the mandate {}; open one that it is part of", mandate.id))
    };
    let (target, persona) = (permit.target(), permit.caller().persona());
    let ask = Ask {
        environment: target.environment(),
        server: target.server_id(),
        name: target.name(),
        action: target.action(),
    };
    let template = match &mandate.template {
        None => None,
        Some(name) => {
            Some(wanted.config.templates.get(name).ok_or_else(|| outside("its template is not there any more: this"))?)
        }
    };
    let means = |pattern: &str| wanted.policy.means(pattern, &ask);
    let of_template = template.is_none_or(|template| template.tools.iter().any(|tool| means(&tool.text)));
    let narrowed = mandate.tools.as_ref().map_or(template.is_some(), |tools| tools.iter().any(|tool| means(tool)));
    if !of_template || !narrowed {
        return Err(outside("this tool"));
    }
    let environment = target.environment();
    let of_template = template.is_none_or(|template| template.environments.contains(environment));
    let narrowed = mandate.environments.as_ref().map_or(template.is_some(), |left| left.contains(environment));
    if !of_template || !narrowed {
        return Err(outside("this environment"));
    }
    if template.zip(mandate.agent.as_ref()).is_some_and(|(template, agent)| !template.agents.contains(agent)) {
        return Err(outside("this agent"));
    }
    // A task that is followed has no arguments any more; its call had them.
    if permit.is_following() {
        return Ok(());
    }
    let arguments = Arguments::of(target.action(), wanted.arguments.map(Json::as_str));
    let of_template = template.into_iter().flat_map(|template| &template.conditions).map(|named| named.text.as_str());
    for condition in of_template.chain(mandate.conditions.iter().map(String::as_str)) {
        // A condition that is gone from the files holds for nothing.
        if wanted.policy.holds(condition, persona, arguments, now) != Some(true) {
            return Err(outside(&format!("what `{condition}` does not hold for")));
        }
    }
    Ok(())
}
