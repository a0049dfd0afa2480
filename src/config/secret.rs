//! Where a secret is kept: never the secret itself.
//!
//! Decides how `env:NAME`, `file:PATH` and `exec:["/path", ...]` are read. Invariant: a secret that was
//! read lives in a type that cannot be printed.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;

use secrecy::SecretString;
use tokio::io::AsyncReadExt;

use super::known;
use crate::limit;

/// Where a secret is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretReference {
    /// `env:NAME`: an environment variable of the gateway's.
    Environment(String),
    /// `file:PATH`: the content of a file, without the line break at its end.
    File(PathBuf),
    /// `exec:["/absolute/path", "argument"]`: what a program prints; no shell, a clean environment.
    Exec(Vec<String>),
    /// Not a secret: a value written in the file, where the file allows it.
    Plain(String),
}

/// Why a secret could not be read; never contains any of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret {reference}: {problem}")]
pub struct SecretError {
    reference: String,
    problem: String,
}

impl SecretReference {
    /// Reads a reference as the files spell it.
    ///
    /// # Errors
    /// A lower-case sentence that says which spellings exist.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("env:").filter(|name| !name.is_empty()) {
            return Ok(Self::Environment(name.to_owned()));
        }
        if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Ok(Self::File(PathBuf::from(path)));
        }
        if let Some(words) = text.strip_prefix("exec:") {
            let words: Vec<String> = serde_json::from_str(words).map_err(|_| {
                "write exec: as a JSON list, such as exec:[\"/usr/bin/pass\", \"show\", \"key\"]".to_owned()
            })?;
            return match words.first() {
                Some(program) if program.starts_with('/') => Ok(Self::Exec(words)),
                _ => Err("exec: needs the absolute path of a program as its first word".to_owned()),
            };
        }
        Err("a secret is never written here: use env:NAME, file:PATH or exec:[\"/path\", \"argument\"]".to_owned())
    }

    /// Fetches the secret.
    ///
    /// # Errors
    /// When it is missing, empty, too large, not UTF-8, or its program fails or takes too long.
    pub async fn read(&self) -> Result<SecretString, SecretError> {
        let text = match self {
            Self::Environment(name) => std::env::var(name).map_err(|_| self.error("the variable is not set"))?,
            Self::File(path) => {
                let mut bytes = Vec::new();
                let file = tokio::fs::File::open(path).await.map_err(|error| self.error(&error.to_string()))?;
                file.take(limit::SECRET_BYTES_MAX + 1)
                    .read_to_end(&mut bytes)
                    .await
                    .map_err(|error| self.error(&error.to_string()))?;
                self.text(bytes)?
            }
            Self::Exec(words) => self.run(words).await?,
            Self::Plain(value) => value.clone(),
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() && !matches!(self, Self::Plain(_)) {
            return Err(self.error("it is empty"));
        }
        let secret = SecretString::from(text);
        if !matches!(self, Self::Plain(_)) {
            known::remember(&secret);
        }
        Ok(secret)
    }

    async fn run(&self, words: &[String]) -> Result<String, SecretError> {
        let (program, arguments) = words.split_first().ok_or_else(|| self.error("no program is named"))?;
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.error(&error.to_string()))?;
        let stdout = child.stdout.take().ok_or_else(|| self.error("its output cannot be read"))?;
        let finished = tokio::time::timeout(limit::SECRET_EXEC_TIMEOUT, async {
            let mut bytes = Vec::new();
            stdout.take(limit::SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
            Ok::<_, std::io::Error>((bytes, child.wait().await?))
        })
        .await
        .map_err(|_| self.error("its program did not finish in time"))?;
        let (bytes, status) = finished.map_err(|error| self.error(&error.to_string()))?;
        if !status.success() {
            return Err(self.error(&format!("its program ended with {status}")));
        }
        self.text(bytes)
    }

    fn text(&self, bytes: Vec<u8>) -> Result<String, SecretError> {
        if bytes.len() as u64 > limit::SECRET_BYTES_MAX {
            return Err(self.error(&format!("it is larger than {} bytes", limit::SECRET_BYTES_MAX)));
        }
        String::from_utf8(bytes).map_err(|_| self.error("it is not UTF-8"))
    }

    fn error(&self, problem: &str) -> SecretError {
        SecretError { reference: self.to_string(), problem: problem.to_owned() }
    }
}

impl fmt::Display for SecretReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(formatter, "env:{name}"),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            // Arguments may be sensitive; the program is enough to find the place.
            Self::Exec(words) => write!(formatter, "exec:{}", words.first().map_or("", String::as_str)),
            Self::Plain(_) => formatter.write_str("(written in the file)"),
        }
    }
}

impl fmt::Debug for SecretReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test]
    async fn a_program_prints_a_secret_without_our_environment() {
        let secret = SecretReference::parse(r#"exec:["/usr/bin/env"]"#).unwrap().read().await;
        assert!(secret.is_err(), "a clean environment prints nothing, which is an empty secret");
        let secret = SecretReference::parse(r#"exec:["/bin/echo", "s3cret"]"#).unwrap();
        assert_eq!(secret.read().await.unwrap().expose_secret(), "s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_secret_has_a_length_whether_a_file_or_a_program_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (more, fits) in [(0, true), (1, false)] {
            let text = "x".repeat(usize::try_from(limit::SECRET_BYTES_MAX).unwrap() + more);
            std::fs::write(&path, &text).unwrap();
            let file = format!("file:{}", path.display());
            let program = format!(r#"exec:["/bin/cat", "{}"]"#, path.display());
            for reference in [file, program] {
                let read = SecretReference::parse(&reference).unwrap().read().await;
                assert_eq!(read.is_ok(), fits, "{reference}");
                assert!(read.is_err() || read.unwrap().expose_secret() == text, "{reference}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_does_not_finish_is_waited_for_so_long_and_no_longer() {
        let began = tokio::time::Instant::now();
        let error = SecretReference::parse(r#"exec:["/bin/sleep", "1000"]"#).unwrap().read().await.unwrap_err();
        assert!(error.to_string().contains("did not finish in time"), "{error}");
        let took = began.elapsed();
        assert!(took >= limit::SECRET_EXEC_TIMEOUT && took < 2 * limit::SECRET_EXEC_TIMEOUT, "{took:?}");
    }

    #[test]
    fn a_secret_written_into_the_file_is_refused() {
        assert!(SecretReference::parse("hunter2").is_err());
        assert!(SecretReference::parse(r#"exec:["pass"]"#).is_err());
    }
}
