//! Whether another set of files believes more, reaches something else or tells more than the one in force.
//!
//! Decides it by the configuration alone, field by field. Refuses to know rules, which the policy compares, and agents, which
//! `wider.rs` does. Invariant: a field that this does not know widens; what only takes something away does not.

use super::wider;
use crate::config::{AdminClient, AdminConfig, Config, DpopMode, GatewayConfig, ServerConfig};

/// Whether a configuration may let in somebody, or run or reach something, that the old one did not: whose
/// tokens are believed, which clients are which agent, where servers are and what they are presented with, who answers for
/// them and may know that they exist; and what agents may do beside the rules.
pub(super) fn trusts_more(before: &Config, after: &Config) -> bool {
    wider::lets_agents_do_more(before, after)
        // Tokens are for it, and clients are sent there.
        || before.gateway.public_url != after.gateway.public_url
        || after.issuers.iter().any(|issuer| !before.issuers.iter().any(|old| text(old) == text(issuer)))
        || believes_more(&before.gateway, &after.gateway)
        || (after.anonymous && !before.anonymous)
        || after.local != before.local
        || after.keys != before.keys
        || after.pins.accepts_more_than(&before.pins)
        || administers_more(before.admin.as_ref(), after.admin.as_ref())
        || after
            .servers
            .iter()
            .any(|server| before.server(&server.id).is_none_or(|old| is_wider_server(old, server)))
}

/// Whether somebody else answers for a server, or it is something else that is reached, or is told more, believed more or
/// known to more.
fn is_wider_server(before: &ServerConfig, after: &ServerConfig) -> bool {
    // Named one by one, so that a new field is not forgotten here.
    let ServerConfig {
        id: _,
        title: _,
        owner,
        review,
        expires,
        discoverable,
        environment,
        transport,
        credential,
        tool_credentials,
        tool_budgets,
        prefix,
        list_as,
        isolation,
        pins,
        idempotent,
        // How long it is waited for, and how much is asked of it at once.
        on_down: _,
        list_refresh_min: _,
        health: _,
        uris,
        forward_headers,
        elicit_url_hosts,
        redact,
    } = after;
    let grew = |before: &[String], after: &[String]| after.iter().any(|one| !before.contains(one));
    // Who approves its calls, and after whom it goes when they are taken back.
    *owner != before.owner
        || wider::grew(before.review, *review)
        || wider::grew(before.expires, *expires)
        || before.tool_budgets.iter().any(|(tool, budget)| {
            let now = tool_budgets.get(tool).copied().unwrap_or_default();
            wider::grew(budget.calls_per_minute, now.calls_per_minute) || wider::grew(budget.calls_per_day, now.calls_per_day)
        })
        || (*discoverable && !before.discoverable)
        || *environment != before.environment
        || text(&(transport, credential, tool_credentials)) != text(&(&before.transport, &before.credential, &before.tool_credentials))
        // Calls that meant another server.
        || *prefix != before.prefix
        || grew(&before.uris, uris)
        || (list_as, isolation) != (&before.list_as, &before.isolation)
        || before.pins < *pins
        || grew(&before.idempotent, idempotent)
        || grew(&before.forward_headers, forward_headers)
        || grew(&before.elicit_url_hosts, elicit_url_hosts)
        // What somebody wanted left out of the record would be on it.
        || before.redact.iter().any(|row| !redact.contains(row))
}

fn text(value: &dyn std::fmt::Debug) -> String {
    format!("{value:?}")
}

/// Whether another proxy, or another of its headers, may say which certificate a client has, or an older proof of a key
/// is enough.
fn believes_more(before: &GatewayConfig, after: &GatewayConfig) -> bool {
    let vouched = after.client_certificate_header.is_some()
        && (after.client_certificate_header != before.client_certificate_header
            || after.trusted_proxies != before.trusted_proxies);
    vouched || (before.dpop == DpopMode::Nonce && after.dpop != DpopMode::Nonce)
}

