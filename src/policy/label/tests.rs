//! What labels say of calls, and what flows say of what was seen.

use jiff::Timestamp;

use super::super::condition::Arguments;
use super::super::fixture::{build_with, environment, user, world};
use super::super::{Ask, Policy};
use super::*;
use crate::catalog::Hints;
use crate::ids::ServerId;
use crate::limit;

const NOW: Timestamp = Timestamp::constant(1_767_268_800, 0);

const CONDITIONS: &str = r#"
[to-us]
argument = "to"
ends_with = "@example.com"

[large]
argument = "rows"
above = 100
"#;

fn policy(labels: &str) -> Policy {
    build_with(&[("labels.toml", labels), ("policy.csv", SETS), ("conditions.toml", CONDITIONS)], &world())
        .unwrap()
        .policy
}

const SETS: &str = "g2, github/list_issues, github/@read\np, anyone, *, */*, call, -, allow\n";

fn labelled(policy: &Policy, object: &str, arguments: &str, hints: Hints) -> Labelled {
    let (server, name) = object.split_once('/').unwrap();
    let (server, place) = (ServerId::new(server).unwrap(), environment("staging"));
    let ask = Ask { environment: &place, server: &server, name, action: &Action::Call };
    policy.labelled(&user("ann", &[]), &ask, hints, Arguments::Json(arguments), NOW).unwrap()
}

fn plain(policy: &Policy, object: &str) -> Labelled {
    labelled(policy, object, "{}", Hints::default())
}

#[test]
fn without_the_file_nothing_is_labelled() {
    let built = build_with(&[], &world()).unwrap();
    assert!(!built.policy.has_labels());
}

#[test]
fn several_entries_add_up_to_the_worst_of_each() {
    let policy = policy(
        r#"
        [[label]]
        objects = ["files/*"]
        reads = "internal"
        [[label]]
        objects = ["files/view", "github/@read"]
        reads = "private"
        content = "untrusted"
        store = "disk"
        [[label]]
        objects = ["files/view"]
        actions = ["call"]
        effect = "write"
        "#,
    );
    let view = plain(&policy, "files/view");
    assert_eq!(
        (view.reads, view.untrusted, view.sends, view.impact),
        (Reads::Private, true, Sends::Nowhere, Impact::Write)
    );
    assert_eq!(view.stores.iter().map(|store| &*store.name).collect::<Vec<_>>(), ["disk"]);
    assert!(view.reads_stores() && view.writes_stores());
    assert_eq!(plain(&policy, "files/other").reads, Reads::Internal);
    assert!(plain(&policy, "github/list_issues").untrusted, "a set means its members");
    assert_eq!(view.names().collect::<Vec<_>>(), ["private", "write", "untrusted"]);
}

#[test]
fn what_nobody_has_labelled_is_taken_for_the_worst_unless_the_file_says_otherwise() {
    let worst = plain(&policy(""), "files/view");
    assert_eq!((worst.reads, worst.untrusted, worst.sends), (Reads::Private, true, Sends::External));
    let harmless = plain(&policy("unlabelled = \"harmless\""), "files/view");
    assert_eq!(harmless, Labelled::default());
}

#[test]
fn an_upstream_can_only_make_its_tools_look_worse() {
    let policy = policy("[[label]]\nobjects = [\"files/*\"]\nreads = \"private\"");
    let hinted = labelled(&policy, "files/view", "{}", Hints { destructive: true, open_world: true });
    assert_eq!((hinted.impact, hinted.sends, hinted.untrusted), (Impact::Destructive, Sends::External, true));
    assert_eq!(hinted.reads, Reads::Private);
}

/// What one entry may say, beside naming the tool.
const SAID: [&str; 9] = [
    "reads = \"internal\"",
    "reads = \"private\"\nstore = \"b\"",
    "content = \"untrusted\"",
    "sends = \"external\"",
    "effect = \"write\"",
    "effect = \"destructive\"\nstore = \"a\"",
    "store = \"a\"",
    "store = \"b\"\nwhen = \"to-us\"",
    "effect = \"read\"",
];

