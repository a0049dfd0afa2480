//! Whoever is not the owner of a link, and authorization servers that are not what they say.

use super::*;

#[tokio::test]
async fn a_link_that_somebody_else_opens_stores_nothing_and_both_are_told() {
    let running = start().await;
    let link = running.link("ann").await;
    let page = running.links("mallory", &link).await;
    assert_eq!(page.status, 403, "{}", page.text);
    assert!(page.text.contains("made for somebody else"), "{}", page.text);
    assert!(!page.text.contains("ann") && !page.text.to_lowercase().contains("notes"), "{}", page.text);
    assert!(running.service.state().asked.is_empty(), "nobody was sent to the service");
    let refused = running.gateway.records("admin").pop().unwrap()["admin"].clone();
    assert_eq!((&refused["operation"], &refused["outcome"]), (&json!("link_account"), &json!("refused")), "{refused}");
    assert_eq!(refused["actor"], "user:test/mallory");
    assert!(refused["about"].as_str().unwrap().contains("user:test/ann"), "{refused}");
    let told = running.client("ann").call_tool("notes__link_account", json!({})).await;
    assert!(told.tool_text().contains("somebody else opened your last link"), "{}", told.text);
    let again = running.client("ann").call_tool("notes__link_account", json!({})).await;
    assert!(!again.tool_text().contains("somebody else"), "they are told once: {}", again.text);
    let other = running.client("mallory").call_tool("notes__link_account", json!({})).await;
    assert_eq!(reason(&other), "account_link_required");
}

#[tokio::test]
async fn an_answer_is_taken_once_and_in_the_browser_that_asked_for_it() {
    let running = start().await;
    let link = running.link("ann").await;
    running.issuer.seat(vec![Person::new("ann", &["developers"])]);
    let mut browser = Browser::default();
    let back = browser.follow_until(&format!("{link}/sign-in"), "/link/signed-in").await.url;
    let cookies = browser.cookies.clone();
    // In another browser.
    assert_eq!(Browser::default().get(&back).await.status, 400);
    let page = browser.follow(&back).await;
    assert!(page.text.contains("Link this account?"), "{}", page.text);
    // The very same, cookie and all, once more.
    let replayed = Browser { cookies }.get(&back).await;
    assert!(replayed.status == 400 && replayed.text.contains("taken already"), "{}", replayed.text);
    // A page of somebody else's cannot send the browser on.
    let go = page.button().unwrap();
    let (place, _) = go.split_once('?').unwrap();
    assert_eq!(browser.get(place).await.status, 403);
    let back = browser.follow_until(&go, "/link/callback").await.url;
    let cookies = browser.cookies.clone();
    assert_eq!(Browser::default().get(&back).await.status, 400);
    let mut forged = url::Url::parse(&back).unwrap();
    let pairs: Vec<(String, String)> = forged.query_pairs().into_owned().collect();
    let with_another_state = pairs.iter().map(|(name, value)| (name, if name == "state" { "x" } else { value }));
    forged.query_pairs_mut().clear().extend_pairs(with_another_state);
    assert_eq!(Browser { cookies: cookies.clone() }.get(forged.as_str()).await.status, 400);
    let linked = browser.follow(&back).await;
    assert!(linked.text.contains("is linked"), "{}", linked.text);
    let replayed = Browser { cookies }.get(&back).await;
    assert!(replayed.status == 400 && replayed.text.contains("taken already"), "{}", replayed.text);
}

#[tokio::test]
async fn the_answer_of_another_authorization_server_is_none() {
    let running = start().await;
    running.service.state().iss = Some("https://evil.example".to_owned());
    let page = running.links("ann", &running.link("ann").await).await;
    assert!(page.status == 400 && page.text.contains("another authorization server"), "{}", page.text);
    assert!(running.service.state().forms.is_empty(), "the code went nowhere");
    let answer = running.client("ann").call_tool("notes__link_account", json!({})).await;
    assert_eq!(reason(&answer), "account_link_required");
}

/// Links an account; what the log says of why that does not work.
async fn refused(spoil: impl FnOnce(&Linked)) -> String {
    let running = start().await;
    spoil(&running.service);
    let page = running.links("ann", &running.link("ann").await).await;
    assert_eq!(page.status, 502, "{}", page.text);
    assert!(running.service.state().asked.is_empty());
    let log = running.gateway.log();
    let line = log.lines().find(|line| line.contains("nobody can link an account there"));
    line.unwrap_or_else(|| panic!("nothing in the log: {log}")).to_owned()
}

#[tokio::test]
async fn a_service_that_calls_itself_otherwise_by_one_slash_is_another_one() {
    let spoil = |service: &Linked| service.state().resource = Some(format!("{}/mcp/", service.origin));
    let problem = refused(spoil).await;
    assert!(problem.contains("calls itself"), "{problem}");
}

#[tokio::test]
async fn an_authorization_server_at_a_private_address_is_not_asked() {
    for place in ["https://10.0.0.1", "http://10.0.0.1:8080", "https://169.254.169.254", "http://192.168.1.1/as"] {
        let problem = refused(|service| service.state().authority = Some(place.to_owned())).await;
        assert!(problem.contains("is refused"), "{place}: {problem}");
    }
}

