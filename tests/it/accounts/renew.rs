//! Renewing: once, whoever asks; and what becomes of an account that is not renewed any more.

use super::*;

#[tokio::test]
async fn fifty_calls_at_once_renew_an_account_once() {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let limits = "requests_per_second = 10000\nrequests_burst = 10000\ncalls_in_flight_max = 64\n";
    let gateway = setup(&issuer, &service).limits(limits).start().await;
    let running = Running { issuer, service, gateway };
    running.service.state().life_s = 2;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    {
        let mut service = running.service.state();
        service.life_s = 3_600;
        service.slow_ms = 300;
    }
    // Longer than it is good for: nothing tells when a time is over.
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let before = running.service.renewals();
    let client = running.client("ann");
    let calls = (0..50).map(|_| client.call_tool("notes__whoami", json!({})));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.tool_text(), "ann@service", "{}", answer.text);
    }
    assert_eq!(running.service.renewals(), before + 1);
}

#[tokio::test]
async fn an_account_that_cannot_be_renewed_is_asked_for_anew_and_not_tried_again() {
    let running = start().await;
    running.service.state().life_s = 2;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    running.service.state().refresh.clear();
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let before = running.service.renewals();
    for _ in 0..3 {
        let answer = running.whoami("ann").await;
        assert_eq!(reason(&answer), "account_link_required", "{}", answer.text);
    }
    assert_eq!(running.service.renewals(), before + 1, "a refresh token that is worth nothing is not presented again");
    let listed = running.gateway.command(&["vault", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["accounts"][0]["usable"], json!(false), "{listed}");
    running.service.state().life_s = 3_600;
    let answer = running.whoami("ann").await;
    let page = running.links("ann", &address(answer.tool_text())).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
}

#[tokio::test]
async fn a_token_that_the_service_took_back_is_renewed_in_the_middle_of_a_call_and_not_with_every_call() {
    let running = start().await;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    running.service.state().access.clear();
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    assert_eq!(running.service.renewals(), 1);
    running.service.state().access.clear();
    for _ in 0..3 {
        assert_eq!(reason(&running.whoami("ann").await), "upstream_status");
    }
    assert_eq!(running.service.renewals(), 1, "a service that takes nothing is no reason to renew again and again");
}

#[tokio::test]
async fn nothing_of_an_account_rests_in_the_open() {
    let running = start().await;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    let mut looked = 0;
    let mut places = vec![running.gateway.directory().to_owned()];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places.push(path);
                continue;
            }
            let Ok(content) = std::fs::read(&path) else { continue };
            looked += 1;
            let found = content.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
            assert!(!found, "a token stands in {}", path.display());
        }
    }
    assert!(looked > 5);
}
