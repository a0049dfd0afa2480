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
/// Who answers, in the words of a server.
const THEIRS: &str = r#""io.modelcontextprotocol/serverInfo":{"version":"1.0","name":"their\u0073"}"#;

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
        r#"{{"zz":{{{ODD}}},"content":[{block}],"structuredContent":{{"_meta":{{"dev.bailiwick/x":1.0}}}},"_meta":{{"dev.bailiwick/reason":"x",{THEIRS},"com.example/y":{{{ODD}}}}}{kind},"\u006fther":[ 1 ]}}"#
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
    let hosts = "elicit_url_hosts = [\"accounts.example.com\"]\n";
    let gateway = upstream.served_as(Setup::new(&issuer).policy(&policy), "up", transport, hosts).start().await;
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

/// Everything that can be asked besides a form: its name where a modern server asks and where a legacy one does, its method,
/// its parameters as a server sends them and as a client gets them, and the answer.
struct Question {
    names: [&'static str; 2],
    method: &'static str,
    asked: String,
    shown: String,
    answer: String,
}

/// A page, a model with tools that is to report how far it is, and the roots.
fn all_questions() -> [Question; 3] {
    let told = |own: &str| format!(r#""_meta":{{"dev.bailiwick/x":1,"com.example/k":1.0{own}}}"#);
    let seen = |own: &str| format!(r#""_meta":{{"com.example/k":1.0{own},"dev.bailiwick/server":"up"}}"#);
    let page = |message: &str, own: &str| {
        let url = r#""url":"https://accounts.example.com/grant?x=\u0031""#;
        format!(r#"{{{ODD},"mode":"url","message":"{message}","elicitationId":"e\u0031",{url},{own}}}"#)
    };
    let model = |own: &str| {
        let message = format!(r#"{{"role":"user","content":{{"type":"hologram",{ODD}}}}}"#);
        let tool = format!(r#"{{{ODD},"name":"t","inputSchema":{{"type":"object","x":1.0}}}}"#);
        format!(r#"{{{ODD},"messages":[{message}],"maxTokens":5,"tools":[{tool}],{own}}}"#)
    };
    let roots = |own: &str| format!("{{{ODD},{own}}}");
    let own = r#""_meta":{"com.example/a":1.0}"#;
    [
        Question {
            names: ["page", "elicitation"],
            method: "elicitation/create",
            asked: page("Sign \u{e9}", &told("")),
            shown: page("[up] Sign \u{e9}", &seen("")),
            answer: format!(r#"{{{ODD},"action":"accept",{own}}}"#),
        },
        Question {
            names: ["model", "sampling"],
            method: "sampling/createMessage",
            asked: model(&told(r#","progressToken":"far\u0031""#)),
            shown: model(&seen("PROGRESS")),
            answer: format!(
                r#"{{"model":"m\u00e9",{ODD},"role":"assistant","content":{{"type":"text","text":"x",{ODD}}},{own}}}"#
            ),
        },
        Question {
            names: ["roots", "roots"],
            method: "roots/list",
            asked: roots(&told("")),
            shown: roots(&seen("")),
            answer: format!(r#"{{"roots":[{{"uri":"file:///\u00e9",{ODD}}}],{ODD},{own}}}"#),
        },
    ]
}

/// An upstream that asks everything at once in the middle of a call.
fn asked_all(heard: &Heard, era: &str) -> Option<Said> {
    if era == "legacy" {
        let request = |(number, Question { method, asked, .. }): (usize, Question)| {
            format!(r#"{{"jsonrpc":"2.0","id":"q\u003{number}","method":"{method}","params":{asked}}}"#)
        };
        let before = all_questions().into_iter().enumerate().map(request).collect();
        return Some(Said { before, waits: true, ..Said::result(&given(era))? });
    }
    if heard.params.contains("inputResponses") {
        return Said::result(&given(era));
    }
    let request = |Question { names: [name, _], method, asked, .. }| {
        format!(r#""{name}":{{"zz":1.0,"method":"{method}","params":{asked}}}"#)
    };
    let requests = all_questions().map(request).join(",");
    Said::result(&format!(
        r#"{{"resultType":"input_required","inputRequests":{{{requests}}},"requestState":"inner\u00e9"}}"#
    ))
}

#[tokio::test]
async fn pages_models_and_roots_are_asked_for_at_once_and_answered_to_the_byte_in_every_pairing() {
    crate::needs_python!();
    let declared = r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{}}"#;
    let progress = |token: &str, own: &str| {
        format!(
            r#"{{{ODD},"progressToken":{token},"progress":0.10,"total":1e400,"message":"h\u0061lf","_meta":{{{own}"k":1.0}}}}"#
        )
    };
    for pairing in pairings() {
        let (client, (upstream, _)) = pairing;
        let test = start(pairing, declared, move |heard| asked_all(heard, upstream)).await;
        let asking = params("tools/call", "up__t", &sent(client, declared));
        let name = |question: &Question| question.names[usize::from(upstream == "legacy")];
        let answers = all_questions().map(|question| format!(r#""{}":{}"#, name(&question), question.answer)).join(",");
        let last = if client == "modern" {
            let asked = test.ask("tools/call", "up__t", &asking).await.concat();
            let odd = if upstream == "modern" { r#""zz":1.0,"# } else { "" };
            let shown = all_questions().map(|question| {
                let (method, shown) = (question.method, question.shown.replace("PROGRESS", ""));
                format!(r#""{}":{{{odd}"method":"{method}","params":{shown}}}"#, name(&question))
            });
            let shown = format!(r#""inputRequests":{{{}}}"#, shown.join(","));
            assert!(asked.contains(&shown), "{pairing:?}: {asked}\n{shown}");
            let state = asked.split_once(r#""requestState":""#).unwrap().1.split('"').next().unwrap();
            let again = format!(
                r#"{},"inputResponses":{{{answers}}},"requestState":"{state}"}}"#,
                asking.strip_suffix('}').unwrap()
            );
            test.ask("tools/call", "up__t", &again).await.pop().unwrap()
        } else {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{ID},"method":"tools/call","params":{asking}}}"#);
            let mut stream = test.client.stream(&test.headers("", ""), Some(body)).await;
            let head = r#"{"jsonrpc":"2.0","id":"#;
            let mut numbers = Vec::new();
            for question in all_questions() {
                let asked = stream.text().await;
                let number = asked.strip_prefix(head).unwrap().split(',').next().unwrap().to_owned();
                // Only a legacy server that waits can hear how far its client is.
                let token = if upstream == "legacy" { format!(r#","progressToken":{number}"#) } else { String::new() };
                let (method, shown) = (question.method, question.shown.replace("PROGRESS", &token));
                assert_eq!(
                    asked,
                    format!(r#"{head}{number},"method":"{method}","params":{shown}}}"#),
                    "{pairing:?} {method}"
                );
                numbers.push(number);
            }
            for number in &numbers {
                // Of the questions only one has asked for it.
                let told = progress(number, r#""dev.bailiwick/x":1,"#);
                let told = format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{told}}}"#);
                assert_eq!(test.client.post(&test.headers("", ""), told).await.status, 202, "{pairing:?}");
            }
            for (number, question) in numbers.iter().zip(all_questions()) {
                let said = format!("{head}{number},\"result\":{}}}", question.answer);
                test.client.texts(&test.headers("", ""), said).await;
            }
            stream.text().await
        };
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{}}}"#, told("tools/call", client, upstream));
        assert_eq!(last, expected, "{pairing:?}");
        if upstream == "modern" {
            let retry = &test.upstream.heard("tools/call")[1].params;
            assert!(retry.contains(&format!(r#""inputResponses":{{{answers}}}"#)), "{pairing:?}: {retry}");
        } else {
            // Of a process the last ones may be on their way still.
            let heard = async || test.upstream.heard("").len() == 3;
            crate::support::eventually("all answers", heard).await;
            let mut heard: Vec<_> = test.upstream.heard("").into_iter().map(|answer| answer.whole).collect();
            heard.sort_unstable();
            for (number, question) in all_questions().into_iter().enumerate() {
                let expected = format!(r#"{{"jsonrpc":"2.0","id":"q\u003{number}","result":{}}}"#, question.answer);
                assert_eq!(heard[number].trim_end(), expected, "{pairing:?}");
            }
        }
        let reported = test.upstream.heard("notifications/progress");
        let reported: Vec<_> = reported.iter().map(|told| told.params.as_str()).collect();
        let both_legacy = client == "legacy" && upstream == "legacy";
        // Numbers as they were written, and none of the words beside them.
        let expected = both_legacy.then(|| r#"{"progressToken":"far\u0031","progress":0.10,"total":1e400}"#.to_owned());
        assert_eq!(reported, expected.iter().map(String::as_str).collect::<Vec<_>>(), "{pairing:?}");
    }
}

#[tokio::test]
async fn an_update_of_a_resource_keeps_its_bytes_in_every_pairing() {
    crate::needs_python!();
    let update = |own: &str| {
        let head = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"#;
        format!(r#"{head}{ODD},"uri":"test://a","_meta":{{"k":1.0{own}}}}}}}"#)
    };
    let tag = r#","io.modelcontextprotocol/subscriptionId":ID"#;
    let agreed = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{"resourceSubscriptions":["test://a"]}},"_meta":{{"x":1{tag}}}}}}}"#
    );
    for pairing in pairings() {
        let (client, (upstream, _)) = pairing;
        let (listened, plain) = (vec![agreed.clone(), update(tag)], vec![update("")]);
        let test = start(pairing, "{}", move |heard| match heard.method.as_str() {
            "subscriptions/listen" if heard.params.contains("test://a") => {
                Some(Said { before: listened.clone(), waits: true, ..Said::default() })
            }
            "resources/subscribe" => Said::result("{}"),
            // A legacy server tells it on whichever stream there is.
            "tools/call" => Some(Said { before: plain.clone(), ..Said::result(&given(upstream))? }),
            _ => None,
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
        if upstream == "legacy" {
            test.odd("tools/call").await;
        }
        let tagged = if client == "modern" { tag.replace("ID", ID) } else { String::new() };
        let told = loop {
            let told = stream.text().await;
            // A list may be there only now.
            if !told.contains("list_changed") {
                break told;
            }
        };
        assert_eq!(told, update(&tagged), "{pairing:?}");
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
    let tag = r#","io.modelcontextprotocol/subscriptionId":ID"#;
    let agreed = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{"taskIds":["inner"]}},"_meta":{{"x":1{tag}}}}}}}"#
    );
    let told = |id: &str, tag: &str| {
        let state = format!(r#""taskId":"{id}","status":"working","ttlMs":null,"_meta":{{"k":1.0{tag}}}"#);
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tasks","params":{{"zz":{{{ODD}}},{state},"\u006fther":[ 1 ]}}}}"#
        )
    };
    for transport in ["http", "stdio"] {
        let done = completed.clone();
        let introduction = format!(r#""capabilities":{{"tools":{{}},"prompts":{{}},{extension}}}"#);
        let listened = vec![agreed.clone(), told("inner", tag)];
        let upstream = Verbatim::introducing("modern", &introduction, move |heard| {
            listed(heard, "modern").or_else(|| match heard.method.as_str() {
                "tools/call" => Said::result(&task("inner", "task", working)),
                "tasks/get" => Said::result(&task("inner", "complete", &done)),
                "tasks/update" | "tasks/cancel" => Said::result(&format!(r#"{{"resultType":"complete",{ODD}}}"#)),
                "subscriptions/listen" if heard.params.contains("taskIds") => {
                    Some(Said { before: listened.clone(), waits: true, ..Said::default() })
                }
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
        let meta = format!(r#""_meta":{{{VERSION},"{CAPABILITIES}":{}}}"#, test.capabilities);
        let wanted = format!(r#"{{"notifications":{{"taskIds":["{id}"]}},{meta}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":{ID},"method":"subscriptions/listen","params":{wanted}}}"#);
        let mut stream = test.client.stream(&test.headers("subscriptions/listen", ""), Some(body)).await;
        assert!(stream.text().await.contains("acknowledged"), "{transport}");
        assert_eq!(stream.text().await, told(id, &tag.replace("ID", ID)), "{transport}");
    }
}

/// A task of 2025-11-25 under an id.
fn experiment(id: &str) -> String {
    let dates = r#""createdAt":"2026-11-24T10:00:00Z","lastUpdatedAt":"2026-11-24T10:00:00Z""#;
    format!(r#"{{"zz":{{{ODD}}},"taskId":"{id}","status":"working",{dates},"ttl":null,"\u006fther":[ 1 ]}}"#)
}

#[tokio::test]
async fn tasks_of_2025_and_requests_about_them_keep_their_bytes_but_for_the_id() {
    crate::needs_python!();
    let created = |id: &str| format!(r#"{{"zz":{{{ODD}}},"task":{},"_meta":{{"k":1.0}}}}"#, experiment(id));
    let result = |id: &str| {
        let related = format!(r#""io.modelcontextprotocol/related-task":{{"x":[ 1 ],"taskId":"{id}"}}"#);
        format!(r#"{{{ODD},"content":[],"_meta":{{"k":1.0,{related}}}}}"#)
    };
    let told =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{}}}"#, experiment(id));
    let tasks = r#""tasks":{"cancel":{},"list":{},"requests":{"tools":{"call":{}}}}"#;
    let tool = r#"{"name":"t","inputSchema":{"type":"object"},"execution":{"taskSupport":"optional"}}"#;
    for transport in ["http", "stdio"] {
        let introduction = format!(r#""capabilities":{{"tools":{{}},"prompts":{{}},{tasks}}}"#);
        let upstream = Verbatim::introducing("legacy", &introduction, move |heard| match heard.method.as_str() {
            "tools/list" => Said::result(&format!(r#"{{"tools":[{tool}]}}"#)),
            "tools/call" => Said::result(&created("inner")),
            "tasks/get" | "tasks/cancel" => Said::result(&experiment("inner")),
            "tasks/result" => Some(Said { before: vec![told("inner")], ..Said::result(&result("inner"))? }),
            _ => listed(heard, "legacy"),
        })
        .await;
        let test = start_with(("legacy", ("legacy", transport)), "{}", upstream).await;
        crate::support::eventually("the tools", async || {
            test.ask("tools/list", "", "{}").await.concat().contains("up__t")
        })
        .await;
        let asked = params("tools/call", "up__t", &sent("legacy", "{}"));
        let asked = format!(r#"{},"task":{{"ttl":1e3,{ODD}}}}}"#, asked.strip_suffix('}').unwrap());
        let answer = test.ask("tools/call", "", &asked).await.pop().unwrap();
        let id = answer.split_once(r#""taskId":""#).unwrap_or_else(|| panic!("{answer}")).1;
        let id = id.split('"').next().unwrap();
        let answered = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{result}}}"#);
        assert_eq!(answer, answered(&created(id)), "{transport}");
        let heard = &test.upstream.heard("tools/call")[0].params;
        assert!(heard.contains(&format!(r#""task":{{"ttl":1e3,{ODD}}}"#)), "{transport}: {heard}");
        for (method, expected) in [
            ("tasks/get", vec![answered(&experiment(id))]),
            ("tasks/cancel", vec![answered(&experiment(id))]),
            ("tasks/result", vec![told(id), answered(&result(id))]),
        ] {
            let about = |id: &str| format!(r#"{{"zz":{{{ODD}}},"taskId":"{id}","_meta":"#);
            let meta = sent("legacy", "{}");
            let said = test.ask(method, "", &format!("{}{meta}}}", about(id))).await;
            assert_eq!(said, expected, "{transport} {method}");
            let heard = &test.upstream.heard(method)[0].params;
            // A brake takes nothing of its client's along.
            let expected = if method == "tasks/cancel" { r#"{"taskId":"inner"}"#.to_owned() } else { about("inner") };
            assert!(heard.starts_with(&expected), "{transport} {method}: {heard}");
        }
    }
}
