//! Agreement of the script for buckets with the local bucket.

use calgate::limit_store::Charge;
use calgate::ratelimit::{Bucket, Quota};
use calgate::time::MonoTime;
use proptest::prelude::*;

use super::agreement::{Bench, config};

const START: u64 = 1_700_000_000_000_000;

#[test]
fn a_shared_bucket_decides_as_a_local_one() {
    let bench = std::cell::RefCell::new(Bench::start());
    let asks = prop::collection::vec((0..3_000_000_u64, 0..2_usize), 1..200);
    proptest!(config(), |(tiers in [(1..1000_u32, 1..20_u32), (1..1000_u32, 1..20_u32)], asks in asks)| {
        let bench = &mut *bench.borrow_mut();
        bench.empty();
        let quotas = tiers.map(|(per_minute, burst)| Quota::per_minute(per_minute, burst));
        let (bucket, mut at) = (Bucket::default(), START);
        for (pause, tier) in asks {
            at += pause;
            let charge = Charge { key: "calgate:{test}:bucket:billing", quota: quotas[tier] };
            let link = &mut bench.link;
            let theirs = bench.runtime.block_on(bench.scripts.charge(link, charge, Some(at))).unwrap();
            match (theirs, bucket.take(quotas[tier], MonoTime(at * 1000))) {
                (Ok(ahead), Ok(standing)) => prop_assert_eq!(ahead, standing.reset),
                (Err(ahead), Err(empty)) => prop_assert_eq!(ahead, empty.status.reset),
                (theirs, ours) => prop_assert!(false, "{theirs:?}, {ours:?}"),
            }
        }
    });
}