#[test]
fn nothing_that_is_said_beside_an_entry_makes_a_tool_anything_less() {
    let entry = |said: &str| format!("[[label]]\nobjects = [\"files/view\"]\n{said}\n");
    let of = |entries: &str, hints: Hints| labelled(&policy(entries), "files/view", r#"{"to":"x@example.com"}"#, hints);
    let is_less = |less: &Labelled, more: &Labelled| {
        let read = |labelled: &Labelled| {
            labelled.stores.iter().filter(|store| labelled.reads_from(store)).map(|store| store.name.clone()).collect()
        };
        let (before, after): (Vec<Arc<str>>, Vec<Arc<str>>) = (read(less), read(more));
        more.reads < less.reads
            || more.sends < less.sends
            || more.impact < less.impact
            || (less.untrusted && !more.untrusted)
            || (less.writes_stores() && !more.writes_stores())
            || before.iter().any(|store| !after.contains(store))
    };
    let hints = [false, true].map(|destructive| [false, true].map(|open_world| Hints { destructive, open_world }));
    for one in SAID {
        let alone = of(&entry(one), Hints::default());
        for other in SAID {
            for hints in hints.iter().flatten() {
                let more = of(&format!("{}{}", entry(other), entry(one)), *hints);
                assert!(!is_less(&alone, &more), "{one}\nand {other}, {hints:?}: {more:?}");
            }
        }
    }
}

#[test]
fn an_entry_that_says_nothing_of_what_comes_and_goes_is_warned_of() {
    let warned = |labels: &str| {
        let built =
            build_with(&[("labels.toml", labels), ("policy.csv", SETS), ("conditions.toml", CONDITIONS)], &world());
        let warnings = built.unwrap().warnings.into_iter().map(|warning| warning.to_string());
        warnings.filter(|warning| warning.starts_with("labels.toml")).collect::<Vec<_>>()
    };
    let silent = "[[label]]\nobjects = [\"files/view\"]\neffect = \"write\"\nstore = \"a\"\n";
    let found = warned(&format!("{silent}[[label]]\nobjects = [\"files/list\"]\nreads = \"nothing\"\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("labels.toml:1:1: what it means is taken for something that reads nothing"),
        "{found:?}"
    );
    assert!(warned(&format!("unlabelled = \"harmless\"\n{silent}")).is_empty());
}

#[test]
fn a_condition_that_only_labels_use_is_used() {
    let labels = "[[label]]\nobjects = [\"files/view\"]\nwhen = \"large\"\nreads = \"private\"\n\
                  [[flow]]\nfrom = [\"private\"]\nunless = \"to-us\"\n";
    let built = build_with(&[("labels.toml", labels), ("policy.csv", SETS), ("conditions.toml", CONDITIONS)], &world());
    let warnings = built.unwrap().warnings;
    assert!(!warnings.iter().any(|warning| warning.to_string().contains("uses the condition")), "{warnings:?}");
}

#[test]
fn an_entry_with_a_condition_counts_unless_that_surely_does_not_hold() {
    let policy = policy(
        "unlabelled = \"harmless\"\n[[label]]\nobjects = [\"files/*\"]\nwhen = \"large\"\nreads = \"regulated\"",
    );
    let reads = |arguments| labelled(&policy, "files/view", arguments, Hints::default()).reads;
    assert_eq!(reads(r#"{"rows":101}"#), Reads::Regulated);
    assert_eq!(reads(r#"{"rows":100}"#), Reads::Nothing);
    assert_eq!(reads("{}"), Reads::Regulated, "nobody knows how many");
}

#[test]
fn private_data_and_untrusted_content_together_keep_a_call_in_the_house() {
    let policy = policy(
        r#"
        [[label]]
        objects = ["files/send"]
        sends = "external"
        [[label]]
        objects = ["files/mail"]
        sends = "external"
        reads = "private"
        [[label]]
        objects = ["files/note"]
        sends = "internal"
        "#,
    );
    let judge = |object: &str, seen: Seen| {
        policy.judge_flow(&plain(&policy, object), seen, &user("ann", &[]), Arguments::Json("{}"), NOW)
    };
    let against = |from| Judged::Against { rule: Arc::from("labels.toml"), from, observed: false };
    let both = Seen::PRIVATE.with(Seen::UNTRUSTED);
    for seen in [Seen::NOTHING, Seen::PRIVATE, Seen::UNTRUSTED, Seen::INTERNAL.with(Seen::UNTRUSTED)] {
        assert_eq!(judge("files/send", seen), Judged::Free, "{seen}");
    }
    assert_eq!(judge("files/send", both), against(both));
    assert_eq!(judge("files/send", Seen::REGULATED), against(Seen::REGULATED));
    assert_eq!(judge("files/note", both.with(Seen::REGULATED)), Judged::Free, "it stays in the house");
    // It reads what is private by itself, and sends it on.
    assert_eq!(judge("files/mail", Seen::UNTRUSTED), against(both));
    assert!(policy.is_judged(&plain(&policy, "files/send")) && !policy.is_judged(&plain(&policy, "files/note")));
}

#[test]
fn a_flow_leaves_out_whom_its_condition_surely_means_and_may_only_be_observed() {
    let policy = policy(
        r#"
        mode = "observe"
        [[flow]]
        from = ["private"]
        unless = "to-us"
        "#,
    );
    let judge = |arguments: &str| {
        let send = labelled(&policy, "files/send", arguments, Hints::default());
        policy.judge_flow(&send, Seen::PRIVATE, &user("ann", &[]), Arguments::Json(arguments), NOW)
    };
    assert_eq!(judge(r#"{"to":"a@example.com"}"#), Judged::Free);
    for arguments in [r#"{"to":"a@example.org"}"#, "{}", r#"{"to":7}"#, r#"{"to":["a@example.com","b@evil.test"]}"#] {
        let rule = Arc::from("labels.toml:3");
        assert_eq!(judge(arguments), Judged::Against { rule, from: Seen::PRIVATE, observed: true }, "{arguments}");
    }
}

#[test]
fn what_is_worse_is_meant_by_every_word_below_it() {
    let of = |reads, impact| Labelled { reads, impact, ..Labelled::default() };
    let meant = |own: &Labelled| Labelled::NAMES.into_iter().filter(|name| own.does(name)).collect::<Vec<_>>();
    for (own, expected) in [
        (of(Reads::Nothing, Impact::Read), &[][..]),
        (of(Reads::Internal, Impact::Write), &["internal", "write"]),
        (of(Reads::Private, Impact::Destructive), &["internal", "private", "write", "destructive"]),
        (of(Reads::Regulated, Impact::Irreversible), &Labelled::NAMES[..6]),
        (Labelled { sends: Sends::External, untrusted: true, ..Labelled::default() }, &Labelled::NAMES[6..]),
        (Labelled { sends: Sends::Internal, ..Labelled::default() }, &[]),
    ] {
        assert_eq!(meant(&own), expected, "{own:?}");
        assert!(own.names().all(|name| own.does(name)), "{own:?}");
    }
}

#[test]
fn a_flow_means_what_was_seen_or_worse() {
    let send = "unlabelled = \"harmless\"\n[[label]]\nobjects = [\"files/send\"]\nsends = \"external\"\n";
    let policy = policy(&format!("{send}[[flow]]\nfrom = [\"internal\"]\n"));
    let send = plain(&policy, "files/send");
    let judge = |seen| policy.judge_flow(&send, seen, &user("ann", &[]), Arguments::None, NOW);
    for seen in [Seen::INTERNAL, Seen::PRIVATE, Seen::REGULATED] {
        assert!(matches!(judge(seen), Judged::Against { .. }), "{seen}");
    }
    assert_eq!((judge(Seen::UNTRUSTED), judge(Seen::NOTHING)), (Judged::Free, Judged::Free));
}

#[test]
fn what_is_regulated_is_private_and_internal_too_and_bits_only_add_up() {
    assert!(Seen::REGULATED.has(Seen::PRIVATE) && !Seen::PRIVATE.has(Seen::REGULATED));
    assert!(Seen::PRIVATE.has(Seen::INTERNAL) && Seen::REGULATED.has(Seen::INTERNAL));
    assert!(!Seen::INTERNAL.has(Seen::PRIVATE));
    let all = Seen::of_bits(15);
    assert_eq!(all.to_string(), "untrusted, internal, private, regulated");
    assert_eq!(all.beyond(Seen::PRIVATE).bits(), 11);
    assert!(Seen::of_bits(1 << 40).is_any(), "a later program may know more");
}

#[test]
fn a_spelling_that_one_of_the_actions_has_is_taken_in_whichever_order_they_are_written() {
    for actions in ["\"call\", \"read\"", "\"read\", \"call\""] {
        let policy =
            policy(&format!("[[label]]\nactions = [{actions}]\nobjects = [\"files/**\"]\nreads = \"private\""));
        assert_eq!(plain(&policy, "files/view").reads, Reads::Private, "{actions}");
    }
}

#[test]
fn mistakes_have_their_place_and_say_what_to_write() {
    let many = "[[label]]\nobjects = [\"files/a\"]\n".repeat(limit::LABEL_ENTRIES_MAX + 1);
    assert!(limit::LABEL_MEMORY_MIN < limit::LABEL_MEMORY_DEFAULT);
    for (text, expected) in [
        ("mode = \"maybe\"", "labels.toml:1:8: `mode` is enforce or observe"),
        ("label_memory = \"10s\"", "labels.toml:1:16: less than 1m forgets"),
        ("[[label]]\nreads = \"private\"", "labels.toml:1:1: write objects"),
        ("[[label]]\nobjects = [\"nowhere/x\"]", "labels.toml:2:12: there is no server `nowhere`"),
        ("[[label]]\nobjects = [\"files/@wrong\"]", "labels.toml:2:12: nothing is in `files/@wrong`"),
        ("[[label]]\nobjects = [\"files/a\"]\nreads = \"secret\"", "labels.toml:3:9: `reads` is nothing or internal"),
        ("[[label]]\nobjects = [\"files/a\"]\nwhen = \"never\"", "labels.toml:3:8: there is no condition `never`"),
        ("[[label]]\nobjects = [\"files/a\"]\nstore = \"A b\"", "labels.toml:3:9: a store is named"),
        ("[[label]]\nobjects = [\"files/a\"]\nred = 1", "labels.toml:3:1: `red` is not part of a label"),
        ("[[label]]\nactions = [\"elicit\"]\nobjects = [\"files/\"]", "labels.toml:2:12: `elicit` is nothing that is"),
        ("[[label]]\nactions = [\"call\"]\nobjects = [\"files/**\"]", "labels.toml:3:12: `**` is for URIs"),
        ("[[flow]]\nto = \"external\"", "labels.toml:1:1: write from"),
        ("[[flow]]\nfrom = [\"secret\"]", "labels.toml:2:9: `secret` is nothing that is seen"),
        ("[labels]\n", "labels.toml:1:2: `labels` does not belong here"),
        (many.as_str(), "labels.toml: there are more than 1000 entries"),
    ] {
        let mistakes = build_with(&[("labels.toml", text)], &world()).unwrap_err();
        let first = mistakes[0].to_string();
        assert!(first.starts_with(expected), "{first}\nand not\n{expected}");
    }
}
