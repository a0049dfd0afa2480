//! `[admin]`: what an administrators' listener may be.

use super::*;
use crate::limit;

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:9443\"\n";

fn with(lines: &str) -> String {
    format!("{SMALLEST}{ADMIN}{lines}")
}

#[test]
fn without_the_section_there_is_no_listener_and_with_it_the_defaults_are_strict() {
    assert!(config(SMALLEST).admin.is_none());
    let config = config(&with("clients = [{ issuer = \"corp\", client_id = \"bailiwick-admin\" }]\n"));
    let admin = config.admin.as_ref().unwrap();
    assert_eq!(admin.resource(), "https://mcp.example.com/admin");
    assert_eq!(admin.auth_age_max, Duration::from_secs(300));
    let corp = IssuerAlias::new("corp").unwrap();
    assert!(admin.has_client(&corp, Some("bailiwick-admin")) && !admin.has_client(&corp, Some("desk")));
    assert!(
        !admin.has_client(&corp, None) && !admin.has_client(&IssuerAlias::new("x").unwrap(), Some("bailiwick-admin"))
    );
}

#[test]
fn people_say_yes_in_the_console_and_with_a_client_of_which_that_is_written() {
    let corp = IssuerAlias::new("corp").unwrap();
    let clients = "clients = [{ issuer = \"corp\", client_id = \"cli\" }, \
                   { issuer = \"corp\", client_id = \"pages\", approves = true }, \
                   { issuer = \"corp\", client_id = \"console\" }]\n";
    let approve = |lines: &str| {
        let admin = config(&with(lines)).admin.unwrap();
        ["cli", "pages", "console"].map(|client| {
            assert!(admin.has_client(&corp, Some(client)));
            admin.approves_with(&corp, Some(client))
        })
    };
    assert_eq!(approve(clients), [false, true, false]);
    let console = "[admin.console]\nissuer = \"corp\"\nclient_id = \"console\"\n";
    let text = with(&format!("public_url = \"https://admin.example.com\"\n{clients}{console}"));
    let admin = config(&text).admin.unwrap();
    assert!(admin.approves_with(&corp, Some("console")) && !admin.approves_with(&corp, Some("cli")));
}

#[test]
fn a_listener_with_a_name_of_its_own_is_called_by_that() {
    let config = config(&with("public_url = \"https://admin.example.com:9443\"\n"));
    assert_eq!(config.admin.unwrap().resource(), "https://admin.example.com:9443/admin");
}

#[test]
fn what_an_administrator_would_regret_is_a_mistake_at_its_place() {
    let hour = limit::ADMIN_AUTH_AGE_MAX.as_secs();
    assert!(read_with(&with(&format!("auth_age_max = \"{hour}s\"\n")), AGENTS, &today()).is_ok());
    let too_long = format!("auth_age_max = \"{}s\"\n", hour + 1);
    for (lines, place, told) in [
        (too_long.as_str(), "12:16", "not recent"),
        ("public_url = \"http://admin.example.com\"\n", "12:14", "in the clear"),
        ("public_url = \"https://admin.example.com/\"\n", "12:14", "ends with a slash"),
        ("clients = [{ issuer = \"corp\", client_id = \"desk\" }]\n", "12:1", "is the agent `assistant`'s"),
        ("clients = [{ issuer = \"crop\", client_id = \"x\" }]\n", "12:23", "did you mean `corp`"),
        ("clients = [{ issuer = \"corp\" }]\n", "12:12", "no `client_id`"),
        ("acr = [\"a b\"]\n", "12:7", "a blank"),
        ("allowed_hosts = [\"*\"]\n", "12:18", "not a host name"),
        ("acl = []\n", "12:1", "not a key of admin"),
    ] {
        let found = mistakes(&with(lines));
        assert!(found.starts_with(&format!("servers.toml:{place}: ")) && found.contains(told), "{lines}: {found}");
    }
}

#[test]
fn it_is_plain_and_open_only_where_that_is_written() {
    let open = |lines: &str| format!("{SMALLEST}[admin]\nlisten = \"0.0.0.0:9443\"\n{lines}");
    assert!(mistakes(&open("")).contains("plain HTTP that other machines can reach"));
    assert!(read_with(&open("allow_plain_http = true\n"), AGENTS, &today()).is_ok());
    let tls = "[admin.tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n";
    let config = config(&open(tls));
    assert!(config.kept().contains(&Path::new("/etc/bailiwick/a.key").to_owned()), "no child reads its key");
    let loopback = SMALLEST.replace("[issuers", "allow_loopback_issuers = true\n[issuers");
    let file = format!("{loopback}[admin]\nlisten = \"0.0.0.0:9443\"\nallow_plain_http = true\n");
    assert!(mistakes(&file).contains("needs loopback listeners"));
    let taken = format!("{SMALLEST}[admin]\nlisten = \"127.0.0.1:7800\"\n");
    assert!(mistakes(&taken).contains("MCP is served on that address"));
}

#[test]
fn who_could_give_nothing_back_or_with_any_login_is_warned() {
    let warnings = |lines: &str| super::lines(&read_with(&with(lines), AGENTS, &today()).unwrap().1);
    assert!(warnings("").contains("nobody can lift"));
    let client = "clients = [{ issuer = \"corp\", client_id = \"x\" }]\n";
    assert!(warnings(client).contains("admin.acr is empty"));
    assert_eq!(warnings(&format!("{client}acr = [\"mfa\"]\n")), "");
}

#[test]
fn an_audience_is_for_mcp_or_for_administrators() {
    let both = SMALLEST
        .replace("[servers.notes]", "audiences = [\"api://x\"]\nadmin_audiences = [\"api://x\"]\n[servers.notes]");
    assert!(mistakes(&both).contains("would administer the gateway"), "{}", mistakes(&both));
}
