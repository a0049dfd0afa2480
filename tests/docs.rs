//! The papers say what the code does: checked in both directions.

#![expect(clippy::unwrap_used, reason = "a test says what must hold, and fails where it does not")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bailiwick::outcome::Reason;

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
