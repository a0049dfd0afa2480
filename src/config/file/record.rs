//! Reads `[record]`: how the record is signed and kept.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::credential::reference;
use super::export::address;
use crate::config::leaf::{Count, Period, Size};
use crate::config::reader::Table;
use crate::config::{ObjectStoreConfig, RecordConfig, RedactedPath, SecretReference, SinkConfig, keys};
use crate::limit;

/// Reads `[record]`.
pub fn read(mut table: Table<'_, '_>, base: &Path) -> Option<RecordConfig> {
    let checkpoint_interval = table.get::<Period>("checkpoint_interval");
    let segment = table.at::<Size>("segment_bytes");
    if let Some(size) = &segment
        && !(limit::SEGMENT_BYTES_MIN..=limit::JOURNAL_SEGMENT_BYTES_MAX).contains(&size.get_ref().0)
    {
        table.mistake(&size.span(), "segment_bytes is out of range: write 4KiB to 8MiB");
    }
    let segment_age = table.get::<Period>("segment_age");
    let sinks = read_sinks(&mut table, base);
    let object_store = if table.has("object_store") {
        Some(table.table("object_store", &keys::RECORD_OBJECT_STORE).map(|table| read_object_store(table, base)))
    } else {
        None
    };
    let compress = table.get::<bool>("compress");
    let keep_days = table.get::<Count>("keep_days");
    let keep_bytes = table.get::<Size>("keep_bytes").map(|size| size.0);
    let reserve_bytes = table.get::<Size>("reserve_bytes");
    let redact = read_redact(&mut table);
    if let (Some(keep), Some(segment)) = (keep_bytes, &segment)
        && keep < 2 * segment.get_ref().0
    {
        let message = "keep_bytes is less than two segments: the one that is written to is never removed";
        table.mistake(&table.place("keep_bytes"), message);
    }
    Some(RecordConfig {
        checkpoint_interval: checkpoint_interval?.0,
        segment_bytes: segment?.into_inner().0,
        sinks: sinks?,
        object_store: match object_store {
            None => None,
            Some(read) => Some(read??),
        },
        segment_age: segment_age?.0,
        compress: compress?,
        keep_age: keep_days.map(|days| Duration::from_secs(u64::from(days.0) * 86_400)),
        keep_bytes,
        reserve_bytes: reserve_bytes?.0,
        redact: redact?,
    })
}

fn read_redact(table: &mut Table<'_, '_>) -> Option<Vec<RedactedPath>> {
    let written = table.get::<Vec<Spanned<String>>>("redact")?;
    if written.len() > limit::REDACTED_PATHS_MAX {
        let message = format!("{} arguments are too many: at most {}", written.len(), limit::REDACTED_PATHS_MAX);
        table.mistake(&table.place("redact"), message);
    }
    let mut rows = Vec::new();
    for text in written {
        match RedactedPath::parse(text.get_ref()) {
            Some(row) => rows.push(row),
            None => {
                let message = format!(
                    "`{}` names no argument: write SERVER/TOOL:ARGUMENT, such as git/push:auth.token, with * for any server \
                     or tool",
                    text.get_ref()
                );
                table.mistake(&text.span(), message);
            }
        }
    }
    Some(rows)
}

fn read_sinks(table: &mut Table<'_, '_>, base: &Path) -> Option<Vec<SinkConfig>> {
    let written = table.get::<Vec<Spanned<String>>>("sinks")?;
    if written.len() > limit::SINKS_MAX {
        table.mistake(
            &table.place("sinks"),
            format!("{} sinks are too many: at most {}", written.len(), limit::SINKS_MAX),
        );
    }
    let mut sinks = Vec::new();
    for text in written {
        match sink(text.get_ref(), base) {
            Some(sink) => sinks.push(sink),
            None => {
                let message = format!(
                    "`{text}` is not a sink: write file:PATH, syslog:/dev/log, or syslog:ADDRESS:PORT with an IP address"
                );
                table.mistake(&text.span(), message);
            }
        }
    }
    Some(sinks)
}

