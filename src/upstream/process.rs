//! A child process that speaks MCP on its standard streams: its lines, its end.
//!
//! Decides how a child is brought to its end. Knows nothing of why it was started, nor which request a line
//! belongs to. Invariant: one message is one line, both ways.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;

use super::duplex::{Duplex, Outlet};
use super::hidden::Hidden;
use super::lines::{Line, Lines};
use super::link::Link;
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::wire::Message;

/// Lines for the standard input.
#[derive(Debug)]
struct Input(mpsc::Sender<Bytes>);

impl Outlet for Input {
    fn say(&self, message: &Message) -> Result<(), ()> {
        let bytes = message.as_bytes();
        let mut line = BytesMut::with_capacity(bytes.len() + 1);
        line.put_slice(bytes);
        line.put_u8(b'\n');
        self.0.try_send(line.freeze()).map_err(|_| ())
    }
}

/// Takes a started child over: its streams, its end.
pub(super) fn adopt(link: Arc<Link>, mut child: Child, hidden: Hidden) -> Result<Arc<Duplex>, Failure> {
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Failure::before(Reason::Internal, "a child was started without pipes"));
    };
    let (writes, written) = mpsc::channel(limit::PROCESS_WRITES_QUEUED_MAX);
    let process = Duplex::new(link, Box::new(Input(writes)));
    tokio::spawn(write(Arc::clone(&process), stdin, written));
    tokio::spawn(read(Arc::clone(&process), stdout));
    tokio::spawn(report(process.link.config.id.clone(), stderr, hidden));
    tokio::spawn(guard(Arc::clone(&process), child));
    Ok(process)
}

async fn write(process: Arc<Duplex>, mut stdin: ChildStdin, mut lines: mpsc::Receiver<Bytes>) {
    let writing = async {
        while let Some(line) = lines.recv().await {
            stdin.write_all(&line).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        () = process.stop.cancelled() => {}
        () = process.over.cancelled() => {}
        written = writing => if let Err(error) = written {
            process.give_up(&Failure::after(Reason::UpstreamClosed, format!("its input is closed: {error}")));
        }
    }
}

async fn read(process: Arc<Duplex>, stdout: ChildStdout) {
    let mut lines = Lines::new(stdout, limit::PROCESS_LINE_BYTES_MAX);
    loop {
        match lines.next().await {
            Ok(Some(Line { bytes, cut: false })) => process.hear_line(bytes),
            Ok(Some(Line { cut: true, .. })) => {
                let detail = format!("a line is longer than {} bytes", limit::PROCESS_LINE_BYTES_MAX);
                process.link.hub.noise();
                process.give_up(&Failure::after(Reason::UpstreamGarbage, detail));
                return;
            }
            Ok(None) | Err(_) => {
                // Mostly it has just ended, and how it ended says more.
                let _ = tokio::time::timeout(Duration::from_millis(500), process.over.cancelled()).await;
                let closed = Failure::after(Reason::UpstreamClosed, "the process closed its output");
                process.give_up(&closed);
                return;
            }
        }
    }
}

/// Shows what the process says on standard error, within bounds.
async fn report(server: crate::ids::ServerId, stderr: ChildStderr, hidden: Hidden) {
    let mut lines = Lines::new(stderr, limit::PROCESS_ERROR_LINE_BYTES_MAX);
    let (mut second, mut shown) = (tokio::time::Instant::now(), 0);
    while let Ok(Some(line)) = lines.next().await {
        if second.elapsed() >= Duration::from_secs(1) {
            (second, shown) = (tokio::time::Instant::now(), 0);
        }
        shown += 1;
        if shown > limit::PROCESS_ERROR_LINES_PER_SECOND_MAX {
            continue;
        }
        let text = String::from_utf8_lossy(&line.bytes);
        let text = hidden.left_out_of(text.trim_end());
        if !text.is_empty() {
            // Debug form: a child must not write control sequences to somebody's terminal.
            tracing::info!(server = %server, cut = line.cut, "stderr: {:?}", text);
        }
    }
}

/// Waits for the end of the child, or brings it about.
async fn guard(process: Arc<Duplex>, mut child: Child) {
    let status = tokio::select! {
        status = child.wait() => status,
        () = process.stop.cancelled() => stop(&mut child).await,
    };
    let detail = match status {
        Ok(status) => format!("the process ended: {status}"),
        Err(error) => format!("the process is lost: {error}"),
    };
    process.close(&Failure::after(Reason::UpstreamClosed, detail));
    process.over.cancel();
}

/// Standard input is closed by the writer; then SIGTERM, which makes the supervisor end the whole tree;
/// SIGKILL only for a supervisor that does not do its duty.
async fn stop(child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};
    if let Ok(status) = tokio::time::timeout(limit::PROCESS_STOP_GRACE, child.wait()).await {
        return status;
    }
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        let _ = kill_process(id, Signal::TERM);
    }
    let patience = limit::PROCESS_TERM_GRACE + limit::PROCESS_KILL_WAIT + Duration::from_millis(500);
    if let Ok(status) = tokio::time::timeout(patience, child.wait()).await {
        return status;
    }
    if let Some(id) = id {
        let _ = kill_process_group(id, Signal::KILL);
    }
    child.wait().await
}
