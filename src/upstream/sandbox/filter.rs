//! The system calls that a confined process has no business with.
//!
//! Landlock rules files and TCP; what it does not rule is refused here: sockets of every kind but those that were
//! given, ways around this filter, and calls that change other processes of the same user, which the gateway is one
//! of. Knows nothing of files. Invariant: a process that may not use the network gets no socket at all but pairs that
//! reach each other alone, so nothing that listens on this machine can be reached either, by whatever address.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// A ring does what its owner may do, without asking this filter; and what has no use for a server and was the way
/// out of many a sandbox.
const NEVER: &[i64] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // The keyrings of a user are shared by all of their processes.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Calls that name a process, and the argument that does: only 0, which is the caller itself, is left. The kernel
/// allows them on every process of the same user, whatever else separates the two.
const ON_OTHERS: &[(i64, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];

/// Calls whose first argument says whom the next one names, and the one that says: a process. All others are everybody
/// of a user or a group, for whom 0 is the caller's own, the gateway included.
const ON_MANY: &[(i64, u64)] = &[(libc::SYS_setpriority, 0), (libc::SYS_ioprio_set, 1)];

/// Kinds of the Unix family that reach whatever address a message is sent to, also where the two ends of a pair were
/// made for each other: datagrams, and what the kernel takes for them.
const ADDRESSED: [i32; 2] = [libc::SOCK_DGRAM, libc::SOCK_RAW];
/// The bits of a socket's type that say which it is.
const KIND_OF_SOCKET: u64 = 0xf;

/// What `network = true` gives: IP, and what programs ask the kernel for addresses with. A socket of the Unix family
/// would reach the gateway's own control socket, and the desktop or the container engine of its user.
const FAMILIES: [i32; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Refuses them to this process and whatever it starts.
pub(super) fn apply(network: bool) -> Result<(), String> {
    let program = program(network).map_err(|error| format!("the filter of system calls: {error}"))?;
    seccompiler::apply_filter(&program).map_err(|error| format!("system calls cannot be filtered: {error}"))
}

fn program(network: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    for (call, argument) in ON_OTHERS {
        rules.insert(*call, vec![SeccompRule::new(vec![unequal(*argument, 0)?])?]);
    }
    for (call, process) in ON_MANY {
        rules.entry(*call).or_default().push(SeccompRule::new(vec![unequal(0, *process)?])?);
    }
    let pairs = ADDRESSED.iter().map(|kind| {
        let is = SeccompCmpOp::MaskedEq(KIND_OF_SOCKET);
        SeccompRule::new(vec![SeccompCondition::new(1, SeccompCmpArgLen::Dword, is, kind.unsigned_abs().into())?])
    });
    rules.insert(libc::SYS_socketpair, pairs.collect::<Result<_, _>>()?);
    let sockets = if network {
        let families = FAMILIES.iter().map(|family| unequal(0, family.unsigned_abs().into()));
        vec![SeccompRule::new(families.collect::<Result<_, _>>()?)?]
    } else {
        Vec::new()
    };
    rules.insert(libc::SYS_socket, sockets);
    for (call, conditions) in rules.clone() {
        if let Some(alias) = alias(call) {
            rules.insert(alias, conditions);
        }
    }
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()
}

fn unequal(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

/// On x86-64 each call has a second number, by which 32-bit pointers are passed.
fn alias(call: i64) -> Option<i64> {
    const X32: i64 = 0x4000_0000;
    cfg!(target_arch = "x86_64").then_some(call | X32)
}
