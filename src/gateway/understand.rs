//! What a set of files means: configuration and policy together, read from the same bytes.
//!
//! Decides nothing about when they are read. Invariant: a policy that is asked was built in the world of the
//! configuration beside it.

use crate::config::{Config, FileSet, Loaded, Mistake, Overrides, Placed, load_set};
use crate::limit;
use crate::policy::{self, Policy, Sources, Strictness, World};

/// Files that were read, understood, and found free of mistakes.
#[derive(Debug)]
pub struct Understood {
    /// The configuration, and the files.
    pub loaded: Loaded,
    /// The policy.
    pub policy: Policy,
    /// What should be looked at, although it can be served.
    pub warnings: Vec<Mistake>,
}

impl Understood {
    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Logs the warnings: the first ones, and how many more there are. A large policy has hundreds, and a log that is
    /// read at night must not drown in them.
    pub fn log_warnings(&self) {
        logged(&self.warnings).iter().for_each(|warning| tracing::warn!("{warning}"));
    }
}

fn logged(warnings: &[Mistake]) -> Vec<String> {
    let mut lines: Vec<String> = warnings.iter().take(limit::WARNINGS_LOGGED_MAX).map(ToString::to_string).collect();
    let more = warnings.len() - lines.len();
    if more > 0 {
        lines.push(format!("{more} more warnings about the files: `bailiwick check` shows all"));
    }
    lines
}

/// Understands one set of files: the configuration, and the policy in its world.
///
/// # Errors
/// Every mistake of the configuration; without any, every mistake of the policy.
pub fn understand(files: FileSet, overrides: &Overrides) -> Result<Understood, Vec<Mistake>> {
    let loaded = load_set(files, overrides)?;
    let sources = Sources::from_files(loaded.files.policy_files()).of_set(loaded.files.revision());
    let strictness = if overrides.undeclared_issuers_are_inert { Strictness::Demo } else { Strictness::Serve };
    let world = World::of(&loaded.config, strictness);
    let shown = |mistakes: Vec<policy::Mistake>| {
        let place = |mistake: policy::Mistake| Mistake {
            file: loaded.files.shown(&mistake.file),
            line: usize::try_from(mistake.line).unwrap_or_default(),
            column: usize::try_from(mistake.column).unwrap_or_default(),
            message: mistake.message,
        };
        mistakes.into_iter().map(place).collect::<Vec<_>>()
    };
    let built = Policy::build(&sources, &world).map_err(&shown)?;
    let mistakes = unknown_words(&loaded, &built.policy);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut warnings = loaded.warnings.clone();
    warnings.extend(shown(built.warnings));
    Ok(Understood { policy: built.policy, warnings, loaded })
}

/// What templates of mandates name that rules do not know.
fn unknown_words(loaded: &Loaded, policy: &Policy) -> Vec<Mistake> {
    let file = loaded.files.shown("mandates.toml");
    let at = |placed: &Placed, message: String| Mistake {
        file: file.clone(),
        line: placed.line,
        column: placed.column,
        message,
    };
    let mut mistakes = Vec::new();
    for template in loaded.config.templates.values() {
        mistakes
            .extend(template.tools.iter().filter_map(|tool| Some(at(tool, policy.check_pattern(&tool.text).err()?))));
        mistakes.extend(
            template.conditions.iter().filter(|named| !policy.has_condition(&named.text)).map(|named| {
                at(named, format!("there is no condition `{}`; write one of conditions.toml", named.text))
            }),
        );
    }
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_shows_the_first_warnings_and_counts_the_rest() {
        let warnings = |count: usize| -> Vec<Mistake> {
            (0..count).map(|number| Mistake::whole("policy.csv", format!("warning {number}"))).collect()
        };
        assert_eq!(logged(&warnings(limit::WARNINGS_LOGGED_MAX)).len(), limit::WARNINGS_LOGGED_MAX);
        let lines = logged(&warnings(limit::WARNINGS_LOGGED_MAX + 7));
        assert_eq!(lines.len(), limit::WARNINGS_LOGGED_MAX + 1);
        assert!(lines.last().unwrap().starts_with("7 more"), "{lines:?}");
    }
}
