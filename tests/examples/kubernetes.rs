//! `examples/deploy/kubernetes` against what the gateway does: ports, probes, mounts, configuration.

use std::path::{Path, PathBuf};

use bailiwick::config::keys;
use bailiwick::limit;
use serde::Deserialize as _;
use serde_json::Value;

use super::{Overrides, Understood, deployed, lines, read, root};

/// Every document of a file.
fn documents(name: &str) -> Vec<Value> {
    let text = deployed(&format!("kubernetes/{name}"));
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
    documents.map(|document| document.unwrap_or_else(|error| panic!("{name}: {error}"))).collect()
}

/// The value at a path of members; a number is an index.
fn at<'a>(mut value: &'a Value, path: &str) -> &'a Value {
    // A label has a slash in its name.
    for member in path.replace("kubernetes.io/name", "kubernetes.io~name").split('/') {
        let member = member.replace('~', "/");
        let next = match member.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(&member),
        };
        value = next.unwrap_or_else(|| panic!("no {member} of {path}"));
    }
    value
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_else(|| panic!("{path} is no text"))
}

fn number(value: &Value, path: &str) -> i64 {
    at(value, path).as_i64().unwrap_or_else(|| panic!("{path} is no number"))
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().unwrap_or_else(|| panic!("{path} is no list"))
}

fn of_kind(documents: &[Value], kind: &str) -> Vec<Value> {
    documents.iter().filter(|document| text(document, "kind") == kind).cloned().collect()
}

fn only(documents: &[Value], kind: &str) -> Value {
    let mut found = of_kind(documents, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found.remove(0)
}

fn pod() -> Value {
    at(&only(&documents("gateway.yaml"), "StatefulSet"), "spec/template/spec").clone()
}

/// The files as the pod sees them, below a directory; keys that this version does not know yet are left out.
fn mounted(directory: &Path) -> PathBuf {
    let config = only(&documents("config.yaml"), "ConfigMap");
    let pod = pod();
    let mut count = 0;
    for mount in list(&pod, "containers/0/volumeMounts").iter().filter(|mount| text(mount, "name") == "config") {
        let path = Path::new(text(mount, "mountPath")).strip_prefix("/etc/bailiwick").unwrap();
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, known(text(&config, &format!("data/{}", text(mount, "subPath"))))).unwrap();
        count += 1;
    }
    assert_eq!(count, at(&config, "data").as_object().unwrap().len(), "a file of the ConfigMap is not mounted");
    directory.join("servers.toml")
}

fn known(text: &str) -> String {
    if keys::GATEWAY.keys.iter().any(|key| key.name == "store") {
        return text.to_owned();
    }
    let mut table = "";
    let kept = text.lines().filter(|line| {
        if line.starts_with('[') {
            table = line;
        }
        table != "[cluster]" && !line.starts_with("store =")
    });
    kept.map(|line| format!("{line}\n")).collect()
}

fn understood() -> (Understood, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let file = mounted(place.path());
    let understood = read(&file, Overrides::default()).unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)));
    (understood, place)
}

#[test]
fn the_configuration_in_the_config_map_is_one_that_check_accepts() {
    let (understood, _place) = understood();
    assert_eq!(lines(&understood.warnings), "");
    let report = understood.policy.run_tests();
    assert!(report.failed.is_empty() && report.passed > 1 && report.untested_servers.is_empty(), "{report:?}");
    // The Casbin model is the repository's, its comments aside.
    let rows = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
    };
    let model = std::fs::read_to_string(root().join("policies/model.conf")).unwrap();
    let config = only(&documents("config.yaml"), "ConfigMap");
    assert_eq!(rows(text(&config, "data/model.conf")), rows(&model));
}

#[test]
fn what_is_to_be_typed_in_a_pod_can_be_and_makes_new_rules_those_of_all() {
    let readme = deployed("kubernetes/README.md");
    let mut commands = Vec::new();
    for (_, command) in readme.lines().filter_map(|line| line.split_once("/usr/local/bin/bailiwick ")) {
        let words: Vec<&str> = command.split(' ').collect();
        let (code, help, _) = super::bailiwick(&[words[0], "--help"]);
        let known = |word: &&str| !word.starts_with('-') || help.contains(*word);
        assert!(code == Some(0) && words.iter().skip(1).all(known), "{command}");
        commands.push(words);
    }
    assert!(commands.iter().any(|words| words[0] == "reload" && words.contains(&"--allow-widening")), "{commands:?}");
    let tolerated = format!("{} s", limit::REVISION_DIFFERS_MAX.as_secs());
    assert!(readme.contains(&tolerated), "how long the old pods stay ready");
}

