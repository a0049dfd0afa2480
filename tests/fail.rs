//! Programs that must not compile: proofs forged outside of their rooms, proofs used twice.
//!
//! Each file in `tests/fail/` is compiled against the library that this test was built with. A line that
//! ends with `//~ E0451 words` must have exactly that error, its message must hold the words, and there must
//! be no other error anywhere; `allowed.rs` must compile. Not `trybuild`: it would check every dependency a
//! second time, two C libraries among them, to learn what one call of the compiler tells.
#![expect(clippy::unwrap_used, reason = "helpers of tests may say what they mean")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Line, code, and the message (found) or words of it (expected).
type Error = (usize, String, String);

#[test]
fn no_proof_can_be_forged_or_used_twice() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fail");
    let mut programs: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    programs.sort();
    let mut compiled = 0;
    for program in &programs {
        let expected = expected(&fs::read_to_string(program).unwrap());
        let found = compile(program);
        let name = program.file_name().unwrap().to_string_lossy();
        let as_expected = expected.len() == found.len()
            && expected.iter().zip(&found).all(|((line, code, words), (at, what, message))| {
                line == at && code == what && message.contains(words.as_str())
            });
        assert!(as_expected, "{name}: the compiler should say\n{expected:#?}\nand says\n{found:#?}");
        compiled += usize::from(expected.is_empty());
    }
    // Without a program that compiles, a library that cannot be found would look like success.
    assert_eq!(compiled, 1, "`allowed.rs` and nothing else is without an expected error");
    assert!(programs.len() > compiled);
}

#[test]
fn an_expectation_is_read_from_its_line() {
    let text = "fn a() {}\n    let x = 1; //~ E0451 field `x`\n";
    assert_eq!(expected(text), [(2, "E0451".to_owned(), "field `x`".to_owned())]);
}

#[test]
fn an_error_is_read_from_what_the_compiler_prints() {
    let text = "tests/fail/a.rs:7:5: error[E0451]: field `x` is private\nerror: aborting due to 1 previous error\n";
    assert_eq!(errors(text), [(7, "E0451".to_owned(), "field `x` is private".to_owned())]);
    assert_eq!(errors("tests/fail/a.rs:7:5: error: expected `;`"), [(7, String::new(), "expected `;`".to_owned())]);
    assert_eq!(errors("error[E0463]: can't find crate")[0].1, "E0463");
}

fn expected(program: &str) -> Vec<Error> {
    let lines = program.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let (code, words) = line.split_once("//~ ")?.1.split_once(' ')?;
            Some((index + 1, code.to_owned(), words.to_owned()))
        })
        .collect()
}

fn compile(program: &Path) -> Vec<Error> {
    let library = library();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fail");
    fs::create_dir_all(&out).unwrap();
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let dependencies = format!("dependency={}", library.parent().unwrap().display());
    let output = command
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--error-format=short", "--cap-lints=allow"])
        .args(["-L", &dependencies])
        .arg(format!("--extern=bailiwick={}", library.display()))
        .arg("--out-dir")
        .arg(out)
        .arg(program)
        .output()
        .unwrap();
    let found = errors(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), found.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    found
}

/// The errors among what the compiler prints, in the order of their lines.
fn errors(printed: &str) -> Vec<Error> {
    let mut errors: Vec<Error> = printed.lines().filter_map(error).collect();
    errors.sort();
    errors
}

fn error(line: &str) -> Option<Error> {
    if line.starts_with("error: aborting") {
        return None;
    }
    let start = line.find("error")?;
    let (place, rest) = line.split_at(start);
    let (head, message) = rest.split_once(": ")?;
    let code = head.strip_prefix("error")?.trim_start_matches('[').trim_end_matches(']');
    let number = place.trim_end_matches(": ").rsplit(':').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    Some((number, code.to_owned(), message.to_owned()))
}

/// The library beside this test: the newest one, because cargo leaves older ones lying about.
fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("libbailiwick-") && name.ends_with(".rlib")
    };
    let libraries = fs::read_dir(deps).unwrap().map(|entry| entry.unwrap().path()).filter(named);
    libraries.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap()
}