fn read_object_store(mut table: Table<'_, '_>, base: &Path) -> Option<ObjectStoreConfig> {
    let endpoint = table.at::<String>("endpoint").and_then(|text| {
        let url = address(text.get_ref()).and_then(|url| match url.path() {
            "/" => Ok(url),
            _ => Err("the endpoint has a path: write the bucket and the prefix as keys of their own".to_owned()),
        });
        url.map_err(|message| table.mistake(&text.span(), message)).ok()
    });
    let bucket = table.at::<String>("bucket");
    if let Some(bucket) = bucket.as_ref().filter(|bucket| !is_bucket(bucket.get_ref())) {
        table.mistake(&bucket.span(), "that is no bucket: 3 to 63 of a to z, 0 to 9, dots and hyphens");
    }
    let region = table.at::<String>("region");
    if let Some(region) = region.as_ref().filter(|region| !is_plain(region.get_ref(), "-")) {
        table.mistake(&region.span(), "that is no region: write letters, digits and hyphens");
    }
    let prefix = table.at::<String>("prefix");
    if let Some(prefix) = prefix.as_ref().filter(|prefix| !prefix.get_ref().is_empty()) {
        let parts = prefix.get_ref().trim_end_matches('/').split('/');
        if !parts.into_iter().all(|part| part.starts_with(|c: char| c != '.') && is_plain(part, "-_.")) {
            table.mistake(
                &prefix.span(),
                "that is no prefix: write names of letters, digits, -, _ and . with / between",
            );
        }
    }
    let mut key = |name: &str| -> Option<SecretReference> {
        let text = table.at::<String>(name)?;
        reference(text.get_ref(), base).map_err(|message| table.mistake(&text.span(), message)).ok()
    };
    let (access_key_id, secret_access_key) = (key("access_key_id"), key("secret_access_key"));
    let prefix = prefix?.into_inner();
    let prefix = prefix.trim_end_matches('/');
    Some(ObjectStoreConfig {
        endpoint: endpoint?,
        bucket: bucket?.into_inner(),
        region: region?.into_inner(),
        prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
    })
}

fn is_bucket(name: &str) -> bool {
    let fits = (3..=63).contains(&name.len()) && !name.contains("..");
    fits && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
}

fn is_plain(text: &str, besides: &str) -> bool {
    let is_one = |c: char| c.is_ascii_alphanumeric() || besides.contains(c);
    !text.is_empty() && text.len() <= 100 && text.chars().all(is_one)
}

/// A file or a log.
pub(super) fn sink(text: &str, base: &Path) -> Option<SinkConfig> {
    if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
        return Some(SinkConfig::File(base.join(path)));
    }
    let place = text.strip_prefix("syslog:")?;
    if place.starts_with('/') {
        return Some(SinkConfig::Syslog(PathBuf::from(place)));
    }
    // A name would have to be resolved, by whoever answers for it at that moment.
    place.parse().ok().map(SinkConfig::SyslogUdp)
}

