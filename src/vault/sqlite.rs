//! The embedded store: one SQLite file, for the replicas of one machine.
//!
//! A change is on disk before it is reported done (write-ahead log, `synchronous=FULL`). Locks are advisory locks on
//! files beside it, which the kernel ends with the process that holds them.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::random;
use crate::vault::{Lock, Row, Store, StoreFault, StoreFuture};

/// How long a change waits for another replica's.
const BUSY: Duration = Duration::from_secs(5);

/// Lock files: names share them, which at worst lets two renewals wait for each other.
const LOCK_FILES: u32 = 64;

/// The remedy where the permissions of files are those of their volume.
const ON_A_VOLUME: &str = ", or mount a volume without permissions with umask=077";

const SCHEMA: &str = "
    CREATE TABLE credentials (name TEXT PRIMARY KEY, version INTEGER NOT NULL, key_id TEXT NOT NULL, sealed BLOB NOT NULL);
    CREATE TABLE fence (last INTEGER NOT NULL);
    INSERT INTO fence VALUES (0);
    PRAGMA user_version = 1;";

/// A store in a file.
#[derive(Debug, Clone)]
pub struct Sqlite(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Open once it has been needed; closed by any fault, so that the next use begins afresh.
    connection: Mutex<Option<Connection>>,
}

impl Sqlite {
    /// Returns whether the store can be kept where it is, as far as its folder and file tell. Makes and opens nothing.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check_place(&self) -> Result<(), StoreFault> {
        self.0.check_place()
    }

    /// The store in the file at `path`, which is made when it is first needed.
    pub fn at(path: &Path) -> Self {
        Self(Arc::new(Inner { path: path.to_owned(), connection: Mutex::new(None) }))
    }

    /// Does `work` on a thread that may wait for the disk.
    fn blocking<T, F>(&self, work: F) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, StoreFault> + Send + 'static,
    {
        let inner = self.0.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&inner)).await;
            done.unwrap_or_else(|fault| Err(StoreFault::unusable(fault)))
        })
    }
}

impl Store for Sqlite {
    fn get<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Row>> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.with(|db| get(db, &name)))
    }

    fn compare_and_swap<'a>(
        &'a self,
        name: &'a str,
        expected: Option<u64>,
        row: Option<&'a Row>,
    ) -> StoreFuture<'a, bool> {
        let (name, row) = (name.to_owned(), row.cloned());
        self.blocking(move |inner| inner.with(|db| swap(db, &name, expected, row.as_ref())))
    }

    fn lock<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Lock>> {
        let stripe = crc32fast::hash(name.as_bytes()) % LOCK_FILES;
        self.blocking(move |inner| {
            let Some(file) = inner.lock_file(stripe)? else { return Ok(None) };
            let next = "UPDATE fence SET last = last + 1 RETURNING last";
            let fence: i64 = inner.with(|db| db.query_row(next, [], |row| row.get(0)))?;
            Ok(Some(Lock::new(fence.unsigned_abs(), move || drop(file))))
        })
    }

    fn names(&self) -> StoreFuture<'_, Vec<String>> {
        self.blocking(|inner| {
            inner.with(|db| {
                let mut statement = db.prepare("SELECT name FROM credentials ORDER BY name")?;
                statement.query_map([], |row| row.get(0))?.collect()
            })
        })
    }
}

fn get(db: &Connection, name: &str) -> rusqlite::Result<Option<Row>> {
    let read = |row: &rusqlite::Row<'_>| {
        let version: i64 = row.get(0)?;
        Ok(Row { version: version.unsigned_abs(), key_id: row.get(1)?, sealed: row.get(2)? })
    };
    db.query_row("SELECT version, key_id, sealed FROM credentials WHERE name = ?1", [name], read).optional()
}

fn swap(db: &Connection, name: &str, expected: Option<u64>, row: Option<&Row>) -> rusqlite::Result<bool> {
    let signed = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
    let changed = match (expected.map(signed), row) {
        (None, None) => 0,
        (None, Some(row)) => db.execute(
            "INSERT INTO credentials VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![name, signed(row.version), row.key_id, row.sealed],
        )?,
        (Some(expected), Some(row)) => db.execute(
            "UPDATE credentials SET version = ?2, key_id = ?3, sealed = ?4 WHERE name = ?1 AND version = ?5",
            params![name, signed(row.version), row.key_id, row.sealed, expected],
        )?,
        (Some(expected), None) => {
            db.execute("DELETE FROM credentials WHERE name = ?1 AND version = ?2", params![name, expected])?
        }
    };
    Ok(changed == 1)
}

