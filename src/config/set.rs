//! All files of a configuration, read as one set.
//!
//! A half-written `policy.csv`, cut at a line end, is a valid policy without its last denies. So the set is
//! read twice and counts only if nothing changed in between. Decides which files belong to it and who may be
//! able to write them; refuses to know what they mean. Invariant: equal digests mean equal bytes under
//! equal names.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Mistake;
use super::file::policies_path;
use super::mistake::did_you_mean;
use super::seal::Written;
use crate::ids::{Digest, PolicyRevision};
use crate::limit;

/// The name of the gateway's own file in a set; policy files have their path below `policies/`.
pub const SERVERS_FILE: &str = "servers.toml";

/// What the directory of the next policies has at the end of its name.
const NEXT: &str = ".next";

/// The policy files that exist, apart from `servers/NAME.csv`.
const POLICY_FILES: [&str; 9] = [
    "model.conf",
    "policy.csv",
    "conditions.toml",
    "agents.toml",
    "mandates.toml",
    "gates.toml",
    "labels.toml",
    "tests.toml",
    "pins.lock",
];

/// The bytes of every file of one configuration.
#[derive(Debug, Clone)]
pub struct FileSet {
    servers: PathBuf,
    policies: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    digest: Digest,
    pub(super) written_seal: Written,
}

impl FileSet {
    /// Reads `servers.toml` at this path and the policies that it names, twice.
    ///
    /// # Errors
    /// What is missing, too large, writable by others, misnamed, or does not stop changing.
    pub fn read(servers: &Path) -> Result<Self, Vec<Mistake>> {
        Self::read_twice(servers, "")
    }

    /// The same with the directory beside the policies whose name ends in `.next` in their place, if there is one.
    ///
    /// # Errors
    /// As [`FileSet::read`].
    pub fn read_next(servers: &Path) -> Result<Option<Self>, Vec<Mistake>> {
        let text = read_file(servers).map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned());
        let there = text.is_ok_and(|text| policies_of(servers, &text, NEXT).is_dir());
        if there { Self::read_twice(servers, NEXT).map(Some) } else { Ok(None) }
    }

    fn read_twice(servers: &Path, suffix: &str) -> Result<Self, Vec<Mistake>> {
        let (mut before, mut newest) = Self::read_once(servers, suffix)?;
        for _ in 1..limit::CONFIG_READS_MAX {
            // Something was written a moment ago: its writer may not have finished.
            if newest.is_some_and(|newest| newest.elapsed().is_ok_and(|age| age < limit::CONFIG_READ_PAUSE)) {
                std::thread::sleep(limit::CONFIG_READ_PAUSE);
            }
            let (after, newer) = Self::read_once(servers, suffix)?;
            // Two readings may both have met a file that was just emptied to be written anew: equal bytes alone do
            // not say that nobody writes.
            let same = (after.digest, &after.written_seal) == (before.digest, &before.written_seal);
            if same && newer == newest {
                return Ok(after);
            }
            (before, newest) = (after, newer);
        }
        let message = "the files change while they are read: try again when they have been written";
        Err(vec![Mistake::whole(servers.display().to_string(), message)])
    }

    /// One pass, and when the youngest file was written.
    fn read_once(servers: &Path, suffix: &str) -> Result<(Self, Option<SystemTime>), Vec<Mistake>> {
        let mut reading = Reading::default();
        reading.check_directory(&directory_of(servers));
        reading.file(SERVERS_FILE.to_owned(), servers);
        let text = reading.files.get(SERVERS_FILE).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let policies = policies_of(servers, text.as_deref().unwrap_or(""), suffix);
        // Without `servers.toml` nobody knows where the policies are.
        if text.is_some() {
            reading.policies(&policies);
        }
        if !reading.mistakes.is_empty() {
            return Err(reading.mistakes);
        }
        let digest = digest_of(&reading.files);
        let written_seal = Written::read(&policies, |path| read_file(path).map(|(bytes, _)| bytes));
        let (files, newest) = (reading.files, reading.newest);
        Ok((Self { servers: servers.to_owned(), policies, digest, files, written_seal }, newest))
    }

    /// The directory that relative paths in `servers.toml` start from.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.servers.parent().unwrap_or(Path::new(""))
    }

    /// The directory of the policies.
    #[must_use]
    pub fn policies(&self) -> &Path {
        &self.policies
    }

    /// The digest of all files: what `REVISION` seals and a reload compares.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest as the revision of the policy.
    #[must_use]
    pub const fn revision(&self) -> PolicyRevision {
        PolicyRevision(self.digest)
    }

    /// Every file of the set: its name, and its bytes.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// The policy files, by their path below the policies' directory: `policy.csv`, `servers/notes.csv`.
    #[must_use]
    pub fn policy_files(&self) -> BTreeMap<String, Vec<u8>> {
        let policies = self.files.iter().filter(|(name, _)| *name != SERVERS_FILE);
        policies.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    }

    /// The same gateway with these policy files in the place of its own, as another replica has them. Nothing is read, and a
    /// file that is none of the policies is left out.
    #[must_use]
    pub fn with_policies(&self, policies: BTreeMap<String, Vec<u8>>) -> Self {
        let is_one = |name: &str| {
            let of_a_server = name.strip_prefix("servers/").and_then(|name| name.strip_suffix(".csv"));
            POLICY_FILES.contains(&name) || of_a_server.is_some_and(|name| !name.contains('/'))
        };
        let own = self.files.get(SERVERS_FILE).map(|bytes| (SERVERS_FILE.to_owned(), bytes.clone()));
        let files = policies.into_iter().filter(|(name, _)| is_one(name)).chain(own).collect();
        let (digest, servers, policies) = (digest_of(&files), self.servers.clone(), self.policies.clone());
        Self { servers, policies, files, digest, written_seal: Written::Nothing }
    }

    /// The directories and files whose changes are changes of the set.
    #[must_use]
    pub fn watched(&self) -> Vec<PathBuf> {
        vec![directory_of(&self.servers), self.policies.clone()]
    }

    /// A file of the set as an administrator would name it.
    #[must_use]
    pub fn shown(&self, name: &str) -> String {
        if name == SERVERS_FILE {
            self.servers.display().to_string()
        } else {
            self.policies.join(name).display().to_string()
        }
    }

    /// The text of a file of the set, if it is there.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Vec<Mistake>> {
        let Some(bytes) = self.files.get(name) else { return Ok(None) };
        std::str::from_utf8(bytes).map(Some).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let text = String::from_utf8_lossy(before);
            vec![Mistake::at(self.shown(name), &text, text.len(), "this is not UTF-8: save the file as UTF-8")]
        })
    }
}

