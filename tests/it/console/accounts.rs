//! The accounts of whoever is signed in: linked from their own page, and taken back there.

use super::*;
use crate::accounts::{Browser as Surfer, OAUTH};
use crate::support::linked::Linked;

#[tokio::test]
async fn somebody_links_an_account_from_their_own_page_and_takes_it_back_there() {
    let (issuer, upstream, service) = (Issuer::start().await, Scripted::echo().await, Linked::start().await);
    let gateway = setup(&issuer, &upstream).http_server("notes", &service.url(), OAUTH).start().await;
    let running = Running { issuer, gateway, upstream };
    let mut browser = running.signed_in("ann", &["developers"]).await;
    let page = browser.get("/admin/access").await;
    let link = page.text.split("href=\"").find(|rest| rest.contains("/link/")).unwrap();
    let link = link.split('"').next().unwrap().to_owned();
    // The console's client asks who they are.
    let mut surfer = Surfer::default();
    assert_eq!(surfer.get(&link).await.status, 200);
    let asked = surfer.follow(&format!("{link}/sign-in")).await;
    let linked = surfer.follow(&asked.button().unwrap()).await;
    assert!(linked.text.contains("is linked"), "{}", linked.text);
    let page = browser.get("/admin/access").await;
    assert!(page.text.contains("ann@service") && !page.text.contains("Link an account"), "{}", page.text);
    // Nobody else sees it, or takes it back.
    let mut other = running.signed_in("bob", &["developers"]).await;
    let others = other.get("/admin/access").await;
    assert!(!others.text.contains("ann@service"), "{}", others.text);
    let csrf = others.csrf();
    let refused = other.post("/admin/access/unlink", &[("csrf", &csrf), ("server", "notes")]).await;
    assert_eq!(refused.status, 404, "{}", refused.text);
    let forged = browser.post("/admin/access/unlink", &[("csrf", "x"), ("server", "notes")]).await;
    assert_eq!(forged.status, 403, "{}", forged.text);
    let csrf = page.csrf();
    let gone = browser.post("/admin/access/unlink", &[("csrf", &csrf), ("server", "notes")]).await;
    assert_eq!((gone.status, gone.header("location")), (303, "/admin/access"), "{}", gone.text);
    assert!(!browser.get("/admin/access").await.text.contains("ann@service"));
    assert_eq!(service.state().revoked.len(), 2, "what it is renewed with, and what it is used with");
    let told = running.ended().into_iter().find(|admin| admin["operation"] == "unlink").unwrap();
    assert_eq!((&told["actor"], &told["outcome"]), (&json!("user:test/ann"), &json!("done")), "{told}");
}
