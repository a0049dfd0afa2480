//! What a child needs to run: its executable, and what is beside it.
//!
//! Decides which paths of this host every child may read, and which of those that a server names it gets. Knows
//! nothing of how that is enforced. Invariant: nothing that is the gateway's own is ever among them, by whatever
//! name it is reached: paths are compared as the host resolves them.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Confinement, Limits, Profile};
use crate::config::process::{Network, ProcessConfig, ProcessLimits, Reach, Sandbox, overlap};

/// What programs are made of, and what libraries read before a program does anything. What is not there is left out.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/nix/store",
    // Of other processes this shows that they are there and their command lines; what is in them is closed by
    // Landlock, which lets nobody look into a process outside.
    "/proc",
    // How many processors there are, and how much memory.
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];

/// What may be written, because nothing is kept there.
const SINKS: &[&str] = &["/dev/full", "/dev/null"];

/// Where programs are looked for without a `PATH`, as the C library does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The places of one child.
#[derive(Debug, Clone, Copy)]
pub(in crate::upstream) struct Places<'a> {
    /// The private directory.
    pub own: &'a Path,
    /// The directory that the server names.
    pub directory: Option<&'a Path>,
    /// What is the gateway's own.
    pub kept: &'a [PathBuf],
    /// Its `PATH`.
    pub path: Option<&'a str>,
}

/// The program as the child would find it.
pub(in crate::upstream) fn find(program: &str, path: Option<&str>, directory: &Path) -> Result<PathBuf, String> {
    let runs = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let file = directory.join(program);
        return if runs(&file) { Ok(file) } else { Err(format!("`{program}` is not a program that can be run")) };
    }
    let path = path.unwrap_or(DEFAULT_PATH);
    let mut files = std::env::split_paths(path).filter(|place| place.is_absolute()).map(|place| place.join(program));
    files.find(|file| runs(file)).ok_or_else(|| {
        format!("`{program}` is not in its PATH ({path}): write an absolute path, or PATH under variables")
    })
}

/// How a child is held, in the words of its profile.
pub(in crate::upstream) fn profile(
    config: &ProcessConfig,
    command: &[String],
    executable: &Path,
    places: Places<'_>,
    namespaces: bool,
) -> Result<Profile, String> {
    let confinement = match &config.sandbox {
        Sandbox::None => None,
        Sandbox::Required(reach) => Some(confinement(reach, command, executable, places, namespaces)?),
    };
    Ok(Profile { limits: limits(&config.limits), confinement })
}

fn limits(limits: &ProcessLimits) -> Limits {
    const MEBIBYTE: u64 = 1024 * 1024;
    Limits {
        memory_bytes_max: u64::from(limits.memory_mebibytes_max) * MEBIBYTE,
        file_bytes_max: u64::from(limits.file_mebibytes_max) * MEBIBYTE,
        open_files_max: u64::from(limits.open_files_max),
        processes_max: u64::from(limits.processes_max),
    }
}

fn confinement(
    reach: &Reach,
    command: &[String],
    executable: &Path,
    places: Places<'_>,
    namespaces: bool,
) -> Result<Confinement, String> {
    // What cannot be resolved is not there, so nobody can be given it.
    let kept: Vec<PathBuf> = places.kept.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mut read: Vec<PathBuf> = SYSTEM.iter().filter_map(|path| Path::new(path).canonicalize().ok()).collect();
    read.extend(of_executable(executable));
    if let Some(interpreter) = interpreter(executable, places.path) {
        read.extend(of_executable(&interpreter));
    }
    // Scripts that an interpreter is given: an administrator wrote that they are run.
    let scripts = command.iter().skip(1).map(Path::new).filter(|word| word.is_absolute());
    read.extend(scripts.filter_map(|word| word.canonicalize().ok()).filter(|word| word.is_file()));
    // What nobody named for this server is left out where it would show something of ours.
    read.retain(|path| overlap(path, &kept).is_none());
    let named = |key: &str, path: &Path| {
        let found = path.canonicalize().map_err(|error| format!("{key}: `{}`: {error}", path.display()))?;
        match overlap(&found, &kept) {
            None => Ok(found),
            Some(ours) => Err(format!("{key}: `{}` would give it `{}`", path.display(), ours.display())),
        }
    };
    for path in &reach.read {
        read.push(named("read", path)?);
    }
    let mut write: Vec<PathBuf> = SINKS.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    for path in &reach.write {
        write.push(named("write", path)?);
    }
    if let Some(directory) = places.directory {
        write.push(named("directory", directory)?);
    }
    // Ours, and made for this child alone.
    write.push(places.own.canonicalize().map_err(|error| format!("its own directory: {error}"))?);
    read.sort();
    read.dedup();
    Ok(Confinement { read, write, network: reach.network == Network::On, namespaces })
}

