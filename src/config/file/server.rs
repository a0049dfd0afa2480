//! Reads `[servers.ID]`: an upstream, who answers for it, how it is reached, what it is shown.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::address::{http_url, is_loopback, is_private};
use super::agent::subject;
use super::command::{Pinned, pinned, secret_word};
use super::credential::{self, header_name, is_reserved, looks_like_a_secret, names_a_secret, variable};
use super::local::PRODUCTION;
use super::process::{self, Places};
use crate::config::keys;
use crate::config::leaf::{Count, Day, Period};
use crate::config::load::Overrides;
use crate::config::reader::Table;
use crate::config::{
    AgentBudget, CredentialConfig, HealthConfig, Isolation, ListAs, PinMode, Prefix, ServerConfig, TransportConfig,
};
use crate::ids::{Environment, GATEWAY_SERVER, ServerId};
use crate::limit;

/// How a server's id is spelled; one is the gateway's own.
pub fn id(text: &str) -> Result<ServerId, String> {
    if text == GATEWAY_SERVER {
        return Err("`bailiwick` is the gateway's own name in rules: call the server something else".to_owned());
    }
    ServerId::new(text).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PrefixText {
    Server,
    None,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ListAsText {
    Gateway,
    Caller,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PinsText {
    Strict,
    FirstUse,
    Off,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum IsolationText {
    Principal,
    Shared,
}

/// Reads one server.
pub fn read(mut table: Table<'_, '_>, id: ServerId, places: Places<'_>, overrides: &Overrides) -> Option<ServerConfig> {
    let base = places.base;
    let title = table.get::<String>("title");
    let owner = subject(&mut table, "owner", &["user:", "group:"]);
    let review = table.at::<Day>("review");
    let expires = table.at::<Day>("expires");
    let discoverable = table.get::<bool>("discoverable");
    let environment = table.at::<Environment>("environment");
    if let Some(environment) = environment.as_ref().filter(|environment| environment.get_ref().as_str() == "gateway") {
        table.mistake(
            &environment.span(),
            "`gateway` is the environment of the gateway's own operations: use another name",
        );
    }
    if let (Some(environment), Some(_)) = (&environment, &overrides.local)
        && let Some(message) = super::local::refused(environment.get_ref())
    {
        table.mistake(&environment.span(), message);
    }
    let environment = environment.map(Spanned::into_inner);
    let transport = read_transport(&mut table, &id, environment.as_ref(), places, overrides);
    let credential = read_credential(&mut table, base);
    let tool_credentials = read_tool_credentials(&mut table, base);
    let tool_budgets = read_tool_budgets(&mut table);
    let prefix = table.get::<PrefixText>("prefix");
    let list_as_written = table.has("list_as");
    let list_as = table.get::<ListAsText>("list_as");
    let isolation = table.get::<IsolationText>("isolation");
    let pins_written = table.has("pins");
    let pins = table.get::<PinsText>("pins");
    let idempotent = table.get::<Vec<String>>("idempotent");
    let on_down = table.get::<Period>("on_down");
    let list_refresh_min = table.get::<Period>("list_refresh_min");
    let uris = read_uris(&mut table);
    let health = table.table_or_empty("health", &keys::HEALTH).and_then(read_health);
    let forward_headers = read_forward_headers(&mut table);
    let elicit_url_hosts = read_url_hosts(&mut table);

    if let Some(review) = review.as_ref().filter(|review| review.get_ref().0 < overrides.today()) {
        table.source.warning(&review.span(), format!("the review of server `{id}` is overdue"));
    }
    if let Some(expires) = expires.as_ref().filter(|expires| expires.get_ref().0 < overrides.today()) {
        table.source.warning(&expires.span(), format!("server `{id}` has expired and is there for nobody"));
    }
    let (transport, credential, tool_credentials) = (transport?, credential?, tool_credentials?);
    process::check_credential(&table, &transport, &credential, !tool_credentials.is_empty());
    let mut accounts =
        std::iter::once(&credential).chain(tool_credentials.values()).filter_map(CredentialConfig::account);
    if let Some(first) = accounts.next()
        && accounts.any(|other| other != first)
    {
        let message = "a caller has one account at a server: write the same `oauth` credential for each of its tools";
        table.mistake(&table.span, message);
    }
    let per_caller = credential.is_per_caller();
    let is_production = environment.as_ref().is_some_and(|environment| environment.as_str() == PRODUCTION);
    Some(ServerConfig {
        title,
        owner: owner?,
        review: review.map(|day| day.into_inner().0),
        expires: expires.map(|day| day.into_inner().0),
        discoverable: discoverable?,
        environment: environment?,
        transport,
        credential,
        tool_credentials,
        tool_budgets,
        prefix: match prefix? {
            PrefixText::Server => Prefix::Server,
            PrefixText::None => Prefix::None,
        },
        list_as: match list_as {
            Some(ListAsText::Gateway) => ListAs::Gateway,
            Some(ListAsText::Caller) => ListAs::Caller,
            None if list_as_written => return None,
            // Where credentials are per caller, what one caller may list is nobody else's business.
            None if per_caller => ListAs::Caller,
            None => ListAs::Gateway,
        },
        isolation: match isolation? {
            IsolationText::Principal => Isolation::Principal,
            IsolationText::Shared => Isolation::Shared,
        },
        pins: match pins {
            Some(PinsText::Strict) => PinMode::Strict,
            Some(PinsText::FirstUse) => PinMode::FirstUse,
            Some(PinsText::Off) => PinMode::Off,
            None if pins_written => return None,
            None if is_production => PinMode::Strict,
            None => PinMode::FirstUse,
        },
        idempotent: idempotent?,
        on_down: on_down?.0,
        list_refresh_min: list_refresh_min?.0,
        uris: uris?,
        health: health?,
        forward_headers: forward_headers?,
        elicit_url_hosts: elicit_url_hosts?,
        // Of `[record]`.
        redact: Vec::new(),
        id,
    })
}

fn read_transport(
    table: &mut Table<'_, '_>,
    id: &ServerId,
    environment: Option<&Environment>,
    places: Places<'_>,
    overrides: &Overrides,
) -> Option<TransportConfig> {
    let base = places.base;
    let (url_place, command_place) = (table.place("url"), table.place("command"));
    let (has_url, has_command) = (table.has("url"), table.has("command"));
    let url = table.at::<String>("url");
    let allow_private = table.get::<bool>("allow_private");
    let allow_plain_http = table.get::<bool>("allow_plain_http");
    let command = table.at::<Vec<Spanned<String>>>("command");
    let variables_place = table.place("variables");
    let has_variables = table.has("variables");
    let variables = read_variables(table, base);
    let has_directory = table.has("directory");
    let directory_place = table.place("directory");
    let directory = table.at::<PathBuf>("directory");
    let held = process::read(table, places);
    match (has_url, has_command) {
        (true, true) => {
            table.mistake(&command_place, "a server is reached one way: remove `url` or `command`");
            None
        }
        (false, false) => {
            table.mistake(
                &table.span,
                "how is this server reached? write url = \"https://...\" or command = [\"program\", ...]",
            );
            None
        }
        (true, false) => {
            if has_variables || has_directory {
                let place = if has_variables { variables_place } else { directory_place };
                table.mistake(&place, "only a server with a `command` has variables and a directory: remove this");
            }
            if let Some(place) = held.first() {
                let message = "only a server with a `command` has a process to be held: remove this";
                table.mistake(place, message);
            }
            let text = url?;
            match check_url(text.get_ref(), allow_private?, allow_plain_http?) {
                Ok(url) => {
                    let url = overrides.server_urls.get(id).cloned().unwrap_or(url);
                    Some(TransportConfig::Http { url, allow_private: allow_private? })
                }
                Err(message) => {
                    table.mistake(&text.span(), message);
                    None
                }
            }
        }
        (false, true) => {
            if allow_private? || allow_plain_http? {
                table.mistake(
                    &url_place,
                    "only a server with a `url` has allow_private and allow_plain_http: remove it",
                );
            }
            let mut command = check_command(table, command?, environment)?;
            // A name is looked up in the child's PATH; a path that is not absolute starts where the file is.
            if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
                *program = base.join(&*program).display().to_string();
            }
            let process = held.check(table, id, directory.as_ref(), places);
            Some(TransportConfig::Stdio {
                command,
                environment: variables?,
                directory: directory.map(|path| base.join(path.into_inner())),
                process: process?,
            })
        }
    }
}

fn check_url(text: &str, allow_private: bool, allow_plain_http: bool) -> Result<Url, String> {
    let url = http_url(text)?;
    if is_private(&url) && !allow_private {
        return Err(format!(
            "`{}` is a private address, which the guard against request forgery refuses: write allow_private = true if \
             this server is meant to be there",
            url.host_str().unwrap_or("")
        ));
    }
    if url.scheme() == "http" && !is_loopback(&url) && !allow_plain_http {
        return Err(
            "credentials and data would travel in the clear: write https://, or allow_plain_http = true".to_owned()
        );
    }
    let secret = url.query_pairs().find(|(name, value)| names_a_secret(name) || looks_like_a_secret(value));
    if let Some((name, _)) = secret {
        return Err(format!(
            "`{name}` in a URL ends up in logs: use credential = {{ kind = \"static\", secret = \"env:NAME\" }}"
        ));
    }
    Ok(url)
}

fn check_command(
    table: &Table<'_, '_>,
    command: Spanned<Vec<Spanned<String>>>,
    environment: Option<&Environment>,
) -> Option<Vec<String>> {
    let span = command.span();
    let (places, words): (Vec<_>, Vec<_>) =
        command.into_inner().into_iter().map(|word| (word.span(), word.into_inner())).unzip();
    if words.first().is_none_or(|program| program.trim().is_empty()) {
        table.mistake(&span, "a command has a program as its first word: write command = [\"program\", \"argument\"]");
        return None;
    }
    if words.iter().any(|word| word.contains('\0')) {
        table.mistake(&span, "a word of a command cannot contain a NUL character");
        return None;
    }
    if let Some(place) = secret_word(&words).and_then(|position| places.get(position)) {
        table.mistake(place, "a secret on a command line is readable by every process: hand it over in `variables`");
    }
    if let Pinned::Newest(package) = pinned(&words) {
        let message = format!(
            "`{package}` has no exact version, so what runs can change overnight: write {package}@1.2.3 (npx) or {package}==1.2.3 (uvx)"
        );
        if environment.is_some_and(|environment| environment.as_str() == PRODUCTION) {
            table.mistake(&span, message);
        } else {
            table.source.warning(&span, message);
        }
    }
    Some(words)
}

fn read_variables(table: &mut Table<'_, '_>, base: &Path) -> Option<BTreeMap<String, crate::config::SecretReference>> {
    let mut variables = BTreeMap::new();
    let mut complete = true;
    for (name, value) in table.strings("variables") {
        let spelled = name.get_ref().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let checked = if spelled && !name.get_ref().is_empty() && !value.get_ref().contains('\0') {
            variable(name.get_ref(), value.get_ref(), base)
        } else {
            Err(format!("`{name}` is not a variable's name: use letters, digits and _"))
        };
        match checked {
            Ok(reference) => {
                variables.insert(name.into_inner(), reference);
            }
            Err(message) => {
                complete = false;
                table.mistake(&value.span(), message);
            }
        }
    }
    complete.then_some(variables)
}

fn read_credential(table: &mut Table<'_, '_>, base: &Path) -> Option<CredentialConfig> {
    if !table.has("credential") {
        return Some(CredentialConfig::None);
    }
    table.table("credential", &keys::CREDENTIAL).and_then(|table| credential::read(table, base))
}

fn read_tool_credentials(table: &mut Table<'_, '_>, base: &Path) -> Option<BTreeMap<String, CredentialConfig>> {
    let tools = table.named_tables("tool_credentials", &keys::CREDENTIAL, |tool| {
        if tool.is_empty() { Err("a tool has a name".to_owned()) } else { Ok(tool.to_owned()) }
    });
    tools.into_iter().map(|(tool, table)| Some((tool, credential::read(table, base)?))).collect()
}

fn read_tool_budgets(table: &mut Table<'_, '_>) -> BTreeMap<String, AgentBudget> {
    let tools = table.named_tables("tool_budgets", &keys::TOOL_BUDGET, |tool| {
        let fits = (1..=limit::TOOL_BUDGET_NAME_BYTES_MAX).contains(&tool.len());
        if fits {
            Ok(tool.to_owned())
        } else {
            Err("a tool has a name, and no longer one than can be counted".to_owned())
        }
    });
    let read = |(tool, mut table): (String, Table<'_, '_>)| (tool, super::agent::budget(&mut table));
    tools.into_iter().map(read).collect()
}

fn read_uris(table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let written = table.get::<Vec<Spanned<String>>>("uris")?;
    for uri in &written {
        let scheme = uri.get_ref().split_once(':').map(|(scheme, _)| scheme);
        let spelled = scheme.is_some_and(|scheme| {
            scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
        if !spelled {
            table.mistake(
                &uri.span(),
                format!("`{uri}` is not a URI prefix: write one with its scheme, such as notes://team/"),
            );
        }
    }
    Some(written.into_iter().map(Spanned::into_inner).collect())
}

fn read_health(mut table: Table<'_, '_>) -> Option<HealthConfig> {
    let connect = table.get::<Period>("connect_timeout");
    let first_byte = table.get::<Period>("first_byte_timeout");
    let idle = table.get::<Period>("idle_timeout");
    let call = table.get::<Period>("call_timeout");
    let input = table.get::<Period>("input_timeout");
    let calls = table.get::<Count>("calls_in_flight_max");
    Some(HealthConfig {
        connect_timeout: connect?.0,
        first_byte_timeout: first_byte?.0,
        idle_timeout: idle?.0,
        call_timeout: call?.0,
        input_timeout: input?.0,
        calls_in_flight_max: usize::try_from(calls?.0).ok()?,
    })
}

fn read_forward_headers(table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let written = table.get::<Vec<Spanned<String>>>("forward_headers")?;
    let mut seen = HashMap::new();
    let mut names = Vec::new();
    for text in written {
        let name = text.get_ref().to_ascii_lowercase();
        let checked = header_name(&name).and_then(|()| {
            if matches!(name.as_str(), "authorization" | "cookie" | "forwarded") || name.starts_with("x-forwarded-") {
                return Err(format!(
                    "`{name}` is the caller's business with the gateway and never goes upstream: remove it"
                ));
            }
            if is_reserved(&name) {
                return Err(format!("`{name}` is set by the transport: remove it"));
            }
            Ok(())
        });
        match checked {
            Err(message) => table.mistake(&text.span(), message),
            Ok(()) if seen.insert(name.clone(), ()).is_none() => names.push(name),
            Ok(()) => {}
        }
    }
    Some(names)
}

fn read_url_hosts(table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let written = table.get::<Vec<Spanned<String>>>("elicit_url_hosts")?;
    for host in &written {
        let name = host.get_ref().strip_prefix("*.").unwrap_or(host.get_ref());
        // The spelling that URLs are compared in, so that an entry which could never match is found here.
        if url::Host::parse(name).ok().is_none_or(|parsed| parsed.to_string() != *name) {
            let message = format!(
                "`{host}` is not a host: write a name in lower case without scheme, port and path, or `*.NAME`"
            );
            table.mistake(&host.span(), message);
        }
    }
    Some(written.into_iter().map(Spanned::into_inner).collect())
}
