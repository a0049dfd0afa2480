//! Who is named by what was taken back, and for how long.

use super::*;
use crate::identity::Hop;

pub(in crate::identity) fn token() -> TokenFacts {
    TokenFacts {
        digest: Digest::sha256(b"token"),
        issuer: IssuerAlias::new("corp").unwrap(),
        subject: Some("alice".into()),
        client: Some("desk".into()),
        id: Some("j1".into()),
        session: Some("s1".into()),
        issued_at: Some(1_000),
        expires_at: 2_000,
        for_administrators: false,
        person: crate::identity::Person::Unknown,
        hops: vec![Hop { issuer: IssuerAlias::new("partner").unwrap(), name: "planner".into() }],
    }
}

#[test]
fn an_older_snapshot_never_replaces_a_newer_one() {
    let everything = held(RevocationTarget::Everything, RevocationMode::Block);
    let revocations = Revocations::default();
    revocations.replace(RevocationEpoch(2), vec![everything]);
    revocations.replace(RevocationEpoch(1), Vec::new());
    assert!(revocations.check(&token()).is_err());
    assert_eq!(revocations.epoch(), RevocationEpoch(2));
}

#[test]
fn what_is_added_by_itself_is_what_the_store_would_say_of_all() {
    let alias = || IssuerAlias::new("corp").unwrap();
    let targets = [
        RevocationTarget::Token(Digest::sha256(b"token").to_string()),
        RevocationTarget::SessionOf(alias(), "s1".into()),
        RevocationTarget::Subject(alias(), "alice".into()),
        RevocationTarget::Client(alias(), "desk".into()),
        RevocationTarget::Agent(AgentId::new("bot").unwrap()),
        RevocationTarget::Owner("user:corp/alice".into()),
        RevocationTarget::Server(ServerId::new("files").unwrap()),
        RevocationTarget::Credential("c1".into()),
        RevocationTarget::Everything,
    ];
    let (one, all) = (Revocations::default(), Revocations::default());
    let stopped = Stopped { servers: [ServerId::new("old").unwrap()].into(), ..Stopped::default() };
    one.replace_with(RevocationEpoch(1), Vec::new(), stopped.clone());
    let mut held_so_far = Vec::new();
    for (index, target) in targets.iter().chain(&targets).enumerate() {
        let mode = match index % 3 {
            0 => RevocationMode::Block,
            more => RevocationMode::SignOut { issued_before: 1_000 * i64::try_from(more).unwrap() },
        };
        let epoch = RevocationEpoch(index as u64 + 2);
        let next = held(target.clone(), mode);
        assert!(one.add(epoch, &next.revocation), "{index}");
        held_so_far.push(next);
        all.replace_with(epoch, held_so_far.clone(), stopped.clone());
        assert_eq!(one.snapshot.load_full(), all.snapshot.load_full(), "{index}");
    }
}

#[test]
fn what_is_added_after_something_that_is_not_known_yet_waits_for_the_store() {
    let everything = held(RevocationTarget::Everything, RevocationMode::Block).revocation;
    let revocations = Revocations::default();
    for (epoch, added) in [(2, false), (0, false), (1, true), (1, false)] {
        assert_eq!(revocations.add(RevocationEpoch(epoch), &everything), added, "{epoch}");
        assert_eq!(revocations.check(&token()).is_err(), epoch == 1, "{epoch}");
    }
}

fn held(target: RevocationTarget, mode: RevocationMode) -> Held {
    let revocation = Revocation { target, mode, actor: "host:0".into(), note: String::new(), at: 0 };
    Held { since: RevocationEpoch(1), revocation }
}

fn refused(token: &TokenFacts, all: &[(RevocationTarget, RevocationMode)]) -> bool {
    let revocations = Revocations::default();
    let all = all.iter().map(|(target, mode)| held(target.clone(), *mode));
    revocations.replace(RevocationEpoch(1), all.collect());
    revocations.check(token).is_err()
}

