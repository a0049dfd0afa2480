//! What is signed, and what is never signed, on real files.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::config::RecordConfig;
use crate::record::appender::{Appender, Lines};
use crate::record::metrics::Metrics;
use crate::record::tree::perfect;

/// A journal that is written by hand, and its follower.
struct Place {
    state: tempfile::TempDir,
    replica: ReplicaId,
    config: RecordConfig,
    holds: Arc<crate::record::Holds>,
}

impl Place {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            replica: ReplicaId::new(),
            config: RecordConfig::fixture(),
            holds: Arc::default(),
        }
    }

    fn directory(&self) -> PathBuf {
        self.state.path().join("journal")
    }

    /// Opens both, as a start does.
    fn open(&self) -> (Appender, Ledger) {
        let (mut appender, _) = Appender::open(&self.directory(), self.replica).unwrap();
        appender.limit_segments(2_000);
        let position = appender.position();
        let ledger = Ledger {
            directory: self.directory(),
            replica: self.replica,
            keys: CheckpointKeys::open(self.state.path(), &self.replica).unwrap(),
            interval: Duration::from_secs(60),
            shared: Arc::new(Shared::new(Metrics::new(), None)),
            found: position.records(),
            position,
            follows: Follows::Nothing,
            sinks: Sinks::new(&[], &Metrics::new()),
            keeper: Keeper::new(&self.directory(), &self.config, Arc::clone(&self.holds)),
            room: Room::new(&self.directory(), &self.config),
        };
        (appender, ledger)
    }

    fn latest(&self) -> Checkpoint {
        read_checkpoint(&self.directory().join(LATEST)).unwrap().unwrap().unwrap().checkpoint
    }

    fn leaves(&self) -> Vec<crate::ids::Digest> {
        let all = segment::segments(&self.directory()).unwrap();
        let bytes: Vec<u8> = all.iter().flat_map(|(_, path)| std::fs::read(path).unwrap()).collect();
        segment::lines(&bytes).map(leaf).collect()
    }
}

/// Does something to a journal's directory.
type Spoil = fn(&Path);

fn write(appender: &mut Appender, count: usize) {
    for _ in 0..count {
        let mut batch = Lines::default();
        batch.push(br#","type":"stop"}"#, Mark::Plain);
        appender.append(&batch).unwrap();
    }
}

/// Whether the follower is content after a look.
fn content(ledger: &mut Ledger) -> bool {
    ledger.look();
    ledger.shared.metrics.checkpoint_well.get() == 1
}

fn contradicted(ledger: &mut Ledger) -> bool {
    !content(ledger) && matches!(ledger.follows, Follows::Contradiction)
}

#[test]
fn checkpoints_cover_everything_also_over_restarts_and_each_closed_segment_has_its_own() {
    let place = Place::new();
    for (round, count) in [3, 500, 9].into_iter().enumerate() {
        let (mut appender, mut ledger) = place.open();
        write(&mut appender, count);
        assert!(content(&mut ledger), "round {round}");
        write(&mut appender, 1);
        assert!(content(&mut ledger), "round {round}");
        let leaves = place.leaves();
        assert_eq!(place.latest().size, leaves.len() as u64);
        let mut tree = Tree::default();
        // The same tree, made of all lines at once.
        let lines = segment::segments(&place.directory()).unwrap();
        let bytes: Vec<u8> = lines.iter().flat_map(|(_, path)| std::fs::read(path).unwrap()).collect();
        for (index, line) in segment::lines(&bytes).enumerate() {
            tree.add(index as u64 + 1, line, |_, _, _| Ok(())).unwrap();
        }
        assert_eq!(place.latest().root, tree.root(), "round {round}");
    }
    let firsts: Vec<u64> = segment::segments(&place.directory()).unwrap().iter().map(|(first, _)| *first).collect();
    assert!(firsts.len() > 10);
    for first in &firsts[1..] {
        let kept = place.directory().join(KEPT).join(format!("{:020}", first - 1));
        assert_eq!(read_checkpoint(&kept).unwrap().unwrap().unwrap().checkpoint.size, first - 1);
    }
    let leaves = place.leaves();
    assert_eq!(tiles::full(&place.directory(), 0, 0).unwrap().unwrap(), leaves[..256]);
    assert_eq!(tiles::leaf_of(&place.directory(), 300).unwrap(), Some(leaves[299]));
    assert_ne!(perfect(&leaves[..256]), perfect(&leaves[256..512]));
}

#[test]
fn an_end_of_a_segment_that_was_signed_before_it_was_known_to_be_one_is_kept_all_the_same() {
    for restarted in [false, true] {
        let place = Place::new();
        let (mut appender, mut ledger) = place.open();
        write(&mut appender, 5);
        assert!(content(&mut ledger));
        appender.position().end_segment();
        if restarted {
            drop((appender, ledger));
            (appender, ledger) = place.open();
            appender.position().end_segment();
        }
        write(&mut appender, 1);
        assert!(content(&mut ledger));
        assert!(place.directory().join(KEPT).join(format!("{:020}", 5)).exists(), "restarted: {restarted}");
    }
}

#[test]
fn old_segments_go_when_they_are_signed_and_on_the_record_and_not_before() {
    let mut place = Place::new();
    place.config.keep_bytes = Some(5_000);
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 100);
    let before = segment::segments(&place.directory()).unwrap();
    let due = |ledger: &Ledger, signed| ledger.keeper.due(signed, ledger.keys.verifiers(), false).unwrap();
    assert!(due(&ledger, 100).is_none(), "no checkpoint explains it");
    assert!(content(&mut ledger));
    assert!(due(&ledger, 0).is_none(), "nothing is signed");
    let facts = due(&ledger, 101).unwrap();
    assert_eq!((facts.first, facts.because), (1, "bytes"));
    // Nobody writes the record of it, so nothing goes: the queue is closed.
    ledger.shared.close();
    ledger.tidy().unwrap();
    assert_eq!(segment::segments(&place.directory()).unwrap(), before);
    ledger.keeper.remove(facts.last).unwrap();
    let after = segment::segments(&place.directory()).unwrap();
    assert_eq!(after[0].0, facts.last + 1);
    assert!(ledger.keeper.bytes().unwrap() <= 5_000);
    // The follower goes on from there, also after a restart.
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 20);
    assert!(content(&mut ledger));
    assert!(!place.directory().join(KEPT).join(format!("{:020}", before[1].0 - 1)).exists());
}

