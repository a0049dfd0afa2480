//! `demo`: a gateway, an issuer and two servers in one process, and what they do with three people and a bot.
//!
//! Decides nothing about calls: everything shown is an MCP request over HTTP with a token that the issuer minted, a page
//! of the console, or an order at the control socket, and the line that the gateway wrote about it. Invariant: nothing
//! of it can be reached from another machine.

use std::time::Instant;

use super::Ending;
use super::output::{QUIET, STRONG, print, trouble};
use super::serve::{not_started, signals};
use super::use_it::DemoArguments;
use crate::record::operational;

mod browser;
mod next;
mod show;
mod stage;
mod state;
mod tail;

use stage::Stage;
use tail::Tail;

/// Starts everything, shows it, and serves until it is told to stop.
pub async fn run(arguments: &DemoArguments) -> Ending {
    let started_at = Instant::now();
    // What the gateway says of itself would stand between the lines of the show.
    let filter = if arguments.quiet { "warn,rmcp=error,bailiwick=info" } else { "error" };
    if let Err(error) = operational::start(filter, operational::Form::Text) {
        trouble(error);
        return Ending::Trouble;
    }
    let stage = match Stage::start(arguments).await {
        Ok(stage) => stage,
        Err(error) => return not_started(&error),
    };
    print(stage.told());
    let mut tail = Tail::new(stage.journal());
    let mut ending = Ending::Done;
    if !arguments.quiet {
        if let Err(problem) = show::run(&stage, &mut tail).await {
            trouble(problem);
            ending = Ending::Trouble;
        }
        let took = started_at.elapsed().as_secs_f64();
        print(format_args!("\n{QUIET}from the start to here: {took:.1} s{QUIET:#}\n"));
    }
    if arguments.once {
        print(format_args!("\n{QUIET}While a demo runs (without --once):{QUIET:#}\n"));
    }
    print(next::steps(&stage, arguments));
    let cause = if arguments.once {
        "the demo is over"
    } else {
        print(format_args!("\n{STRONG}serving{STRONG:#}; Ctrl-C stops it. What is called is shown here:\n"));
        let signalled = async {
            match signals() {
                Some(mut signals) => signals.stop_or_reload(&stage.served.gateway).await,
                None => "no signals",
            }
        };
        tokio::select! {
            cause = signalled => cause,
            () = tail.follow() => "the journal",
        }
    };
    stage.stop(cause).await;
    ending
}
