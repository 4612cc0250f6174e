//! Signals and file changes: what changes or ends a running gateway.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use super::descriptors;
use crate::app::Gateway;
use crate::config::Config;
use crate::config::fixed::Fixed;
use crate::memory;
use crate::telemetry::ReloadLabels;

/// Editors and orchestrators write in several steps; a change is read when they have had time to finish.
const SETTLE: Duration = Duration::from_millis(100);

/// Where the configuration came from.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A file, read again when it changes or on SIGHUP.
    File {
        /// Where it is.
        path: PathBuf,
        /// What it held when it was first read.
        seen: Fingerprint,
    },
    /// The environment, which does not change.
    Environment,
}

/// Tells the contents of a file from others; `None` where it cannot be read.
type Fingerprint = Option<u64>;

impl ConfigSource {
    /// A file that is about to be read. A change from now on is one that a reload has to find.
    pub fn file(path: PathBuf) -> Self {
        let seen = fingerprint(&path);
        Self::File { path, seen }
    }
}

fn fingerprint(path: &Path) -> Fingerprint {
    let mut contents = BufReader::new(File::open(path).ok()?);
    let mut hasher = DefaultHasher::new();
    loop {
        let part = contents.fill_buf().ok()?;
        if part.is_empty() {
            return Some(hasher.finish());
        }
        hasher.write(part);
        let read = part.len();
        contents.consume(read);
    }
}

/// The signals that end the program.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Begins to listen for them.
    ///
    /// # Errors
    /// If they cannot be received.
    pub(super) fn listen() -> Result<Self, String> {
        Ok(Self { terminate: received(SignalKind::terminate())?, interrupt: received(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn received(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|e| format!("signals cannot be received: {e}"))
}

/// Reloads as asked to, and returns when SIGTERM or SIGINT comes.
pub(super) async fn until_told_to_stop(
    gateway: &Arc<Gateway>,
    source: ConfigSource,
    fixed: &Fixed,
    stop: &mut Stop,
) -> Result<(), String> {
    let mut hangup = received(SignalKind::hangup())?;
    let (changed, mut news) = mpsc::channel(1);
    let _watcher = match &source {
        ConfigSource::File { path, seen } => watch(path, *seen, &changed),
        ConfigSource::Environment => None,
    };
    loop {
        tokio::select! {
            () = stop.told() => return Ok(()),
            _ = hangup.recv() => reload(gateway, &source, fixed),
            Some(()) = news.recv() => {
                sleep(SETTLE).await;
                while news.try_recv().is_ok() {}
                reload(gateway, &source, fixed);
            }
        }
    }
}

/// Watches the file's folder: editors and orchestrators replace files and links rather than write into them.
fn watch(path: &Path, seen: Fingerprint, changed: &mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (file, tell, mut last) = (path.to_owned(), changed.clone(), seen);
    let on_event = move |event: notify::Result<notify::Event>| {
        // Opening and reading are events, too: a look at the file would bring about the next look at it.
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        let now = fingerprint(&file);
        if now != last {
            last = now;
            let _ = tell.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        // Before now, nobody watched.
        if fingerprint(path) != seen {
            let _ = changed.try_send(());
        }
        Ok(watcher)
    });
    watcher.inspect_err(|fault| tracing::warn!(%fault, "the configuration is not watched; send SIGHUP to reload")).ok()
}

/// Reads the configuration again. One that cannot be used changes nothing.
fn reload(gateway: &Gateway, source: &ConfigSource, fixed: &Fixed) {
    let ConfigSource::File { path, .. } = source else {
        tracing::info!("there is no configuration file to reload");
        return;
    };
    let read = Config::from_file(path).map_err(|unusable| unusable.lines().join("; "));
    let replaced = read.and_then(|config| {
        let waiting = fixed.changed_in(&config);
        gateway.replace(config).map(|()| waiting)
    });
    memory::give_back();
    let result = match replaced {
        Ok(waiting) => {
            tracing::info!(file = %path.display(), "the configuration was reloaded");
            descriptors::make_room(gateway, fixed.listen.workers);
            if !waiting.is_empty() {
                tracing::warn!(keys = waiting.join(", "), "these changes are in force only after a restart");
            }
            "applied"
        }
        Err(fault) => {
            tracing::error!(file = %path.display(), fault, "the configuration cannot be used; the old one stays in force");
            "rejected"
        }
    };
    gateway.metrics.reloads.get_or_create(&ReloadLabels { result }).inc();
}
