//! PostgreSQL backend of the token store, for replicas on several machines.
//!
//! It works through a connection pooler in transaction mode, such as `PgBouncer`: no message relies on the session of an
//! earlier one, and no statement is prepared. A lock is an advisory lock of an open transaction. Each lock has its own
//! connection, on which its holder changes the record. The server releases the lock when that connection closes.
//!
//! A connection is opened when it is needed, and again after an error. No step takes longer than [`TIMEOUT`], including the
//! time to connect.

mod lock;
mod url;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::secret::Secret;
use crate::tls;
use crate::untrusted::sanitize;
use crate::vault::{Backend, BackendFuture, Lock, SealedRecord, VaultError};
use lock::{Failed, Locks};

/// Longest time of one operation.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Creates the tables, one replica at a time. An operator may have created them before, for a role that must not.
const SCHEMA: &str = "
    BEGIN;
    SELECT pg_advisory_xact_lock(hashtextextended('calgate schema', 0));
    CREATE TABLE IF NOT EXISTS calgate_credentials
        (name TEXT PRIMARY KEY, version BIGINT NOT NULL, key_id TEXT NOT NULL, sealed BYTEA NOT NULL);
    CREATE SEQUENCE IF NOT EXISTS calgate_fence;
    COMMIT";

/// Backend in a PostgreSQL database.
pub struct Postgres {
    server: Server,
    client: Mutex<Option<Arc<Client>>>,
    /// Lock of the task that connects. Other tasks wait for it.
    connecting: tokio::sync::Mutex<()>,
    locks: Arc<Locks>,
}

/// Address of the database, and the settings of a connection.
struct Server {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("tls", &self.server.tls.is_some()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Creates a backend at `address`, a connection URL. It uses TLS unless the URL has `sslmode=disable`, or the server is
    /// on this machine and the URL lacks `sslmode=require`. It always verifies certificates, by `ca_file` or the public
    /// authorities.
    ///
    /// # Errors
    /// Reason why the URL cannot be used. It does not show the URL, which has a password.
    pub fn new(address: &Secret, ca_file: Option<&Path>) -> Result<Self, String> {
        let (mut config, encrypted) = address.expose(url::read)?;
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        // The time of an unreachable server is limited, so that the next one and the operation have time left.
        let share = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX).saturating_add(1);
        config.connect_timeout(TIMEOUT / share).keepalives_idle(Duration::from_secs(15)).application_name("calgate");
        let tls = encrypted.then(|| tls::roots(ca_file).and_then(|roots| tls::client(roots, &[])));
        let tls = tls.transpose()?.map(|client| MakeRustlsConnect::new(Arc::unwrap_or_clone(client)));
        let server = Server { config, tls };
        let (client, connecting, locks) = (Mutex::default(), tokio::sync::Mutex::default(), Arc::default());
        Ok(Self { server, client, connecting, locks })
    }

    /// Checks whether [`Self::new`] accepts the URL.
    ///
    /// # Errors
    /// Reason why the URL cannot be used. It does not show the URL.
    pub fn check(address: &Secret) -> Result<(), String> {
        address.expose(url::read).map(drop)
    }

    /// Runs `work` on the shared connection. After an error the next use opens a new one.
    async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, VaultError> {
        let end = Instant::now() + TIMEOUT;
        let client = timeout_at(end, self.client()).await.map_err(|_| too_slow())??;
        let done = timeout_at(end, work(&client)).await;
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(fault)) => {
                self.drop_client(&client);
                Err(unusable(&fault))
            }
            Err(_) => {
                self.drop_client(&client);
                Err(too_slow())
            }
        }
    }

    /// Changes the record of that name. If this gateway holds its lock, that runs in the transaction of the lock.
    async fn change<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, VaultError> {
        let Some(transaction) = self.locks.held(name) else { return self.with(work).await };
        self.under_lock(name, transaction.change(work)).await
    }

    /// Reads the record of that name in the same way.
    async fn read<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, VaultError> {
        let Some(transaction) = self.locks.held(name) else { return self.with(work).await };
        self.under_lock(name, transaction.read(work)).await
    }

    /// Runs a step in the transaction of the lock of that name. Dropping the step closes the connection.
    async fn under_lock<T>(&self, name: &str, step: impl Future<Output = Result<T, Failed>>) -> Result<T, VaultError> {
        let fault = match timeout(TIMEOUT, step).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(Failed::Refused(fault))) => return Err(unusable(&fault)),
            Ok(Err(Failed::Lost(fault))) => fault.as_ref().map_or_else(too_slow, unusable),
            Err(_) => too_slow(),
        };
        self.locks.remove(name);
        // The shared connection leads to the same server, and is probably broken, too.
        *self.cached() = None;
        Err(fault)
    }

    async fn client(&self) -> Result<Arc<Client>, VaultError> {
        let open = || self.cached().clone().filter(|client| !client.is_closed());
        if let Some(client) = open() {
            return Ok(client);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(client) = open() {
            return Ok(client);
        }
        let client = Arc::new(self.server.connect().await.map_err(|fault| unusable(&fault))?);
        *self.cached() = Some(client.clone());
        Ok(client)
    }

    fn cached(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        self.client.lock()
    }

    fn drop_client(&self, gone: &Arc<Client>) {
        let mut cached = self.cached();
        if cached.as_ref().is_some_and(|client| Arc::ptr_eq(client, gone)) {
            *cached = None;
        }
    }
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "the task that drives a connection ends with the connection")]
    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let client = if let Some(tls) = &self.tls {
            let (client, connection) = self.config.connect(tls.clone()).await?;
            tokio::spawn(log_end(connection));
            client
        } else {
            let (client, connection) = self.config.connect(NoTls).await?;
            tokio::spawn(log_end(connection));
            client
        };
        // A pooler in statement mode rejects transactions. This shows it here, and not at the first lock.
        client.batch_execute("BEGIN").await?;
        client.batch_execute("ROLLBACK").await?;
        let there =
            "SELECT to_regclass('calgate_credentials') IS NOT NULL AND to_regclass('calgate_fence') IS NOT NULL";
        if !client.query_typed_one(there, &[]).await?.try_get::<_, bool>(0)? {
            client.batch_execute(SCHEMA).await?;
        }
        Ok(client)
    }
}

