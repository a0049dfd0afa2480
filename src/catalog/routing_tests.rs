//! Names and URIs over composed views: one meaning or none.

use std::sync::Arc;

use proptest::prelude::*;

use super::fake::{Fake, Script, config, principal, server, tool};
use super::{Catalog, ConflictReason, Item, View, Viewer, Wanted};
use crate::config::{Prefix, ServerConfig};
use crate::ids::{Action, Endpoint, ServerId};
use crate::limit;
use crate::outcome::Reason;
use crate::wire::mcp::Kind;

fn compose(servers: Vec<(ServerConfig, Script)>, endpoint: &Endpoint) -> Arc<View> {
    compose_for(servers, endpoint, |_| true)
}

fn compose_for(
    servers: Vec<(ServerConfig, Script)>,
    endpoint: &Endpoint,
    included: fn(&ServerConfig) -> bool,
) -> Arc<View> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let fake = Arc::new(Fake::default());
        let catalog = Catalog::new(Arc::clone(&fake));
        let mut configs = Vec::new();
        for (server, script) in servers {
            fake.set(server.id.as_str(), script);
            configs.push(server);
        }
        let config = config(configs);
        let ada = principal("ada");
        catalog.view(&config, endpoint, Viewer { principal: ada, caller: &ada }, included).await.unwrap()
    })
}

fn merged(servers: Vec<(ServerConfig, Script)>) -> Arc<View> {
    compose(servers, &Endpoint::Merged)
}

fn verbatim(id: &str) -> ServerConfig {
    ServerConfig { prefix: Prefix::None, ..server(id) }
}

fn claiming(id: &str, uris: &[&str]) -> ServerConfig {
    ServerConfig { uris: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..server(id) }
}

fn names(view: &View, kind: Kind) -> Vec<&str> {
    view.items(kind).iter().map(Item::public_name).collect()
}

/// Whose a URI is, or why it is nobody's.
fn read(view: &View, uri: &str) -> Result<String, Reason> {
    view.resolve(Wanted::Read(uri))
        .map(|target| {
            assert_eq!((target.name(), target.action()), (uri, &Action::Read));
            target.server_id().to_string()
        })
        .map_err(|refusal| refusal.reason)
}

const UNKNOWN: Result<String, Reason> = Err(Reason::TargetUnknown);

#[test]
fn a_verbatim_name_that_two_servers_have_is_routed_to_neither_and_reported() {
    let view = merged(vec![
        (verbatim("one"), Script::tools(&["shared", "a.b"])),
        (verbatim("two"), Script::tools(&["shared", "own"])),
        (verbatim("three"), Script::tools(&["shared"])),
        (server("four"), Script::tools(&["shared"])),
    ]);
    assert_eq!(names(&view, Kind::Tool), ["a.b", "own", "four__shared"]);
    assert_eq!(view.resolve(Wanted::Call("shared")).unwrap_err().reason, Reason::TargetUnknown);
    let reported: Vec<_> = view.conflicts().iter().map(|conflict| conflict.server.as_str()).collect();
    assert_eq!(reported, ["one", "two", "three"]);
}

#[test]
fn nobody_can_take_a_prefixed_servers_names_even_while_it_is_down() {
    let view = merged(vec![
        (verbatim("evil"), Script::tools(&["git__commit", "git__", "other__x"])),
        (server("git"), Script { down: true, ..Script::default() }),
    ]);
    assert_eq!(names(&view, Kind::Tool), ["other__x"]);
    assert!(view.conflicts().iter().all(|conflict| conflict.reason == ConflictReason::Claimed));
}

#[test]
fn nobody_can_take_the_names_of_the_gateways_own_tools() {
    let view = merged(vec![(verbatim("one"), Script::tools(&["bailiwick__mandate_open", "bailiwick_x"]))]);
    assert_eq!(names(&view, Kind::Tool), ["bailiwick_x"]);
    assert_eq!(view.conflicts()[0].reason, ConflictReason::Claimed);
    assert!(view.resolve(Wanted::Call("bailiwick__mandate_open")).is_err());
    // Where the gateway has no tools a server keeps every name of its own.
    let own = Endpoint::Server(ServerId::new("one").unwrap());
    let view = compose(vec![(verbatim("one"), Script::tools(&["bailiwick__mandate_open"]))], &own);
    assert_eq!(names(&view, Kind::Tool), ["bailiwick__mandate_open"]);
}

