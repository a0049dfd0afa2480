//! Whether another set of files lets agents do more: as agents, under mandates, or before the breaker stops them.
//!
//! Decides it field by field, because what only takes something away is a brake and has to work without anybody's word.
//! Refuses to know rules, which are compared by the policy. Invariant: a field that this does not know widens.

use crate::config::{
    AgentClient, AgentConfig, AgentState, ApiKeyConfig, BreakGlassConfig, BreakerConfig, Budget, Config, MandateNeed,
    TemplateConfig,
};

/// Whether some agent may do more, or is stopped later.
pub(super) fn lets_agents_do_more(before: &Config, after: &Config) -> bool {
    let agent = |agent: &AgentConfig| match before.agents.get(&agent.id) {
        _ if agent.state != AgentState::Active => false,
        Some(old) => is_wider_agent(old, agent),
        None => true,
    };
    after.agents.values().any(|one| agent(one))
        || after
            .templates
            .iter()
            .any(|(name, template)| before.templates.get(name).is_none_or(|old| is_wider_template(old, template)))
        || is_let_in_by_default(before, after)
        || is_later(before, after)
        || after.break_glass.iter().any(|one| is_wider_emergency(before, one))
}

/// Whether a client that was some agent's is nobody's any more, where an issuer's entry says whose everybody else's is: the
/// ceiling of another agent, and not its own, which may have been suspended.
fn is_let_in_by_default(before: &Config, after: &Config) -> bool {
    let is_same = |one: &AgentClient, other: &AgentClient| {
        (&one.issuer, one.known_by, &one.client_id) == (&other.issuer, other.known_by, &other.client_id)
    };
    let is_somebodys = |client: &AgentClient| {
        after.agents.values().any(|agent| agent.clients.iter().any(|known| is_same(known, client)))
    };
    let default = |client: &AgentClient| {
        let issuer = after.issuers.iter().find(|issuer| issuer.alias == client.issuer);
        issuer.and_then(|issuer| issuer.interactive_default.as_ref())
    };
    before.agents.values().any(|agent| {
        let mut gone = agent.clients.iter().filter(|client| !is_somebodys(client));
        gone.any(|client| default(client).is_some_and(|default| *default != agent.id))
    })
}

/// Whether an emergency gives more, sooner, for longer, or to others than before.
fn is_wider_emergency(before: &Config, after: &BreakGlassConfig) -> bool {
    let BreakGlassConfig { name, role, who, approvers, approvals, lasts } = after;
    let Some(old) = before.break_glass.iter().find(|one| one.name == *name) else { return true };
    *role != old.role
        || who.iter().any(|one| !old.who.contains(one))
        || approvers.iter().any(|one| !old.approvers.contains(one))
        || *approvals < old.approvals
        || *lasts > old.lasts
}

fn is_wider_agent(before: &AgentConfig, after: &AgentConfig) -> bool {
    // Named one by one, so that a new field is not forgotten here.
    let AgentConfig {
        id: _,
        owner,
        owner_person,
        sponsor_group,
        purpose: _,
        kind,
        environments,
        clients,
        keys,
        state: _,
        expires,
        review,
        mandates: _,
        budget,
    } = after;
    let known = |client: &AgentClient| {
        let same = |old: &AgentClient| {
            let AgentClient { issuer, known_by, client_id, proof } = old;
            // A weaker proof reaches less.
            (issuer, known_by, client_id) == (&client.issuer, &client.known_by, &client.client_id)
                && client.proof <= *proof
        };
        before.clients.iter().any(same)
    };
    let known_key = |key: &ApiKeyConfig| {
        let same = |old: &ApiKeyConfig| {
            let ApiKeyConfig { id, digest, owner, owner_person, created: _, expires } = old;
            // Which human somebody is says who may not approve: another one is another word.
            (id, digest, owner, owner_person) == (&key.id, &key.digest, &key.owner, &key.owner_person)
                && key.expires <= *expires
        };
        before.keys.iter().any(same)
    };
    let needs_less = before.mandate_need() == MandateNeed::Required && after.mandate_need() == MandateNeed::Optional;
    before.state != AgentState::Active
        || *owner != before.owner
        || *owner_person != before.owner_person
        || *sponsor_group != before.sponsor_group
        || *kind != before.kind
        || needs_less
        || environments.iter().any(|environment| !before.environments.contains(environment))
        || !clients.iter().all(known)
        || !keys.iter().all(known_key)
        || grew(before.expires, *expires)
        || grew(before.review, *review)
        || grew(before.budget.calls_per_minute, budget.calls_per_minute)
        || grew(before.budget.calls_per_day, budget.calls_per_day)
}

