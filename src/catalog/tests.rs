//! The catalog over fake upstreams: what is listed, how long it is kept, and whose it is.

use std::sync::Arc;
use std::time::Duration;

use super::fake::{Fake, Script, config, principal, server};
use super::slot::Pace;
use super::{Catalog, SliceState, View, Viewer, Wanted};
use crate::config::{Config, ListAs, PinMode, ServerConfig, TransportConfig};
use crate::ids::{Endpoint, PrincipalKey, ServerId};
use crate::limit;
use crate::outcome::{Reason, Stop};
use crate::wire::mcp::Kind;

const QUICK: Pace = Pace {
    first_wait: Duration::from_millis(300),
    renewed_wait: Duration::from_millis(100),
    refresh_timeout: Duration::from_secs(2),
    changed_pause: Duration::from_millis(50),
    retry_min: Duration::from_millis(50),
    retry_max: Duration::from_millis(200),
    doubt_max: Duration::from_secs(60),
};

fn start(config: &Arc<Config>) -> (Arc<Fake>, Catalog<Fake>) {
    let fake = Arc::new(Fake::default());
    let catalog = Catalog::with_pace(Arc::clone(&fake), QUICK, Arc::default());
    catalog.apply(config);
    (fake, catalog)
}

const fn everything(_: &ServerConfig) -> bool {
    true
}

const fn viewer(principal: &PrincipalKey) -> Viewer<'_, PrincipalKey> {
    Viewer { principal: *principal, caller: principal }
}

fn now(catalog: &Catalog<Fake>, config: &Arc<Config>) -> Result<Arc<View>, Stop> {
    catalog.view_now(config, &Endpoint::Merged, viewer(&principal("ada")), everything)
}

async fn view(catalog: &Catalog<Fake>, config: &Arc<Config>) -> Arc<View> {
    catalog.view(config, &Endpoint::Merged, viewer(&principal("ada")), everything).await.unwrap()
}

