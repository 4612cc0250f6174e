//! The contract of a storage backend, checked with each of them.

use std::sync::Arc;

use calgate::secret::Secret;
use calgate::vault::{Backend, Lock, Postgres};

use super::{now, row, sqlite_in};
use crate::harness;

/// Opens the backend as another replica would.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Backend>;

fn with_each(check: impl Fn(Open<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    check(&|| Arc::new(sqlite_in(folder.path())));
    let server = harness::Postgres::start();
    let address = Secret::new(&server.address()).unwrap();
    check(&|| Arc::new(Postgres::new(&address, None).unwrap()));
    let server = harness::Postgres::start();
    let pooler = harness::PgBouncer::start(&server, "transaction", 3);
    let address = Secret::new(&pooler.address()).unwrap();
    check(&|| Arc::new(Postgres::new(&address, None).unwrap()));
}

#[test]
fn changes_only_the_expected_version() {
    with_each(|open| {
        now(async {
            let store = open();
            assert_eq!(store.get("a").await.unwrap(), None);
            assert!(!store.compare_and_swap("a", Some(1), Some(&row(2, b"x"))).await.unwrap());
            assert!(store.compare_and_swap("a", None, Some(&row(1, b"one"))).await.unwrap());
            assert!(!store.compare_and_swap("a", None, Some(&row(1, b"other"))).await.unwrap());
            let other = open();
            assert_eq!(other.get("a").await.unwrap(), Some(row(1, b"one")));
            assert!(other.compare_and_swap("a", Some(1), Some(&row(2, b"two"))).await.unwrap());
            assert!(!store.compare_and_swap("a", Some(1), Some(&row(2, b"late"))).await.unwrap());
            assert_eq!(store.get("a").await.unwrap(), Some(row(2, b"two")));
            store.compare_and_swap("b", None, Some(&row(1, b""))).await.unwrap();
            assert_eq!(store.names().await.unwrap(), ["a", "b"]);
            assert!(!store.compare_and_swap("a", Some(1), None).await.unwrap());
            assert!(store.compare_and_swap("a", Some(2), None).await.unwrap());
            assert_eq!(store.get("a").await.unwrap(), None);
        });
    });
}

#[test]
fn one_of_several_changes_to_a_version_succeeds() {
    with_each(|open| {
        now(async {
            open().compare_and_swap("a", None, Some(&row(1, b"start"))).await.unwrap();
        });
        for version in 1..20 {
            let made: usize = std::thread::scope(|scope| {
                let change = |text: &'static [u8], store: Arc<dyn Backend>| {
                    scope.spawn(move || {
                        now(async {
                            store.compare_and_swap("a", Some(version), Some(&row(version + 1, text))).await.unwrap()
                        })
                    })
                };
                let all = [b"0", b"1", b"2", b"3"].map(|text| change(text, open()));
                all.into_iter().map(|one| usize::from(one.join().unwrap())).sum()
            });
            assert_eq!(made, 1);
        }
    });
}

/// Waits for a lock that its holder releases.
async fn wait_for_lock(store: &dyn Backend, name: &str) -> Lock {
    loop {
        match store.lock(name).await.unwrap() {
            Some(held) => return held,
            None => tokio::task::yield_now().await,
        }
    }
}

#[test]
fn a_lock_has_one_holder_and_a_growing_fence() {
    with_each(|open| {
        let (one, other) = (open(), open());
        now(async {
            let mut last = 0;
            for _ in 0..3 {
                let held = wait_for_lock(&*one, "a").await;
                assert!(held.fence > last);
                last = held.fence;
                assert!(other.lock("a").await.unwrap().is_none());
                let second = wait_for_lock(&*other, "b").await;
                assert!(second.fence > last);
                last = second.fence;
                drop((held, second));
                drop(wait_for_lock(&*other, "a").await);
            }
        });
    });
}

/// The pooler of [`with_each`] has three connections, and all of them hold locks.
#[test]
fn holders_of_all_connections_change_their_records_and_keep_their_locks() {
    with_each(|open| {
        let (stores, other) = ([open(), open(), open()], open());
        now(async {
            let mut locks = Vec::new();
            for (store, name) in stores.iter().zip(["a", "b", "c"]) {
                locks.push(wait_for_lock(&**store, name).await);
            }
            for (store, name) in stores.iter().zip(["a", "b", "c"]) {
                assert!(store.compare_and_swap(name, None, Some(&row(1, b"pending"))).await.unwrap());
                assert!(!store.compare_and_swap(name, None, Some(&row(1, b"again"))).await.unwrap());
                assert!(store.compare_and_swap(name, Some(1), Some(&row(2, b"done"))).await.unwrap());
                assert_eq!(store.get(name).await.unwrap(), Some(row(2, b"done")));
            }
            locks.pop();
            drop(wait_for_lock(&*other, "c").await);
            assert!(other.lock("a").await.unwrap().is_none());
            assert_eq!(other.get("a").await.unwrap(), Some(row(2, b"done")));
            drop(locks);
            drop(wait_for_lock(&*other, "a").await);
        });
    });
}
