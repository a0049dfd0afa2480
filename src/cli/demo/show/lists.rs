//! Two people, one endpoint: what their assistants are shown.
//!
//! Decides how two lists stand beside each other. Invariant: the names are the gateway's answers, in its order.

use std::fmt::Write as _;

use super::Show;
use crate::cli::call::safe;
use crate::cli::demo::stage::{LISTED, PEOPLE};
use crate::cli::output::print;

/// Shows both lists.
pub(super) async fn act(show: &mut Show<'_>) -> Result<(), String> {
    show.heading("one endpoint, two people: what their assistants are shown");
    let mut lists = Vec::new();
    for (name, _, group) in PEOPLE.into_iter().take(LISTED) {
        lists.push((name, group, show.stage.assistant(name)?.tools().await?));
    }
    print(side_by_side(&lists));
    Ok(())
}

/// One row for every tool that somebody is shown, in the gateway's order.
fn side_by_side(lists: &[(&str, &str, Vec<String>)]) -> String {
    let mut names: Vec<&String> = Vec::new();
    for name in lists.iter().flat_map(|(_, _, tools)| tools) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut text = String::from("  ");
    for (name, group, _) in lists {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{:<36}", format!("{name} ({group})"));
    }
    text.truncate(text.trim_end().len());
    for tool in names {
        text.push_str("\n  ");
        let mut line = String::new();
        for (_, _, tools) in lists {
            let cell = if tools.contains(tool) { tool.as_str() } else { "-" };
            let _infallible = write!(line, "{cell:<36}");
        }
        text.push_str(&safe(line.trim_end()));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stand_beside_each_other_and_fit() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let lists = [("alice", "developers", list(&["a__b", "a__c"])), ("bob", "auditors", list(&["a__c"]))];
        let shown = side_by_side(&lists);
        let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["a__b", "-"]);
        assert_eq!(rows[2], ["a__c", "a__c"]);
        assert!(shown.lines().all(|line| line.len() <= 100));
    }
}
