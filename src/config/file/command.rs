//! Looks at the command of a stdio server: whether it is pinned, and whether a secret stands in it.

use super::credential::looks_like_a_secret;

/// What a package runner was told to fetch.
#[derive(Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Not a package runner.
    NotFetched,
    /// An exact version.
    Exactly,
    /// Whatever is newest when the process starts: the package as it was written.
    Newest(String),
}

/// Whether a command fetches a package, and which version of it.
pub fn pinned(command: &[String]) -> Pinned {
    let Some((program, arguments)) = command.split_first() else { return Pinned::NotFetched };
    let program = program.rsplit('/').next().unwrap_or(program);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (python, rest) = match (program, arguments.as_slice()) {
        ("npx" | "bunx" | "pnpx", rest) | ("npm", ["exec", rest @ ..]) | ("pnpm" | "yarn", ["dlx", rest @ ..]) => {
            (false, rest)
        }
        ("uvx", rest) | ("pipx", ["run", rest @ ..]) | ("uv", ["tool", "run", rest @ ..]) => (true, rest),
        _ => return Pinned::NotFetched,
    };
    let Some(package) = package(rest, python) else { return Pinned::Newest(program.to_owned()) };
    let exact = if python { python_version(package) } else { node_version(package) };
    if exact { Pinned::Exactly } else { Pinned::Newest(package.to_owned()) }
}

/// The package among a runner's arguments: what an option names, or the first word that is no option.
fn package<'a>(arguments: &[&'a str], python: bool) -> Option<&'a str> {
    let options: &[&str] = if python { &["--from", "--spec"] } else { &["-p", "--package"] };
    let with_value: &[&str] =
        if python { &["--with", "--python", "-p", "--index-url", "--index"] } else { &["--registry", "-c", "--call"] };
    let mut words = arguments.iter().copied();
    let mut first = None;
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if options.contains(&name) {
            return value.or_else(|| words.next());
        }
        if with_value.contains(&name) {
            if value.is_none() {
                words.next();
            }
        } else if word != "--" && !word.starts_with('-') {
            first = Some(word);
            break;
        }
    }
    first
}

/// `name@1.2.3`: a digit after the last `@`, and nothing that means a range.
fn node_version(package: &str) -> bool {
    let version = package.get(1..).and_then(|rest| rest.rsplit_once('@')).map(|(_, version)| version);
    version.is_some_and(is_exact)
}

/// `name==1.2.3` or `name@1.2.3`.
fn python_version(package: &str) -> bool {
    let version = package.split_once("==").or_else(|| package.split_once('@')).map(|(_, version)| version);
    version.is_some_and(is_exact)
}

fn is_exact(version: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+!".contains(&byte);
    // `1` and `1.x` are ranges to npm; three numbers are a version to everyone.
    let numbers = version.split(['-', '+']).next().unwrap_or("");
    let parts: Vec<&str> = numbers.split('.').collect();
    version.bytes().all(plain)
        && parts.len() >= 3
        && parts.first().is_some_and(|first| first.parse::<u64>().is_ok())
        && parts.iter().all(|part| part.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
}

/// The word of a command line in which a secret stands, by its position.
pub fn secret_word(command: &[String]) -> Option<usize> {
    command.iter().position(|word| {
        let value = word.split_once('=').map_or(word.as_str(), |(_, value)| value);
        looks_like_a_secret(word) || looks_like_a_secret(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(line: &str) -> Pinned {
        pinned(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn only_an_exact_version_counts_as_pinned() {
        for line in [
            "npx -y @modelcontextprotocol/server-filesystem@2026.8.31 /srv",
            "npx --yes --package=@a/b@1.2.3 b",
            "npx -p left@1.0.0-beta.1 left",
            "/usr/bin/npx --registry https://r.example a@1.2.3",
            "pnpm dlx a@1.2.3",
            "uvx mcp-server-git==2026.10.19 --repository .",
            "uvx --from mcp-server-git==2026.10.19 mcp-server-git",
            "uvx --python 3.13 a@1.2.3",
            "pipx run --spec a==1.2.3 a",
        ] {
            assert_eq!(look(line), Pinned::Exactly, "{line}");
        }
        for line in [
            "npx -y @modelcontextprotocol/server-filesystem /srv",
            "npx a@latest",
            "npx a@^1.2.3",
            "npx a@1",
            "npx a@1.x.x",
            "npx",
            "npx -p a b@1.2.3",
            "uvx mcp-server-git",
            "uvx mcp-server-git>=2026.10.19",
            "uvx --with x==1.2.3 a",
            "npm exec a",
        ] {
            assert!(matches!(look(line), Pinned::Newest(_)), "{line}");
        }
        assert_eq!(look("/usr/local/bin/mcp-server-git --repository ."), Pinned::NotFetched);
    }

    #[test]
    fn a_secret_among_the_arguments_is_found() {
        let command = ["server", "--token=ghp_0123456789abcdefghij"].map(str::to_owned);
        assert_eq!(secret_word(&command), Some(1));
        assert_eq!(secret_word(&["server".to_owned(), "--repository=.".to_owned()]), None);
    }
}
