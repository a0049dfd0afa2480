//! Pages on which somebody links their account at an upstream.
//!
//! Decides who may: whoever the link was made for, as their own issuer says it of the browser in front of us. Refuses
//! to know rules and tokens of MCP. Invariants: nothing is stored for anybody else, who is told so, and so is the owner;
//! every answer of an issuer is good once, in the browser that asked for it, for ten minutes; no page runs or frames
//! anything, or says whose link it is before it is known who looks.

use std::sync::Arc;

use http::header::HeaderMap;
use http::{Method, Response, StatusCode};

mod account;
mod pages;
mod person;
mod stage;
mod ticket;
pub mod tool;

pub use ticket::{Ticket, address};

use crate::gateway::Gateway;
use crate::ids::IssuerAlias;
use crate::limit;
use crate::oauth::person::Provider;
use pages::Page;

/// Where the pages are, below the public URL.
const PAGES: &str = "/link/";
/// Where our own document is, below the public URL.
const DOCUMENT: &str = "/.well-known/oauth-client/link";

/// What is remembered of the issuers that people sign in at.
#[derive(Debug)]
pub struct Linking {
    providers: moka::sync::Cache<IssuerAlias, Arc<Provider>>,
}

impl Default for Linking {
    fn default() -> Self {
        Self { providers: moka::sync::Cache::new(limit::ISSUERS_MAX as u64) }
    }
}

/// One request for a page.
pub struct Visit<'a> {
    /// The path below the public URL.
    pub path: &'a str,
    /// The query, still encoded.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

/// Whether a path is one of ours.
#[must_use]
pub fn is_own(path: &str) -> bool {
    path.starts_with(PAGES) || path == DOCUMENT
}

/// Answers a request for one of our pages.
pub async fn answer(gateway: &Arc<Gateway>, method: &Method, visit: Visit<'_>) -> Response<String> {
    if *method != Method::GET {
        return pages::plain(StatusCode::METHOD_NOT_ALLOWED, "these pages are looked at with GET\n");
    }
    let has_accounts = gateway.config().servers.iter().any(|server| server.has_accounts());
    let Some(vault) = gateway.delegate().vault().filter(|_| has_accounts) else {
        return pages::plain(StatusCode::NOT_FOUND, "not found\n");
    };
    if visit.path == DOCUMENT {
        return account::document(vault.authorities().ourselves());
    }
    let place = visit.path.strip_prefix(PAGES).unwrap_or_default();
    let answered = match place.split_once('/') {
        None => match place {
            "signed-in" => person::come_back(gateway, &visit).await,
            "account" => account::show(gateway, &visit).await,
            "go" => account::go(gateway, &visit).await,
            "callback" => account::come_back(gateway, &visit).await,
            ticket => person::welcome(gateway, ticket),
        },
        Some((ticket, "sign-in")) => person::go(gateway, ticket).await,
        Some(_) => Err(Page::problem(StatusCode::NOT_FOUND, "There is no such page.")),
    };
    let page = answered.unwrap_or_else(|page| page);
    page.response(gateway.config().gateway.public_url.scheme() == "https")
}
