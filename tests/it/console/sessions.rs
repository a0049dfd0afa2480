//! Sessions: how they begin, what ends them.

use super::*;

#[tokio::test]
async fn whoever_is_not_signed_in_is_asked_to_and_comes_back_to_the_page_they_wanted() {
    let running = start().await;
    running.issuer.seat(vec![Person::new("ann", &["admins"])]);
    let mut browser = Browser::of(&running.gateway);
    let away = browser.get("/admin/log?decision=deny").await;
    assert_eq!((away.status, away.header("location")), (303, "/admin/login?to=%2Flog%3Fdecision%3Ddeny"));
    assert!(away.text.is_empty() && away.cookies().is_empty());
    let page = browser.get(away.header("location")).await;
    assert!(
        page.status == 200 && page.text.contains("/admin/login/start?to=%2Flog%3Fdecision%3Ddeny"),
        "{}",
        page.text
    );
    let back = browser.come_back("/admin/login/start?to=%2Flog%3Fdecision%3Ddeny").await;
    let signed_in = browser.get(&back).await;
    assert_eq!((signed_in.status, signed_in.header("location")), (303, "/admin/log?decision=deny"));
    let htmx = Browser::of(&running.gateway).get_with("/admin/ask?object=a/b", &[("hx-request", "true")]).await;
    assert_eq!((htmx.status, htmx.header("hx-redirect")), (401, "/admin/login?to=%2Fask%3Fobject%3Da%2Fb"));
    for path in ["/admin/nothing", "/admin/log/nothing"] {
        assert_eq!(browser.get(path).await.status, 404, "{path}");
        assert_eq!(Browser::of(&running.gateway).get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn over_tls_the_cookie_is_bound_to_the_host_and_on_this_machine_it_works_without() {
    let running = start().await;
    running.issuer.seat(vec![Person::new("ann", &["admins"])]);
    let plain = Browser::of(&running.gateway).sign_in().await.cookies();
    assert!(
        plain[0].starts_with("bailiwick_session=") && plain[0].ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{plain:?}"
    );
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    issuer.seat(vec![Person::new("ann", &["admins"])]);
    // As behind a proxy that speaks TLS.
    let gateway = setup(&issuer, &upstream).admin_url("https://admin.example.com").start().await;
    let mut browser = Browser::of(&gateway);
    let page = browser.sign_in().await;
    let cookies = page.cookies();
    assert!(cookies[0].starts_with("__Host-bailiwick_session="), "{cookies:?}");
    assert!(cookies[0].ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{cookies:?}");
    assert!(cookies.iter().all(|cookie| !cookie.contains("Domain")));
    assert!(page.header("strict-transport-security").starts_with("max-age="));
    assert_eq!(browser.get("/admin/servers").await.status, 200);
    // The same value without the prefix is somebody else's cookie.
    let id = browser.cookies["__Host-bailiwick_session"].clone();
    browser.cookies = HashMap::from([("bailiwick_session".to_owned(), id)]);
    assert_eq!(browser.get("/admin/servers").await.status, 303);
    assert!(running.upstream.calls().is_empty());
}

#[tokio::test]
async fn a_session_ends_with_its_person_and_with_signing_out() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let mut bob = running.signed_in("bob", &["admins"]).await;
    let csrf = bob.get("/admin/revocations").await.csrf();
    let order =
        [("csrf", csrf.as_str()), ("target", "subject"), ("issuer", "test"), ("value", "ann"), ("note", "left")];
    assert_eq!(bob.post("/admin/revocations", &order).await.status, 303);
    let before = ann.cookies.clone();
    let gone = ann.get("/admin/servers").await;
    assert!(gone.status == 401 && gone.text.contains("revoked") && !gone.text.contains("payroll"), "{}", gone.text);
    ann.cookies = before;
    assert_eq!(ann.get("/admin/servers").await.status, 303, "the session is gone, and not only the answer");
    let cookies = bob.cookies.clone();
    let csrf = bob.get("/admin/").await.csrf();
    let out = bob.post("/admin/logout", &[("csrf", &csrf)]).await;
    assert!(out.status == 200 && out.text.contains("You are signed out") && bob.cookies.is_empty(), "{}", out.text);
    bob.cookies = cookies;
    assert_eq!(bob.get("/admin/servers").await.status, 303, "a cookie that somebody kept is worth nothing");
    assert!(running.ended().iter().any(|admin| admin["operation"] == "sign_out"));
}

#[tokio::test]
async fn a_session_of_before_its_person_was_taken_back_is_over_also_where_nobody_looked_while_that_held() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let lifting = format!("clients = [{{ issuer = \"test\", client_id = \"test-admin\" }}]\n{CONSOLE}");
    let gateway = setup(&issuer, &upstream).admin(&lifting).start().await;
    let running = Running { issuer, gateway, upstream };
    let mut cid = running.signed_in("cid", &["admins"]).await;
    let mut bob = running.signed_in("bob", &["admins"]).await;
    crate::voided::revoke(&running.gateway, &["subject", "user:test/cid"]);
    crate::voided::lift(&running.issuer, &running.gateway).await;
    assert_eq!(bob.get("/admin/servers").await.status, 200);
    let gone = cid.get("/admin/servers").await;
    assert!(gone.status == 401 && gone.text.contains("revoked"), "{}", gone.text);
    assert_eq!(running.signed_in("cid", &["admins"]).await.get("/admin/servers").await.status, 200);
    // That everything is blocked does not hold for administrators, who have to lift it.
    crate::voided::revoke(&running.gateway, &["everything"]);
    assert_eq!(bob.get("/admin/servers").await.status, 200);
}

#[tokio::test]
async fn a_session_is_renewed_where_the_issuer_renews_it_and_else_ends_with_its_token() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = setup(&issuer, &upstream).issuer_lines("leeway = \"1ms\"\n").start().await;
    let running = Running { issuer, gateway, upstream };
    // Shorter than what is renewed early, so each page renews.
    let person = |renewable| Person { token_life_s: 3, renewable, ..Person::new("ann", &["admins"]) };
    running.issuer.seat(vec![person(true)]);
    let mut renewed = Browser::of(&running.gateway);
    renewed.sign_in().await;
    running.issuer.seat(vec![person(false)]);
    let mut other = Browser::of(&running.gateway);
    other.sign_in().await;
    assert_eq!(other.get("/admin/servers").await.status, 200);
    let mut status = 200;
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(renewed.get("/admin/servers").await.status, 200);
        let page = other.get("/admin/servers").await;
        status = page.status;
        if status != 200 {
            assert!(page.text.contains("Your login has ended"), "{}", page.text);
            break;
        }
    }
    assert_eq!(status, 401);
}

