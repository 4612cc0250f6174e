//! Lifecycle of a credential as a pure state machine, against a model of Cal.com and a store. After lost messages and crashes,
//! every recoverable credential is recovered, and no two requests for tokens run at once.

use std::collections::BTreeSet;
use std::time::Duration;

use calgate::credential::lifecycle::{
    MAX_REJECTIONS, NotStarted, Outcome, RejectionAction, RenewalCall, RenewalCapability, TokenUse, Transition,
    backoff, due_after, on_rejection, used_until,
};
use calgate::credential::stored_token::{Pending, Step, StoredCredential, TokenPair};
use calgate::secret::Secret;
use proptest::prelude::*;

use crate::properties::cases;

fn text(secret: &Secret) -> String {
    secret.expose(str::to_owned)
}

fn pair(number: u64) -> TokenPair {
    let secret = |kind: &str| Secret::new(&format!("{kind}-{number}")).unwrap();
    TokenPair {
        access: secret("a"),
        refresh: Some(secret("r")),
        received_at: 1_000_000,
        lifetime: Some(Duration::from_secs(3600)),
    }
}

fn entry() -> StoredCredential {
    let mut entry = StoredCredential::default();
    entry.replace(pair(0));
    entry
}

/// Model of Cal.com for one managed user or one OAuth grant.
struct CalCom {
    single_use: bool,
    good: BTreeSet<String>,
    issued: u64,
    calls: u64,
}

impl CalCom {
    fn new(single_use: bool) -> Self {
        Self { single_use, good: BTreeSet::from(["r-0".to_owned()]), issued: 0, calls: 0 }
    }

    /// Executes a call.
    fn answer(&mut self, call: &RenewalCall) -> Outcome {
        self.calls += 1;
        match call {
            RenewalCall::Refresh(token) if !self.good.contains(&text(token)) => {
                return Outcome::Refused("refused".to_owned());
            }
            RenewalCall::Refresh(token) if self.single_use => drop(self.good.remove(&text(token))),
            RenewalCall::Refresh(_) => {}
            RenewalCall::Recover => self.good.clear(),
        }
        self.issued += 1;
        self.good.insert(format!("r-{}", self.issued));
        Outcome::Renewed(pair(self.issued))
    }
}

/// Fate of a renewal.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Done,
    /// The process dies before the call, after it, or after the commit.
    DiesBefore,
    DiesAfter,
    DiesStored,
    /// The process does not send the call, or the answer is lost.
    NotSent,
    Lost,
}

fn fate() -> impl Strategy<Value = Fate> {
    use Fate::{DiesAfter, DiesBefore, DiesStored, Done, Lost, NotSent};
    prop::sample::select(vec![Done, Done, Done, DiesBefore, DiesAfter, DiesStored, NotSent, Lost])
}

