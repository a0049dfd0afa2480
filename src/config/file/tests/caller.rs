//! How callers are recognised: introspection of opaque tokens, API keys, subjects that are software.

use super::*;
use crate::config::{IntrospectionProof, KnownBy, Nameless, SecretReference};
use crate::limit;

fn with_issuers(tables: &str) -> String {
    SMALLEST.replace("[servers.notes]", &format!("{tables}\n[servers.notes]"))
}

fn introspecting(lines: &str) -> String {
    with_issuers(&format!("[issuers.corp.introspection]\nclient_id = \"gateway\"\n{lines}"))
}

fn agents(lines: &str) -> Result<Config, String> {
    let robot = AGENTS.replace("assistant", "robot").replace("interactive", "autonomous").replace("desk", "robot");
    let text = format!("{AGENTS}{robot}{lines}");
    read_with(SMALLEST, &text, &today()).map(|(config, _)| config).map_err(|mistakes| lines_of(&mistakes))
}

fn lines_of(mistakes: &[Mistake]) -> String {
    super::lines(mistakes)
}

#[test]
fn introspection_has_what_it_needs_and_little_more() {
    let read = config(&introspecting("client_secret = \"env:SECRET\"\n"));
    let own = read.issuers[0].introspection.clone().unwrap();
    assert_eq!((own.endpoint.clone(), own.prefix.clone(), own.nameless), (None, None, Nameless::Refused));
    assert_eq!(own.proof, IntrospectionProof::Secret(SecretReference::Environment("SECRET".to_owned())));
    assert!(config(SMALLEST).issuers[0].introspection.is_none());
    let lines = "endpoint = \"https://login.example.com/introspect\"\nprivate_key = \"file:key.pem\"\nkey_id = \"k1\"\n\
                 prefix = \"corp_\"\nwithout_sub = \"client\"\n";
    let own = config(&introspecting(lines)).issuers[0].introspection.clone().unwrap();
    assert_eq!((own.prefix.as_deref(), own.nameless), (Some("corp_"), Nameless::Client));
    let IntrospectionProof::PrivateKey { key, id } = &own.proof else { panic!("{:?}", own.proof) };
    assert_eq!((key, id.as_deref()), (&SecretReference::File("/etc/bailiwick/key.pem".into()), Some("k1")));
}

#[test]
fn the_age_of_groups_is_for_an_issuer_that_has_some() {
    let read = config(&with_issuers("[issuers.corp.claims]\ngroups = \"groups\"\ngroups_age_max = \"10m\"\n"));
    assert_eq!(read.issuers[0].claims.groups_age_max, Some(std::time::Duration::from_secs(600)));
    let alone = mistakes(&with_issuers("[issuers.corp.claims]\ngroups_age_max = \"10m\"\n"));
    assert!(alone.contains("write `groups` as well"), "{alone}");
    assert_eq!(config(SMALLEST).issuers[0].claims.groups_age_max, None);
}

#[test]
fn introspection_that_would_tell_somebody_else_or_prove_nothing_is_a_mistake() {
    let long = "p".repeat(limit::TOKEN_PREFIX_BYTES_MAX + 1);
    let secret = "client_secret = \"env:SECRET\"\n";
    for (lines, expected) in [
        (String::new(), "write client_secret = \"env:NAME\", or private_key"),
        (format!("{secret}private_key = \"file:key.pem\"\n"), "keep client_secret or private_key"),
        (format!("{secret}key_id = \"k1\"\n"), "`key_id` means nothing for a secret"),
        ("client_secret = \"hunter2\"\n".to_owned(), "a secret is never written here"),
        (format!("{secret}endpoint = \"http://login.example.com/introspect\"\n"), "in the clear: write https://"),
        (format!("{secret}endpoint = \"http://127.0.0.1:9/introspect\"\n"), "in the clear: write https://"),
        (format!("{secret}endpoint = \"https://a:b@login.example.com/\"\n"), "user name or password"),
        (format!("{secret}prefix = \"\"\n"), "begins no token"),
        (format!("{secret}prefix = \"{long}\"\n"), "begins no token"),
        (format!("{secret}prefix = \"a b\"\n"), "begins no token"),
        (format!("{secret}prefix = \"bwk\"\n"), "the gateway's own API keys"),
        (format!("{secret}prefix = \"bwk_x\"\n"), "the gateway's own API keys"),
        (format!("{secret}prefix = \"ey\"\n"), "begins JWTs"),
        (format!("{secret}without_sub = \"alice\"\n"), "without_sub"),
        (format!("{secret}opaque = true\n"), "`opaque` is not a key"),
    ] {
        let found = mistakes(&introspecting(&lines));
        assert!(found.contains(expected), "{lines}: {found}");
    }
    let longest = "p".repeat(limit::TOKEN_PREFIX_BYTES_MAX);
    config(&introspecting(&format!("{secret}prefix = \"{longest}\"\n")));
}

