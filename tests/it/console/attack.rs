//! What other sites and other people try.

use super::*;

#[tokio::test]
async fn every_response_keeps_a_browser_from_running_framing_and_keeping_anything_else() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let page = ann.get("/admin/").await.text;
    let style = page.split("rel=\"stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for path in ["/admin/", "/admin/login", "/admin/login/start", "/admin/login/callback", "/admin/nothing", &style] {
        let page = ann.get(path).await;
        let policy = page.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(page.header(name), value, "{path}");
        }
        assert!(page.header("permissions-policy").contains("camera=()"), "{path}");
        let kept = if path == style { "public, max-age=31536000, immutable" } else { "no-store" };
        assert_eq!(page.header("cache-control"), kept, "{path}");
    }
    assert_eq!(ann.get(&style).await.header("content-type"), "text/css; charset=utf-8");
}

#[tokio::test]
async fn a_form_from_anywhere_else_changes_nothing() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let own = ann.get("/admin/revocations").await.csrf();
    let origin = ann.origin.clone();
    let bob = running.signed_in("bob", &["admins"]).await.get("/admin/revocations").await.csrf();
    let order = |csrf: &'static str| [("csrf", csrf), ("target", "everything"), ("note", "x")];
    let from_us = [("origin", origin.as_str()), ("sec-fetch-site", "same-origin")];
    let other = [("csrf", bob.as_str()), ("target", "everything"), ("note", "x")];
    let twice = [("csrf", own.as_str()), ("csrf", own.as_str()), ("target", "everything"), ("note", "x")];
    for fields in [&order("")[..], &order("x")[..], &other, &[("target", "everything"), ("note", "x")], &twice] {
        for path in ["/admin/revocations", "/admin/revocations/new", "/admin/revocations/1/lift", "/admin/logout"] {
            let page = ann.post_with(path, fields, &from_us).await;
            assert_eq!(page.status, 403, "{path} {fields:?}");
        }
    }
    let good = [("csrf", own.as_str()), ("target", "everything"), ("note", "x")];
    for headers in [
        &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")][..],
        &[("origin", "null")],
        &[("origin", origin.as_str()), ("sec-fetch-site", "cross-site")],
        &[("origin", origin.as_str()), ("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[],
    ] {
        let page = ann.post_with("/admin/revocations", &good, headers).await;
        assert_eq!(page.status, 403, "{headers:?}");
    }
    // Not as a query, and not by another method.
    let query = format!("/admin/revocations?csrf={own}&target=everything&note=x");
    assert_eq!(ann.get(&query).await.status, 200);
    assert_eq!(running.call("dora").await, 200, "nothing was taken back");
    let foreign = ann.get_with("/admin/log/stream", &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(foreign.status, 403);
    let long = "x".repeat(bailiwick::limit::CONSOLE_FORM_BYTES_MAX);
    let too_long = [("csrf", own.as_str()), ("target", "everything"), ("note", &long)];
    assert_eq!(ann.post("/admin/revocations", &too_long).await.status, 400);
}

#[tokio::test]
async fn nobody_is_signed_in_by_an_answer_that_their_browser_did_not_ask_for() {
    let running = start().await;
    running.issuer.seat(vec![Person::new("mallory", &[])]);
    let mut mallory = Browser::of(&running.gateway);
    let planted = mallory.come_back("/admin/login/start").await;
    // Somebody else's browser is led to the answer of mallory's login: with nothing begun, and with another login begun.
    let mut victim = Browser::of(&running.gateway);
    let page = victim.get(&planted).await;
    assert!(page.status == 400 && victim.cookies.is_empty(), "{}", page.text);
    victim.come_back("/admin/login/start").await;
    let page = victim.get(&planted).await;
    assert!(page.status == 400 && page.text.contains("another login") && victim.cookies.is_empty(), "{}", page.text);
    // Whoever cannot open what the browser keeps cannot make it up either.
    victim.cookies.insert("bailiwick_login".to_owned(), "AAAA".to_owned());
    assert_eq!(victim.get(&planted).await.status, 400);
    // It works where it was begun, and once.
    let kept = mallory.cookies.clone();
    assert_eq!(mallory.get(&planted).await.status, 303);
    mallory.cookies = kept;
    let again = mallory.get(&planted).await;
    assert!(again.status == 502 && again.text.contains("invalid_grant"), "{}", again.text);
}

#[tokio::test]
async fn an_answer_of_another_issuer_and_tokens_that_do_not_fit_together_sign_nobody_in() {
    let running = start().await;
    running.issuer.seat(vec![Person::new("ann", &["admins"])]);
    let mut browser = Browser::of(&running.gateway);
    let issuer: String = url::form_urlencoded::byte_serialize(running.issuer.url.as_bytes()).collect();
    for (other, said) in [("iss=https%3A%2F%2Fevil.example", "another issuer"), ("x=y", "does not say which issuer")] {
        let back = browser.come_back("/admin/login/start").await.replace(&format!("iss={issuer}"), other);
        let page = browser.get(&back).await;
        assert!(page.status == 502 && page.text.contains(said), "{}", page.text);
    }
    let back = browser.come_back("/admin/login/start").await;
    let refused = browser.get(&back.replace("code=", "error=%3Cb%3Edenied&x=")).await;
    assert!(refused.status == 400 && refused.text.contains("&lt;b&gt;denied") && !refused.text.contains("<b>d"));
    for (claim, value) in [
        ("nonce", json!("another")),
        ("aud", json!("another-client")),
        ("iss", json!("https://evil.example")),
        ("exp", json!(1)),
        ("sub", json!("bob")),
        ("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")),
    ] {
        running.issuer.seat(vec![Person { spoilt: Some((claim, value)), ..Person::new("ann", &["admins"]) }]);
        let back = browser.come_back("/admin/login/start").await;
        let page = browser.get(&back).await;
        assert!(
            matches!(page.status, 403 | 502) && browser.cookies.is_empty(),
            "{claim}: {} {}",
            page.status,
            page.text
        );
    }
}

#[tokio::test]
async fn a_session_that_somebody_planted_is_not_the_one_that_a_login_gives() {
    let running = start().await;
    let mallory = running.signed_in("mallory", &[]).await;
    let planted = mallory.cookies["bailiwick_session"].clone();
    let mut victim = Browser::of(&running.gateway);
    victim.cookies.insert("bailiwick_session".to_owned(), planted.clone());
    running.issuer.seat(vec![Person::new("ann", &["admins"])]);
    victim.sign_in().await;
    assert_ne!(victim.cookies["bailiwick_session"], planted);
    assert!(victim.get("/admin/access").await.text.contains("user:test/ann"));
    let mut mallory = mallory;
    assert_eq!(mallory.get("/admin/access").await.status, 303, "what was planted ends with the login");
}

#[tokio::test]
async fn wherever_one_is_sent_after_a_login_is_a_page_of_ours() {
    let running = start().await;
    running.issuer.seat(vec![Person::new("ann", &["admins"])]);
    let mut browser = Browser::of(&running.gateway);
    for to in
        ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "evil", "/a%0d%0aX:1"]
    {
        let encoded: String = url::form_urlencoded::byte_serialize(to.as_bytes()).collect();
        let encoded = if to.contains("%0d") { to.to_owned() } else { encoded };
        let page = browser.get(&format!("/admin/login?to={encoded}")).await;
        assert!(
            !page.text.contains("evil") && page.text.contains("/admin/login/start?to=%2F\""),
            "{to}: {}",
            page.text
        );
        let back = browser.come_back(&format!("/admin/login/start?to={encoded}")).await;
        let page = browser.get(&back).await;
        assert_eq!((page.status, page.header("location")), (303, "/admin/"), "{to}");
    }
}