/// What runs a script: the first line says so, if by way of `env`, then by a name in the child's `PATH`.
fn interpreter(script: &Path, path: Option<&str>) -> Option<PathBuf> {
    let mut line = Vec::new();
    // As much as the kernel reads.
    std::fs::File::open(script).ok()?.take(256).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let program = Path::new(words.next()?);
    if !program.ends_with("env") {
        return program.is_absolute().then(|| program.to_owned());
    }
    let name = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    find(name, path, Path::new("/")).ok()
}

/// An executable, what stands beside it, and the libraries of the tree that it was installed in: by the name that it
/// is started with and by the one that this leads to, because an interpreter looks at both.
fn of_executable(executable: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let resolved = executable.canonicalize().ok();
    for file in [Some(executable.to_owned()), resolved].into_iter().flatten() {
        let Some(directory) = file.parent() else { continue };
        found.push(file.clone());
        found.push(directory.to_owned());
        if let Some(tree) = directory.parent().filter(|_| directory.ends_with("bin")) {
            found.extend(["lib", "lib64", "libexec", "pyvenv.cfg"].map(|name| tree.join(name)));
        }
    }
    found.into_iter().filter_map(|path| path.canonicalize().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach_of(executable: &Path, command: &[&str], reach: &Reach, kept: &Path) -> Result<Confinement, String> {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let own = tempfile::tempdir().unwrap();
        let kept = [kept.to_owned()];
        let places = Places { own: own.path(), directory: None, kept: &kept, path: None };
        confinement(reach, &command, executable, places, false)
    }

    #[test]
    fn a_program_beside_our_own_files_is_given_itself_and_not_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().canonicalize().unwrap();
        let (program, ours) = (place.join("server"), place.join("servers.toml"));
        std::fs::write(&program, "").unwrap();
        std::fs::write(&ours, "").unwrap();
        let words = ["server", ours.to_str().unwrap()];
        let given = reach_of(&program, &words, &Reach::default(), &ours).unwrap();
        assert!(given.read.contains(&program) && !given.read.contains(&place), "{given:?}");
        assert!(!given.read.contains(&ours), "a word of the command gives nothing of ours");
        let elsewhere = reach_of(&program, &[], &Reach::default(), Path::new("/nonexistent")).unwrap();
        assert!(elsewhere.read.contains(&place), "{elsewhere:?}");
    }

    #[test]
    fn a_link_to_our_own_files_is_not_a_way_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let ours = directory.path().join("state");
        std::fs::create_dir(&ours).unwrap();
        let link = directory.path().join("shared");
        std::os::unix::fs::symlink(&ours, &link).unwrap();
        for (key, reach) in [
            ("read", Reach { read: vec![link.clone()], ..Reach::default() }),
            ("write", Reach { write: vec![link.clone()], ..Reach::default() }),
        ] {
            let problem = reach_of(Path::new("/bin/sh"), &[], &reach, &ours).unwrap_err();
            assert!(problem.starts_with(key) && problem.contains("would give it"), "{problem}");
        }
    }

    #[test]
    fn a_script_brings_its_interpreter_along() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(tree.join("bin")).unwrap();
        std::fs::create_dir(tree.join("lib")).unwrap();
        let (python, script) = (tree.join("bin/python"), tree.join("server"));
        std::fs::write(&python, "").unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = tree.join("bin").display().to_string();
        for line in [format!("#!{} -I", python.display()), "#!/usr/bin/env -S python -I".to_owned()] {
            std::fs::write(&script, format!("{line}\nprint()\n")).unwrap();
            assert_eq!(interpreter(&script, Some(&path)), Some(python.clone()), "{line}");
        }
        let given = reach_of(&script, &[], &Reach::default(), Path::new("/nonexistent")).unwrap();
        assert!(!given.read.contains(&tree.join("lib")), "env finds nothing without a PATH");
        std::fs::write(&script, format!("#!{}\n", python.display())).unwrap();
        let given = reach_of(&script, &[], &Reach::default(), Path::new("/nonexistent")).unwrap();
        assert!(given.read.contains(&tree.join("lib")), "{given:?}");
        assert_eq!(interpreter(&python, None), None);
    }

    #[test]
    fn what_is_named_has_to_be_there() {
        let reach = Reach { read: vec!["/nonexistent/data".into()], ..Reach::default() };
        let problem = reach_of(Path::new("/bin/sh"), &[], &reach, Path::new("/nonexistent")).unwrap_err();
        assert!(problem.contains("read: `/nonexistent/data`"), "{problem}");
    }

    #[test]
    fn a_program_is_looked_for_in_the_path_of_the_child_and_nowhere_else() {
        assert_eq!(find("sh", None, Path::new("/")).unwrap(), Path::new("/bin/sh"));
        assert!(find("sh", Some("/nonexistent:."), Path::new("/bin")).unwrap_err().contains("PATH"));
        assert!(find("/etc/passwd", None, Path::new("/")).unwrap_err().contains("can be run"));
    }
}
