//! What the pages show, and what they do.

use super::*;

const PAGES: [&str; 8] = ["/", "/log", "/servers", "/agents", "/ask", "/revocations", "/policy", "/access"];

#[tokio::test]
async fn an_administrator_sees_every_page_and_each_look_is_on_the_record_with_their_name() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    for path in PAGES {
        for base in ["/admin", ""] {
            let page = ann.get(&format!("{base}{path}")).await;
            assert_eq!(page.status, 200, "{base}{path}: {}", page.text);
            assert!(page.text.contains("user:test/ann") && page.text.contains("aria-current=\"page\""), "{path}");
            assert!(!page.text.contains("<style") && !page.text.contains(" style=") && !page.text.contains(" onclick"));
        }
    }
    let record = running.ended();
    let of = |operation: &str| record.iter().find(|admin| admin["operation"] == operation).cloned().unwrap_or_default();
    for operation in ["sign_in", "status", "servers", "agents", "revocations", "policy", "shadow", "logs"] {
        let admin = of(operation);
        assert_eq!(
            (&admin["actor"], &admin["client"]),
            (&json!("user:test/ann"), &json!("test-console")),
            "{operation}"
        );
    }
    assert!(of("servers")["rule"].as_str().unwrap().starts_with("policy.csv:"), "decided by the same rules as the API");
    let servers = ann.get("/admin/servers").await.text;
    assert!(servers.contains("Nobody&#39;s business") || servers.contains("Nobody's business"), "{servers}");
    assert!(servers.contains("user:test/owner") && servers.contains("over HTTP"), "{servers}");
    let agents = ann.get("/admin/agents").await.text;
    assert!(agents.contains("assistant") && agents.contains("interactive") && agents.contains("tests"), "{agents}");
}

#[tokio::test]
async fn whoever_no_rule_lets_look_is_told_which_rule_is_missing_and_has_a_page_of_their_own() {
    let running = start().await;
    let mut dora = running.signed_in("dora", &["developers"]).await;
    for (path, object) in [
        ("/servers", "bailiwick/servers"),
        ("/agents", "bailiwick/agents"),
        ("/policy", "bailiwick/policy"),
        ("/revocations", "bailiwick/revocations"),
        ("/log?still=1", "bailiwick/logs"),
    ] {
        let page = dora.get(&format!("/admin{path}")).await;
        assert!(
            page.text.contains(&format!("p, <bdi>user:test/dora</bdi>, *, {object}, admin, -, allow")),
            "{}",
            page.text
        );
        assert!(!page.text.contains("user:test/owner"), "nothing of it is shown");
    }
    let refused = running.ended().into_iter().filter(|admin| admin["outcome"] == "refused").count();
    assert_eq!(refused, 5);
    let home = dora.get("/admin/").await;
    assert_eq!((home.status, home.header("location")), (303, "/admin/access"));
    let nav = dora.get("/admin/access").await.text;
    assert!(!nav.contains(">Servers</a>") && nav.contains(">My access</a>"), "only what they may open is offered");
}

#[tokio::test]
async fn my_access_tells_what_i_can_call_whom_to_ask_and_of_what_is_hidden_nothing() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let rules = "p, user:test/eve, *, tools/echo, call, -, allow\np, agent:assistant, *, */*, call, -, allow\n";
    let gateway = setup(&issuer, &upstream).policy(rules).start().await;
    let running = Running { issuer, gateway, upstream };
    running.call("dora").await;
    let mut eve = running.signed_in("eve", &[]).await;
    let mut page = String::new();
    for _ in 0..100 {
        page = eve.get("/admin/access").await.text;
        if page.contains("<code><bdi>echo</bdi></code>") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(page.contains("<code><bdi>echo</bdi></code>") && page.contains("allowed"), "{page}");
    assert!(page.contains("payroll") && page.contains("Payroll") && page.contains("user:test/owner"), "{page}");
    assert!(!page.contains("secret") && !page.contains("business"), "it is not discoverable");
    let answer =
        |page: &Page| page.text.split("id=\"answer\"").nth(1).unwrap().split("</section>").next().unwrap().to_owned();
    let discoverable = eve.get("/admin/access?object=payroll/echo&action=call").await;
    assert!(answer(&discoverable).contains("not_allowed") && answer(&discoverable).contains("user:test/owner"));
    let hidden = answer(&eve.get("/admin/access?object=secret/echo&action=call").await).replace("secret", "X");
    let unknown = answer(&eve.get("/admin/access?object=unknown/echo&action=call").await).replace("unknown", "X");
    assert_eq!(hidden, unknown, "hidden and absent are the same bytes");
    let allowed = answer(&eve.get("/admin/access?object=tools/echo&action=call").await);
    assert!(allowed.contains(">allowed<") && allowed.contains("policy.csv:1"), "{allowed}");
}