#[test]
fn no_opaque_token_could_be_two_issuers() {
    let two = |first: &str, second: &str| {
        let own = |alias: &str, prefix: &str| {
            let prefix = if prefix.is_empty() { String::new() } else { format!("prefix = \"{prefix}\"\n") };
            format!("[issuers.{alias}.introspection]\nclient_id = \"g\"\nclient_secret = \"env:S\"\n{prefix}")
        };
        with_issuers(&format!(
            "{}[issuers.other]\nissuer = \"https://other.example.com\"\n{}",
            own("corp", first),
            own("other", second)
        ))
    };
    for (first, second, expected) in [
        ("", "", "the opaque tokens of `corp` have no prefix either"),
        ("a_", "a_", "neither may be"),
        ("a_", "a_b", "the opaque tokens of `corp` begin with `a_`"),
        ("a_b", "a_", "neither may be"),
    ] {
        let found = mistakes(&two(first, second));
        assert!(found.contains(expected), "{first} {second}: {found}");
    }
    for (first, second) in [("", "a_"), ("a_", ""), ("a_", "b_")] {
        config(&two(first, second));
    }
}

#[test]
fn the_gateways_own_aliases_are_nobodys() {
    for alias in ["keys", "local", "anonymous"] {
        let found = mistakes(&SMALLEST.replace("issuers.corp", &format!("issuers.{alias}")));
        assert!(found.contains(&format!("the alias `{alias}` is the gateway's own")), "{found}");
    }
}

#[test]
fn an_agent_is_known_by_its_client_or_by_its_subject_and_by_one_agent_each() {
    let account = "system:serviceaccount:ci:builder";
    let client = |entry: &str| format!("[[agents.robot.clients]]\nissuer = \"corp\"\n{entry}\n");
    let agents = |entry: &str| {
        let robot = AGENTS.replace("assistant", "robot").replace("interactive", "autonomous");
        let robot = robot.replace("clients = [{ issuer = \"corp\", client_id = \"desk\" }]\n", "");
        let text = format!("{AGENTS}{robot}{entry}");
        read_with(SMALLEST, &text, &today()).map(|(config, _)| config).map_err(|mistakes| lines_of(&mistakes))
    };
    let read = agents(&client(&format!("subject = \"{account}\""))).unwrap();
    let own = &read.agents[&AgentId::new("robot").unwrap()].clients[0];
    assert_eq!((own.known_by, own.client_id.as_str()), (KnownBy::Subject, account));
    // A subject and a client of one name are two things.
    agents(&client("subject = \"desk\"")).unwrap();
    for (entry, expected) in [
        (client(""), "write client_id = \"...\"; or subject"),
        (client("client_id = \"a\"\nsubject = \"b\""), "keep client_id or subject"),
        (client("subject = \"\""), "is not empty"),
        (client("client_id = \"desk\""), "client `desk` of `corp` is agent `assistant` already"),
        (
            format!("{}{}", client("subject = \"s\""), client("subject = \"s\"")),
            "subject `s` of `corp` is agent `robot` already",
        ),
        (
            "[[agents.assistant.clients]]\nissuer = \"corp\"\nsubject = \"s\"\n".to_owned(),
            "a subject that is software acts on its own",
        ),
    ] {
        let entry = if entry.contains("agents.assistant.clients") {
            let alone = AGENTS.replace("clients = [{ issuer = \"corp\", client_id = \"desk\" }]\n", "");
            let found = lines_of(&read_with(SMALLEST, &format!("{alone}{entry}"), &today()).unwrap_err());
            assert!(found.contains(expected), "{found}");
            continue;
        } else {
            entry
        };
        let found = agents(&entry).unwrap_err();
        assert!(found.contains(expected), "{entry}: {found}");
    }
}

