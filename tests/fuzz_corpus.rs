//! Replays the committed seeds of the fuzz targets on the stable toolchain, through the same checks.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a check that fails shall panic, which is how the fuzzer learns of it"
)]

use std::fs;
use std::path::Path;

#[path = "../fuzz/checks/condition.rs"]
mod condition;
#[path = "../fuzz/checks/message.rs"]
mod message;
#[path = "../fuzz/checks/names.rs"]
mod names;
#[path = "../fuzz/checks/sse.rs"]
mod sse;
#[path = "../fuzz/checks/tokens.rs"]
mod tokens;

/// A check panics where something that must hold does not.
type Check = fn(&[u8]);

/// Every target of `fuzz/Cargo.toml` and its check.
const TARGETS: &[(&str, Check)] = &[
    ("message", message::check),
    ("sse", sse::check),
    ("names", names::check),
    ("condition", condition::check),
    ("tokens", tokens::check),
];

#[test]
fn what_holds_for_any_input_holds_for_every_seed() {
    for (target, check) in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut seeds: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        assert!(seeds.len() >= 8, "{}: only {} seeds", directory.display(), seeds.len());
        for seed in seeds {
            let data = fs::read(&seed).unwrap();
            let outcome = std::panic::catch_unwind(|| check(&data));
            assert!(outcome.is_ok(), "the check of `{target}` fails for {}", seed.display());
        }
    }
}

#[test]
fn every_fuzz_target_is_replayed_here() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
    let names: Vec<_> = manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    let replayed: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, replayed);
}