fn digest_of(files: &BTreeMap<String, Vec<u8>>) -> Digest {
    let parts: Vec<&[u8]> = files.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes.as_slice()]).collect();
    Digest::of("bailiwick/files/v1", &parts)
}

/// Where the policies are that `servers.toml` names, or those beside them with this at the end of the name.
fn policies_of(servers: &Path, text: &str, suffix: &str) -> PathBuf {
    let named = policies_path(text);
    servers.parent().unwrap_or(Path::new("")).join(format!("{}{suffix}", named.trim_end_matches('/')))
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What one pass over the files has brought up.
#[derive(Default)]
struct Reading {
    files: BTreeMap<String, Vec<u8>>,
    mistakes: Vec<Mistake>,
    newest: Option<SystemTime>,
}

impl Reading {
    fn mistake(&mut self, path: &Path, message: impl Into<String>) {
        self.mistakes.push(Mistake::whole(path.display().to_string(), message));
    }

    fn file(&mut self, name: String, path: &Path) {
        match read_file(path) {
            Ok((bytes, written)) if self.files.len() < limit::CONFIG_FILES_MAX => {
                self.files.insert(name, bytes);
                self.newest = self.newest.max(written);
            }
            Ok(_) => self.mistake(path, format!("there are more than {} files", limit::CONFIG_FILES_MAX)),
            Err(message) => self.mistake(path, message),
        }
    }

    fn policies(&mut self, policies: &Path) {
        if !self.check_directory(policies) {
            return;
        }
        for (name, path, is_directory) in self.list(policies) {
            match (name.as_str(), is_directory) {
                ("servers", true) => self.server_policies(&path),
                (_, true) => {}
                (name, false) if POLICY_FILES.contains(&name) => self.file(name.to_owned(), &path),
                (name, false) => {
                    // `polcy.csv` would be a policy without its rules; a README is just that.
                    let looks_like_policy = [".csv", ".toml", ".conf"].iter().any(|end| name.ends_with(end));
                    if looks_like_policy {
                        let near = did_you_mean(name, POLICY_FILES);
                        let hint = if near.is_empty() { ": rename or remove it".to_owned() } else { near };
                        self.mistake(&path, format!("`{name}` is not a policy file{hint}"));
                    }
                }
            }
        }
    }

    fn server_policies(&mut self, directory: &Path) {
        if !self.check_directory(directory) {
            return;
        }
        for (name, path, is_directory) in self.list(directory) {
            match (name.strip_suffix(".csv"), is_directory) {
                (Some(_), false) => self.file(format!("servers/{name}"), &path),
                (None, false) if name.ends_with(".toml") || name.ends_with(".conf") => {
                    self.mistake(&path, "only NAME.csv belongs here, for the server NAME: move or remove it");
                }
                _ => {}
            }
        }
    }

    /// The entries of a directory, sorted; hidden ones and editors' leavings are not there.
    fn list(&mut self, directory: &Path) -> Vec<(String, PathBuf, bool)> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.mistake(directory, format!("cannot be read: {error}"));
                return Vec::new();
            }
        };
        let mut listed = Vec::new();
        let entries_max = limit::CONFIG_FILES_MAX.saturating_mul(2);
        for (number, entry) in entries.flatten().enumerate() {
            if number == entries_max {
                // One that is not looked at could hold the rule that denies.
                self.mistake(directory, format!("has more than {entries_max} entries: move what is no policy away"));
                break;
            }
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with('.') && !name.ends_with('~') {
                // A link is followed: mounted configuration is made of them.
                let is_directory = std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir());
                listed.push((name, path, is_directory));
            }
        }
        listed.sort();
        listed
    }

    /// Whether a directory is there and nobody else can replace what is in it.
    fn check_directory(&mut self, directory: &Path) -> bool {
        match std::fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => {
                match writable_by_others(&metadata) {
                    Some(message) if !is_sticky(&metadata) => self.mistake(directory, message),
                    _ => {}
                }
                true
            }
            Ok(_) => {
                self.mistake(directory, "is not a directory");
                false
            }
            Err(error) => {
                self.mistake(directory, format!("cannot be read: {error}"));
                false
            }
        }
    }
}

