//! Keys that the gateway makes for itself: files in the state directory, one key a line.
//!
//! Decides where they are and who may read them. Refuses to know what a key is for: whoever uses one derives
//! its own from it. Invariant: a key file is made once, readable by us alone, and safe before it is used.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use secrecy::SecretString;

use crate::limit;

/// Why a key could not be had; never contains any of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the key file {place}: {problem}")]
pub struct KeyFileError {
    place: String,
    problem: String,
}

/// The keys of `<state>/keys/NAME` in hexadecimal: the first writes, older ones below it are still read. Makes
/// the file with one fresh key of 32 bytes if there is none. Blocking: start only.
///
/// # Errors
/// When the file cannot be read or made, or a line is not 64 hexadecimal digits.
pub fn read_or_make(state: &Path, name: &str) -> Result<Vec<SecretString>, KeyFileError> {
    let directory = state.join("keys");
    let path = directory.join(name);
    let error = |problem: String| KeyFileError { place: path.display().to_string(), problem };
    let io = |problem: std::io::Error| error(problem.to_string());
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory).map_err(io)?;
    let mut text = String::new();
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    match OpenOptions::new().read(true).custom_flags(no_follow).open(&path) {
        Ok(file) => {
            file.take(limit::SECRET_BYTES_MAX).read_to_string(&mut text).map_err(io)?;
        }
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => {
            let mut fresh = [0_u8; 32];
            aws_lc_rs::rand::fill(&mut fresh).map_err(|_| error("the system has no randomness".to_owned()))?;
            text = format!("{}\n", data_encoding::HEXLOWER.encode(&fresh));
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
            file.write_all(text.as_bytes()).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        Err(problem) => return Err(io(problem)),
    }
    let is_key = |line: &str| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() || !lines.iter().all(|line| is_key(line)) {
        return Err(error("write 64 hexadecimal digits on each line".to_owned()));
    }
    Ok(lines.into_iter().map(SecretString::from).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_us_alone() {
        let state = tempfile::tempdir().unwrap();
        let first = read_or_make(state.path(), "seal").unwrap();
        let second = read_or_make(state.path(), "seal").unwrap();
        assert_eq!(first[0].expose_secret(), second[0].expose_secret());
        let mode = std::fs::metadata(state.path().join("keys/seal")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(read_or_make(state.path(), "other").unwrap()[0].expose_secret(), first[0].expose_secret());
    }

    #[test]
    fn a_spoilt_key_file_is_not_replaced() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("keys")).unwrap();
        std::fs::write(state.path().join("keys/seal"), "too short\n").unwrap();
        assert!(read_or_make(state.path(), "seal").is_err());
        assert_eq!(std::fs::read_to_string(state.path().join("keys/seal")).unwrap(), "too short\n");
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("keys")).unwrap();
        std::fs::write(state.path().join("elsewhere"), "00".repeat(32)).unwrap();
        std::os::unix::fs::symlink(state.path().join("elsewhere"), state.path().join("keys/seal")).unwrap();
        assert!(read_or_make(state.path(), "seal").is_err());
    }
}
