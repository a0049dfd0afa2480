//! `explain --token -`: what whoever has a token may do, said by the files and by a gateway, and nothing of the token anywhere.

use bailiwick::control::client::request;
use serde_json::{Value, json};

use crate::callers::everything_below;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::holder::Holder;
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

const ADMIN: &str = "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\" }]";

const RULES: &str = "\
g, group:test/admins, role:admin, *
p, role:admin, *, bailiwick/*, admin, -, allow
p, user:test/alice, *, */*, call, -, allow
p, agent:desk, *, */*, call, -, allow
p, agent:planner, *, */*, call, -, allow
p, agent:e1, *, */*, call, -, allow
p, agent:e2, *, */*, call, -, allow
";

struct Asked {
    code: Option<i32>,
    told: Value,
    said: String,
}

impl Asked {
    fn reason(&self) -> &str {
        self.told["reason"].as_str().unwrap_or_default()
    }
}

/// Asks about a call of `tools/echo` by whoever has that token, of a gateway elsewhere if one is named.
async fn ask(gateway: &Gateway, token: &str, elsewhere: &[(&str, &str)]) -> Asked {
    let words = ["explain", "tools/echo", "--token", "-", "--json"];
    let output = gateway.piped(&words, elsewhere, token).await;
    let said = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    assert!(!said.contains(token), "it is never shown: {said}");
    let told = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Asked { code: output.status.code(), told, said }
}

