//! Every mistake that the files can hold is told with its place, and nothing with a mistake is served.

use super::fixture::{RULES, build_with, world};
use super::*;

/// The mistakes after adding rows to the good policy.
fn mistakes(rows: &str) -> Vec<String> {
    let text = format!("{RULES}{rows}\n");
    match build_with(&[("policy.csv", &text)], &world()) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

fn warnings(rows: &str) -> Vec<String> {
    let text = format!("{RULES}{rows}\n");
    build_with(&[("policy.csv", &text)], &world()).unwrap().warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_good_policy_has_neither_mistakes_nor_warnings() {
    assert_eq!(mistakes(""), [""; 0]);
    assert_eq!(warnings(""), [""; 0]);
}

#[test]
fn each_slip_in_a_row_is_told_with_line_and_column() {
    for (row, place, told) in [
        ("p, anyone, *, github/x, call, allow", "17:31", "needs 6"),
        ("p, anyone, *, github/x, call, -, allow, x", "17:41", "needs 6"),
        ("p, anyone, *, github/x, call, -, Deny", "17:34", "write allow or deny"),
        ("p, anyone, *, github/x, call, -, deny # why", "17:34", "comments on their own line"),
        ("p, anyone, prod, github/x, call, -, allow", "17:12", "not a declared environment"),
        ("p, anyone, production, github/x, call, -, allow", "17:12", "never applies"),
        ("p, anyone, *, gitlab/x, call, -, allow", "17:15", "no server `gitlab`"),
        ("p, anyone, *, zz*/x, call, -, allow", "17:15", "no server `zz*`"),
        ("p, anyone, *, github/x, *, -, allow", "17:25", "not an action"),
        ("p, anyone, *, github/**, call, -, allow", "17:15", "`**` is for URIs"),
        ("p, anyone, *, github/x, call, small, allow", "17:31", "no condition `small`"),
        ("p, anyone, *, github/x, call, , allow", "17:31", "the cell is empty"),
        ("p, , *, github/x, call, -, allow", "17:4", "the cell is empty"),
        ("p, everyone, *, github/x, call, -, allow", "17:4", "write user:ISSUER/SUB"),
        ("p, user:corp/a b, *, github/x, call, -, allow", "17:4", "percent-encoded"),
        ("p, user:corp/%2a, *, github/x, call, -, deny", "17:4", "write user:corp/%2A"),
        ("p, user:acme/ann, *, github/x, call, -, deny", "17:4", "no issuer `acme`"),
        ("p, agent:cloud, *, github/x, call, -, deny", "17:4", "no agent `cloud`"),
        ("p, role:developr, *, github/x, call, -, deny", "17:1", "nobody has `role:developr`"),
        ("p, anyone, *, github/@writ, call, -, allow", "17:1", "nothing is in `github/@writ`"),
        ("p, anyone, *, github/revoke, admin, -, allow", "17:30", "write bailiwick/NAME"),
        ("p, anyone, *, bailiwick/revoek, admin, -, deny", "17:15", "write bailiwick/ and one of status, servers"),
        ("p, anyone, *, bailiwick/x*, admin, -, deny", "17:15", "no operation `bailiwick/x*`"),
        ("p, anyone, *, bailiwick/revoke, call, -, allow", "17:33", "write admin, not call"),
        ("p, anyone, *, bail*/revoke, admin, -, allow", "17:29", "write bailiwick/NAME"),
        ("p, anyone, *, */*, admin, -, allow", "17:20", "write bailiwick/NAME"),
        ("g2, bailiwick/revoek, bailiwick/@brake", "17:5", "no operation `bailiwick/revoek`"),
        ("p, anyone, *, github/x, sample, -, allow", "17:15", "write github/*"),
        ("q, anyone", "17:1", "write p, g or g2"),
        ("g, anyone, role:developer, *", "17:4", "anyone cannot be a member"),
        ("g, user:corp/ann, developer, *", "17:19", "write role:NAME"),
        ("g, user:corp/ann, role:developer, prod", "17:35", "not a declared environment"),
        ("g2, github/list_*, github/@read", "17:5", "write each name"),
        ("g2, github/x, deploy/@read", "17:15", "not a set of github"),
        ("g2, github/x, github/read", "17:15", "not a set of github"),
    ] {
        let found = mistakes(row);
        assert_eq!(found.len(), 1, "{row}: {found:?}");
        assert!(found[0].starts_with(&format!("policy.csv:{place}: ")), "{row}: {found:?}");
        assert!(found[0].contains(told), "{row}: {found:?}");
    }
}

#[test]
fn circles_of_roles_and_of_sets_are_mistakes() {
    assert!(mistakes("g, role:developer, role:lead, *")[0].contains("member of itself"));
    assert!(mistakes("g2, github/@read, github/@all\ng2, github/@all, github/@read")[0].contains("is in itself"));
}

#[test]
fn a_policy_that_allows_nothing_is_not_served() {
    let found = build_with(&[("policy.csv", "p, anyone, *, */*, call, -, deny\n")], &world()).unwrap_err();
    assert!(found[0].message.contains("no row allows anything"), "{found:?}");
    assert!(build_with(&[("policy.csv", "")], &world()).is_err());
}

#[test]
fn a_brake_loads_although_it_shadows_everything() {
    let found = warnings("p, anyone, *, */*, call, -, deny");
    assert!(found.iter().any(|warning| warning.contains("never matters: policy.csv:17")), "{found:?}");
}

#[test]
fn what_is_odd_is_told_as_a_warning() {
    for (row, told) in [
        ("p, role:developer, *, github/@read, call, -, allow", "says the same as policy.csv:6"),
        ("g, user:corp/ann, role:unused, *", "no rule speaks about `role:unused`"),
    ] {
        let found = warnings(row);
        assert!(found.len() == 1 && found[0].contains(told), "{row}: {found:?}");
    }
    let open = "[small-rollout]\nargument = \"replicas\"\nat_most = 5\n[outside-hours]\ntime = { zone = \"UTC\", days = [\"sun\"] }\n\
                [own-files]\nhuman = true\n[spare]\nhuman = false\n";
    let built = build_with(&[("conditions.toml", open)], &world()).unwrap();
    let found: Vec<String> = built.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("no rule, gate or label uses the condition `spare`"), "{found:?}");
    assert!(found[1].starts_with("policy.csv:7:1: `small-rollout` lets any further argument through"), "{found:?}");
}

#[test]
fn a_servers_file_speaks_about_its_server_only_and_cannot_lift_a_deny() {
    let build = |text: &str| build_with(&[("servers/github.csv", text)], &world());
    assert!(build("p, anyone, *, github/x, call, -, allow\n").is_ok());
    for (row, told) in [
        ("p, anyone, *, deploy/x, call, -, allow", "speaks about github/... only"),
        ("p, anyone, *, */x, call, -, allow", "speaks about github/... only"),
        ("g, user:corp/ann, role:developer, *", "holds no g rows"),
        ("g2, github/x, github/@read", "holds no g2 rows"),
    ] {
        let found = build(row).unwrap_err();
        assert!(found[0].file == "servers/github.csv" && found[0].message.contains(told), "{row}: {found:?}");
    }
    let unknown = build_with(&[("servers/gitlab.csv", "")], &world()).unwrap_err();
    assert!(unknown[0].message.contains("no server `gitlab`"), "{unknown:?}");
    let text = format!("{RULES}p, anyone, *, github/x, call, -, deny\n");
    let own = "p, anyone, *, github/x, call, -, allow\n";
    let built = build_with(&[("policy.csv", &text), ("servers/github.csv", own)], &world()).unwrap();
    let persona = super::fixture::user("ann", &[]);
    let ask = built.policy.ask_about("github", "x", &Action::Call).unwrap();
    let class = built.policy.class(&persona);
    assert!(!built.policy.decide(&class, &persona, &ask, Arguments::None, jiff::Timestamp::UNIX_EPOCH).is_allowed());
    assert!(built.warnings.iter().any(|warning| warning.message.contains("deny wins")), "{:?}", built.warnings);
}

#[test]
fn rows_of_an_undeclared_issuer_are_inert_in_a_demo_only() {
    let text = format!("{RULES}g, group:acme/staff, role:guest, *\np, role:guest, *, github/x, call, -, allow\n");
    let mut demo = world();
    demo.strictness = Strictness::Demo;
    assert!(build_with(&[("policy.csv", &text)], &demo).is_ok());
    assert!(build_with(&[("policy.csv", &text)], &world()).is_err());
}

#[test]
fn the_model_is_the_expected_one_or_a_mistake() {
    let model = include_str!("../../policies/model.conf");
    let with = |from: &str, to: &str| {
        let text = model.replace(from, to);
        assert_ne!(text, model, "{from}");
        build_with(&[("model.conf", &text)], &world())
    };
    assert!(with("# The Casbin model.", "#").is_ok());
    assert!(with("r.action == p.action", "r.action  ==  p.action").is_ok());
    for (from, to) in [
        ("condition, eft", "condition, effect"),
        ("&& !some(where (p.eft == deny))", ""),
        ("g(r.subject, p.subject, r.environment)", "true"),
        ("g2 = _, _\n", ""),
        ("means(", "keyMatch("),
        ("[matchers]", "[matchers]\nm2 = true"),
        ("[matchers]", "[matchers]\nm = true"),
    ] {
        let found = with(from, to).unwrap_err();
        assert!(found.iter().all(|mistake| mistake.file == "model.conf"), "{from}: {found:?}");
    }
}

#[test]
fn each_slip_in_a_condition_is_told() {
    for (condition, told) in [
        ("at_most = 5", "does not name it"),
        ("argument = \"a\"", "not tested"),
        ("argument = \"a\"\nat_mots = 5", "`at_mots` is not a test"),
        ("argument = \"a\"\nat_most = \"5\"", "write a number"),
        ("argument = \"a\"\none_of = []", "at least one"),
        ("argument = \"a..b\"\nequals = 1", "name the argument"),
        ("argument = \"a\"\nequals = 1.5e400", "at most 28 digits"),
        ("argument = \"a\"\npath_under = \"srv\"", "not a plain absolute directory"),
        ("argument = \"a\"\npath_under = \"/srv/../etc\"", "not a plain absolute directory"),
        ("argument = \"a\"\nurl_host_in = \"https://x.org\"", "not a host"),
        ("time = { zone = \"Mars/Base\", days = [\"mon\"] }", "not a time zone"),
        ("time = { zone = \"UTC\" }", "no bound"),
        ("time = { zone = \"UTC\", from = \"08:00\" }", "belong together"),
        ("client_proof = \"strong\"", "write none, public"),
        ("authenticated_within = \"soon\"", "write a duration"),
        ("all = [\"bad\"]", "built on itself"),
        ("any = [\"nowhere\"]", "no condition `nowhere`"),
        ("", "tests nothing"),
    ] {
        let text = format!("{}\n[bad]\n{condition}\n", super::fixture::CONDITIONS);
        let found = build_with(&[("conditions.toml", &text)], &world()).unwrap_err();
        assert!(found.iter().any(|mistake| mistake.message.contains(told)), "{condition}: {found:?}");
        assert!(found.iter().all(|mistake| mistake.file == "conditions.toml" && mistake.line > 14), "{found:?}");
    }
}

#[test]
fn a_condition_that_grows_without_bound_is_refused() {
    let mut text = super::fixture::CONDITIONS.to_owned();
    text.push_str("[c0]\nhuman = true\n");
    for level in 1..20 {
        let parts = vec![format!("\"c{}\"", level - 1); 4].join(", ");
        text.push_str(&format!("[c{level}]\nall = [{parts}]\n"));
    }
    let found = build_with(&[("conditions.toml", &text)], &world()).unwrap_err();
    assert!(found.iter().any(|mistake| mistake.message.contains("at most 1000 parts")), "{found:?}");
}

/// The mistakes of a file with one more condition.
fn condition_mistakes(condition: &str) -> Vec<String> {
    let text = format!("{}\n{condition}\n", super::fixture::CONDITIONS);
    match build_with(&[("conditions.toml", &text)], &world()) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_depth_and_the_parts_of_a_condition_are_bounded() {
    let nested = |depth: usize| {
        let inner = (1..depth)
            .fold("{ argument = \"a\", present = true }".to_owned(), |inner, _| format!("{{ not = {inner} }}"));
        condition_mistakes(&format!("[deep]\nnot = {inner}"))
    };
    let deepest = (1..).take_while(|depth| nested(*depth).is_empty()).last().unwrap();
    assert!(
        (crate::limit::CONDITION_DEPTH_MAX - 2..=crate::limit::CONDITION_DEPTH_MAX).contains(&deepest),
        "{deepest}"
    );
    assert!(nested(deepest + 1).concat().contains("deep; flatten this"));
    let wide = |parts: usize| {
        let all = vec!["{ argument = \"a\", present = true }"; parts].join(", ");
        condition_mistakes(&format!("[wide]\nall = [{all}]"))
    };
    assert!(wide(crate::limit::CONDITION_PARTS_MAX - 2).is_empty());
    assert!(wide(crate::limit::CONDITION_PARTS_MAX + 1).concat().contains("parts; split it"));
}

#[test]
fn environments_are_bounded() {
    let many = |count: usize| {
        let mut world = world();
        let more = count - world.environments.len();
        world.environments.extend((0..more).map(|number| super::fixture::environment(&format!("e{number}"))));
        build_with(&[], &world).map(|_| ()).map_err(|mistakes| mistakes[0].to_string())
    };
    assert_eq!(many(crate::limit::ENVIRONMENTS_MAX), Ok(()));
    assert!(many(crate::limit::ENVIRONMENTS_MAX + 1).unwrap_err().contains("environments"));
}

#[test]
fn the_rows_of_all_files_are_bounded() {
    let row = "p, anyone, *, github/x, call, -, deny\n";
    let found = mistakes(&row.repeat(crate::limit::POLICY_ROWS_MAX)).concat();
    assert!(found.contains("rows in all files"), "{found:.200}");
}

#[test]
fn so_many_mistakes_are_reported_and_no_more() {
    let slip = |number: usize| format!("p, anyone, *, github/x{number}, call, -, Deny\n");
    let slips = |count: usize| mistakes(&(0..count).map(slip).collect::<String>());
    let most = crate::limit::POLICY_MISTAKES_MAX;
    assert_eq!(slips(most).len(), most);
    assert_eq!(slips(most + 1).len(), most);
}