/// Runs one renewal under the lock with `fence`, on the record in the store.
fn renew(stored: &mut StoredCredential, cal: &mut CalCom, fence: u64, capability: RenewalCapability, fate: Fate) {
    loop {
        let (mut entry, generation) = (stored.clone(), stored.generation);
        let call = entry.begin(fence, capability);
        *stored = entry.clone();
        let Ok(call) = call else { return };
        let outcome = match fate {
            Fate::DiesBefore => return,
            Fate::NotSent => Outcome::NotSent("unreachable".to_owned()),
            Fate::DiesAfter => {
                cal.answer(&call);
                return;
            }
            Fate::Lost => {
                cal.answer(&call);
                Outcome::Unknown("closed".to_owned())
            }
            Fate::Done | Fate::DiesStored => cal.answer(&call),
        };
        let next = entry.settle(fence, generation, capability, outcome);
        *stored = entry;
        if next != Transition::TryOtherWay {
            return;
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn after_any_faults_the_next_renewal_succeeds_if_one_is_possible(
        fates in prop::collection::vec(fate(), 0..12),
        single_use: bool,
        recover: bool,
    ) {
        let (mut stored, mut cal, capability) = (entry(), CalCom::new(single_use), RenewalCapability { recover });
        let mut lost = false;
        for (fence, fate) in (1..).zip(&fates) {
            let had = cal.issued;
            renew(&mut stored, &mut cal, fence, capability, *fate);
            lost |= cal.issued > had && matches!(fate, Fate::DiesAfter | Fate::Lost);
        }
        let had = cal.issued;
        renew(&mut stored, &mut cal, 1000, capability, Fate::Done);
        if recover || !single_use || !lost {
            prop_assert_eq!(cal.issued, had + 1);
            prop_assert_eq!(text(&stored.current.as_ref().unwrap().access), format!("a-{}", cal.issued));
            prop_assert!(stored.needs_login.is_none() && stored.pending.is_none() && stored.fault.is_none());
        } else if cal.issued == had {
            prop_assert!(stored.needs_login.is_some());
            // A further renewal does not call Cal.com.
            let calls = cal.calls;
            renew(&mut stored, &mut cal, 1001, capability, Fate::Done);
            prop_assert_eq!(cal.calls, calls);
        }
    }

    #[test]
    fn a_pair_is_never_forgotten_before_the_next_one_has_worked(fates in prop::collection::vec(fate(), 1..12)) {
        let (mut stored, mut cal) = (entry(), CalCom::new(true));
        for (fence, fate) in (1..).zip(&fates) {
            let before = stored.clone();
            renew(&mut stored, &mut cal, fence, RenewalCapability { recover: false }, *fate);
            if stored.generation > before.generation {
                let kept = stored.previous.as_ref().unwrap();
                prop_assert_eq!(text(&kept.access), text(&before.current.as_ref().unwrap().access));
                prop_assert!(!stored.confirm(stored.generation - 1) && stored.previous.is_some());
                prop_assert!(stored.confirm(stored.generation) && stored.previous.is_none());
            } else {
                prop_assert_eq!(text(&stored.current.as_ref().unwrap().access), text(&before.current.as_ref().unwrap().access));
            }
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written(
        generation: u64,
        fence: u64,
        step in prop::sample::select(vec![Step::Refresh, Step::RefreshPrevious, Step::Recover]),
        secret in "[!-~]{1,400}",
        lifetime in prop::option::of(0_u64..100_000),
        why in prop::option::of("\\PC{0,40}"),
    ) {
        let made = TokenPair {
            access: Secret::new(&secret).unwrap(),
            refresh: None,
            received_at: fence,
            lifetime: lifetime.map(Duration::from_secs),
        };
        let entry = StoredCredential {
            generation,
            current: Some(made),
            previous: Some(pair(7)),
            pending: Some(Pending { fence, step, in_doubt: true }),
            needs_login: why.clone(),
            fault: why,
            replaces: None,
            rejections: 3,
        };
        let read = StoredCredential::from_bytes(&entry.to_bytes()).unwrap();
        prop_assert_eq!(text(&read.current.as_ref().unwrap().access), secret);
        prop_assert_eq!(format!("{read:?}"), format!("{entry:?}"));
        let torn = entry.to_bytes().split_last().map(|(_, rest)| rest.to_vec()).unwrap();
        prop_assert!(StoredCredential::from_bytes(&torn).is_none());
    }

    #[test]
    fn tokens_are_due_before_they_are_no_longer_sent_and_that_before_they_end(seconds in 4_u64..1_000_000, jitter in -2.0..2.0) {
        let life = Duration::from_secs(seconds);
        let (due, until) = (due_after(life, jitter), used_until(life));
        prop_assert!(due >= life.mul_f64(0.749) && due <= life.mul_f64(0.851));
        prop_assert!(due < until && until < life && life <= until + Duration::from_secs(5));
    }
}

#[test]
fn a_lock_owner_that_lost_the_lock_only_stores_the_pair_that_it_received() {
    let capability = RenewalCapability { recover: true };
    let mut stored = entry();
    let first = stored.begin(1, capability);
    assert!(matches!(first, Ok(RenewalCall::Refresh(_))));
    // A second owner takes the lock and begins a renewal.
    stored.begin(2, capability).unwrap();
    assert!(matches!(stored.clone().begin(1, capability), Err(NotStarted::LockLost)));
    // The refusal of the first owner proves nothing, because the second owner may have used the token.
    assert_eq!(stored.clone().settle(1, 1, capability, Outcome::Refused("late".to_owned())), Transition::UseStored);
    // Cal.com accepts only the pair that the first owner received.
    let mut saved = stored.clone();
    assert_eq!(saved.settle(1, 1, capability, Outcome::Renewed(pair(1))), Transition::Use);
    assert_eq!(saved.generation, 2);
    // The later refusal of the second owner is about a replaced pair.
    assert_eq!(saved.settle(2, 1, capability, Outcome::Refused("used up".to_owned())), Transition::UseStored);
    assert_eq!(saved.generation, 2);
    assert!(saved.needs_login.is_none());
}

#[test]
fn a_refused_unconfirmed_pair_falls_back_on_the_previous_one() {
    let (capability, mut stored) = (RenewalCapability { recover: false }, entry());
    stored.replace(pair(1));
    let Ok(RenewalCall::Refresh(token)) = stored.begin(1, capability) else { panic!("a refresh") };
    assert_eq!(text(&token), "r-1");
    assert_eq!(stored.settle(1, 2, capability, Outcome::Refused("no".to_owned())), Transition::TryOtherWay);
    let Ok(RenewalCall::Refresh(token)) = stored.begin(1, capability) else { panic!("a refresh") };
    assert_eq!(text(&token), "r-0");
    assert_eq!(stored.settle(1, 2, capability, Outcome::Refused("no".to_owned())), Transition::NeedsLogin);
}

#[test]
fn only_consecutive_rejections_need_a_login() {
    let capability = RenewalCapability { recover: false };
    let (mut stored, mut fence) = (entry(), 0);
    let mut settle = |stored: &mut StoredCredential, outcome: fn(String) -> Outcome| {
        fence += 1;
        stored.begin(fence, capability).unwrap();
        stored.settle(fence, stored.generation, capability, outcome("400".to_owned()))
    };
    for _ in 1..MAX_REJECTIONS {
        assert_eq!(settle(&mut stored, Outcome::Rejected), Transition::TryLater);
    }
    for _ in 0..20 {
        assert_eq!(settle(&mut stored, Outcome::NotSent), Transition::TryLater);
    }
    assert!(stored.needs_login.is_none() && StoredCredential::from_bytes(&stored.to_bytes()).unwrap().rejections == 4);
    let mut renewed = stored.clone();
    renewed.replace(pair(1));
    assert_eq!(settle(&mut renewed, Outcome::Rejected), Transition::TryLater, "a success begins the count anew");
    assert_eq!(settle(&mut stored, Outcome::Rejected), Transition::NeedsLogin);
    assert_eq!(stored.needs_login.as_deref(), Some("400, 5 times in a row"));
}

type Change = fn(&mut StoredCredential);

#[test]
fn each_state_has_its_name() {
    let state = |change: Change, now: u64| {
        let mut entry = entry();
        change(&mut entry);
        entry.state_name(now * 1000)
    };
    let table: [(&str, Change, u64); 8] = [
        ("fresh", |_| {}, 1000),
        ("fresh", |_| {}, 0),
        ("due", |_| {}, 1000 + 2880),
        ("expired", |_| {}, 1000 + 3600),
        ("renewing", |entry| drop(entry.begin(1, RenewalCapability { recover: false })), 4000),
        ("degraded", |entry| entry.fault = Some("x".to_owned()), 4000),
        ("needs-login", |entry| entry.needs_login = Some("x".to_owned()), 1000),
        ("expired", |entry| entry.current = None, 1000),
    ];
    for (expected, change, now) in table {
        assert_eq!(state(change, now), expected, "{now}");
    }
    let page = std::fs::read_to_string("docs/credentials.md").unwrap();
    let elsewhere = ["configured", "damaged", "loading", "unavailable", "unused"];
    for name in table.iter().map(|(name, _, _)| *name).chain(elsewhere) {
        assert!(page.contains(&format!("\n| `{name}` (")), "{name}");
    }
}

#[test]
fn a_rejected_token_is_replaced_or_tried_again_or_neither() {
    let (old, young) = (Duration::from_secs(60), Duration::from_secs(1));
    let used = |age, is_new| TokenUse { generation: 5, age, is_new, lasting: false };
    let lasting = |age, is_new| TokenUse { lasting: true, ..used(age, is_new) };
    let table = [
        (lasting(old, true), 5, false, true, RejectionAction::Nothing),
        (lasting(young, true), 5, false, true, RejectionAction::Nothing),
        (lasting(old, true), 6, false, true, RejectionAction::UseNewer),
        (lasting(old, true), 5, true, true, RejectionAction::Renew),
        (used(old, false), 6, false, true, RejectionAction::UseNewer),
        (used(young, true), 6, true, false, RejectionAction::UseNewer),
        (used(old, false), 1, false, true, RejectionAction::UseNewer),
        (used(old, false), 5, false, false, RejectionAction::Nothing),
        (used(old, false), 5, false, true, RejectionAction::Renew),
        (used(old, true), 5, false, true, RejectionAction::Renew),
        (used(young, false), 5, false, true, RejectionAction::Renew),
        (used(young, true), 5, false, true, RejectionAction::SameAgain),
        (used(young, true), 5, true, true, RejectionAction::Renew),
    ];
    for (used, stored, renewing, renewable, expected) in table {
        assert_eq!(
            on_rejection(used, stored, renewing, renewable),
            expected,
            "{used:?} {stored} {renewing} {renewable}"
        );
    }
}

#[test]
fn back_offs_grow_and_stay_bounded() {
    let rests: Vec<_> = (0..100).map(backoff).collect();
    assert!(rests.is_sorted() && rests[0] >= Duration::from_millis(500));
    assert_eq!(rests.last(), Some(&Duration::from_secs(32)));
}