#[tokio::test]
async fn a_session_whose_token_was_taken_back_is_not_renewed_out_of_it() {
    let running = start().await;
    // Shorter than what is renewed early, so each page renews.
    running.issuer.seat(vec![Person { token_life_s: 3, renewable: true, ..Person::new("ann", &["admins"]) }]);
    let mut ann = Browser::of(&running.gateway);
    ann.sign_in().await;
    let signed_in = running.gateway.records("admin").pop().unwrap();
    let token = signed_in["token"]["id"].as_str().unwrap_or_else(|| panic!("no token: {signed_in}"));
    let revoked = running.gateway.command(&["revoke", "token", token, "--config", "servers.toml"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let cookies = ann.cookies.clone();
    let gone = ann.get("/admin/servers").await;
    assert!(gone.status == 401 && gone.text.contains("revoked"), "{} {}", gone.status, gone.text);
    ann.cookies = cookies;
    assert_eq!(ann.get("/admin/servers").await.status, 303, "the session is gone, and not only the answer");
}

#[tokio::test]
async fn without_a_client_for_it_there_is_no_console() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = setup(&issuer, &upstream).admin("acr = [\"strong\"]").admin_origin("http://localhost").start().await;
    let mut browser = Browser::of(&gateway);
    for path in ["/", "/login", "/login/start", "/access", "/assets/x/console.css"] {
        let page = browser.get(path).await;
        assert_eq!(page.status, 404, "{path}");
        assert!(!page.text.contains("<html"), "{path}");
    }
    assert!(upstream.calls().is_empty());
}
