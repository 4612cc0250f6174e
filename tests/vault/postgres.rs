//! The PostgreSQL backend: a server that stops and comes back, and invalid URLs.

use calgate::secret::Secret;
use calgate::vault::{Backend as _, Postgres};

use super::{now, row};
use crate::harness;

#[test]
fn uses_the_server_again_when_it_is_back() {
    let server = harness::Postgres::start();
    now(async {
        let store = Postgres::new(&Secret::new(&server.address()).unwrap(), None).unwrap();
        store.compare_and_swap("a", None, Some(&row(1, b"x"))).await.unwrap();
        let held = store.lock("a").await.unwrap();
        server.stop();
        let said = store.get("a").await.unwrap_err().to_string();
        assert!(said.contains("the token store cannot be used: PostgreSQL"), "{said}");
        assert!(store.lock("b").await.is_err());
        server.resume();
        assert_eq!(store.get("a").await.unwrap(), Some(row(1, b"x")));
        // The lock ended with the connection. Its holder does not know that, which is why there are fences.
        let next = store.lock("a").await.unwrap().expect("free");
        assert!(next.fence > held.unwrap().fence);
    });
}

/// A refused change leaves the lock with its holder. A change that takes too long does not block the next one.
#[test]
fn a_failed_change_under_a_lock_does_not_block_the_next() {
    let server = harness::Postgres::start();
    let address = server.address();
    now(async {
        let open = || Postgres::new(&Secret::new(&address).unwrap(), None).unwrap();
        let (store, other) = (open(), open());
        store.compare_and_swap("a", None, Some(&row(1, b"one"))).await.unwrap();
        let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let constraint = "ALTER TABLE calgate_credentials ADD CHECK (key_id <> 'refused')";
        client.batch_execute(constraint).await.unwrap();
        let _held = store.lock("a").await.unwrap().expect("free");
        let refused = calgate::vault::SealedRecord { key_id: "refused".to_owned(), ..row(2, b"two") };
        assert!(store.compare_and_swap("a", Some(1), Some(&refused)).await.is_err());
        assert!(other.lock("a").await.unwrap().is_none(), "the lock is held");
        assert!(store.compare_and_swap("a", Some(1), Some(&row(2, b"two"))).await.unwrap());
        client.batch_execute("BEGIN; SELECT * FROM calgate_credentials FOR UPDATE").await.unwrap();
        assert!(store.compare_and_swap("a", Some(2), Some(&row(3, b"three"))).await.is_err(), "it takes too long");
        client.batch_execute("ROLLBACK").await.unwrap();
        assert!(store.compare_and_swap("a", Some(2), Some(&row(3, b"three"))).await.unwrap());
        assert_eq!(other.get("a").await.unwrap(), Some(row(3, b"three")));
    });
}

/// Returns the backend for a URL, or the error.
fn result_of(address: &str) -> String {
    match Postgres::new(&Secret::new(address).unwrap(), None) {
        Ok(store) => format!("{store:?}"),
        Err(said) => said,
    }
}

#[test]
fn uses_no_tls_only_if_all_hosts_are_this_machine() {
    let (tls, plain) = ("Postgres { tls: true, .. }", "Postgres { tls: false, .. }");
    let table = [
        ("postgres://u:pw@localhost/db", plain),
        ("postgres://u:pw@127.0.0.1,[::1]/db", plain),
        ("postgres:///db?user=u&host=/run/postgresql", plain),
        ("postgres://u:pw@/db?hostaddr=127.0.0.1", plain),
        ("postgres://u:pw@localhost/db?hostaddr=127.0.0.1", plain),
        ("postgres://u:pw@db.example/db?sslmode=disable", plain),
        ("postgres://u:pw@localhost/db?sslmode=require", tls),
        ("postgres://u:pw@db.example/db", tls),
        ("postgres://u:pw@localhost,db.example/db", tls),
        // The connection goes to the address, whatever its name is.
        ("postgres://u:pw@localhost/db?hostaddr=192.0.2.2", tls),
        ("postgres://u:pw@127.0.0.1/db?hostaddr=192.0.2.2", tls),
        ("postgres://u:pw@db.example/db?hostaddr=127.0.0.1", tls),
        ("postgres://u:pw@localhost,localhost/db?hostaddr=127.0.0.1,192.0.2.2", tls),
    ];
    for (address, expected) in table {
        assert_eq!(result_of(address), expected, "{address}");
    }
    // Without a name, calgate could not verify the certificate.
    for address in ["postgres://u:pw@/db?hostaddr=192.0.2.2", "postgres:///db?host=/run/x&hostaddr=192.0.2.2"] {
        assert!(result_of(address).contains("`hostaddr` needs `host` beside it"), "{address}");
    }
}

#[test]
fn errors_name_the_fault_and_do_not_show_the_url() {
    let table = [
        ("postgres://u:canary@db/x?sslmode=verify-full", "`sslmode` in"),
        ("postgres://u:canary@db/x?sslrootcert=/canary", "`token_store.ca_file`"),
        ("postgres://u:canary@db/x?sslcert=/canary", "`sslcert` in"),
        ("postgres://u:canary@db/x?port=canary", "`port` in"),
        ("postgres://u:pw@db/x?pgbouncer=true", "the parameter `pgbouncer` that calgate does not know"),
        ("postgres://u:pw@db/x?sslmode=require&schema=canary", "the parameter `schema` that"),
        // A name that may be a part of a password is not shown.
        ("postgres://u:p@ss?canary=y@db/x", "has a parameter that"),
        ("postgres://db/x?user=u&password=a&canary=y", "has a parameter that"),
        ("postgres://u:pw@db/x?Canary%20is=y", "has a parameter that"),
        ("postgres://u:canary@/x", "names no host"),
        ("host=db", "is not a URL: postgres://"),
    ];
    for (address, expected) in table {
        let said = result_of(address);
        assert!(said.contains(expected) && !said.contains("canary"), "{address}: {said}");
    }
}

#[test]
fn errors_do_not_show_an_invalid_url() {
    let said = Postgres::new(&Secret::new("canary://nowhere").unwrap(), None).unwrap_err();
    assert!(!said.contains("canary"), "{said}");
    let refused = Secret::new("postgres://user:canary@127.0.0.1:1/db").unwrap();
    let said = now(Postgres::new(&refused, None).unwrap().get("a")).unwrap_err().to_string();
    assert!(said.contains("PostgreSQL") && !said.contains("canary"), "{said}");
}