#[tokio::test]
async fn what_somebody_asks_for_is_on_the_record_and_told_once_a_day_and_of_what_is_hidden_nothing_can_be_asked() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let rules = "p, user:test/eve, *, tools/echo, call, -, allow\np, agent:assistant, *, */*, call, -, allow\n";
    let hook =
        "[webhooks.chat]\nurl = \"http://127.0.0.1:9/hook\"\nevents = [\"access.requested\"]\nallow_private = true\n";
    let gateway = setup(&issuer, &upstream).policy(rules).sections(hook).start().await;
    let running = Running { issuer, gateway, upstream };
    let mut eve = running.signed_in("eve", &[]).await;
    let page = eve.get("/admin/access?object=payroll/echo&action=call").await;
    assert!(page.text.contains("Ask for it") && page.text.contains("name=\"note\""), "{}", page.text);
    let allowed = eve.get("/admin/access?object=tools/echo&action=call").await;
    assert!(!allowed.text.contains("Ask for it"), "it is allowed");
    let csrf = page.csrf();
    fn wish<'a>(csrf: &'a str, object: &'a str) -> [(&'a str, &'a str); 4] {
        [("csrf", csrf), ("action", "call"), ("note", "the year's end"), ("object", object)]
    }
    let mut answers = Vec::new();
    for object in ["payroll/echo", "payroll/echo", "tools/echo", "secret/echo", "unknown/echo"] {
        answers.push(eve.post("/admin/access", &wish(&csrf, object)).await);
    }
    assert_eq!(answers.iter().map(|page| page.status).collect::<Vec<_>>(), [303, 409, 409, 409, 409]);
    assert!(eve.get(answers[0].header("location")).await.text.contains("It is on the record"));
    assert!(answers[1].text.contains("asked for it already") && answers[2].text.contains("allowed already"));
    let without_csrf = |page: &Page| page.text.replace(&page.csrf(), "");
    assert_eq!(without_csrf(&answers[3]), without_csrf(&answers[4]), "hidden and absent are the same bytes");
    let told = running.gateway.records("admin").into_iter().map(|record| record["admin"].clone());
    let told: Vec<_> = told.filter(|admin| admin["operation"] == "access-wish").collect();
    let outcomes: Vec<_> = told.iter().map(|admin| admin["outcome"].as_str().unwrap()).collect();
    // It is there before anybody is told of it, and what was refused is there as well.
    assert_eq!(outcomes, ["begun", "done", "refused", "refused", "refused", "refused"]);
    let told = &told[1];
    assert_eq!((&told["actor"], &told["about"]), (&json!("user:test/eve"), &json!("call payroll/echo")));
    assert_eq!(told["detail"], json!("the year's end"));
    let file = running.gateway.state().join("store.sqlite");
    let mut store = <sqlx::SqliteConnection as sqlx::Connection>::connect(file.to_str().unwrap()).await.unwrap();
    let waits = "SELECT body FROM shelf WHERE section = 'webhook'";
    let waiting: Vec<String> = sqlx::query_scalar(waits).fetch_all(&mut store).await.unwrap();
    assert_eq!(waiting.len(), 1);
    let message: serde_json::Value = serde_json::from_str(&waiting[0]).unwrap();
    let message: serde_json::Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
    assert_eq!((&message["type"], &message["data"]["owner"]), (&json!("access.requested"), &json!("user:test/owner")));
    for number in 1..=bailiwick::limit::ACCESS_WISHES_OF_ONE_MAX {
        let object = format!("payroll/tool-{number}");
        let asked = eve.post("/admin/access", &wish(&csrf, &object)).await;
        let fits = number < bailiwick::limit::ACCESS_WISHES_OF_ONE_MAX;
        assert_eq!(asked.status, if fits { 303 } else { 409 }, "{number}: {}", asked.text);
    }
    let counted = "SELECT number FROM shelf WHERE section = 'access_wish' AND key LIKE 'day/%'";
    let counted: Vec<i64> = sqlx::query_scalar(counted).fetch_all(&mut store).await.unwrap();
    let most = i64::try_from(bailiwick::limit::ACCESS_WISHES_OF_ONE_MAX).unwrap();
    assert_eq!(counted.iter().sum::<i64>(), most, "of several at once no more are told");
}

