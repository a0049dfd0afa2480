//! Then the person sees which account is asked for, is sent to its authorization server, and comes back with it.
//!
//! Decides what is stored. Invariants: the page names upstream, scopes and account before anybody goes on; the answer
//! is that authorization server's and no other's (RFC 9207); what is stored is the owner's of the link.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use maud::html;

use super::Visit;
use super::pages::{Page, plain};
use super::stage::{self, Stage, Way};
use super::ticket::{Ticket, base};
use crate::config::{OauthConfig, ServerConfig, TransportConfig};
use crate::delegate::vault::{self, Authority, Entry, Ourselves, Vault};
use crate::gateway::Gateway;
use crate::identity::now_s;
use crate::ids::PrincipalKey;
use crate::oauth::browser::{equal, query};
use crate::oauth::dpop::{ProofKey, Prover};
use crate::oauth::shown;
use crate::oauth::tokens::{Party, TokenError, Tokens};

/// Our own document, which is our client id where authorization servers read it.
pub(super) fn document(ourselves: &Ourselves) -> Response<String> {
    let mut described = ourselves.described();
    if let Some(members) = described.as_object_mut() {
        members.insert("client_id".to_owned(), ourselves.document.clone().into());
    }
    let mut response = plain(StatusCode::OK, &described.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The page that names upstream, scopes and account.
pub(super) async fn show(gateway: &Arc<Gateway>, visit: &Visit<'_>) -> Result<Page, Page> {
    let Some(Stage { ticket, way: Way::Known { check }, .. }) = Stage::of(gateway, visit.headers) else {
        return Err(Page::problem(StatusCode::BAD_REQUEST, "This was begun in another browser, or too long ago."));
    };
    let at = At::of(gateway, &ticket).await?;
    let (server, authority) = (&at.server, &at.authority);
    let host = match &server.transport {
        TransportConfig::Http { url, .. } => url.host_str().unwrap_or_default(),
        TransportConfig::Stdio { .. } => "this gateway's own machine",
    };
    let body = html! {
        p { "Your assistants will be able to use this account of yours through this gateway, as far as its rules let "
            "them." }
        dl {
            dt { "Service" } dd { (server.title.as_deref().unwrap_or(server.id.as_str())) " (" code { (server.id) } " at "
                code { (host) } ")" }
            dt { "Where you sign in there" } dd { code { (shown(&authority.server.issuer)) } }
            dt { "What is asked for" } dd {
                @if at.scopes.is_empty() { "what the service gives without asking" }
                @for scope in &at.scopes { code { (shown(scope)) } " " }
            }
            dt { "For whom" } dd { code { (shown(&ticket.owner.spelled())) } }
        }
        p { a.button href=(format!("{}go?check={check}", base(gateway))) { "Go on to the service" } }
        p { "You can take this back at any time, on the page " i { "my access" } " of the console or with "
            code { "bailiwick vault revoke" } "." }
    };
    Ok(Page::new(StatusCode::OK, "Link this account?", body))
}

/// To the authorization server.
pub(super) async fn go(gateway: &Arc<Gateway>, visit: &Visit<'_>) -> Result<Page, Page> {
    let Some(Stage { ticket, way: Way::Known { check }, rests_on }) = Stage::of(gateway, visit.headers) else {
        return Err(Page::problem(StatusCode::BAD_REQUEST, "This was begun in another browser, or too long ago."));
    };
    if !equal(&query(visit.query, "check").unwrap_or_default(), &check) {
        return Err(Page::problem(StatusCode::FORBIDDEN, "This did not come from our own page."));
    }
    let at = At::of(gateway, &ticket).await?;
    let begun = at.party().begin(&at.authority.server, &at.redirect, &at.scopes);
    let begun = begun.map_err(|problem| Page::problem(StatusCode::BAD_GATEWAY, &problem))?;
    let (issuer, client) = (at.authority.server.issuer.clone(), at.authority.client.id.clone());
    let way = Way::Away { state: begun.state, verifier: begun.verifier, issuer, client };
    let cookie = Stage { ticket, way, rests_on }.cookie(gateway);
    Ok(Page::on_to(begun.page).keeping(cookie))
}

/// Somebody comes back from the authorization server.
pub(super) async fn come_back(gateway: &Arc<Gateway>, visit: &Visit<'_>) -> Result<Page, Page> {
    let wrong = |problem: &str| Page::problem(StatusCode::BAD_REQUEST, problem).keeping(stage::forget(gateway));
    let Some(Stage { ticket, way: Way::Away { state, verifier, issuer, client }, rests_on }) =
        Stage::of(gateway, visit.headers)
    else {
        return Err(wrong("This was begun in another browser, or too long ago."));
    };
    if !equal(&query(visit.query, "state").unwrap_or_default(), &state) {
        return Err(wrong("This is the answer to another request than the one that this browser made last."));
    }
    stage::take(gateway, &ticket, visit, &state).await?;
    let at = At::of(gateway, &ticket).await?;
    if at.authority.server.issuer != issuer || at.authority.client.id != client {
        return Err(wrong("The service has another authorization server now than when this was begun."));
    }
    match query(visit.query, "iss") {
        Some(named) if named == issuer => {}
        Some(_) => {
            return Err(wrong("This is the answer of another authorization server than the one that was asked."));
        }
        None if at.authority.server.authorization_response_iss_parameter_supported => {
            return Err(wrong("The answer does not say whose it is, although this authorization server always does."));
        }
        None => {}
    }
    if let Some(code) = query(visit.query, "error") {
        return Err(wrong(&format!("The service refuses: {}", shown(&code))));
    }
    let code = query(visit.query, "code").ok_or_else(|| wrong("The service's answer has no code."))?;
    let key = at.authority.proves.then(ProofKey::generate).transpose();
    let key = key.map_err(|problem| Page::problem(StatusCode::INTERNAL_SERVER_ERROR, &problem))?;
    let prover = key.clone().map(Prover::new);
    let party = Party { prover: prover.as_ref(), ..at.party() };
    let tokens = party.exchange(&at.authority.asker, &at.redirect, &code, &verifier).await;
    let tokens = match tokens {
        Ok(tokens) => tokens,
        Err(TokenError::Over(problem) | TokenError::Unknown(problem)) => {
            return Err(Page::problem(StatusCode::BAD_GATEWAY, &problem));
        }
        Err(TokenError::Stranger(problem)) => {
            at.forget(gateway).await;
            return Err(Page::problem(StatusCode::BAD_GATEWAY, &problem));
        }
    };
    if gateway.delegate().vault().is_some_and(|vault| vault.is_good_here(&tokens.access)) {
        tracing::warn!(
            server = %at.server.id, authority = issuer,
            "a token for an account there is good at this gateway itself (aud), and is not kept: have the authorization \
             server issue it for the upstream alone"
        );
        tokio::spawn(async move { at.give_back(&tokens).await });
        let problem = "The service gave a token that is good at this gateway itself, so nothing was linked.";
        return Err(Page::problem(StatusCode::BAD_GATEWAY, problem).keeping(stage::forget(gateway)));
    }
    // Who was locked out meanwhile links nothing.
    if let Err(page) = Stage::may_go_on(gateway, &ticket, &rests_on) {
        tokio::spawn(async move { at.give_back(&tokens).await });
        return Err(page);
    }
    let now = now_s();
    let life = tokens.life.map(|life| i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
    let mut client = at.authority.client.clone();
    if at.authority.client_is_written {
        client.secret = None;
    }
    // What was asked for and not granted is not asked for again.
    let granted =
        |scope: &String| tokens.scope.as_deref().is_none_or(|all| all.split_whitespace().any(|own| own == scope));
    let asked = (!at.scopes.iter().all(granted)).then(|| at.scopes.join(" "));
    let entry = Entry {
        account: vault::account_of(tokens.id_token.as_deref(), &tokens.access),
        access: tokens.access,
        refresh: tokens.refresh,
        given_at: now,
        expires_at: life.map(|life| now.saturating_add(life)),
        scope: tokens.scope.or_else(|| Some(at.scopes.join(" "))),
        asked,
        authority: issuer,
        token_endpoint: at.authority.server.token_endpoint.clone(),
        revocation_endpoint: at.authority.server.revocation_endpoint.clone(),
        client,
        client_is_written: at.authority.client_is_written,
        resource: at.authority.resource.clone(),
        key: key.filter(|_| tokens.bound),
        linked_at: now,
    };
    let kept = gateway.keep_account(&ticket.owner, &ticket.server, &entry).await;
    kept.map_err(|failure| Page::problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()))?;
    // Who was locked out while it was kept may have been looked for before it was there.
    if let Err(page) = Stage::may_go_on(gateway, &ticket, &rests_on) {
        if let Err(failure) = gateway.remove_account(&ticket.owner.spelled(), &ticket.server).await {
            tracing::error!(%failure, owner = %ticket.owner.spelled(), "an account of somebody who was locked out is still linked");
        }
        return Err(page);
    }
    if let Some(principal) = ticket.principal {
        gateway.catalog().relist(&ticket.server, PrincipalKey(principal));
    }
    let body = html! {
        p { "Your account " @if let Some(account) = &entry.account { b { (account) } " " } "at "
            b { (at.server.title.as_deref().unwrap_or(at.server.id.as_str())) } " is linked." }
        p { "You can close this page and go back to your assistant. If it does not go on by itself, ask it again." }
    };
    Ok(Page::new(StatusCode::OK, "Linked", body).keeping(stage::forget(gateway)))
}

/// What a link is about, as the files and the upstream have it now.
struct At {
    server: Arc<ServerConfig>,
    authority: Arc<Authority>,
    redirect: String,
    /// What is asked for.
    scopes: Vec<String>,
}

impl At {
    async fn of(gateway: &Arc<Gateway>, ticket: &Ticket) -> Result<Self, Page> {
        let gone = || Page::problem(StatusCode::NOT_FOUND, "The service is not behind this gateway any more.");
        let server = gateway.config().server(&ticket.server).cloned().ok_or_else(gone)?;
        let account: Arc<OauthConfig> = vault::oauth(&server).cloned().ok_or_else(gone)?;
        let vault: &Arc<Vault> = gateway.delegate().vault().ok_or_else(gone)?;
        let authority = vault.authority(&server, &account).await.map_err(|problem| {
            tracing::warn!(server = %server.id, problem, "nobody can link an account there");
            let told = "The service does not say properly where to sign in; the gateway's log says why.";
            Page::problem(StatusCode::BAD_GATEWAY, told)
        })?;
        let mut scopes = authority.scopes.clone();
        let wider = ticket.wider.iter().filter(|_| account.scope.is_none()).flat_map(|all| all.split_whitespace());
        for scope in wider {
            if !scopes.iter().any(|known| known == scope) {
                scopes.push(scope.to_owned());
            }
        }
        Ok(Self { server, authority, redirect: vault.authorities().ourselves().redirect.clone(), scopes })
    }

    /// The authorization server does not know us any more: whoever comes next is sent there with another registration.
    async fn forget(&self, gateway: &Arc<Gateway>) {
        let Some(vault) = gateway.delegate().vault().filter(|_| !self.authority.client_is_written) else { return };
        if let Err(failure) = vault.forget_client(&self.authority.server.issuer, &self.authority.client).await {
            tracing::error!(%failure, server = %self.server.id, "a registration that is worth nothing is still kept");
        }
    }

    /// Gives back what nobody uses; that it is not taken is no trouble of whoever came with it.
    async fn give_back(&self, tokens: &Tokens) {
        let Some(endpoint) = &self.authority.server.revocation_endpoint else { return };
        let refresh = tokens.refresh.iter().map(|token| (token, "refresh_token"));
        for (token, hint) in refresh.chain([(&tokens.access, "access_token")]) {
            let taken = self.party().give_back(&self.authority.asker, endpoint, token, hint).await;
            tracing::debug!(server = %self.server.id, hint, ?taken, "a token that was not kept was given back");
        }
    }

    fn party(&self) -> Party<'_> {
        Party {
            issuer: &self.authority.server.issuer,
            token_endpoint: &self.authority.server.token_endpoint,
            client: &self.authority.client,
            resource: &self.authority.resource,
            prover: None,
        }
    }
}
