//! What the loader answers where a file says what a process is and how it is held.

use std::path::{Path, PathBuf};

use super::{AGENTS, config, lines, mistakes, read_with, server_instead, server_with, today};
use crate::config::TransportConfig;
use crate::config::process::{Handover, Network, Reach, Sandbox};
use crate::limit;

#[test]
fn a_process_is_confined_unless_somebody_wrote_that_it_is_not() {
    let config_of = |keys: &str| config(&server_instead(&format!("command = [\"/bin/run\"]\n{keys}")));
    let process = |keys: &str| match &config_of(keys).servers.first().unwrap().transport {
        TransportConfig::Stdio { process, .. } => process.clone(),
        TransportConfig::Http { .. } => panic!("not a command"),
    };
    assert_eq!(process("").sandbox, Sandbox::Required(Reach::default()));
    assert_eq!(process("").limits.memory_mebibytes_max, 2048);
    let given =
        "read = [\"data/../books\"]\nwrite = [\"/srv/drafts\"]\nnetwork = true\nprocess = { open_files_max = 64 }";
    let Sandbox::Required(reach) = process(given).sandbox else { panic!("not confined") };
    assert_eq!(reach.read, [Path::new("/etc/bailiwick/books")]);
    assert_eq!((reach.write.as_slice(), reach.network), ([PathBuf::from("/srv/drafts")].as_slice(), Network::On));
    assert_eq!(process(given).limits.open_files_max, 64);
    let text = server_instead("command = [\"/bin/run\"]\nsandbox = \"none\"");
    let (read, warnings) = read_with(&text, AGENTS, &today()).unwrap();
    assert!(read.servers.first().unwrap().is_unconfined());
    assert!(lines(&warnings).contains("server `notes` runs without a sandbox"));
}

#[test]
fn nothing_of_the_gateways_own_is_given_to_a_process() {
    for keys in [
        "read = [\"/etc\"]",
        "read = [\"state/keys\"]",
        "write = [\"policies\"]",
        "write = [\"/\"]",
        "directory = \".\"",
    ] {
        let said = mistakes(&server_instead(&format!("command = [\"/bin/run\"]\n{keys}")));
        assert!(said.contains("is the gateway's own"), "{keys}: {said}");
    }
    for (keys, said) in [
        ("sandbox = \"none\"\nnetwork = true", "without a sandbox it reaches everything, so `network` says nothing"),
        ("sandbox = \"off\"", "sandbox"),
        ("process = { open_files_max = 0 }", "out of range"),
    ] {
        let found = mistakes(&server_instead(&format!("command = [\"/bin/run\"]\n{keys}")));
        assert!(found.contains(said), "{found}");
    }
    assert!(mistakes(&server_with("network = true")).contains("only a server with a `command`"));
}