/// Whether somebody may give something back who could not, or with a login that was not enough. A client that is taken
/// off the list, a shorter time and a stricter kind of login are brakes. So is no listener at all, but for the socket:
/// it may widen where there is none.
fn administers_more(before: Option<&AdminConfig>, after: Option<&AdminConfig>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return before.is_some() != after.is_some() };
    let door = |admin: &AdminConfig| {
        let AdminConfig { listen, public_url, allowed_hosts, tls, .. } = admin;
        format!("{:?}", (listen, public_url, allowed_hosts, tls))
    };
    let weaker =
        !before.acr.is_empty() && (after.acr.is_empty() || after.acr.iter().any(|value| !before.acr.contains(value)));
    weaker
        || after.auth_age_max > before.auth_age_max
        || after.clients.iter().any(|client| {
            let known = |old: &AdminClient| {
                old.is(&client.issuer, Some(&client.client_id)) && (old.approves || !client.approves)
            };
            !before.clients.iter().any(known)
        })
        || door(before) != door(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::catalog::fake;
    use crate::config::{Isolation, ListAs, PinMode, Prefix, RedactedPath};
    use crate::front::fixture::config;

    #[test]
    fn what_lets_somebody_else_in_widens_although_no_rule_changed() {
        let (before, mut after) = (config(), config());
        assert!(!trusts_more(&before, &after));
        for issuer in &mut after.issuers {
            Arc::make_mut(issuer).audiences.push("another".to_owned());
        }
        assert!(trusts_more(&before, &after), "an audience");
        let mut after = config();
        after.anonymous = true;
        assert!(trusts_more(&before, &after), "anybody");
        assert!(!trusts_more(&after, &before), "nobody any more");
        let mut after = config();
        after.gateway.public_url = "https://other.example/".parse().unwrap();
        assert!(trusts_more(&before, &after), "tokens for another resource");
        let (mut vouched, mut other) = (config(), config());
        vouched.gateway.client_certificate_header = Some(crate::config::CertificateHeader::Xfcc);
        other.gateway.client_certificate_header = vouched.gateway.client_certificate_header;
        other.gateway.trusted_proxies = vec!["10.0.0.1".parse().unwrap()];
        assert!(trusts_more(&before, &vouched) && trusts_more(&vouched, &other), "who tells of certificates");
        assert!(!trusts_more(&vouched, &before), "nobody tells of any");
        let mut strict = config();
        strict.gateway.dpop = DpopMode::Nonce;
        assert!(trusts_more(&strict, &before) && !trusts_more(&before, &strict), "older proofs");
        let (mut hidden, mut shown) = (config(), config());
        let server = crate::catalog::fake::server("git");
        shown.servers = vec![Arc::new(ServerConfig { discoverable: true, ..server.clone() })];
        hidden.servers = vec![Arc::new(ServerConfig { discoverable: false, ..server })];
        assert!(trusts_more(&hidden, &shown), "who may know that it exists");
        assert!(!trusts_more(&shown, &hidden), "fewer know of it");
        let (mut strict, mut loose) = (config(), config());
        let server = crate::catalog::fake::server("git");
        strict.servers = vec![Arc::new(ServerConfig { pins: PinMode::Strict, ..server.clone() })];
        loose.servers = vec![Arc::new(ServerConfig { pins: PinMode::FirstUse, ..server })];
        assert!(trusts_more(&strict, &loose), "what nobody has accepted");
        assert!(!trusts_more(&loose, &strict), "less is shown");
        let text = format!("version = 1\n[git]\ninstructions = [\"{}\"]\n", "0".repeat(64));
        loose.servers.clone_from(&strict.servers);
        loose.pins = Arc::new(crate::config::PinLock::read("pins.lock", &text).unwrap());
        assert!(trusts_more(&strict, &loose), "a definition");
        assert!(!trusts_more(&loose, &strict), "one less is accepted");
        let admin = AdminConfig {
            listen: "127.0.0.1:9443".parse().unwrap(),
            public_url: before.gateway.public_url.clone(),
            allowed_hosts: Vec::new(),
            tls: None,
            clients: Vec::new(),
            acr: vec!["strong".to_owned()],
            auth_age_max: std::time::Duration::from_secs(300),
            console: None,
        };
        let (mut with, mut weaker) = (config(), config());
        with.admin = Some(admin.clone());
        weaker.admin = Some(AdminConfig { acr: Vec::new(), ..admin.clone() });
        assert!(trusts_more(&before, &with) && trusts_more(&with, &weaker), "administrators");
        assert!(!trusts_more(&weaker, &with), "a stricter login is a brake");
        assert!(trusts_more(&with, &before), "the socket may widen where there are none");
        let client =
            AdminClient { issuer: with.issuers[0].alias.clone(), client_id: "console".to_owned(), approves: false };
        let (mut looks, mut approves) = (config(), config());
        looks.admin = Some(AdminConfig { clients: vec![client.clone()], ..admin.clone() });
        let approving = AdminClient { approves: true, ..client.clone() };
        approves.admin = Some(AdminConfig { clients: vec![approving], ..admin.clone() });
        assert!(trusts_more(&looks, &approves), "what a program keeps approves");
        assert!(!trusts_more(&approves, &looks), "it approves no more");
        let (mut another, mut slower, mut moved) = (config(), config(), config());
        another.admin = Some(AdminConfig { clients: vec![client], ..admin.clone() });
        slower.admin = Some(AdminConfig { auth_age_max: std::time::Duration::from_secs(301), ..admin.clone() });
        moved.admin = Some(AdminConfig { allowed_hosts: vec!["evil.example".to_owned()], ..admin });
        for wider in [&another, &slower, &moved] {
            assert!(trusts_more(&with, wider), "{:?}", wider.admin);
        }
        assert!(!trusts_more(&another, &with) && !trusts_more(&slower, &with), "they are brakes");
    }

    fn one(change: impl Fn(&mut ServerConfig)) -> Config {
        let mut server = fake::server("git");
        change(&mut server);
        Config { servers: vec![Arc::new(server)], ..config() }
    }

    #[test]
    fn whoever_else_answers_for_a_server_is_another_word() {
        let other = one(|server| server.owner = "user:corp/mallory".to_owned());
        assert!(trusts_more(&one(|_| ()), &other) && trusts_more(&other, &one(|_| ())));
    }

    #[test]
    fn every_field_of_a_server_that_gives_more_widens_and_what_takes_away_is_a_brake() {
        let (plain, list) = (one(|_| ()), || vec!["x".to_owned()]);
        let wider: [(&str, Config); 7] = [
            ("a server", plain.clone()),
            ("an address", one(|server| server.uris = list())),
            ("a header", one(|server| server.forward_headers = list())),
            ("a host", one(|server| server.elicit_url_hosts = list())),
            ("a second try", one(|server| server.idempotent = list())),
            ("who knows of it", one(|server| server.discoverable = true)),
            ("a later answer", plain.clone()),
        ];
        let redacting = one(|server| server.redact = vec![RedactedPath::parse("git/push:token").unwrap()]);
        assert!(trusts_more(&redacting, &plain) && !trusts_more(&plain, &redacting), "what is left out of the record");
        let review = one(|server| server.review = Some(jiff::civil::date(2030, 1, 1)));
        for (what, wider) in wider {
            let narrow = match what {
                "a server" => &config(),
                "a later answer" => &review,
                _ => &plain,
            };
            assert!(trusts_more(narrow, &wider), "{what}");
            assert!(!trusts_more(&wider, narrow), "{what} taken away");
        }
        for other in [
            one(|server| server.environment = crate::ids::Environment::new("other").unwrap()),
            one(|server| server.prefix = Prefix::None),
            one(|server| server.list_as = ListAs::Caller),
            one(|server| server.isolation = Isolation::Shared),
            one(|server| server.transport = fake::server("other").transport),
        ] {
            assert!(trusts_more(&plain, &other) && trusts_more(&other, &plain), "{:?}", other.servers);
        }
        let quiet = one(|server| {
            server.title = Some("Git".to_owned());
            server.on_down = std::time::Duration::from_secs(1);
            server.health.calls_in_flight_max = 1;
        });
        assert!(!trusts_more(&plain, &quiet));
    }

    #[test]
    fn an_issuer_that_is_not_believed_any_more_is_a_brake() {
        let none = Config { issuers: Vec::new(), ..config() };
        assert!(!trusts_more(&config(), &none) && trusts_more(&none, &config()));
    }
}
