//! What decisions come to, on a small policy that reads like a real one.

use jiff::Timestamp;

use super::fixture::{agent, build_with, policy, scoped_world, user};
use super::*;
use crate::identity::{ClientProof, Groups, Persona};
use crate::outcome::Reason;

/// A Monday at noon in Berlin.
const WORKDAY: &str = "2026-11-23T11:00:00Z";
/// A Sunday.
const SUNDAY: &str = "2026-11-22T11:00:00Z";

fn decide_at(policy: &Policy, persona: &Persona, object: &str, action: &str, arguments: &str, at: &str) -> Decision {
    let (server, name) = object.split_once('/').unwrap();
    let action = Action::parse(action).unwrap();
    let ask = policy.ask_about(server, name, &action).unwrap();
    let class = policy.class(persona);
    policy.decide(&class, persona, &ask, Arguments::Json(arguments), at.parse::<Timestamp>().unwrap())
}

fn reason(policy: &Policy, persona: &Persona, object: &str, arguments: &str) -> Option<Reason> {
    decide_at(policy, persona, object, "call", arguments, WORKDAY).refusal.map(|refusal| refusal.reason)
}

#[test]
fn a_group_gives_its_role_and_the_role_its_toolset() {
    let policy = policy();
    assert_eq!(reason(&policy, &user("ann", &["platform"]), "github/list_issues", "{}"), None);
    assert_eq!(reason(&policy, &user("ann", &[]), "github/list_issues", "{}"), Some(Reason::NotAllowed));
    assert_eq!(reason(&policy, &user("ann", &["platform"]), "github/delete_repo", "{}"), Some(Reason::NotAllowed));
}

#[test]
fn an_error_and_a_panic_within_casbin_refuse_and_the_next_question_is_answered() {
    use super::mutation::{Trouble, in_trouble};
    let ann = user("ann", &["platform"]);
    let (action, read) = (Action::parse("call").unwrap(), "github/list_issues");
    for trouble in [Trouble::Panic, Trouble::Error] {
        let policy = policy();
        let ask = policy.ask_about("github", "list_issues", &action).unwrap();
        let depends = policy.ask_about("deploy", "rollout", &action).unwrap();
        let unavailable = |object: &str, arguments: &str| {
            let decision = in_trouble(trouble, || decide_at(&policy, &ann, object, "call", arguments, WORKDAY));
            assert!(!decision.visible, "{trouble:?}");
            decision.refusal.map(|refusal| refusal.reason)
        };
        // A class of which nothing is known.
        assert_eq!(unavailable(read, "{}"), Some(Reason::PolicyUnavailable), "{trouble:?}");
        let class = policy.class(&ann);
        assert_eq!(in_trouble(trouble, || policy.list(&class, &[ask])), [false], "{trouble:?}: nothing is shown");
        assert!(!in_trouble(trouble, || policy.visible(&class, &ask)), "{trouble:?}");
        assert!(in_trouble(trouble, || policy.who_can(&ask)).is_empty(), "{trouble:?}: nobody is named");
        // Nothing of that was kept, and no enforcer that had a panic is asked again.
        assert_eq!(reason(&policy, &ann, read, "{}"), None, "{trouble:?}");
        assert_eq!(policy.list(&class, &[ask, depends]), [true, true], "{trouble:?}");
        assert!(!policy.who_can(&ask).is_empty(), "{trouble:?}");
        // What the table knows needs no Casbin; what depends on arguments does, and what it does not know.
        assert!(in_trouble(trouble, || decide_at(&policy, &ann, read, "call", "{}", WORKDAY)).is_allowed());
        let few = r#"{"replicas":2}"#;
        let settled = in_trouble(trouble, || decide_at(&policy, &ann, "deploy/rollout", "call", few, WORKDAY));
        assert_eq!(settled.refusal.map(|refusal| refusal.reason), Some(Reason::PolicyUnavailable), "{trouble:?}");
        assert_eq!(unavailable("deploy/wipe", "{}"), Some(Reason::PolicyUnavailable), "{trouble:?}");
        assert_eq!(reason(&policy, &ann, "deploy/rollout", few), None, "{trouble:?}");
        assert_eq!(reason(&policy, &ann, "deploy/wipe", "{}"), None, "{trouble:?}");
    }
}