#[tokio::test]
async fn my_access_tells_nothing_of_what_an_agent_may_whom_somebody_chose() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let agent = |id: &str, kind: &str| {
        format!(
            "[agents.{id}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"{kind}\"\nenvironments = [\"development\"]\n\
             [[agents.{id}.clients]]\nissuer = \"test\"\nclient_id = \"client-of-{id}\"\nproof = \"private_key\"\n"
        )
    };
    let agents = [("assistant", "interactive"), ("helper", "interactive"), ("payroll-bot", "autonomous")];
    let agents: String = agents.iter().map(|(id, kind)| agent(id, kind)).collect();
    let rules = "p, user:test/eve, *, tools/echo, call, -, allow\n\
                 p, agent:assistant, *, secret/echo, call, -, allow\n\
                 p, agent:helper, *, secret/echo, call, -, allow\n\
                 p, agent:helper, *, tools/echo, call, -, allow\n\
                 p, agent:payroll-bot, *, secret/echo, call, -, allow\n";
    let gateway = setup(&issuer, &upstream).policy(rules).policy_file("agents.toml", &agents).start().await;
    let running = Running { issuer, gateway, upstream };
    let mut eve = running.signed_in("eve", &[]).await;
    for agent in ["", "assistant", "helper", "payroll-bot", "nobody"] {
        let page = eve.get(&format!("/admin/access?agent={agent}")).await.text;
        assert!(!page.contains("secret") && !page.contains("business") && !page.contains("payroll-bot"), "{page}");
        let asked = async |eve: &mut Browser, server: &str| {
            let page = eve.get(&format!("/admin/access?agent={agent}&object={server}/echo&action=call")).await;
            page.text.split("id=\"answer\"").nth(1).unwrap().replace(server, "X")
        };
        assert_eq!(asked(&mut eve, "secret").await, asked(&mut eve, "unknown").await, "{agent}");
    }
    let with = eve.get("/admin/access?agent=helper&object=tools/echo&action=call").await.text;
    assert!(with.contains(">allowed<") && with.contains("policy.csv:1") && !with.contains("policy.csv:4"), "{with}");
    let without = eve.get("/admin/access?agent=assistant&object=tools/echo&action=call").await.text;
    assert!(without.contains(">refused<") && without.contains("those of the assistant do not"), "{without}");
}

#[tokio::test]
async fn questions_are_answered_with_the_rules_that_say_so() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let who = ann.get("/admin/ask?object=tools/echo&action=call").await.text;
    assert!(who.contains("group:test/developers") && who.contains("policy.csv:2"), "{who}");
    let what = ann.get("/admin/ask?subject=agent:assistant").await.text;
    assert!(what.contains("policy.csv:5"), "{what}");
    let wrong = ann.get("/admin/ask?subject=nonsense").await.text;
    assert!(wrong.contains("parameters_invalid"), "{wrong}");
    let csrf = ann.get("/admin/ask").await.csrf();
    let fields = [
        ("csrf", csrf.as_str()),
        ("object", "tools/echo"),
        ("action", "call"),
        ("as", "user:test/dora"),
        ("groups", "group:test/developers"),
        ("arguments", "{\"amount\": 1}"),
    ];
    let explained = ann.post("/admin/ask/explain", &fields).await;
    assert!(explained.text.contains(">allowed<") && explained.text.contains("policy.csv:2"), "{}", explained.text);
    let fields = [("csrf", csrf.as_str()), ("object", "tools/echo"), ("arguments", "{")];
    assert!(ann.post("/admin/ask/explain", &fields).await.text.contains("no JSON"));
}

