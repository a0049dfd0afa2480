//! What was handed out before access was taken back is void for good: a login, a code, a refresh token, a registration.

use std::time::Duration;

use super::*;
use crate::support::eventually;
use crate::voided::{ADMIN, RULES, lift, revoke};

/// One of each that an assistant is handed.
struct Handed {
    client: String,
    /// The browser of a login that somebody has consented to, and where the provider sends it.
    under_way: (String, String),
    code: String,
    refresh: String,
    access: String,
}

async fn start() -> Registered {
    Registered::start_with("", |setup| {
        setup.issuer_lines("leeway = \"60s\"\n").policy(&format!("{DEVELOPERS_MAY}{RULES}")).admin(ADMIN)
    })
    .await
}

impl Registered {
    async fn hand(&self) -> Handed {
        let client = self.client("Assistant").await;
        let page = self.authorize(&self.asked(&client)).await;
        let agreed = self.answer(page.cookie.as_ref().unwrap(), &page.nonce(), "allow", &self.gateway.url).await;
        let code = async || self.log_in(&client).await.parameter("code").unwrap();
        let granted = self.redeem(&client, &code().await).await.json();
        let text = |name: &str| granted[name].as_str().unwrap_or_else(|| panic!("no {name}: {granted}")).to_owned();
        let (refresh, access) = (text("refresh_token"), text("access_token"));
        let code = code().await;
        Handed { client, under_way: (agreed.cookie.unwrap(), agreed.location), code, refresh, access }
    }

    async fn refresh(&self, handed: &Handed) -> Answered {
        let form =
            [("grant_type", "refresh_token"), ("client_id", &*handed.client), ("refresh_token", &*handed.refresh)];
        self.token(&form).await
    }

    /// Finishes the login that is under way, as far as it goes.
    async fn finish(&self, handed: &Handed) -> Answered {
        let (cookie, location) = &handed.under_way;
        let provider = self.http.get(location).send().await.unwrap();
        let back = provider.headers()["location"].to_str().unwrap().strip_prefix(&self.gateway.url).unwrap().to_owned();
        let back = self.send(Method::GET, &back, &[("cookie", cookie)], String::new()).await;
        match back.parameter("code") {
            Some(code) => self.redeem(&handed.client, &code).await,
            None => back,
        }
    }

    /// Which of them are good: registration, login under way, code, refresh token.
    async fn good(&self, handed: &Handed) -> [bool; 4] {
        let page = self.authorize(&self.asked(&handed.client)).await;
        assert!(matches!(page.status, 200 | 400), "{}", page.text);
        let redeemed = self.redeem(&handed.client, &handed.code).await;
        for answered in [&redeemed, &self.refresh(handed).await] {
            let error = &answered.json()["error"];
            let expected = if page.status == 200 { "invalid_grant" } else { "invalid_client" };
            assert!(answered.status == 200 || *error == expected, "{}", answered.text);
        }
        let is_good = |answered: Answered| answered.status == 200;
        let (finished, refreshed) = (self.finish(handed).await, self.refresh(handed).await);
        [page.status == 200, is_good(finished), is_good(redeemed), is_good(refreshed)]
    }

    async fn calls_with(&self, token: &str) -> u16 {
        self.gateway.client(token).call_tool("tools__echo", json!({})).await.status
    }
}

const GOOD: [bool; 4] = [true; 4];
/// Whoever is taken back by their own name: their assistant may log in anybody, and has nothing of theirs.
const KNOWN: [bool; 4] = [true, false, false, false];
const VOID: [bool; 4] = [false; 4];

