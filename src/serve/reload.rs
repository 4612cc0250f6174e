//! Reload of the configuration, on SIGHUP or when its file changes.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use super::fd_limit;
use super::signals::Signals;
use crate::config::diagnostics::ConfigError;
use crate::config::file_digest::FileDigest;
use crate::config::startup::StartupConfig;
use crate::config::{Config, Secrets};
use crate::gateway::Gateway;
use crate::memory;
use crate::telemetry::ReloadLabels;

/// Delay between a change of the file and the reload, 100 ms, because editors and orchestrators write in several steps.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Maximum symbolic links that are followed to a file, 16. Longer chains are usually loops.
const MAX_LINKS: usize = 16;

/// Source of the configuration.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A file, which is read again when it changes and on SIGHUP.
    File {
        /// Path of the file.
        path: PathBuf,
        /// Digest of its contents at the first reading.
        seen: FileDigest,
    },
    /// A pipe, which can be read only once.
    Pipe,
    /// The environment, which does not change while the process runs.
    Environment,
}

impl ConfigSource {
    /// Reads the configuration once. The returned source detects later changes.
    ///
    /// # Errors
    /// Every fault of the configuration.
    pub fn read(path: &Path, secrets: Secrets) -> Result<(Config, Self), Box<ConfigError>> {
        let can_be_read_again = path.metadata().is_ok_and(|file| file.is_file());
        let (config, seen) = Config::from_file(path, secrets)?;
        Ok((config, if can_be_read_again { Self::File { path: path.to_owned(), seen } } else { Self::Pipe }))
    }
}

/// Reloads the configuration when it changes and on SIGHUP. Returns on SIGTERM or SIGINT.
pub(super) async fn run_until_shutdown(
    gateway: &Arc<Gateway>,
    source: ConfigSource,
    startup: &StartupConfig,
    signals: &mut Signals,
) {
    let (changed, mut events) = mpsc::channel(1);
    let _watcher = match &source {
        ConfigSource::File { path, seen } => watch(path, *seen, &changed),
        ConfigSource::Pipe | ConfigSource::Environment => None,
    };
    loop {
        tokio::select! {
            () = signals.shutdown.recv() => return,
            _ = signals.hangup.recv() => {
                reload(gateway, &source, startup);
                gateway.snapshot().upstream.reconnect();
                tracing::info!("reconnecting to the upstream");
            }
            Some(()) = events.recv() => {
                sleep(DEBOUNCE).await;
                while events.try_recv().is_ok() {}
                reload(gateway, &source, startup);
            }
        }
    }
}

/// Watches the file, and sends on `changed` when its contents change.
fn watch(path: &Path, seen: FileDigest, changed: &mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let (file, sender, mut last, mut names) = (path.to_owned(), changed.clone(), Some(seen), Watched::of(path));
    let on_event = move |event: notify::Result<notify::Event>| {
        // Opening and reading are events, too. Reading the file because of them would cause the next event.
        if event.is_ok_and(|event| event.kind.is_access() || !names.concerns(&event)) {
            return;
        }
        names = Watched::of(&file);
        let now = FileDigest::read(&file);
        if now != last {
            last = now;
            let _ = sender.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        for path in watched_paths(path) {
            watcher.watch(&path, RecursiveMode::NonRecursive)?;
        }
        // The file may have changed before the watch began.
        if FileDigest::read(path) != Some(seen) {
            let _ = changed.try_send(());
        }
        Ok(watcher)
    });
    watcher
        .inspect_err(|fault| tracing::warn!(%fault, "cannot watch the configuration file; send SIGHUP to reload"))
        .ok()
}

/// Names and paths whose events concern the file: the file itself and the links and folders that lead to it. A mounted Kubernetes
/// volume replaces the link `..data`, not the file.
struct Watched {
    names: BTreeSet<OsString>,
    paths: BTreeSet<PathBuf>,
}

impl Watched {
    fn of(path: &Path) -> Self {
        let mut names: BTreeSet<OsString> = path.file_name().map(OsStr::to_owned).into_iter().collect();
        let mut current = path.to_owned();
        for _ in 0..MAX_LINKS {
            let Ok(target) = current.read_link() else { break };
            names.extend(target.components().filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_owned()),
                _ => None,
            }));
            current = current.parent().unwrap_or(Path::new(".")).join(target);
        }
        Self { names, paths: watched_paths(path) }
    }

    /// Returns whether the file may have changed. An event without a path may be about any file.
    fn concerns(&self, event: &notify::Event) -> bool {
        let is_named = |path: &PathBuf| path.file_name().is_some_and(|name| self.names.contains(name));
        event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| is_named(path) || self.paths.contains(path))
    }
}

/// Returns the paths to watch:
///
/// - the folder of the file, because editors and orchestrators replace files and links;
/// - the folder of the file that a link leads to;
/// - that file itself, because a container may mount it without its folder.
fn watched_paths(path: &Path) -> BTreeSet<PathBuf> {
    let folder = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).to_owned()
    };
    let target = path.canonicalize().ok();
    [Some(folder(path)), target.as_deref().map(folder), target].into_iter().flatten().collect()
}

/// Logs the warnings of a configuration.
pub fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(warning, "configuration warning");
    }
}

/// Reloads the configuration. An invalid configuration is logged and ignored.
fn reload(gateway: &Gateway, source: &ConfigSource, startup: &StartupConfig) {
    let ConfigSource::File { path, .. } = source else {
        tracing::info!("no configuration file to reload");
        return;
    };
    let read = Config::from_file(path, Secrets::Read).map_err(|error| error.lines().join("; "));
    let replaced = read.and_then(|(config, _)| {
        let pending = startup.changed_in(&config);
        log_warnings(&config);
        gateway.replace(config).map(|()| pending)
    });
    memory::release_to_os();
    let result = match replaced {
        Ok(pending) => {
            tracing::info!(file = %path.display(), "reloaded the configuration");
            fd_limit::fit_limits(gateway, startup.listen.workers);
            if !pending.is_empty() {
                tracing::warn!(keys = pending.join(", "), "restart required to apply these keys");
            }
            "applied"
        }
        Err(fault) => {
            tracing::error!(file = %path.display(), fault, "cannot use the new configuration; the old one stays in force");
            "rejected"
        }
    };
    gateway.metrics.reloads.get_or_create(&ReloadLabels { result }).inc();
}
