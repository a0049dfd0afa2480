//! Child processes and what the kernel says of them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;

/// A child that ends with us.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a command with nothing on its standard output.
    pub fn start(command: &mut Command) -> Result<Self> {
        Ok(Self { child: command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()? })
    }

    /// Starts ourselves with an argument and reads the first line that it prints.
    pub fn ourselves(argument: &str) -> Result<(Self, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
        Ok((Self { child }, line.trim().to_owned()))
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Result<Duration> {
        let (user, system) = self.cpu_parts()?;
        Ok(user + system)
    }

    /// User time and system time so far.
    pub fn cpu_parts(&self) -> Result<(Duration, Duration)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name may hold anything, but it ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // USER_HZ is 100 on every Linux that there is.
        let time = |field: usize| -> Result<Duration> { Ok(Duration::from_millis(fields[field].parse::<u64>()? * 10)) };
        Ok((time(11)?, time(12)?))
    }

    /// Resident memory, kilobytes.
    pub fn resident_kilobytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Has it read its files again.
    pub fn reload(&self) -> Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(id, rustix::process::Signal::HUP)?)
    }

    /// Has it stop.
    pub fn terminate(&self) -> Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(id, rustix::process::Signal::TERM)?)
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone already, or it goes now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