#[test]
fn on_its_own_endpoint_a_server_is_verbatim_and_complete() {
    let one = ServerConfig { uris: vec!["x://a/".to_owned()], ..server("one") };
    let script =
        Script::tools(&["a.b", "git__x"]).resources(&["x://h/1", "ui://one/v"]).templates(&["{+any}", "y://{h}/x"]);
    let endpoint = Endpoint::Server(ServerId::new("one").unwrap());
    let other = Script::tools(&["z"]).resources(&["x://h/1", "ui://one/v"]);
    let view = compose(vec![(one, script), (server("git"), other)], &endpoint);
    assert_eq!(names(&view, Kind::Tool), ["a.b", "git__x"]);
    assert_eq!(names(&view, Kind::ResourceTemplate), ["{+any}", "y://{h}/x"]);
    for uri in ["x://h/1", "ui://one/v", "anything:at-all", "y://q/x"] {
        assert_eq!(read(&view, uri), Ok("one".to_owned()), "{uri}");
    }
    assert_eq!(read(&view, "file:///a/../b"), Err(Reason::UriRefused));
    assert!(view.resolve(Wanted::Call("unlisted")).is_err());
}

#[test]
fn a_uri_goes_to_who_lists_it_then_to_who_claims_it_then_to_who_expands_to_it() {
    let view = merged(vec![
        (server("lists"), Script::default().resources(&["x://h/listed", "z://h/t/1"])),
        (claiming("claims", &["notes://", "x://claimed/"]), Script::tools(&["t"])),
        (
            server("expands"),
            Script::default().templates(&["z://h/t/{id}", "notes://n/{id}", "memo://{host}/x", "{+all}"]),
        ),
    ]);
    assert_eq!(read(&view, "x://h/listed"), Ok("lists".to_owned()));
    assert_eq!(read(&view, "z://h/t/1"), Ok("lists".to_owned()));
    assert_eq!(read(&view, "z://h/t/2"), Ok("expands".to_owned()));
    assert_eq!(read(&view, "notes://n/7"), Ok("claims".to_owned()));
    assert_eq!(read(&view, "x://claimed/a"), Ok("claims".to_owned()));
    for uri in ["memo://a/x", "x://h/other", "z://h/t/1/2", "x://claimedx/a"] {
        assert_eq!(read(&view, uri), UNKNOWN, "{uri}");
    }
    assert_eq!(names(&view, Kind::ResourceTemplate), ["z://h/t/{id}"]);
    let definition = |uri| view.resolve(Wanted::Read(uri)).unwrap().definition().map(|found| found.name.to_string());
    assert_eq!(definition("z://h/t/2").as_deref(), Some("z://h/t/{id}"));
    assert_eq!(definition("x://claimed/a"), None);
}

#[test]
fn a_uri_that_two_servers_list_is_nobodys_unless_the_administrator_says_whose() {
    let script = || Script::default().resources(&["x://h/both", "y://h/both"]).templates(&["z://h/{id}"]);
    let view = merged(vec![(server("one"), script()), (claiming("two", &["y://h"]), script())]);
    assert_eq!(read(&view, "x://h/both"), UNKNOWN);
    assert_eq!(read(&view, "y://h/both"), Ok("two".to_owned()));
    assert_eq!(read(&view, "z://h/1"), UNKNOWN);
    assert_eq!(names(&view, Kind::Resource), ["y://h/both"]);
    assert_eq!(view.conflicts().len(), 5);
}

#[test]
fn an_upstream_cannot_list_itself_into_what_another_claims() {
    let view = merged(vec![
        (server("evil"), Script::default().resources(&["notes://n/1"]).templates(&["notes://n/{id}"])),
        (claiming("notes", &["notes://"]), Script::tools(&["t"])),
    ]);
    assert_eq!(read(&view, "notes://n/1"), Ok("notes".to_owned()));
    assert!(names(&view, Kind::Resource).is_empty() && names(&view, Kind::ResourceTemplate).is_empty());
    let tied = merged(vec![
        (claiming("a", &["notes://"]), Script::tools(&["t"])),
        (claiming("b", &["notes://"]), Script::tools(&["t"])),
        (claiming("c", &["notes://n/"]), Script::tools(&["t"])),
    ]);
    assert_eq!(read(&tied, "notes://m/1"), UNKNOWN);
    assert_eq!(read(&tied, "notes://n/1"), Ok("c".to_owned()));
}

