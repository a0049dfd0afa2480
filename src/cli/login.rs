//! `login` and `logout`: a token of one's own at a gateway, for `stdio` and `call`.
//!
//! Decides nothing about what is allowed. Invariant: a token is kept in a file that nobody else can read, and never
//! printed; standard output has results only, everything that a person is asked goes to standard error.

use clap::Args;
use serde::Serialize;
use url::Url;

use super::Ending;
use super::output::{GOOD, Output, QUIET, trouble};

mod browser;
mod discover;
mod flow;
mod kept;
mod redirect;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use discover::Challenge;
pub(crate) use session::{Asking, Carried, Login};

use kept::Place;

/// Tries to open an address in the user's browser.
pub(super) fn open_page(url: &Url) {
    browser::open(url);
}

const LOGIN_EXAMPLES: &str = "\
Examples:
  bailiwick login --url https://mcp.example.com/mcp
  bailiwick login --url https://mcp.example.com/mcp --device
  bailiwick login --url https://mcp.example.com/mcp --client-id bailiwick-bridge
  bailiwick login --admin https://mcp.example.com/admin --client-id bailiwick-admin

The token is kept below ~/.local/state/bailiwick, readable by you alone; `stdio` and `call` use and renew it.";

const LOGOUT_EXAMPLES: &str = "\
Examples:
  bailiwick logout --url https://mcp.example.com/mcp
  bailiwick logout --admin https://mcp.example.com/admin

Gives the token back to the issuer, if that takes it, and removes it here.";

/// Log in to a gateway, for `stdio` and `call`
///
/// Asks the gateway who issues its tokens, opens that issuer's page in the browser, and keeps what it gets. An
/// assistant that starts `bailiwick stdio` does the same by itself when it has to; this does it beforehand.
#[derive(Debug, Args)]
#[command(after_help = LOGIN_EXAMPLES)]
pub struct LoginArguments {
    /// What the login is for
    #[command(flatten)]
    pub resource: Resource,
    /// How to log in
    #[command(flatten)]
    pub options: LoginOptions,
}

/// Forget a login
#[derive(Debug, Args)]
#[command(after_help = LOGOUT_EXAMPLES)]
pub struct LogoutArguments {
    /// What the login is for
    #[command(flatten)]
    pub resource: Resource,
}

/// What a login is for.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Resource {
    /// The gateway's MCP endpoint
    #[arg(long)]
    pub url: Option<Url>,
    /// The gateway's administrators' listener, for commands that operate it
    #[arg(long, value_name = "URL")]
    pub admin: Option<Url>,
}

impl Resource {
    fn url(&self) -> Result<&Url, String> {
        self.url.as_ref().or(self.admin.as_ref()).ok_or_else(|| "write --url or --admin".to_owned())
    }
}

/// How to log in.
#[derive(Debug, Clone, Default, Args)]
pub struct LoginOptions {
    /// Log in as this client, registered at the issuer beforehand; without it one is registered by itself
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Log in at this issuer, where the gateway accepts several
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// Ask for these scopes, instead of those that the gateway names
    #[arg(long, value_name = "SCOPES")]
    pub scope: Option<String>,
    /// Log in like this: an authentication context that the issuer knows (acr_values)
    #[arg(long, value_name = "VALUES")]
    pub acr: Option<String>,
    /// Log in on another device, by a code, where there is no browser
    #[arg(long)]
    pub device: bool,
    /// Print the address of the login page, but open no browser
    #[arg(long)]
    pub no_browser: bool,
    /// The port on this machine where the browser comes back; any that is free if nothing is said
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub redirect_port: u16,
}

#[derive(Serialize)]
struct LoggedIn<'a> {
    gateway: &'a str,
    issuer: &'a str,
    client_id: &'a str,
    scope: Option<&'a str>,
    expires_at: Option<i64>,
    renewable: bool,
    file: String,
}

#[derive(Serialize)]
struct LoggedOut<'a> {
    gateway: &'a str,
    was_logged_in: bool,
    given_back: bool,
}

/// Logs in, and says where what was got is kept.
pub async fn login(arguments: &LoginArguments, output: Output) -> Ending {
    match logged_in(arguments, output).await {
        Ok(()) => Ending::Done,
        Err(problem) => {
            trouble(format_args!("not logged in: {problem}"));
            Ending::Trouble
        }
    }
}

async fn logged_in(arguments: &LoginArguments, output: Output) -> Result<(), String> {
    let url = arguments.resource.url()?;
    check(url)?;
    let login = Login::new(url, arguments.options.clone(), Asking::Allowed)?;
    // What administrators give back needs a login of now, not a session that the browser still has.
    let kept =
        login.anew(&if arguments.resource.admin.is_some() { Challenge::fresh() } else { Challenge::default() }).await?;
    let file = Place::of(url)?.file().display().to_string();
    let answer = LoggedIn {
        gateway: &kept.gateway,
        issuer: &kept.issuer,
        client_id: &kept.client.id,
        scope: kept.scope.as_deref(),
        expires_at: kept.expires_at,
        renewable: kept.refresh_token.is_some(),
        file,
    };
    let renewal =
        if answer.renewable { "and renewed by itself" } else { "and not renewable: log in again when it ends" };
    let text = format!(
        "{GOOD}logged in{GOOD:#} to {} with {}\n{QUIET}kept in {}, {renewal}{QUIET:#}\n",
        answer.gateway, answer.issuer, answer.file
    );
    output.result(&answer, text);
    Ok(())
}

/// Gives the token back and removes it.
pub async fn logout(arguments: &LogoutArguments, output: Output) -> Ending {
    match logged_out(arguments, output).await {
        Ok(()) => Ending::Done,
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}

async fn logged_out(arguments: &LogoutArguments, output: Output) -> Result<(), String> {
    let url = arguments.resource.url()?;
    let place = Place::of(url)?;
    let turn = place.turn().await?;
    // What cannot be read can be removed all the same.
    let kept = place.read();
    let given_back = match &kept {
        Ok(Some(kept)) => flow::give_back(kept).await,
        _ => false,
    };
    let was_logged_in = place.remove(&turn)?;
    let gateway = url.as_str();
    let text = match (was_logged_in, given_back) {
        (false, _) => format!("there is no login to {gateway}\n"),
        (true, true) => format!("logged out of {gateway}; the issuer took its token back\n"),
        (true, false) => {
            format!("logged out of {gateway}; the issuer did not take its token back, which is good until it ends\n")
        }
    };
    output.result(&LoggedOut { gateway, was_logged_in, given_back }, text);
    Ok(())
}

/// Whether a token may be sent there: over TLS, or not beyond this machine.
///
/// # Errors
/// A lower-case sentence that says what to write.
pub(crate) fn check(url: &Url) -> Result<(), String> {
    if url.scheme() == "https" || (url.scheme() == "http" && crate::egress::is_loopback(url)) {
        return Ok(());
    }
    Err(format!("{url} would send the token in the clear: use https:"))
}