fn read_file(path: &Path) -> Result<(Vec<u8>, Option<SystemTime>), String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Of the open file, not of the name: nobody can exchange one for the other in between.
    let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if let Some(message) = writable_by_others(&metadata) {
        return Err(message);
    }
    let mut bytes = Vec::new();
    file.take(limit::CONFIG_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > limit::CONFIG_FILE_BYTES_MAX {
        return Err(format!("is larger than {} bytes", limit::CONFIG_FILE_BYTES_MAX));
    }
    Ok((bytes, metadata.modified().ok()))
}

/// Why somebody else could put another file in the place of this one, through the directory that it is in: the one that
/// its path names, and the one that it leads to.
#[must_use]
pub fn replaceable(path: &Path) -> Option<String> {
    let target = std::fs::canonicalize(path).ok();
    let mut directories = std::iter::once(path).chain(target.as_deref()).filter_map(Path::parent);
    directories.find_map(told_of)
}

fn told_of(directory: &Path) -> Option<String> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    // What cannot be looked at cannot be opened either.
    let metadata = std::fs::metadata(directory).ok()?;
    let message = writable_by_others(&metadata).filter(|_| !is_sticky(&metadata))?;
    Some(format!("its directory {}: {message}", directory.display()))
}

/// In such a directory nobody can replace another's file.
fn is_sticky(metadata: &Metadata) -> bool {
    metadata.mode() & 0o1000 != 0
}

