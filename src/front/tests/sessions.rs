//! What a legacy client does in its session beside its calls: it is asked, cancels, subscribes and follows tasks.

use std::task::Poll;

use super::*;
use crate::call::Endpoint;
use crate::front::pipeline::Pipeline as _;
use crate::outcome::{Origin, Resume};

fn done(result: &Value) -> Event {
    Event::Done(Outcome::Complete(Json::of(result)))
}

fn asks() -> Event {
    let result = Json::of(&json!({ "resultType": "input_required", "requestState": "s",
        "inputRequests": { "a": { "method": "sampling/createMessage", "params": {} } } }));
    let resume = Resume { parked: None, within: Duration::from_secs(60) };
    Event::Done(Outcome::InputRequired { origin: Origin::Upstream, result, resume })
}

fn call(id: u32, more: &Value) -> Value {
    let mut params = json!({ "name": "add", "arguments": {} });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

fn cancel(id: u32) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id, "reason": "enough" } })
}

async fn open(front: &Arc<Front<Scripted>>, session: &str) -> (StatusCode, Option<mpsc::UnboundedSender<Watched>>) {
    let (say, heard) = mpsc::unbounded_channel();
    *front.pipeline.watched.lock().unwrap() = Some(heard);
    let headers = [("authorization", "Bearer ann"), ("mcp-session-id", session), ("accept", "text/event-stream")];
    let response = send(front, "GET", "/mcp", &headers, "").await;
    (response.status(), Some(say))
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_answers_or_somebody_refuses_is_a_refusal_on_the_record() {
    let front = front(Scripted::new([asks()]));
    let (session, _) = session(&front, "ann", "2025-06-18").await;
    let unanswered = post_legacy(&front, "ann", Some(&session), call(7, &json!({}))).await;
    assert!(text(unanswered).await.contains("input_expired"));
    let told = |reason: Reason| ("ann".to_owned(), reason);
    assert_eq!(*front.pipeline.declined.lock().unwrap(), [told(Reason::InputExpired)]);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let given_up = front.pipeline.given_up.lock().unwrap().pop().unwrap();
    assert_eq!(given_up.message.params().unwrap().get("requestState").unwrap().raw(), "\"s\"");

    *front.pipeline.events.lock().unwrap() = [asks()].into();
    let mut asked = post_legacy(&front, "ann", Some(&session), call(8, &json!({}))).await.into_body();
    let question = loop {
        let frame = asked.frame().await.unwrap().unwrap().into_data().unwrap();
        if let Some(question) = events(std::str::from_utf8(&frame).unwrap()).pop() {
            break question;
        }
    };
    let declined = json!({ "jsonrpc": "2.0", "id": question["id"], "error": { "code": -1, "message": "no" } });
    assert_eq!(post_legacy(&front, "ann", Some(&session), declined).await.status(), 202);
    let end = asked.collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&end).contains("input_declined"));
    assert_eq!(*front.pipeline.declined.lock().unwrap(), [told(Reason::InputExpired), told(Reason::InputDeclined)]);
}