fn names(view: &View, kind: Kind) -> Vec<&str> {
    view.items(kind).iter().map(super::Item::public_name).collect()
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

#[tokio::test]
async fn what_is_accepted_with_the_very_list_that_shows_it_is_announced() {
    let config = config(vec![ServerConfig { pins: PinMode::FirstUse, ..server("git") }]);
    let (fake, pins) = (Arc::new(Fake::default()), Arc::new(super::Pins::default()));
    let script = Script::tools(&["log"]).with(Kind::Prompt, []);
    fake.set("git", Script { broken: Some(Kind::Prompt), ..script.clone() });
    *fake.accepts.lock().unwrap() = Some(Arc::clone(&pins));
    let catalog = Catalog::with_pace(Arc::clone(&fake), QUICK, pins);
    catalog.apply(&config);
    let broken = view(&catalog, &config).await;
    assert!(names(&broken, Kind::Tool).is_empty(), "its first list broke off");
    let mut revisions = catalog.revisions();
    revisions.mark_unchanged();
    fake.set("git", script);
    catalog.changed(&ServerId::new("git").unwrap(), None);
    // Nobody looks meanwhile: whoever listens is told all the same.
    tokio::time::timeout(Duration::from_secs(5), revisions.changed()).await.unwrap().unwrap();
    let whole = view(&catalog, &config).await;
    assert_eq!(names(&whole, Kind::Tool), ["git__log"]);
}

#[tokio::test]
async fn a_list_has_the_order_of_the_file_and_then_of_the_upstream() {
    let config = config(vec![server("zoo"), server("bar")]);
    let (fake, catalog) = start(&config);
    fake.set("zoo", Script::tools(&["z", "a"]));
    fake.set("bar", Script::tools(&["m"]));
    let view = view(&catalog, &config).await;
    assert_eq!(names(&view, Kind::Tool), ["zoo__z", "zoo__a", "bar__m"]);
    let target = view.resolve(Wanted::Call("zoo__a")).unwrap();
    assert_eq!((target.server_id().as_str(), target.name()), ("zoo", "a"));
    assert_eq!(view.resolve(Wanted::Call("a")).unwrap_err().reason, Reason::TargetUnknown);
    assert_eq!(view.resolve(Wanted::Get("zoo__a")).unwrap_err().reason, Reason::TargetUnknown);
}

#[tokio::test]
async fn one_server_that_hangs_delays_the_first_view_only_and_only_so_long() {
    let config = config(vec![server("slow"), server("fast")]);
    let (fake, catalog) = start(&config);
    fake.set("slow", Script { slow: Duration::from_secs(30), ..Script::tools(&["s"]) });
    fake.set("fast", Script::tools(&["f"]));
    let begun = tokio::time::Instant::now();
    let first = view(&catalog, &config).await;
    assert!(begun.elapsed() >= QUICK.first_wait && begun.elapsed() < Duration::from_secs(2));
    assert_eq!(names(&first, Kind::Tool), ["fast__f"]);
    assert_eq!(first.missing().map(|member| member.server.id.as_str()).collect::<Vec<_>>(), ["slow"]);
    let begun = tokio::time::Instant::now();
    view(&catalog, &config).await;
    assert!(begun.elapsed() < Duration::from_millis(250), "the second view does not wait again");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_waited_for_and_tried_again_as_the_limits_say() {
    let config = config(vec![server("slow"), server("fast")]);
    let fake = Arc::new(Fake::default());
    fake.set("slow", Script { slow: Duration::from_secs(3_600), ..Script::tools(&["s"]) });
    fake.set("fast", Script::tools(&["f"]));
    let catalog = Catalog::with_pace(Arc::clone(&fake), Pace::default(), Arc::default());
    let begun = tokio::time::Instant::now();
    catalog.apply(&config);
    assert_eq!(names(&*view(&catalog, &config).await, Kind::Tool), ["fast__f"]);
    let near = |max: Duration| begun.elapsed() >= max && begun.elapsed() < max + Duration::from_secs(2);
    assert!(near(limit::CATALOG_FIRST_WAIT), "{:?}", begun.elapsed());
    while fake.fetches("slow") < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(near(limit::CATALOG_REFRESH_TIMEOUT + limit::CATALOG_RETRY_MIN), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn all_servers_down_is_an_error_and_never_an_empty_success() {
    let config = config(vec![server("one"), server("two")]);
    let (fake, catalog) = start(&config);
    for id in ["one", "two"] {
        fake.set(id, Script { down: true, ..Script::default() });
    }
    let stop = catalog.view(&config, &Endpoint::Merged, viewer(&principal("ada")), everything).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::CatalogUnavailable);
    // One that comes back is found without anybody asking.
    fake.set("one", Script::tools(&["t"]));
    eventually(|| now(&catalog, &config).is_ok()).await;
}

#[tokio::test]
async fn a_caller_who_may_ask_nobody_gets_an_empty_view() {
    let config = config(vec![server("one")]);
    let (fake, catalog) = start(&config);
    fake.set("one", Script::tools(&["t"]));
    let view =
        catalog.view(&config, &Endpoint::Merged, viewer(&principal("ada")), |_: &ServerConfig| false).await.unwrap();
    assert!(view.items(Kind::Tool).is_empty());
    let endpoint = Endpoint::Server(ServerId::new("one").unwrap());
    let hidden =
        catalog.view(&config, &endpoint, viewer(&principal("ada")), |_: &ServerConfig| false).await.unwrap_err();
    let endpoint = Endpoint::Server(ServerId::new("none").unwrap());
    let unknown =
        catalog.view(&config, &endpoint, viewer(&principal("ada")), |_: &ServerConfig| false).await.unwrap_err();
    assert_eq!(hidden, unknown);
    assert!(matches!(hidden, Stop::Refused(refusal) if refusal.reason == Reason::TargetUnknown));
}

#[tokio::test]
async fn a_server_that_goes_down_keeps_its_tools_for_a_while() {
    let mut flaky = server("flaky");
    flaky.on_down = Duration::from_millis(900);
    let config = config(vec![flaky, server("good")]);
    let (fake, catalog) = start(&config);
    fake.set("flaky", Script::tools(&["t"]));
    fake.set("good", Script::tools(&["g"]));
    let up = view(&catalog, &config).await;
    fake.set("flaky", Script { down: true, ..Script::default() });
    catalog.unreachable(&ServerId::new("flaky").unwrap(), Reason::UpstreamClosed);
    let down = view(&catalog, &config).await;
    assert_eq!(names(&down, Kind::Tool), ["flaky__t", "good__g"]);
    assert_eq!(down.revision(), up.revision());
    assert!(matches!(down.members()[0].state, SliceState::Down { .. }));
    let mut revisions = catalog.revisions();
    tokio::time::sleep(Duration::from_millis(950)).await;
    let gone = view(&catalog, &config).await;
    assert_eq!(names(&gone, Kind::Tool), ["good__g"]);
    assert_ne!(gone.digest(Kind::Tool), up.digest(Kind::Tool));
    assert!(gone.members()[0].slice.is_some(), "who had something there can still be told");
    tokio::time::timeout(Duration::from_secs(5), revisions.changed()).await.unwrap().unwrap();
    fake.set("flaky", Script::tools(&["t"]));
    catalog.changed(&ServerId::new("flaky").unwrap(), None);
    let both = || now(&catalog, &config).unwrap();
    eventually(|| both().revision() == up.revision()).await;
}

#[tokio::test]
async fn a_change_is_fetched_once_and_only_that_kind() {
    let config = config(vec![server("one"), server("two")]);
    let (fake, catalog) = start(&config);
    fake.set("one", Script::tools(&["a"]).resources(&["x://h/r"]));
    fake.set("two", Script::tools(&["b"]));
    let before = view(&catalog, &config).await;
    fake.set("one", Script::tools(&["a", "c"]).resources(&["x://h/r"]));
    fake.log.lock().unwrap().clear();
    let mut revisions = catalog.revisions();
    revisions.mark_unchanged();
    for _ in 0..100 {
        catalog.changed(&ServerId::new("one").unwrap(), Some(Kind::Tool));
    }
    tokio::time::timeout(Duration::from_secs(5), revisions.changed()).await.unwrap().unwrap();
    let after = view(&catalog, &config).await;
    assert_eq!(names(&after, Kind::Tool), ["one__a", "one__c", "two__b"]);
    assert_ne!(before.digest(Kind::Tool), after.digest(Kind::Tool));
    assert_eq!(before.digest(Kind::Resource), after.digest(Kind::Resource));
    let log = fake.log.lock().unwrap().clone();
    assert_eq!(log, [("one".to_owned(), None, Some(Kind::Tool))]);
}

#[tokio::test]
async fn what_one_callers_credential_listed_is_never_anothers() {
    let mut own = server("own");
    own.list_as = ListAs::Caller;
    let config = config(vec![own, server("all")]);
    let (fake, catalog) = start(&config);
    fake.set("all", Script::tools(&["t"]));
    fake.set_for("own", principal("ada"), Script::tools(&["adas"]));
    fake.set_for("own", principal("bob"), Script::tools(&["bobs"]));
    let of = async |name: &str| {
        catalog.view(&config, &Endpoint::Merged, viewer(&principal(name)), everything).await.unwrap()
    };
    let (ada, bob) = (of("ada").await, of("bob").await);
    assert_eq!(names(&ada, Kind::Tool), ["own__adas", "all__t"]);
    assert_eq!(names(&bob, Kind::Tool), ["own__bobs", "all__t"]);
    assert_ne!(ada.revision(), bob.revision());
    assert!(fake.log.lock().unwrap().iter().all(|(server, principal, _)| (server == "own") == principal.is_some()));
    assert!(Arc::ptr_eq(&ada, &of("ada").await), "the view is remembered");

    fake.set_for("own", principal("ada"), Script::tools(&["more"]));
    catalog.changed(&ServerId::new("own").unwrap(), Some(Kind::Tool));
    let shown = || now(&catalog, &config).unwrap();
    eventually(|| names(&shown(), Kind::Tool) == ["own__more", "all__t"]).await;
}

#[tokio::test]
async fn a_list_is_refreshed_on_demand_at_most_so_often_and_served_stale_meanwhile() {
    let mut one = server("one");
    one.list_refresh_min = Duration::from_millis(400);
    let config = config(vec![one]);
    let (fake, catalog) = start(&config);
    fake.set("one", Script::tools(&["a"]));
    let first = view(&catalog, &config).await;
    for _ in 0..50 {
        view(&catalog, &config).await;
    }
    assert_eq!(fake.fetches("one"), 1);
    fake.set("one", Script { slow: Duration::from_millis(200), ..Script::tools(&["b"]) });
    tokio::time::sleep(Duration::from_millis(450)).await;
    let stale = view(&catalog, &config).await;
    assert_eq!(stale.revision(), first.revision(), "nobody waits for a refresh");
    assert_eq!(stale.members()[0].state, SliceState::Stale);
    let shown = || now(&catalog, &config).unwrap();
    eventually(|| names(&shown(), Kind::Tool) == ["one__b"]).await;
    assert_eq!(fake.fetches("one"), 2);
    fake.set("one", Script::tools(&["b"]));
    // A refresh that changed nothing does not end refreshing.
    tokio::time::sleep(Duration::from_millis(450)).await;
    view(&catalog, &config).await;
    eventually(|| fake.fetches("one") == 3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    view(&catalog, &config).await;
    eventually(|| fake.fetches("one") == 4).await;
}

#[tokio::test]
async fn a_list_that_fails_keeps_what_it_had_and_hurts_no_other() {
    let config = config(vec![server("one")]);
    let (fake, catalog) = start(&config);
    fake.set("one", Script::tools(&["a"]).resources(&["x://h/r"]));
    view(&catalog, &config).await;
    let broken = Script { broken: Some(Kind::Resource), ..Script::tools(&["a", "b"]).resources(&["x://h/r"]) };
    fake.set("one", broken);
    catalog.changed(&ServerId::new("one").unwrap(), None);
    let shown = || now(&catalog, &config).unwrap();
    eventually(|| names(&shown(), Kind::Tool).len() == 2).await;
    assert_eq!(names(&shown(), Kind::Resource), ["x://h/r"]);
    let slice = shown().members()[0].slice.clone().unwrap();
    assert_eq!(slice.list(Kind::Resource).failure, Some(Reason::UpstreamGarbage));
}

#[tokio::test]
async fn a_server_that_became_another_shows_nothing_of_the_old_one() {
    let before = config(vec![server("one"), server("gone")]);
    let (fake, catalog) = start(&before);
    fake.set("one", Script::tools(&["old"]));
    view(&catalog, &before).await;
    let mut other = server("one");
    other.transport = TransportConfig::Http { url: "https://other.example/mcp".parse().unwrap(), allow_private: false };
    let after = config(vec![other]);
    fake.set("one", Script::tools(&["new"]));
    catalog.apply(&after);
    let shown = view(&catalog, &after).await;
    assert_eq!(names(&shown, Kind::Tool), ["one__new"]);
    assert_eq!(catalog.status().len(), 1);
    // The same servers under a new configuration are not fetched again, but targets carry the new one.
    let fetches = fake.fetches("one");
    let mut same = after.servers[0].as_ref().clone();
    same.title = Some("renamed".to_owned());
    let renamed = config(vec![same]);
    catalog.apply(&renamed);
    let view = view(&catalog, &renamed).await;
    assert_eq!(fake.fetches("one"), fetches);
    let target = view.resolve(Wanted::Call("one__new")).unwrap();
    assert_eq!(target.server().title.as_deref(), Some("renamed"));
}

#[tokio::test]
async fn a_source_that_hangs_or_panics_is_a_server_that_is_down() {
    let config = config(vec![server("hangs"), server("panics"), server("good")]);
    let (fake, catalog) = start(&config);
    fake.set("hangs", Script { slow: Duration::from_secs(60), ..Script::default() });
    fake.set("panics", Script { panics: true, ..Script::default() });
    fake.set("good", Script::tools(&["t"]));
    assert_eq!(names(&*view(&catalog, &config).await, Kind::Tool), ["good__t"]);
    let state = |at: usize| now(&catalog, &config).unwrap().members()[at].state;
    eventually(|| matches!(state(0), SliceState::Down { reason: Reason::UpstreamTimeout, .. })).await;
    assert!(matches!(state(1), SliceState::Down { reason: Reason::Internal, .. }));
    fake.set("panics", Script::tools(&["back"]));
    eventually(|| state(1) == SliceState::Fresh).await;
}

#[tokio::test]
async fn a_flapping_server_is_not_chased() {
    let config = config(vec![server("one")]);
    let (fake, catalog) = start(&config);
    fake.set("one", Script::tools(&["a"]));
    view(&catalog, &config).await;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        catalog.changed(&ServerId::new("one").unwrap(), None);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(fake.fetches("one") <= 12, "{} fetches", fake.fetches("one"));
}

#[tokio::test]
async fn a_thousand_tools_are_composed_alike_each_time_and_then_remembered() {
    let config = config((0..10).map(|n| server(&format!("s{n}"))).collect());
    let (fake, catalog) = start(&config);
    let tools: Vec<String> = (0..100).map(|n| format!("tool_{n}")).collect();
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    for n in 0..10 {
        fake.set(&format!("s{n}"), Script::tools(&tools));
    }
    let first = view(&catalog, &config).await;
    assert_eq!(first.items(Kind::Tool).len(), 1_000);
    let again = View::compose(&config, &Endpoint::Merged, first.members().to_vec());
    assert_eq!(again.revision(), first.revision());
    assert_eq!(names(&again, Kind::Tool), names(&first, Kind::Tool));
    let remembered = now(&catalog, &config).unwrap();
    assert!(Arc::ptr_eq(&remembered, &now(&catalog, &config).unwrap()));
    // Whoever asks: these lists are everyone's.
    let bob = principal("bob");
    let bobs = catalog.view_now(&config, &Endpoint::Merged, viewer(&bob), everything).unwrap();
    assert!(Arc::ptr_eq(&remembered, &bobs));
    let less = catalog
        .view_now(&config, &Endpoint::Merged, viewer(&bob), |server: &ServerConfig| server.id.as_str() == "s1")
        .unwrap();
    assert_eq!(less.items(Kind::Tool).len(), 100);
}

#[tokio::test]
async fn an_upstreams_ttl_counts_where_it_is_longer_than_ours_up_to_a_bound() {
    let mut one = server("one");
    one.list_refresh_min = Duration::from_millis(100);
    let config = config(vec![one]);
    let (fake, catalog) = start(&config);
    fake.set("one", Script { ttl: Some(Duration::from_secs(86_400)), ..Script::tools(&["a"]) });
    let first = view(&catalog, &config).await;
    let began = tokio::time::Instant::now();
    let left = first.ttl_left(Kind::Tool, began);
    assert!(left <= limit::LIST_TTL_MAX && left > limit::LIST_TTL_MAX - Duration::from_secs(5), "{left:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(first.ttl_left(Kind::Tool, began + Duration::from_millis(300)), left - Duration::from_millis(300));
    assert_eq!(first.ttl_left(Kind::Tool, began + 2 * limit::LIST_TTL_MAX), Duration::ZERO);
    view(&catalog, &config).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fake.fetches("one"), 1);
}

#[tokio::test]
async fn what_is_left_is_the_least_of_all_lists_empty_ones_too_and_nothing_while_one_is_not_there() {
    let ttl = |seconds: u64| Some(Duration::from_secs(seconds));
    let left = |view: &View| view.ttl_left(Kind::Tool, tokio::time::Instant::now());
    let three = config(vec![server("long"), server("empty"), server("none")]);
    let (fake, catalog) = start(&three);
    fake.set("long", Script { ttl: ttl(600), ..Script::tools(&["a"]) });
    fake.set("empty", Script { ttl: ttl(60), ..Script::tools(&[]) });
    // It has no tools, and so says nothing of them.
    fake.set("none", Script { ttl: ttl(1), ..Script::default().resources(&["x:1"]) });
    let shown = view(&catalog, &three).await;
    assert!(left(&shown) > Duration::from_secs(5) && left(&shown) <= Duration::from_secs(60), "{:?}", left(&shown));
    let two = config(vec![server("long"), server("slow")]);
    let (fake, catalog) = start(&two);
    fake.set("long", Script { ttl: ttl(600), ..Script::tools(&["a"]) });
    fake.set("slow", Script { slow: Duration::from_secs(600), ..Script::tools(&["b"]) });
    eventually(|| now(&catalog, &two).is_ok_and(|view| view.items(Kind::Tool).len() == 1)).await;
    assert_eq!(left(&now(&catalog, &two).unwrap()), Duration::ZERO, "its tools may come at any moment");
}

#[tokio::test(start_paused = true)]
async fn who_is_shown_a_list_that_is_late_waits_a_moment_for_a_newer_one_and_calls_do_not() {
    let config = config(vec![server("one"), server("two")]);
    let late = config.servers[0].list_refresh_min + Duration::from_millis(1);
    let fake = Arc::new(Fake::default());
    let listing = |tools: &[&str]| Script { ttl: Some(Duration::from_millis(100)), ..Script::tools(tools) };
    fake.set("one", listing(&["a"]));
    fake.set("two", Script { ttl: Some(Duration::from_secs(600)), ..Script::tools(&["b"]) });
    let catalog = Catalog::with_pace(Arc::clone(&fake), Pace::default(), Arc::default());
    catalog.apply(&config);
    view(&catalog, &config).await;
    fake.set("one", listing(&["a", "new"]));
    tokio::time::sleep(Duration::from_millis(150)).await;
    let ada = principal("ada");
    let shown =
        async || catalog.view_of(Kind::Tool, &config, &Endpoint::Merged, viewer(&ada), everything).await.unwrap();
    let kept = shown().await;
    assert_eq!(names(&kept, Kind::Tool), ["one__a", "two__b"], "no list is asked for more often than that");
    assert_eq!(fake.fetches("one"), 1);
    tokio::time::sleep(late).await;
    let called = view(&catalog, &config).await;
    assert_eq!(names(&called, Kind::Tool), ["one__a", "two__b"], "a call goes on with these");
    let fresh = shown().await;
    assert_eq!(names(&fresh, Kind::Tool), ["one__a", "one__new", "two__b"], "it was on its way");
    assert_eq!((fake.fetches("one"), fake.fetches("two")), (2, 1), "the other one may still be kept");
    // One that takes its time makes nobody slow, and what it listed last is shown.
    fake.set("one", Script { slow: Duration::from_millis(1_500), ..listing(&["a"]) });
    let mut waited = Vec::new();
    for pause in [late, Duration::from_millis(700), Duration::ZERO, Duration::from_secs(2), late] {
        tokio::time::sleep(pause).await;
        let began = tokio::time::Instant::now();
        let count = shown().await.items(Kind::Tool).len();
        waited.push((began.elapsed(), count));
    }
    let near =
        |waited: Duration| (limit::CATALOG_RENEWED_WAIT..limit::CATALOG_RENEWED_WAIT * 11 / 10).contains(&waited);
    assert!(near(waited[0].0) && waited[0].1 == 3, "{waited:?}");
    assert_eq!(waited[1..4], [(Duration::ZERO, 3), (Duration::ZERO, 3), (Duration::ZERO, 2)], "once for each");
    assert!(near(waited[4].0) && waited[4].1 == 2, "{waited:?}");
    assert_eq!(fake.fetches("one"), 4);
}

#[tokio::test]
async fn what_an_empty_list_allows_counts_beside_the_others() {
    use super::slice::{List, Slice};
    use super::source::{Facts, Listing};
    use crate::ids::AuthorizationContext;
    use crate::wire::Json;
    let server = ServerId::new("one").unwrap();
    let list = |kind: Kind, items: &[&str], seconds: Option<u64>| {
        let items = items.iter().map(|text| Json::parse(*text, crate::wire::Source::Upstream).unwrap()).collect();
        let listing = Listing { items, ttl: seconds.map(Duration::from_secs), public: false, own: false };
        Arc::new(List::read(&server, kind, &listing))
    };
    let slice = |tools: Arc<List>, resources: Arc<List>| {
        let facts = Facts { capabilities: Json::of(&serde_json::json!({})), instructions: None, info: None };
        let lists = [tools, Arc::new(List::empty()), resources, Arc::new(List::empty())];
        Slice::new(server.clone(), AuthorizationContext::Gateway, Arc::new(facts), lists)
    };
    let resources = |seconds| list(Kind::Resource, &[r#"{"uri":"x:1","name":"r"}"#], seconds);
    assert_eq!(slice(list(Kind::Tool, &[], Some(60)), resources(Some(600))).ttl(), Some(Duration::from_secs(60)));
    assert_eq!(slice(list(Kind::Tool, &[], None), resources(Some(600))).ttl(), Some(Duration::from_secs(600)));
    assert_eq!(slice(list(Kind::Tool, &[], Some(60)), resources(None)).ttl(), None, "it says nothing of what it has");
}

#[tokio::test]
async fn a_request_that_holds_what_was_configured_before_brings_no_server_back() {
    let (before, after) = (config(vec![server("one"), server("two")]), config(vec![server("one")]));
    let (fake, catalog) = start(&before);
    fake.set("one", Script::tools(&["a"]));
    fake.set("two", Script::tools(&["b"]));
    eventually(|| now(&catalog, &before).is_ok_and(|view| view.items(Kind::Tool).len() == 2)).await;
    catalog.apply(&after);
    let fetched = fake.fetches("two");
    let held = now(&catalog, &before).unwrap();
    assert_eq!(names(&held, Kind::Tool), ["one__a"]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let known: Vec<_> = catalog.status().into_iter().map(|(id, ..)| id.to_string()).collect();
    assert_eq!((known, fake.fetches("two")), (vec!["one".to_owned()], fetched), "nobody would ever forget it again");
}

#[tokio::test]
async fn a_caller_who_sends_wrong_arguments_for_ever_makes_a_list_be_fetched_ever_more_rarely() {
    let config = config(vec![server("one")]);
    let (fake, catalog) = start(&config);
    fake.set("one", Script::tools(&["t"]));
    view(&catalog, &config).await;
    let lists = || fake.log.lock().unwrap().iter().filter(|(_, _, kind)| *kind == Some(Kind::Tool)).count();
    let id = ServerId::new("one").unwrap();
    let doubt_for = async |time: Duration| {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            catalog.doubted(&id);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let before = lists();
    doubt_for(Duration::from_secs(2)).await;
    // At 0, 50, 150, 350, 750 and 1550 ms; without a bound it would be every 50 ms.
    let fetched = lists() - before;
    assert!((2..=6).contains(&fetched), "{fetched}");
    // A change that is found makes the next doubt count at once.
    fake.set("one", Script::tools(&["t", "new"]));
    catalog.changed(&id, Some(Kind::Tool));
    eventually(|| now(&catalog, &config).is_ok_and(|view| view.items(Kind::Tool).len() == 2)).await;
    let before = lists();
    catalog.doubted(&id);
    eventually(|| lists() > before).await;
}
