//! Gives up, in the process that becomes a child, everything that the child was not given.
//!
//! Decides in which order: what needs rights comes before they are gone. Knows nothing of why something was given.
//! Invariant: every step that a host was found to be able to do succeeds, or the command is not started.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::{Confinement, Limits, filter};
use crate::upstream::supervisor::PARENT_VARIABLE;

/// The newest version whose rights are known here. A right that the kernel does not know is left out; those of
/// [`NEEDED`] are not.
const KNOWN: ABI = ABI::V6;
const NEEDED: ABI = ABI::V3;

/// Bounds what this process and each of its descendants may use.
pub(super) fn limit(limits: &Limits) -> Result<(), String> {
    // What it makes is for its user alone.
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    bound(Resource::Core, 0)?;
    bound(Resource::Fsize, limits.file_bytes_max)?;
    bound(Resource::Nofile, limits.open_files_max)?;
    // Not the address space: runtimes reserve many times what they use.
    bound(Resource::Data, limits.memory_bytes_max)
}

/// Never more than it has already.
fn bound(resource: Resource, most: u64) -> Result<(), String> {
    let now = rustix::process::getrlimit(resource);
    let most = now.maximum.map_or(most, |maximum| maximum.min(most));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
        .map_err(|error| format!("the limit {resource:?} cannot be set: {error}"))
}

/// Confines this process and whatever it becomes.
pub(super) fn confine(confinement: &Confinement, limits: &Limits) -> Result<(), String> {
    if confinement.namespaces {
        let users = separate(confinement.network)?;
        // Elsewhere every process of the gateway's user counts, and the first fork could be one too many.
        if users == Users::Own {
            bound(Resource::Nproc, limits.processes_max)?;
        }
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|error| format!("capabilities cannot be given up: {error}"))?;
    let ruled = rule(confinement).map_err(|error| format!("Landlock: {error}"))?;
    if ruled == RulesetStatus::NotEnforced {
        return Err("Landlock does not rule this process".to_owned());
    }
    filter::apply(confinement.network)
}

/// Whether a process has a namespace of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    /// Where it is counted apart and has no rights outside.
    Own,
    /// Root needs none to get the others.
    Shared,
}

/// Takes this process into namespaces of its own: one without a network unless it may use it.
#[expect(deprecated, reason = "what replaces it is unsafe because of descriptors, which no flag here concerns")]
pub(super) fn separate(network: bool) -> Result<Users, String> {
    let owned = rustix::thread::capabilities(None).map_err(|error| error.to_string())?;
    let users = if owned.effective.contains(CapabilitySet::SYS_ADMIN) { Users::Shared } else { Users::Own };
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut flags = UnshareFlags::NEWIPC;
    flags.set(UnshareFlags::NEWNET, !network);
    flags.set(UnshareFlags::NEWUSER, users == Users::Own);
    rustix::thread::unshare(flags).map_err(|error| format!("namespaces of its own: {error}"))?;
    if users == Users::Own {
        // Nobody but its own user exists in there.
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{user} {user} 1")),
            ("gid_map", format!("{group} {group} 1")),
        ] {
            std::fs::write(Path::new("/proc/self").join(file), text)
                .map_err(|error| format!("namespaces of its own: {file}: {error}"))?;
        }
    }
    Ok(users)
}

fn rule(confinement: &Confinement) -> Result<RulesetStatus, String> {
    let text = |error: landlock::RulesetError| error.to_string();
    let (needed, all) = (AccessFs::from_all(NEEDED), AccessFs::from_all(KNOWN));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(needed)
        .map_err(text)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .map_err(text)?
        .scope(Scope::from_all(KNOWN))
        .map_err(text)?;
    if !confinement.network {
        rules = rules.handle_access(AccessNet::from_all(KNOWN)).map_err(text)?;
    }
    let mut rules = rules.create().map_err(text)?;
    for (paths, access) in [(&confinement.read, AccessFs::from_read(KNOWN)), (&confinement.write, all)] {
        for path in paths {
            rules = allow(rules, path, access)?;
        }
    }
    let status = rules.restrict_self().map_err(text)?;
    Ok(status.ruleset)
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, String> {
    let broken = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let opened = PathFd::new(path).map_err(|error| broken(&error))?;
    let is_directory = std::fs::metadata(path).map_err(|error| broken(&error))?.is_dir();
    let access = if is_directory { access } else { access & AccessFs::from_file(KNOWN) };
    rules.add_rule(PathBeneath::new(opened, access)).map_err(|error| broken(&error))
}

/// The version of Landlock that rules this process from now on; 0 where none does.
pub(super) fn landlock_version() -> u32 {
    let _ = rustix::thread::set_no_new_privs(true);
    let ruled = Ruleset::default()
        .handle_access(AccessFs::from_all(NEEDED))
        .and_then(|rules| rules.scope(Scope::from_all(KNOWN)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self());
    match ruled.map(|status| (status.ruleset, status.landlock)) {
        Ok((RulesetStatus::NotEnforced, _)) | Err(_) => 0,
        Ok((_, LandlockStatus::Available { effective_abi, .. })) => u32::try_from(effective_abi as i32).unwrap_or(0),
        Ok(_) => 0,
    }
}

/// Whatever whoever started the gateway left open for its children ends here: nothing but the standard streams
/// reaches the command.
#[expect(unsafe_code, reason = "no safe wrapper exists; it marks descriptors, and neither closes nor touches any")]
pub(super) fn keep_standard_streams_only() -> Result<(), String> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: three numbers, no memory; a descriptor that is marked stays open until this process is replaced.
    match unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        // Linux before 5.11, on which no child is confined anyway.
        _ => match std::io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(()),
            error => Err(format!("descriptors cannot be kept back: {error}")),
        },
    }
}

/// The supervisor ends what it started; if somebody kills it, at least the command ends with it. Last, because
/// changes of rights undo it.
pub(super) fn die_with_parent() -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    // One that ended before it could be heard of has been replaced by now.
    let parent = std::env::var(PARENT_VARIABLE).ok().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    match rustix::process::getppid() == parent {
        true => Ok(()),
        false => Err("its supervisor is gone already".to_owned()),
    }
}
