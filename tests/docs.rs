//! The papers say what the code does: checked in both directions.

use std::collections::BTreeSet;

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