impl fmt::Display for SinkConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Syslog(path) => write!(formatter, "syslog:{}", path.display()),
            Self::SyslogUdp(address) => write!(formatter, "syslog:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mistake;
    use crate::config::file::{Text, parse};
    use crate::config::load::Overrides;

    fn record(lines: &str) -> Result<RecordConfig, Vec<Mistake>> {
        let text = format!(
            "[gateway]\npublic_url = \"https://mcp.example.com\"\n[issuers.corp]\nissuer = \"https://idp.example.com\"\n\
             [record]\n{lines}\n"
        );
        let parsed =
            parse(Text { file: "servers.toml", text: &text }, None, Path::new("/etc/b"), &Overrides::default());
        parsed.map(|(config, _)| config.record)
    }

    #[test]
    fn sinks_are_files_and_logs_by_address() {
        let sinks =
            r#"sinks = ["file:kept", "file:/mnt/kept", "syslog:/dev/log", "syslog:192.0.2.1:514", "syslog:[::1]:514"]"#;
        let sinks: Vec<String> = record(sinks).unwrap().sinks.iter().map(ToString::to_string).collect();
        let expected =
            ["file:/etc/b/kept", "file:/mnt/kept", "syslog:/dev/log", "syslog:192.0.2.1:514", "syslog:[::1]:514"];
        assert_eq!(sinks, expected);
        for wrong in ["file:", "syslog:", "syslog:log.example.com:514", "syslog:192.0.2.1", "s3://bucket", "/dev/log"] {
            let mistakes = record(&format!("sinks = [\"{wrong}\"]")).unwrap_err();
            assert!(mistakes[0].message.contains("is not a sink"), "{wrong}: {mistakes:?}");
        }
    }

    #[test]
    fn arguments_that_are_left_out_are_named_one_by_one() {
        let config = record(r#"redact = ["git/push:auth.token", "*/*:password"]"#).unwrap();
        let paths: Vec<&str> = config.redact.iter().map(RedactedPath::path).collect();
        assert_eq!(paths, ["auth.token", "password"]);
        let mistakes = record(r#"redact = ["password"]"#).unwrap_err();
        assert!(mistakes[0].message.contains("names no argument") && mistakes[0].line > 1, "{mistakes:?}");
        let many = |count: usize| record(&format!("redact = [{}]", vec!["\"*/*:a\""; count].join(", ")));
        assert_eq!(many(limit::REDACTED_PATHS_MAX).unwrap().redact.len(), limit::REDACTED_PATHS_MAX);
        assert!(many(limit::REDACTED_PATHS_MAX + 1).unwrap_err()[0].message.contains("too many"));
    }

    #[test]
    fn what_is_kept_is_more_than_what_is_written_to() {
        let config = record("keep_days = 3650\nkeep_bytes = \"1GiB\"").unwrap();
        assert_eq!((config.keep_age.unwrap().as_secs(), config.keep_bytes), (3650 * 86_400, Some(1 << 30)));
        assert!(record("keep_bytes = \"8MiB\"").unwrap_err()[0].message.contains("less than two segments"));
        assert_eq!(record("").unwrap().keep_bytes, None, "nothing is removed that nobody asked to be removed");
    }

    #[test]
    fn a_bucket_is_named_with_the_references_of_its_keys() {
        let written = |more: &str| {
            let keys = "access_key_id = \"env:ID\"\nsecret_access_key = \"env:KEY\"";
            record(&format!("[record.object_store]\nendpoint = \"https://s3.example.com\"\n{keys}\n{more}"))
        };
        let config = written("bucket = \"audit\"\nprefix = \"gateways/one/\"").unwrap().object_store.unwrap();
        assert_eq!((config.prefix.as_str(), config.region.as_str()), ("gateways/one/", "us-east-1"));
        assert_eq!(written("bucket = \"audit\"").unwrap().object_store.unwrap().prefix, "");
        for (wrong, says) in [
            ("bucket = \"A\"", "no bucket"),
            ("bucket = \"audit\"\nprefix = \"a/../b\"", "no prefix"),
            ("bucket = \"audit\"\nprefix = \"a?b\"", "no prefix"),
            ("bucket = \"audit\"\nregion = \"x/y\"", "no region"),
            ("", "bucket"),
        ] {
            let mistakes = written(wrong).unwrap_err();
            assert!(mistakes.iter().any(|mistake| mistake.to_string().contains(says)), "{wrong}: {mistakes:?}");
        }
        let with_path = "[record.object_store]\nendpoint = \"https://s3.example.com/audit\"\nbucket = \"audit\"\n\
                         access_key_id = \"env:ID\"\nsecret_access_key = \"env:KEY\"";
        assert!(record(with_path).unwrap_err()[0].to_string().contains("has a path"));
    }

    #[test]
    fn sinks_and_segments_are_bounded() {
        let many = |count: usize| record(&format!("sinks = [{}]", "\"file:x\",".repeat(count)));
        assert!(many(limit::SINKS_MAX).is_ok());
        assert!(many(limit::SINKS_MAX + 1).unwrap_err()[0].message.contains("too many"));
        let segment = |bytes: u64| record(&format!("segment_bytes = \"{bytes}B\""));
        assert!(segment(limit::SEGMENT_BYTES_MIN).is_ok() && segment(limit::JOURNAL_SEGMENT_BYTES_MAX).is_ok());
        assert!(
            segment(limit::SEGMENT_BYTES_MIN - 1).is_err() && segment(limit::JOURNAL_SEGMENT_BYTES_MAX + 1).is_err()
        );
    }
}
