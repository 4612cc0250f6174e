//! Locks among gateways: advisory locks of open transactions.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::vault::postgres::{DURABLY, PATIENCE, Server, too_slow, unusable};
use crate::vault::{Lock, StoreFault};

/// Maximum number of locks that one gateway holds at once. Each has a connection, and behind a pooler in transaction mode a
/// connection of the pooler to the server. Renewals beyond it wait.
const MAX_LOCKS: usize = 4;

/// Idle connections that are kept for the next lock.
const MAX_IDLE: usize = 1;

/// Begins the transaction of a lock. The server ends it after a time that no renewal takes, for a gateway whose machine is
/// gone without a word.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '120s'";

/// Takes the lock, if it is free. Returns whether it was, and the lock's number.
const TAKE: &str =
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

/// Why a step in a transaction failed.
pub(super) enum Failed {
    /// The server refused a statement. The lock is still held.
    Refused(Error),
    /// The outcome is unknown, and the lock is lost. The holder's fence keeps its record safe.
    Lost(Option<Error>),
}

/// Takes the lock of that name. `None` if another gateway holds it, or as many locks as may be are held here.
pub(super) async fn take(server: &Server, locks: &Arc<Locks>, name: &str) -> Result<Option<Lock>, StoreFault> {
    let end = Instant::now() + PATIENCE;
    let Ok(Ok(permit)) = timeout_at(end, locks.permits.clone().acquire_owned()).await else { return Ok(None) };
    let taken = timeout(PATIENCE, begin(server, locks, permit, name)).await;
    let taken = taken.map_err(|_| too_slow())?.map_err(|fault| unusable(&fault))?;
    Ok(taken.map(|(transaction, fence)| locks.hold(name, transaction, fence)))
}

/// Begins a transaction with the lock, and draws the lock's fence.
async fn begin(
    server: &Server,
    locks: &Locks,
    permit: OwnedSemaphorePermit,
    name: &str,
) -> Result<Option<(Transaction, u64)>, Error> {
    let client = connection_in_transaction(server, locks).await?;
    let taken = client.query_typed_one(TAKE, &[(&name, Type::TEXT)]).await?;
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

/// Begins a transaction on an idle connection, or on a new one where that was closed meanwhile.
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
    /// Does `work`, commits it, and holds the lock in a new transaction.
    ///
    /// Between the two transactions, a session-level lock holds it. One message carries the batch: the server carries it
    /// out even if the gateway is gone meanwhile, and a pooler in transaction mode keeps its connection for this one. Only a
    /// COMMIT that fails would leave the session-level lock on a connection of a pooler, until that closes the connection.
    pub(super) async fn change<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Failed> {
        let mut held = self.client.lock().await;
        let Some(client) = held.take() else { return Err(Failed::Lost(None)) };
        client.batch_execute("SAVEPOINT change").await.map_err(lost)?;
        // A refused statement would end the lock with its transaction.
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

    /// Does `work`, which changes nothing.
    pub(super) async fn read<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Failed> {
        let mut held = self.client.lock().await;
        let Some(client) = held.take() else { return Err(Failed::Lost(None)) };
        let read = work(&client).await.map_err(lost)?;
        *held = Some(client);
        Ok(read)
    }

    /// Ends the transaction and keeps its connection. If the server does not answer, the connection is closed.
    async fn end(self, locks: &Locks) {
        let Some(client) = self.client.into_inner() else { return };
        if let Ok(Ok(())) = timeout(PATIENCE, client.batch_execute("ROLLBACK")).await {
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

    /// Forgets a transaction. Further changes of its record are made on the shared connection.
    pub(super) fn leave(&self, name: &str) {
        self.all_held().remove(name);
    }

    /// Makes the lock of a transaction. It ends with its drop.
    fn hold(self: &Arc<Self>, name: &str, transaction: Transaction, fence: u64) -> Lock {
        let transaction = Arc::new(transaction);
        self.all_held().insert(name.to_owned(), transaction.clone());
        let (locks, name, runtime) = (self.clone(), name.to_owned(), tokio::runtime::Handle::current());
        Lock::new(fence, move || {
            locks.leave(&name);
            // A change that is still under way closes the connection at its end, which ends the lock, too.
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
