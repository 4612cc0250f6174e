//! Capacity of the process: how many connections and requests it takes at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts open connections and requests in flight, and caps both.
#[derive(Debug, Default)]
pub struct Capacity {
    connections: Count,
    in_flight: Count,
}

impl Capacity {
    /// Sets the caps that the open-file limit of the process allows, whatever the configuration allows.
    pub fn set_max(&self, connections: usize, in_flight: usize) {
        self.connections.max.store(connections, Ordering::Relaxed);
        self.in_flight.max.store(in_flight, Ordering::Relaxed);
    }

    /// Counts one more connection, unless `max` are open.
    pub fn try_connect(&self, max: usize) -> Option<CapacityPermit> {
        self.connections.try_acquire(max)
    }

    /// Counts one more request in flight, unless there are `max`.
    pub fn try_admit(&self, max: usize) -> Option<CapacityPermit> {
        self.in_flight.try_acquire(max)
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        self.connections.current.load(Ordering::Relaxed)
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.current.load(Ordering::Relaxed)
    }
}

/// One number and its cap.
#[derive(Debug)]
struct Count {
    current: Arc<AtomicUsize>,
    max: AtomicUsize,
}

impl Default for Count {
    fn default() -> Self {
        Self { current: Arc::default(), max: AtomicUsize::new(usize::MAX) }
    }
}

impl Count {
    fn try_acquire(&self, max: usize) -> Option<CapacityPermit> {
        CapacityPermit::try_acquire(&self.current, max.min(self.max.load(Ordering::Relaxed)))
    }
}

/// A place in a limited number. Dropping it frees the place.
#[derive(Debug)]
pub struct CapacityPermit(Arc<AtomicUsize>);

impl CapacityPermit {
    /// Increments `current`, unless it has reached `max`.
    pub(crate) fn try_acquire(current: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let before = current.fetch_add(1, Ordering::Relaxed);
        let permit = Self(current.clone());
        (before < max).then_some(permit)
    }
}

impl Drop for CapacityPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