#[test]
fn what_somebody_has_yet_to_read_stays_unless_the_room_for_the_last_words_is_at_stake() {
    let mut place = Place::new();
    place.config.keep_bytes = Some(5_000);
    place.holds.read_up_to("siem", 0);
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 100);
    assert!(content(&mut ledger));
    let due = |at_stake| ledger.keeper.due(101, ledger.keys.verifiers(), at_stake).unwrap();
    assert!(due(false).is_none(), "nobody has read anything");
    let all = due(true).unwrap();
    assert_eq!((all.unread, all.first), (all.last, 1), "and it says how much was not read");
    let first = segment::segments(&place.directory()).unwrap()[1].0 - 1;
    place.holds.read_up_to("siem", first);
    let read = due(false).unwrap();
    assert_eq!((read.last, read.unread), (first, 0));
    place.holds.read_up_to("other", 0);
    assert!(due(false).is_none(), "the slowest counts");
}

#[test]
fn a_disk_that_cannot_be_written_for_a_while_is_no_contradiction() {
    let place = Place::new();
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 5);
    assert!(content(&mut ledger));
    let (tile, aside) = (place.directory().join("tile"), place.directory().join("aside"));
    std::fs::rename(&tile, &aside).unwrap();
    std::fs::write(&tile, b"no directory").unwrap();
    write(&mut appender, 5);
    assert!(!content(&mut ledger));
    assert!(!matches!(ledger.follows, Follows::Contradiction));
    std::fs::remove_file(&tile).unwrap();
    std::fs::rename(&aside, &tile).unwrap();
    assert!(content(&mut ledger));
    assert_eq!(place.latest().size, place.leaves().len() as u64);
}

#[test]
fn nothing_new_is_nothing_to_sign() {
    let place = Place::new();
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 3);
    assert!(content(&mut ledger));
    std::fs::remove_file(place.directory().join(LATEST)).unwrap();
    assert!(content(&mut ledger));
    assert!(!place.directory().join(LATEST).exists(), "the same checkpoint is not written again");
}

