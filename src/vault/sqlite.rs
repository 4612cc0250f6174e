//! SQLite backend of the token store: one file, for the replicas of one machine.
//!
//! A change is on disk before it is reported as done (write-ahead log, `synchronous=FULL`). Locks are advisory locks on
//! files beside the database. The kernel releases them when the process ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::random;
use crate::vault::{Backend, BackendFuture, Lock, SealedRecord, VaultError};

/// Longest time that a change waits for a change of another replica.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of lock files. Several names share one, so at worst two renewals wait for each other.
const LOCK_FILES: u32 = 64;

/// Remedy for a volume that sets the permissions of its files.
const ON_A_VOLUME: &str = ", or mount a volume without permissions with umask=077";

const SCHEMA: &str = "
    CREATE TABLE credentials (name TEXT PRIMARY KEY, version INTEGER NOT NULL, key_id TEXT NOT NULL, sealed BLOB NOT NULL);
    CREATE TABLE fence (last INTEGER NOT NULL);
    INSERT INTO fence VALUES (0);
    PRAGMA user_version = 1;";

/// Backend in a file.
#[derive(Debug, Clone)]
pub struct Sqlite(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Opened at the first use. Closed after an error, so that the next use opens it again.
    connection: Mutex<Option<Connection>>,
}

impl Sqlite {
    /// Checks the permissions of the folder and the file. Creates and opens nothing.
    ///
    /// # Errors
    /// Reason why the store cannot be used.
    pub fn check_place(&self) -> Result<(), VaultError> {
        self.0.check_place()
    }

    /// Creates a backend in the file at `path`. The first use creates the file.
    pub fn new(path: &Path) -> Self {
        Self(Arc::new(Inner { path: path.to_owned(), connection: Mutex::new(None) }))
    }

    /// Runs `work` on a thread that may block.
    fn blocking<T, F>(&self, work: F) -> BackendFuture<'static, T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, VaultError> + Send + 'static,
    {
        let inner = self.0.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&inner)).await;
            done.unwrap_or_else(|fault| Err(VaultError::unusable(fault)))
        })
    }
}

impl Backend for Sqlite {
    fn get<'a>(&'a self, name: &'a str) -> BackendFuture<'a, Option<SealedRecord>> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.with(|db| get(db, &name)))
    }

    fn compare_and_swap<'a>(
        &'a self,
        name: &'a str,
        expected: Option<u64>,
        row: Option<&'a SealedRecord>,
    ) -> BackendFuture<'a, bool> {
        let (name, row) = (name.to_owned(), row.cloned());
        self.blocking(move |inner| inner.with(|db| swap(db, &name, expected, row.as_ref())))
    }

    fn lock<'a>(&'a self, name: &'a str) -> BackendFuture<'a, Option<Lock>> {
        let stripe = crc32fast::hash(name.as_bytes()) % LOCK_FILES;
        self.blocking(move |inner| {
            let Some(file) = inner.lock_file(stripe)? else { return Ok(None) };
            let next = "UPDATE fence SET last = last + 1 RETURNING last";
            let fence: i64 = inner.with(|db| db.query_row(next, [], |row| row.get(0)))?;
            Ok(Some(Lock::new(fence.unsigned_abs(), move || drop(file))))
        })
    }

    fn names(&self) -> BackendFuture<'_, Vec<String>> {
        self.blocking(|inner| {
            inner.with(|db| {
                let mut statement = db.prepare("SELECT name FROM credentials ORDER BY name")?;
                statement.query_map([], |row| row.get(0))?.collect()
            })
        })
    }
}

fn get(db: &Connection, name: &str) -> rusqlite::Result<Option<SealedRecord>> {
    let read = |row: &rusqlite::Row<'_>| {
        let version: i64 = row.get(0)?;
        Ok(SealedRecord { version: version.unsigned_abs(), key_id: row.get(1)?, sealed: row.get(2)? })
    };
    db.query_row("SELECT version, key_id, sealed FROM credentials WHERE name = ?1", [name], read).optional()
}

