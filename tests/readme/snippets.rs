//! Every snippet of a configuration in the papers is loaded by what loads the files, as the part of a whole set that it
//! is: what it leaves out is completed here, and what it says stays as it is written.

use std::path::Path;

use bailiwick::config::{FileSet, Overrides};
use bailiwick::gateway::understand::understand;

use super::{pages, root};

/// What stands in `servers.toml` beside a snippet, unless the snippet has that table itself.
const SERVERS: [(&str, &str); 7] = [
    ("gateway", "public_url = \"https://mcp.example.com\"\n"),
    ("issuers.corp", "issuer = \"https://idp.example.com\"\ninteractive_default = \"assistant\"\n"),
    ("servers.crm", SERVER),
    ("servers.deploy", SERVER),
    ("servers.git", SERVER),
    ("servers.mail", SERVER),
    ("servers.notes", SERVER),
];
const SERVER: &str = "owner = \"user:corp/anna\"\nenvironment = \"production\"\nurl = \"https://up.example.com/mcp\"\n";
const ASSISTANT: &str = "[agents.assistant]\nowner = \"user:corp/anna\"\npurpose = \"talks to people\"\n\
                         kind = \"interactive\"\nenvironments = [\"production\"]\n";
const RULE: &str = "p, user:corp/anna, production, notes/read, call, -, allow\n";
/// Conditions that snippets name.
const CONDITIONS: &str = "[outside-company]\nargument = \"to\"\nends_with = [\"@example.com\"]\n\
                          [known-recipient]\nargument = \"to\"\nends_with = [\"@example.com\"]\n\
                          [small-rollout]\nargument = \"replicas\"\nat_most = 5\n";
const LABELS: &str = "[[label]]\nobjects = [\"mail/send\"]\neffect = \"irreversible\"\nsends = \"external\"\n";

/// A set of files that one snippet is a part of.
#[derive(Default)]
struct Set {
    servers: String,
    agents: String,
    policy: String,
    conditions: String,
    labels: String,
    gates: String,
    tests: String,
    mandates: String,
    pins: String,
}

