//! Which events are shown.

use clap::Args;

use crate::record::filter::Filter;

/// What can be selected; all that is given must hold.
#[derive(Debug, Args)]
pub(super) struct Select {
    /// Only subjects that contain this, such as user:corp/anna or anna
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Only agents or clients that contain this
    #[arg(long, value_name = "TEXT")]
    agent: Option<String>,
    /// Only this server
    #[arg(long, value_name = "ID")]
    server: Option<String>,
    /// Only tools, resources and prompts whose name contains this
    #[arg(long, value_name = "TEXT")]
    tool: Option<String>,
    /// Only what was decided like this
    #[arg(long, value_enum)]
    decision: Option<Decision>,
    /// Only this reason code, such as not_allowed
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only what happened since then: 10m, 2h, 1d, or a time such as 2026-11-23T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Only records that contain this text anywhere
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Decision {
    /// It was forwarded, or a list was shown
    Allow,
    /// A decision was against it
    Deny,
    /// Something went wrong, or nobody knows how it ended
    Fail,
}

#[derive(Debug, Clone, Copy)]
enum Since {
    Ago(jiff::SignedDuration),
    At(jiff::Timestamp),
}

impl Select {
    /// What is selected, at a moment.
    pub(super) fn at(&self, now: jiff::Timestamp) -> Filter {
        let since = self.since.map(|since| match since {
            Since::Ago(duration) => now.checked_sub(duration).unwrap_or(jiff::Timestamp::MIN),
            Since::At(moment) => moment,
        });
        let decision = self.decision.map(|decision| match decision {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
            Decision::Fail => "fail",
        });
        Filter {
            subject: self.subject.clone(),
            agent: self.agent.clone(),
            server: self.server.clone(),
            tool: self.tool.clone(),
            decision: decision.map(str::to_owned),
            reason: self.reason.clone(),
            since,
            grep: self.grep.clone(),
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(duration) = text.parse::<jiff::SignedDuration>() {
        return Ok(Since::Ago(duration.abs()));
    }
    // A day has 24 hours here; the parser above leaves days to calendars.
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
        return Ok(Since::Ago(jiff::SignedDuration::from_hours(days.saturating_mul(24).min(1_000_000))));
    }
    text.parse().map(Since::At).map_err(|_| "write 10m, 2h, 1d, or a time such as 2026-11-23T10:00:00Z".to_owned())
}
