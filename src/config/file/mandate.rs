//! Reads `policies/mandates.toml`: which tasks may be given to whom, and what they may use up.
//!
//! Decides whether a template could be opened at all. Refuses to know which tools there are and which conditions: who
//! builds the policy looks that up, at the places that are kept. Invariant: every agent and environment that a template
//! names is declared.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;

use super::Text;
use crate::config::keys;
use crate::config::leaf::{Count, Period, Size};
use crate::config::mistake::{Mistake, Source, did_you_mean};
use crate::config::reader::Table;
use crate::config::{Budget, Config, Placed, TemplateConfig};
use crate::ids::{AgentId, Environment, TemplateName};
use crate::limit;

/// What a file says: its templates, and its warnings.
pub type Templates = (BTreeMap<TemplateName, Arc<TemplateConfig>>, Vec<Mistake>);

/// Reads every template.
///
/// # Errors
/// Every mistake in the file.
pub fn read_all(text: Text<'_>, config: &Config) -> Result<Templates, Vec<Mistake>> {
    let source = Source::new(text.file, text.text);
    let read = Table::parse(&source, &keys::MANDATES).map(|mut top| {
        let place = top.place("templates");
        let tables =
            top.named_tables("templates", &keys::TEMPLATE, |text| TemplateName::new(text).map_err(|e| e.to_string()));
        if tables.len() > limit::TEMPLATES_MAX {
            let count = tables.len();
            top.mistake(&place, format!("{count} templates are too many: at most {}", limit::TEMPLATES_MAX));
        }
        tables.into_iter().map(|(name, table)| Some((name.clone(), Arc::new(template(table, name, config)?)))).collect()
    });
    let mut found = source.take();
    found.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    match read {
        Some(Some(templates)) if found.mistakes.is_empty() => Ok((templates, found.warnings)),
        // Unreachable as long as every missing part was reported; a defect there must not serve.
        _ if found.mistakes.is_empty() => Err(vec![Mistake::whole(text.file, "cannot be read; please report this")]),
        _ => Err(found.mistakes),
    }
}

fn template(mut table: Table<'_, '_>, name: TemplateName, config: &Config) -> Option<TemplateConfig> {
    let title = table.at::<String>("title");
    let tools = table.at::<Vec<Spanned<String>>>("tools");
    let conditions = table.get::<Vec<Spanned<String>>>("conditions");
    let environments = table.at::<Vec<Spanned<Environment>>>("environments");
    let agents = table.at::<Vec<Spanned<AgentId>>>("agents");
    let wall_time = table.get::<Period>("wall_time");
    let idle_for = table.get::<Period>("idle_for").map(|period| period.0);
    let mut budget = Budget::default();
    if let Some(mut written) = table.table("budget", &keys::TEMPLATE_BUDGET) {
        budget.calls = written.get::<Count>("calls").map(|count| count.0);
        budget.calls_per_minute = written.get::<Count>("calls_per_minute").map(|count| count.0);
        budget.bytes = written.get::<Size>("bytes").map(|size| size.0);
    }
    let may_isolate = table.get::<bool>("may_isolate");
    let purpose_required = table.get::<bool>("purpose_required");
    if let Some(title) = title.as_ref().filter(|title| title.get_ref().trim().is_empty()) {
        table.mistake(&title.span(), "a template has a title: say in one line what the task is");
    }
    let (tools, environments, agents) = (tools?, environments?, agents?);
    let nothing = [
        (tools.get_ref().is_empty(), tools.span(), "a template without tools lets nothing be called: name one"),
        (
            environments.get_ref().is_empty(),
            environments.span(),
            "a template without environments may do nothing: name one",
        ),
        (agents.get_ref().is_empty(), agents.span(), "a template without agents can be opened for nobody: name one"),
    ];
    for (_, span, message) in nothing.iter().filter(|(is_empty, ..)| *is_empty) {
        table.mistake(span, *message);
    }
    if tools.get_ref().len() > limit::MANDATE_PATTERNS_MAX {
        let count = tools.get_ref().len();
        table.mistake(&tools.span(), format!("{count} tools are too many: at most {}", limit::MANDATE_PATTERNS_MAX));
    }
    for environment in environments.get_ref() {
        let known: Vec<&str> = config.environments.iter().map(Environment::as_str).collect();
        undeclared(&table, environment, "environment", environment.get_ref().as_str(), &known);
    }
    for agent in agents.get_ref() {
        let known: Vec<&str> = config.agents.keys().map(AgentId::as_str).collect();
        undeclared(&table, agent, "agent", agent.get_ref().as_str(), &known);
    }
    let placed = |written: Vec<Spanned<String>>| -> Vec<Placed> {
        let place = |text: Spanned<String>| {
            let at = Mistake::at(&table.source.file, table.source.text, text.span().start, "");
            Placed { text: text.into_inner(), line: at.line, column: at.column }
        };
        written.into_iter().map(place).collect()
    };
    Some(TemplateConfig {
        tools: placed(tools.into_inner()),
        conditions: placed(conditions?),
        title: title?.into_inner(),
        environments: environments.into_inner().into_iter().map(Spanned::into_inner).collect(),
        agents: agents.into_inner().into_iter().map(Spanned::into_inner).collect(),
        wall_time: wall_time?.0,
        idle_for,
        budget,
        may_isolate: may_isolate?,
        purpose_required: purpose_required?,
        name,
    })
}

