//! The issuers: whether they are who the files say, sign what is accepted, offer what clients need, and what time it
//! is there.

use super::finding::Finding;
use crate::config::spiffe::{IssuerKind, SpiffeConfig};
use crate::config::{Config, IssuerConfig};
use crate::identity::survey::{ALGORITHMS, ClockFacts, KeyFacts, Metadata, Survey, survey};
use crate::identity::{BundleFacts, look_at_bundle};

/// What one issuer says, in findings about it and about its clock.
pub async fn findings(config: &Config, issuer: &IssuerConfig) -> (Vec<Finding>, Vec<Finding>) {
    if let IssuerKind::Spiffe(spiffe) = &issuer.kind {
        let looked = look_at_bundle(issuer, spiffe, (&config.issuers, config.gateway.listen.ip().is_loopback())).await;
        return (vec![bundle(issuer, spiffe, &looked)], Vec::new());
    }
    let survey = survey(issuer, config.gateway.listen.ip().is_loopback()).await;
    // One that does not answer has no clock either.
    let clock = survey.metadata.is_ok().then(|| clock(issuer, survey.clock));
    (about(issuer, &survey), clock.into_iter().collect())
}

fn bundle(issuer: &IssuerConfig, spiffe: &SpiffeConfig, looked: &Result<BundleFacts, String>) -> Finding {
    let name = issuer.alias.as_str();
    match looked {
        Err(problem) => Finding::bad(
            name,
            format!("no bundle of {}: {problem}", spiffe.trust_domain),
            format!("have the trust domain's server write its bundle in SPIFFE's format to {}", spiffe.bundle),
        ),
        Ok(facts) if facts.jwt_keys == 0 && !facts.roots => Finding::bad(
            name,
            format!("the bundle of {} is empty: none of its workloads gets in", spiffe.trust_domain),
            "keys in it need use = \"jwt-svid\" or \"x509-svid\"; a plain JWKS has neither",
        ),
        Ok(BundleFacts { without: Some(problem), .. }) => Finding::warn(
            name,
            format!("half of the bundle of {} cannot be had: {problem}", spiffe.trust_domain),
            "nothing, where none of its workloads comes with such; otherwise have its workload API answer both of \
             FetchJWTBundles and FetchX509Bundles",
        ),
        Ok(facts) => Finding::ok(
            name,
            format!(
                "the bundle of {} verifies {}, and is read every {} s",
                spiffe.trust_domain,
                match (facts.jwt_keys, facts.roots) {
                    (0, _) => "X.509-SVIDs".to_owned(),
                    (keys, false) => format!("JWT-SVIDs ({keys} of its keys)"),
                    (keys, true) => format!("JWT-SVIDs ({keys} of its keys) and X.509-SVIDs"),
                },
                facts.refresh.as_secs()
            ),
        ),
    }
}

fn about(issuer: &IssuerConfig, survey: &Survey) -> Vec<Finding> {
    let name = issuer.alias.as_str();
    let metadata = match &survey.metadata {
        Ok(metadata) => metadata,
        Err(problem) => {
            let place = format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/'));
            return vec![Finding::bad(name, format!("no metadata: {problem}"), format!("curl -sS {place}"))];
        }
    };
    let mut findings = vec![itself(issuer, metadata)];
    // One whose tokens are all opaque signs nothing.
    if survey.keys.is_ok() || issuer.introspection.is_none() {
        findings.push(keys(issuer, &survey.keys));
    }
    findings.extend(introspection(issuer, metadata, survey.introspection.as_ref()));
    findings.extend(groups(issuer, metadata));
    findings.extend(clients(issuer, metadata));
    // Nobody logs in at an issuer of workloads, and so nobody looks for where to.
    if let (Err(problem), true) = (&survey.oauth_document, metadata.authorization) {
        findings.push(Finding::warn(
            name,
            format!("clients that ask /.well-known/oauth-authorization-server first (RFC 8414) get none: {problem}"),
            "have the issuer serve its metadata there too; clients that fall back on OpenID discovery work as it is",
        ));
    }
    findings
}

fn itself(issuer: &IssuerConfig, metadata: &Metadata) -> Finding {
    let name = issuer.alias.as_str();
    if metadata.issuer == issuer.issuer {
        return Finding::ok(name, format!("it names itself {}", issuer.issuer));
    }
    let near = metadata.issuer.trim_end_matches('/') == issuer.issuer.trim_end_matches('/');
    let why = if near { " (a slash at the end counts)" } else { "" };
    Finding::bad(
        name,
        format!(
            "it names itself `{}`, the files say `{}`: its tokens are refused{why}",
            metadata.issuer, issuer.issuer
        ),
        format!("in [issuers.{name}] write issuer = \"{}\", if that is the one you mean", metadata.issuer),
    )
}

