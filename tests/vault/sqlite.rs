//! The SQLite backend: permissions of its files, and errors for damaged ones.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Barrier;

use calgate::vault::Backend as _;

use super::{now, row, sqlite_in};

type Damage = fn(&mut Vec<u8>);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn only_the_owner_can_read_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, file) = (folder.path().join("store"), folder.path().join("store/tokens.db"));
    let fault = |store: &calgate::vault::Sqlite| now(store.get("a")).unwrap_err().to_string();
    now(async {
        let store = sqlite_in(folder.path());
        store.compare_and_swap("a", None, Some(&row(1, b"x"))).await.unwrap();
        drop(store.lock("a").await.unwrap());
    });
    assert_eq!(mode(&inside), 0o700);
    for entry in fs::read_dir(&inside).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    assert!(fault(&sqlite_in(folder.path())).contains("chmod 600"));
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&inside, Permissions::from_mode(0o755)).unwrap();
    assert!(fault(&sqlite_in(folder.path())).contains("chmod 700"));
}

#[test]
fn replicas_that_start_together_create_one_file() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let all = Barrier::new(8);
        std::thread::scope(|scope| {
            let replica = || {
                all.wait();
                let store = sqlite_in(folder.path());
                now(store.get("a")).unwrap();
                now(store.lock("a")).unwrap();
            };
            for _ in 0..8 {
                scope.spawn(replica);
            }
        });
        let files = fs::read_dir(folder.path().join("store")).unwrap().map(|entry| entry.unwrap().file_name());
        let unfinished: Vec<_> = files.filter(|name| name.to_string_lossy().contains(".new-")).collect();
        assert!(unfinished.is_empty(), "{unfinished:?}");
    }
}

#[test]
fn a_damaged_file_is_an_error_and_stays_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (file, large) = (folder.path().join("store/tokens.db"), vec![7; 20_000]);
    now(sqlite_in(folder.path()).compare_and_swap("a", None, Some(&row(1, &large)))).unwrap();
    let whole = fs::read(&file).unwrap();
    assert!(whole.len() > 20_000);
    let damages: [(&str, Damage); 4] = [
        ("an empty file", Vec::clear),
        ("only its first page", |bytes| bytes.truncate(4096)),
        ("another format", |bytes| bytes[..16].fill(b'x')),
        ("flipped bits", |bytes| bytes[100..4096].iter_mut().for_each(|byte| *byte ^= 0x55)),
    ];
    for (what, damage) in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        let said = now(sqlite_in(folder.path()).get("a")).unwrap_err().to_string();
        assert!(said.contains("the token store cannot be used"), "{what}: {said}");
        let changed = now(sqlite_in(folder.path()).compare_and_swap("b", None, Some(&row(1, b"y"))));
        assert!(changed.is_err(), "{what}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "{what}");
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(now(sqlite_in(folder.path()).get("a")).unwrap(), Some(row(1, &large)));
}

#[test]
fn recovers_when_the_file_is_back_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store/tokens.db");
    now(async {
        let store = sqlite_in(folder.path());
        store.compare_and_swap("a", None, Some(&row(1, b"x"))).await.unwrap();
        let aside = folder.path().join("aside");
        fs::create_dir(&aside).unwrap();
        fs::rename(folder.path().join("store"), aside.join("store")).unwrap();
        fs::write(folder.path().join("store"), "in the way").unwrap();
        let fresh = sqlite_in(folder.path());
        assert!(fresh.get("a").await.is_err() && fresh.lock("a").await.is_err());
        fs::remove_file(folder.path().join("store")).unwrap();
        fs::rename(aside.join("store"), folder.path().join("store")).unwrap();
        assert_eq!(fresh.get("a").await.unwrap(), Some(row(1, b"x")));
    });
    let mut file = OpenOptions::new().write(true).open(&file).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"not a database any more").unwrap();
    assert!(now(sqlite_in(folder.path()).get("a")).is_err());
}