#[test]
fn a_role_of_a_role_holds_only_in_its_environment() {
    let policy = policy();
    assert_eq!(reason(&policy, &user("lea", &[]), "github/list_issues", "{}"), None);
    let production = reason(&policy, &user("lea", &[]), "deploy/rollout", r#"{"replicas":1}"#);
    assert_eq!(production, Some(Reason::NotAllowed));
}

#[test]
fn a_condition_needs_its_argument_of_the_right_type_and_no_other() {
    let policy = policy();
    let ann = user("ann", &["platform"]);
    assert_eq!(reason(&policy, &ann, "deploy/rollout", r#"{"service":"web","replicas":5}"#), None);
    for unmet in [
        r#"{"replicas":6}"#,
        r#"{"replicas":"5"}"#,
        "{}",
        r#"{"replicas":null}"#,
        r#"{"replicas":5,"force":true}"#,
        r#"{"replicas":1,"replicas":9}"#,
        r#"{"replicas":5.0000000000000000000000000000000001}"#,
        r#"{"replicas":[]}"#,
        r#"{"replicas":[1,9]}"#,
        "[5]",
        "not json",
    ] {
        assert_eq!(reason(&policy, &ann, "deploy/rollout", unmet), Some(Reason::ConditionUnmet), "{unmet}");
    }
}

#[test]
fn an_allow_over_a_list_needs_every_element() {
    let policy = policy();
    let ann = user("ann", &[]);
    assert_eq!(reason(&policy, &ann, "files/view", r#"{"paths":["/srv/a","/srv/b"]}"#), None);
    assert_eq!(reason(&policy, &ann, "files/view", r#"{"paths":"/srv/a"}"#), None);
    for unmet in [r#"{"paths":["/srv/a","/etc/b"]}"#, r#"{"paths":["/srv/a",7]}"#, r#"{"paths":[]}"#] {
        assert_eq!(reason(&policy, &ann, "files/view", unmet), Some(Reason::ConditionUnmet), "{unmet}");
    }
}

#[test]
fn a_deny_of_anyone_wins_over_a_role_and_knows_the_time() {
    let policy = policy();
    let ann = user("ann", &["platform"]);
    let decide = |at| decide_at(&policy, &ann, "deploy/wipe", "call", "{}", at);
    assert!(decide(WORKDAY).is_allowed());
    let refused = decide(SUNDAY);
    let refusal = refused.refusal.unwrap();
    assert_eq!(refusal.reason, Reason::DeniedByRule);
    assert_eq!(refusal.rule.as_deref(), Some("policy.csv:13"));
    assert!(refused.visible, "the time may change, so lists show it");
    assert_eq!(refused.conditions[0].read[0], ("time".to_owned(), SUNDAY.to_owned()));
}

#[test]
fn uris_cross_segments_and_a_deny_below_stays() {
    let policy = policy();
    let read = |uri: &str| decide_at(&policy, &user("ann", &[]), &format!("files/{uri}"), "read", "{}", WORKDAY);
    assert!(read("file:///srv/a/b.txt").is_allowed());
    assert!(!read("file:///srv/secret/key").is_allowed());
    assert!(!read("file:///srv/secret/key").visible);
    assert!(!read("file:///etc/passwd").is_allowed());
}

#[test]
fn user_and_agent_must_both_be_allowed() {
    let policy = policy();
    let mut ann = user("ann", &["platform"]);
    ann.agent = Some(agent(&["staging", "production"]));
    assert_eq!(reason(&policy, &ann, "github/list_issues", "{}"), None);
    let mut bob = user("bob", &[]);
    bob.agent = Some(agent(&["staging", "production"]));
    assert_eq!(reason(&policy, &bob, "github/list_issues", "{}"), Some(Reason::NotAllowed), "the agent alone may");
    let get = decide_at(&policy, &ann, "github/list_issues", "get", "{}", WORKDAY);
    assert!(!get.is_allowed(), "another kind of primitive is another action");
}

#[test]
fn an_agent_stays_in_its_environments() {
    let policy = policy();
    let mut ann = user("ann", &["platform"]);
    ann.agent = Some(agent(&["staging"]));
    assert_eq!(reason(&policy, &ann, "github/list_issues", "{}"), None);
    let refused = decide_at(&policy, &ann, "deploy/rollout", "call", r#"{"replicas":1}"#, WORKDAY);
    assert_eq!(refused.refusal.unwrap().reason, Reason::EnvironmentRefused);
    assert!(!refused.visible);
}

#[test]
fn an_agent_that_acts_on_its_own_needs_more_than_a_public_client_id() {
    let policy = policy();
    let mut ann = user("ann", &["platform"]);
    let robot = crate::identity::AgentFacts { autonomous: true, ..agent(&["staging", "production"]) };
    ann.agent = Some(robot.clone());
    for proof in [ClientProof::None, ClientProof::Public] {
        ann.client_proof = proof;
        let refused = decide_at(&policy, &ann, "github/list_issues", "call", "{}", WORKDAY);
        assert_eq!(refused.refusal.unwrap().reason, Reason::ClientProofInsufficient);
        assert!(refused.visible, "it is the same for every object, so it is told");
    }
    ann.client_proof = ClientProof::Secret;
    assert_eq!(reason(&policy, &ann, "github/list_issues", "{}"), None);
    // Behind a person's assistant it is no better proven.
    ann.chain = vec![robot];
    ann.agent = Some(agent(&["staging", "production"]));
    assert_eq!(reason(&policy, &ann, "github/list_issues", "{}"), None);
    ann.client_proof = ClientProof::Public;
    assert_eq!(reason(&policy, &ann, "github/list_issues", "{}"), Some(Reason::ClientProofInsufficient));
    ann.chain.clear();
    assert_eq!(reason(&policy, &ann, "github/list_issues", "{}"), None, "the person's login is the proof");
}

#[test]
fn unknown_groups_refuse_everything_and_are_not_the_same_as_none() {
    let policy = policy();
    let mut ann = user("ann", &[]);
    ann.groups = Groups::Unknown("truncated".to_owned());
    let refused = decide_at(&policy, &ann, "files/file:///srv/a", "read", "{}", WORKDAY);
    assert_eq!(refused.refusal.unwrap().reason, Reason::GroupsUnavailable);
    assert_ne!(policy.class(&ann).key(), policy.class(&user("ann", &[])).key());
}

#[test]
fn nobody_is_refused() {
    let policy = policy();
    let mut nobody = user("ann", &[]);
    nobody.user = None;
    let refused = decide_at(&policy, &nobody, "files/file:///srv/a", "read", "{}", WORKDAY);
    assert_eq!(refused.refusal.unwrap().reason, Reason::NotAllowed);
}

#[test]
fn scopes_are_named_all_at_once_and_only_where_the_rules_allow() {
    let policy = build_with(&[], &scoped_world()).unwrap().policy;
    let mut ann = user("ann", &["platform"]);
    ann.scopes = vec!["mcp:use".to_owned()];
    let refused = decide_at(&policy, &ann, "github/list_issues", "call", "{}", WORKDAY).refusal.unwrap();
    assert_eq!(refused.reason, Reason::InsufficientScope);
    assert_eq!(refused.scopes, ["mcp:use", "mcp:issues"]);
    assert_eq!(reason(&policy, &ann, "github/delete_repo", "{}"), Some(Reason::NotAllowed));
    ann.scopes = vec!["mcp:issues".to_owned(), "mcp:use".to_owned()];
    assert_eq!(reason(&policy, &ann, "github/list_issues", "{}"), None);
}

#[test]
fn lists_ignore_scopes_and_show_what_depends() {
    let policy = build_with(&[], &scoped_world()).unwrap().policy;
    let ann = user("ann", &["platform"]);
    let class = policy.class(&ann);
    let asks: Vec<Ask<'_>> =
        [("github", "list_issues"), ("github", "delete_repo"), ("deploy", "rollout"), ("deploy", "wipe")]
            .map(|(server, name)| policy.ask_about(server, name, &Action::Call).unwrap())
            .to_vec();
    for _ in 0..2 {
        assert_eq!(policy.list(&class, &asks), [true, false, true, true]);
        assert_eq!(class.table_items(), 4);
    }
}

#[test]
fn what_a_client_chose_is_never_kept_in_the_table() {
    let policy = policy();
    let ann = user("ann", &[]);
    for number in 0..100 {
        decide_at(&policy, &ann, &format!("files/file:///srv/{number}"), "read", "{}", WORKDAY);
    }
    assert_eq!(policy.class(&ann).table_items(), 0);
}

#[test]
fn people_about_whom_the_rules_say_the_same_share_a_class() {
    let policy = policy();
    let class = |persona: &Persona| policy.class(persona).key();
    assert_eq!(class(&user("ann", &["platform"])), class(&user("bob", &["platform", "unheard-of"])));
    assert_ne!(class(&user("ann", &["platform"])), class(&user("ann", &[])));
    assert_ne!(class(&user("lea", &[])), class(&user("bob", &[])));
    let mut with_agent = user("ann", &["platform"]);
    with_agent.agent = Some(agent(&["staging"]));
    let mut elsewhere = with_agent.clone();
    elsewhere.agent = Some(agent(&["production"]));
    assert_ne!(class(&with_agent), class(&elsewhere));
}

#[test]
fn the_gateways_own_operations_are_objects_too() {
    let policy = policy();
    let decide = |groups: &[&str]| {
        let persona = user("ann", groups);
        let class = policy.class(&persona);
        policy
            .decide(&class, &persona, &policy.operation("revoke"), Arguments::None, Timestamp::UNIX_EPOCH)
            .is_allowed()
    };
    assert!(decide(&["admins"]));
    assert!(!decide(&["platform"]));
}

#[test]
fn what_a_server_asks_of_the_user_is_decided_on_the_server() {
    let policy = policy();
    assert!(decide_at(&policy, &user("lea", &[]), "deploy/", "sample", "{}", WORKDAY).is_allowed());
    assert!(!decide_at(&policy, &user("ann", &[]), "deploy/", "sample", "{}", WORKDAY).is_allowed());
    assert!(!decide_at(&policy, &user("lea", &[]), "deploy/", "method:x/y", "{}", WORKDAY).is_allowed());
}

#[test]
fn a_question_with_the_wrong_environment_is_refused() {
    let policy = policy();
    let ann = user("ann", &["platform"]);
    let class = policy.class(&ann);
    let right = policy.ask_about("github", "list_issues", &Action::Call).unwrap();
    let production = Environment::new("production").unwrap();
    let wrong = Ask { environment: &production, ..right };
    let decide = |ask| policy.decide(&class, &ann, ask, Arguments::None, Timestamp::UNIX_EPOCH).is_allowed();
    assert!(decide(&right));
    assert!(!decide(&wrong));
}

#[test]
fn an_explanation_names_rule_condition_and_value_and_who_else_could() {
    let policy = policy();
    let rollout = policy.ask_about("deploy", "rollout", &Action::Call).unwrap();
    let explain = |persona: &Persona, arguments| {
        policy.explain(persona, &rollout, Arguments::Json(arguments), WORKDAY.parse().unwrap()).to_string()
    };
    let unmet = explain(&user("ann", &["platform"]), r#"{"replicas":9}"#);
    for part in ["condition_unmet", "policy.csv:7", "`replicas` is at most 5", "replicas = 9", "user:corp/ann"] {
        assert!(unmet.contains(part), "{part} is missing in:\n{unmet}");
    }
    let missing = explain(&user("bob", &[]), "{}");
    assert!(missing.contains("somebody else: policy.csv:7: role:developer may call deploy/rollout"), "{missing}");
}

#[test]
fn an_explanation_names_so_many_near_misses() {
    let rules: String = (0..3 * crate::limit::NEAR_MISSES_MAX)
        .map(|number| format!("p, user:corp/u{number}, *, deploy/rollout, call, -, allow\n"))
        .collect();
    let policy =
        build_with(&[("policy.csv", &rules), ("conditions.toml", "")], &super::fixture::world()).unwrap().policy;
    let rollout = policy.ask_about("deploy", "rollout", &Action::Call).unwrap();
    let arguments = Arguments::Json("{}");
    let told = policy.explain(&user("bob", &[]), &rollout, arguments, WORKDAY.parse().unwrap()).to_string();
    assert_eq!(told.matches("somebody else:").count(), crate::limit::NEAR_MISSES_MAX, "{told}");
}

#[test]
fn what_a_condition_read_is_kept_up_to_a_number_and_a_length() {
    use crate::limit::{CONDITION_VALUE_CHARACTERS_MAX, CONDITION_VALUES_MAX};
    let count = 2 * CONDITION_VALUES_MAX;
    let parts: Vec<_> =
        (0..count).map(|number| format!(r#"{{ argument = "a{number}", length_at_least = 1 }}"#)).collect();
    let conditions = format!("[many]\nall = [{}]\n", parts.join(", "));
    let rules = "p, user:corp/ann, *, deploy/rollout, call, many, allow\n";
    let files = [("policy.csv", rules), ("conditions.toml", conditions.as_str())];
    let policy = build_with(&files, &super::fixture::world()).unwrap().policy;
    let long = "\u{e9}".repeat(CONDITION_VALUE_CHARACTERS_MAX + 50);
    let arguments: Vec<_> = (0..count).map(|number| format!(r#""a{number}":"{long}""#)).collect();
    let arguments = format!("{{{}}}", arguments.join(","));
    let rollout = policy.ask_about("deploy", "rollout", &Action::Call).unwrap();
    let at = WORKDAY.parse().unwrap();
    let told = policy.explain(&user("ann", &[]), &rollout, Arguments::Json(&arguments), at).to_string();
    let read: Vec<_> = told.lines().filter_map(|line| line.trim().strip_prefix('a')?.split_once(" = ")).collect();
    assert_eq!(read.len(), CONDITION_VALUES_MAX, "{told}");
    // A text is kept with the quotes that it has.
    assert!(read.iter().all(|(_, value)| value.chars().count() == CONDITION_VALUE_CHARACTERS_MAX), "{read:?}");
}

#[test]
fn who_can_and_what_can_follow_roles() {
    let policy = policy();
    let rollout = policy.ask_about("deploy", "rollout", &Action::Call).unwrap();
    let who: Vec<(String, bool)> = policy.who_can(&rollout).into_iter().map(|who| (who.subject, who.depends)).collect();
    assert_eq!(who, [("agent:claude".to_owned(), false), ("group:corp/platform".to_owned(), true)]);
    let lea = crate::ids::Subject::parse("user:corp/lea").unwrap();
    let what: Vec<u32> = policy.what_can(&lea).into_iter().map(Rule::line).collect();
    assert_eq!(what, [6, 11, 12, 13, 16], "developer in staging, anyone, and her own");
}

#[test]
fn expected_decisions_are_run_and_their_coverage_told() {
    let tests = r#"
[[test]]
name = "small rollouts pass"
user = "user:corp/ann"
groups = ["group:corp/platform"]
object = "deploy/rollout"
arguments = '{"replicas": 2}'
expect = "allow"

[[test]]
name = "large ones do not"
user = "user:corp/ann"
groups = ["group:corp/platform"]
object = "deploy/rollout"
arguments = '{"replicas": 20}'
expect = "deny"
reason = "condition_unmet"

[[test]]
name = "this one is wrong"
user = "user:corp/ann"
object = "github/list_issues"
expect = "allow"
"#;
    let policy = build_with(&[("tests.toml", tests)], &super::fixture::world()).unwrap().policy;
    let report = policy.run_tests();
    assert_eq!((report.passed, report.failed.len()), (2, 1), "{report:?}");
    assert!(
        report.failed[0].to_string().starts_with("tests.toml:19: `this one is wrong`: expected allow"),
        "{report:?}"
    );
    assert!(!report.uncovered_rules.iter().any(|rule| rule.starts_with("policy.csv:7:")), "{report:?}");
    assert!(report.uncovered_rules.iter().any(|rule| rule.starts_with("policy.csv:6:")), "{report:?}");
    assert!(report.untested_servers.contains(&"github: no test allows".to_owned()), "{report:?}");
    assert!(!report.untested_servers.iter().any(|server| server.starts_with("deploy")), "{report:?}");
}

#[test]
fn the_repositorys_own_policy_has_neither_mistakes_nor_warnings() {
    let servers = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("servers.toml");
    let loaded =
        crate::config::load::load_with(&servers, &crate::config::load::Overrides::for_demo().unwrap()).unwrap();
    let world = World::of(&loaded.config, Strictness::Demo);
    let built = Policy::build(&Sources::from_files(loaded.files.policy_files()), &world).unwrap();
    assert_eq!(built.warnings, []);
}
