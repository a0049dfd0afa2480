//! What is the gateway's own: the files that no child may reach.
//!
//! Decides which they are: its state, its configuration, its policies, its keys, everything that holds a secret, and
//! where it writes its record. Refuses to know how a child is held. Invariant: a secret that is named anywhere in the
//! files, as a file, is among them.

use std::path::PathBuf;

use super::{
    Config, ExportPlace, IntrospectionProof, IssuerConfig, KeysConfig, SecretReference, ServerConfig, SinkConfig,
    StoreConfig, TransportConfig,
};

impl Config {
    /// What is the gateway's own and no child may reach.
    #[must_use]
    pub fn kept(&self) -> Vec<PathBuf> {
        let tls = self
            .gateway
            .tls
            .iter()
            .chain(self.admin.iter().flat_map(|admin| &admin.tls))
            .chain(self.cluster.iter().map(|cluster| &cluster.tls));
        let own = [&self.gateway.state, &self.policies, &self.file].into_iter();
        let mut kept: Vec<PathBuf> = own.chain(tls.map(|tls| &tls.key)).cloned().collect();
        kept.extend(self.references().into_iter().filter_map(file).cloned());
        let sinks = self.exports.iter().filter_map(|export| match &export.to {
            ExportPlace::Sink(sink) => Some(sink),
            ExportPlace::Http { .. } => None,
        });
        kept.extend(self.record.sinks.iter().chain(sinks).filter_map(|sink| match sink {
            SinkConfig::File(path) | SinkConfig::Syslog(path) => Some(path.clone()),
            SinkConfig::SyslogUdp(_) => None,
        }));
        kept
    }

    /// Every secret that the files name.
    fn references(&self) -> Vec<&SecretReference> {
        let mut all: Vec<&SecretReference> = Vec::new();
        if let StoreConfig::Postgres(database) = &self.gateway.store {
            all.extend(std::iter::once(&database.url).chain(&database.password));
        }
        let KeysConfig { seal, journal, checkpoint, vault, webhook } = &self.keys;
        all.extend([seal, journal, checkpoint, vault, webhook].into_iter().flatten());
        if let Some(bucket) = &self.record.object_store {
            all.extend([&bucket.access_key_id, &bucket.secret_access_key]);
        }
        all.extend(self.telemetry.iter().flat_map(|telemetry| &telemetry.headers).map(|(_, secret)| secret));
        all.extend(self.exports.iter().filter_map(|export| match &export.to {
            ExportPlace::Http { header: Some((_, _, secret)), .. } => Some(secret),
            _ => None,
        }));
        all.extend(self.admin.iter().flat_map(|admin| &admin.console).flat_map(|console| &console.client_secret));
        all.extend(self.feeds.iter().flat_map(|feed| feed.references()));
        all.extend(self.issuers.iter().flat_map(|issuer| of_issuer(issuer)));
        all.extend(self.servers.iter().flat_map(|server| of_server(server)));
        all
    }
}

fn of_issuer(issuer: &IssuerConfig) -> Vec<&SecretReference> {
    let registration = issuer.registration.iter().flat_map(|registration| &registration.client_secret);
    let link = issuer.link.iter().flat_map(|link| &link.client_secret);
    let introspection = issuer.introspection.iter().map(|introspection| match &introspection.proof {
        IntrospectionProof::Secret(secret) | IntrospectionProof::PrivateKey { key: secret, .. } => secret,
    });
    registration.chain(link).chain(introspection).collect()
}

fn of_server(server: &ServerConfig) -> Vec<&SecretReference> {
    let credentials = std::iter::once(&server.credential).chain(server.tool_credentials.values());
    let mut all: Vec<_> = credentials.flat_map(super::CredentialConfig::secrets).collect();
    if let TransportConfig::Stdio { environment, .. } = &server.transport {
        all.extend(environment.values());
    }
    all
}

/// Where a secret is, if it is a file.
pub const fn file(secret: &SecretReference) -> Option<&PathBuf> {
    match secret {
        SecretReference::File(path) => Some(path),
        SecretReference::Environment(_) | SecretReference::Exec(_) | SecretReference::Plain(_) => None,
    }
}