#[test]
fn a_process_gets_its_credential_in_a_variable_or_a_file_and_there_has_to_be_one() {
    let exchange =
        "credential = { kind = \"exchange\", issuer = \"https://as.example\", client_id = \"g\", audience = \"s\" }";
    let handover = |keys: &str| {
        let config = config(&server_instead(&format!("command = [\"/bin/run\"]\n{keys}")));
        match &config.servers.first().unwrap().transport {
            TransportConfig::Stdio { process, .. } => (process.handover.clone(), process.instances_max),
            TransportConfig::Http { .. } => panic!("not a command"),
        }
    };
    assert_eq!(handover(""), (None, limit::PROCESSES_PER_SERVER_MAX));
    let variable = format!("{exchange}\ncredential_variable = \"TOKEN\"\nprocess = {{ instances_max = 2 }}");
    assert_eq!(handover(&variable), (Some(Handover::Variable("TOKEN".to_owned())), 2));
    let file = format!("{exchange}\ncredential_file = \"TOKEN_FILE\"");
    assert_eq!(handover(&file).0, Some(Handover::File("TOKEN_FILE".to_owned())));
    let tool = "tool_credentials = { a = { kind = \"none\" } }";
    let account = "credential = { kind = \"oauth\" }\ncredential_variable = \"TOKEN\"";
    let over = limit::PROCESSES_PER_SERVER_CEILING + 1;
    for (keys, said) in [
        (exchange.to_owned(), "a process has no headers"),
        ("credential_variable = \"TOKEN\"".to_owned(), "there is no credential to be handed over in `TOKEN`"),
        (format!("{exchange}\ncredential_variable = \"A\"\ncredential_file = \"B\""), "one way"),
        (format!("{exchange}\ncredential_variable = \"HOME\""), "not a variable for a credential"),
        (format!("{exchange}\ncredential_variable = \"a b\""), "not a variable for a credential"),
        (format!("{exchange}\ncredential_variable = \"A\"\nvariables = {{ A = \"b\" }}"), "already"),
        (format!("{exchange}\ncredential_variable = \"A\"\n{tool}"), "one credential, whatever its tools"),
        (account.to_owned(), "a process has no address"),
        (format!("process = {{ instances_max = {over} }}"), "run at once"),
    ] {
        let found = mistakes(&server_instead(&format!("command = [\"/bin/run\"]\n{keys}")));
        assert!(found.contains(said), "{keys}: {found}");
    }
    assert!(mistakes(&server_with("credential_variable = \"TOKEN\"")).contains("only a server with a `command`"));
}

#[test]
fn an_unpinned_package_is_refused_in_production_and_a_warning_elsewhere() {
    let text = server_instead("command = [\"uvx\", \"mcp-server-git\"]");
    assert!(mistakes(&text).contains("`mcp-server-git` has no exact version"));
    let text = text
        .replace("environment = \"production\"", "environment = \"development\"")
        .replace("[gateway]", "environments = [\"production\"]\n[gateway]");
    let (_, warnings) = read_with(&text, AGENTS, &today()).unwrap();
    assert!(lines(&warnings).contains("has no exact version"));
}

#[test]
fn a_program_beside_the_file_is_found_and_a_name_is_left_to_the_path() {
    for (program, expected) in [("./run", "/etc/bailiwick/./run"), ("/bin/run", "/bin/run"), ("run", "run")] {
        let config = config(&server_instead(&format!("command = [\"{program}\"]")));
        let TransportConfig::Stdio { command, .. } = &config.servers.first().unwrap().transport else {
            panic!("not a command")
        };
        assert_eq!(command, &[expected]);
    }
}

#[test]
fn every_file_that_holds_a_secret_or_what_is_recorded_is_kept_from_every_child() {
    let text = server_with(
        r#"credential = { kind = "static", secret = ["file:held/one", "file:held/two"] }
tool_credentials = { write = { kind = "client_credentials", token_endpoint = "https://as.example/token", client_id = "g", client_secret = "file:held/tool", audience = "notes" } }
[servers.child]
owner = "group:corp/knowledge"
environment = "production"
command = ["/bin/run"]
variables = { KEY = "file:held/variable" }
[issuers.corp.introspection]
client_id = "g"
client_secret = "file:held/introspection"
[issuers.corp.registration]
client_id = "g"
client_secret = "file:held/registration"
[feeds.corp]
issuer = "corp"
[feeds.corp.scim]
secret = "file:held/feed"
[telemetry]
otlp = "https://collector.example"
headers = { api-key = "file:held/telemetry" }
[export.siem]
to = "https://siem.example/in"
format = "ocsf"
secret = "file:held/export"
[export.local]
to = "file:held/events"
format = "ocsf"
[record]
sinks = ["file:held/sink"]
[record.object_store]
endpoint = "https://s3.example"
bucket = "checkpoints"
region = "r"
access_key_id = "file:held/access"
secret_access_key = "file:held/bucket"
[keys]
seal = ["file:held/seal"]
vault = ["file:held/vault"]
"#,
    );
    let kept = config(&text).kept();
    for name in text.split("file:held/").skip(1) {
        let name: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(kept.contains(&Path::new("/etc/bailiwick/held").join(&name)), "{name}: {kept:?}");
    }
}