#[test]
fn ports_and_probes_are_those_of_the_gateway() {
    let (understood, _place) = understood();
    let (pod, gateway) = (pod(), documents("gateway.yaml"));
    let port = i64::from(understood.config().gateway.listen.port());
    let named = |name: &str| -> i64 {
        let ports = list(&pod, "containers/0/ports");
        let found = ports.iter().find(|port| text(port, "name") == name);
        number(found.unwrap_or_else(|| panic!("no port {name}")), "containerPort")
    };
    assert_eq!(named("https"), port);
    let front = std::fs::read_to_string(root().join("src/front/mod.rs")).unwrap();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let asked = at(&pod, &format!("containers/0/{probe}/httpGet"));
        assert!(
            front.contains(&format!("\"{}\"", text(asked, "path"))),
            "{probe}: there is no {}",
            text(asked, "path")
        );
        assert_eq!(named(text(asked, "port")), port, "{probe}");
        let tls = understood.config().gateway.tls.is_some();
        assert_eq!(text(asked, "scheme"), if tls { "HTTPS" } else { "HTTP" }, "{probe}");
    }
    assert_eq!(text(&pod, "containers/0/readinessProbe/httpGet/path"), "/readyz");
    let startup = at(&pod, "containers/0/startupProbe");
    let waits = number(startup, "periodSeconds") * number(startup, "failureThreshold");
    let upgrade = i64::try_from(limit::STORE_UPGRADE_WAIT_MAX.as_secs()).unwrap();
    assert!(waits > upgrade, "a pod that waits for an upgrade of the tables is killed");
    for service in of_kind(&gateway, "Service") {
        for target in list(&service, "spec/ports") {
            named(text(target, "targetPort"));
        }
    }
    let cluster: toml::Table =
        text(&only(&documents("config.yaml"), "ConfigMap"), "data/servers.toml").parse().unwrap();
    let peers = cluster["cluster"]["listen"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(named("peers"), peers);
    let policy = only(&documents("network.yaml"), "NetworkPolicy");
    let open: Vec<i64> = list(&policy, "spec/ingress")
        .iter()
        .flat_map(|rule| list(rule, "ports").iter().map(|port| number(port, "port")))
        .collect();
    assert_eq!(open, [port, peers], "what the network lets in is what is listened on");
}

#[test]
fn what_the_configuration_names_is_mounted_and_what_is_written_is_on_the_volume() {
    let (understood, _place) = understood();
    let (pod, set) = (pod(), only(&documents("gateway.yaml"), "StatefulSet"));
    let config = understood.config();
    let mounts: Vec<(&str, &str)> = list(&pod, "containers/0/volumeMounts")
        .iter()
        .map(|mount| (text(mount, "name"), text(mount, "mountPath")))
        .collect();
    let mount_of = |path: &Path| mounts.iter().find(|(_, place)| path.starts_with(place)).map(|(name, _)| *name);
    let claim = text(&set, "spec/volumeClaimTemplates/0/metadata/name");
    assert_eq!(mount_of(&config.gateway.state), Some(claim), "the record is on the replica's own volume");
    // The volume's root belongs to root, and the gateway's directory must be its own.
    assert!(mounts.iter().all(|(_, place)| config.gateway.state != Path::new(place)));

    let items = |volume: &str| -> Option<Vec<String>> {
        let volume = list(&pod, "volumes").iter().find(|own| text(own, "name") == volume)?.clone();
        let items = volume.get("secret")?.get("items")?.as_array()?.clone();
        Some(items.iter().map(|item| text(item, "path").to_owned()).collect())
    };
    let servers = text(&only(&documents("config.yaml"), "ConfigMap"), "data/servers.toml").to_owned();
    let named: Vec<&str> = servers.split('"').filter(|part| part.contains("/run/bailiwick/")).collect();
    assert!(named.len() >= 8, "{named:?}");
    for name in named {
        let path = Path::new(name.trim_start_matches("file:"));
        let volume = mount_of(path).unwrap_or_else(|| panic!("{name} is not mounted"));
        let file = path.file_name().unwrap().to_str().unwrap();
        assert!(items(volume).is_none_or(|items| items.iter().any(|item| item == file)), "{name} is not in {volume}");
    }
    let variables: Vec<&str> = list(&pod, "containers/0/env").iter().map(|own| text(own, "name")).collect();
    for named in servers.split("\"env:").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(variables.contains(&named), "{named} is not set");
    }
    let size = |text: &str| text.trim_end_matches("Gi").parse::<u64>().unwrap() << 30;
    let disk = size(text(&set, "spec/volumeClaimTemplates/0/spec/resources/requests/storage"));
    assert!(config.record.keep_bytes.unwrap() + config.record.reserve_bytes < disk, "the record does not fit");
    let grace = u64::try_from(number(&pod, "terminationGracePeriodSeconds")).unwrap();
    assert!(config.gateway.shutdown_grace.as_secs() + 10 < grace, "calls in flight would be cut off");
}

#[test]
fn the_pod_has_no_more_rights_than_it_needs_and_is_never_without_a_peer() {
    let (pod, gateway) = (pod(), documents("gateway.yaml"));
    let is = |path: &str, expected: bool| assert_eq!(at(&pod, path).as_bool(), Some(expected), "{path}");
    is("securityContext/runAsNonRoot", true);
    is("automountServiceAccountToken", false);
    is("containers/0/securityContext/allowPrivilegeEscalation", false);
    is("containers/0/securityContext/readOnlyRootFilesystem", true);
    assert_eq!(text(&pod, "securityContext/seccompProfile/type"), "RuntimeDefault");
    assert_eq!(text(&pod, "containers/0/securityContext/capabilities/drop/0"), "ALL");
    let set = only(&gateway, "StatefulSet");
    assert_eq!(number(&set, "spec/replicas"), 3);
    assert_eq!(number(&only(&gateway, "PodDisruptionBudget"), "spec/maxUnavailable"), 1);
    let own = text(&set, "spec/template/metadata/labels/app.kubernetes.io/name");
    assert_eq!(text(&set, "spec/selector/matchLabels/app.kubernetes.io/name"), own);
    let words: Vec<&str> = list(&pod, "containers/0/args").iter().map(|word| word.as_str().unwrap()).collect();
    let (code, help, _) = super::bailiwick(&[words[0], "--help"]);
    assert!(code == Some(0) && help.contains(words[1]), "{words:?}");
    assert_eq!(words[2], "/etc/bailiwick/servers.toml");
    // Nothing secret is in any of the files.
    for file in ["config.yaml", "gateway.yaml", "network.yaml"] {
        assert!(of_kind(&documents(file), "Secret").is_empty(), "{file}");
    }
}
