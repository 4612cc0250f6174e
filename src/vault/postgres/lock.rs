//! Locks among gateways: advisory locks of open transactions.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::vault::postgres::{DURABLY, Server, TIMEOUT, too_slow, unusable};
use crate::vault::{Lock, VaultError};

/// Maximum number of locks that one gateway holds at once. Each has its own connection, and behind a pooler in transaction
/// mode a connection from the pooler to the server. Further renewals wait.
const MAX_LOCKS: usize = 4;

/// Maximum number of idle connections for the next locks.
const MAX_IDLE: usize = 1;

/// Begins the transaction of a lock. If the gateway's machine fails, the server ends the transaction after 120 s, which is
/// longer than a renewal takes.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '120s'";

/// Acquires the lock, if it is free. Returns whether it was free, and the number of the lock.
const ACQUIRE: &str =
    "SELECT pg_try_advisory_xact_lock(key), key FROM (SELECT hashtextextended('calgate ' || $1, 0) AS key) AS name";

/// Connections of locks.
pub(super) struct Locks {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Client>>,
    held: Mutex<HashMap<String, Arc<Transaction>>>,
}

impl Default for Locks {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_LOCKS)), idle: Mutex::default(), held: Mutex::default() }
    }
}

/// Open transaction that holds a lock. The server ends the lock when the connection closes.
///
/// The holder changes its record in this transaction, too. Behind a pooler, as many holders as the pooler has connections
/// would otherwise wait for each other.
pub(super) struct Transaction {
    /// One step at a time. `None` after a step whose outcome is unknown: its row lock must not outlive it.
    client: tokio::sync::Mutex<Option<Client>>,
    /// Number of the advisory lock.
    key: i64,
    _permit: OwnedSemaphorePermit,
}

/// Failure of a step in a transaction.
pub(super) enum Failed {
    /// The server refused a statement. The lock is still held.
    Refused(Error),
    /// The lock is lost, and the outcome of a change is unknown. The holder's fence keeps its record safe.
    Lost(Option<Error>),
}

/// Acquires the lock of that name. Returns `None` if another gateway holds it, or if this gateway holds [`MAX_LOCKS`].
pub(super) async fn acquire(server: &Server, locks: &Arc<Locks>, name: &str) -> Result<Option<Lock>, VaultError> {
    let end = Instant::now() + TIMEOUT;
    let Ok(Ok(permit)) = timeout_at(end, locks.permits.clone().acquire_owned()).await else { return Ok(None) };
    let taken = timeout(TIMEOUT, begin(server, locks, permit, name)).await;
    let taken = taken.map_err(|_| too_slow())?.map_err(|fault| unusable(&fault))?;
    Ok(taken.map(|(transaction, fence)| locks.hold(name, transaction, fence)))
}

/// Begins a transaction with the lock, and gets its fence from the sequence.
async fn begin(
    server: &Server,
    locks: &Locks,
    permit: OwnedSemaphorePermit,
    name: &str,
) -> Result<Option<(Transaction, u64)>, Error> {
    let client = connection_in_transaction(server, locks).await?;
    let taken = client.query_typed_one(ACQUIRE, &[(&name, Type::TEXT)]).await?;
    let (is_free, key) = (taken.try_get::<_, bool>(0)?, taken.try_get(1)?);
    let transaction = Transaction { client: Some(client).into(), key, _permit: permit };
    if !is_free {
        transaction.end(locks).await;
        return Ok(None);
    }
    let fence = transaction.change(async |client| {
        let next = format!("SELECT nextval('calgate_fence') WHERE {DURABLY}");
        client.query_typed_one(&next, &[]).await?.try_get::<_, i64>(0)
    });
    match fence.await {
        Ok(fence) => Ok(Some((transaction, fence.unsigned_abs()))),
        Err(Failed::Refused(fault) | Failed::Lost(Some(fault))) => Err(fault),
        Err(Failed::Lost(None)) => Ok(None),
    }
}

