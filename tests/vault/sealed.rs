//! Sealed records: nobody can read, move or change one without a key. A record that cannot be opened stays unchanged.

use std::sync::Arc;

use calgate::vault::{Backend, OpenedRecord, SealKey, Vault, VaultError};

use super::{keys, now, row, sqlite_in};
use crate::credential::rig::{OTHER_SEAL_KEY, SEAL_KEY};

fn plain(kept: Option<OpenedRecord>) -> Vec<u8> {
    kept.expect("a record").plain.to_vec()
}

fn damaged(fault: VaultError) -> String {
    match fault {
        VaultError::Damaged { name, why } => format!("{name}: {why}"),
        VaultError::Unusable(why) => panic!("unusable: {why}"),
    }
}

#[test]
fn a_record_opens_only_with_its_name_version_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(sqlite_in(folder.path()));
    let vault = Vault::new(store.clone(), keys(&[SEAL_KEY]));
    now(async {
        assert!(vault.swap("app", None, b"a token").await.unwrap());
        assert_eq!(plain(vault.get("app").await.unwrap()), b"a token");
        let sealed = store.get("app").await.unwrap().unwrap();
        assert!(!sealed.sealed.windows(7).any(|window| window == b"a token"));
        // Under another name, as another version, with a bit turned, cut short.
        store.compare_and_swap("moved", None, Some(&sealed)).await.unwrap();
        let later = calgate::vault::SealedRecord { version: 2, ..sealed.clone() };
        store.compare_and_swap("later", None, Some(&later)).await.unwrap();
        let mut turned = sealed.clone();
        turned.sealed[20] ^= 1;
        store.compare_and_swap("turned", None, Some(&turned)).await.unwrap();
        store.compare_and_swap("short", None, Some(&row(1, b"short"))).await.unwrap();
        for name in ["moved", "later", "turned"] {
            let said = damaged(vault.get(name).await.map(|_| ()).unwrap_err());
            assert!(said.starts_with(name) && said.contains("it is damaged"), "{said}");
        }
        let said = damaged(vault.get("short").await.map(|_| ()).unwrap_err());
        assert!(said.contains("sealed with the key 0a0b0c0d"), "{said}");
        // The other records still open, and the damaged one is not overwritten.
        assert_eq!(plain(vault.get("app").await.unwrap()), b"a token");
        assert_eq!(store.get("turned").await.unwrap(), Some(turned));
    });
}

#[test]
fn rekeying_seals_all_records_with_the_first_key() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Backend> = Arc::new(sqlite_in(folder.path()));
    let vault = |texts: &[&str]| Vault::new(store.clone(), keys(texts));
    now(async {
        vault(&[SEAL_KEY]).swap("one", None, b"1").await.unwrap();
        vault(&[SEAL_KEY]).swap("two", None, b"2").await.unwrap();
        let said = damaged(vault(&[OTHER_SEAL_KEY]).get("one").await.map(|_| ()).unwrap_err());
        assert!(said.contains("add that key"), "{said}");
        let both = vault(&[OTHER_SEAL_KEY, SEAL_KEY]);
        assert_eq!(plain(both.get("one").await.unwrap()), b"1");
        both.swap("three", None, b"3").await.unwrap();
        store.compare_and_swap("torn", None, Some(&row(1, b"torn"))).await.unwrap();
        let done = both.rekey().await.unwrap();
        assert_eq!((done.resealed, done.current, done.failed.len()), (2, 1, 1));
        for (name, expected) in [("one", b"1"), ("two", b"2"), ("three", b"3")] {
            assert_eq!(plain(vault(&[OTHER_SEAL_KEY]).get(name).await.unwrap()), expected);
        }
        assert_eq!(store.get("torn").await.unwrap(), Some(row(1, b"torn")));
    });
}

#[test]
fn a_key_is_thirty_two_bytes_of_base64_and_no_message_shows_it() {
    for (text, why) in [("c2VjcmV0", "32 bytes"), ("not base64!", "not base64"), ("", "32 bytes")] {
        let said = SealKey::parse(text).unwrap_err();
        assert!(said.contains(why) && (text.is_empty() || !said.contains(text)), "{said}");
    }
    let shown = format!("{:?}", keys(&[SEAL_KEY]));
    assert!(!shown.contains("Y2FuYXJ5") && !shown.contains("canary"), "{shown}");
}