fn keys(issuer: &IssuerConfig, keys: &Result<KeyFacts, String>) -> Finding {
    let name = issuer.alias.as_str();
    let keys = match keys {
        Ok(keys) => keys,
        Err(problem) => {
            let fix =
                "look at the jwks_uri of its metadata: it has to hold public signature keys (use = \"sig\", or none)";
            return Finding::bad(name, format!("no keys: {problem}"), fix);
        }
    };
    let spelled = |wanted: &dyn Fn(&(crate::config::Algorithm, usize)) -> bool| -> Vec<&str> {
        let fitting = keys.by_algorithm.iter().filter(|pair| pair.1 > 0 && wanted(pair));
        fitting
            .filter_map(|(algorithm, _)| ALGORITHMS.iter().find(|known| known.0 == *algorithm))
            .map(|k| k.1)
            .collect()
    };
    let accepted = spelled(&|(algorithm, _)| issuer.algorithms.contains(algorithm));
    let offered = spelled(&|_| true);
    if accepted.is_empty() {
        return Finding::bad(
            name,
            format!("its {} keys sign {}, none of which is accepted", keys.count, offered.join(", ")),
            format!("in [issuers.{name}] write algorithms = {offered:?}"),
        );
    }
    Finding::ok(name, format!("{} of {} keys verify {}", keys.usable, keys.count, accepted.join(", ")))
}

/// Whether it says what opaque tokens are, where it is asked.
fn introspection(issuer: &IssuerConfig, metadata: &Metadata, asked: Option<&Result<(), String>>) -> Option<Finding> {
    let name = issuer.alias.as_str();
    let Some(own) = &issuer.introspection else {
        return metadata.introspection.as_ref().map(|_| {
            Finding::ok(
                name,
                "its JWTs are verified here; opaque tokens of its own would need introspection in its entry",
            )
        });
    };
    let client = &own.client_id;
    Some(match asked {
        Some(Ok(())) => Finding::ok(name, format!("it says what opaque tokens are to our client `{client}`")),
        Some(Err(problem)) => Finding::bad(
            name,
            format!("it does not say what opaque tokens are: {problem}"),
            format!(
                "let the client `{client}` introspect there (RFC 7662), and see endpoint, client_secret and private_key in \
                 [issuers.{name}.introspection]"
            ),
        ),
        None => Finding::warn(name, "it was not asked about opaque tokens", "run this again"),
    })
}

/// Whether its tokens can have the claim that groups are read from, where it says which claims there are.
fn groups(issuer: &IssuerConfig, metadata: &Metadata) -> Option<Finding> {
    let name = issuer.alias.as_str();
    let (claim, claims) = (issuer.claims.groups.as_ref()?, metadata.claims.as_ref()?);
    if claims.contains(claim) {
        return Some(Finding::ok(name, format!("it knows the claim `{claim}`, which has the groups")));
    }
    let near: Vec<&str> =
        claims.iter().map(String::as_str).filter(|known| known.contains("group") || known.contains("role")).collect();
    let fix = if near.is_empty() {
        format!("have it put `{claim}` into access tokens (a mapper, a scope), and look at one: doctor --token -")
    } else {
        format!("in [issuers.{name}.claims] write groups = \"{}\", if that has them", near.join("\" or \""))
    };
    let found =
        format!("it does not say that it knows the claim `{claim}`: without it every call of a person is refused");
    Some(Finding::warn(name, found, fix))
}

/// What clients need to log in by themselves.
fn clients(issuer: &IssuerConfig, metadata: &Metadata) -> Vec<Finding> {
    let name = issuer.alias.as_str();
    let mut findings = Vec::new();
    if !(metadata.authorization && metadata.token) {
        findings.push(Finding::warn(
            name,
            "people cannot log in: its metadata has no authorization_endpoint and token_endpoint",
            "enable the authorization code flow there, unless only software on its own uses this issuer",
        ));
        return findings;
    }
    findings.push(match &metadata.challenge_methods {
        Some(methods) if methods.iter().any(|method| method == "S256") => Finding::ok(name, "PKCE with S256"),
        _ if issuer.registration.is_some() => Finding::ok(name, "clients log in at the gateway, with PKCE and S256"),
        Some(methods) => Finding::bad(
            name,
            format!("PKCE without S256 (it has {}): MCP clients do not log in", methods.join(", ")),
            "enable PKCE with S256 at the issuer",
        ),
        None => Finding::bad(
            name,
            "its metadata does not say that it knows PKCE: MCP clients must refuse to log in then",
            "enable PKCE at the issuer, so that code_challenge_methods_supported has S256",
        ),
    });
    findings.push(match (metadata.client_documents, metadata.registration) {
        (true, true) => Finding::ok(name, "clients name themselves by a URL, or register themselves"),
        (true, false) => Finding::ok(name, "clients name themselves by a URL (CIMD)"),
        (false, true) => Finding::ok(name, "clients register themselves (DCR)"),
        (false, false) if issuer.registration.is_some() => {
            Finding::ok(name, "clients register themselves at the gateway, in its place")
        }
        (false, false) => Finding::warn(
            name,
            "clients can neither register themselves (DCR) nor name themselves by a URL (CIMD)",
            format!(
                "enable one of them, have the gateway register clients in its place ([issuers.{name}.registration]), or \
                 register each client by hand and put its id into the client's configuration"
            ),
        ),
    });
    findings.push(match metadata.resource {
        Some(true) => Finding::ok(name, "it knows `resource` (RFC 8707)"),
        Some(false) => Finding::bad(
            name,
            "it says that it does not know `resource` (RFC 8707): its tokens are not for this gateway",
            format!("write what it puts into aud: audiences = [\"...\"] in [issuers.{name}]"),
        ),
        None => Finding::ok(name, "whether it knows `resource` (RFC 8707) only a token shows: doctor --token -"),
    });
    findings
}

