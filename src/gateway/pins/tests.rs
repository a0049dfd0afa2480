//! What is remembered of definitions, in which rows, and within which bounds.

use std::sync::Arc;

use super::rows::all;
use super::*;
use crate::catalog::fake::{server, slice};
use crate::catalog::{Slice, pins::digest};
use crate::config::{ServerConfig, StoreConfig};
use crate::ids::PinKind;
use crate::record::fixture;
use crate::shelf::Row;
use crate::store::StateDirectory;
use crate::wire::{Json, Source};

struct Place {
    directory: tempfile::TempDir,
    store: Store,
    _state: StateDirectory,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&directory.path().join("state")).unwrap();
        let store = Store::open(&state, &StoreConfig::Sqlite).await.unwrap();
        Self { directory, store, _state: state }
    }

    /// The rows of definitions, once there are so many; there are never more.
    async fn rows(&self, count: usize) -> Vec<Row> {
        loop {
            let rows = all(&self.store, PINS).await.unwrap();
            assert!(rows.len() <= count);
            if rows.len() == count {
                return rows;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn keeper(&self) -> Arc<Keeper> {
        let place = self.directory.path().join(ulid::Ulid::generate().to_string());
        std::fs::create_dir(&place).unwrap();
        Arc::new(Keeper::open(self.store.clone(), fixture::start(&place).0).await.unwrap())
    }
}

fn tool(name: &str, description: &str) -> String {
    serde_json::json!({ "name": name, "description": description, "inputSchema": {} }).to_string()
}

fn listing(tools: &[String]) -> Slice {
    slice("git", &tools.iter().map(String::as_str).collect::<Vec<_>>(), None)
}

fn git(pins: PinMode) -> Arc<ServerConfig> {
    Arc::new(ServerConfig { pins, ..server("git") })
}

#[tokio::test]
async fn so_many_wait_and_are_remembered_for_so_long() {
    let place = Place::new().await;
    let keeper = place.keeper().await;
    let tools: Vec<String> = (0..=limit::PINS_WAITING_MAX).map(|n| tool(&format!("t{n}"), "x")).collect();
    let slice = listing(&tools);
    let server = git(PinMode::Strict);
    let before_us = place.store.clock_us().await.unwrap();
    for _ in 0..2 {
        keeper.listed(Listed { server: &server, slice: &slice, complete: true }, &[]).await;
    }
    let rows = place.rows(limit::PINS_WAITING_MAX).await;
    let life_us = i64::try_from(limit::PIN_WAITING_LIFE.as_micros()).unwrap();
    let after_us = place.store.clock_us().await.unwrap();
    for row in &rows {
        let expires_at_us = row.expires_at_us.unwrap();
        assert!((before_us + life_us..=after_us + life_us).contains(&expires_at_us));
    }
    assert!(keeper.pins().now().pins().next().is_none());
}

#[tokio::test]
async fn a_first_list_is_taken_once_whoever_lists_and_survives_a_restart() {
    let place = Place::new().await;
    let (one, other) = (place.keeper().await, place.keeper().await);
    let server = git(PinMode::FirstUse);
    let first = listing(&[tool("log", "Shows the log"), tool("odd", "Shows\u{200b}")]);
    one.listed(Listed { server: &server, slice: &first, complete: false }, &[]).await;
    assert!(!one.pins().now().is_used(&server.id), "a list that is not complete");
    one.listed(Listed { server: &server, slice: &listing(&[]), complete: true }, &[]).await;
    assert!(!one.pins().now().is_used(&server.id), "an empty one");
    one.listed(Listed { server: &server, slice: &first, complete: true }, &[]).await;
    // Another replica does not know of it yet, and lists something else.
    let second = listing(&[tool("log", "Shows the log"), tool("push", "Pushes")]);
    other.listed(Listed { server: &server, slice: &second, complete: true }, &[]).await;
    for keeper in [&one, &other, &place.keeper().await] {
        let accepted = keeper.pins().now();
        assert!(accepted.is_used(&server.id));
        let names: Vec<_> = accepted.pins().map(|pin| pin.held.name.to_string()).collect();
        assert_eq!(names, ["log"], "neither what is odd nor what came second");
    }
}

#[tokio::test]
async fn a_first_list_is_accepted_before_its_words_are_kept_and_words_alone_accept_nothing() {
    let place = Place::new().await;
    let server = ServerId::new("git").unwrap();
    let slice = listing(&[tool("log", "Shows the log")]);
    let pinned = slice.pinned();
    let keeper = place.keeper().await;
    let seen = Seen::of(&server, &keeper.pins().now(), &pinned, pinned.iter());
    let kept = seen[0].kept(&server, 1);
    // The process ended after the words, or after the server's own row.
    assert!(place.store.change(kept.changes(None), Tell::Nobody).await.unwrap().is_done());
    assert!(place.keeper().await.pins().now().pins().next().is_none());
    let other = Place::new().await;
    let named = UsedPin { digest: pinned[0].digest, kind: PinKind::Tool, name: Arc::from("log") };
    let used = Used { pins: vec![named], at: 1 };
    assert!(other.store.change(used.changes(&server), Tell::Nobody).await.unwrap().is_done());
    let keeper = other.keeper().await;
    let accepted = keeper.pins().now();
    assert!(accepted.pin(pinned[0].digest).is_some_and(|pin| pin.held.copy.is_none()));
    assert_eq!(accepted.of_name(&server, PinKind::Tool, "log"), [pinned[0].digest]);
}

#[tokio::test]
async fn a_long_definition_stands_in_several_rows_and_one_that_was_changed_there_is_none() {
    let place = Place::new().await;
    let server = ServerId::new("git").unwrap();
    let long = tool("long", &"ü\"".repeat(limit::PIN_ROW_TEXT_BYTES_MAX));
    let text = Json::parse(long, Source::Client).unwrap();
    let own = digest(&server, "tool", &text);
    let kept = Kept::unseen(
        &server,
        &Pinned { kind: PinKind::Tool, name: Arc::from("long"), digest: own, text: text.clone() },
    );
    let kept = Kept { says: Stored { state: PinState::Accepted, ..kept.says }, ..kept };
    let changes = kept.changes(None);
    assert!(changes.len() > 3);
    for change in &changes {
        let Action::Put { body, .. } = &change.action else { panic!("{change:?}") };
        assert!(body.len() <= limit::PIN_ROW_TEXT_BYTES_MAX && body.len() <= limit::SHELF_BODY_BYTES_MAX);
    }
    assert!(place.store.change(changes, Tell::Nobody).await.unwrap().is_done());
    let copy = |keeper: &Arc<Keeper>| keeper.pins().now().pin(own).unwrap().held.copy.clone();
    assert_eq!(copy(&place.keeper().await), Some(text));
    // Whoever writes into the store does not write what a model reads.
    let rows: Vec<Row> = all(&place.store, PINS).await.unwrap();
    let last = rows.last().unwrap();
    let put = Action::Put { owner: String::new(), body: last.body.replace('ü', "x"), expires_at_us: None };
    place.store.change(vec![Change::new(PINS, &last.key, Expect::Anything, put)], Tell::Nobody).await.unwrap();
    assert_eq!(copy(&place.keeper().await), None);
}

#[test]
fn batches_are_as_large_as_the_shelf_takes() {
    let one = || vec![Change::new(PINS, "x", Expect::Anything, Action::Check)];
    let made = batches((0..limit::SHELF_CHANGES_MAX * 2).map(|_| one()), 0);
    assert!(made.iter().all(|batch| batch.len() < limit::SHELF_CHANGES_MAX), "one place is left");
    assert_eq!(made.iter().map(Vec::len).sum::<usize>(), limit::SHELF_CHANGES_MAX * 2);
}

#[test]
fn a_new_definition_is_compared_with_so_many_removed_ones() {
    let server = ServerId::new("git").unwrap();
    let text = "Moves money from one account to another and tells both owners of it.";
    let renamed_among = |count: usize| {
        let mut removed: Vec<String> =
            (0..count).map(|n| tool(&format!("gone{n}"), &format!("{n} other things"))).collect();
        removed.push(tool("zz", text));
        let pins = Pins::default();
        let accepted = listing(&removed).pinned();
        pins.hold(crate::catalog::pins::Held {
            accepted: accepted
                .into_iter()
                .map(|pinned| crate::catalog::pins::HeldPin {
                    digest: pinned.digest,
                    server: server.clone(),
                    kind: pinned.kind,
                    name: pinned.name,
                    copy: Some(pinned.text),
                })
                .collect(),
            ..crate::catalog::pins::Held::default()
        });
        let now = listing(&[tool("send", text)]).pinned();
        Seen::of(&server, &pins.now(), &now, now.iter())[0].renamed_from.clone()
    };
    assert_eq!(renamed_among(20).as_deref(), Some("zz"));
    assert_eq!(renamed_among(limit::PIN_COMPARISONS_MAX - 1).as_deref(), Some("zz"), "the last that is compared");
    assert_eq!(renamed_among(limit::PIN_COMPARISONS_MAX), None);
}
