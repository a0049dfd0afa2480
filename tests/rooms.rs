//! Who may enter which room: the import rules of ARCHITECTURE.md, checked against every file of `src/`.
//!
//! Each rule is a test of its own, and its failure names file and line and says what to do. The checker
//! reads source text without comments, strings and test modules; the last tests show that it can fail.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a checker that stumbles shall fail")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use source::code;

#[path = "rooms/source.rs"]
mod source;

/// The rooms and the files beside them, and what each may import of ours. What is missing here is refused.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // The ground knows nothing else of ours.
    ("limit", &[]),
    // Nothing, but in a build that no release has.
    ("inversion", &[]),
    ("lanes", &["limit"]),
    ("ids", &["limit"]),
    ("wire", &["limit", "ids"]),
    ("outcome", &["limit", "ids", "wire"]),
    ("shelf", &["limit", "ids", "outcome"]),
    ("config", &["limit", "ids"]),
    // What is to be told elsewhere, in the change that it tells of.
    ("outbox", &["limit", "config", "shelf"]),
    ("egress", &["limit", "lanes", "ids", "outcome", "config"]),
    ("record", &["limit", "inversion", "lanes", "ids", "outcome", "wire", "config"]),
    // How we are somebody's client is one thing, whoever asks.
    ("oauth", &["limit", "ids", "config", "egress"]),
    // They tell others what was recorded and how calls went, and know no call.
    ("export", &["limit", "ids", "config", "egress", "record"]),
    ("telemetry", &["limit", "ids", "config", "egress", "record"]),
    // It holds the record against the policy.
    ("evidence", &["limit", "ids", "outcome", "record", "policy"]),
    // The stages of a call: each may name the proofs of the stages before it.
    ("identity", &["limit", "inversion", "ids", "outcome", "shelf", "wire", "config", "egress", "record"]),
    ("catalog", &["limit", "ids", "outcome", "shelf", "wire", "config", "record", "identity"]),
    ("policy", &["limit", "inversion", "ids", "outcome", "shelf", "wire", "config", "record", "identity", "catalog"]),
    (
        "guard",
        &[
            "limit",
            "inversion",
            "ids",
            "outcome",
            "shelf",
            "outbox",
            "wire",
            "config",
            "record",
            "identity",
            "catalog",
            "policy",
        ],
    ),
    (
        "delegate",
        &[
            "limit",
            "inversion",
            "ids",
            "outcome",
            "shelf",
            "wire",
            "config",
            "egress",
            "oauth",
            "record",
            "identity",
            "catalog",
            "policy",
            "guard",
        ],
    ),
    // It takes an entry and bytes, and never learns who asked.
    ("upstream", &["limit", "ids", "outcome", "wire", "config", "egress", "record", "catalog", "delegate"]),
    // The traits that the rooms above declare are implemented here.
    (
        "store",
        &[
            "limit", "ids", "outcome", "shelf", "wire", "config", "record", "identity", "catalog", "policy", "guard",
            "delegate",
        ],
    ),
    // `bailiwick token` asks the running issuer over its guarded client.
    ("demo", &["limit", "ids", "config", "egress"]),
    // The only places that compose the rooms.
    ("call", PIPELINE),
    ("list", PIPELINE),
    ("watch", PIPELINE),
    ("gateway", PIPELINE),
    // What identity providers tell; how a revocation is carried out it leaves to whoever wires it.
    ("feeds", &["limit", "ids", "outcome", "config", "egress", "record", "identity"]),
    // Registers assistants in the place of a provider, and issues nothing.
    ("facade", &["limit", "ids", "outcome", "wire", "config", "egress", "record"]),
    // Pages for people, who link their accounts there: composed like a call, of the same rooms.
    ("link", PIPELINE),
    // Toward the outside: through the pipeline, never past it.
    (
        "front",
        &[
            "limit", "lanes", "ids", "outcome", "shelf", "wire", "config", "egress", "identity", "upstream", "record",
            "call", "link", "list", "watch", "gateway", "facade", "feeds",
        ],
    ),
    // Its listener stands on the front's connections, certificates and `Host` and `Origin`: there is one of each.
    (
        "control",
        &[
            "limit", "ids", "outcome", "shelf", "wire", "config", "egress", "oauth", "identity", "policy", "record",
            "gateway", "front",
        ],
    ),
    // Opens the rooms in order, and closes them.
    ("serve", EVERYTHING),
    ("cli", EVERYTHING),
    ("main", EVERYTHING),
    ("lib", &[]),
];

const PIPELINE: &[&str] = &[
    "limit",
    "inversion",
    "ids",
    "shelf",
    "outbox",
    "outcome",
    "wire",
    "config",
    "egress",
    "oauth",
    "record",
    "identity",
    "catalog",
    "policy",
    "guard",
    "delegate",
    "upstream",
    "store",
    "export",
    "telemetry",
    "evidence",
    "call",
    "link",
    "list",
    "watch",
    "gateway",
];