#[tokio::test]
async fn revoking_shows_what_it_stops_asks_why_and_then_stops_it() {
    let running = start().await;
    assert_eq!(running.call("dora").await, 200);
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let form = ann.get("/admin/revocations?target=agent&value=assistant").await;
    assert!(form.text.contains("value=\"assistant\"") && form.text.contains("<option value=\"agent\" selected>"));
    let csrf = form.csrf();
    let order = [("csrf", csrf.as_str()), ("target", "agent"), ("value", "assistant"), ("issuer", "test")];
    let silent = ann.post("/admin/revocations/new", &order).await;
    assert!(silent.status == 400 && silent.text.contains("Say why"), "{}", silent.text);
    let order = [&order[..], &[("note", "<b>leaked\u{202e}</b>")]].concat();
    let asked = ann.post("/admin/revocations/new", &order).await;
    assert!(asked.status == 200 && asked.text.contains("<b>1 agent</b> cannot act any more"), "{}", asked.text);
    assert_eq!(running.call("dora").await, 200, "nothing was taken back yet");
    let misspelled = [("csrf", csrf.as_str()), ("target", "agent"), ("value", "asistant"), ("note", "x")];
    assert!(ann.post("/admin/revocations/new", &misspelled).await.text.contains("The files know nothing of that name"));
    let done = ann.post("/admin/revocations", &order).await;
    assert_eq!((done.status, done.header("location")), (303, "/admin/revocations?done=revoked&epoch=1"));
    assert_eq!(running.call("dora").await, 401);
    let list = ann.get("/admin/revocations?done=revoked&epoch=1").await.text;
    assert!(list.contains("It holds from epoch 1 on"), "{list}");
    assert!(list.contains("&lt;b&gt;leaked") && list.contains("U+202E") && !list.contains('\u{202e}'), "{list}");
    let record = running.ended().into_iter().find(|admin| admin["operation"] == "revoke").unwrap();
    assert_eq!((&record["actor"], &record["about"]), (&json!("user:test/ann"), &json!("agent assistant")));
}

#[tokio::test]
async fn whoever_may_brake_and_not_look_finds_the_brake() {
    let running = start().await;
    let mut otto = running.signed_in("otto", &["operators"]).await;
    let page = otto.get("/admin/revocations?target=server&value=tools").await;
    assert!(
        page.status == 403 && page.text.contains("bailiwick/revocations") && page.text.contains("See what it stops")
    );
    let csrf = page.csrf();
    let order = [("csrf", csrf.as_str()), ("target", "server"), ("value", "tools"), ("note", "odd answers")];
    let asked = otto.post("/admin/revocations/new", &order).await;
    assert!(asked.text.contains("What it stops is not shown to you"), "{}", asked.text);
    assert_eq!(otto.post("/admin/revocations", &order).await.status, 303);
    assert!(otto.get("/admin/servers").await.text.contains(">revoked<"));
}

#[tokio::test]
async fn lifting_leads_to_a_fresh_login_and_comes_back_to_a_page_that_asks() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let csrf = ann.get("/admin/revocations").await.csrf();
    let order =
        [("csrf", csrf.as_str()), ("target", "subject"), ("issuer", "test"), ("value", "dora"), ("note", "left")];
    assert_eq!(ann.post("/admin/revocations", &order).await.status, 303);
    assert_eq!(running.call("dora").await, 401);
    let old = ann.get("/admin/revocations/1/lift").await;
    assert!(old.text.contains("Log in again") && !old.text.contains("Lift it"), "the login is an hour old");
    // The form is not what decides: the desk does.
    let lift = [("csrf", csrf.as_str()), ("note", "is back")];
    let refused = ann.post("/admin/revocations/1/lift", &lift).await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert!(refused.text.contains("insufficient_user_authentication"));
    let again = ann.come_back("/admin/login/start?fresh=1&to=%2Frevocations%2F1%2Flift").await;
    let asked = running.issuer.asked().pop().unwrap();
    assert_eq!((asked["max_age"].as_str(), asked["acr_values"].as_str()), ("0", "strong"));
    let back = ann.get(&again).await;
    assert_eq!((back.status, back.header("location")), (303, "/admin/revocations/1/lift"));
    let fresh = ann.get("/admin/revocations/1/lift").await;
    assert!(fresh.text.contains("Lift it") && !fresh.text.contains("Log in again"), "{}", fresh.text);
    assert_eq!(running.call("dora").await, 401, "logging in lifts nothing");
    let csrf = fresh.csrf();
    let silent = ann.post("/admin/revocations/1/lift", &[("csrf", &csrf), ("note", " ")]).await;
    assert!(silent.status == 400 && silent.text.contains("Say why"));
    let done = ann.post("/admin/revocations/1/lift", &[("csrf", &csrf), ("note", "is back")]).await;
    assert_eq!((done.status, done.header("location")), (303, "/admin/revocations?done=lifted&epoch=2"));
    assert_eq!(running.call("dora").await, 200);
    assert_eq!(ann.get("/admin/revocations/1/lift").await.status, 404);
}