#[tokio::test]
async fn an_authorization_server_that_does_not_check_pkce_or_know_us_is_not_used() {
    let problem = refused(|service| service.state().pkce = false).await;
    assert!(problem.contains("PKCE"), "{problem}");
    let problem = refused(|service| service.state().dcr = false).await;
    assert!(problem.contains("registers no clients by itself"), "{problem}");
}

#[tokio::test]
async fn whoever_was_revoked_meanwhile_links_nothing() {
    let running = start().await;
    let link = running.link("ann").await;
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/ann"]);
    assert!(revoked.status.success(), "{revoked:?}");
    // What was handed out before is void.
    let page = Browser::default().get(&link).await;
    assert_eq!(page.status, 410, "{}", page.text);
    assert!(running.service.state().asked.is_empty());
}

#[tokio::test]
async fn whoever_had_begun_before_they_were_revoked_links_nothing_once_that_is_lifted() {
    use crate::voided::{ADMIN, RULES, lift, revoke};
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let policy = format!("{DEVELOPERS_MAY}{RULES}");
    let gateway = setup(&issuer, &service).policy(&policy).admin(ADMIN).start().await;
    let running = Running { issuer, service, gateway };
    // One browser at the issuer, one at our page, one at the service.
    let begin = async |link: &str| {
        running.issuer.seat(vec![Person::new("bob", &["developers"])]);
        let [mut one, mut two, mut three] = [(); 3].map(|()| Browser::default());
        let at_issuer = one.follow_until(&format!("{link}/sign-in"), "/link/signed-in").await.url;
        let at_page = two.follow(&format!("{link}/sign-in")).await.button().unwrap();
        let go = three.follow(&format!("{link}/sign-in")).await.button().unwrap();
        let at_service = three.follow_until(&go, "/link/callback").await.url;
        [(one, at_issuer), (two, at_page), (three, at_service)]
    };
    for goes_on in [false, true] {
        let link = running.link("bob").await;
        let begun = begin(&link).await;
        if !goes_on {
            revoke(&running.gateway, &["subject", "user:test/bob"]);
            lift(&running.issuer, &running.gateway).await;
        }
        for (mut browser, next) in begun {
            let page = browser.follow(&next).await;
            assert_eq!(page.status == 200, goes_on, "{next} {}", page.text);
        }
        let linked = running.gateway.command(&["vault", "list", "--json", "--config", "servers.toml"]);
        assert_eq!(String::from_utf8_lossy(&linked.stdout).contains("user:test/bob"), goes_on, "{linked:?}");
        if !goes_on {
            assert_eq!(Browser::default().get(&link).await.status, 410);
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_of_an_issuer_leaves_nothing_behind_and_one_person_has_so_many() {
    let running = start().await;
    let link = running.link("ann").await;
    let begun = async |browser: &mut Browser| {
        let page = browser.get(&format!("{link}/sign-in")).await;
        let location = url::Url::parse(page.headers["location"].to_str().unwrap()).unwrap();
        location.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
    };
    let back = format!("{}signed-in", &link[..=link.rfind('/').unwrap()]);
    let mut browser = Browser::default();
    for _ in 0..2 {
        let state = begun(&mut browser).await;
        let page = browser.get(&format!("{back}?state={state}")).await;
        assert!(page.status == 400 && page.text.contains("no answer"), "{}", page.text);
    }
    let mut last = None;
    for _ in 0..=bailiwick::limit::LINK_ANSWERS_MAX {
        let state = begun(&mut browser).await;
        last = Some(browser.get(&format!("{back}?state={state}&error=access_denied")).await);
        let refused = last.as_ref().unwrap();
        assert!(matches!(refused.status, 400 | 429), "{}", refused.text);
    }
    let last = last.unwrap();
    assert!(last.status == 429 && last.text.contains("try again"), "{}", last.text);
    // Who waits for theirs is not kept from it.
    running.linked("bob").await;
}

#[tokio::test]
async fn a_service_whose_tokens_are_good_at_this_gateway_is_linked_by_nobody() {
    let running = start().await;
    // As if the issuer of callers issued them, for the service and for this gateway.
    let says = json!({ "iss": running.issuer.url, "aud": [running.service.url(), running.gateway.resource()] });
    running.service.state().says = Some(says);
    let page = running.links("ann", &running.link("ann").await).await;
    assert_eq!(page.status, 502, "{}", page.text);
    assert!(page.text.contains("good at this gateway itself"), "{}", page.text);
    let answer = running.client("ann").call_tool("notes__link_account", json!({})).await;
    assert_eq!(reason(&answer), "account_link_required", "{}", answer.text);
    assert!(running.service.state().called_as.is_empty());
    eventually("both are given back", async || running.service.state().revoked.len() == 2).await;
    running.service.state().says = Some(json!({ "iss": running.issuer.url, "aud": running.service.url() }));
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service", "of that issuer, and for the service alone");
}
