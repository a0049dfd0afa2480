//! The record of a gateway elsewhere: asked for at its administrators' listener, shown like one's own.
//!
//! Invariant: what comes is text of somebody else's; it is read as records and shown as those are, never as it came.

use std::collections::VecDeque;
use std::io::{self, Write};

use bytes::Buf as _;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::{LogsArguments, first_lines};
use crate::cli::Ending;
use crate::cli::call::safe;
use crate::cli::door::Remote;
use crate::cli::output::{Output, trouble};
use crate::control::client::{Answer, ClientError};
use crate::control::tail::LIVE;
use crate::limit;
use crate::record::filter::Filter;
use crate::record::join::Joiner;

/// Asks, and prints what comes until nothing does any more.
pub(super) async fn run(
    remote: &Remote,
    arguments: &LogsArguments,
    output: Output,
    out: &mut impl Write,
) -> io::Result<Ending> {
    let (look, select) = (arguments.look(output), arguments.select.at(jiff::Timestamp::now()));
    let count = first_lines(&select, arguments);
    // An intent is a line there, and none here before its end.
    let lines = count.saturating_mul(2).min(limit::ADMIN_LOG_LINES_MAX);
    let path = format!("/logs?{}", query(&select, lines, arguments.follow));
    let response = match remote.open(Method::GET, &path, None::<&()>).await {
        Ok(response) => response,
        Err(error) => return Err(io::Error::other(error)),
    };
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let read = Limited::new(body, limit::CONTROL_BODY_BYTES_MAX).collect().await;
        let body = read.map_err(|error| io::Error::other(error.to_string()))?.to_bytes();
        let refused: Result<(), ClientError> = Answer { status, body }.read();
        trouble(safe(&refused.err().map_or_else(|| status.to_string(), |error| error.to_string())));
        return Ok(Ending::Refused);
    }
    let mut joiner = Joiner::new(limit::LOGS_OPEN_CALLS_MAX);
    let mut rest: Vec<u8> = Vec::new();
    let mut first = Some(VecDeque::new());
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        rest.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if line.trim_end() == LIVE {
                print(first.take(), out)?;
            }
            let Some(record) = line.trim_end().strip_prefix("data: ") else { continue };
            let seen = joiner.see(record).filter(|seen| select.matches(seen));
            match (seen.and_then(|seen| look.line(&seen)), &mut first) {
                (None, _) => {}
                (Some(shown), Some(first)) => {
                    first.push_back(shown);
                    if first.len() > count {
                        first.pop_front();
                    }
                }
                (Some(shown), None) => writeln!(out, "{shown}")?,
            }
        }
        if rest.len() > limit::JOURNAL_LINE_BYTES_MAX.saturating_mul(2) {
            return Err(io::Error::other("the gateway sends a line that no record has"));
        }
        out.flush()?;
    }
    print(first.take(), out)?;
    out.flush()?;
    Ok(Ending::Done)
}

/// The last of what was there.
fn print(lines: Option<VecDeque<String>>, out: &mut impl Write) -> io::Result<()> {
    lines.into_iter().flatten().try_for_each(|line| writeln!(out, "{line}"))
}

/// The same selection, as the gateway reads it.
fn query(select: &Filter, lines: usize, follow: bool) -> String {
    let Filter { subject, agent, server, tool, decision, reason, since, grep } = select;
    let since = since.map(|since| since.to_string());
    let (lines, follow) = (lines.to_string(), follow.to_string());
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let all = [
        ("subject", subject.as_ref()),
        ("agent", agent.as_ref()),
        ("server", server.as_ref()),
        ("tool", tool.as_ref()),
        ("decision", decision.as_ref()),
        ("reason", reason.as_ref()),
        ("since", since.as_ref()),
        ("grep", grep.as_ref()),
        ("lines", Some(&lines)),
        ("follow", Some(&follow)),
    ];
    for (name, value) in all {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}