async fn start(issuer: &Issuer, upstream: &Scripted) -> Gateway {
    let agent = |name: &str| {
        format!(
            "[agents.{name}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
             environments = [\"development\"]\nclients = [{{ issuer = \"test\", client_id = \"{name}\" }}]\n"
        )
    };
    let agents: String = ["assistant", "desk", "planner", "helper", "e1", "e2"].map(agent).concat();
    Setup::new(issuer)
        .http_server("tools", &upstream.url, "")
        .policy(RULES)
        .policy_file("agents.toml", &agents)
        .admin(ADMIN)
        .start()
        .await
}

#[tokio::test]
async fn whoever_has_a_token_is_explained_with_their_whole_chain_and_the_token_is_nowhere() {
    let (issuer, upstream, holder) = (Issuer::start().await, Scripted::echo().await, Holder::new());
    let gateway = start(&issuer, &upstream).await;
    let mut tokens = Vec::new();
    let mut token = |spoil: &dyn Fn(&mut Value)| {
        let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
        claims["client_id"] = json!("desk");
        spoil(&mut claims);
        tokens.push(issuer.sign(&claims));
        tokens.last().unwrap().clone()
    };
    let four = json!({ "sub": "desk", "act": { "sub": "planner", "act": { "sub": "e1", "act": { "sub": "e2" } } } });
    let deep = token(&|claims| claims["act"] = four.clone());
    let here = ask(&gateway, &deep, &[]).await;
    assert_eq!(here.code, Some(0), "{}", here.said);
    let caller = &here.told["caller"];
    assert_eq!((&caller["user"], &caller["behind"]), (&json!("user:test/alice"), &json!("person")), "{caller}");
    assert_eq!((&caller["agent"], &caller["chain"]), (&json!("desk"), &json!(["planner", "e1", "e2"])), "{caller}");
    assert_eq!((&caller["client"], &caller["client_proof"]), (&json!("desk"), &json!("public")), "{caller}");
    assert_eq!((&caller["scopes"], &caller["groups"]), (&json!(["mcp"]), &json!(["group:test/developers"])));
    let subjects: Vec<&str> =
        here.told["subjects"].as_array().unwrap().iter().map(|told| told["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["user:test/alice", "agent:desk", "agent:planner", "agent:e1", "agent:e2"]);
    let shown = gateway.piped(&["explain", "tools/echo", "--token", "-"], &[], &deep).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    for line in ["agent:desk, agent:planner, agent:e1, agent:e2", "desk (public)", "group:test/developers"] {
        assert!(shown.contains(line), "{shown}");
    }

    // A gateway elsewhere says the same, and its record who was asked about.
    let administrator = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let elsewhere = [("BAILIWICK_ADMIN", gateway.admin.as_str()), ("BAILIWICK_ADMIN_TOKEN", administrator.as_str())];
    let there = ask(&gateway, &deep, &elsewhere).await;
    assert_eq!((there.code, &there.told), (Some(0), &here.told), "{}", there.said);
    let noted = gateway.records("admin").pop().unwrap()["admin"].clone();
    assert_eq!(noted["about"], "call tools/echo as whoever has that token");
    let named = "user:test/alice through agent:desk through agent:planner through agent:e1 through agent:e2";
    assert_eq!(noted["detail"], named, "{noted}");

    // One in the chain may nothing.
    let helped = token(&|claims| claims["act"] = json!({ "sub": "desk", "act": { "sub": "helper" } }));
    let hidden = ask(&gateway, &helped, &[]).await;
    assert_eq!((hidden.code, hidden.reason()), (Some(1), "not_allowed"), "{}", hidden.said);
    assert_eq!(hidden.told["caller"]["chain"], json!(["helper"]));
    // For one server, and bound to a key of which only its holder has a proof.
    let narrow = token(&|claims| claims["aud"] = json!(format!("{}/tools", gateway.resource())));
    assert_eq!(ask(&gateway, &narrow, &[]).await.code, Some(0));
    let bound = token(&|claims| claims["cnf"] = holder.confirmation());
    let bound = ask(&gateway, &bound, &[]).await;
    assert_eq!((bound.code, &bound.told["caller"]["comes_with"]), (Some(0), &json!(["proof"])), "{}", bound.said);

    // What gets nobody in says why, at either place.
    let past = jiff::Timestamp::now().as_second() - 3_600;
    let expired = token(&|claims| (claims["iat"], claims["exp"]) = (json!(past), json!(past + 60)));
    let foreign = token(&|claims| claims["iss"] = json!("https://elsewhere.example"));
    let elsewhere_aud = token(&|claims| claims["aud"] = json!("https://elsewhere.example/mcp"));
    let deeper = json!({ "sub": "desk", "act": { "sub": "planner", "act": { "sub": "helper", "act": { "sub": "e1",
                         "act": { "sub": "e2" } } } } });
    let too_deep = token(&|claims| claims["act"] = deeper.clone());
    let forged = Issuer::start().await.sign(&issuer.claims("alice", &["developers"], &gateway.resource()));
    let long = "x".repeat(2 * bailiwick::limit::TOKEN_BYTES_MAX);
    for (token, reason) in [
        (&expired, "token_expired"),
        (&foreign, "issuer_unknown"),
        (&elsewhere_aud, "audience_mismatch"),
        (&too_deep, "chain_refused"),
        (&forged, "signature_invalid"),
        (&long, "token_malformed"),
    ] {
        for place in [&[][..], &elsewhere] {
            let asked = ask(&gateway, token, place).await;
            assert_eq!((asked.code, asked.reason()), (Some(1), reason), "{}", asked.said);
            assert!(asked.told["hint"].as_str().unwrap().contains("the token gets nobody in"), "{}", asked.said);
            assert!(asked.told.get("caller").is_none() && asked.told["allowed"] == false, "{}", asked.said);
        }
    }
    let words = gateway.piped(&["explain", "tools/echo", "--token", "-"], &[], &expired).await;
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("refused") && words.contains("token_expired"), "{words}");

    // Never as an argument, and beside nobody else.
    for words in
        [&["--token", &deep][..], &["--token", "-", "--as", "user:test/bob"], &["--token", "-", "--agent", "e1"]]
    {
        let output = gateway.piped(&[&["explain", "tools/echo"], words].concat(), &[], &deep).await;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains(&deep), "{said}");
    }
    let empty = gateway.piped(&["explain", "tools/echo", "--token", "-"], &[], "").await;
    assert!(String::from_utf8_lossy(&empty.stderr).contains("no token came on standard input"), "{empty:?}");

    assert!(upstream.calls().is_empty(), "nothing is called");
    // What the running gateway has taken back, whoever is asked.
    assert!(gateway.command(&["revoke", "client", "test/e2"]).status.success());
    for place in [&[][..], &elsewhere] {
        assert_eq!(ask(&gateway, &deep, place).await.reason(), "revoked");
    }
    let everything = everything_below(gateway.directory());
    let written = String::from_utf8_lossy(&everything);
    assert!(tokens.iter().all(|token| !written.contains(token.as_str())), "it is written nowhere");
}

/// Software that nobody registered, as the gateway proposes it.
async fn proposed(gateway: &Gateway) -> String {
    let answer = request::<()>(&gateway.state(), http::Method::GET, "/agents/proposed", None).await.unwrap();
    answer.read::<Value>().unwrap().to_string()
}

#[tokio::test]
async fn what_a_gateway_has_stopped_is_refused_wherever_it_is_asked_and_a_question_proposes_nobody() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = start(&issuer, &upstream).await;
    let token = |spoil: &dyn Fn(&mut Value)| {
        let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
        claims["client_id"] = json!("desk");
        spoil(&mut claims);
        issuer.sign(&claims)
    };
    let administrator = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let elsewhere = [("BAILIWICK_ADMIN", gateway.admin.as_str()), ("BAILIWICK_ADMIN_TOKEN", administrator.as_str())];
    let (simple, deep) =
        (token(&|_| {}), token(&|claims| claims["act"] = json!({ "sub": "desk", "act": { "sub": "e1" } })));
    let says = async |token: &str, reason: &str| {
        for place in [&[][..], &elsewhere] {
            let asked = ask(&gateway, token, place).await;
            assert_eq!((asked.code, asked.reason()), (Some(i32::from(!reason.is_empty())), reason), "{}", asked.said);
            assert!(!asked.said.contains("is not looked at"), "{}", asked.said);
        }
    };
    let does = |words: &[&str]| {
        let done = gateway.command(words);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let gives_back = async |words: &[&str]| {
        let done = gateway.piped(words, &elsewhere, "").await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    says(&deep, "").await;
    for stop in [&["e1"][..], &["e1", "--for", "user:test/alice"]] {
        does(&[&["agents", "suspend"], stop].concat());
        says(&deep, "agent_inactive").await;
        says(&simple, "").await;
        gives_back(&[&["agents", "resume"], stop].concat()).await;
        says(&deep, "").await;
    }
    let doctor = async |token: &str| {
        let told = gateway.piped(&["doctor", "--token", "-"], &[], token).await;
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    assert!(doctor(&deep).await.contains("accepted at"));
    does(&["revoke", "agent", "e1"]);
    says(&deep, "revoked").await;
    assert!(!doctor(&deep).await.contains("accepted at"));
    does(&["agents", "suspend", "tools", "--server"]);
    says(&simple, "target_unknown").await;
    gives_back(&["agents", "resume", "tools", "--server"]).await;
    says(&simple, "").await;
    does(&["revoke", "server", "tools"]);
    says(&simple, "target_unknown").await;

    // Nobody came with these; somebody did with the last.
    let (let_in, robot) = (
        token(&|claims| claims["client_id"] = json!("unheard-desk")),
        token(&|claims| (claims["sub"], claims["client_id"]) = (json!("unheard-robot"), json!("unheard-robot"))),
    );
    let loud = token(&|claims| (claims["sub"], claims["client_id"]) = (json!("loud-robot"), json!("loud-robot")));
    for unheard in [&let_in, &robot] {
        assert_ne!(ask(&gateway, unheard, &elsewhere).await.code, Some(0));
    }
    gateway.client(&loud).call_tool("tools__echo", json!({})).await;
    eventually("who came to be proposed", async || proposed(&gateway).await.contains("loud-robot")).await;
    let all = proposed(&gateway).await;
    assert!(!all.contains("unheard"), "{all}");
}
