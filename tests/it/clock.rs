//! A clock that jumps: refusals that say why, never silence, and recovery without help.

use std::time::Instant;

use serde_json::json;

use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;
use crate::support::{eventually, figure};

/// Calls of one person that are made, and refused, while the clock is wrong.
const REFUSED: usize = 100;

async fn refusal(gateway: &Gateway, token: &str) -> Option<String> {
    let answer = gateway.client(token).call_tool("tools__echo", json!({})).await;
    match answer.status {
        200 => None,
        401 => answer.response()["error"]["data"]["reason"].as_str().map(str::to_owned),
        other => panic!("{other}: {}", answer.text),
    }
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_refuses_and_says_why_and_recovers_by_itself() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let Some(setup) = Setup::new(&issuer).http_server("tools", &upstream.url, "").own_clock() else { return };
    let mut gateway = setup.start().await;
    let known = issuer.token("alice", &["developers"], &gateway.resource());
    eventually("a call", async || refusal(&gateway, &known).await.is_none()).await;
    let mut expected = upstream.calls().len();
    for (jump, reason) in [("+3600", "token_expired"), ("-3600", "token_not_yet_valid")] {
        // One that was seen before the jump, and one that is seen in it for the first time.
        let fresh = issuer.token("bob", &["developers"], &gateway.resource());
        gateway.set_clock(jump);
        assert_eq!(refusal(&gateway, &fresh).await.as_deref(), Some(reason), "{jump}");
        // A token that was verified before stays so until its own end, which is ahead of a clock that went back.
        let seen = refusal(&gateway, &known).await;
        assert_eq!(seen.as_deref(), (jump == "+3600").then_some(reason), "{jump}");
        expected += usize::from(seen.is_none());
        assert_eq!(upstream.calls().len(), expected, "nothing was forwarded for whom it was refused");
        for _ in 0..REFUSED {
            assert_eq!(refusal(&gateway, &fresh).await.as_deref(), Some(reason), "{jump}");
        }
        let without = upstream.calls().len() - expected;
        gateway.set_clock("+0");
        let over = Instant::now();
        for token in [&fresh, &known] {
            assert_eq!(refusal(&gateway, token).await, None, "after {jump}");
            expected += 1;
            if std::ptr::eq(token, &fresh) {
                figure(&format!("a clock that jumps by {jump} s"), REFUSED + 1, without, over.elapsed());
            }
        }
    }
    // Revoked in an hour that is to come: a sign-out never lets in what a block would not.
    gateway.set_clock("+3600");
    assert!(gateway.command(&["revoke", "subject", "user:test/alice"]).status.success());
    gateway.set_clock("+0");
    assert_eq!(refusal(&gateway, &known).await.as_deref(), Some("revoked"));
    assert!(!gateway.log().contains("panicked"));
    assert!(gateway.stop().await.success());
    bailiwick::record::verify(&gateway.state().join("journal")).expect("the chain is whole");
    let record = gateway.journal();
    let of = |kind: &str| record.iter().filter(|record| record["type"] == kind).count();
    assert_eq!((of("intent"), of("result")), (expected, expected), "each call and its end");
}