#[test]
fn a_revocation_covers_what_it_names_and_nothing_else() {
    let alias = |name: &str| IssuerAlias::new(name).unwrap();
    for (target, expected) in [
        (RevocationTarget::Token("j1".into()), true),
        (RevocationTarget::Token(Digest::sha256(b"token").to_string()), true),
        (RevocationTarget::Token("j2".into()), false),
        (RevocationTarget::Session("s1".into()), true),
        (RevocationTarget::Session("s2".into()), false),
        (RevocationTarget::SessionOf(alias("corp"), "s1".into()), true),
        (RevocationTarget::SessionOf(alias("other"), "s1".into()), false),
        (RevocationTarget::SessionOf(alias("corp"), "s2".into()), false),
        (RevocationTarget::Subject(alias("corp"), "alice".into()), true),
        (RevocationTarget::Subject(alias("other"), "alice".into()), false),
        (RevocationTarget::Subject(alias("corp"), "bob".into()), false),
        (RevocationTarget::Client(alias("corp"), "desk".into()), true),
        (RevocationTarget::Client(alias("other"), "desk".into()), false),
        // Whoever acts in between, as whoever vouches for them calls them.
        (RevocationTarget::Client(alias("partner"), "planner".into()), true),
        (RevocationTarget::Subject(alias("partner"), "planner".into()), true),
        (RevocationTarget::Client(alias("corp"), "planner".into()), false),
        (RevocationTarget::Subject(alias("partner"), "alice".into()), false),
        (RevocationTarget::Everything, true),
    ] {
        assert_eq!(refused(&token(), &[(target.clone(), RevocationMode::Block)]), expected, "{target:?}");
        assert_eq!(target.names(&token()), expected, "{target:?}");
    }
}

#[test]
fn everything_leaves_administrators_in_who_alone_can_lift_it() {
    let administrator = TokenFacts { for_administrators: true, ..token() };
    let block = (RevocationTarget::Everything, RevocationMode::Block);
    assert!(refused(&token(), std::slice::from_ref(&block)) && !refused(&administrator, std::slice::from_ref(&block)));
    let sign_out = (RevocationTarget::Everything, RevocationMode::SignOut { issued_before: 1_000 });
    assert!(refused(&administrator, &[block.clone(), sign_out.clone()]), "they log in anew");
    let later = TokenFacts { issued_at: Some(1_001), ..administrator.clone() };
    assert!(!refused(&later, &[sign_out, block]));
    for target in [
        RevocationTarget::Token("j1".into()),
        RevocationTarget::Session("s1".into()),
        RevocationTarget::Subject(IssuerAlias::new("corp").unwrap(), "alice".into()),
        RevocationTarget::Client(IssuerAlias::new("corp").unwrap(), "desk".into()),
    ] {
        assert!(refused(&administrator, &[(target, RevocationMode::Block)]), "one of them is stopped like anybody");
    }
}

#[test]
fn what_only_the_configuration_knows_is_barred_and_no_token_is_named() {
    let (agent, server) = (AgentId::new("bot").unwrap(), ServerId::new("git").unwrap());
    let owner = "user:corp/anna".to_owned();
    let targets = [
        RevocationTarget::Agent(agent.clone()),
        RevocationTarget::Owner(owner.clone()),
        RevocationTarget::Server(server.clone()),
    ];
    let revocations = Revocations::default();
    assert_eq!(*revocations.barred(), Barred::default());
    revocations.replace(
        RevocationEpoch(1),
        targets.iter().map(|target| held(target.clone(), RevocationMode::Block)).collect(),
    );
    assert!(revocations.check(&token()).is_ok());
    assert!(targets.iter().all(|target| !target.names(&token()) && !target.can_sign_out()));
    let expected =
        Barred { agents: [agent].into(), owners: [owner].into(), servers: [server].into(), ..Barred::default() };
    assert_eq!(*revocations.barred(), expected);
}

#[test]
fn one_revocation_takes_from_whom_it_names_what_its_mode_means() {
    let of = |target, mode| Revocation { target, mode, actor: "host:0".into(), note: String::new(), at: 0 };
    let own = || RevocationTarget::Subject(IssuerAlias::new("corp").unwrap(), "alice".into());
    let other = RevocationTarget::Subject(IssuerAlias::new("corp").unwrap(), "bob".into());
    let before = |issued_before| RevocationMode::SignOut { issued_before };
    assert!(of(own(), RevocationMode::Block).covers(&token()) && of(own(), before(1_000)).covers(&token()));
    assert!(!of(own(), before(999)).covers(&token()) && !of(other, RevocationMode::Block).covers(&token()));
}

#[test]
fn a_sign_out_refuses_what_was_issued_before_and_a_block_beats_it() {
    let subject = RevocationTarget::Subject(IssuerAlias::new("corp").unwrap(), "alice".into());
    let before = |moment| (subject.clone(), RevocationMode::SignOut { issued_before: moment });
    assert!(refused(&token(), &[before(1_000)]) && !refused(&token(), &[before(999)]));
    assert!(refused(&token(), &[before(1_000), before(1)]) && refused(&token(), &[before(1), before(1_000)]));
    assert!(refused(&token(), &[before(1), (subject.clone(), RevocationMode::Block)]));
    assert!(refused(&token(), &[(subject.clone(), RevocationMode::Block), before(1)]));
    let undated = TokenFacts { issued_at: None, ..token() };
    assert!(refused(&undated, &[before(1)]));
}
