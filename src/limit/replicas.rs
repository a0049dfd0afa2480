//! Bounds of what several replicas have in common: the store on PostgreSQL, and what they say to each other.

use std::time::Duration;

/// How long one piece of work with PostgreSQL may take, connecting included.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a start waits while another replica upgrades the tables.
pub const STORE_UPGRADE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Connections of one replica to PostgreSQL, for its calls.
pub const STORE_CONNECTIONS_MAX: u32 = 4;
/// Connections that follow the store and take back, which wait for no call; one of them listens.
pub const STORE_OWN_CONNECTIONS_MAX: u32 = 3;
/// How often a replica looks at the store, when nothing wakes it.
pub const STORE_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often a gateway that is alone with its store looks whether what is stored is in force.
pub const STORE_ALONE_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a listening connection was lost the next one is made.
pub const STORE_LISTEN_RETRY: Duration = Duration::from_millis(500);
/// How long one connection listens: one that says nothing any more is found out about.
pub const STORE_LISTEN_LIFE: Duration = Duration::from_secs(60);
/// How old what is known of the store may be. Beyond it calls are refused: somebody may have been revoked since.
pub const STORE_AGE_MAX: Duration = Duration::from_secs(8);
/// How much a replica's clock may differ from the store's.
pub const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(2);
/// How long a replica may serve other files than the store holds before it is not ready.
pub const REVISION_DIFFERS_MAX: Duration = Duration::from_secs(60);
/// How often a replica whose files are not those that the store holds reads them again.
pub const REVISION_RETRY: Duration = Duration::from_secs(2);
/// How often a replica says that it lives.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// A replica that was not heard of for so long is gone, and so is what was bound to it.
pub const MEMBER_GONE_AFTER: Duration = Duration::from_secs(10);
/// A replica that was not heard of for so long is forgotten.
pub const MEMBER_FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Replicas of whose record the store says how much it knows.
pub const RECORD_MARKS_MAX: u32 = 1_000;
/// Replicas that are known at once.
pub const MEMBERS_MAX: i64 = 1_000;
/// How long a connection to another replica may take, its name and TLS aside.
pub const RELAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection to another replica is pinged, and how long the answer may take.
pub const RELAY_PING: Duration = Duration::from_secs(4);
/// Requests that are handed to other replicas at once; streams among them for as long as they are open.
pub const RELAYS_MAX: usize = 4_096;
/// Changes of the epoch that the store remembers for the record, and for those of replicas that were away.
pub const REVOCATION_CHANGES_MAX: i64 = 100_000;
/// What a change tells of what one row says.
pub const CHANGE_TOLD_BYTES_MAX: usize = 512;
/// Of them, those that are put on a record at once.
pub const REVOCATION_CHANGES_TAKEN_MAX: i64 = 200;
/// What one replica asks another about its record: the next policies are the longest of it.
pub const RECORD_QUESTION_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a replica tells another of its record, and what all of them together tell of one call or mandate.
pub const RECORD_TOLD_BYTES_MAX: usize = 24 * 1024 * 1024;
/// How long other replicas are waited for, over all rounds.
pub const RECORD_ASKED_TIMEOUT: Duration = Duration::from_secs(45);
/// Replicas that are asked about their records at the same moment.
pub const RECORD_ASKED_AT_ONCE_MAX: usize = 16;
/// Readings of the record for such questions at once; others wait.
pub const RECORD_READINGS_MAX: usize = 2;
/// How often the replicas are asked again with what the others have found.
pub const RECORD_ROUNDS_MAX: usize = 8;
/// How long a question of another replica is good for.
pub const RECORD_QUESTION_LIFE: Duration = Duration::from_secs(30);