#[test]
fn tiles_that_were_lost_are_made_again_from_the_records() {
    let place = Place::new();
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 300);
    assert!(content(&mut ledger));
    let tile = place.directory().join("tile/0/000");
    let before = std::fs::read(&tile).unwrap();
    std::fs::remove_dir_all(place.directory().join("tile")).unwrap();
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 1);
    assert!(content(&mut ledger));
    assert_eq!(std::fs::read(&tile).unwrap(), before);
    assert_eq!(place.latest().size, place.leaves().len() as u64);
}

#[test]
fn what_contradicts_a_checkpoint_is_never_signed() {
    let spoil: [(&str, Spoil); 6] = [
        ("an end that was cut off", |directory| {
            let (_, last) = segment::segments(directory).unwrap().pop().unwrap();
            let text = std::fs::read_to_string(&last).unwrap();
            let cut = text.trim_end().rfind('\n').unwrap() + 1;
            std::fs::write(&last, &text[..cut]).unwrap();
        }),
        ("a last record that was changed", |directory| {
            let (_, last) = segment::segments(directory).unwrap().pop().unwrap();
            let text = std::fs::read_to_string(&last).unwrap();
            let (before, line) = text.trim_end().rsplit_once('\n').unwrap();
            std::fs::write(&last, format!("{before}\n{}\n", line.replace("stop", "stoP"))).unwrap();
        }),
        ("a checkpoint that is gone", |directory| std::fs::remove_file(directory.join(LATEST)).unwrap()),
        ("an older checkpoint in the place of the last one, and an end that was cut off", |directory| {
            let mut kept: Vec<_> =
                std::fs::read_dir(directory.join(KEPT)).unwrap().map(|entry| entry.unwrap().path()).collect();
            kept.sort();
            std::fs::copy(&kept[0], directory.join(LATEST)).unwrap();
            for (_, path) in &segment::segments(directory).unwrap()[1..] {
                std::fs::remove_file(path).unwrap();
            }
        }),
        ("a checkpoint that is none", |directory| std::fs::write(directory.join(LATEST), "nothing\n").unwrap()),
        ("an old record that was changed, and the tiles are gone", |directory| {
            let (_, first) = segment::segments(directory).unwrap().swap_remove(0);
            let text = std::fs::read_to_string(&first).unwrap();
            std::fs::write(&first, text.replacen("stop", "stoP", 1)).unwrap();
            std::fs::remove_dir_all(directory.join("tile")).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        let place = Place::new();
        let (mut appender, mut ledger) = place.open();
        write(&mut appender, 60);
        assert!(content(&mut ledger));
        drop((appender, ledger));
        spoil(&place.directory());
        let (mut appender, mut ledger) = place.open();
        write(&mut appender, 3);
        assert!(contradicted(&mut ledger), "{what}");
        assert!(contradicted(&mut ledger), "{what}");
    }
}

#[test]
fn a_journal_from_before_there_were_checkpoints_is_signed_from_its_beginning() {
    let place = Place::new();
    let (mut appender, _) = Appender::open(&place.directory(), place.replica).unwrap();
    write(&mut appender, 30);
    drop(appender);
    let (_appender, mut ledger) = place.open();
    assert!(content(&mut ledger));
    assert_eq!(place.latest().size, 30);
}

#[test]
fn a_checkpoint_file_beyond_its_limit_is_none() {
    let place = Place::new();
    std::fs::create_dir(place.directory()).unwrap();
    let path = place.directory().join(LATEST);
    std::fs::write(&path, "x".repeat(limit::CHECKPOINT_BYTES_MAX + 1)).unwrap();
    assert_eq!(read_checkpoint(&path).unwrap(), Some(None));
}

/// What takes everything and can keep nothing.
fn unkept() -> File {
    File::options().append(true).open("/dev/null").unwrap()
}

#[test]
fn what_the_disk_may_not_have_is_signed_once_it_was_written_again() {
    let place = Place::new();
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 3);
    appender.sync().unwrap();
    assert!(content(&mut ledger));
    write(&mut appender, 2);
    let (_, segment) = segment::segments(&place.directory()).unwrap().pop().unwrap();
    let (before, text) = (segment.metadata().unwrap().ino(), std::fs::read(&segment).unwrap());
    appender.replace_file(unkept());
    assert!(appender.sync().is_err());
    assert!(!content(&mut ledger), "somebody is told");
    assert_eq!(place.latest().size, 3, "a crash could take the others back");
    write(&mut appender, 1);
    assert_ne!(segment.metadata().unwrap().ino(), before, "it was written again");
    assert_eq!(std::fs::read(&segment).unwrap(), text);
    assert!(content(&mut ledger));
    assert_eq!((place.latest().size, place.leaves().len()), (7, 7));
}

#[test]
fn what_the_disk_has_lost_is_never_signed() {
    let place = Place::new();
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 3);
    appender.sync().unwrap();
    write(&mut appender, 2);
    let (_, segment) = segment::segments(&place.directory()).unwrap().pop().unwrap();
    appender.replace_file(unkept());
    assert!(appender.sync().is_err());
    let text = std::fs::read_to_string(&segment).unwrap();
    let cut = text.trim_end().rfind('\n').unwrap() + 1;
    std::fs::write(&segment, &text[..cut]).unwrap();
    for _ in 0..2 {
        write(&mut appender, 1);
        assert!(!content(&mut ledger));
        assert_eq!(place.latest().size, 3);
    }
}

