//! Feeds, and the registration of clients.

use super::*;

fn with(feed: &str) -> String {
    format!("{SMALLEST}[feeds.corp]\n{feed}")
}

const LOGOUT: &str = "[feeds.corp.logout]\naudiences = [\"desk\"]\n";

#[test]
fn a_feed_belongs_to_a_declared_issuer_and_hears_something() {
    let read = config(&with(&format!("issuer = \"corp\"\n{LOGOUT}")));
    let feed = read.feeds.first().unwrap();
    assert_eq!((feed.name.as_str(), feed.requests_per_minute), ("corp", 600));
    assert_eq!(feed.logout.as_ref().unwrap().types, ["logout+jwt"]);
    for (feed, what) in [
        ("issuer = \"corp\"\n", "hears nothing"),
        (LOGOUT, "has no `issuer`"),
        (&format!("issuer = \"other\"\n{LOGOUT}"), "other"),
        ("issuer = \"corp\"\n[feeds.corp.logout]\naudiences = []\n", "without an audience"),
        ("issuer = \"corp\"\n[feeds.corp.events]\naudiences = [\"a\"]\n", "neither come nor are fetched"),
        ("issuer = \"corp\"\n[feeds.corp.events]\naudiences = [\"a\"]\nsecret = \"hunter2\"\n", "never written here"),
        (
            "issuer = \"corp\"\n[feeds.corp.events]\naudiences = [\"a\"]\nsecret = \"env:S\"\nkeys = \"https://k\"\n",
            "keys of whom",
        ),
        (
            "issuer = \"corp\"\n[feeds.corp.events]\naudiences = [\"a\"]\nsecret = \"env:S\"\ntransmitter = \"http://t\"\n",
            "could be somebody else",
        ),
        (
            "issuer = \"corp\"\n[feeds.corp.events]\naudiences = [\"a\"]\n[feeds.corp.events.poll]\n\
             endpoint = \"http://127.0.0.1/poll\"\ntoken = \"env:T\"\n",
            "could be somebody else",
        ),
        ("issuer = \"corp\"\n[feeds.corp.scim]\nsecret = \"env:S\"\nsubject = \"mail\"\n", "subject"),
    ] {
        let message = mistakes(&with(feed));
        assert!(message.contains(what) && !message.contains("hunter2"), "{feed}: {message}");
    }
}

#[test]
fn nobody_is_asked_for_events_more_often_than_so() {
    let poll = "issuer = \"corp\"\n[feeds.corp.events]\naudiences = [\"a\"]\n[feeds.corp.events.poll]\n\
                endpoint = \"https://idp.example/poll\"\ntoken = \"env:T\"\ninterval = \"1ms\"\n";
    let read = config(&with(poll));
    let poll = read.feeds[0].events.as_ref().unwrap().poll.as_ref().unwrap();
    assert_eq!(poll.interval, crate::limit::FEED_POLL_INTERVAL_MIN);
}

#[test]
fn the_number_of_feeds_is_bounded() {
    let all = |count: usize| {
        let feed =
            |number| format!("[feeds.f{number}]\nissuer = \"corp\"\n[feeds.f{number}.scim]\nsecret = \"env:S\"\n");
        format!("{SMALLEST}{}", (0..count).map(feed).collect::<String>())
    };
    assert_eq!(config(&all(crate::limit::FEEDS_MAX)).feeds.len(), crate::limit::FEEDS_MAX);
    assert!(mistakes(&all(crate::limit::FEEDS_MAX + 1)).contains("feeds are too many"));
}

#[test]
fn a_client_that_is_handed_out_has_redirect_schemes_of_assistants_only() {
    let of = |lines: &str| format!("{SMALLEST}[issuers.corp.registration]\nclient_id = \"shared\"\n{lines}");
    let read = config(&of("redirect_schemes = [\"cursor\", \"com.example.app\"]\nsend_resource = false\n"));
    let registration = read.issuers[0].registration.as_ref().unwrap();
    assert_eq!((registration.client_id.as_str(), registration.sends_resource), ("shared", false));
    for scheme in ["javascript", "http", "https", "data", "Cursor", "cursor:", "", "1a", "a b"] {
        let message = mistakes(&of(&format!("redirect_schemes = [\"{scheme}\"]\n")));
        assert!(message.contains("not a scheme of an assistant"), "{scheme}: {message}");
    }
    assert!(mistakes(&of("client_secret = \"hunter2\"\n")).contains("never written here"));
}
