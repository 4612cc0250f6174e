//! Lookups of Cal.com's name, with a resolver that the test controls.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use calgate::forward::{LookupTimes, Resolver};

const TIMES: LookupTimes = LookupTimes {
    fresh: Duration::from_secs(60),
    late: Duration::from_millis(20),
    repeat: [Duration::from_millis(20), Duration::from_millis(20)],
};

/// What a lookup comes to.
#[derive(Clone, Copy)]
enum Fate {
    Found(u16),
    Failed,
    Lost,
}
use Fate::{Failed, Found, Lost};

fn address(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

/// A resolver whose first lookups come to `fates`, one after the other; the last one stands for all after it.
fn resolver(times: LookupTimes, fates: &'static [Fate]) -> (Arc<Resolver>, Arc<AtomicUsize>) {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    let lookup = move || -> std::pin::Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> {
        let fate = fates[counted.fetch_add(1, Ordering::SeqCst).min(fates.len() - 1)];
        Box::pin(async move {
            match fate {
                Found(port) => {
                    tokio::task::yield_now().await;
                    Ok(vec![address(port)])
                }
                Failed => Err(io::Error::other("no such name")),
                Lost => pending().await,
            }
        })
    };
    (Resolver::new(lookup, times), lookups)
}

async fn found(resolver: &Arc<Resolver>) -> Result<SocketAddr, String> {
    resolver.addresses(Duration::from_secs(10)).await.map(|addresses| addresses[0])
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn one_lookup_serves_all_concurrent_requests_and_those_shortly_after() {
    run(async {
        let (resolver, lookups) = resolver(TIMES, &[Found(1)]);
        let asking = (0..100).map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { found(&resolver).await })
        });
        for answer in asking.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), Ok(address(1)));
        }
        assert_eq!(found(&resolver).await, Ok(address(1)));
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_second_lookup_starts_beside_one_whose_packet_is_lost() {
    run(async {
        let (resolver, lookups) = resolver(TIMES, &[Lost, Lost, Found(1)]);
        assert_eq!(found(&resolver).await, Ok(address(1)));
        assert_eq!(lookups.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn the_last_good_addresses_are_used_while_a_lookup_fails_or_is_late() {
    for fate in [&[Found(1), Failed], &[Found(1), Lost]] {
        run(async {
            let (resolver, _) = resolver(LookupTimes { fresh: Duration::ZERO, ..TIMES }, fate);
            for _ in 0..3 {
                assert_eq!(found(&resolver).await, Ok(address(1)));
            }
        });
    }
}

#[test]
fn after_a_failure_the_name_is_not_looked_up_for_each_connection() {
    run(async {
        let (resolver, lookups) = resolver(TIMES, &[Found(1), Failed]);
        assert_eq!(found(&resolver).await, Ok(address(1)));
        resolver.expire();
        for _ in 0..10 {
            assert_eq!(found(&resolver).await, Ok(address(1)));
        }
        assert_eq!(lookups.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_changed_address_is_used_once_the_old_ones_are_expired() {
    run(async {
        let (resolver, _) = resolver(TIMES, &[Found(1), Found(2)]);
        assert_eq!(found(&resolver).await, Ok(address(1)));
        assert_eq!(found(&resolver).await, Ok(address(1)));
        resolver.expire();
        assert_eq!(found(&resolver).await, Ok(address(2)));
    });
}

#[test]
fn without_any_address_the_error_gives_the_reason() {
    run(async {
        let (failing, _) = resolver(TIMES, &[Failed]);
        assert_eq!(found(&failing).await, Err("the name cannot be looked up: no such name".to_owned()));
        let (silent, _) = resolver(TIMES, &[Lost]);
        let fault = silent.addresses(Duration::from_millis(60)).await.unwrap_err();
        assert!(fault.contains("limits.upstream_lookup"), "{fault}");
    });
}
