//! The shared store: PostgreSQL, for replicas on several machines.
//!
//! Locks are the session's advisory locks, which the server ends with the connection that holds them. The connection is
//! made when it is needed and made again after a fault; nothing here waits longer than [`PATIENCE`], the connection included.

mod address;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Later, Lock, Row, Store, StoreFault};
use crate::foreign::cleaned;
use crate::secret::Secret;
use crate::tls;

/// How long one operation may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the tables, one replica at a time; an operator may have made them before, for a role that may not.
const SCHEMA: &str = "
    BEGIN;
    SELECT pg_advisory_xact_lock(hashtextextended('calgate schema', 0));
    CREATE TABLE IF NOT EXISTS calgate_credentials
        (name TEXT PRIMARY KEY, version BIGINT NOT NULL, key_id TEXT NOT NULL, sealed BYTEA NOT NULL);
    CREATE SEQUENCE IF NOT EXISTS calgate_fence;
    COMMIT";

/// A store in a PostgreSQL database.
pub struct Postgres {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    client: Mutex<Option<Arc<Client>>>,
    /// Held by who connects.
    connecting: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// The store at `address`, a connection URL. TLS is spoken unless `sslmode=disable` says otherwise or the server is on
    /// this machine and `sslmode=require` is not said; certificates are always verified, by `ca_file` or the public
    /// authorities.
    ///
    /// # Errors
    /// What in it cannot be used; never the address, which holds a password.
    pub fn at(address: &Secret, ca_file: Option<&Path>) -> Result<Self, String> {
        let (mut config, encrypted) = address.with_text(address::read)?;
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        // A server that is not there leaves time for the next one, and for the work.
        let share = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX).saturating_add(1);
        config.connect_timeout(PATIENCE / share).keepalives_idle(Duration::from_secs(15)).application_name("calgate");
        let tls = encrypted.then(|| tls::roots(ca_file).and_then(|roots| tls::client(roots, &[])));
        let tls = tls.transpose()?.map(|client| MakeRustlsConnect::new(Arc::unwrap_or_clone(client)));
        Ok(Self { config, tls, client: Mutex::default(), connecting: tokio::sync::Mutex::default() })
    }

    /// Whether [`Self::at`] will take the address.
    ///
    /// # Errors
    /// Why not; never the address.
    pub fn check(address: &Secret) -> Result<(), String> {
        address.with_text(address::read).map(drop)
    }

    /// Does `work` on a connection; after a fault the next use begins with a new one.
    async fn with<T>(
        &self,
        work: impl AsyncFnOnce(Arc<Client>) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreFault> {
        let end = Instant::now() + PATIENCE;
        let client = timeout_at(end, self.client()).await.map_err(|_| too_slow())??;
        let done = timeout_at(end, work(client.clone())).await;
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

    async fn client(&self) -> Result<Arc<Client>, StoreFault> {
        let open = || self.kept().clone().filter(|client| !client.is_closed());
        if let Some(client) = open() {
            return Ok(client);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(client) = open() {
            return Ok(client);
        }
        let client = Arc::new(self.connect().await.map_err(|fault| unusable(&fault))?);
        *self.kept() = Some(client.clone());
        Ok(client)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_client(&self, gone: &Arc<Client>) {
        let mut kept = self.kept();
        if kept.as_ref().is_some_and(|client| Arc::ptr_eq(client, gone)) {
            *kept = None;
        }
    }

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
        client.batch_execute("SET synchronous_commit = on").await?;
        let there =
            "SELECT to_regclass('calgate_credentials') IS NOT NULL AND to_regclass('calgate_fence') IS NOT NULL";
        if !client.query_one(there, &[]).await?.get::<_, bool>(0) {
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

fn too_slow() -> StoreFault {
    StoreFault::Unusable("PostgreSQL did not answer in time".to_owned())
}

/// The error's code (SQLSTATE) and text, which the server or the operating system wrote; never the address.
fn unusable(fault: &tokio_postgres::Error) -> StoreFault {
    use std::error::Error as _;
    let cause = fault.source().map(|source| format!(": {source}")).unwrap_or_default();
    let code = fault.code().map(|code| format!(" ({})", code.code())).unwrap_or_default();
    StoreFault::Unusable(format!("PostgreSQL: {}{code}", cleaned(format!("{fault}{cause}"))))
}

fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

impl Store for Postgres {
    fn get<'a>(&'a self, name: &'a str) -> Later<'a, Option<Row>> {
        Box::pin(self.with(async move |client| {
            let select = "SELECT version, key_id, sealed FROM calgate_credentials WHERE name = $1";
            let row = client.query_opt(select, &[&name]).await?;
            Ok(row.map(|row| Row {
                version: row.get::<_, i64>(0).unsigned_abs(),
                key_id: row.get(1),
                sealed: row.get(2),
            }))
        }))
    }

    fn compare_and_swap<'a>(&'a self, name: &'a str, expected: Option<u64>, row: Option<&'a Row>) -> Later<'a, bool> {
        Box::pin(self.with(async move |client| {
            let changed = match (expected.map(signed), row) {
                (None, None) => 0,
                (None, Some(row)) => {
                    let insert = "INSERT INTO calgate_credentials VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
                    client.execute(insert, &[&name, &signed(row.version), &row.key_id, &row.sealed]).await?
                }
                (Some(expected), Some(row)) => {
                    let update = "UPDATE calgate_credentials SET version = $2, key_id = $3, sealed = $4 \
                                  WHERE name = $1 AND version = $5";
                    let version = signed(row.version);
                    client.execute(update, &[&name, &version, &row.key_id, &row.sealed, &expected]).await?
                }
                (Some(expected), None) => {
                    let delete = "DELETE FROM calgate_credentials WHERE name = $1 AND version = $2";
                    client.execute(delete, &[&name, &expected]).await?
                }
            };
            Ok(changed == 1)
        }))
    }

    fn lock<'a>(&'a self, name: &'a str) -> Later<'a, Option<Lock>> {
        Box::pin(self.with(async move |client| {
            let take = "SELECT pg_try_advisory_lock(hashtextextended('calgate ' || $1, 0))";
            if !client.query_one(take, &[&name]).await?.get::<_, bool>(0) {
                return Ok(None);
            }
            let fence: i64 = client.query_one("SELECT nextval('calgate_fence')", &[]).await?.get(0);
            let name = name.to_owned();
            let runtime = tokio::runtime::Handle::current();
            Ok(Some(Lock::new(fence.unsigned_abs(), move || {
                runtime.spawn(async move {
                    let release = "SELECT pg_advisory_unlock(hashtextextended('calgate ' || $1, 0))";
                    // Where the server does not answer, the connection is let go of, and the lock ends with it.
                    drop(timeout(PATIENCE, client.query_one(release, &[&name])).await);
                });
            })))
        }))
    }

    fn names(&self) -> Later<'_, Vec<String>> {
        Box::pin(self.with(async move |client| {
            let rows = client.query("SELECT name FROM calgate_credentials ORDER BY name", &[]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        }))
    }
}