#[test]
fn a_server_that_a_caller_does_not_see_keeps_what_is_its_own() {
    let evil = Script::tools(&["notes__x"]).resources(&["notes://n/1", "x://h/1"]);
    let servers = || vec![(verbatim("evil"), evil.clone()), (claiming("notes", &["notes://"]), Script::tools(&["t"]))];
    let view = compose_for(servers(), &Endpoint::Merged, |server| server.id.as_str() == "evil");
    assert!(names(&view, Kind::Tool).is_empty());
    assert_eq!(names(&view, Kind::Resource), ["x://h/1"]);
    assert_eq!(read(&view, "notes://n/1"), UNKNOWN);
}

fn shows(name: &str, uri: &str) -> String {
    format!(r#"{{"name":"{name}","inputSchema":{{}},"_meta":{{"ui":{{"resourceUri":"{uri}"}}}}}}"#)
}

#[test]
fn a_ui_resource_belongs_to_the_server_whose_tool_shows_it() {
    let script = Script::default().with(
        Kind::Tool,
        [
            shows("clock", "ui://clock/unlisted"),
            r#"{"name":"old","inputSchema":{},"_meta":{"ui/resourceUri":"ui://clock/old"}}"#.to_owned(),
        ],
    );
    let view = merged(vec![(server("clock"), script), (server("other"), Script::tools(&["t"]))]);
    assert_eq!(read(&view, "ui://clock/unlisted"), Ok("clock".to_owned()));
    assert_eq!(read(&view, "ui://clock/old"), Ok("clock".to_owned()));
    assert_eq!(read(&view, "ui://clock/never"), UNKNOWN);
}

#[test]
fn a_ui_resource_with_two_owners_is_unroutable_and_reported() {
    let clock = || Script::default().with(Kind::Tool, [shows("clock", "ui://clock/v")]).resources(&["ui://clock/v"]);
    let view = merged(vec![
        (server("clock"), clock()),
        (server("evil"), Script::default().with(Kind::Tool, [shows("x", "ui://clock/v")])),
    ]);
    assert_eq!(read(&view, "ui://clock/v"), UNKNOWN);
    assert_eq!(view.conflicts()[0].reason, ConflictReason::Shared);
    let alone = merged(vec![(server("clock"), clock())]);
    assert_eq!(read(&alone, "ui://clock/v"), Ok("clock".to_owned()));
}

#[test]
fn completion_refers_to_prompts_templates_and_uris() {
    let prompt = r#"{"name":"greet","arguments":[]}"#.to_owned();
    let script = Script::default().with(Kind::Prompt, [prompt]).templates(&["z://h/{id}"]);
    let view = merged(vec![(server("one"), script)]);
    for (wanted, name) in [
        (Wanted::CompletePrompt("one__greet"), "greet"),
        (Wanted::CompleteResource("z://h/{id}"), "z://h/{id}"),
        (Wanted::CompleteResource("z://h/7"), "z://h/7"),
    ] {
        let target = view.resolve(wanted).unwrap();
        assert_eq!((target.name(), target.action()), (name, &Action::Complete));
    }
    assert!(view.resolve(Wanted::CompletePrompt("greet")).is_err());
    assert_eq!(view.resolve(Wanted::Subscribe("z://h/7")).unwrap().action(), &Action::Subscribe);
}

#[test]
fn a_server_and_its_own_spelling_lead_back_to_the_item() {
    let view = merged(vec![(server("one"), Script::tools(&["a.b"])), (server("two"), Script::tools(&["a"]))]);
    let one = ServerId::new("one").unwrap();
    assert_eq!(view.own_item(&one, Kind::Tool, "a.b").unwrap().target().name(), "a.b");
    assert!(view.own_item(&one, Kind::Tool, "a").is_none());
    let target = view.on_server(&one, Action::Elicit).unwrap();
    assert_eq!((target.server_id(), target.name(), target.definition().is_none()), (&one, "", true));
    assert!(view.on_server(&ServerId::new("three").unwrap(), Action::Elicit).is_err());
}

#[test]
fn what_one_server_can_make_us_match_and_report_is_bounded() {
    let templates: Vec<String> = (0..=limit::TEMPLATES_ROUTED_MAX).map(|n| format!("x://h/{n}/{{id}}")).collect();
    let templates: Vec<&str> = templates.iter().map(String::as_str).collect();
    let uris: Vec<String> = (0..limit::CONFLICTS_REPORTED_MAX).map(|n| format!("y://h/{n}")).collect();
    let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
    let view = merged(vec![
        (server("one"), Script::default().templates(&templates).resources(&uris)),
        (server("two"), Script::default().resources(&uris)),
    ]);
    assert_eq!(read(&view, "x://h/0/a"), Ok("one".to_owned()));
    assert_eq!(read(&view, &format!("x://h/{}/a", limit::TEMPLATES_ROUTED_MAX)), UNKNOWN);
    assert_eq!(view.conflicts().len(), limit::CONFLICTS_REPORTED_MAX);
}

#[test]
fn unknown_and_ambiguous_are_the_same_refusal() {
    let view = merged(vec![
        (verbatim("one"), Script::tools(&["t"]).resources(&["x://h/r"])),
        (verbatim("two"), Script::tools(&["t"]).resources(&["x://h/r"])),
    ]);
    let unknown = view.resolve(Wanted::Call("never")).unwrap_err();
    assert_eq!(view.resolve(Wanted::Call("t")).unwrap_err(), unknown);
    assert_eq!(view.resolve(Wanted::Read("x://h/r")).unwrap_err(), unknown);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever servers list, what is offered resolves to itself, and nothing resolves to two.
    #[test]
    fn every_offered_item_resolves_to_itself(
        lists in proptest::collection::vec((any::<bool>(), proptest::collection::vec("[ab_]{1,4}|[a.é]{1,30}", 0..8)), 1..4),
        uris in proptest::collection::vec(proptest::collection::vec("(x|ui)://[ab]/[ab./]{0,3}", 0..5), 1..4),
    ) {
        let mut servers = Vec::new();
        for (index, (prefixed, names)) in lists.iter().enumerate() {
            let id = ["a", "b", "c"][index];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let uris: Vec<&str> = uris.get(index).into_iter().flatten().map(String::as_str).collect();
            let config = if *prefixed { server(id) } else { verbatim(id) };
            servers.push((config, Script::tools(&names).resources(&uris)));
        }
        let view = merged(servers);
        for item in view.items(Kind::Tool) {
            let target = view.resolve(Wanted::Call(item.public_name())).unwrap();
            prop_assert_eq!(target.server_id(), item.target().server_id());
            prop_assert_eq!(target.name(), item.target().name());
        }
        for item in view.items(Kind::Resource) {
            let target = view.resolve(Wanted::Read(item.public_name())).unwrap();
            prop_assert_eq!(target.server_id(), item.target().server_id());
        }
        let mut seen = std::collections::HashSet::new();
        for item in view.items(Kind::Tool) {
            prop_assert!(seen.insert(item.public_name().to_owned()));
        }
    }

    /// Adding a server renames nothing and takes no prefixed name away.
    #[test]
    fn a_new_server_renames_nothing(own in proptest::collection::hash_set("[ab_.]{1,40}", 1..6), new in proptest::collection::vec("(a__)?[ab_.]{1,40}", 0..6)) {
        let own: Vec<String> = own.into_iter().collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let new = Script::default().with(Kind::Tool, new.iter().map(|name| tool(name)));
        let alone = merged(vec![(server("a"), Script::tools(&own))]);
        let both = merged(vec![(verbatim("new"), new), (server("a"), Script::tools(&own))]);
        let of = |view: &View| -> Vec<String> {
            view.items(Kind::Tool).iter().filter(|item| item.target().server_id().as_str() == "a").map(|item| item.public_name().to_owned()).collect()
        };
        prop_assert_eq!(of(&alone), of(&both));
    }
}