fn is_wider_template(before: &TemplateConfig, after: &TemplateConfig) -> bool {
    let TemplateConfig {
        name: _,
        title: _,
        tools,
        conditions,
        environments,
        agents,
        wall_time,
        idle_for,
        budget,
        may_isolate,
        purpose_required,
    } = after;
    let Budget { calls, calls_per_minute, bytes } = *budget;
    // Where they stand in their file makes no difference.
    tools.iter().any(|tool| !before.tools.iter().any(|old| old.text == tool.text))
        || before.conditions.iter().any(|old| !conditions.iter().any(|left| left.text == old.text))
        || environments.iter().any(|environment| !before.environments.contains(environment))
        || agents.iter().any(|agent| !before.agents.contains(agent))
        || *wall_time > before.wall_time
        || grew(before.idle_for, *idle_for)
        || grew(before.budget.calls, calls)
        || grew(before.budget.calls_per_minute, calls_per_minute)
        || grew(before.budget.bytes, bytes)
        || (*may_isolate && !before.may_isolate)
        || (before.purpose_required && !*purpose_required)
}

/// Whether an agent, a task or a tool is stopped later than it was.
fn is_later(before: &Config, after: &Config) -> bool {
    let old = before.breaker;
    let BreakerConfig {
        denials_per_minute,
        new_tools,
        new_tools_within,
        learning,
        errors_percent,
        errors_of,
        mandate_denials_per_minute,
        mandate_errors_percent,
        mandate_errors_of,
        tool_errors_percent,
        tool_errors_of,
        tool_pause,
    } = after.breaker;
    after.attest_every > before.attest_every
        || denials_per_minute > old.denials_per_minute
        || new_tools > old.new_tools
        || new_tools_within < old.new_tools_within
        || learning > old.learning
        || errors_percent > old.errors_percent
        || errors_of > old.errors_of
        || mandate_denials_per_minute > old.mandate_denials_per_minute
        || mandate_errors_percent > old.mandate_errors_percent
        || mandate_errors_of > old.mandate_errors_of
        || tool_errors_percent > old.tool_errors_percent
        || tool_errors_of > old.tool_errors_of
        || tool_pause < old.tool_pause
}