#[tokio::test]
async fn a_console_session_opens_no_api_and_a_token_no_page() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    assert_eq!(ann.get("/admin/api/v1/status").await.status, 401, "cookies are nothing to the API");
    let token = running.issuer.sign(&running.issuer.administrator("ann", &["admins"], &running.gateway.admin));
    let bearer = format!("Bearer {token}");
    let page = Browser::of(&running.gateway).get_with("/admin/servers", &[("authorization", &bearer)]).await;
    assert_eq!(page.status, 303);
    let text: String = running.gateway.journal().iter().map(Value::to_string).collect();
    let id = &ann.cookies["bailiwick_session"];
    assert!(!text.contains(id) && !running.gateway.log().contains(id), "no cookie is written anywhere");
}

#[tokio::test]
async fn whoever_comes_back_with_nothing_too_often_is_turned_away_before_the_issuer_is_asked() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = setup(&issuer, &upstream).limits("refusals_per_second = 1\nrefusals_burst = 3\n").start().await;
    issuer.seat(vec![Person::new("ann", &["admins"])]);
    let mut ann = Browser::of(&gateway);
    ann.sign_in().await;
    let mut bob = Browser::of(&gateway);
    let back = bob.come_back("/admin/login/start").await;
    let mut guesses = Vec::new();
    while guesses.last() != Some(&429) {
        let mut browser = Browser::of(&gateway);
        let guess = browser.come_back("/admin/login/start").await;
        let (before, code) = guess.split_once("code=").unwrap();
        let (_, after) = code.split_once('&').unwrap();
        guesses.push(browser.get(&format!("{before}code=guess&{after}")).await.status);
        assert!(guesses.len() < 20, "{guesses:?}");
    }
    assert_eq!(guesses[..3], [502; 3]);
    let waits = bob.get(&back).await;
    assert!(waits.status == 429 && waits.text.contains("wait a moment"), "{}", waits.text);
    // Who is signed in already signs in again; the other one waits, and has lost nothing.
    ann.sign_in().await;
    let began = std::time::Instant::now();
    while bob.get(&back).await.status != 303 {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "a pause is enough");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
