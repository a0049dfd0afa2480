//! What the sections of keys say, and what the page says of them.

use super::*;

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// What the page says: file, section, key, type, default, meaning.
fn documented() -> Vec<[String; 6]> {
    let (mut file, mut title, mut rows) = (String::new(), String::new(), Vec::new());
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            file = heading.trim_matches('`').to_owned();
        } else if let Some(heading) = line.strip_prefix("### ") {
            title = heading.trim_matches('`').to_owned();
        } else if line.starts_with("| `") && SECTIONS.iter().any(|section| section.file == file) {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [key, kind, default, meaning] = cells[..] else { panic!("not four cells: {line}") };
            let key = key.trim_matches('`');
            rows.push([&file, &title, key, kind, default, meaning].map(ToString::to_string));
        }
    }
    rows
}

#[test]
fn the_page_has_every_key_with_its_type_and_default_and_no_other() {
    let known = SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)));
    let known: Vec<_> = known
        .map(|(section, key)| {
            let default = match key.default {
                Default::Required => "**required**".to_owned(),
                Default::Absent => "–".to_owned(),
                Default::Value(value) => format!("`{value}`"),
            };
            [section.file, section.title, key.name, key.kind, &default].map(ToString::to_string)
        })
        .collect();
    let documented = documented();
    assert!(documented.iter().all(|[.., meaning]| meaning.len() > 5), "a key without a meaning");
    let documented: Vec<_> =
        documented.into_iter().map(|[file, title, key, kind, default, _]| [file, title, key, kind, default]).collect();
    for (documented, known) in documented.iter().zip(&known) {
        assert_eq!(documented, known, "docs/configuration.md (left) and src/config/keys.rs (right) differ");
    }
    assert_eq!(documented.len(), known.len(), "docs/configuration.md or src/config/keys.rs has more");
}

#[test]
fn no_section_has_a_key_twice() {
    for section in SECTIONS {
        let mut names: Vec<_> = section.keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), section.keys.len(), "{}", section.title);
    }
}
