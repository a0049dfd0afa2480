//! The files for Kubernetes are what its API takes: held against the schemas of an older and of the newest version.

use std::process::Command;

use crate::parts::Parts;

/// Versions of the API.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

#[test]
fn every_object_is_what_the_api_of_kubernetes_takes_and_one_with_a_mistake_is_not() {
    let Some(parts) = Parts::installed() else { return };
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deploy/kubernetes");
    let files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    let objects: usize =
        files.iter().map(|path| std::fs::read_to_string(path).unwrap().matches("kind: ").count()).sum();
    let checked = |version: &str, files: &[std::path::PathBuf]| {
        let mut command = Command::new(parts.python_command("python"));
        let output =
            command.args(["-m", "kubernetes_validate", "--strict", "-k", version]).args(files).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).unwrap())
    };
    for version in VERSIONS {
        let (is_good, told) = checked(version, &files);
        assert!(is_good, "{told}");
        assert_eq!(told.matches(" passed for resource ").count(), objects, "{version}: {told}");
    }
    let place = tempfile::tempdir().unwrap();
    let wrong = place.path().join("gateway.yaml");
    let text = std::fs::read_to_string(directory.join("gateway.yaml")).unwrap();
    std::fs::write(&wrong, text.replace("readinessProbe:", "readynessProbe:")).unwrap();
    let (is_good, told) = checked(VERSIONS[0], &[wrong]);
    assert!(!is_good && told.contains("readynessProbe"), "{told}");
}
