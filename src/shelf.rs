//! What rooms keep at run time: named rows with a version, changed all together or not at all.
//!
//! Decides how a room says what it wants kept, and what it expects to find when it changes that. Refuses to know what
//! the rows mean and which database keeps them; `store` implements it. Invariant: a batch of changes happens as a
//! whole, only where every expectation held, and is durable when it is acknowledged; a row that has expired by the
//! store's clock is not there.
//!
//! A room that keeps copies in memory keeps them for one epoch: whoever changes what others may have remembered says
//! [`Tell::Everybody`], which raises the epoch in the same transaction.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::ids::RevocationEpoch;
use crate::outcome::Failure;

/// Rows of one kind, and how many of them there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// The name, for example `mandate`.
    pub name: &'static str,
    /// So many rows fit; one more is refused with [`Changed::Full`].
    pub rows_max: u32,
}

/// A row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name in the section.
    pub key: String,
    /// Another one with each change, and never one that was there before.
    pub version: Version,
    /// What it is looked up by, beside its name; may be empty.
    pub owner: String,
    /// What it says, usually JSON.
    pub body: String,
    /// What it counts, or its bits.
    pub number: i64,
    /// When it is not there any more, microseconds since 1970 by the store's clock.
    pub expires_at_us: Option<i64>,
}

/// Where a row is: its section and its name there.
pub type Name = (Section, String);

/// Tells one state of a row from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub i64);

/// What a change expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No row of that name.
    Absent,
    /// The row as it was read.
    Version(Version),
    /// Whatever is there.
    Anything,
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub section: Section,
    /// Which.
    pub key: String,
    /// What has to be there.
    pub expect: Expect,
    /// What is done to it.
    pub action: Action,
}

/// What is done to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It says this from now on. Its number stays.
    Put {
        /// What it is looked up by, beside its name.
        owner: String,
        /// What it says.
        body: String,
        /// When it is not there any more, microseconds since 1970 by the store's clock.
        expires_at_us: Option<i64>,
    },
    /// It goes.
    Remove,
    /// It counts so many more, and never above `at_most`; a row that is not there begins at nothing.
    Count {
        /// How many; negative gives back, and never below nothing.
        by: i64,
        /// The most that it may be afterwards.
        at_most: i64,
        /// When the row is not there any more; of a row that is there, the later moment holds.
        expires_at_us: Option<i64>,
    },
    /// These bits are set in its number, and none is cleared; a row that is not there begins with none.
    Raise {
        /// Which.
        bits: i64,
        /// When the row is not there any more; of a row that is there, the later moment holds.
        expires_at_us: Option<i64>,
        /// Where it sets a bit that was not there, this becomes one more line of what the row says.
        note: Option<String>,
    },
    /// Nothing: the expectation is all.
    Check,
}

/// Whether others have to forget what they remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Nobody remembers these rows.
    Nobody,
    /// Everybody: the epoch is raised. Whoever says so has the gateway take up the new epoch afterwards.
    Everybody,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// All of it was done.
    Done {
        /// The number of each row afterwards, in the order of the changes; zero for a row that is not there.
        numbers: Vec<i64>,
        /// The version that every row has which it changed.
        version: Version,
        /// The epoch that includes it, where everybody was told.
        epoch: Option<RevocationEpoch>,
    },
    /// Nothing was done: the expectation of that change did not hold, or its count would be above the most.
    Conflict(usize),
    /// Nothing was done: the section of that change is full.
    Full(usize),
}

impl Changed {
    /// Whether it was done.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}

/// Where rows are kept.
pub trait Shelf: fmt::Debug + Send + Sync {
    /// The row of that name.
    ///
    /// # Errors
    /// `store_unavailable`.
    fn row<'a>(&'a self, section: Section, key: &'a str) -> BoxFuture<'a, Result<Option<Row>, Failure>>;

    /// The rows of these names, each in the place of its name. A store reads them in one operation, as they are at one
    /// moment; whoever has none of its own reads one after the other.
    ///
    /// # Errors
    /// `store_unavailable`.
    fn named<'a>(&'a self, names: &'a [Name]) -> BoxFuture<'a, Result<Vec<Option<Row>>, Failure>> {
        Box::pin(async move {
            let mut rows = Vec::with_capacity(names.len());
            for (section, key) in names {
                rows.push(self.row(*section, key).await?);
            }
            Ok(rows)
        })
    }

    /// Rows of a section, of one owner where one is named, by name and after `after`; at most
    /// [`crate::limit::SHELF_ROWS_READ_MAX`].
    ///
    /// # Errors
    /// `store_unavailable`.
    fn rows<'a>(
        &'a self,
        section: Section,
        owner: Option<&'a str>,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Row>, Failure>>;

    /// Does all of it, or nothing; durable when it is done. At most [`crate::limit::SHELF_CHANGES_MAX`], and bodies of
    /// at most [`crate::limit::SHELF_BODY_BYTES_MAX`].
    ///
    /// # Errors
    /// `store_unavailable`; nothing was done then, or nobody knows: read again before trying again.
    fn change(&self, changes: Vec<Change>, tell: Tell) -> BoxFuture<'_, Result<Changed, Failure>>;

    /// The store's clock: microseconds since 1970.
    ///
    /// # Errors
    /// `store_unavailable`.
    fn clock_us(&self) -> BoxFuture<'_, Result<i64, Failure>>;
}

impl Change {
    /// A change that asks for nothing else.
    #[must_use]
    pub fn new(section: Section, key: impl Into<String>, expect: Expect, action: Action) -> Self {
        Self { section, key: key.into(), expect, action }
    }
}