#[tokio::test]
async fn who_is_asked_too_much_at_once_is_refused_on_the_record() {
    let front = front(Scripted::new([]));
    let (session, _) = session(&front, "ann", "2025-06-18").await;
    let mut open = Vec::new();
    for id in 0..u32::try_from(limit::PARKED_PER_PRINCIPAL_MAX).unwrap() {
        *front.pipeline.events.lock().unwrap() = [asks()].into();
        open.push(post_legacy(&front, "ann", Some(&session), call(id + 1, &json!({}))).await);
    }
    assert!(front.pipeline.declined.lock().unwrap().is_empty());
    *front.pipeline.events.lock().unwrap() = [asks()].into();
    let refused = post_legacy(&front, "ann", Some(&session), call(100, &json!({}))).await;
    assert!(text(refused).await.contains("input_limited"));
    assert_eq!(*front.pipeline.declined.lock().unwrap(), [("ann".to_owned(), Reason::InputLimited)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_before_it_was_decided_is_on_the_record_and_one_under_way_is_there_already() {
    for (undecided, on_record) in [(true, vec![("ann".to_owned(), Reason::Cancelled)]), (false, vec![])] {
        let front = front(Scripted { undecided, hang: true, ..Scripted::new([]) });
        let (session, _) = session(&front, "ann", "2025-06-18").await;
        let calling = {
            let (front, session) = (Arc::clone(&front), session.clone());
            tokio::spawn(async move { post_legacy(&front, "ann", Some(&session), call(7, &json!({}))).await })
        };
        while front.pipeline.seen.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        // Whoever has decided it has said so by then.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(post_legacy(&front, "ann", Some(&session), cancel(7)).await.status(), 202);
        assert!(text(calling.await.unwrap()).await.contains("cancelled"));
        assert_eq!(*front.pipeline.declined.lock().unwrap(), on_record, "{undecided}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_subscriptions_were_forgotten_is_over_and_one_that_has_none_left_goes_on() {
    let front = front(Scripted::new([]));
    let ping = || json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    let about = |method: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "uri": "x:1" } });
    let mut sessions = Vec::new();
    let mut watches = Vec::new();
    for unsubscribes in [false, true] {
        let (session, _) = session(&front, "ann", "2025-06-18").await;
        watches.push(open(&front, &session).await.1);
        assert_eq!(post_legacy(&front, "ann", Some(&session), about("resources/subscribe")).await.status(), 200);
        if unsubscribes {
            assert_eq!(post_legacy(&front, "ann", Some(&session), about("resources/unsubscribe")).await.status(), 200);
        }
        sessions.push(session);
    }
    // Nobody reads.
    tokio::time::sleep(limit::MAILBOX_UNREAD_MAX).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for session in &sessions {
        assert_eq!(post_legacy(&front, "ann", Some(session), ping()).await.status(), 200, "it may come back");
    }
    tokio::time::sleep(limit::TRACK_IDLE_MAX).await;
    let statuses = async |session: &str| {
        let posted = post_legacy(&front, "ann", Some(session), ping()).await.status().as_u16();
        (posted, open(&front, session).await.0.as_u16())
    };
    assert_eq!(statuses(&sessions[0]).await, (404, 404));
    assert_eq!(statuses(&sessions[1]).await, (200, 200));
}

#[tokio::test(start_paused = true)]
async fn what_is_subscribed_to_while_everything_else_is_given_up_is_not_forgotten_in_silence() {
    let front = front(Scripted::new([]));
    let about = |method: &str, uri: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": format!("resources/{method}"), "params": { "uri": uri } });
    let (session, _) = session(&front, "ann", "2025-06-18").await;
    let (_, _watch) = open(&front, &session).await;
    assert_eq!(post_legacy(&front, "ann", Some(&session), about("subscribe", "x:1")).await.status(), 200);
    let principal = Scripted::principal(&"ann".to_owned());
    let key = front.sessions.open(principal, &Endpoint::Merged, &session, None).unwrap().key;
    // Whoever hears for the session has much to do.
    let mailbox = front.mailboxes.find(key).unwrap();
    (0..limit::SESSION_CALLS_MAX).for_each(|number| mailbox.follow_task(number.to_string()));
    let mut unsubscribing = Box::pin(post_legacy(&front, "ann", Some(&session), about("unsubscribe", "x:1")));
    std::future::poll_fn(|context| {
        assert!(unsubscribing.as_mut().poll(context).is_pending(), "its order waits");
        Poll::Ready(())
    })
    .await;
    assert_eq!(post_legacy(&front, "ann", Some(&session), about("subscribe", "x:2")).await.status(), 200);
    assert_eq!(unsubscribing.await.status(), 200);
    drop(mailbox);
    tokio::time::sleep(limit::MAILBOX_UNREAD_MAX + limit::TRACK_IDLE_MAX + Duration::from_secs(2)).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    assert_eq!(post_legacy(&front, "ann", Some(&session), ping).await.status(), 404, "it is told to begin anew");
}

#[tokio::test]
async fn a_session_hears_of_tasks_that_its_client_asked_for_and_of_no_others() {
    let front = front(Scripted::new([]));
    let (session, _) = session(&front, "ann", "2025-11-25").await;
    let (_, _watch) = open(&front, &session).await;
    for (id, task) in [(1, json!({})), (2, json!({ "task": {} }))] {
        let event = done(&json!({ "task": { "taskId": format!("t{id}"), "status": "working" } }));
        *front.pipeline.events.lock().unwrap() = [event].into();
        assert_eq!(post_legacy(&front, "ann", Some(&session), call(id, &task)).await.status(), 200);
    }
    let followed = || front.pipeline.followed.lock().unwrap().clone();
    while followed().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(followed(), ["t2"]);
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
    assert_eq!(post_legacy(&front, "ann", Some(&session), changed).await.status(), 202);
    while front.pipeline.roots.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*front.pipeline.roots.lock().unwrap(), ["ann"]);
}

#[tokio::test]
async fn a_session_of_another_replica_has_the_log_level_that_is_handed_on_and_nobody_else_can_say_one() {
    let sealer = || Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap());
    let (here, there) = (ReplicaId::new(), ReplicaId::new());
    let home = Front::new(Arc::new(Scripted::new([])), sealer(), here);
    let (session, _) = session(&home, "ann", "2025-06-18").await;
    let other = Front::new(Arc::new(Scripted::new([])), sealer(), there);
    let (by, level) = (here.to_string(), ("bailiwick-relayed-level", "debug"));
    let relayed = [("bailiwick-relayed-by", by.as_str()), ("bailiwick-relayed-for", "10.0.0.1")];
    let seen =
        |front: &Arc<Front<Scripted>>| front.pipeline.seen.lock().unwrap().last().unwrap().client.log_level.clone();
    for (more, wanted) in [(&[level][..], Some("\"debug\"")), (&[][..], None)] {
        let mut request = Request::post("/mcp").header("host", "127.0.0.1:8080");
        let own = [("authorization", "Bearer ann"), ("mcp-session-id", session.as_str())];
        for (name, value) in own.iter().chain(&relayed).chain(more) {
            request = request.header(*name, *value);
        }
        let body = Body::from(call(1, &json!({})).to_string());
        assert_eq!(other.answer_replica(request.body(body).unwrap()).await.status(), 200);
        assert_eq!(seen(&other).as_ref().map(Json::as_str), wanted);
    }
    let headers = [("authorization", "Bearer ann"), ("mcp-session-id", session.as_str()), level];
    assert_eq!(send(&home, "POST", "/mcp", &headers, call(1, &json!({})).to_string()).await.status(), 200);
    assert_eq!(seen(&home), None);
}