const EVERYTHING: &[&str] = &[
    "limit",
    "inversion",
    "lanes",
    "ids",
    "shelf",
    "outbox",
    "outcome",
    "wire",
    "config",
    "egress",
    "oauth",
    "record",
    "identity",
    "catalog",
    "policy",
    "guard",
    "delegate",
    "upstream",
    "store",
    "export",
    "telemetry",
    "evidence",
    "demo",
    "call",
    "link",
    "list",
    "watch",
    "gateway",
    "facade",
    "feeds",
    "front",
    "control",
    "serve",
    "cli",
];

/// Which rooms alone may name a crate.
const OWNED_CRATES: &[(&str, &[&str])] = &[
    ("casbin", &["policy"]),
    // `delegate` signs what the gateway says of itself to authorization servers, `oauth` that a token is used by whoever it
    // was issued to; they verify nothing.
    ("jsonwebtoken", &["identity", "delegate", "oauth", "demo"]),
    ("sqlx", &["store"]),
    ("axum", &["front", "control", "demo"]),
];

/// Words that build an HTTP client, whoever owns its type, or connect to an address without one.
const CLIENT_BUILDERS: &[&str] = &[
    "reqwest::Client::new",
    "reqwest::Client::builder",
    "reqwest::ClientBuilder",
    "reqwest::get",
    "hyper_util::client::legacy::Client::builder",
    "HttpConnector::new",
    "HttpsConnectorBuilder",
    "TcpStream::connect",
];

/// Lines of a file before its test module.
const LINES_MAX: usize = 500;

#[test]
fn only_policy_names_casbin_and_each_owned_crate_stays_in_its_room() {
    check(|file, line| {
        OWNED_CRATES.iter().find_map(|(owned, rooms)| {
            (names_path(line, owned) && !rooms.contains(&file.room.as_str())).then(|| {
                format!("names the crate `{owned}`: that is for {} alone; ask that room for what you need", list(rooms))
            })
        })
    });
}

#[test]
fn only_egress_builds_http_clients() {
    check(|file, line| client_built(&file.room, line));
}

#[test]
fn upstream_never_names_a_caller_or_the_inbound_token() {
    check(|file, line| caller_named(&file.room, line));
}

#[test]
fn rooms_import_downwards_only() {
    check(|file, line| imported_upwards(&file.room, line));
}

#[test]
fn every_room_has_a_row_in_this_table() {
    let mut missing: Vec<_> = sources().into_iter().map(|file| file.room).collect();
    missing.retain(|room| !MAY_IMPORT.iter().any(|(known, _)| known == room));
    missing.dedup();
    assert!(
        missing.is_empty(),
        "no import rule for {missing:?}: decide what they may know and add a row to MAY_IMPORT in tests/rooms.rs"
    );
}

#[test]
fn every_file_opens_with_what_it_decides() {
    let silent: Vec<_> =
        sources().into_iter().filter(|file| !file.text.starts_with("//!")).map(|file| file.path).collect();
    assert!(silent.is_empty(), "begin with `//!` (what it decides, what it refuses to know): {silent:?}");
}

#[test]
fn no_file_is_too_long_to_read_at_once() {
    let mut long = String::new();
    for file in sources() {
        let lines = code(&file.text).lines().count();
        if lines > LINES_MAX && !file.is_test {
            writeln!(
                long,
                "  {}: {lines} lines, its tests aside; split it by idea, at most {LINES_MAX}",
                file.path.display()
            )
            .unwrap();
        }
    }
    assert!(long.is_empty(), "files that are too long:\n{long}");
}

#[test]
fn the_checker_finds_what_it_should() {
    assert_eq!(imported("use crate::{call::Endpoint, ids, wire::{self, Json}};"), ["call", "ids", "wire"]);
    assert_eq!(imported("let x = crate::policy::Permit::y();"), ["policy"]);
    assert!(imported_upwards("wire", "use crate::identity::Caller;").is_some());
    assert!(imported_upwards("record", "use crate::{ids, policy::Permit};").is_some());
    assert!(imported_upwards("identity", "use crate::ids::Subject;").is_none());
    assert!(imported_upwards("identity", "use crate::identity::Caller;").is_none());
    assert!(client_built("delegate", "let c = reqwest::Client::new();").is_some());
    assert!(client_built("egress", "let c = reqwest::Client::new();").is_none());
    assert!(caller_named("upstream", "fn f(caller: &Caller) {}").is_some());
    assert!(caller_named("upstream", "use crate::identity::Caller as Who;").is_some());
    assert!(caller_named("upstream", "let t = x.subject_token();").is_some());
    assert!(caller_named("upstream", "if server.list_as == ListAs::Caller {}").is_none());
    assert!(caller_named("upstream", "let callers = 1; let CallerKind = 2;").is_none());
    assert!(names_path("use casbin::Enforcer;", "casbin"));
    assert!(names_path("let e = casbin::Enforcer::new();", "casbin"));
    assert!(names_path("pub use {casbin, std};", "casbin"));
    assert!(!names_path("let casbin_like = 1;", "casbin"));
}