/// Who can write it that should not: everyone, or a group that is not the owner's or our own.
fn writable_by_others(metadata: &Metadata) -> Option<String> {
    let mode = metadata.mode();
    if mode & 0o002 != 0 {
        return Some("everyone can write this: run chmod o-w on it".to_owned());
    }
    // Many systems give each person a group of the same number and let it write.
    let private = metadata.gid() == metadata.uid() || metadata.gid() == rustix::process::getegid().as_raw();
    if mode & 0o020 != 0 && !private {
        return Some(format!("the group {} can write this: run chmod g-w on it", metadata.gid()));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn example() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let policies = directory.path().join("policies");
        create_dir(&policies).unwrap();
        create_dir(policies.join("servers")).unwrap();
        write(directory.path().join("servers.toml"), "").unwrap();
        write(policies.join("policy.csv"), "p\n").unwrap();
        write(policies.join("servers/notes.csv"), "p\n").unwrap();
        write(policies.join("README.md"), "read me").unwrap();
        write(policies.join(".policy.csv.swp"), "editor").unwrap();
        directory
    }

    fn messages(directory: &tempfile::TempDir) -> String {
        let mistakes = FileSet::read(&directory.path().join("servers.toml")).unwrap_err();
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_set_has_the_policy_files_and_nothing_else() {
        let directory = example();
        let set = FileSet::read(&directory.path().join("servers.toml")).unwrap();
        let names: Vec<_> = set.policy_files().into_keys().collect();
        assert_eq!(names, ["policy.csv", "servers/notes.csv"]);
        write(directory.path().join("policies/policy.csv"), "p2\n").unwrap();
        let changed = FileSet::read(&directory.path().join("servers.toml")).unwrap();
        assert_ne!(set.digest(), changed.digest(), "a changed byte is another revision");
    }

    #[test]
    fn the_policies_of_another_replica_make_the_set_that_it_has() {
        let directory = example();
        let next = directory.path().join("policies.next");
        create_dir(&next).unwrap();
        write(next.join("policy.csv"), "p, next\n").unwrap();
        let servers = directory.path().join("servers.toml");
        let (own, theirs) = (FileSet::read(&servers).unwrap(), FileSet::read_next(&servers).unwrap().unwrap());
        let mut policies = theirs.policy_files();
        assert_eq!(own.with_policies(policies.clone()).revision(), theirs.revision());
        policies.extend(["servers.toml", "servers/../x.csv", "keys"].map(|name| (name.to_owned(), b"x".to_vec())));
        let with = own.with_policies(policies);
        assert_eq!(with.revision(), theirs.revision(), "nothing else goes into it");
        assert_eq!(with.text(SERVERS_FILE).unwrap(), Some(""));
    }

    #[test]
    fn a_file_or_directory_that_others_can_write_is_refused() {
        for (path, mode) in [("policies/policy.csv", 0o646), ("policies", 0o757), ("policies/servers", 0o777)] {
            let directory = example();
            set_permissions(directory.path().join(path), Permissions::from_mode(mode)).unwrap();
            assert!(messages(&directory).contains("everyone can write this"), "{path}");
        }
    }

    #[test]
    fn a_misspelt_policy_file_is_a_mistake_and_not_an_empty_policy() {
        let directory = example();
        write(directory.path().join("policies/polcy.csv"), "p\n").unwrap();
        assert!(messages(&directory).contains("did you mean `policy.csv`?"));
    }

    #[test]
    fn a_set_that_is_still_being_written_is_never_half_read() {
        let directory = example();
        let file = directory.path().join("policies/policy.csv");
        write(&file, "p, 1\n").unwrap();
        let writer = std::thread::spawn({
            let file = file.clone();
            move || {
                std::thread::sleep(limit::CONFIG_READ_PAUSE / 2);
                write(file, "p, 1\np, 2, deny\n").unwrap();
            }
        });
        let set = FileSet::read(&directory.path().join("servers.toml")).unwrap();
        writer.join().unwrap();
        assert_eq!(set.text("policy.csv").unwrap(), Some("p, 1\np, 2, deny\n"));
    }

    #[test]
    fn a_set_that_never_stops_changing_is_given_up_after_so_many_readings() {
        let directory = example();
        let file = directory.path().join("policies/policy.csv");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            for number in 0.. {
                write(&file, format!("p, {number}\n")).unwrap();
                if stopped.recv_timeout(limit::CONFIG_READ_PAUSE / 20).is_ok() {
                    return;
                }
            }
        });
        let began = std::time::Instant::now();
        let told = messages(&directory);
        let took = began.elapsed();
        stop.send(()).unwrap();
        writer.join().unwrap();
        assert!(told.contains("change while they are read"), "{told}");
        let pauses = limit::CONFIG_READ_PAUSE * (limit::CONFIG_READS_MAX - 1);
        assert!(took >= pauses / 2 && took < 5 * pauses, "{took:?}");
    }

    #[test]
    fn a_missing_file_and_a_missing_directory_are_named() {
        let directory = tempfile::tempdir().unwrap();
        assert!(messages(&directory).contains("servers.toml: cannot be read"));
        write(directory.path().join("servers.toml"), "[gateway]\npolicies = \"rules\"\n").unwrap();
        assert!(messages(&directory).contains("rules: cannot be read"));
    }

    #[test]
    fn a_file_above_the_limit_is_refused() {
        let directory = example();
        let file = File::create(directory.path().join("policies/policy.csv")).unwrap();
        file.set_len(limit::CONFIG_FILE_BYTES_MAX + 1).unwrap();
        assert!(messages(&directory).contains("is larger than"));
    }

    #[test]
    fn the_number_of_files_is_bounded() {
        let directory = example();
        let there = FileSet::read(&directory.path().join("servers.toml")).unwrap().files.len();
        for number in there..limit::CONFIG_FILES_MAX {
            write(directory.path().join(format!("policies/servers/s{number}.csv")), "p\n").unwrap();
        }
        assert!(FileSet::read(&directory.path().join("servers.toml")).is_ok());
        write(directory.path().join("policies/servers/more.csv"), "p\n").unwrap();
        assert!(messages(&directory).contains("there are more than"));
    }

    #[test]
    fn entries_that_are_no_policies_never_hide_one() {
        let directory = example();
        for number in 0..2 * limit::CONFIG_FILES_MAX - 1 {
            write(directory.path().join(format!("policies/servers/.{number}.swp")), "").unwrap();
        }
        assert!(FileSet::read(&directory.path().join("servers.toml")).is_ok());
        write(directory.path().join("policies/servers/.one-more.swp"), "").unwrap();
        assert!(messages(&directory).contains("entries"));
    }
}