async fn log_end(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(fault) = connection.await {
        tracing::debug!(fault = %unusable(&fault), "the connection to the token store ended");
    }
}

fn too_slow() -> VaultError {
    VaultError::Unusable("PostgreSQL did not reply in time".to_owned())
}

/// Returns an error with its code (SQLSTATE) and the sanitized text of the server or the operating system.
fn unusable(fault: &tokio_postgres::Error) -> VaultError {
    use std::error::Error as _;
    let cause = fault.source().map(|source| format!(": {source}")).unwrap_or_default();
    let code = fault.code().map(|code| format!(" ({})", code.code())).unwrap_or_default();
    // The text is that of PgBouncer. In that mode it allows no transactions, and so no locks.
    let remedy = if cause.contains("statement pooling") { "; set pool_mode = transaction (or session)" } else { "" };
    VaultError::Unusable(format!("PostgreSQL: {}{code}{remedy}", sanitize(format!("{fault}{cause}"))))
}

fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// Condition that is true for every row. It makes the statement's transaction wait until it is on disk. A setting of the
/// session would be lost behind a pooler.
const DURABLY: &str = "set_config('synchronous_commit', 'on', true) = 'on'";

/// Makes the change of [`Backend::compare_and_swap`] in one statement, which is its own transaction. Returns the number of
/// changed rows.
async fn swap(
    client: &Client,
    name: &str,
    expected: Option<u64>,
    row: Option<&SealedRecord>,
) -> Result<u64, tokio_postgres::Error> {
    match (expected.map(signed), row) {
        (None, None) => Ok(0),
        (None, Some(row)) => {
            let insert =
                format!("INSERT INTO calgate_credentials SELECT $1, $2, $3, $4 WHERE {DURABLY} ON CONFLICT DO NOTHING");
            let (version, key_id, sealed) = (signed(row.version), &row.key_id, &row.sealed);
            let values: [Value<'_>; 4] =
                [(&name, Type::TEXT), (&version, Type::INT8), (key_id, Type::TEXT), (sealed, Type::BYTEA)];
            client.execute_typed(&insert, &values).await
        }
        (Some(expected), Some(row)) => {
            let update = format!(
                "UPDATE calgate_credentials SET version = $2, key_id = $3, sealed = $4 \
                 WHERE name = $1 AND version = $5 AND {DURABLY}"
            );
            let (version, key_id, sealed) = (signed(row.version), &row.key_id, &row.sealed);
            let values: [Value<'_>; 5] = [
                (&name, Type::TEXT),
                (&version, Type::INT8),
                (key_id, Type::TEXT),
                (sealed, Type::BYTEA),
                (&expected, Type::INT8),
            ];
            client.execute_typed(&update, &values).await
        }
        (Some(expected), None) => {
            let delete = format!("DELETE FROM calgate_credentials WHERE name = $1 AND version = $2 AND {DURABLY}");
            client.execute_typed(&delete, &[(&name, Type::TEXT), (&expected, Type::INT8)]).await
        }
    }
}

/// Parameter of a statement, and its type.
type Value<'a> = (&'a (dyn ToSql + Sync), Type);

impl Backend for Postgres {
    fn get<'a>(&'a self, name: &'a str) -> BackendFuture<'a, Option<SealedRecord>> {
        Box::pin(self.read(name, async move |client| {
            let select = "SELECT version, key_id, sealed FROM calgate_credentials WHERE name = $1";
            let row = client.query_typed_opt(select, &[(&name, Type::TEXT)]).await?;
            let read = |row: tokio_postgres::Row| {
                let version = row.try_get::<_, i64>(0)?.unsigned_abs();
                Ok(SealedRecord { version, key_id: row.try_get(1)?, sealed: row.try_get(2)? })
            };
            row.map(read).transpose()
        }))
    }

    fn compare_and_swap<'a>(
        &'a self,
        name: &'a str,
        expected: Option<u64>,
        row: Option<&'a SealedRecord>,
    ) -> BackendFuture<'a, bool> {
        Box::pin(self.change(name, async move |client| Ok(swap(client, name, expected, row).await? == 1)))
    }

    fn lock<'a>(&'a self, name: &'a str) -> BackendFuture<'a, Option<Lock>> {
        Box::pin(lock::acquire(&self.server, &self.locks, name))
    }

    fn names(&self) -> BackendFuture<'_, Vec<String>> {
        Box::pin(self.with(async move |client| {
            let rows = client.query_typed("SELECT name FROM calgate_credentials ORDER BY name", &[]).await?;
            rows.iter().map(|row| row.try_get(0)).collect()
        }))
    }
}