fn key(id: &str, sha256: &str, more: &str) -> String {
    format!("[[agents.robot.keys]]\nid = \"{id}\"\nsha256 = \"{sha256}\"\n{more}\n")
}

const OWNED: &str = "owner = \"user:corp/anna\"\ncreated = \"2026-11-20T10:00:00Z\"\nexpires = 2027-11-20";

#[test]
fn an_api_key_is_a_digest_with_an_owner_and_an_end() {
    let digest = "a1".repeat(32);
    let read = agents(&key("nightly-1", &digest, OWNED)).unwrap();
    let own = &read.agents[&AgentId::new("robot").unwrap()].keys[0];
    assert_eq!((own.id.as_str(), own.owner.as_str()), ("nightly-1", "user:corp/anna"));
    assert_eq!(own.digest.to_string(), digest);
    let other = "b2".repeat(32);
    let (owner, created, expires) =
        ("owner = \"user:corp/anna\"", "created = \"2026-11-20T10:00:00Z\"", "expires = 2027-11-20");
    for (rows, expected) in [
        (key("n", &digest, &format!("{created}\n{expires}")), "has no `owner`"),
        (key("n", &digest, &format!("{owner}\n{created}")), "has no `expires`"),
        (key("n", &digest, &format!("{owner}\n{expires}")), "has no `created`"),
        (key("n", &digest, &OWNED.replace("user:", "group:")), "answers for nothing"),
        (key("n", &digest, &OWNED.replace("/anna", "/auth0%7c1")), "differently: write user:corp/auth0%7C1"),
        (key("n", &digest, &OWNED.replace("corp", "crop")), "issuer `crop` is not declared"),
        (key("n", &digest, &OWNED.replace("2027-11-20", "2027-11-21")), "good for 365 days at most"),
        (key("n", &digest, &OWNED.replace("2026-11-20T", "2026-11-25T")), "made in the future"),
        (key("n", &digest, &OWNED.replace("2026-11-20T10:00:00Z", "yesterday")), "is no moment"),
        (key("No Name", &digest, OWNED), "names no key"),
        (key("n", "a1", OWNED), "this is no SHA-256"),
        (key("n", &format!("bwk_{}", "A".repeat(43)), OWNED), "this is the key itself"),
        (format!("{}{}", key("n", &digest, OWNED), key("n", &other, OWNED)), "has a key of this name or digest"),
        (format!("{}{}", key("n", &digest, OWNED), key("m", &digest, OWNED)), "has a key of this name or digest"),
    ] {
        let found = agents(&rows).unwrap_err();
        assert!(found.contains(expected), "{rows}: {found}");
        assert!(!found.contains("AAAA"), "{found}");
    }
    assert_eq!(limit::API_KEY_DAYS_MAX, 365);
}

#[test]
fn there_are_not_too_many_keys() {
    let rows = |count: usize| -> String {
        (0..count).map(|number| key(&format!("k{number}"), &format!("{number:064x}"), OWNED)).collect()
    };
    assert!(agents(&rows(limit::API_KEYS_MAX)).is_ok());
    assert!(agents(&rows(limit::API_KEYS_MAX + 1)).unwrap_err().contains("have an issuer know your agents"));
}
