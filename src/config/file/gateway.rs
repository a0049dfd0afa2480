//! Reads `[gateway]` and `[limits]`: where it listens, and how plain a connection may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::address::{http_url, is_loopback};
use super::credential::reference;
use crate::config::keys;
use crate::config::leaf::{Count, Period};
use crate::config::load::Overrides;
use crate::config::reader::Table;
use crate::config::{
    CertificateHeader, DpopMode, Durability, GatewayConfig, Network, QuotaConfig, ReloadMode, ServerConfig,
    StoreConfig, TlsConfig,
};

/// `[gateway]`, and what the other sections are held against.
pub struct Gateway {
    pub config: GatewayConfig,
    pub policies: PathBuf,
    /// Where the header that tells of certificates is named.
    header: Option<Range<usize>>,
}

impl Gateway {
    /// Issuers on this machine need the switch, and a listener that nobody else can reach.
    pub fn loopback_issuers_allowed(&self) -> bool {
        let named = self.config.is_named_for_this_machine();
        self.config.allow_loopback_issuers && self.config.listen.ip().is_loopback() && named
    }

    /// Who can connect from a trusted proxy's address writes into its header what it likes: that is to be the proxy, and
    /// no process that the gateway starts itself.
    pub fn check_header<'s>(&self, top: &Table<'_, '_>, servers: impl Iterator<Item = &'s ServerConfig>) {
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let is_local = |network: &Network| local.iter().any(|address| network.contains(*address));
        let Some(place) = self.header.as_ref().filter(|_| self.config.trusted_proxies.iter().any(is_local)) else {
            return;
        };
        top.source.warning(
            place,
            "every process of this machine can say here whose certificate it has, because a trusted proxy connects from \
             it: let nobody else run here, or have the proxy connect from an address of its own",
        );
        for server in servers.filter(|server| server.reaches_this_machine()) {
            let message = format!(
                "server `{}` has network = true and could say here that it is any workload: have the proxy connect from \
                 another machine or container, or remove one of the two",
                server.id
            );
            top.mistake(place, message);
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reload {
    Signal,
    Watch,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Durable {
    Fsync,
    Os,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Header {
    ClientCert,
    XForwardedClientCert,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Dpop {
    Proof,
    Nonce,
}

/// Reads `[gateway]`.
pub fn read(mut table: Table<'_, '_>, base: &Path, overrides: &Overrides) -> Option<Gateway> {
    let listen = read_listen(&mut table);
    let listen = overrides.listen.map_or(listen, |address| Some(Spanned::new(table.span.clone(), address)));
    let public_url = match &overrides.public_url {
        Some(url) => {
            let _replaced: Option<String> = table.has("public_url").then(|| table.get("public_url")).flatten();
            Some(Spanned::new(table.span.clone(), url.clone()))
        }
        None => read_public_url(&mut table),
    };
    let state = table.get::<PathBuf>("state");
    let store = read_store(&mut table, base);
    let policies = table.get::<PathBuf>("policies");
    let allowed_origins = read_origins(&mut table);
    let allowed_hosts = read_hosts(&mut table);
    let trusted_proxies = read_proxies(&mut table);
    let mut client_ca = None;
    let tls = if table.has("tls") {
        table.table("tls", &keys::TLS).map(|mut table| {
            client_ca = table.get::<PathBuf>("client_ca").map(|path| base.join(path));
            read_tls(table, base)
        })
    } else {
        Some(Some(None))
    };
    let header = table.has("client_certificate_header").then(|| table.place("client_certificate_header"));
    let certificate_header = table.at::<Header>("client_certificate_header");
    let dpop = table.get::<Dpop>("dpop");
    let plain = table.get::<bool>("allow_plain_http");
    let loopback_issuers = table.at::<bool>("allow_loopback_issuers");
    let reload_place = table.place("reload");
    let reload = table.get::<Reload>("reload");
    let durability = table.get::<Durable>("durability");
    let shutdown_grace = table.get::<Period>("shutdown_grace");

    let (listen, public_url, plain, tls) = (listen?, public_url?, plain?, tls??);
    let (trusted_proxies, loopback_issuers) = (trusted_proxies?, loopback_issuers?);
    if let Some(header) = certificate_header.as_ref().filter(|_| trusted_proxies.is_empty()) {
        let message = "client_certificate_header is believed from trusted proxies only, and there is none: write \
                       trusted_proxies = [...], or remove it";
        table.mistake(&header.span(), message);
    }
    let open = !listen.get_ref().ip().is_loopback();
    if open && tls.is_none() && trusted_proxies.is_empty() && !plain {
        let message = format!(
            "{} is plain HTTP that other machines can reach: add [gateway.tls], or trusted_proxies = [...] if one of \
             them ends TLS, or write allow_plain_http = true",
            listen.get_ref()
        );
        table.mistake(&listen.span(), message);
    }
    if public_url.get_ref().scheme() == "http" && !is_loopback(public_url.get_ref()) && !plain {
        let message =
            "public_url is plain HTTP: tokens would travel in the clear; write https://, or allow_plain_http = true";
        table.mistake(&public_url.span(), message);
    }
    if *loopback_issuers.get_ref() && open {
        let message = "allow_loopback_issuers needs a loopback listener: listen on 127.0.0.1, or remove it";
        table.mistake(&loopback_issuers.span(), message);
    }
    if *loopback_issuers.get_ref() && !open && !is_loopback(public_url.get_ref()) {
        let message = "allow_loopback_issuers needs a public_url on this machine: under the name of another one the gateway \
                       is reached through a proxy, and whoever gets a port here could mint tokens for it; remove it, or \
                       write public_url = \"http://127.0.0.1:PORT\"";
        table.mistake(&loopback_issuers.span(), message);
    }
    if matches!(reload, Some(Reload::Watch)) && store.as_ref().is_some_and(StoreConfig::is_shared) {
        let message = "reload = \"watch\" is for one gateway: with this store, what one replica reloads all others serve, \
                       so somebody has to say so with `bailiwick reload`";
        table.mistake(&reload_place, message);
    }
    let config = GatewayConfig {
        listen: listen.into_inner(),
        public_url: public_url.into_inner(),
        state: overrides.state.clone().unwrap_or(base.join(state?)),
        store: store?,
        allowed_origins: allowed_origins?,
        allowed_hosts: allowed_hosts?,
        trusted_proxies,
        tls,
        client_ca,
        client_certificate_header: certificate_header.map(|header| match header.into_inner() {
            Header::ClientCert => CertificateHeader::ClientCert,
            Header::XForwardedClientCert => CertificateHeader::Xfcc,
        }),
        dpop: match dpop? {
            Dpop::Proof => DpopMode::Proof,
            Dpop::Nonce => DpopMode::Nonce,
        },
        allow_loopback_issuers: loopback_issuers.into_inner() || !overrides.issuers.is_empty(),
        reload: overrides.reload.unwrap_or(match reload? {
            Reload::Signal => ReloadMode::Signal,
            Reload::Watch => ReloadMode::Watch,
        }),
        durability: match durability? {
            Durable::Fsync => Durability::Fsync,
            Durable::Os => Durability::Os,
        },
        shutdown_grace: shutdown_grace?.0,
    };
    if !overrides.issuers.is_empty() && open {
        // The caller of `load_with` is at fault, but the answer has to be a refusal all the same.
        table.mistake(&table.span.clone(), "a development issuer needs a loopback listener: listen on 127.0.0.1");
    }
    Some(Gateway { config, policies: base.join(policies?), header })
}

fn read_store(table: &mut Table<'_, '_>, base: &Path) -> Option<StoreConfig> {
    let written = table.at::<String>("store");
    let password = table.at::<String>("store_password");
    let password = match password.map(|text| (text.span(), reference(text.get_ref(), base))) {
        None => None,
        Some((_, Ok(reference))) => Some(reference),
        Some((span, Err(message))) => {
            table.mistake(&span, message);
            return None;
        }
    };
    let written = written?;
    match StoreConfig::parse(written.get_ref(), password, base) {
        Ok(store) => Some(store),
        Err(message) => {
            table.mistake(&written.span(), message);
            None
        }
    }
}

pub(super) fn read_listen(table: &mut Table<'_, '_>) -> Option<Spanned<SocketAddr>> {
    let text = table.at::<String>("listen")?;
    let address = text.get_ref().parse::<SocketAddr>();
    if address.is_err() {
        let message = format!("`{text}` is not an address: write an IP address and a port, such as 127.0.0.1:7800");
        table.mistake(&text.span(), message);
    }
    Some(Spanned::new(text.span(), address.ok()?))
}

pub(super) fn read_public_url(table: &mut Table<'_, '_>) -> Option<Spanned<Url>> {
    let text = table.at::<String>("public_url")?;
    let checked = http_url(text.get_ref()).and_then(|url| {
        if text.get_ref().ends_with('/') {
            return Err(format!("public_url ends with a slash: write \"{}\"", text.get_ref().trim_end_matches('/')));
        }
        if url.query().is_some() {
            return Err("public_url has a query: remove everything from `?` on".to_owned());
        }
        Ok(url)
    });
    match checked {
        Ok(url) => Some(Spanned::new(text.span(), url)),
        Err(message) => {
            table.mistake(&text.span(), message);
            None
        }
    }
}

fn read_origins(table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let written = table.get::<Vec<Spanned<String>>>("allowed_origins")?;
    let mut origins = Vec::new();
    for text in written {
        // An origin is compared as browsers write it: scheme, host, port, and nothing behind them.
        match http_url(text.get_ref()).map(|url| url.origin().ascii_serialization()) {
            Ok(origin) if origin == *text.get_ref() => origins.push(origin),
            Ok(origin) => table.mistake(&text.span(), format!("`{text}` is not an origin: write \"{origin}\"")),
            Err(_) => {
                table.mistake(
                    &text.span(),
                    format!("`{text}` is not an origin: write one such as \"https://app.example.com\""),
                );
            }
        }
    }
    Some(origins)
}

pub(super) fn read_hosts(table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let written = table.get::<Vec<Spanned<String>>>("allowed_hosts")?;
    for text in &written {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
        if text.get_ref().is_empty() || !text.get_ref().bytes().all(plain) {
            let message = format!(
                "`{text}` is not a host name: write one such as \"gateway.internal\", lower case, without wildcards"
            );
            table.mistake(&text.span(), message);
        }
    }
    Some(written.into_iter().map(Spanned::into_inner).collect())
}

fn read_proxies(table: &mut Table<'_, '_>) -> Option<Vec<Network>> {
    let mut networks = Vec::new();
    for text in table.get::<Vec<Spanned<String>>>("trusted_proxies")? {
        match text.get_ref().parse::<Network>() {
            Ok(_) if text.get_ref().ends_with("/0") => {
                table.mistake(&text.span(), "everyone would be a trusted proxy: write the networks of your proxies");
            }
            Ok(network) => networks.push(network),
            Err(message) => table.mistake(&text.span(), message),
        }
    }
    Some(networks)
}

pub(super) fn read_tls(mut table: Table<'_, '_>, base: &Path) -> Option<Option<TlsConfig>> {
    let (certificate, key) = (table.get::<PathBuf>("certificate"), table.get::<PathBuf>("key"));
    Some(Some(TlsConfig { certificate: base.join(certificate?), key: base.join(key?) }))
}

/// Reads `[limits]`.
pub fn read_quota(mut table: Table<'_, '_>) -> Option<QuotaConfig> {
    let rate = table.get::<Count>("requests_per_second");
    let burst = table.at::<Count>("requests_burst");
    let calls = table.get::<Count>("calls_in_flight_max");
    let streams = table.get::<Count>("streams_max");
    let refusals = table.get::<Count>("refusals_per_second");
    let at_once = table.get::<Count>("refusals_burst");
    Some(QuotaConfig {
        requests_per_second: rate?.0,
        requests_burst: burst?.into_inner().0,
        calls_in_flight_max: usize::try_from(calls?.0).ok()?,
        streams_max: usize::try_from(streams?.0).ok()?,
        refusals_per_second: refusals?.0,
        refusals_burst: at_once?.0,
    })
}
