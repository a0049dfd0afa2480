//! Reads `[telemetry]` and `[export.NAME]`: what leaves the gateway besides answers.

use std::path::Path;

use serde::Deserialize;
use url::{Host, Url};

use super::address::{http_url, is_private};
use super::credential::{header_name, is_reserved, looks_like_a_secret, names_a_secret, reference};
use super::record::sink;
use crate::config::leaf::{Count, Period};
use crate::config::reader::Table;
use crate::config::{ExportConfig, ExportPlace, SecretReference, TelemetryConfig};
use crate::ids::ServerId;
use crate::limit;

/// Reads `[telemetry]`.
pub fn telemetry(mut table: Table<'_, '_>, base: &Path) -> Option<TelemetryConfig> {
    let otlp = table.at::<String>("otlp").and_then(|text| {
        let url = address(text.get_ref());
        if let Err(message) = &url {
            table.mistake(&text.span(), message);
        }
        url.ok()
    });
    let mut headers = Vec::new();
    for (name, value) in table.strings("headers") {
        match header(name.get_ref(), value.get_ref(), base) {
            Ok(header) => headers.push(header),
            Err(message) => table.mistake(&value.span(), message),
        }
    }
    let sample = table.at::<Count>("sample_percent");
    if let Some(sample) = sample.as_ref().filter(|sample| sample.get_ref().0 > 100) {
        table.mistake(&sample.span(), "sample_percent is of a hundred: write 0 to 100");
    }
    let metrics_interval = table.get::<Period>("metrics_interval");
    Some(TelemetryConfig {
        otlp: otlp?,
        headers,
        sample_percent: sample?.into_inner().0,
        metrics_interval: metrics_interval?.0.max(limit::METRICS_INTERVAL_MIN),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    Ocsf,
}

/// How an export is called: it names a file of ours.
pub fn name(text: &str) -> Result<ServerId, String> {
    ServerId::new(text).map_err(|error| error.to_string())
}

/// Reads one `[export.NAME]`.
pub fn export(mut table: Table<'_, '_>, name: ServerId, base: &Path) -> Option<ExportConfig> {
    let format = table.get::<Format>("format");
    let to = table.at::<String>("to");
    let header_text = table.at::<String>("header");
    let prefix = table.get::<String>("prefix");
    let secret = table.at::<String>("secret").and_then(|text| match reference(text.get_ref(), base) {
        Ok(reference) => Some(reference),
        Err(message) => {
            table.mistake(&text.span(), message);
            None
        }
    });
    let (to, header_text) = (to?, header_text?);
    let named = header_text.get_ref().to_ascii_lowercase();
    if let Err(message) = free(&named) {
        table.mistake(&header_text.span(), message);
    }
    let place = match sink(to.get_ref(), base) {
        Some(sink) => {
            if secret.is_some() {
                table.mistake(&table.place("secret"), "only an http address is presented a secret: remove it");
            }
            ExportPlace::Sink(sink)
        }
        None => match address(to.get_ref()) {
            Ok(url) => {
                let usual = if named == "authorization" { "Bearer " } else { "" };
                let before = prefix.unwrap_or_else(|| usual.to_owned());
                ExportPlace::Http { url, header: secret.map(|secret| (named, before, secret)) }
            }
            Err(message) => {
                let message = format!(
                    "{message}; or write file:PATH, syslog:/dev/log, or syslog:ADDRESS:PORT with an IP address"
                );
                table.mistake(&to.span(), message);
                return None;
            }
        },
    };
    let Format::Ocsf = format?;
    Some(ExportConfig { name, to: place })
}

/// A place that an administrator names: plain HTTP only where it is near.
pub(super) fn address(text: &str) -> Result<Url, String> {
    let url = http_url(text)?;
    if url.scheme() == "http" && !is_private(&url) && !is_near(&url) {
        return Err("records would travel in the clear: write https://, or an address on your own network".to_owned());
    }
    let secret = url.query_pairs().any(|(name, value)| names_a_secret(&name) || looks_like_a_secret(&value));
    if secret { Err("a secret in a URL ends up in logs: send it in a header".to_owned()) } else { Ok(url) }
}

/// A name without a dot, or one of a cluster's own, is nobody's on the internet.
fn is_near(url: &Url) -> bool {
    // An address is judged as one: those with colons have no dot either.
    let Some(Host::Domain(host)) = url.host() else { return false };
    !host.contains('.') || [".local", ".internal", ".svc", ".svc.cluster.local"].iter().any(|end| host.ends_with(end))
}

fn header(name: &str, value: &str, base: &Path) -> Result<(String, SecretReference), String> {
    let name = name.to_ascii_lowercase();
    free(&name)?;
    Ok((name, reference(value, base)?))
}

fn free(name: &str) -> Result<(), String> {
    header_name(name)?;
    if is_reserved(name) { Err(format!("`{name}` is set by the transport: remove it")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{Text, parse};
    use crate::config::load::Overrides;
    use crate::config::{Config, Mistake, SinkConfig};

    fn config(lines: &str) -> Result<Config, Vec<Mistake>> {
        let text = format!(
            "[gateway]\npublic_url = \"https://mcp.example.com\"\n[issuers.corp]\nissuer = \"https://idp.example.com\"\n{lines}\n"
        );
        parse(Text { file: "servers.toml", text: &text }, None, Path::new("/etc/b"), &Overrides::default())
            .map(|(config, _)| config)
    }

    fn message(lines: &str) -> String {
        config(lines).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn telemetry_goes_to_a_collector_with_secrets_by_reference() {
        assert!(config("").unwrap().telemetry.is_none());
        let lines =
            "[telemetry]\notlp = \"http://collector:4318\"\nheaders = { Api-Key = \"env:KEY\" }\nsample_percent = 5";
        let telemetry = config(lines).unwrap().telemetry.unwrap();
        assert_eq!((telemetry.otlp.as_str(), telemetry.sample_percent), ("http://collector:4318/", 5));
        assert_eq!(telemetry.headers[0].0, "api-key");
        for (wrong, hint) in [
            ("otlp = \"http://collector.example.com:4318\"", "in the clear"),
            ("otlp = \"http://[2606:4700::1111]:4318\"", "in the clear"),
            ("otlp = \"http://1.1.1.1:4318\"", "in the clear"),
            ("otlp = \"https://c?api_key=x\"", "secret in a URL"),
            ("otlp = \"https://c\"\nheaders = { a = \"hunter2\" }", "never written here"),
            ("otlp = \"https://c\"\nheaders = { Host = \"env:X\" }", "set by the transport"),
            ("otlp = \"https://c\"\nsample_percent = 101", "of a hundred"),
            ("sample_percent = 1", "otlp"),
        ] {
            assert!(message(&format!("[telemetry]\n{wrong}")).contains(hint), "{wrong}");
        }
        for near in ["[fd00::1]", "[::1]", "10.0.0.7", "collector.monitoring.svc"] {
            assert!(config(&format!("[telemetry]\notlp = \"http://{near}:4318\"")).is_ok(), "{near}");
        }
        let often = config("[telemetry]\notlp = \"https://c\"\nmetrics_interval = \"1ms\"").unwrap().telemetry.unwrap();
        assert_eq!(often.metrics_interval, limit::METRICS_INTERVAL_MIN);
    }

    #[test]
    fn an_export_goes_to_a_file_a_log_or_a_collector() {
        let one = |lines: &str| {
            config(&format!("[export.siem]\nformat = \"ocsf\"\n{lines}")).map(|config| config.exports[0].to.clone())
        };
        assert_eq!(one("to = \"file:out\"").unwrap(), ExportPlace::Sink(SinkConfig::File("/etc/b/out".into())));
        let ExportPlace::Http { url, header: Some((name, prefix, _)) } =
            one("to = \"https://siem.example.com/ocsf\"\nsecret = \"env:S\"").unwrap()
        else {
            panic!("not http")
        };
        assert_eq!((url.path(), name.as_str(), prefix.as_str()), ("/ocsf", "authorization", "Bearer "));
        for (wrong, hint) in [
            ("to = \"s3://b\"", "syslog"),
            ("to = \"http://[2606:4700::1111]/\"", "in the clear"),
            ("to = \"file:x\"\nsecret = \"env:S\"", "only an http"),
            ("to = \"https://x\"\nheader = \"host\"", "transport"),
            ("to = \"https://x\"\nsecret = \"hunter2\"", "never written here"),
        ] {
            assert!(message(&format!("[export.siem]\nformat = \"ocsf\"\n{wrong}")).contains(hint), "{wrong}");
        }
        assert!(!message("[export.siem]\nformat = \"cef\"\nto = \"file:x\"").is_empty());
        assert!(message("[export.S_IEM]\nformat = \"ocsf\"\nto = \"file:x\"").contains("S_IEM"));
        let many = |count: usize| {
            config(
                &(0..count).map(|n| format!("[export.e{n}]\nformat = \"ocsf\"\nto = \"file:x\"\n")).collect::<String>(),
            )
        };
        assert!(many(limit::EXPORTS_MAX).is_ok() && many(limit::EXPORTS_MAX + 1).is_err());
    }
}
