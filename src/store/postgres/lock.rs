//! Locks among gateways: advisory locks of open transactions.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{PATIENCE, Server, too_slow, unusable};
use crate::store::{Lock, StoreFault};

/// Maximum number of locks that one gateway holds at once. Each has a connection, and behind a pooler in transaction mode a
/// connection of the pooler to the server. Renewals beyond it wait.
const MAX_LOCKS: usize = 4;

/// Idle connections that are kept for the next lock.
const MAX_IDLE: usize = 1;

/// Begins the transaction of a lock. The server ends it after a time that no renewal takes, for a gateway whose machine is
/// gone without a word.
const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '120s'";

/// Takes the lock, if it is free.
const TAKE: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('calgate ' || $1, 0))";

/// The connections of locks.
pub(super) struct Locks {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Client>>,
}

impl Default for Locks {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_LOCKS)), idle: Mutex::default() }
    }
}

/// A transaction that may hold a lock. Its connection closes with it, and so the server ends the lock, unless
/// [`Transaction::end`] succeeds.
pub(super) struct Transaction {
    client: Client,
    _permit: OwnedSemaphorePermit,
}

/// Takes the lock of that name. `None` if another gateway holds it, or as many locks as may be are held here.
pub(super) async fn take(server: &Server, locks: &Locks, name: &str) -> Result<Option<Transaction>, StoreFault> {
    let end = Instant::now() + PATIENCE;
    let Ok(Ok(permit)) = timeout_at(end, locks.permits.clone().acquire_owned()).await else { return Ok(None) };
    let taken = timeout(PATIENCE, begin(server, locks, permit, name)).await;
    taken.map_err(|_| too_slow())?.map_err(|fault| unusable(&fault))
}

async fn begin(
    server: &Server,
    locks: &Locks,
    permit: OwnedSemaphorePermit,
    name: &str,
) -> Result<Option<Transaction>, tokio_postgres::Error> {
    let client = connection_in_transaction(server, locks).await?;
    let transaction = Transaction { client, _permit: permit };
    let taken = transaction.client.query_typed_one(TAKE, &[(&name, Type::TEXT)]).await?;
    if taken.try_get::<_, bool>(0)? {
        return Ok(Some(transaction));
    }
    transaction.end(locks).await;
    Ok(None)
}

/// Begins a transaction on an idle connection, or on a new one where that was closed meanwhile.
async fn connection_in_transaction(server: &Server, locks: &Locks) -> Result<Client, tokio_postgres::Error> {
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
    /// The lock, which ends with its drop.
    pub(super) fn into_lock(self, fence: u64, locks: &Arc<Locks>) -> Lock {
        let (locks, runtime) = (locks.clone(), tokio::runtime::Handle::current());
        Lock::new(fence, move || {
            runtime.spawn(async move { self.end(&locks).await });
        })
    }

    /// Ends the transaction and keeps its connection. Where the server does not answer, the connection is closed.
    async fn end(self, locks: &Locks) {
        if let Ok(Ok(())) = timeout(PATIENCE, self.client.batch_execute("ROLLBACK")).await {
            locks.keep(self.client);
        }
    }
}

impl Locks {
    fn idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    fn keep(&self, client: Client) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(client);
        }
    }
}
