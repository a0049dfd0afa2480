//! What the files say about the record and about keys that are not our own.
//!
//! Invariant: a key is a reference here; what it refers to is read when it is used, and never shown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::{RedactedPath, SecretReference};

/// `[record]`: how the record is signed and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordConfig {
    /// How often a checkpoint is signed, if something was written.
    pub checkpoint_interval: Duration,
    /// A segment is closed beyond this.
    pub segment_bytes: u64,
    /// Where checkpoints are sent.
    pub sinks: Vec<SinkConfig>,
    /// A bucket that they are put into.
    pub object_store: Option<ObjectStoreConfig>,
    /// A segment whose first record is older than this is closed with the next one.
    pub segment_age: Duration,
    /// Whether closed segments are compressed.
    pub compress: bool,
    /// Segments that are older than this are removed.
    pub keep_age: Option<Duration>,
    /// The oldest segments are removed when there are more bytes than this.
    pub keep_bytes: Option<u64>,
    /// Room that is held back for the last words.
    pub reserve_bytes: u64,
    /// Arguments that are left out of it.
    pub redact: Vec<RedactedPath>,
}

/// `[keys]`: keys that the gateway does not make for itself. The first of a list writes, all are read; an empty list
/// stands for the key file in the state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeysConfig {
    /// What handles are sealed with.
    pub seal: Vec<SecretReference>,
    /// What digests of arguments in the record are made with.
    pub journal: Vec<SecretReference>,
    /// What checkpoints are signed with.
    pub checkpoint: Vec<SecretReference>,
    /// What tokens of linked accounts are sealed with.
    pub vault: Vec<SecretReference>,
    /// What messages to others are signed with.
    pub webhook: Vec<SecretReference>,
}

/// A place that checkpoints are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkConfig {
    /// `file:PATH`: a file that they are added to.
    File(PathBuf),
    /// `syslog:PATH`: the socket of a log on this machine.
    Syslog(PathBuf),
    /// `syslog:ADDRESS:PORT`: a log elsewhere, over UDP.
    SyslogUdp(SocketAddr),
}

/// `[record.object_store]`: a bucket that speaks the protocol of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStoreConfig {
    /// Where the store is, without the bucket.
    pub endpoint: Url,
    /// The bucket.
    pub bucket: String,
    /// What its signatures name as the region.
    pub region: String,
    /// What every object's name begins with; ends with a slash where it is not empty.
    pub prefix: String,
    /// Who puts.
    pub access_key_id: SecretReference,
    /// What requests are signed with.
    pub secret_access_key: SecretReference,
}

#[cfg(test)]
impl RecordConfig {
    /// Nothing special.
    pub(crate) const fn fixture() -> Self {
        Self {
            checkpoint_interval: Duration::from_secs(60),
            segment_bytes: crate::limit::JOURNAL_SEGMENT_BYTES_MAX,
            sinks: Vec::new(),
            object_store: None,
            segment_age: Duration::from_secs(86_400),
            compress: false,
            keep_age: None,
            keep_bytes: None,
            reserve_bytes: 64 * 1024,
            redact: Vec::new(),
        }
    }
}
