//! Reads `[admin]`: where administrators connect, and what they need to give something back.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use super::address::is_loopback;
use super::credential;
use super::gateway::{Gateway, read_hosts, read_listen, read_public_url, read_tls};
use crate::config::KnownBy;
use crate::config::leaf::Period;
use crate::config::mistake::Name;
use crate::config::reader::Table;
use crate::config::{AdminClient, AdminConfig, AgentConfig, ConsoleConfig, keys};
use crate::ids::IssuerAlias;
use crate::limit;

/// `[admin]`, and where its clients stand.
pub struct Admin {
    pub config: AdminConfig,
    clients_at: Range<usize>,
}

/// Reads the section; its names are held against the gateway's.
pub fn read(mut table: Table<'_, '_>, base: &Path, gateway: Option<&Gateway>) -> Option<Admin> {
    let clients_at = table.place("clients");
    let listen = read_listen(&mut table);
    let own_url = if table.has("public_url") { Some(read_public_url(&mut table)) } else { None };
    let allowed_hosts = read_hosts(&mut table);
    let tls = if table.has("tls") {
        table.table("tls", &keys::ADMIN_TLS).map(|table| read_tls(table, base))
    } else {
        Some(Some(None))
    };
    let plain = table.get::<bool>("allow_plain_http");
    let mut clients = read_clients(&mut table);
    let console = if table.has("console") {
        Some(table.table("console", &keys::ADMIN_CONSOLE).map(|table| read_console(table, base)))
    } else {
        None
    };
    let acr = table.at::<Vec<String>>("acr");
    let age = table.at::<Period>("auth_age_max");

    let (listen, plain, tls, acr, age) = (listen?, plain?, tls??, acr?, age?);
    let gateway = gateway?;
    let public_url = match own_url {
        None => Spanned::new(table.span.clone(), gateway.config.public_url.clone()),
        Some(url) => url?,
    };
    check_address(&table, &listen, gateway);
    let proxied = !gateway.config.trusted_proxies.is_empty();
    if !listen.get_ref().ip().is_loopback() && tls.is_none() && !proxied && !plain {
        let message = format!(
            "{} is plain HTTP that other machines can reach: add [admin.tls], or write allow_plain_http = true",
            listen.get_ref()
        );
        table.mistake(&listen.span(), message);
    }
    if public_url.get_ref().scheme() == "http" && !is_loopback(public_url.get_ref()) && !plain {
        let message = "the administrators' public_url is plain HTTP: tokens would travel in the clear; write https://, \
                       or allow_plain_http = true";
        table.mistake(&public_url.span(), message);
    }
    let console = match console {
        None => None,
        Some(read) => Some(read??),
    };
    if console.is_some() && public_url.get_ref().scheme() == "http" && !is_loopback(public_url.get_ref()) {
        // A session's cookie is as good as its token, and is sent with every click.
        let message = "the console needs https: in the administrators' public_url, or a name of this machine";
        table.mistake(&public_url.span(), message);
    }
    if let Some(console) = &console {
        // Its tokens are in the gateway's memory and nowhere else.
        clients.retain(|known| !known.is(&console.issuer, Some(&console.client_id)));
        let (issuer, client_id) = (console.issuer.clone(), console.client_id.clone());
        clients.push(AdminClient { issuer, client_id, approves: true });
    }
    if age.get_ref().0 > limit::ADMIN_AUTH_AGE_MAX {
        table.mistake(&age.span(), "a login of more than 1h ago is not recent: write at most 1h");
    }
    if acr.get_ref().iter().any(|value| value.is_empty() || value.contains([' ', '"', '\\'])) {
        table.mistake(&acr.span(), "a value of acr is empty, or has a blank or a quotation mark in it");
    }
    if clients.is_empty() {
        table.source.warning(&table.span, "admin.clients is empty: nobody can lift a revocation or widen a policy");
    } else if acr.get_ref().is_empty() {
        let message = "admin.acr is empty: whatever the issuer takes for a login is enough to lift a revocation";
        table.source.warning(&table.span, message);
    }
    let config = AdminConfig {
        listen: listen.into_inner(),
        public_url: public_url.into_inner(),
        allowed_hosts: allowed_hosts?,
        tls,
        clients,
        acr: acr.into_inner(),
        auth_age_max: age.into_inner().0,
        console,
    };
    Some(Admin { config, clients_at })
}

fn check_address(table: &Table<'_, '_>, listen: &Spanned<SocketAddr>, gateway: &Gateway) {
    if *listen.get_ref() == gateway.config.listen && listen.get_ref().port() != 0 {
        table.mistake(&listen.span(), "MCP is served on that address: write another port");
    }
    if gateway.config.allow_loopback_issuers && !listen.get_ref().ip().is_loopback() {
        let message = "allow_loopback_issuers needs loopback listeners: listen on 127.0.0.1, or remove it";
        table.mistake(&listen.span(), message);
    }
}

fn read_clients(table: &mut Table<'_, '_>) -> Vec<AdminClient> {
    let mut clients = Vec::new();
    for mut entry in table.tables("clients", &keys::ADMIN_CLIENT) {
        let issuer = entry.at::<IssuerAlias>("issuer");
        if let Some(issuer) = &issuer {
            entry.source.refers(issuer.span(), Name::Issuer(issuer.get_ref().clone()));
        }
        let (client_id, approves) = (entry.get::<String>("client_id"), entry.get::<bool>("approves"));
        if let (Some(issuer), Some(client_id), Some(approves)) = (issuer, client_id, approves) {
            clients.push(AdminClient { issuer: issuer.into_inner(), client_id, approves });
        }
    }
    clients
}

fn read_console(mut table: Table<'_, '_>, base: &Path) -> Option<ConsoleConfig> {
    let issuer = table.at::<IssuerAlias>("issuer");
    if let Some(issuer) = &issuer {
        table.source.refers(issuer.span(), Name::Issuer(issuer.get_ref().clone()));
    }
    let client_id = table.get::<String>("client_id");
    let written = table.has("client_secret");
    let client_secret = credential::secret(&mut table, "client_secret", base);
    let scopes = table.get::<Vec<String>>("scopes");
    if written && client_secret.is_none() {
        return None;
    }
    Some(ConsoleConfig { issuer: issuer?.into_inner(), client_id: client_id?, client_secret, scopes: scopes? })
}

/// A client that is an agent's and an administrators': whose tokens those are nobody could tell.
pub fn shared_client<'a>(
    admin: &Admin,
    agents: &(impl Iterator<Item = &'a AgentConfig> + Clone),
) -> Option<(Range<usize>, String)> {
    let clash = |client: &AdminClient| {
        let agent = agents.clone().find(|agent| {
            let mut own = agent.clients.iter();
            own.any(|own| own.known_by == KnownBy::Client && client.is(&own.issuer, Some(&own.client_id)))
        });
        agent.map(|agent| {
            format!(
                "the client `{}` of `{}` is the agent `{}`'s in policies/agents.toml: have another one registered for \
                 administrators",
                client.client_id, client.issuer, agent.id
            )
        })
    };
    admin.config.clients.iter().find_map(clash).map(|message| (admin.clients_at.clone(), message))
}
