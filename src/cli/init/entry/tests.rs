//! What entries of other configurations become, and what of them is never shown.

use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

fn places() -> Places {
    Places { home: "/home/me".into(), project: "/work".into() }
}

fn understood(entry: &Value) -> Result<Server, String> {
    understand(entry, &places())
}

#[test]
fn what_cannot_be_taken_over_has_a_reason_that_shows_no_secret() {
    let secret = "sk-0123456789abcdef0123";
    for (entry, reason) in [
        (json!({"command": "x", "disabled": true}), "disabled"),
        (json!({"command": "x", "args": ["--api-key", "hunter2hunter2"]}), "--api-key"),
        (json!({"command": "x", "args": [format!("--k={secret}")]}), "command line"),
        (json!({"command": "x", "args": ["postgres://u:hunter2@h/db"]}), "command line"),
        (json!({"command": "docker", "args": ["run", "-e", "API_KEY=hunter2hunter2", "img"]}), "API_KEY"),
        (json!({"command": "docker", "args": ["run", "--env=TOKEN=hunter2", "img"]}), "TOKEN"),
        (json!({"command": "docker", "args": ["run", "-eTOKEN=hunter2", "img"]}), "TOKEN"),
        (json!({"command": "env", "args": ["githubToken=hunter2", "x"]}), "githubToken"),
        (json!({"command": "x", "args": ["--header", "Authorization: Bearer hunter2"]}), "--header"),
        (json!({"command": "x", "args": ["--header=X: hunter2"]}), "word 2"),
        (json!({"command": "curl", "args": ["-H", "X-Custom: hunter2"]}), "-H"),
        (json!({"command": "x", "args": ["Authorization: Basic hunter2"]}), "word 2"),
        (json!({"command": "x", "args": ["--config", r#"{"a":{"apiKey":"hunter2"}}"#]}), "word 3"),
        (json!({"command": "x", "args": ["https://h/mcp?token=hunter2"]}), "word 2"),
        (
            json!({"command": "npx", "args": ["mcp-remote", "https://h/mcp", "--static-oauth-client-info",
                r#"{"client_secret":"hunter2"}"#]}),
            "--static-oauth-client-info",
        ),
        (json!({"command": "npx", "args": ["mcp-remote", "https://h/mcp", "--new=hunter2"]}), "the option --new "),
        (json!({"command": "npx", "args": ["mcp-remote", "https://h/mcp", "hunter2"]}), "a word"),
        (json!({"command": "env", "args": ["K_TOKEN=hunter2", "mcp-remote", "https://h/mcp"]}), "K_TOKEN"),
        (json!({"command": "bash", "args": ["-c", "x"]}), "shell"),
        (json!({"command": "${BIN}/x"}), "variables"),
        (json!({"url": format!("https://h/mcp?api_key={secret}")}), "query"),
        (json!({"url": "https://h/s/a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8/mcp"}), "secret itself"),
        (json!({"url": "https://u:hunter2@h/mcp"}), "password"),
        (json!({"url": "https://h/mcp", "headers": {"A": secret, "B": secret}}), "2 headers"),
        (json!({"command": "/opt/bailiwick", "args": ["stdio", "--url", "x"]}), "already"),
        (json!({"type": "stdio"}), "neither"),
        (json!("x"), "object"),
    ] {
        let problem = understood(&entry).unwrap_err();
        assert!(problem.contains(reason) && !problem.contains("hunter2") && !problem.contains(secret), "{problem}");
    }
}

#[test]
fn what_holds_no_secret_is_taken_over() {
    for args in [
        json!(["run", "-i", "--rm", "-e", "API_KEY", "-v", "/a:/b", "img/github-token:1.0"]),
        json!(["-H", "tcp://127.0.0.1:2375", "run", "img"]),
        json!(["--level=info", "--config", "{\"level\":\"info\"}", "postgres://me@localhost/db"]),
        json!(["-y", "mcp-remote", "https://h/mcp", "3334", "--transport", "sse-only", "--debug"]),
    ] {
        understood(&json!({"command": "docker", "args": args})).unwrap();
    }
}

#[test]
fn a_header_becomes_a_credential_and_a_bridge_becomes_its_address() {
    for entry in [
        json!({"type": "http", "url": "https://h/mcp", "headers": {"Authorization": "Bearer s3cret"}}),
        json!({"command": "npx", "args": ["-y", "mcp-remote@1", "https://h/mcp", "--header", "Authorization: Bearer s3cret"]}),
    ] {
        let Transport::Http { url, header: Some((name, prefix, secret)) } = understood(&entry).unwrap().transport
        else {
            panic!("not http")
        };
        assert_eq!((url.as_str(), name.as_str(), prefix.as_str()), ("https://h/mcp", "authorization", "Bearer "));
        assert_eq!(secret.value.unwrap().expose_secret(), "s3cret");
    }
    let named = understood(&json!({"url": "https://h/mcp", "headers": {"X-Key": "${env:MY_KEY}"}})).unwrap();
    let Transport::Http { header: Some((_, _, secret)), .. } = named.transport else { panic!("not http") };
    assert!(secret.variable == "MY_KEY" && secret.value.is_none());
}

#[test]
fn every_value_of_an_environment_may_be_a_secret_but_settings() {
    let entry = json!({"command": "npx", "args": ["-y", "a@1.2.3", "${workspaceFolder}/x"],
        "env": {"API": "hunter2", "DEBUG": "true", "TOKEN": "true", "PORT": 80, "U": "${input:u-1}"}});
    let Transport::Stdio { command, variables, .. } = understood(&entry).unwrap().transport else {
        panic!("no process")
    };
    assert_eq!(command.last().unwrap(), "/work/x");
    let kind = |name: &str| match &variables.iter().find(|(own, _)| own == name).unwrap().1 {
        Variable::Plain(value) => value.clone(),
        Variable::Secret(secret) => format!("env:{} {}", secret.variable, secret.value.is_some()),
    };
    assert_eq!(
        ["API", "DEBUG", "TOKEN", "PORT", "U", "PATH"].map(kind),
        ["env:API true", "true", "env:TOKEN true", "env:PORT true", "env:u_1 false", "env:PATH false"]
    );
}