fn undeclared<T>(table: &Table<'_, '_>, written: &Spanned<T>, what: &str, name: &str, known: &[&str]) {
    if known.contains(&name) {
        return;
    }
    let near = did_you_mean(name, known.iter().copied());
    let hint = if near.is_empty() { ": declare it, or name another one" } else { near.as_str() };
    table.mistake(&written.span(), format!("{what} `{name}` is not declared{hint}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::fixture::config;

    fn read(text: &str) -> Result<Templates, Vec<Mistake>> {
        read_all(Text { file: "policies/mandates.toml", text }, &config())
    }

    const NIGHTLY: &str = "[templates.nightly]\ntitle = \"reads notes\"\ntools = [\"notes/*\"]\n\
                           environments = [\"development\"]\nagents = [\"bot\"]\n";

    #[test]
    fn a_template_has_its_defaults_and_the_places_of_what_others_look_up() {
        let (templates, _) = read(&format!("{NIGHTLY}budget = {{ calls = 5, bytes = \"1KiB\" }}\n")).unwrap();
        let template = templates.values().next().unwrap();
        assert_eq!(template.wall_time, std::time::Duration::from_secs(3_600));
        assert_eq!(template.budget, Budget { calls: Some(5), calls_per_minute: None, bytes: Some(1_024) });
        assert_eq!(template.tools, [Placed { text: "notes/*".into(), line: 3, column: 10 }]);
        assert!(!template.may_isolate && !template.purpose_required && template.idle_for.is_none());
        let (templates, _) = read(&format!("{NIGHTLY}idle_for = \"5m\"\n")).unwrap();
        assert_eq!(templates.values().next().unwrap().idle_for, Some(std::time::Duration::from_secs(300)));
    }

    #[test]
    fn what_no_template_can_be_is_a_mistake_with_its_place() {
        let cases = [
            (NIGHTLY.replace("bot", "bott"), "6:11: agent `bott` is not declared, did you mean `bot`?"),
            (NIGHTLY.replace("\"development\"", "\"moon\""), ": environment `moon` is not declared"),
            (NIGHTLY.replace("\"notes/*\"", ""), ": a template without tools"),
            (NIGHTLY.replace("\"bot\"", ""), ": a template without agents"),
            (NIGHTLY.replace("title = \"reads notes\"\n", ""), ": templates.nightly has no `title`"),
            (format!("{NIGHTLY}wall_tim = \"1h\"\n"), "`wall_tim` is not a key"),
            (format!("{NIGHTLY}budget = {{ calls = 0 }}\n"), "0 is out of range"),
            (NIGHTLY.replace("nightly", "Nightly"), "1:12: `Nightly`"),
        ];
        for (text, expected) in cases {
            let mistakes = read(&text).unwrap_err();
            let shown: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            let number = expected.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
            assert!(shown.iter().any(|line| line.contains(number.trim())), "{text}\n{shown:?}");
        }
    }

    #[test]
    fn so_many_templates_and_so_many_tools_fit() {
        let many =
            |count: usize| -> String { (0..count).map(|n| NIGHTLY.replace("nightly", &format!("t{n}"))).collect() };
        assert!(read(&many(limit::TEMPLATES_MAX)).is_ok());
        assert!(read(&many(limit::TEMPLATES_MAX + 1)).unwrap_err()[0].message.contains("too many"));
        let tools = |count: usize| NIGHTLY.replace("\"notes/*\"", &vec!["\"notes/*\""; count].join(","));
        assert!(read(&tools(limit::MANDATE_PATTERNS_MAX)).is_ok());
        assert!(read(&tools(limit::MANDATE_PATTERNS_MAX + 1)).unwrap_err()[0].message.contains("too many"));
    }
}
