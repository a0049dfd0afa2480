//! Whoever knocks too often is turned away unseen, and nobody else: not others, and not whom we know at the same address.

use crate::support::client::Answer;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::holder::call_as;
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

fn reason(answer: &Answer) -> &str {
    answer.response()["error"]["data"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn who_knocks_too_often_is_turned_away_unseen_and_neither_others_nor_whom_we_know() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .gateway("trusted_proxies = [\"127.0.0.1\"]\n")
        .limits("refusals_per_second = 1\nrefusals_burst = 5\n")
        .start()
        .await;
    let call = async |token: &str, from: &str| {
        call_as(&gateway.resource(), &format!("Bearer {token}"), &[("x-forwarded-for", from.to_owned())]).await
    };
    let (known, other) = ("203.0.113.7", "203.0.113.8");
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    assert_eq!(call(&token, known).await.status, 200);
    let mut guesses = Vec::new();
    for number in 0..12 {
        guesses.push(call(&format!("guess-{number}"), known).await);
    }
    assert!(guesses[..5].iter().all(|answer| answer.status == 401), "{}", guesses[0].text);
    let last = guesses.last().unwrap();
    assert_eq!(
        (last.status, reason(last), last.header("retry-after")),
        (429, "strangers_limited", "1"),
        "{}",
        last.text
    );
    // What is good is not looked at either, but for what was found good before.
    let again = issuer.token("alice", &["developers"], &gateway.resource());
    assert_ne!(again, token, "another login");
    assert_eq!(call(&again, known).await.status, 429);
    assert_eq!(call(&token, known).await.status, 200);
    assert_eq!(call(&again, other).await.status, 200);
    // The proxy itself is another address.
    let bare = call_as(&gateway.resource(), "", &[]).await;
    assert_eq!((bare.status, reason(&bare)), (401, "token_missing"), "{}", bare.text);
    eventually("a pause to be enough", async || call("guess", known).await.status == 401).await;
    // One line each at once, and the others in counts.
    assert_eq!(upstream.calls().len(), 3);
    let mut gateway = gateway;
    assert!(gateway.stop().await.success());
    let noise = gateway.records("noise");
    let of = |name: &str| noise.iter().filter(|line| line["noise"]["reason"] == name).collect::<Vec<_>>();
    let limited = of("strangers_limited");
    assert!(limited.iter().all(|line| line["noise"]["source"] == known) && !limited.is_empty(), "{noise:?}");
    let count: u64 = limited.iter().map(|line| line["noise"]["count"].as_u64().unwrap()).sum();
    assert!(count >= 7 && limited.len() <= 3, "{noise:?}");
    assert!(!noise.iter().any(|line| line.to_string().contains("guess")), "{noise:?}");
}
