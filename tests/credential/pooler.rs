//! A PostgreSQL store behind `PgBouncer`: transaction mode works, and calgate refuses statement mode with the reason.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::crash::{Over, ask};
use super::rig::{Rig, living, sim};
use crate::harness::{PgBouncer, Postgres, eventually, pass};

/// Starts a simulated Cal.com, and a store behind a pooler with that mode and that number of server connections.
fn behind(mode: &str, connections: u32, seconds: u64) -> (Rig, Postgres, PgBouncer) {
    let server = Postgres::start();
    let pooler = PgBouncer::start(&server, mode, connections);
    let mut rig = Rig::at(sim(living(seconds)));
    "postgres = { env = \"DATABASE_URL\" }".clone_into(&mut rig.place);
    rig.environment.push(("DATABASE_URL".to_owned(), pooler.address()));
    (rig, server, pooler)
}

#[test]
fn in_transaction_mode_every_request_is_served_and_no_refresh_token_is_used_twice() {
    let (rig, _server, _pooler) = behind("transaction", 3, 3);
    let users: Vec<_> = (0..4).map(|_| rig.import_user().0).collect();
    let replicas = [rig.start(), rig.start(), rig.start()];
    let (over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let renewals = || rig.sim.token_counts().managed_refreshes;
    std::thread::scope(|scope| {
        for gateway in &replicas {
            for user in &users {
                let (rig, over, served) = (&rig, &over, &served);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let answer = rig.for_user(gateway, *user, "GET /v2/me");
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        served.fetch_add(1, Ordering::Relaxed);
                        pass(Duration::from_millis(20));
                    }
                });
            }
        }
        let _over = Over(&over);
        eventually("renewals", || (renewals() >= 12).then_some(()));
    });
    let counts = rig.sim.token_counts();
    assert_eq!((counts.refused, counts.force_refreshes), (0, 0), "{counts:?}");
    assert!(served.load(Ordering::Relaxed) > 100);
    let away = |gateway: &crate::harness::Gateway| gateway.log().iter().any(|l| l.contains("store cannot be used"));
    assert!(!replicas.iter().any(away), "the store was there all the time");
}

#[test]
fn in_transaction_mode_a_killed_lock_owner_holds_no_lock() {
    let (rig, _server, _pooler) = behind("transaction", 3, 3600);
    let (user, _) = rig.import_user();
    let mut dying = rig.setup().env("CALGATE_FAIL_POINT", "after-pending").start();
    let other = rig.start();
    assert_eq!(rig.for_user(&dying, user, "GET /v2/me").status, 200);
    rig.sim.advance(Duration::from_secs(3601));
    assert_eq!(ask(&dying.address, &rig.key.text, user), None, "it dies before it answers");
    assert_eq!(dying.wait_for_exit(), None, "killed by a signal");
    assert_eq!(rig.for_user(&other, user, "GET /v2/me").status, 200);
    let counts = rig.sim.token_counts();
    assert_eq!((counts.managed_refreshes, counts.refused), (1, 0));
}

#[test]
fn statement_mode_is_refused_with_the_mode_to_use() {
    let (rig, _server, _pooler) = behind("statement", 3, 3600);
    let said = rig.refused(&["credentials", "import", "app"], "{\"access_token\":\"a\"}");
    assert!(said.contains("pool_mode = transaction"), "{said}");
}
