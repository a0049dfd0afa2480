//! Reads `[record]`: how the record is signed and kept.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use crate::config::leaf::{Count, Period, Size};
use crate::config::reader::Table;
use crate::config::{RecordConfig, SinkConfig};
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
    let compress = table.get::<bool>("compress");
    let keep_days = table.get::<Count>("keep_days");
    let keep_bytes = table.get::<Size>("keep_bytes").map(|size| size.0);
    let reserve_bytes = table.get::<Size>("reserve_bytes");
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
        segment_age: segment_age?.0,
        compress: compress?,
        keep_age: keep_days.map(|days| Duration::from_secs(u64::from(days.0) * 86_400)),
        keep_bytes,
        reserve_bytes: reserve_bytes?.0,
    })
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
    fn what_is_kept_is_more_than_what_is_written_to() {
        let config = record("keep_days = 3650\nkeep_bytes = \"1GiB\"").unwrap();
        assert_eq!((config.keep_age.unwrap().as_secs(), config.keep_bytes), (3650 * 86_400, Some(1 << 30)));
        assert!(record("keep_bytes = \"8MiB\"").unwrap_err()[0].message.contains("less than two segments"));
        assert_eq!(record("").unwrap().keep_bytes, None, "nothing is removed that nobody asked to be removed");
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
