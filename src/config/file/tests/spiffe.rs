//! Trust domains, and what tokens must be bound to.

use super::*;
use crate::config::spiffe::{BundlePlace, IssuerKind};
use crate::config::{CertificateHeader, DpopMode, OwnSign, SenderConstraint};

/// What an issuer of this kind has of the keys of an OIDC one is a mistake, and everything else is read.
pub(super) fn every_key(section: &dyn Fn(&keys::Section, &str, &[&str]) -> String) -> String {
    let foreign = [
        "kind",
        "issuer",
        "admin_audiences",
        "algorithms",
        "token_types",
        "optional_claims",
        "own_tokens",
        "interactive_default",
        "scopes",
        "trust_domain",
        "bundle",
        "endpoint_id",
        "endpoint_bundle",
    ];
    let own = "[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"https://mesh.example/b\"\n\
               endpoint_id = \"spiffe://mesh.test/spire\"\nendpoint_bundle = \"file:b.json\"";
    section(&keys::ISSUER, own, &foreign)
}

fn mesh(lines: &str) -> String {
    format!("{SMALLEST}\n[issuers.mesh]\nkind = \"spiffe\"\n{lines}\n")
}

#[test]
fn a_trust_domain_has_a_name_and_a_bundle() {
    let config = config(&mesh("trust_domain = \"mesh.test\"\nbundle = \"file:mesh.json\""));
    let mesh = config.issuers.iter().find(|issuer| issuer.alias.as_str() == "mesh").unwrap();
    let IssuerKind::Spiffe(spiffe) = &mesh.kind else { panic!("not a trust domain") };
    assert_eq!((spiffe.trust_domain.as_str(), mesh.issuer.as_str()), ("mesh.test", "spiffe://mesh.test"));
    assert!(matches!(&spiffe.bundle, BundlePlace::File(path) if path.ends_with("mesh.json")));
    assert_eq!(mesh.sender_constraint, SenderConstraint::None);
    assert_eq!(
        (mesh.svid_life_max(), &mesh.own_tokens[..]),
        (Some(Duration::from_secs(25 * 3600)), &[OwnSign::Subject][..])
    );
}

#[test]
fn the_socket_of_the_workload_api_is_spelled_as_its_variable_has_it_or_shorter() {
    for written in ["unix:/run/spire/agent.sock", "unix:///run/spire/agent.sock"] {
        let config = config(&mesh(&format!("trust_domain = \"mesh.test\"\nbundle = \"{written}\"")));
        let mesh = config.issuers.iter().find(|issuer| issuer.alias.as_str() == "mesh").unwrap();
        let IssuerKind::Spiffe(spiffe) = &mesh.kind else { panic!("not a trust domain") };
        let place = std::path::PathBuf::from("/run/spire/agent.sock");
        assert_eq!(spiffe.bundle, BundlePlace::Workload(place));
        assert_eq!(spiffe.bundle.to_string(), "unix:/run/spire/agent.sock");
    }
}

#[test]
fn what_would_let_a_stranger_in_is_a_mistake() {
    let good = "trust_domain = \"mesh.test\"\nbundle = \"file:mesh.json\"\n";
    let endpoint = |id: &str, first: &str| {
        let place = "trust_domain = \"mesh.test\"\nbundle = \"https://mesh.example/bundle\"\n";
        format!("{place}endpoint_id = \"{id}\"\nendpoint_bundle = \"{first}\"")
    };
    for (lines, told) in [
        ("bundle = \"file:mesh.json\"", "has no `trust_domain`"),
        ("trust_domain = \"mesh.test\"", "has no `bundle`"),
        ("trust_domain = \"spiffe://mesh.test\"\nbundle = \"file:b\"", "is not a trust domain"),
        ("trust_domain = \"mesh.test\"\nbundle = \"file:\"", "names no file"),
        ("trust_domain = \"mesh.test\"\nbundle = \"mesh.json\"", "is not a place of a bundle"),
        ("trust_domain = \"mesh.test\"\nbundle = \"unix:agent.sock\"", "absolute path"),
        ("trust_domain = \"mesh.test\"\nbundle = \"http://mesh.test/bundle\"", "somebody else's keys"),
        ("trust_domain = \"mesh.test\"\nbundle = \"https://127.0.0.1/bundle\"", "somebody else's keys"),
        (&format!("{good}endpoint_id = \"spiffe://mesh.test/x\""), "its https:// URL"),
        (&format!("{good}endpoint_bundle = \"file:b\""), "nothing without `endpoint_id`"),
        (&format!("{good}endpoint_id = \"spiffe://mesh.test/x\"\nendpoint_bundle = \"file:b\""), "its https:// URL"),
        (&endpoint("spiffe://other.test/x", "file:b"), "known by the bundle of that trust domain: remove"),
        (
            &endpoint("spiffe://other.test/x", "").replace("endpoint_bundle = \"\"", ""),
            "no issuer is the trust domain other.test",
        ),
        (&endpoint("spiffe://mesh.test/x", "").replace("endpoint_bundle = \"\"", ""), "is here already"),
        (&endpoint("spiffe://Other.test/x", "file:b"), "is not a trust domain"),
        (&endpoint("https://mesh.test/x", "file:b"), "the endpoint is a workload"),
        (&endpoint("spiffe://mesh.test/", "file:b"), "the endpoint is a workload"),
        (&endpoint("spiffe://mesh.test/x", "b"), "is here already"),
        (&format!("{good}issuer = \"https://a.example\""), "`issuer` means nothing for an issuer of kind spiffe"),
        (&format!("{good}algorithms = [\"ES256\"]"), "`algorithms` means nothing"),
        (
            &format!("{good}[issuers.two]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"file:b\""),
            "another alias has the same trust domain",
        ),
    ] {
        let found = mistakes(&mesh(lines));
        assert!(found.contains(told), "{lines}: {found}");
    }
    let oidc = SMALLEST.replace("issuer = \"https", "trust_domain = \"mesh.test\"\nissuer = \"https");
    assert!(mistakes(&oidc).contains("`trust_domain` means nothing for an issuer of kind oidc"));
    let none = SMALLEST.replace("issuer = \"https://login.example.com\"\n", "");
    assert!(mistakes(&none).contains("issuers.corp has no `issuer`: write issuer ="));
}

