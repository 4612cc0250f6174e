//! `kill -9` at each step of a renewal, and at random moments: every credential that can be recovered is recovered, and no caller
//! of another replica receives a rejected token.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::rig::{Rig, living};
use crate::harness::{Gateway, eventually, pass, scaled};

/// Steps of a renewal, in their order. `CALGATE_FAIL_POINT` kills a process at the end of one.
const STEPS: [&str; 5] = ["after-lock", "after-pending", "after-call", "after-commit", "after-use"];

/// Returns the status of a request for a managed user, or `None` if the replica dies before it answers.
pub fn ask(address: &str, key: &str, user: u64) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(crate::harness::patience())).ok()?;
    let head = format!("GET /v2/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Api-Key: {key}\r\n");
    stream.write_all(format!("{head}x-calgate-managed-user: {user}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.get(9..12)?.parse().ok()?;
    assert!(status == 200, "{answer}");
    Some(status)
}

/// Stops the callers when the test ends, even if the test fails.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn dies_at(rig: &Rig, step: &str) -> Gateway {
    rig.setup().env("CALGATE_FAIL_POINT", step).start()
}

#[test]
fn a_single_use_pair_survives_a_crash_at_any_step_but_one_which_is_recovered_or_reported() {
    for step in STEPS {
        for recover in [false, true] {
            let mut rig = Rig::new(living(3600));
            rig.platform = if recover { "recover = \"force-refresh\"" } else { "" };
            let ((user, _), (other, _)) = (rig.import_user(), rig.import_user());
            let mut dying = dies_at(&rig, step);
            assert_eq!(ask(&dying.address, &rig.key.text, user), Some(200));
            rig.sim.advance(Duration::from_secs(3601));
            eventually("death", || ask(&dying.address, &rig.key.text, user).is_none().then_some(()));
            assert_eq!(dying.wait_for_exit(), None, "killed by a signal");
            let gateway = rig.start();
            let (answer, counts) = (rig.for_user(&gateway, user, "GET /v2/me"), rig.sim.token_counts());
            let lost = step == "after-call";
            if lost && !recover {
                assert_eq!((answer.status, answer.code()), (503, Some("GATEWAY_CREDENTIAL_NEEDS_LOGIN")));
                let ready = gateway.ask_admin("GET /readyz", &[]);
                assert!(
                    ready.status == 200 && ready.text().contains(&format!("credential platform/{user}: needs-login"))
                );
                let metric = format!("credential=\"platform/{user}\",state=\"needs-login\"");
                assert_eq!(gateway.metric("calgate_credentials", &metric), 1);
                assert_eq!(rig.state(&format!("platform/{user}")), "needs-login");
            } else {
                assert_eq!(answer.status, 200, "{step} {}", answer.text());
                assert_eq!(counts.force_refreshes, u64::from(lost), "{step}");
                assert_eq!(counts.managed_refreshes, 1, "{step}");
            }
            // The crash does not affect another user.
            assert_eq!(rig.for_user(&gateway, other, "GET /v2/me").status, 200);
        }
    }
}

#[test]
fn an_oauth_grant_survives_a_crash_at_every_step() {
    for step in STEPS {
        let rig = Rig::new(living(3600));
        rig.import_app();
        let mut dying = dies_at(&rig, step);
        assert_eq!(dying.ask("GET /v2/me", &[]).status, 200, "{step}");
        // Cal.com now refuses the token, so the next request renews it.
        rig.sim.advance(Duration::from_secs(3601));
        dying.connect().send("GET /v2/me HTTP/1.1\r\nHost: localhost\r\n\r\n").read_to_end();
        assert_eq!(dying.wait_for_exit(), None, "killed by a signal");
        let gateway = rig.start();
        assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200, "{step}");
        let spent = u64::from(!["after-lock", "after-pending"].contains(&step));
        let again = u64::from(step != "after-commit" && step != "after-use");
        assert_eq!(rig.sim.token_counts().oauth_refreshes, spent + again, "{step}");
    }
}

#[test]
fn callers_of_other_replicas_do_not_notice_a_crash_at_any_step() {
    for step in STEPS {
        let mut rig = Rig::new(living(3));
        rig.platform = "recover = \"force-refresh\"";
        let (user, _) = rig.import_user();
        let mut dying = dies_at(&rig, step);
        let living = [rig.start(), rig.start()];
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = Over(&over);
            for caller in 0..8 {
                let (rig, over, gateway) = (&rig, &over, &living[caller % 2]);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(ask(&gateway.address, &rig.key.text, user), Some(200), "{step}");
                    }
                });
            }
            let renewals = || rig.sim.token_counts().managed_refreshes + rig.sim.token_counts().force_refreshes;
            // The replica dies at the first renewal that it does itself.
            eventually("its death", || ask(&dying.address, &rig.key.text, user).is_none().then_some(()));
            assert_eq!(dying.wait_for_exit(), None);
            let at_death = renewals();
            eventually("renewals after it", || (renewals() > at_death).then_some(()));
        });
    }
}

#[test]
fn hundreds_of_callers_at_expiry_cause_one_renewal() {
    for _ in 0..3 {
        let rig = Rig::new(living(3600));
        let (user, _) = rig.import_user();
        let replicas = [rig.start(), rig.start(), rig.start()];
        for gateway in &replicas {
            assert_eq!(rig.for_user(gateway, user, "GET /v2/me").status, 200);
        }
        rig.sim.advance(Duration::from_secs(3601));
        std::thread::scope(|scope| {
            for caller in 0..300 {
                let (rig, gateway) = (&rig, &replicas[caller % 3]);
                scope.spawn(move || assert_eq!(ask(&gateway.address, &rig.key.text, user), Some(200)));
            }
        });
        let counts = rig.sim.token_counts();
        assert_eq!((counts.managed_refreshes, counts.refused, counts.force_refreshes), (1, 0, 0));
    }
}

#[test]
fn two_hundred_crashes_at_random_times_lose_no_token() {
    // A renewal has a fifth of a token's life, and a busy machine needs longer for it.
    let mut rig = Rig::new(living(scaled(Duration::from_secs(1)).as_secs().max(2)));
    rig.platform = "recover = \"force-refresh\"";
    let (user, _) = rig.import_user();
    let replicas: Vec<Mutex<Option<Gateway>>> = (0..3).map(|_| Mutex::new(Some(rig.start()))).collect();
    let (over, good) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for caller in 0..6 {
            let (rig, replicas, over, good) = (&rig, &replicas, &over, &good);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let address = replicas[caller % 3].lock().as_ref().map(|gateway| gateway.address.clone());
                    let status = address.and_then(|address| ask(&address, &rig.key.text, user));
                    assert!(status.is_none_or(|status| status == 200), "{status:?}");
                    good.fetch_add(u64::from(status.is_some()), Ordering::Relaxed);
                    pass(Duration::from_millis(5));
                }
            });
        }
        for death in 0..200_u64 {
            // Each run uses the same delays, so that a failure is easier to repeat.
            pass(Duration::from_millis(death * 7919 % 97));
            let replica = &replicas[usize::try_from(death % 3).unwrap()];
            drop(replica.lock().take());
            *replica.lock() = Some(rig.start());
        }
    });
    assert!(good.load(Ordering::Relaxed) > 200);
    let gateway = rig.start();
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
}