#[tokio::test]
async fn a_person_who_was_taken_back_comes_in_again_with_a_new_login_alone() {
    let here = start().await;
    let before = here.hand().await;
    assert_eq!(here.good(&before).await, GOOD);
    let (other, unused) = (here.hand().await, here.hand().await);

    // While it holds, nothing of before brings a token, and the record says who tried.
    revoke(&here.gateway, &["subject", "user:test/alice"]);
    assert_eq!(here.good(&before).await, KNOWN);
    let refused = |record: &Value| record["admin"]["outcome"] == "refused" && record["admin"]["reason"] == "revoked";
    eventually("the refusal on the record", async || here.gateway.records("admin").iter().any(refused)).await;
    let told = here.gateway.records("admin").into_iter().find(refused).unwrap();
    assert!(told.to_string().contains("not handed to Assistant"), "{told}");

    // Nor once it is lifted. The provider's own token, which nobody here holds, is good until it ends.
    lift(&here.issuer, &here.gateway).await;
    for old in [&before, &other] {
        assert_eq!(here.good(old).await, KNOWN);
    }
    assert_eq!(here.calls_with(&unused.access).await, 200);
    let after = here.hand().await;
    assert_eq!(here.good(&after).await, GOOD);

    // A sign-out: the provider would renew, and is not asked.
    revoke(&here.gateway, &["subject", "user:test/alice", "--sign-out"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut claims = here.issuer.claims("alice", &["developers"], "");
    claims["iat"] = json!(jiff::Timestamp::now().as_second() + 60);
    here.issuer.logs_in(claims);
    for old in [&before, &after] {
        assert_eq!(here.good(old).await, KNOWN);
    }
    let anew = here.hand().await;
    assert_eq!((here.good(&anew).await, here.calls_with(&anew.access).await), (GOOD, 200));
}

#[tokio::test]
async fn what_was_handed_out_to_a_client_that_was_taken_back_is_void_and_one_that_registers_anew_is_good() {
    let mut here = start().await;
    let (mut first, second) = (here.hand().await, here.hand().await);

    // One of those that registered, by the name that the record has.
    let short = bailiwick::ids::Digest::sha256(first.client.as_bytes()).short();
    assert!(here.gateway.records("admin").iter().any(|record| record.to_string().contains(&short)));
    revoke(&here.gateway, &["client", &format!("test/{short}")]);
    assert_eq!((here.good(&first).await, here.good(&second).await), (VOID, GOOD));
    lift(&here.issuer, &here.gateway).await;
    assert_eq!((here.good(&first).await, here.good(&second).await), (VOID, GOOD));

    // The administrator's client, which all of them share; everything.
    let mut old = vec![first];
    first = second;
    for target in [&["client", "test/shared"][..], &["everything"]] {
        revoke(&here.gateway, target);
        assert_eq!(here.good(&first).await, VOID, "{target:?}");
        lift(&here.issuer, &here.gateway).await;
        assert_eq!(here.good(&first).await, VOID, "{target:?}");
        old.push(std::mem::replace(&mut first, here.hand().await));
        assert_eq!(here.good(&first).await, GOOD, "{target:?}");
    }

    // Whoever starts has seen none of it.
    assert!(here.gateway.stop().await.success());
    here.gateway.launch().await;
    for old in &old {
        assert_eq!(here.good(old).await, VOID);
    }
    assert_eq!(here.good(&first).await, GOOD);
}

#[tokio::test]
async fn a_token_of_whom_nobody_here_can_say_whose_it_is_gets_no_successor() {
    let here = Registered::start("").await;
    let client = here.client("Assistant").await;
    let mut claims = here.issuer.claims("alice", &["developers"], "");
    claims["exp"] = json!(1_000);
    here.issuer.logs_in(claims);
    let code = here.log_in(&client).await.parameter("code").unwrap();
    let granted = here.redeem(&client, &code).await;
    assert_eq!(granted.status, 200, "{}", granted.text);
    let granted = granted.json();
    assert!(granted["access_token"].is_string() && granted["refresh_token"].is_null(), "{granted}");
    assert_eq!(here.calls_with(granted["access_token"].as_str().unwrap()).await, 401, "its bearer is told why");
}