fn swap(db: &Connection, name: &str, expected: Option<u64>, row: Option<&SealedRecord>) -> rusqlite::Result<bool> {
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
    /// Runs `work` on the open database.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, VaultError> {
        let mut connection = self.connection.lock();
        let open = match connection.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let done = work(&open).map_err(|fault| self.fault(fault))?;
        *connection = Some(open);
        Ok(done)
    }

    fn fault(&self, fault: impl std::fmt::Display) -> VaultError {
        VaultError::Unusable(format!("{}: {fault}", self.path.display()))
    }

    fn check_place(&self) -> Result<(), VaultError> {
        let folder = self.folder();
        if folder.exists() {
            self.check_folder(folder)?;
        }
        if self.path.exists() { self.check_file() } else { Ok(()) }
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn check_folder(&self, folder: &Path) -> Result<(), VaultError> {
        let mode = std::fs::metadata(folder).map_err(|fault| self.fault(fault))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let shown = folder.display();
            let why = format!("the folder {shown} is open to other users (mode {mode:03o}); chmod 700 it{ON_A_VOLUME}");
            return Err(VaultError::Unusable(why));
        }
        Ok(())
    }

    fn check_file(&self) -> Result<(), VaultError> {
        let metadata = std::fs::metadata(&self.path).map_err(|fault| self.fault(fault))?;
        if metadata.len() == 0 {
            return Err(self.fault("the file is empty, but a store never is; restore it from a backup, or remove it"));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(self.fault(format!("the file is open to other users; chmod 600 it{ON_A_VOLUME}")));
        }
        Ok(())
    }

    fn open(&self) -> Result<Connection, VaultError> {
        self.create_if_missing()?;
        self.check_file()?;
        let open = || -> rusqlite::Result<Connection> {
            let db = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            db.pragma_update(None, "synchronous", "FULL")?;
            Ok(db)
        };
        let db = open().map_err(|fault| self.fault(fault))?;
        let version: i64 =
            db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|fault| self.fault(fault))?;
        if version == 1 { Ok(db) } else { Err(self.fault("it is not a token store of this version of calgate")) }
    }

    /// Creates the folder (0700) and a new store in it (0600) if they do not exist. The store gets its name only when it is
    /// complete, so an incomplete file is a damaged one. It has its journal mode by then, because SQLite does not wait for the
    /// lock of another process while it changes that.
    fn create_if_missing(&self) -> Result<(), VaultError> {
        let folder = self.folder();
        if !folder.exists() {
            let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            created
                .map_err(|fault| VaultError::Unusable(format!("{} cannot be created: {fault}", folder.display())))?;
        }
        self.check_folder(folder)?;
        if self.path.exists() {
            return Ok(());
        }
        // A random name, because in containers all replicas may have the same process id.
        let new = self.sibling(&format!("new-{:016x}", random::seed()));
        private().create_new(true).open(&new).map_err(|fault| self.fault(fault))?;
        let written = Connection::open(&new).and_then(|db| {
            db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            db.execute_batch(SCHEMA)?;
            db.close().map_err(|(_, fault)| fault)
        });
        let done = written.map_err(|fault| self.fault(fault)).and_then(|()| self.rename_into_place(&new));
        let _ = std::fs::remove_file(&new);
        done
    }

    /// Renames a new store to its name, unless another replica has created one. A hard link would do that in one step, but
    /// some volumes have none (exFAT, SMB, some volumes of containers). A lock file excludes other replicas instead.
    fn rename_into_place(&self, new: &Path) -> Result<(), VaultError> {
        let _lock = self.open_lock_file("lock-new").and_then(|file| {
            file.lock().map_err(|fault| self.no_locks(&fault))?;
            Ok(file)
        })?;
        if self.path.exists() {
            return Ok(());
        }
        std::fs::rename(new, &self.path).map_err(|fault| self.fault(fault))
    }

    fn sibling(&self, end: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(end);
        PathBuf::from(name)
    }

    /// Locks a lock file. Returns `None` if another open file holds the lock.
    fn lock_file(&self, stripe: u32) -> Result<Option<File>, VaultError> {
        self.create_if_missing()?;
        let file = self.open_lock_file(&format!("lock-{stripe:02}"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(fault)) => Err(self.no_locks(&fault)),
        }
    }

    fn open_lock_file(&self, end: &str) -> Result<File, VaultError> {
        private().create(true).truncate(false).open(self.sibling(end)).map_err(|fault| self.fault(fault))
    }

    fn no_locks(&self, fault: &std::io::Error) -> VaultError {
        self.fault(format!(
            "the volume has no file locks ({fault}); put `token_store.path` on another one, or use `token_store.postgres`"
        ))
    }
}

/// Returns options that create a file with mode 0600.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}