#[test]
fn what_could_not_be_kept_when_it_was_to_be_signed_is_in_doubt_as_well() {
    let place = Place::new();
    let (mut appender, mut ledger) = place.open();
    write(&mut appender, 2);
    let (_, segment) = segment::segments(&place.directory()).unwrap().pop().unwrap();
    let before = segment.metadata().unwrap().ino();
    ledger.position.doubt(1, segment.clone());
    assert!(!content(&mut ledger));
    assert!(read_checkpoint(&place.directory().join(LATEST)).unwrap().is_none(), "nothing is signed");
    write(&mut appender, 1);
    assert_ne!(segment.metadata().unwrap().ino(), before);
    assert!(content(&mut ledger));
    assert_eq!(segment::segments(&place.directory()).unwrap().len(), 2, "nothing more is written to it");
}

/// A local log whose queue is full, because nobody reads it.
fn unread_log(path: &Path) -> std::os::unix::net::UnixDatagram {
    let log = std::os::unix::net::UnixDatagram::bind(path).unwrap();
    let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send_to(b"full", path).is_ok() {}
    log.set_nonblocking(true).unwrap();
    log
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_places_that_hang_no_longer_than_it_says() {
    let place = Place::new();
    let path = |number: usize| place.state.path().join(format!("log-{number}"));
    let logs: Vec<_> = (0..limit::SINKS_MAX).map(|number| unread_log(&path(number))).collect();
    let sinks = (0..limit::SINKS_MAX).map(|number| crate::config::SinkConfig::Syslog(path(number))).collect();
    let metrics = Metrics::new();
    let (journal, _) = crate::record::Journal::start(crate::record::JournalSettings {
        state: place.state.path(),
        replica: place.replica,
        durability: crate::config::Durability::Fsync,
        key: crate::record::JournalKey::from_hex(&secrecy::SecretString::from("7f".repeat(32))).unwrap(),
        metrics: Arc::clone(&metrics),
        keeping: Some(crate::record::Keeping {
            config: RecordConfig { sinks, ..RecordConfig::fixture() },
            keys: CheckpointKeys::open(place.state.path(), &place.replica).unwrap(),
            holds: Arc::clone(&place.holds),
        }),
    })
    .unwrap();
    let checkpoints = journal.checkpoints().unwrap();
    let stopping = tokio::spawn(async move { journal.stop("test").await });
    // The last checkpoint is made, and hangs at the first place; real time passes there, and none here.
    for _ in 0..20_000 {
        if checkpoints.has_changed().unwrap() {
            break;
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(checkpoints.has_changed().unwrap() && !stopping.is_finished());
    tokio::time::advance(limit::LEDGER_STOP_MAX).await;
    assert!(stopping.await.unwrap().is_ok(), "everything is on the record");
    let given_up = usize::try_from(metrics.checkpoint_sink_failures.get()).unwrap();
    assert!(given_up < limit::SINKS_MAX, "it did not wait for all of them");
    // Somebody reads at last, so that nothing of it is left hanging.
    while std::sync::Arc::strong_count(&metrics) > 1 {
        for log in &logs {
            while log.recv(&mut [0; 4_096]).is_ok() {}
        }
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(place.latest().size >= 1, "and it was signed");
}
