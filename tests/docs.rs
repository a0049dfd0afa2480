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

/// The other table of `docs/controls.md`: what readers of a framework look for, and the rows and tests that answer it.
#[test]
fn every_framework_has_rows_or_tests_for_each_of_its_subjects() {
    let page = std::fs::read_to_string("docs/controls.md").unwrap();
    let sources = rust_files("tests/it");
    let (_, frameworks) = page.split_once("## Frameworks").unwrap();
    let rows: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for line in frameworks.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, ids, subject, answered, tests, _] = cells[..] else { panic!("four cells: {line}") };
        assert!(!answered.is_empty() || !tests.is_empty(), "nothing answers it: {line}");
        assert!(
            answered.split(", ").filter(|row| !row.is_empty()).all(|row| rows.contains(row)),
            "no such row: {line}"
        );
        for test in tests.split(", ").filter(|test| !test.is_empty()) {
            let (module, name) = test.trim_matches('`').rsplit_once("::").unwrap();
            let file = sources.get(module).unwrap_or_else(|| panic!("no tests in {module}"));
            assert!(file.contains(&format!("fn {name}(")), "no test {test}");
        }
        known.extend(ids.split(", ").map(str::to_owned));
        known.insert(subject.split([':', ',']).next().unwrap().to_owned());
    }
    let of = |prefix: &str, numbers: std::ops::RangeInclusive<u32>| {
        numbers.map(|number| format!("{prefix}{number}")).collect::<Vec<_>>()
    };
    let mut asked = [of("F", 1..=6), of("NHI", 1..=5), of("NHI", 7..=10), of("L", 4..=7)].concat();
    asked.extend((1..=10).map(|number| format!("ASI{number:02}")));
    let named = ["GV.RR-02", "GV.SC", "ID.AM", "PR.AA", "PR.DS-10", "PR.PS-04", "DE.CM", "DE.AE-03", "RS.MI-01", "L2"];
    let others = ["GOVERN 2.1", "MAP", "MEASURE", "MANAGE 2.4", "MANAGE 4.1", "NCCoE"];
    asked.extend(named.into_iter().chain(others).map(str::to_owned));
    let missing: Vec<&String> = asked.iter().filter(|id| !known.contains(*id)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
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