/// Begins a transaction on an idle connection, or on a new one if the server has closed that.
async fn connection_in_transaction(server: &Server, locks: &Locks) -> Result<Client, Error> {
    if let Some(idle) = locks.idle()
        && idle.batch_execute(BEGIN).await.is_ok()
    {
        return Ok(idle);
    }
    let client = server.connect().await?;
    client.batch_execute(BEGIN).await?;
    Ok(client)
}

impl Transaction {
    /// Runs `work`, commits it, and keeps the lock in a new transaction.
    ///
    /// Between the two transactions, a session-level lock keeps it. All of that is one message. The server completes it even
    /// if the gateway dies meanwhile, and a pooler in transaction mode keeps the connection for that long. Only a failed
    /// COMMIT would leave the session-level lock on a connection of a pooler, until the pooler closes the connection.
    pub(super) async fn change<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Failed> {
        let mut held = self.client.lock().await;
        let Some(client) = held.take() else { return Err(Failed::Lost(None)) };
        client.batch_execute("SAVEPOINT change").await.map_err(lost)?;
        // Without the savepoint, a refused statement would end the transaction, and the lock with it.
        let done = match work(&client).await {
            Ok(done) => done,
            Err(fault) => {
                client.batch_execute("ROLLBACK TO SAVEPOINT change").await.map_err(lost)?;
                *held = Some(client);
                return Err(Failed::Refused(fault));
            }
        };
        let key = self.key;
        let next = format!(
            "SELECT pg_advisory_lock({key}); COMMIT; {BEGIN}; SELECT pg_advisory_xact_lock({key}); \
             SELECT pg_advisory_unlock({key})"
        );
        client.batch_execute(&next).await.map_err(lost)?;
        *held = Some(client);
        Ok(done)
    }

    /// Runs `work`, which only reads. If it fails, the lock is given up, because a failed statement ends the transaction.
    pub(super) async fn read<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Failed> {
        let mut held = self.client.lock().await;
        let Some(client) = held.take() else { return Err(Failed::Lost(None)) };
        let read = work(&client).await.map_err(lost)?;
        *held = Some(client);
        Ok(read)
    }

    /// Ends the transaction and keeps its connection. Closes the connection if the server does not reply.
    async fn end(self, locks: &Locks) {
        let Some(client) = self.client.into_inner() else { return };
        if let Ok(Ok(())) = timeout(TIMEOUT, client.batch_execute("ROLLBACK")).await {
            locks.keep(client);
        }
    }
}

fn lost(fault: Error) -> Failed {
    Failed::Lost(Some(fault))
}

impl Locks {
    /// Returns the transaction that holds the lock of that name here.
    pub(super) fn held(&self, name: &str) -> Option<Arc<Transaction>> {
        self.all_held().get(name).cloned()
    }

    /// Removes a transaction. Further changes of its record use the shared connection.
    pub(super) fn remove(&self, name: &str) {
        self.all_held().remove(name);
    }

    /// Creates the lock of a transaction. Dropping it ends the transaction.
    fn hold(self: &Arc<Self>, name: &str, transaction: Transaction, fence: u64) -> Lock {
        let transaction = Arc::new(transaction);
        self.all_held().insert(name.to_owned(), transaction.clone());
        let (locks, name, runtime) = (self.clone(), name.to_owned(), tokio::runtime::Handle::current());
        Lock::new(fence, move || {
            locks.remove(&name);
            // A change in progress closes the connection at its end, which releases the lock, too.
            let Some(transaction) = Arc::into_inner(transaction) else { return };
            runtime.spawn(async move { transaction.end(&locks).await });
        })
    }

    fn all_held(&self) -> MutexGuard<'_, HashMap<String, Arc<Transaction>>> {
        self.held.lock()
    }

    fn idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock();
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    fn keep(&self, client: Client) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(client);
        }
    }
}
