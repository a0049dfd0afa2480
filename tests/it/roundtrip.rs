//! Messages of every kind in every pairing and transport, to the byte: only what must change changes. Unknown
//! members, the order of keys, the spelling of numbers and escapes survive, and spaces inside of values do.

use crate::input::may_ask;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::talkative::UPSTREAMS;
use crate::support::verbatim::{Heard, Said, Verbatim};

/// Members that many a parser changes: numbers beyond a double or with a spelling of their own, escapes that need
/// not be, keys out of order, an empty key, spaces.
const ODD: &str = concat!(
    r#""zeta":{"b":1.0,"a":[ -0,1e400,0.10,-1E-4000,123456789012345678901234567890 ],"":null},"#,
    r#""\u00e9\/":"\ud83d\ude00\u0000\t é \u2028","alpha":[{}, [ ]]"#
);
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const VERSION: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
const METHODS: [&str; 5] = ["tools/call", "prompts/get", "resources/read", "completion/complete", "x/odd"];
const ID: &str = r#""\u00e9-1""#;

/// What one client or upstream is.
type Pairing = (&'static str, (&'static str, &'static str));

fn pairings() -> impl Iterator<Item = Pairing> {
    ["modern", "legacy"].into_iter().flat_map(|client| UPSTREAMS.map(|upstream| (client, upstream)))
}

/// The parameters of a request of each method; the name of what is meant and `_meta` are what changes.
fn params(method: &str, name: &str, meta: &str) -> String {
    let target = match method {
        "tools/call" | "prompts/get" => format!(r#""name":"{name}","arguments":{{{ODD}}}"#),
        "resources/read" => r#""uri":"test://a""#.to_owned(),
        "completion/complete" => format!(
            r#""ref":{{"x":1.0,"type":"ref/prompt","name":"{name}",{ODD}}},"argument":{{"name":"n","value":"v",{ODD}}},"context":{{{ODD}}}"#
        ),
        _ => format!(r#""deep":{{{ODD}}}"#),
    };
    format!(r#"{{"zz":{{{ODD}}},{target},"_meta":{meta},"\u006fther":[ 1 ]}}"#)
}

/// `_meta` of a request as a client sends it.
fn sent(client: &str, capabilities: &str) -> String {
    let modern = format!(
        r#"{VERSION},"{CAPABILITIES}":{capabilities},"io.modelcontextprotocol/logLevel":"debug","dev.bailiwick/forged":1,"#
    );
    let own = if client == "modern" { modern.as_str() } else { r#""dev.bailiwick/forged":1,"# };
    format!(r#"{{"com.example/x":{{{ODD}}},{own}"progressToken":"mine","trace\u0070arent":"00-1"}}"#)
}

/// The same as an upstream gets it, under a progress token of ours.
fn forwarded(client: &str, upstream: &str, capabilities: &str, token: &str) -> String {
    let (before, after) = match (client, upstream) {
        (_, "legacy") => (String::new(), String::new()),
        ("modern", _) => (
            format!(r#"{VERSION},"{CAPABILITIES}":{capabilities},"io.modelcontextprotocol/logLevel":"debug","#),
            String::new(),
        ),
        _ => (
            String::new(),
            format!(
                r#","{CAPABILITIES}":{capabilities},{VERSION},"io.modelcontextprotocol/clientInfo":{{"name":"odd","version":"1",{ODD}}}"#
            ),
        ),
    };
    format!(r#"{{"com.example/x":{{{ODD}}},{before}"trace\u0070arent":"00-1"{after},"progressToken":{token}}}"#)
}

/// A result as an upstream of that era gives it.
fn given(upstream: &str) -> String {
    let kind = if upstream == "modern" { r#","resultType":"complete""# } else { "" };
    let block = format!(r#"{{"type":"hologram",{ODD},"_meta":{{"dev.bailiwick/x":1,"k":1.0}}}}"#);
    format!(
        r#"{{"zz":{{{ODD}}},"content":[{block}],"structuredContent":{{"_meta":{{"dev.bailiwick/x":1.0}}}},"_meta":{{"dev.bailiwick/reason":"x","com.example/y":{{{ODD}}}}}{kind},"\u006fther":[ 1 ]}}"#
    )
}

/// The same as a client of that era gets it.
fn told(method: &str, client: &str, upstream: &str) -> String {
    let ours = [r#""dev.bailiwick/x":1,"#, r#""dev.bailiwick/reason":"x","#];
    let plain = ours.iter().fold(given(upstream), |result, own| result.replace(own, ""));
    if client == "legacy" {
        return plain.replace(r#","resultType":"complete""#, "");
    }
    let from_legacy = upstream == "legacy";
    let plain = if from_legacy { plain.replacen('{', r#"{"resultType":"complete","#, 1) } else { plain };
    // What this era requires of what may be kept.
    if method == "resources/read" || (method == "x/odd" && from_legacy) {
        return format!(r#"{},"ttlMs":0,"cacheScope":"private"}}"#, plain.strip_suffix('}').unwrap());
    }
    plain
}

fn definitions(method: &str, name: &str) -> Option<(&'static str, String)> {
    let (member, key) = match method {
        "tools/list" => ("tools", format!(r#""name":"{name}","inputSchema":{{"type":"object","x":{{{ODD}}}}}"#)),
        "prompts/list" => ("prompts", format!(r#""name":"{name}","arguments":[{{"name":"n",{ODD}}}]"#)),
        "resources/list" => ("resources", format!(r#""uri":"test://a","name":"{name}","size":1e400"#)),
        "resources/templates/list" => {
            ("resourceTemplates", format!(r#""uriTemplate":"test://t/{{x}}","name":"{name}""#))
        }
        _ => return None,
    };
    Some((member, format!(r#"{{{ODD},{key},"_meta":{{"com.example/k":1.0}},"icons":[ ]}}"#)))
}

/// The lists of an upstream of that era.
fn listed(heard: &Heard, era: &str) -> Option<Said> {
    let (member, definition) = definitions(&heard.method, "t")?;
    let cached = if era == "modern" { r#""resultType":"complete","ttlMs":0,"cacheScope":"private","# } else { "" };
    Said::result(&format!(r#"{{{cached}"{member}":[{definition}]}}"#))
}

struct Test {
    upstream: Verbatim,
    gateway: Gateway,
    client: Client,
    /// Of a legacy client.
    session: Option<String>,
    capabilities: String,
}

/// A client in front of an upstream that lists one of each, and answers anything else as the script says.
async fn start(
    pairing: Pairing,
    capabilities: &str,
    script: impl Fn(&Heard) -> Option<Said> + Send + Sync + 'static,
) -> Test {
    let (_, (era, _)) = pairing;
    let upstream = Verbatim::start(era, move |heard| listed(heard, era).or_else(|| script(heard))).await;
    start_with(pairing, capabilities, upstream).await
}

async fn start_with((client_era, (_, transport)): Pairing, capabilities: &str, upstream: Verbatim) -> Test {
    let issuer = Issuer::start().await;
    let more = ["role:developer", "agent:assistant"].map(|who| {
        let rows = ["*/*, complete", "*/*, method:x/odd", "*/**, subscribe"];
        rows.map(|row| format!("p, {who}, *, {row}, -, allow\n")).concat()
    });
    let policy = may_ask(&["elicit", "sample", "roots"]) + more.concat().as_str();
    let gateway = upstream.served(Setup::new(&issuer).policy(&policy), transport).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let capabilities = capabilities.to_owned();
    let mut test = Test { upstream, gateway, client, session: None, capabilities };
    if client_era == "legacy" {
        let params = format!(
            r#"{{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{{"name":"odd","version":"1",{ODD}}}}}"#,
            test.capabilities
        );
        let body = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{params}}}"#);
        let answer = test.client.post(&[], body).await;
        test.session = Some(answer.header("mcp-session-id").to_owned());
    }
    // What was not listed yet does not exist.
    crate::support::eventually("the upstream's lists", async || {
        test.ask("prompts/list", "", "{}").await.concat().contains("up__t")
    })
    .await;
    test
}

impl Test {
    fn headers(&self, method: &str, name: &str) -> Vec<(&'static str, String)> {
        match &self.session {
            Some(session) => vec![("mcp-session-id", session.clone())],
            None => {
                let mut headers =
                    vec![("mcp-protocol-version", "2026-07-28".to_owned()), ("mcp-method", method.to_owned())];
                headers.extend((!name.is_empty()).then(|| ("mcp-name", name.to_owned())));
                headers
            }
        }
    }

    /// Every message that comes back, as it came.
    async fn ask(&self, method: &str, name: &str, params: &str) -> Vec<String> {
        let bare = format!(r#"{{"_meta":{{{VERSION},"{CAPABILITIES}":{{}}}}}}"#);
        let params = if params == "{}" && self.session.is_none() { &bare } else { params };
        let body = format!(r#"{{"jsonrpc":"2.0","id":{ID},"method":"{method}","params":{params}}}"#);
        self.client.texts(&self.headers(method, name), body).await
    }

    fn era(&self) -> &'static str {
        if self.session.is_some() { "legacy" } else { "modern" }
    }

    fn name(method: &str) -> &'static str {
        match method {
            "tools/call" | "prompts/get" => "up__t",
            "resources/read" => "test://a",
            _ => "",
        }
    }

    /// One request of a method with odd members everywhere.
    async fn odd(&self, method: &str) -> Vec<String> {
        let params = params(method, "up__t", &sent(self.era(), &self.capabilities));
        self.ask(method, Self::name(method), &params).await
    }
}

fn odd_capabilities() -> String {
    format!(r#"{{"com.example/c":{{{ODD}}}}}"#)
}

#[tokio::test]
async fn requests_and_results_keep_their_bytes_in_every_pairing() {
    crate::needs_python!();
    for pairing in pairings() {
        let (client, (upstream, _)) = pairing;
        let test = start(pairing, &odd_capabilities(), move |_| Said::result(&given(upstream))).await;
        for method in METHODS {
            let answer = test.odd(method).await;
            let heard = test.upstream.heard(method);
            assert_eq!(heard.len(), 1, "{pairing:?} {method}: {answer:?}\n{}", test.gateway.log());
            // The gateway follows tasks for clients that do not know them.
            let tasks = r#","extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
            let capabilities = match client {
                "legacy" => test.capabilities.strip_suffix('}').unwrap().to_owned() + tasks,
                _ => test.capabilities.clone(),
            };
            let meta = forwarded(client, upstream, &capabilities, &heard[0].token);
            assert_eq!(heard[0].params, params(method, "t", &meta), "{pairing:?} {method}");
            let expected = format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{}}}"#, told(method, client, upstream));
            assert_eq!(answer.last().unwrap(), &expected, "{pairing:?} {method}");
        }
    }
}

#[tokio::test]
async fn errors_keep_their_bytes_in_every_pairing() {
    crate::needs_python!();
    let error = format!(r#"{{"code":-31999,"message":"m\u00e9","data":{{{ODD}}},"extra":[ 1 ]}}"#);
    for pairing in pairings() {
        let said = format!("\"error\":{error}");
        let test = start(pairing, "{}", move |_| Some(Said { answer: said.clone(), ..Said::default() })).await;
        for method in METHODS {
            let answer = test.odd(method).await;
            let expected = format!(r#"{{"jsonrpc":"2.0","id":{ID},"error":{error}}}"#);
            assert_eq!(answer.last().unwrap(), &expected, "{pairing:?} {method}");
        }
    }
}

#[tokio::test]
async fn definitions_keep_their_bytes_in_every_pairing() {
    crate::needs_python!();
    for pairing in pairings() {
        let test = start(pairing, "{}", |_| None).await;
        for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
            let name = if method.starts_with("resources") { "t" } else { "up__t" };
            let (member, definition) = definitions(method, name).unwrap();
            let answer = test.ask(method, "", "{}").await;
            let kind = if test.era() == "modern" { r#""resultType":"complete","# } else { "" };
            let expected = format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{{{kind}"{member}":[{definition}]"#);
            assert!(answer.last().unwrap().starts_with(&expected), "{pairing:?} {method}: {answer:?}\n{expected}");
        }
    }
}

#[tokio::test]
async fn notifications_of_a_call_keep_their_bytes_in_every_pairing() {
    crate::needs_python!();
    let progress = |token: &str, own: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{{ODD},"progressToken":{token},"progress":0.10,"total":1e400,"_meta":{{{own}"k":1.0}}}}}}"#
        )
    };
    let log = format!(
        r#"{{"x":{{{ODD}}},"method":"notifications/message","jsonrpc":"2.0","params":{{"level":"error","data":{{{ODD}}},"logger":"l\u00e9"}}}}"#
    );
    let before = vec![progress("TOKEN", r#""dev.bailiwick/x":1,"#), log.clone()];
    for pairing in pairings() {
        let (client, (upstream, _)) = pairing;
        let before = before.clone();
        let test = start(pairing, "{}", move |_| {
            Some(Said { before: before.clone(), waits: false, ..Said::result(&given(upstream))? })
        })
        .await;
        if client == "legacy" {
            test.ask("logging/setLevel", "", r#"{"level":"debug"}"#).await;
        }
        let answer = test.odd("tools/call").await;
        let result = format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{}}}"#, told("tools/call", client, upstream));
        assert_eq!(answer, [progress("\"mine\"", ""), log.clone(), result], "{pairing:?}");
    }
}

/// The parameters of a form, as a server asks and as a client is asked.
fn form(message: &str, own: &str) -> String {
    format!(r#"{{{ODD},"message":"{message}","requestedSchema":{{{ODD},"type":"object","properties":{{}}}}{own}}}"#)
}

#[tokio::test]
async fn questions_and_their_answers_keep_their_bytes_in_every_pairing() {
    crate::needs_python!();
    let answer = format!(r#"{{{ODD},"action":"accept","content":{{{ODD}}}}}"#);
    let question = form("[up] Name\u{e9}?", r#","_meta":{"dev.bailiwick/server":"up"}"#);
    for pairing in pairings() {
        let (client, (upstream, _)) = pairing;
        let test = start(pairing, r#"{"elicitation":{}}"#, move |heard| asked(heard, upstream)).await;
        for method in ["tools/call", "prompts/get", "resources/read"] {
            let asking = params(method, "up__t", &sent(client, &test.capabilities));
            let last = if client == "modern" {
                let asked = test.ask(method, Test::name(method), &asking).await.concat();
                let shown = format!(r#""method":"elicitation/create","params":{question}"#);
                assert!(asked.contains(&shown), "{pairing:?} {method}: {asked}\n{shown}");
                let member = |name: &str| {
                    let rest =
                        asked.split_once(&format!(r#""{name}":"#)).unwrap_or_else(|| panic!("{name} in {asked}")).1;
                    rest.trim_start_matches('{').split('"').nth(1).unwrap().to_owned()
                };
                let (key, state) = (member("inputRequests"), member("requestState"));
                let again = format!(
                    r#"{},"inputResponses":{{"{key}":{answer}}},"requestState":"{state}"}}"#,
                    asking.strip_suffix('}').unwrap()
                );
                test.ask(method, Test::name(method), &again).await.pop().unwrap()
            } else {
                let body = format!(r#"{{"jsonrpc":"2.0","id":{ID},"method":"{method}","params":{asking}}}"#);
                let mut stream = test.client.stream(&test.headers("", ""), Some(body)).await;
                let asked = stream.text().await;
                let head = r#"{"jsonrpc":"2.0","id":"#;
                let number = asked.strip_prefix(head).unwrap().split(',').next().unwrap().to_owned();
                assert_eq!(asked, format!(r#"{head}{number},"method":"elicitation/create","params":{question}}}"#));
                test.client.texts(&test.headers("", ""), format!("{head}{number},\"result\":{answer}}}")).await;
                stream.text().await
            };
            let expected = format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{}}}"#, told(method, client, upstream));
            assert_eq!(last, expected, "{pairing:?} {method}");
            if upstream == "modern" {
                let retry = &test.upstream.heard(method)[1].params;
                assert!(
                    retry.contains(&format!(r#""inputResponses":{{"q":{answer}}}"#)),
                    "{pairing:?} {method}: {retry}"
                );
                assert!(retry.contains("\"requestState\":\"inner\u{e9}\""), "{pairing:?} {method}: {retry}");
            } else {
                let heard = test.upstream.heard("");
                let expected = format!(r#"{{"jsonrpc":"2.0","id":"q\u0031","result":{answer}}}"#);
                assert_eq!(heard.last().unwrap().whole.trim_end(), expected, "{pairing:?} {method}");
            }
        }
    }
}

/// An upstream that asks a form in the middle of a call.
fn asked(heard: &Heard, era: &str) -> Option<Said> {
    let asks = form("Name\u{e9}?", "");
    if era == "legacy" {
        let request = format!(r#"{{"jsonrpc":"2.0","id":"q\u0031","method":"elicitation/create","params":{asks}}}"#);
        return Some(Said { before: vec![request], waits: true, ..Said::result(&given(era))? });
    }
    if heard.params.contains("inputResponses") {
        return Said::result(&given(era));
    }
    Said::result(&format!(
        r#"{{"resultType":"input_required","inputRequests":{{"q":{{"method":"elicitation/create","params":{asks}}}}},"requestState":"inner\u00e9"}}"#
    ))
}

#[tokio::test]
async fn an_update_of_a_resource_keeps_its_bytes_for_clients_of_both_eras() {
    crate::needs_python!();
    let update = |own: &str| {
        let head = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"#;
        format!(r#"{head}{ODD},"uri":"test://a","_meta":{{"k":1.0{own}}}}}}}"#)
    };
    let tag = r#","io.modelcontextprotocol/subscriptionId":ID"#;
    let agreed = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{"resourceSubscriptions":["test://a"]}},"_meta":{{"x":1{tag}}}}}}}"#
    );
    for (client, tagged) in
        [("modern", format!(r#","io.modelcontextprotocol/subscriptionId":{ID}"#)), ("legacy", String::new())]
    {
        let before = vec![agreed.clone(), update(tag)];
        let test = start((client, ("modern", "http")), "{}", move |heard| {
            let listens = heard.method == "subscriptions/listen" && heard.params.contains("test://a");
            listens.then(|| Said { before: before.clone(), waits: true, ..Said::default() })
        })
        .await;
        let mut stream = if client == "modern" {
            let params = format!(
                r#"{{"notifications":{{"resourceSubscriptions":["test://a"]}},"_meta":{{{VERSION},"{CAPABILITIES}":{{}}}}}}"#
            );
            let body = format!(r#"{{"jsonrpc":"2.0","id":{ID},"method":"subscriptions/listen","params":{params}}}"#);
            let mut stream = test.client.stream(&test.headers("subscriptions/listen", ""), Some(body)).await;
            assert!(stream.text().await.contains("acknowledged"));
            stream
        } else {
            let stream = test.client.stream(&test.headers("", ""), None).await;
            test.ask("resources/subscribe", "", r#"{"uri":"test://a"}"#).await;
            stream
        };
        assert_eq!(stream.text().await, update(&tagged), "{client}");
    }
}

/// A task of the extension under an id.
fn task(id: &str, kind: &str, more: &str) -> String {
    format!(
        r#"{{"zz":{{{ODD}}},"resultType":"{kind}","taskId":"{id}",{more},"createdAt":"2026-11-24T10:00:00Z","ttlMs":null,"\u006fther":[ 1 ]}}"#
    )
}

#[tokio::test]
async fn tasks_and_requests_about_them_keep_their_bytes_but_for_the_id() {
    let extension = r#""extensions":{"io.modelcontextprotocol/tasks":{}}"#;
    let working = r#""status":"working""#;
    let completed = format!(r#""status":"completed","result":{{{ODD},"content":[]}}"#);
    for transport in ["http", "stdio"] {
        let done = completed.clone();
        let introduction = format!(r#""capabilities":{{"tools":{{}},"prompts":{{}},{extension}}}"#);
        let upstream = Verbatim::introducing("modern", &introduction, move |heard| {
            listed(heard, "modern").or_else(|| match heard.method.as_str() {
                "tools/call" => Said::result(&task("inner", "task", working)),
                "tasks/get" => Said::result(&task("inner", "complete", &done)),
                "tasks/update" | "tasks/cancel" => Said::result(&format!(r#"{{"resultType":"complete",{ODD}}}"#)),
                _ => None,
            })
        })
        .await;
        let test = start_with(("modern", ("modern", transport)), &format!("{{{extension}}}"), upstream).await;
        let created = test.odd("tools/call").await.pop().unwrap();
        let id =
            created.split_once(r#""taskId":""#).unwrap_or_else(|| panic!("{created}")).1.split('"').next().unwrap();
        let answer = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{result}}}"#);
        assert_eq!(created, answer(&task(id, "task", working)), "{transport}");
        let answers = format!(r#""inputResponses":{{"q":{{{ODD}}}}}"#);
        for (method, more, result) in [
            ("tasks/get", "", task(id, "complete", &completed)),
            ("tasks/update", answers.as_str(), format!(r#"{{"resultType":"complete",{ODD}}}"#)),
            ("tasks/cancel", "", format!(r#"{{"resultType":"complete",{ODD}}}"#)),
        ] {
            let more = if more.is_empty() { String::new() } else { format!(",{more}") };
            let about = |id: &str| format!(r#"{{"zz":{{{ODD}}},"taskId":"{id}"{more},"_meta":"#);
            let meta = sent("modern", &test.capabilities);
            let said = test.ask(method, id, &format!("{}{meta}}}", about(id))).await.pop().unwrap();
            assert_eq!(said, answer(&result), "{transport} {method}");
            let heard = &test.upstream.heard(method)[0].params;
            // A brake takes nothing of its client's along.
            let expected =
                if method == "tasks/cancel" { r#"{"taskId":"inner","_meta":"#.to_owned() } else { about("inner") };
            assert!(heard.starts_with(&expected), "{transport} {method}: {heard}");
        }
    }
}
