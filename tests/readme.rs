//! What the papers tell people to type can be typed, and the questions among it are answered.
#![expect(clippy::unwrap_used, reason = "a test that stumbles shall fail")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bailiwick::cli::Arguments;
use clap::Parser;

#[path = "readme/snippets.rs"]
mod snippets;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The command lines in the `sh` blocks of a page, as words, without our own name.
fn typed(page: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(page).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut found = Vec::new();
    for line in blocks.flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>()) {
        let words = shell_words(&line);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["cargo", "run", "--", rest @ ..] | ["bailiwick", rest @ ..] => {
                found.push(rest.iter().map(|word| (*word).to_owned()).collect());
            }
            _ => {}
        }
    }
    found
}

/// Words as a shell splits them, as far as these pages go: blanks, single quotation marks, comments and pipes.
fn shell_words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        for word in part.split_whitespace() {
            if word.starts_with('#') || word == "|" || word == "&&" {
                return words;
            }
            words.push(word.to_owned());
        }
    }
    words
}

fn pages() -> Vec<PathBuf> {
    let own = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "examples/README.md"].map(|page| root().join(page));
    let deploy = std::fs::read_dir(root().join("examples/deploy")).unwrap();
    let deploy = deploy.map(|entry| entry.unwrap().path().join("README.md"));
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|page| page.extension().is_some_and(|extension| extension == "md"));
    let mut pages: Vec<PathBuf> = own.into_iter().chain(deploy).chain(docs).filter(|page| page.is_file()).collect();
    pages.sort();
    assert!(pages.len() >= 16, "{pages:?}");
    pages
}

#[test]
fn what_the_papers_say_can_be_typed() {
    let mut checked = 0;
    for page in pages() {
        for words in typed(&page) {
            let line = std::iter::once("bailiwick".to_owned()).chain(words.clone());
            let parsed = Arguments::try_parse_from(line);
            assert!(parsed.is_ok(), "{}: {words:?}: {}", page.display(), parsed.unwrap_err());
            checked += 1;
        }
    }
    assert!(checked >= 20, "only {checked} command lines were found");
}

#[test]
fn the_questions_of_the_readme_are_answered() {
    let mut asked = 0;
    for words in typed(&root().join("README.md")) {
        if !["explain", "who-can", "what-can", "check", "connect"].contains(&words[0].as_str()) {
            continue;
        }
        let output = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
            .args(&words)
            .current_dir(root())
            .env_remove("BAILIWICK_CONFIG")
            .output()
            .unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        match words[0].as_str() {
            "check" => {
                assert_eq!(output.status.code(), Some(0), "{words:?}: {stderr}");
                assert!(stdout.contains("no mistakes"), "{words:?}: {stdout}");
            }
            "explain" => {
                assert_eq!((output.status.code(), &*stderr), (Some(1), ""), "{words:?}");
                assert!(stdout.contains("condition_unmet") && stdout.contains("replicas = 9"), "{stdout}");
            }
            _ => {
                assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{words:?}");
                assert!(stdout.lines().count() > 1, "{words:?}: {stdout}");
            }
        }
        asked += 1;
    }
    assert!(asked >= 5, "only {asked} questions were found");
}
