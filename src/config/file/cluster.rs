//! Reads `[cluster]`: how replicas reach each other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::cluster::host_and_port;
use crate::config::load::Overrides;
use crate::config::reader::Table;
use crate::config::{ClusterConfig, TlsConfig};

/// Reads `[cluster]`.
pub fn read(mut table: Table<'_, '_>, base: &Path, overrides: &Overrides) -> Option<ClusterConfig> {
    let listen = table.at::<String>("listen").and_then(|text| {
        let address = text.get_ref().parse::<SocketAddr>();
        if address.is_err() {
            let message = format!("`{text}` is not an address: write an IP address and a port, such as 0.0.0.0:7801");
            table.mistake(&text.span(), message);
        }
        address.ok()
    });
    let advertise = table.at::<String>("advertise");
    if let Some(text) = &advertise
        && let Err(message) = host_and_port(text.get_ref())
    {
        table.mistake(&text.span(), message);
    }
    let (certificate, key) = (table.get::<PathBuf>("certificate"), table.get::<PathBuf>("key"));
    let ca = table.get::<PathBuf>("ca");
    Some(ClusterConfig {
        listen: overrides.cluster_listen.or(listen)?,
        advertise: overrides.advertise.clone().or(advertise.map(toml::Spanned::into_inner)),
        tls: TlsConfig { certificate: base.join(certificate?), key: base.join(key?) },
        ca: base.join(ca?),
    })
}
