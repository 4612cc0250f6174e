//! A worker's handle of the gateway.

use std::ops::Deref;
use std::sync::Arc;

use super::Gateway;

/// Shared reference to the [`Gateway`] that one thread clones for each request. A clone counts in memory that no other thread
/// writes, so that the workers do not contend for one reference count.
#[derive(Debug, Clone)]
pub struct GatewayHandle(Arc<OfWorker>);

/// The gateway in memory that one worker writes: two cache lines, because processors load them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct OfWorker(Arc<Gateway>);

impl GatewayHandle {
    /// Makes the handle of one worker.
    pub fn new(gateway: &Arc<Gateway>) -> Self {
        Self(Arc::new(OfWorker(gateway.clone())))
    }
}

impl Deref for GatewayHandle {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.0.0
    }
}