impl Inner {
    /// Does `work` on the open database.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreFault> {
        let mut connection = self.connection.lock();
        let open = match connection.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let done = work(&open).map_err(|fault| self.fault(fault))?;
        *connection = Some(open);
        Ok(done)
    }

    fn fault(&self, fault: impl std::fmt::Display) -> StoreFault {
        StoreFault::Unusable(format!("{}: {fault}", self.path.display()))
    }

    fn check_place(&self) -> Result<(), StoreFault> {
        let folder = self.folder();
        if folder.exists() {
            self.check_folder(folder)?;
        }
        if self.path.exists() { self.check_file() } else { Ok(()) }
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn check_folder(&self, folder: &Path) -> Result<(), StoreFault> {
        let mode = std::fs::metadata(folder).map_err(|fault| self.fault(fault))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let shown = folder.display();
            let why = format!("the folder {shown} is open to other users (mode {mode:03o}); chmod 700 it{ON_A_VOLUME}");
            return Err(StoreFault::Unusable(why));
        }
        Ok(())
    }

    fn check_file(&self) -> Result<(), StoreFault> {
        let metadata = std::fs::metadata(&self.path).map_err(|fault| self.fault(fault))?;
        if metadata.len() == 0 {
            return Err(self.fault("the file is empty, which no store ever is; restore it from a backup, or remove it"));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(self.fault(format!("the file is open to other users; chmod 600 it{ON_A_VOLUME}")));
        }
        Ok(())
    }

    fn open(&self) -> Result<Connection, StoreFault> {
        self.make_if_missing()?;
        self.check_file()?;
        let open = || -> rusqlite::Result<Connection> {
            let db = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            db.busy_timeout(BUSY)?;
            db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            db.pragma_update(None, "synchronous", "FULL")?;
            Ok(db)
        };
        let db = open().map_err(|fault| self.fault(fault))?;
        let version: i64 =
            db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|fault| self.fault(fault))?;
        if version == 1 { Ok(db) } else { Err(self.fault("it is not a token store of this version of calgate")) }
    }

    /// Makes the folder (0700) and a whole new store in it (0600), unless they are there. It appears under its name only
    /// when it is whole, so a file that is not is damaged, never new.
    fn make_if_missing(&self) -> Result<(), StoreFault> {
        let folder = self.folder();
        if !folder.exists() {
            let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            created.map_err(|fault| StoreFault::Unusable(format!("{} cannot be made: {fault}", folder.display())))?;
        }
        self.check_folder(folder)?;
        if self.path.exists() {
            return Ok(());
        }
        // A name of its own: in containers every replica may have the same process id.
        let new = self.beside(&format!("new-{:016x}", random::seed()));
        private().create_new(true).open(&new).map_err(|fault| self.fault(fault))?;
        let written = Connection::open(&new).and_then(|db| {
            db.execute_batch(SCHEMA)?;
            db.close().map_err(|(_, fault)| fault)
        });
        let done = written.map_err(|fault| self.fault(fault)).and_then(|()| self.put_in_place(&new));
        let _ = std::fs::remove_file(&new);
        done
    }

    /// Renames a whole new store to its name, unless another replica has made one. A hard link would do that in one step, but
    /// not every volume has them (exFAT, SMB, some volumes of containers): the lock file keeps the replicas apart instead.
    fn put_in_place(&self, new: &Path) -> Result<(), StoreFault> {
        let _lock = self.open_lock_file("lock-new").and_then(|file| {
            file.lock().map_err(|fault| self.no_locks(&fault))?;
            Ok(file)
        })?;
        if self.path.exists() {
            return Ok(());
        }
        std::fs::rename(new, &self.path).map_err(|fault| self.fault(fault))
    }

    fn beside(&self, end: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(end);
        PathBuf::from(name)
    }

    /// Locks a lock file, unless another open file holds it.
    fn lock_file(&self, stripe: u32) -> Result<Option<File>, StoreFault> {
        self.make_if_missing()?;
        let file = self.open_lock_file(&format!("lock-{stripe:02}"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(fault)) => Err(self.no_locks(&fault)),
        }
    }

    fn open_lock_file(&self, end: &str) -> Result<File, StoreFault> {
        private().create(true).truncate(false).open(self.beside(end)).map_err(|fault| self.fault(fault))
    }

    fn no_locks(&self, fault: &std::io::Error) -> StoreFault {
        self.fault(format!(
            "the volume has no file locks ({fault}); put `token_store.path` on another one, or use `token_store.postgres`"
        ))
    }
}

/// How a file is opened that only its owner may read, if it is made.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}
