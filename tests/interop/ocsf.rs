//! What a SIEM is sent is OCSF: every event of a demo and of some more is held against the schema.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::parts::Parts;
use crate::support::client::Client;
use crate::support::{eventually, free_address};

#[tokio::test]
async fn every_event_is_what_the_schema_of_ocsf_says() {
    let Some(parts) = Parts::installed() else { return };
    let place = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copied =
        Command::new("cp").args(["-r", "servers.toml", "policies"]).arg(place.path()).current_dir(root).status();
    assert!(copied.unwrap().success());
    let servers = place.path().join("servers.toml");
    let text = std::fs::read_to_string(&servers).unwrap();
    std::fs::write(&servers, format!("{text}\n[export.siem]\nformat = \"ocsf\"\nto = \"file:events.jsonl\"\n"))
        .unwrap();
    let bailiwick = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
        command.args(words).current_dir(place.path()).env_remove("BAILIWICK_CONFIG").env_remove("CARGO");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let address = free_address().to_string();
    let mut demo = bailiwick(&["demo", "--listen", &address]).spawn().unwrap();
    let events = || std::fs::read_to_string(place.path().join("events.jsonl")).unwrap_or_default();
    // The show is over when its last refusal is there.
    eventually("the events of the show", async || events().contains("flow_refused")).await;
    // Somebody without a token, somebody who is signed out, one who is blocked, a server that is barred, fresh files.
    let knocked = Client::new(&format!("http://{address}/mcp"), None).bare(reqwest::Method::GET, &[]).await;
    assert_eq!(knocked.status, 401);
    let some: [&[&str]; 4] = [
        &["revoke", "subject", "user:demo/alice", "--sign-out"],
        &["revoke", "subject", "user:demo/bob"],
        &["revoke", "server", "deploy"],
        &["reload"],
    ];
    for words in some {
        assert!(bailiwick(words).status().unwrap().success(), "{words:?}");
    }
    eventually("the last of them", async || events().contains("\"policy\",\"type\":\"Policy\"")).await;
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    assert!(demo.wait().unwrap().success());
    let file = place.path().join("events.jsonl").display().to_string();
    let told = parts.run(&parts.python_command("python"), &[&Parts::script("ocsf_events.py"), &file]).await;
    assert_eq!(told["problems"], serde_json::json!([]), "{told:#}");
    for class in ["api_activity", "account_change", "authentication", "entity_management", "application_lifecycle"] {
        assert!(told["seen"][class].as_u64().is_some_and(|count| count > 0), "{class}: {told:#}");
    }
}