impl Set {
    /// Writes the files and loads them as `serve` does.
    fn load(&self, directory: &Path) -> Result<(), String> {
        let mut servers = self.servers.clone();
        for (table, lines) in SERVERS {
            if !self.servers.lines().any(|line| line == format!("[{table}]")) {
                servers.push_str(&format!("\n[{table}]\n{lines}"));
            }
        }
        let policies = directory.join("policies");
        std::fs::create_dir(&policies).unwrap();
        std::fs::write(directory.join("servers.toml"), servers).unwrap();
        std::fs::copy(root().join("policies/model.conf"), policies.join("model.conf")).unwrap();
        for (name, text) in [
            ("agents.toml", format!("{ASSISTANT}{}", self.agents)),
            ("policy.csv", format!("{RULE}{}", self.policy)),
            ("conditions.toml", self.conditions.clone()),
            ("labels.toml", self.labels.clone()),
            ("gates.toml", self.gates.clone()),
            ("tests.toml", self.tests.clone()),
            ("mandates.toml", self.mandates.clone()),
            ("pins.lock", self.pins.clone()),
        ] {
            if !text.is_empty() {
                std::fs::write(policies.join(name), text).unwrap();
            }
        }
        let today = Some(jiff::civil::date(2026, 11, 30));
        let set = FileSet::read(&directory.join("servers.toml"));
        let understood = set.and_then(|set| understand(set, &Overrides { today, ..Overrides::default() }));
        let lines = |mistakes: Vec<bailiwick::config::Mistake>| {
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let report = understood.map_err(lines)?.policy.run_tests();
        if report.failed.is_empty() { Ok(()) } else { Err(format!("{report:?}")) }
    }
}

/// The toml and csv blocks of a page.
fn snippets(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match &mut block {
            None if line == "```toml" || line == "```csv" => block = Some(String::new()),
            None => {}
            Some(_) if line == "```" => found.extend(block.take()),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    found
}

/// The set that a snippet belongs to, found by how it begins; `None` for one that nobody has said that of yet.
fn set_of(first: &str, snippet: String) -> Option<Set> {
    let conditions = CONDITIONS.to_owned();
    let admin = "[admin]\nlisten = \"127.0.0.1:9443\"\npublic_url = \"https://mcp.example.com:9443\"\n\
                 clients = [{ issuer = \"corp\", client_id = \"bailiwick-admin\" }]\n";
    Some(match first {
        // Tables of servers.toml that stand for themselves.
        "[export.siem]" | "[telemetry]" | "[gateway]" | "[admin]" | "[feeds.corp]" | "[servers.notes]" => {
            Set { servers: snippet, ..Set::default() }
        }
        // "beside [admin] above".
        "[admin.console]" => Set { servers: format!("{admin}{snippet}"), ..Set::default() },
        // What is about credentials leaves out what every server has, and that the gateway is a client of the issuer.
        "[servers.tickets]" => {
            let servers = format!("{snippet}owner = \"user:corp/anna\"\nenvironment = \"production\"\n");
            Set { servers, ..Set::default() }
        }
        // One block, two files.
        "[issuers.cluster]" => {
            let (servers, agents) = snippet.split_once("# policies/agents.toml\n")?;
            let servers = format!("environments = [\"development\"]\n{servers}");
            Set { servers, agents: agents.to_owned(), ..Set::default() }
        }
        "[gates.production]" => Set {
            gates: snippet,
            conditions,
            labels: LABELS.to_owned(),
            policy: "g2, notes/add_note, notes/@write\n".to_owned(),
            ..Set::default()
        },
        "[break_glass.outage]" => {
            let policy = "p, role:firefighter, production, deploy/rollout, call, -, allow\n".to_owned();
            Set { gates: snippet, policy, servers: admin.to_owned(), ..Set::default() }
        }
        "p, role:firefighter, production, deploy/@write, call, -, allow" => Set {
            policy: format!("g2, deploy/rollout, deploy/@write\n{snippet}"),
            gates: "[break_glass.outage]\nrole = \"role:firefighter\"\nwho = [\"group:corp/oncall\"]\n\
                    approvers = [\"group:corp/sre-leads\"]\n"
                .to_owned(),
            servers: admin.to_owned(),
            ..Set::default()
        },
        "g,  group:corp/platform, role:developer, production" => Set { policy: snippet, conditions, ..Set::default() },
        "p, agent:report-bot, *, bailiwick/mandate:nightly, admin, -, allow" => Set {
            policy: snippet,
            agents:
                "[agents.report-bot]\nowner = \"user:corp/anna\"\npurpose = \"writes reports\"\nkind = \"autonomous\"\n\
                     environments = [\"production\"]\nclients = [{ issuer = \"corp\", client_id = \"report-bot\" }]\n"
                    .to_owned(),
            mandates: "[templates.nightly]\ntitle = \"the report of the night\"\ntools = [\"notes/*\"]\n\
                       environments = [\"production\"]\nagents = [\"report-bot\"]\nwall_time = \"1h\"\n"
                .to_owned(),
            servers: admin.to_owned(),
            ..Set::default()
        },
        "mode = \"enforce\"" => {
            Set { labels: snippet, conditions, policy: "g2, mail/inbox, mail/@read\n".to_owned(), ..Set::default() }
        }
        "[small-rollout]" => Set { conditions: snippet, labels: LABELS.to_owned(), ..Set::default() },
        "[[test]]" => Set {
            tests: snippet,
            policy: "g, group:corp/platform, role:developer, production\n\
                     p, role:developer, production, deploy/rollout, call, -, allow\n\
                     p, agent:assistant, *, */*, call, -, allow\n"
                .to_owned(),
            ..Set::default()
        },
        // Digests are cut short on the page.
        "version = 1" => {
            let whole = |digest: &str| format!("\"{digest}{}\"", "0".repeat(64 - digest.len()));
            let mut parts: Vec<&str> = snippet.split("...\"").collect();
            let last = parts.pop()?;
            let mut pins = String::new();
            for part in parts {
                let (before, digest) = part.rsplit_once('"')?;
                pins.push_str(&format!("{before}{}", whole(digest)));
            }
            Set { pins: format!("{pins}{last}"), ..Set::default() }
        }
        _ => return None,
    })
}

#[test]
fn every_snippet_of_a_configuration_is_loaded() {
    let mut loaded = 0;
    for page in pages() {
        let name = page.strip_prefix(root()).unwrap().display().to_string();
        for snippet in snippets(&name) {
            let first = snippet.lines().next().unwrap_or_default().split('#').next().unwrap().trim_end().to_owned();
            let set = set_of(&first, snippet);
            let set = set.unwrap_or_else(|| panic!("{name}: nobody has said what `{first}` is a part of"));
            let directory = tempfile::tempdir().unwrap();
            let result = set.load(directory.path());
            assert!(result.is_ok(), "{name}: `{first}`: {}", result.unwrap_err());
            loaded += 1;
        }
    }
    assert!(loaded >= 18, "only {loaded} snippets were found");
}

#[test]
fn a_snippet_with_a_mistake_would_be_noticed() {
    for (first, snippet) in [
        ("[telemetry]", "[telemetry]\notlp = \"http://collector:4318\"\nsample = 10\n"),
        ("mode = \"enforce\"", "mode = \"enforced\"\n"),
        ("[small-rollout]", "[small-rollout]\nargument = \"replicas\"\nat_most = \"5\"\n"),
        ("g,  group:corp/platform, role:developer, production", "g, group:corp/platform, developer, production\n"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        assert!(set_of(first, snippet.to_owned()).unwrap().load(directory.path()).is_err(), "{snippet}");
    }
}
