//! An account whose server wants more scopes, or does not take it any more: its owner is asked for that once, in the answer.

use super::*;

/// A gateway that knows what is granted, and an account that may read.
async fn reading(credential: &str, needs: &str, generous: bool) -> Running {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let gateway = Setup::new(&issuer)
        .issuer_lines("link_client_id = \"test-link\"\n")
        .http_server("notes", &service.url(), &format!("{OAUTH}{credential}"))
        .start()
        .await;
    let running = Running { issuer, service, gateway };
    running.linked("ann").await;
    let mut state = running.service.state();
    (state.needs, state.generous) = (Some(needs.to_owned()), generous);
    drop(state);
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_needs_more_gets_its_link_in_the_answer_and_what_was_linked_goes_on_meanwhile() {
    let running = reading("", "notes:write", true).await;
    let answer = running.whoami("ann").await;
    assert_eq!(reason(&answer), "account_link_required", "{}", answer.text);
    assert!(answer.tool_text().contains("wants more scopes"), "{}", answer.text);
    assert!(running.service.state().called_as.is_empty(), "nothing was done");
    // The link is the caller's alone, and what the account may already goes on.
    let recorded = running.gateway.journal().iter().map(Value::to_string).collect::<String>();
    assert!(!recorded.contains("/link/"), "a link is on the record");
    assert_eq!(running.client("ann").tool_names().await, ["notes__whoami"]);
    let page = running.links("ann", &address(answer.tool_text())).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    let asked = running.service.state().asked.pop().unwrap();
    let mut scopes: Vec<&str> = asked["scope"].split(' ').collect();
    scopes.sort_unstable();
    assert_eq!(scopes, ["notes:read", "notes:write", "offline_access"], "what was granted before is asked for as well");
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    assert_eq!(running.service.state().asked.len(), 1, "the first one was taken out, and no third one was asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_twice_for_what_was_not_granted() {
    let running = reading("", "notes:write", false).await;
    let answer = running.whoami("ann").await;
    let page = running.links("ann", &address(answer.tool_text())).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    for _ in 0..2 {
        assert_eq!(reason(&running.whoami("ann").await), "upstream_status");
    }
    // A server that wants something else each time has so much room, and no more.
    running.service.state().needs = Some("x".repeat(bailiwick::limit::VAULT_WIDER_BYTES_MAX));
    assert_eq!(reason(&running.whoami("ann").await), "upstream_status");
    let known = "notes:read notes:write offline_access".len();
    running.service.state().needs = Some("x".repeat(bailiwick::limit::VAULT_WIDER_BYTES_MAX - known - 1));
    assert_eq!(reason(&running.whoami("ann").await), "account_link_required");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_that_an_administrator_wrote_are_not_exceeded() {
    let running = reading("scope = \"notes:read\"\n", "notes:write", true).await;
    assert_eq!(reason(&running.whoami("ann").await), "upstream_status");
    assert_eq!(running.service.state().asked.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_its_server_does_not_take_any_more_is_asked_for_in_the_answer_to_the_call() {
    let running = start().await;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    running.service.state().refresh.clear();
    running.service.state().access.clear();
    let answer = running.whoami("ann").await;
    assert_eq!(reason(&answer), "account_link_required", "{}", answer.text);
    let page = running.links("ann", &address(answer.tool_text())).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
}
