//! What a session says, whose it is, when it ends, and how much is kept of all of them.

use super::*;
use crate::ids::{Digest, ServerId};

fn sessions() -> Arc<Sessions> {
    Arc::new(Sessions::new(Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap()), ReplicaId::new()))
}

fn principal(name: &str) -> PrincipalKey {
    PrincipalKey(Digest::of("test", &[name.as_bytes()]))
}

fn client(capabilities: &str, info: Option<&str>) -> ClientFacts {
    ClientFacts {
        version: Version::V2025_06_18,
        capabilities: Json::parse(capabilities, Source::Client).unwrap(),
        info: info.map(|info| Json::parse(info, Source::Client).unwrap()),
        log_level: None,
    }
}

#[test]
fn a_session_says_what_initialize_settled() {
    let sessions = sessions();
    let large = format!(r#"{{"experimental":{{"x":"{}"}}}}"#, "y".repeat(2_000));
    for (capabilities, info) in
        [("{}", None), (r#"{"roots":{}}"#, Some(r#"{"name":"c","version":"1"}"#)), (large.as_str(), None)]
    {
        let id = sessions.begin(&principal("a").into(), &Endpoint::Merged, &client(capabilities, info)).unwrap();
        assert!(id.len() < limit::HANDLE_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic()));
        let session = sessions.open(principal("a"), &Endpoint::Merged, &id, None).unwrap();
        assert_eq!(session.version, Version::V2025_06_18);
        let facts = sessions.client(&session);
        assert_eq!(facts.capabilities.as_str(), capabilities);
        assert_eq!(facts.info.as_ref().map(Json::as_str), info);
    }
}

#[test]
fn a_session_is_one_principals_at_one_endpoint_until_it_ends() {
    let sessions = sessions();
    let server = Endpoint::Server(ServerId::new("git").unwrap());
    let id = sessions.begin(&principal("a").into(), &server, &client("{}", None)).unwrap();
    assert!(sessions.open(principal("b"), &server, &id, None).is_none());
    assert!(sessions.open(principal("a"), &Endpoint::Merged, &id, None).is_none());
    let session = sessions.open(principal("a"), &server, &id, None).unwrap();
    let stream = sessions.take_stream(session.key);
    let call = sessions.register(session.key, &Json::of(&7)).unwrap();
    sessions.end(session.key);
    assert!(stream.token().is_cancelled() && call.token().is_cancelled());
    assert!(sessions.open(principal("a"), &server, &id, None).is_none());
}

#[test]
fn a_call_is_found_by_its_id_and_only_once() {
    let sessions = sessions();
    let key = SessionKey([3; 16]);
    let text = sessions.register(key, &Json::of("7")).unwrap();
    let number = sessions.register(key, &Json::of(&7)).unwrap();
    assert_eq!(sessions.register(key, &Json::of(&7)).err().unwrap().reason, Reason::RequestInvalid);
    let escaped = Json::parse(r#""\u0037""#, Source::Client).unwrap();
    sessions.cancel(key, escaped.value(), None);
    assert!(text.token().is_cancelled() && !number.token().is_cancelled());
    drop((text, number));
    assert!(sessions.shard(key).is_empty());
    let held: Vec<_> =
        (0..limit::SESSION_CALLS_MAX).map(|id| sessions.register(key, &Json::of(&id)).unwrap()).collect();
    assert_eq!(sessions.register(key, &Json::of("more")).err().unwrap().reason, Reason::ConcurrencyLimited);
    drop(held);
}

#[test]
fn a_newer_stream_ends_the_older_one_and_keeps_its_place() {
    let sessions = sessions();
    let key = SessionKey([3; 16]);
    let older = sessions.take_stream(key);
    let newer = sessions.take_stream(key);
    assert!(older.token().is_cancelled() && !newer.token().is_cancelled());
    drop(older);
    assert!(sessions.shard(key).contains_key(&key));
    drop(newer);
    assert!(sessions.shard(key).is_empty());
}

#[test]
fn what_a_client_says_of_itself_is_bounded() {
    let sessions = sessions();
    let huge = format!(r#"{{"x":"{}"}}"#, "y".repeat(limit::SESSION_CLIENT_BYTES_MAX));
    let stop = sessions.begin(&principal("a").into(), &Endpoint::Merged, &client(&huge, None)).unwrap_err();
    assert_eq!(stop.reason(), Reason::ParametersInvalid);
    let icons = format!(r#"{{"name":"c","version":"2","icons":["{}"]}}"#, "z".repeat(1_000));
    let id = sessions.begin(&principal("a").into(), &Endpoint::Merged, &client("{}", Some(&icons))).unwrap();
    let session = sessions.open(principal("a"), &Endpoint::Merged, &id, None).unwrap();
    assert_eq!(sessions.client(&session).info.unwrap().as_str(), r#"{"name":"c","version":"2"}"#);
}

/// The id of a session that began so long ago.
fn begun_before(sessions: &Sessions, age: std::time::Duration) -> String {
    let began = now_seconds() - age.as_secs();
    let replica = sessions.replica.to_string();
    let content = [&[7; KEY_LENGTH], &began.to_be_bytes()[..], replica.as_bytes(), b"2025-06-18", &[SEALED], b"{}\n"];
    sessions.sealer.seal(&purpose(&Endpoint::Merged), principal("a"), &content.concat()).unwrap()
}

#[test]
fn a_session_opens_at_the_replica_that_began_it_and_others_know_which_that_is() {
    let (sessions, others) = (sessions(), sessions());
    let id = sessions.begin(&principal("a").into(), &Endpoint::Merged, &client("{}", None)).unwrap();
    assert!(others.open(principal("a"), &Endpoint::Merged, &id, None).is_none());
    // Its own replica vouches for it with what it hands on, and no other one does.
    assert!(others.open(principal("a"), &Endpoint::Merged, &id, Some(sessions.replica)).is_some());
    assert!(others.open(principal("b"), &Endpoint::Merged, &id, Some(sessions.replica)).is_none());
    assert!(others.open(principal("a"), &Endpoint::Merged, &id, Some(ReplicaId::new())).is_none());
    let large = format!(r#"{{"experimental":{{"x":"{}"}}}}"#, "y".repeat(2_000));
    let kept = sessions.begin(&principal("a").into(), &Endpoint::Merged, &client(&large, None)).unwrap();
    let vouched = others.open(principal("a"), &Endpoint::Merged, &kept, Some(sessions.replica)).unwrap();
    assert_eq!(others.client(&vouched).capabilities.as_str(), "{}", "what it said is kept there");
    assert_eq!(others.home(principal("a"), &Endpoint::Merged, &id), Some(sessions.replica));
    assert_eq!(others.home(principal("b"), &Endpoint::Merged, &id), None);
}

#[test]
fn a_session_ends_with_its_age() {
    let sessions = sessions();
    let opens = |age| sessions.open(principal("a"), &Endpoint::Merged, &begun_before(&sessions, age), None).is_some();
    let minute = std::time::Duration::from_secs(60);
    assert!(opens(limit::SESSION_AGE_MAX - minute));
    assert!(!opens(limit::SESSION_AGE_MAX + minute));
}

#[test]
fn what_a_client_says_of_itself_travels_sealed_up_to_a_length_and_is_kept_beyond_it() {
    let sessions = sessions();
    let saying = |bytes: usize| format!(r#"{{"x":"{}"}}"#, "y".repeat(bytes - r#"{"x":""}"#.len()));
    let begin = |bytes| {
        let id = sessions.begin(&principal("a").into(), &Endpoint::Merged, &client(&saying(bytes), None)).unwrap();
        (id.len(), sessions.kept.held().1)
    };
    let (long, kept) = begin(limit::SESSION_SEALED_BYTES_MAX);
    assert!(long > limit::SESSION_SEALED_BYTES_MAX && long <= limit::HANDLE_BYTES_MAX && kept == 0);
    let (short, kept) = begin(limit::SESSION_SEALED_BYTES_MAX + 1);
    assert!(short < limit::SESSION_SEALED_BYTES_MAX && kept == 1);
}

#[test]
fn sessions_that_say_much_are_bounded_together_and_the_newest_has_a_place() {
    let sessions = sessions();
    let large = format!(r#"{{"x":"{}"}}"#, "y".repeat(limit::SESSION_CLIENT_BYTES_MAX - 100));
    let count = limit::SESSIONS_KEPT_BYTES_MAX / large.len() * 5 / 4;
    for number in 0..count {
        let who = principal(&(number % 20).to_string());
        let id = sessions.begin(&who.into(), &Endpoint::Merged, &client(&large, None)).unwrap();
        assert!(sessions.open(who, &Endpoint::Merged, &id, None).is_some(), "the {number}th has no place");
    }
    let (bytes, kept) = sessions.kept.held();
    assert!(bytes <= limit::SESSIONS_KEPT_BYTES_MAX && bytes > limit::SESSIONS_KEPT_BYTES_MAX - 2 * large.len());
    assert!(kept > 100, "{kept}");
}

#[test]
fn what_sessions_of_one_principal_say_pushes_out_its_own_and_no_others() {
    let sessions = sessions();
    let large = client(&format!(r#"{{"x":"{}"}}"#, "y".repeat(limit::SESSION_CLIENT_BYTES_MAX - 100)), None);
    let begin = |who: &str| sessions.begin(&principal(who).into(), &Endpoint::Merged, &large).unwrap();
    let opens = |who: &str, id: &str| sessions.open(principal(who), &Endpoint::Merged, id, None).is_some();
    let (others, mut own) = (begin("b"), vec![begin("a")]);
    for _ in 0..2 * limit::SESSIONS_KEPT_BYTES_MAX / limit::SESSION_CLIENT_BYTES_MAX {
        let newest = begin("a");
        assert!(opens("a", &newest));
        own.push(newest);
        let (bytes, _) = sessions.kept.held_by(principal("a"));
        assert!(bytes <= limit::SESSIONS_KEPT_PER_PRINCIPAL_BYTES_MAX, "{bytes}");
    }
    assert!(opens("b", &others), "another's was pushed out");
    // Its own went in the order in which they came, those of one second too.
    let (_, kept) = sessions.kept.held_by(principal("a"));
    let open: Vec<_> = own.iter().map(|id| opens("a", id)).collect();
    assert!(open.iter().rev().take(kept).all(|open| *open) && open.iter().filter(|open| **open).count() == kept);
}

#[test]
fn what_changed_in_sessions_is_remembered_of_so_many_and_the_newest_is_among_them() {
    let sessions = sessions();
    let key = |number: u64| {
        let mut key = [0; KEY_LENGTH];
        key[..8].copy_from_slice(&number.to_be_bytes());
        SessionKey(key)
    };
    for number in 0..limit::SESSIONS_SEEN_MAX + 5_000 {
        sessions.set_log_level(key(number), LogLevel::Debug);
        sessions.end(key(number));
        if number % 1_000 == 999 {
            sessions.seen.run_pending_tasks();
            assert!(sessions.since(key(number)).ended, "{number}");
        }
    }
    assert_eq!(sessions.seen.entry_count(), limit::SESSIONS_SEEN_MAX);
}

#[test]
fn a_clients_description_is_kept_up_to_a_length_and_then_cut_down() {
    let info = |bytes: usize| {
        let bare = r#"{"name":"c","version":"2","x":""}"#.len();
        Json::of(&serde_json::json!({ "name": "c", "version": "2", "x": "y".repeat(bytes - bare) }))
    };
    let longest = info(limit::SESSION_INFO_BYTES_MAX);
    assert_eq!(longest.as_bytes().len(), limit::SESSION_INFO_BYTES_MAX);
    assert_eq!(short_info(&longest), longest);
    assert_eq!(short_info(&info(limit::SESSION_INFO_BYTES_MAX + 1)).as_str(), r#"{"name":"c","version":"2"}"#);
}