#[test]
fn comments_strings_and_test_modules_are_not_code() {
    let text = r##"//! casbin
use std::fmt; // casbin
/* casbin
   /* nested */ casbin */
const A: &str = "casbin \" casbin";
const B: &str = r#"casbin " casbin"#;
const C: char = '"';
fn f<'a>(x: &'a str) -> &'a str { x }
#[cfg(test)]
mod tests {
    use casbin::Enforcer;
}
"##;
    let code = code(text);
    assert!(!code.contains("casbin"), "{code}");
    assert!(code.contains("fn f<'a>(x: &'a str)"), "{code}");
    assert_eq!(code.lines().count(), 8, "lines keep their numbers: {code}");
    assert!(super_code_is_kept());
}

fn super_code_is_kept() -> bool {
    code("#[cfg(test)]\nfn only() {}\nuse casbin::X;\n").contains("casbin")
}

/// One source file.
struct SourceFile {
    path: PathBuf,
    /// The first component below `src/`, without `.rs`.
    room: String,
    text: String,
    is_test: bool,
}

/// Asks the rule about every line of code and fails with all its complaints.
fn check(rule: impl Fn(&SourceFile, &str) -> Option<String>) {
    let mut complaints = String::new();
    let files = sources();
    assert!(files.len() > 20, "only {} files found: the checker looks in the wrong place", files.len());
    for file in files.iter().filter(|file| !file.is_test) {
        for (number, line) in statements(&code(&file.text)) {
            if let Some(complaint) = rule(file, &line) {
                writeln!(complaints, "  {}:{number}: {complaint}", file.path.display()).unwrap();
            }
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut open = vec![root.join("src")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_owned();
                let room = path.iter().nth(1).unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
                let stem = path.with_extension("");
                let is_test = stem.iter().any(|part| part.to_string_lossy().ends_with("tests"));
                files.push(SourceFile { path, room, text, is_test });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn imported_upwards(room: &str, line: &str) -> Option<String> {
    let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| allowed);
    let name = imported(line)
        .into_iter()
        .find(|name| name != room && !allowed.contains(&name.as_str()) && EVERYTHING.contains(&name.as_str()))?;
    Some(format!(
        "`{room}` names `crate::{name}`, which it must not know: let the caller pass what you need, move the type down \
         to the room that earns it, or declare a trait here that `gateway.rs` wires"
    ))
}

fn client_built(room: &str, line: &str) -> Option<String> {
    let built = CLIENT_BUILDERS.iter().find(|builder| line.contains(*builder))?;
    // The control socket's client talks to a file of ours, and to no address at all.
    let to_a_socket_file = room == "control" && *built == "hyper::client::conn";
    (room != "egress" && !to_a_socket_file).then(|| {
        format!("`{built}` builds an HTTP client without the guard against private addresses: take one from `egress`")
    })
}

fn caller_named(room: &str, line: &str) -> Option<String> {
    if room != "upstream" {
        return None;
    }
    let without_the_setting = line.replace("ListAs::Caller", "");
    ["Caller", "subject_token"].into_iter().find(|word| has_word(&without_the_setting, word)).map(|word| {
        format!(
            "`upstream` names `{word}`: it forwards entries and never learns who asked; pass the fact that you need"
        )
    })
}

/// The rooms that a statement names through `crate::`.
fn imported(statement: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in statement.match_indices("crate::") {
        if at > 0 && is_word(statement.as_bytes()[at - 1]) {
            continue;
        }
        let rest = &statement[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => names.push(first_word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (index, character) in group.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if start && !character.is_whitespace() => {
                            names.push(first_word(&group[index..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// Whether a statement names a crate: as a path, or as a whole item of a `use`.
fn names_path(line: &str, name: &str) -> bool {
    let used = line.trim_start().starts_with("use ") || line.contains(" use ");
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].bytes().next_back();
        let after = &line[at + name.len()..];
        let whole = before.is_none_or(|byte| !is_word(byte)) && after.bytes().next().is_none_or(|byte| !is_word(byte));
        let own_path = line[..at].ends_with("::") && !line[..at].ends_with(" ::");
        whole && !own_path && (after.starts_with("::") || used)
    })
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].bytes().next_back().is_none_or(|byte| !is_word(byte));
        before && line[at + word.len()..].bytes().next().is_none_or(|byte| !is_word(byte))
    })
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn list(rooms: &[&str]) -> String {
    rooms.iter().map(|room| format!("`{room}`")).collect::<Vec<_>>().join(" and ")
}

/// Lines of code with their numbers; a `use` that spans lines is one statement at its first line.
fn statements(code: &str) -> Vec<(usize, String)> {
    let mut statements: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in code.lines().enumerate() {
        let trimmed = line.trim();
        if open {
            if let Some((_, statement)) = statements.last_mut() {
                statement.push_str(trimmed);
            }
        } else {
            statements.push((index + 1, trimmed.to_owned()));
            open = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
                .iter()
                .any(|start| trimmed.starts_with(start));
        }
        open &= !trimmed.contains(';');
    }
    statements
}