#[tokio::test]
async fn the_policy_page_shows_who_changed_which_rows() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    assert!(ann.get("/admin/policy").await.text.contains("None since the start"));
    let narrower = format!("{DEVELOPERS_MAY}{RULES}p, user:test/mallory, *, */*, call, -, deny\n");
    running.gateway.write_policy(&narrower);
    let output = running.gateway.command(&["reload", "--config", "servers.toml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = ann.get("/admin/policy").await.text;
    assert!(page.contains("user:test/mallory") && page.contains("+ added") && page.contains("host:"), "{page}");
    assert!(page.contains("There is no directory policies.next"), "{page}");
}

#[tokio::test]
async fn the_live_log_sends_rows_as_they_are_written_and_text_stays_text() {
    let running = start().await;
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let rows = format!("data-rows=\"{}\"", bailiwick::limit::CONSOLE_LOG_ROWS_MAX);
    assert!(ann.get("/admin/log").await.text.contains(&rows), "a page holds so many");
    let cookies: Vec<String> = ann.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let url = format!("{}/admin/log/stream?subject=dora", ann.origin);
    let request = ann.http.get(url).header("cookie", cookies.join("; ")).header("sec-fetch-site", "same-origin");
    let mut stream = request.send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let token = running.issuer.token("dora", &["developers"], &running.gateway.resource());
    assert_eq!(running.gateway.client(&token).call_tool("tools__echo", json!({})).await.status, 200);
    assert_ne!(running.gateway.client(&token).call_tool("tools__<i>no", json!({})).await.status, 500);
    let mut text = String::new();
    let wanted = async {
        while !(text.contains("tools/echo") && text.contains("&lt;i&gt;no")) {
            text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().expect("more")).unwrap());
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wanted).await.unwrap_or_else(|_| panic!("no row"));
    assert!(text.contains("event: row") && text.contains("test/dora") && !text.contains("<i>"), "{text}");
    // It ends with the session.
    let csrf = ann.get("/admin/access").await.csrf();
    assert_eq!(ann.post("/admin/logout", &[("csrf", &csrf)]).await.status, 200);
    let end = async { while let Ok(Some(_)) = stream.chunk().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(5), end).await.expect("the stream ends");
    let mut dora = running.signed_in("dora", &["developers"]).await;
    let refused = dora.get("/admin/log/stream").await.text;
    assert!(refused.starts_with("event: refused") && refused.contains("bailiwick/logs"), "{refused}");
}

#[tokio::test]
async fn refusals_of_the_last_minutes_are_counted_by_reason() {
    let running = start().await;
    let token = running.issuer.token("nobody", &[], &running.gateway.resource());
    for _ in 0..3 {
        running.gateway.client(&token).call_tool("tools__echo", json!({})).await;
    }
    let mut ann = running.signed_in("ann", &["admins"]).await;
    let page = ann.get("/admin/").await.text;
    let minutes = bailiwick::limit::CONSOLE_REFUSALS_WINDOW.as_secs() / 60;
    assert!(page.contains(&format!("Refused in the last {minutes} minutes")), "{page}");
    assert!(page.contains("/admin/log?decision=deny&amp;reason="), "{page}");
    assert!(page.contains("<td class=\"number\" data-label=\"Times\">3</td>"), "{page}");
}

#[tokio::test]
async fn so_many_tools_are_on_one_page_and_the_others_are_counted() {
    let most = bailiwick::limit::CONSOLE_ITEMS_SHOWN_MAX;
    let tools: Vec<Value> = (0..=most).map(|number| scripted::tool(&format!("tool-{number}"))).collect();
    let upstream = Scripted::start(json!(tools), |call| scripted::result(call, scripted::text("x"))).await;
    let issuer = Issuer::start().await;
    let gateway = setup(&issuer, &upstream).start().await;
    let running = Running { issuer, gateway, upstream };
    let mut dora = running.signed_in("dora", &["developers"]).await;
    for _ in 0..100 {
        let page = dora.get("/admin/access").await.text;
        if page.contains("1 more are not shown") {
            assert!(
                page.contains(&format!("tool-{}</bdi>", most - 1)) && !page.contains(&format!("tool-{most}</bdi>"))
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("they were not listed");
}