fn clock(issuer: &IssuerConfig, clock: Option<ClockFacts>) -> Finding {
    let name = issuer.alias.as_str();
    let Some(ClockFacts { ahead_s, uncertain }) = clock else {
        return Finding::warn(name, "it does not say what time it is there", "compare with: date -u");
    };
    let leeway = i64::try_from(issuer.leeway.as_secs()).unwrap_or(i64::MAX);
    let skew = match ahead_s {
        0 => "its clock and ours agree".to_owned(),
        ahead if ahead > 0 => format!("its clock is {ahead} s ahead of ours"),
        behind => format!("its clock is {} s behind ours", behind.unsigned_abs()),
    };
    let found = format!("{skew} (give or take {:.1} s); {leeway} s are tolerated", uncertain.as_secs_f64());
    if ahead_s.abs() > leeway {
        let fix = "set this machine's clock: timedatectl set-ntp true, or chronyc makestep; or the issuer's";
        Finding::bad(name, format!("{found}: its fresh tokens are refused, or old ones accepted"), fix)
    } else if ahead_s.abs() > leeway / 2 {
        Finding::warn(name, found, "timedatectl timesync-status")
    } else {
        Finding::ok(name, found)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::doctor::finding::Mark;
    use crate::config::{Algorithm, issuer_with_defaults};
    use crate::ids::IssuerAlias;

    fn issuer() -> IssuerConfig {
        issuer_with_defaults(&IssuerAlias::new("corp").unwrap(), "https://idp.example.com").unwrap()
    }

    fn whole() -> Metadata {
        Metadata {
            issuer: "https://idp.example.com".to_owned(),
            challenge_methods: Some(vec!["S256".to_owned()]),
            registration: true,
            client_documents: false,
            authorization: true,
            token: true,
            resource: None,
            introspection: None,
            claims: None,
        }
    }

    fn marks(metadata: Metadata, keys: Result<KeyFacts, String>) -> Vec<(Mark, String)> {
        let survey = Survey { metadata: Ok(metadata), oauth_document: Ok(()), keys, clock: None, introspection: None };
        about(&issuer(), &survey).into_iter().map(|found| (found.mark, found.fix.unwrap_or_default())).collect()
    }

    fn one(algorithm: Algorithm) -> Result<KeyFacts, String> {
        Ok(KeyFacts { count: 1, usable: 1, by_algorithm: vec![(algorithm, 1)] })
    }

    #[test]
    fn an_issuer_that_has_everything_is_well_and_each_lack_says_what_to_do() {
        assert!(marks(whole(), one(Algorithm::Es256)).iter().all(|(mark, _)| *mark == Mark::Ok));
        let bad = |metadata: Metadata, keys, hint: &str| {
            let found = marks(metadata, keys);
            assert!(found.iter().any(|(mark, fix)| *mark != Mark::Ok && fix.contains(hint)), "{found:?}");
        };
        bad(Metadata { issuer: "https://idp.example.com/".to_owned(), ..whole() }, one(Algorithm::Es256), "issuer = ");
        bad(Metadata { challenge_methods: None, ..whole() }, one(Algorithm::Es256), "code_challenge_methods_supported");
        bad(Metadata { challenge_methods: Some(vec!["plain".into()]), ..whole() }, one(Algorithm::Es256), "S256");
        bad(Metadata { registration: false, ..whole() }, one(Algorithm::Es256), "by hand");
        bad(Metadata { resource: Some(false), ..whole() }, one(Algorithm::Es256), "audiences = ");
        bad(whole(), Err("none of its 1 keys".to_owned()), "jwks_uri");
    }

    /// What the metadata of widespread providers has and lacks, as they publish it.
    #[test]
    fn a_provider_that_registers_nobody_is_told_apart_and_the_gateway_can_stand_in_its_place() {
        let entra = Metadata { challenge_methods: None, registration: false, ..whole() };
        let okta = Metadata { registration: false, introspection: Some("there".to_owned()), ..whole() };
        let keycloak = Metadata { introspection: Some("there".to_owned()), ..whole() };
        let in_place = "[issuers.corp.registration]";
        for (shape, registers, has_challenge) in [(entra, false, false), (okta, false, true), (keycloak, true, true)] {
            let found = clients(&issuer(), &shape);
            let fixes: Vec<String> = found.iter().filter_map(|one| one.fix.clone()).collect();
            assert_eq!(fixes.iter().any(|fix| fix.contains(in_place)), !registers, "{fixes:?}");
            assert_eq!(fixes.iter().any(|fix| fix.contains("enable PKCE")), !has_challenge, "{fixes:?}");
            // Where clients register here nothing more is to be done about that.
            let mut own = issuer();
            own.registration = Some(crate::config::RegistrationConfig {
                client_id: "shared".to_owned(),
                client_secret: None,
                scopes: Vec::new(),
                sends_resource: true,
                schemes: Vec::new(),
            });
            let fixes: Vec<String> = clients(&own, &shape).into_iter().filter_map(|one| one.fix).collect();
            assert_eq!(fixes, Vec::<String>::new());
        }
    }

    #[test]
    fn an_issuer_that_is_asked_about_tokens_has_to_answer() {
        use crate::config::{IntrospectionConfig, IntrospectionProof, Nameless, SecretReference};
        let mut issuer = issuer();
        assert!(introspection(&issuer, &whole(), None).is_none());
        issuer.introspection = Some(std::sync::Arc::new(IntrospectionConfig {
            endpoint: None,
            client_id: "gateway".to_owned(),
            proof: IntrospectionProof::Secret(SecretReference::Environment("S".to_owned())),
            prefix: None,
            nameless: Nameless::Refused,
        }));
        assert_eq!(introspection(&issuer, &whole(), Some(&Ok(()))).unwrap().mark, Mark::Ok);
        let bad = introspection(&issuer, &whole(), Some(&Err("it answered 401".to_owned()))).unwrap();
        assert_eq!(bad.mark, Mark::Bad);
        assert!(bad.fix.unwrap().contains("client `gateway`"));
        // It needs no keys then.
        let none = || Err("its metadata names no jwks_uri".to_owned());
        let survey = |keys| Survey {
            metadata: Ok(whole()),
            oauth_document: Ok(()),
            keys,
            clock: None,
            introspection: Some(Ok(())),
        };
        assert!(about(&issuer, &survey(none())).iter().all(|found| found.mark == Mark::Ok));
    }

    #[test]
    fn the_claim_for_groups_is_held_against_those_that_it_says_it_knows() {
        let mut issuer = issuer();
        let knows = |claims: &[&str]| Metadata {
            claims: Some(claims.iter().map(|claim| (*claim).to_owned()).collect()),
            ..whole()
        };
        assert!(groups(&issuer, &knows(&["sub"])).is_none());
        issuer.claims.groups = Some("groups".to_owned());
        assert!(groups(&issuer, &whole()).is_none(), "it does not say");
        assert_eq!(groups(&issuer, &knows(&["sub", "groups"])).unwrap().mark, Mark::Ok);
        let near = groups(&issuer, &knows(&["sub", "roles"])).unwrap();
        assert!(near.mark == Mark::Warn && near.fix.unwrap().contains("groups = \"roles\""));
        assert!(groups(&issuer, &knows(&["sub"])).unwrap().fix.unwrap().contains("mapper"));
    }

    #[test]
    fn keys_that_sign_nothing_that_is_accepted_are_bad() {
        let mut issuer = issuer();
        issuer.algorithms = vec![Algorithm::Es256];
        let found = keys(&issuer, &one(Algorithm::Rs256));
        assert_eq!(found.mark, Mark::Bad);
        assert!(found.fix.unwrap().contains("algorithms = [\"RS256\"]"));
    }

    #[test]
    fn a_skew_is_held_against_the_leeway() {
        let mark = |ahead_s| clock(&issuer(), Some(ClockFacts { ahead_s, uncertain: Duration::ZERO })).mark;
        assert_eq!([mark(0), mark(15), mark(-16), mark(30), mark(31), mark(-3600)], {
            use Mark::{Bad, Ok, Warn};
            [Ok, Ok, Warn, Warn, Bad, Bad]
        });
    }
}
