//! The rows of rooms: the same of either database.

use super::tests::{Place, on_both};
use super::*;
use crate::limit;
use crate::shelf::{Action, Change, Changed as Batch, Expect, Section, Shelf, Tell, Version};

const THINGS: Section = Section { name: "thing", rows_max: 4 };
const OTHERS: Section = Section { name: "other", rows_max: 1_000 };

fn put(section: Section, key: &str, expect: Expect, body: &str) -> Change {
    let action = Action::Put { owner: "ann".to_owned(), body: body.to_owned(), expires_at_us: None };
    Change::new(section, key, expect, action)
}

fn count(key: &str, by: i64, at_most: i64) -> Change {
    Change::new(OTHERS, key, Expect::Anything, Action::Count { by, at_most, expires_at_us: None })
}

async fn done(store: &Store, changes: Vec<Change>) -> (Vec<i64>, Version) {
    match store.change(changes, Tell::Nobody).await.unwrap() {
        Batch::Done { numbers, version, .. } => (numbers, version),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_row_is_changed_by_whoever_has_read_it_last_and_by_nobody_else() {
    on_both(async |place| {
        let store = place.open().await;
        assert_eq!(store.row(THINGS, "a").await.unwrap(), None);
        done(&store, vec![put(THINGS, "a", Expect::Absent, "one")]).await;
        let again = store.change(vec![put(THINGS, "a", Expect::Absent, "two")], Tell::Nobody).await.unwrap();
        assert_eq!(again, Batch::Conflict(0));
        let read = store.row(THINGS, "a").await.unwrap().unwrap();
        assert_eq!((read.body.as_str(), read.owner.as_str(), read.number), ("one", "ann", 0));
        done(&store, vec![put(THINGS, "a", Expect::Version(read.version), "two")]).await;
        let stale = store.change(vec![put(THINGS, "a", Expect::Version(read.version), "three")], Tell::Nobody).await;
        assert_eq!(stale.unwrap(), Batch::Conflict(0));
        let read = store.row(THINGS, "a").await.unwrap().unwrap();
        assert_eq!(read.body, "two");
        done(&store, vec![Change::new(THINGS, "a", Expect::Version(read.version), Action::Remove)]).await;
        assert_eq!(store.row(THINGS, "a").await.unwrap(), None);
        // Made again it is another row, whatever it says.
        let (_, version) = done(&store, vec![put(THINGS, "a", Expect::Absent, "two")]).await;
        assert_ne!(version, read.version);
    })
    .await;
}

#[tokio::test]
async fn of_a_batch_all_is_done_or_nothing() {
    on_both(async |place| {
        let store = place.open().await;
        done(&store, vec![put(THINGS, "b", Expect::Absent, "one")]).await;
        let batch = vec![
            count("uses", 1, 10),
            put(THINGS, "a", Expect::Absent, "new"),
            put(THINGS, "b", Expect::Absent, "not so"),
            Change::new(THINGS, "c", Expect::Absent, Action::Check),
        ];
        assert_eq!(store.change(batch, Tell::Everybody).await.unwrap(), Batch::Conflict(2));
        assert_eq!(store.row(THINGS, "a").await.unwrap(), None);
        assert_eq!(store.row(OTHERS, "uses").await.unwrap(), None);
        assert_eq!(store.revocation_epoch().await.unwrap(), RevocationEpoch(0));
        let batch = vec![
            count("uses", 3, 10),
            put(THINGS, "a", Expect::Absent, "new"),
            Change::new(THINGS, "c", Expect::Absent, Action::Check),
        ];
        let Batch::Done { numbers, epoch, .. } = store.change(batch, Tell::Everybody).await.unwrap() else { panic!() };
        assert_eq!((numbers, epoch), (vec![3, 0, 0], Some(RevocationEpoch(1))));
        assert_eq!(store.revocation_epoch().await.unwrap(), RevocationEpoch(1));
    })
    .await;
}

#[tokio::test]
async fn a_count_stops_at_its_most_however_many_count_at_once() {
    on_both(async |place| {
        let store = place.open().await;
        let counted = (0..20).map(|_| async { store.change(vec![count("uses", 1, 7)], Tell::Nobody).await.unwrap() });
        let counted = futures_util::future::join_all(counted).await;
        assert_eq!(counted.iter().filter(|counted| counted.is_done()).count(), 7);
        assert_eq!(store.row(OTHERS, "uses").await.unwrap().unwrap().number, 7);
        let (numbers, _) = done(&store, vec![count("uses", -100, 0)]).await;
        assert_eq!(numbers, [0], "never below nothing");
    })
    .await;
}

#[tokio::test]
async fn bits_are_raised_and_never_cleared() {
    on_both(async |place| {
        let store = place.open().await;
        let raise = |bits| {
            let note = Some(format!("bits {bits}\n"));
            Change::new(OTHERS, "labels", Expect::Anything, Action::Raise { bits, expires_at_us: None, note })
        };
        let raised =
            (0..8).map(|bit| async move { bit }).map(|bit| async { done(&store, vec![raise(1 << bit.await)]).await });
        futures_util::future::join_all(raised).await;
        assert_eq!(done(&store, vec![raise(0), raise(3)]).await.0, [255, 255]);
        let row = store.row(OTHERS, "labels").await.unwrap().unwrap();
        let mut lines: Vec<&str> = row.body.lines().collect();
        lines.sort_unstable();
        let expected = ["bits 1", "bits 128", "bits 16", "bits 2", "bits 32", "bits 4", "bits 64", "bits 8"];
        assert_eq!(lines, expected, "one line for whoever was first, and none for what was there");
        let note = Some("x".repeat(crate::limit::SHELF_NOTE_BYTES_MAX + 1));
        let long =
            Change::new(OTHERS, "labels", Expect::Anything, Action::Raise { bits: 256, expires_at_us: None, note });
        assert!(store.change(vec![long], Tell::Nobody).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn of_concurrent_batches_on_the_same_row_one_wins() {
    on_both(async |place| {
        let store = place.open().await;
        let (_, version) = done(&store, vec![put(THINGS, "a", Expect::Absent, "approved")]).await;
        let tries = (0..10).map(|try_| {
            let batch = vec![
                put(THINGS, "a", Expect::Version(version), "consumed"),
                put(OTHERS, &format!("use-{try_}"), Expect::Absent, ""),
            ];
            store.change(batch, Tell::Nobody)
        });
        let tries = futures_util::future::join_all(tries).await;
        assert_eq!(tries.into_iter().filter(|tried| tried.as_ref().unwrap().is_done()).count(), 1);
        assert_eq!(store.rows(OTHERS, None, None).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_has_expired_is_not_there_and_is_swept() {
    on_both(async |place| {
        let store = place.open().await;
        let now = store.clock_us().await.unwrap();
        let until = |moment| Change {
            action: Action::Put { owner: String::new(), body: "x".to_owned(), expires_at_us: Some(moment) },
            ..put(THINGS, "a", Expect::Absent, "")
        };
        done(&store, vec![until(now - 1)]).await;
        assert_eq!(store.row(THINGS, "a").await.unwrap(), None);
        assert_eq!(store.rows(THINGS, None, None).await.unwrap(), []);
        // It is no obstacle, and nothing of it is left.
        done(&store, vec![until(now + 3_600_000_000)]).await;
        assert!(store.row(THINGS, "a").await.unwrap().is_some());
        assert_eq!(store.sweep().await.unwrap(), 0);
        store.spoil("UPDATE shelf SET expires_at = 1").await;
        assert_eq!(store.sweep().await.unwrap(), 1);
        let counted = |by, expires_at_us| {
            Change::new(OTHERS, "c", Expect::Anything, Action::Count { by, at_most: 9, expires_at_us })
        };
        let late = now + 7_200_000_000;
        done(&store, vec![counted(1, Some(late))]).await;
        done(&store, vec![counted(1, Some(now + 1_000_000_000))]).await;
        let row = store.row(OTHERS, "c").await.unwrap().unwrap();
        assert_eq!((row.number, row.expires_at_us), (2, Some(late)), "nobody shortens what another relies on");
    })
    .await;
}

#[tokio::test]
async fn a_full_section_takes_no_more_and_others_do_not_notice() {
    on_both(async |place| {
        let store = place.open().await;
        for key in ["a", "b", "c", "d"] {
            done(&store, vec![put(THINGS, key, Expect::Absent, "")]).await;
        }
        let more = vec![put(OTHERS, "x", Expect::Absent, ""), put(THINGS, "e", Expect::Absent, "")];
        assert_eq!(store.change(more, Tell::Nobody).await.unwrap(), Batch::Full(1));
        done(&store, vec![put(THINGS, "a", Expect::Anything, "changed")]).await;
        done(&store, vec![put(OTHERS, "x", Expect::Absent, "")]).await;
    })
    .await;
}

#[tokio::test]
async fn rows_are_read_by_name_by_owner_and_in_pages() {
    on_both(async |place| {
        let store = place.open().await;
        let of = |owner: &str, key: String| {
            let action = Action::Put { owner: owner.to_owned(), body: String::new(), expires_at_us: None };
            Change::new(Section { name: "many", rows_max: 10_000 }, key, Expect::Absent, action)
        };
        let many = Section { name: "many", rows_max: 10_000 };
        let all: Vec<_> = (0..limit::SHELF_ROWS_READ_MAX + 10).map(|n| of("bob", format!("{n:05}"))).collect();
        for batch in all.chunks(limit::SHELF_CHANGES_MAX) {
            done(&store, batch.to_vec()).await;
        }
        done(&store, vec![of("ann", "00000a".to_owned())]).await;
        let first = store.rows(many, None, None).await.unwrap();
        assert_eq!(first.len(), limit::SHELF_ROWS_READ_MAX);
        let rest = store.rows(many, None, Some(&first.last().unwrap().key)).await.unwrap();
        assert_eq!(rest.len(), 11);
        let anns = store.rows(many, Some("ann"), None).await.unwrap();
        assert_eq!(anns.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["00000a"]);
    })
    .await;
}

#[tokio::test]
async fn several_rows_are_read_at_once_each_in_the_place_of_its_name() {
    on_both(async |place| {
        let store = place.open().await;
        done(&store, vec![put(THINGS, "a", Expect::Absent, "one"), put(OTHERS, "a", Expect::Absent, "two")]).await;
        let gone = Action::Put { owner: String::new(), body: String::new(), expires_at_us: Some(1) };
        done(&store, vec![Change::new(THINGS, "old", Expect::Absent, gone)]).await;
        let names = [(OTHERS, "a"), (THINGS, "b"), (THINGS, "a"), (THINGS, "old"), (OTHERS, "a")];
        let names = names.map(|(section, key)| (section, key.to_owned()));
        let rows = store.named(&names).await.unwrap();
        let bodies: Vec<_> = rows.iter().map(|row| row.as_ref().map(|row| row.body.as_str())).collect();
        assert_eq!(bodies, [Some("two"), None, Some("one"), None, Some("two")]);
        assert_eq!(rows[2], store.row(THINGS, "a").await.unwrap());
        assert_eq!(store.named(&[]).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_or_too_much_is_refused_and_nothing_is_done() {
    on_both(async |place| {
        let store = place.open().await;
        let large = put(OTHERS, "a", Expect::Absent, &"x".repeat(limit::SHELF_BODY_BYTES_MAX + 1));
        assert!(store.change(vec![large], Tell::Nobody).await.is_err());
        let long = put(OTHERS, &"k".repeat(limit::SHELF_KEY_BYTES_MAX + 1), Expect::Absent, "");
        assert!(store.change(vec![long], Tell::Nobody).await.is_err());
        let many = (0..=limit::SHELF_CHANGES_MAX).map(|n| put(OTHERS, &n.to_string(), Expect::Absent, "")).collect();
        assert!(store.change(many, Tell::Nobody).await.is_err());
        assert_eq!(store.rows(OTHERS, None, None).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn rows_that_several_are_about_to_make_are_made_once() {
    let Some(place) = Place::postgres().await else { return };
    let (here, there) = (place.open().await, place.another().open().await);
    for round in 0..20 {
        let key = format!("round-{round}");
        // Whoever comes too late to make it begins anew, and then it is there.
        let many = i64::try_from(limit::SHELF_TRIES_MAX).unwrap();
        let counted = (0..many).map(|number| {
            let store = if number % 2 == 0 { &here } else { &there };
            store.change(vec![count(&key, 1, many)], Tell::Nobody)
        });
        let counted = futures_util::future::join_all(counted).await;
        assert!(counted.iter().all(|counted| counted.as_ref().unwrap().is_done()));
        assert_eq!(here.row(OTHERS, &key).await.unwrap().unwrap().number, many);
    }
}

#[tokio::test]
async fn so_many_carriers_of_labels_are_listed_and_that_there_are_more_is_said() {
    on_both(async |place| {
        let store = place.open().await;
        let names: Vec<String> =
            (0..=crate::limit::LABELS_LISTED_MAX).map(|n| format!("user:test/u{n:05} bot -")).collect();
        for batch in names.chunks(crate::limit::SHELF_CHANGES_MAX) {
            let raise = |key: &String| {
                let action = Action::Raise { bits: 4, expires_at_us: None, note: None };
                Change::new(crate::guard::label::CALLERS, key, Expect::Anything, action)
            };
            done(&store, batch.iter().map(raise).collect()).await;
        }
        let labels = crate::guard::label::Labels::new(std::sync::Arc::new(store));
        let (all, more) = labels.carriers(None).await.unwrap();
        assert_eq!((all.len(), more), (crate::limit::LABELS_LISTED_MAX, true));
        let (one, more) = labels.carriers(Some("user:test/u00007")).await.unwrap();
        assert_eq!((one.len(), more), (1, false));
    })
    .await;
}