#[test]
fn another_trust_domain_vouches_for_an_endpoint_where_it_is_declared_and_nobody_in_a_circle() {
    let domain = |name: &str, bundle: &str| {
        format!("[issuers.{name}]\nkind = \"spiffe\"\ntrust_domain = \"{name}.test\"\nbundle = {bundle}\n")
    };
    let by = |name: &str| format!("\"https://bundles.example/b\"\nendpoint_id = \"spiffe://{name}.test/server\"");
    let file = || "\"file:b.json\"".to_owned();
    let read = |all: &[(&str, String)]| {
        let declared: String = all.iter().map(|(name, bundle)| domain(name, bundle)).collect();
        format!("{SMALLEST}{declared}")
    };
    let good = config(&read(&[("one", by("two")), ("two", by("three")), ("three", file())]));
    let voucher = |alias: &str| {
        let issuer = good.issuers.iter().find(|issuer| issuer.alias.as_str() == alias).unwrap();
        let IssuerKind::Spiffe(spiffe) = &issuer.kind else { panic!("not a trust domain") };
        spiffe.voucher().map(ToString::to_string)
    };
    assert_eq!(["one", "two", "three"].map(voucher), [Some("two.test".into()), Some("three.test".into()), None]);
    for circle in [
        read(&[("one", by("two")), ("two", by("one"))]),
        read(&[("one", by("two")), ("two", by("three")), ("three", by("one"))]),
    ] {
        let found = mistakes(&circle);
        assert!(found.contains("none of them would ever be known"), "{found}");
    }
    // Whoever leads into a circle is not in it, and is told of nothing but it.
    let found = mistakes(&read(&[("zero", by("one")), ("one", by("two")), ("two", by("one"))]));
    assert_eq!(found.matches("none of them would ever be known").count(), 2, "{found}");
}

#[test]
fn a_header_with_a_certificate_needs_a_proxy_to_believe() {
    let with = |lines: &str| SMALLEST.replace("public_url", &format!("{lines}\npublic_url"));
    assert!(mistakes(&with("client_certificate_header = \"client-cert\"")).contains("there is none"));
    let config = config(&with(
        "trusted_proxies = [\"10.0.0.1\"]\nclient_certificate_header = \"x-forwarded-client-cert\"\ndpop = \"nonce\"",
    ));
    assert_eq!(config.gateway.client_certificate_header, Some(CertificateHeader::Xfcc));
    assert_eq!(config.gateway.dpop, DpopMode::Nonce);
    assert!(mistakes(&with("dpop = \"off\"")).contains("dpop"));
}

#[test]
fn a_header_with_a_certificate_is_believed_from_no_child_of_the_gateway() {
    let with = |proxy: &str, server: &str| {
        let lines = format!("trusted_proxies = [\"{proxy}\"]\nclient_certificate_header = \"client-cert\"\npublic_url");
        let text = SMALLEST.replace("public_url", &lines);
        let stdio = format!(
            "[servers.tool]\nowner = \"group:corp/knowledge\"\nenvironment = \"production\"\ncommand = [\"/bin/tool\"]\n{server}\n"
        );
        format!("{text}{stdio}")
    };
    for proxy in ["127.0.0.1", "::1", "127.0.0.0/8"] {
        let found = mistakes(&with(proxy, "network = true"));
        assert!(
            found.contains("server `tool` has network = true and could say here that it is any workload"),
            "{found}"
        );
        let (_, warnings) = read_with(&with(proxy, ""), AGENTS, &today()).unwrap();
        assert!(lines(&warnings).contains("every process of this machine can say here"), "{}", lines(&warnings));
    }
    let (_, warnings) = read_with(&with("10.0.0.7", "network = true"), AGENTS, &today()).unwrap();
    assert!(!lines(&warnings).contains("every process of this machine"), "{}", lines(&warnings));
}

#[test]
fn signs_of_tokens_that_software_got_are_those_that_are_known() {
    let with = |signs: &str| SMALLEST.replace("[servers.notes]", &format!("own_tokens = {signs}\n[servers.notes]"));
    let signs = |text: &str| config(text).issuers[0].own_tokens.clone();
    assert_eq!(signs(SMALLEST), OwnSign::USUAL);
    assert_eq!(signs(&with("[]")), []);
    assert_eq!(signs(&with("[\"sub\", \"keycloak\"]")), [OwnSign::Subject, OwnSign::Keycloak]);
    let found = mistakes(&with("[\"keyclock\"]"));
    assert!(found.contains("use sub, auth0, entra, keycloak, kubernetes") && found.contains("did you mean"), "{found}");
}
