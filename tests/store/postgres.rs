//! The shared store: a server that goes and comes back, and addresses that are none.

use calgate::secret::Secret;
use calgate::store::{Postgres, Store as _};

use super::{now, row};
use crate::harness;

#[test]
fn a_server_that_stops_is_an_error_and_one_that_comes_back_is_used_again() {
    let server = harness::Postgres::start();
    now(async {
        let store = Postgres::at(&Secret::new(&server.address()).unwrap(), None).unwrap();
        store.compare_and_swap("a", None, Some(&row(1, b"x"))).await.unwrap();
        let held = store.lock("a").await.unwrap();
        server.stop();
        let said = store.get("a").await.unwrap_err().to_string();
        assert!(said.contains("the token store cannot be used: PostgreSQL"), "{said}");
        assert!(store.lock("b").await.is_err());
        server.resume();
        assert_eq!(store.get("a").await.unwrap(), Some(row(1, b"x")));
        // The lock ended with the connection; that its holder did not know is why there are fences.
        let next = store.lock("a").await.unwrap().expect("free");
        assert!(next.fence > held.unwrap().fence);
    });
}

#[test]
fn an_address_that_is_none_is_refused_without_being_shown() {
    let said = Postgres::at(&Secret::new("canary://nowhere").unwrap(), None).unwrap_err();
    assert!(!said.contains("canary"), "{said}");
    let refused = Secret::new("postgres://user:canary@127.0.0.1:1/db").unwrap();
    let said = now(Postgres::at(&refused, None).unwrap().get("a")).unwrap_err().to_string();
    assert!(said.contains("PostgreSQL") && !said.contains("canary"), "{said}");
}