/// Whether a bound was raised or is gone.
pub(super) fn grew<T: Ord>(before: Option<T>, after: Option<T>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => after > before,
        (before, None) => before.is_some(),
        (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::{AgentBudget, AgentKind, Approvers, KnownBy, Placed};
    use crate::front::fixture::config;
    use crate::identity::fixture;
    use crate::ids::{AgentId, Environment, IssuerAlias, TemplateName};

    fn placed(text: &str) -> Placed {
        Placed { text: text.to_owned(), line: 1, column: 1 }
    }

    fn template() -> TemplateConfig {
        TemplateConfig {
            name: TemplateName::new("nightly").unwrap(),
            title: "nightly".to_owned(),
            tools: vec![placed("git/push")],
            conditions: vec![placed("small")],
            environments: vec![Environment::new("development").unwrap()],
            agents: vec![AgentId::new("bot").unwrap()],
            wall_time: Duration::from_secs(60),
            idle_for: Some(Duration::from_secs(60)),
            budget: Budget { calls: Some(5), calls_per_minute: Some(5), bytes: Some(5) },
            may_isolate: false,
            purpose_required: true,
        }
    }

    fn with(template: TemplateConfig) -> Config {
        Config { templates: [(template.name.clone(), Arc::new(template))].into(), ..config() }
    }

    fn check(what: &str, narrow: &Config, wide: &Config) {
        assert!(lets_agents_do_more(narrow, wide), "{what} lets do more");
        assert!(!lets_agents_do_more(wide, narrow), "{what} taken back is a brake");
    }

    #[test]
    fn every_field_of_a_template_that_grows_widens_and_the_same_taken_back_does_not() {
        let narrow = with(template());
        let budget = template().budget;
        let changes: [(&str, TemplateConfig); 15] = [
            ("a tool", TemplateConfig { tools: vec![placed("git/push"), placed("*/*")], ..template() }),
            ("a condition", TemplateConfig { conditions: Vec::new(), ..template() }),
            (
                "an environment",
                TemplateConfig {
                    environments: ["development", "production"].map(|name| Environment::new(name).unwrap()).to_vec(),
                    ..template()
                },
            ),
            (
                "an agent",
                TemplateConfig {
                    agents: ["bot", "intern"].map(|name| AgentId::new(name).unwrap()).to_vec(),
                    ..template()
                },
            ),
            ("its time", TemplateConfig { wall_time: Duration::from_secs(61), ..template() }),
            ("its rest", TemplateConfig { idle_for: Some(Duration::from_secs(61)), ..template() }),
            ("any rest", TemplateConfig { idle_for: None, ..template() }),
            ("calls", TemplateConfig { budget: Budget { calls: Some(6), ..budget }, ..template() }),
            ("all calls", TemplateConfig { budget: Budget { calls: None, ..budget }, ..template() }),
            ("a rate", TemplateConfig { budget: Budget { calls_per_minute: Some(6), ..budget }, ..template() }),
            ("any rate", TemplateConfig { budget: Budget { calls_per_minute: None, ..budget }, ..template() }),
            ("bytes", TemplateConfig { budget: Budget { bytes: Some(6), ..budget }, ..template() }),
            ("all bytes", TemplateConfig { budget: Budget { bytes: None, ..budget }, ..template() }),
            ("isolation", TemplateConfig { may_isolate: true, ..template() }),
            ("silence", TemplateConfig { purpose_required: false, ..template() }),
        ];
        for (what, wide) in changes {
            check(what, &narrow, &with(wide));
        }
        check("a template", &config(), &narrow);
        let moved = Placed { line: 9, ..placed("git/push") };
        let moved = with(TemplateConfig { tools: vec![moved], title: "other".to_owned(), ..template() });
        assert!(!lets_agents_do_more(&narrow, &moved), "where it stands makes no difference");
    }

    fn agents(change: impl Fn(&mut AgentConfig)) -> Config {
        let mut config = Config { agents: fixture::config().agents, ..config() };
        let bot = config.agents.get_mut(&AgentId::new("bot").unwrap()).unwrap();
        let bot = Arc::make_mut(bot);
        bot.kind = AgentKind::Autonomous;
        bot.budget = AgentBudget { calls_per_minute: Some(5), calls_per_day: Some(5) };
        bot.expires = Some(jiff::civil::date(2030, 1, 1));
        change(bot);
        config
    }

    #[test]
    fn every_field_of_an_agent_that_grows_widens_and_the_same_taken_back_does_not() {
        let narrow = agents(|_| ());
        let client = || AgentClient {
            issuer: IssuerAlias::new("corp").unwrap(),
            known_by: KnownBy::Client,
            client_id: "another".to_owned(),
            proof: crate::config::DeclaredProof::Public,
        };
        check("a client", &narrow, &agents(|bot| bot.clients.push(client())));
        let proven = || AgentClient { proof: crate::config::DeclaredProof::Mtls, ..client() };
        check("its proof", &agents(|bot| bot.clients.push(client())), &agents(|bot| bot.clients.push(proven())));
        check("an environment", &narrow, &agents(|bot| bot.environments.push(Environment::new("other").unwrap())));
        check("no mandate", &narrow, &agents(|bot| bot.mandates = Some(MandateNeed::Optional)));
        check("calls", &narrow, &agents(|bot| bot.budget.calls_per_day = Some(6)));
        check("any rate", &narrow, &agents(|bot| bot.budget.calls_per_minute = None));
        check("a later end", &narrow, &agents(|bot| bot.expires = None));
        check("its state", &agents(|bot| bot.state = AgentState::Suspended), &narrow);
        check("an agent", &config(), &narrow);
        let owned = agents(|bot| bot.owner = "user:corp/mallory".to_owned());
        assert!(lets_agents_do_more(&narrow, &owned) && lets_agents_do_more(&owned, &narrow), "who answers for it");
        assert!(!lets_agents_do_more(&narrow, &agents(|bot| bot.purpose = "another".to_owned())));
    }

    #[test]
    fn a_client_that_falls_to_the_default_of_its_issuer_widens() {
        let client = || AgentClient {
            issuer: config().issuers[0].alias.clone(),
            known_by: KnownBy::Client,
            client_id: "its-own".to_owned(),
            proof: crate::config::DeclaredProof::Public,
        };
        let with_default = |mut config: Config, agent: Option<&str>| {
            let issuer = Arc::make_mut(&mut config.issuers[0]);
            issuer.interactive_default = agent.map(|agent| AgentId::new(agent).unwrap());
            config
        };
        let known = || agents(|bot| bot.clients.push(client()));
        let gone = || {
            let mut config = agents(|_| ());
            config.agents.remove(&AgentId::new("bot").unwrap());
            config
        };
        for (default, widens) in [(None, false), (Some("bot"), false), (Some("claude"), true)] {
            let (before, after) = (with_default(known(), default), with_default(agents(|_| ()), default));
            assert_eq!(lets_agents_do_more(&before, &after), widens, "{default:?}");
        }
        assert!(!lets_agents_do_more(&known(), &gone()), "nobody is let in by default");
        assert!(lets_agents_do_more(&with_default(known(), Some("claude")), &with_default(gone(), Some("claude"))));
    }

    #[test]
    fn an_emergency_that_gives_more_or_to_others_widens_and_one_that_is_taken_away_does_not() {
        let one = || BreakGlassConfig {
            name: "outage".to_owned(),
            role: "role:firefighter".to_owned(),
            who: vec![Approvers::Subject("group:corp/oncall".to_owned())],
            approvers: vec![Approvers::Subject("group:corp/leads".to_owned())],
            approvals: 2,
            lasts: Duration::from_secs(60),
        };
        let with = |one: BreakGlassConfig| Config { break_glass: vec![one], ..config() };
        let more = |list: Vec<Approvers>| [list, vec![Approvers::Subject("user:corp/eve".to_owned())]].concat();
        check("an emergency", &config(), &with(one()));
        check("who asks", &with(one()), &with(BreakGlassConfig { who: more(one().who), ..one() }));
        check("who agrees", &with(one()), &with(BreakGlassConfig { approvers: more(one().approvers), ..one() }));
        check("fewer persons", &with(one()), &with(BreakGlassConfig { approvals: 1, ..one() }));
        check("its time", &with(one()), &with(BreakGlassConfig { lasts: Duration::from_secs(61), ..one() }));
        let other = with(BreakGlassConfig { role: "role:root".to_owned(), ..one() });
        assert!(lets_agents_do_more(&with(one()), &other) && lets_agents_do_more(&other, &with(one())), "its role");
    }

    #[test]
    fn a_breaker_that_trips_later_widens() {
        let narrow = config();
        let mut wide = config();
        wide.breaker.denials_per_minute += 1;
        check("denials", &narrow, &wide);
        let mut wide = config();
        wide.breaker.errors_percent += 1;
        check("errors", &narrow, &wide);
        let mut wide = config();
        wide.breaker.new_tools += 1;
        check("new tools", &narrow, &wide);
        let mut wide = config();
        wide.breaker.new_tools_within = Duration::from_secs(1);
        check("their time", &narrow, &wide);
        let mut wide = config();
        wide.breaker.learning += Duration::from_secs(1);
        check("learning", &narrow, &wide);
        let mut wide = config();
        wide.breaker.mandate_denials_per_minute += 1;
        check("denials of a task", &narrow, &wide);
        let mut wide = config();
        wide.breaker.mandate_errors_of += 1;
        check("errors of a task", &narrow, &wide);
        let mut wide = config();
        wide.breaker.tool_errors_percent += 1;
        check("errors of a tool", &narrow, &wide);
        let mut wide = config();
        wide.breaker.tool_pause = Duration::from_secs(1);
        check("how long a tool is closed", &narrow, &wide);
        let mut wide = config();
        wide.attest_every += Duration::from_secs(1);
        check("attestations", &narrow, &wide);
    }
}
