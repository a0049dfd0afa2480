//! The papers say what the code does: checked in both directions.

#![expect(clippy::unwrap_used, reason = "a test says what must hold, and fails where it does not")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bailiwick::outcome::Reason;
use bailiwick::wire::mcp::{Era, Method};

#[test]
fn every_reason_code_is_documented_and_no_other() {
    let page = include_str!("../docs/reasons.md");
    let documented: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let existing: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(documented, existing, "docs/reasons.md and src/outcome/reason.rs differ");
}

#[test]
fn every_documented_hint_is_the_one_that_clients_get() {
    let page = include_str!("../docs/reasons.md");
    for reason in Reason::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", reason.code())));
        assert!(row.is_some_and(|row| row.contains(reason.hint())), "the row of {reason} lacks its hint");
    }
}

/// The methods that the gateway knows stand in `Method::parse`, one in a line.
#[test]
fn every_method_has_its_object_and_action_in_the_table_and_no_other() {
    let page = include_str!("../docs/policy.md");
    let table = page.lines().skip_while(|line| !line.starts_with("| Method | Object | Action |")).skip(2);
    let table: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    let methods =
        table.iter().flat_map(|row| row.trim_matches('|').split('|').next().unwrap().split('`').skip(1).step_by(2));
    let is_known = |name: &str| [Era::Modern, Era::Legacy].into_iter().any(|era| Method::parse(name, era).is_some());
    // What servers ask, an example, and a parameter.
    let others = ["elicitation/create", "sampling/createMessage", "roots/list", "skills/list", "taskIds"];
    let documented: BTreeSet<&str> = methods.filter(|name| !others.contains(name)).collect();
    let unknown: Vec<_> = documented.iter().filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "not known: {unknown:?}");
    let source = include_str!("../src/wire/mcp.rs");
    let known: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" => (Self::").map(|(name, _)| name))
        .filter(|name| is_known(name))
        .collect();
    assert!(known.len() > 15 && table.last().is_some_and(|row| row.contains("anything else | refused")), "{known:?}");
    assert_eq!(documented, known, "docs/policy.md and src/wire/mcp.rs differ");
    for row in table.iter().rev().skip(1) {
        assert!(row.trim_matches('|').split(" | ").all(|cell| !cell.trim().is_empty()), "an empty cell: {row}");
    }
}

/// The rows of `docs/controls.md`: the control, its switch and the tests.
#[test]
fn every_control_has_a_row_with_a_switch_of_its_own_and_tests_that_exist() {
    let page = std::fs::read_to_string("docs/controls.md").unwrap();
    let sources: BTreeMap<String, String> = rust_files("tests/it");
    let mut switches: BTreeSet<&str> = BTreeSet::new();
    let mut rows: BTreeSet<u32> = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| C") || line.starts_with("| F")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [control, _, _, shown] = cells[..] else { panic!("four cells: {line}") };
        if let Some(number) = control.strip_prefix('C') {
            rows.insert(number.parse().unwrap());
        }
        let (switch, tests) = shown.split_once(": ").unwrap_or_else(|| panic!("no switch: {line}"));
        assert!(switches.insert(switch.trim_matches('`')), "{switch} stands twice");
        for test in tests.split(", ") {
            let (module, name) = test.trim_matches('`').rsplit_once("::").unwrap();
            let file = sources.get(module).unwrap_or_else(|| panic!("no tests in {module}"));
            assert!(file.contains(&format!("fn {name}(")), "no test {test}");
        }
    }
    assert_eq!(rows, (1..=25).collect(), "C1 to C25");
    let known: BTreeSet<&str> = bailiwick::inversion::Control::ALL.iter().map(|control| control.name()).collect();
    assert_eq!(switches, known);
}

/// The tests of a folder, by the name of their module.
fn rust_files(root: &str) -> BTreeMap<String, String> {
    fn collect(directory: &Path, module: &str, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let name = if module.is_empty() { stem } else { format!("{module}::{stem}") };
            if path.is_dir() {
                collect(&path, &name, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(Path::new(root), "", &mut found);
    found
}
