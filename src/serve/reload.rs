//! Reloads the configuration on SIGHUP or when its file changes, until a signal ends the program.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use notify::{RecursiveMode, Watcher};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use super::fd_limit;
use super::signals::{Stop, received};
use crate::config::diagnostics::ConfigError;
use crate::config::file_digest::FileDigest;
use crate::config::startup::StartupConfig;
use crate::config::{Config, Secrets};
use crate::gateway::Gateway;
use crate::memory;
use crate::telemetry::ReloadLabels;

/// Editors and orchestrators write in several steps; a change is read when they have had time to finish.
const SETTLE: Duration = Duration::from_millis(100);

/// Maximum number of links that are followed to a file, 16: longer chains are loops, or nearly.
const MAX_LINKS: usize = 16;

/// Where the configuration came from.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A file, read again when it changes or on SIGHUP.
    File {
        /// Where it is.
        path: PathBuf,
        /// What it held when it was first read.
        seen: FileDigest,
    },
    /// A pipe, which is read once.
    Pipe,
    /// The environment, which does not change.
    Environment,
}

impl ConfigSource {
    /// Reads the configuration that is there, once. A change from then on is one that a reload has to find.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(path: &Path, secrets: Secrets) -> Result<(Config, Self), Box<ConfigError>> {
        let can_be_read_again = path.metadata().is_ok_and(|file| file.is_file());
        let (config, seen) = Config::from_file(path, secrets)?;
        Ok((config, if can_be_read_again { Self::File { path: path.to_owned(), seen } } else { Self::Pipe }))
    }
}

/// Reloads as asked to, and returns when SIGTERM or SIGINT comes.
pub(super) async fn until_told_to_stop(
    gateway: &Arc<Gateway>,
    source: ConfigSource,
    startup: &StartupConfig,
    stop: &mut Stop,
) -> Result<(), String> {
    let mut hangup = received(SignalKind::hangup())?;
    let (changed, mut news) = mpsc::channel(1);
    let _watcher = match &source {
        ConfigSource::File { path, seen } => watch(path, *seen, &changed),
        ConfigSource::Pipe | ConfigSource::Environment => None,
    };
    loop {
        tokio::select! {
            () = stop.told() => return Ok(()),
            _ = hangup.recv() => {
                reload(gateway, &source, startup);
                gateway.snapshot().upstream.reconnect();
                tracing::info!("new connections to the upstream are opened from now on");
            }
            Some(()) = news.recv() => {
                sleep(SETTLE).await;
                while news.try_recv().is_ok() {}
                reload(gateway, &source, startup);
            }
        }
    }
}

/// Watches for a change of the file.
fn watch(path: &Path, seen: FileDigest, changed: &mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let (file, tell, mut last, mut names) = (path.to_owned(), changed.clone(), Some(seen), Watched::of(path));
    let on_event = move |event: notify::Result<notify::Event>| {
        // Opening and reading are events, too: a look at the file would bring about the next look at it.
        if event.is_ok_and(|event| event.kind.is_access() || !names.concerns(&event)) {
            return;
        }
        names = Watched::of(&file);
        let now = FileDigest::read(&file);
        if now != last {
            last = now;
            let _ = tell.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        for place in places(path) {
            watcher.watch(&place, RecursiveMode::NonRecursive)?;
        }
        // Before now, nobody watched.
        if FileDigest::read(path) != Some(seen) {
            let _ = changed.try_send(());
        }
        Ok(watcher)
    });
    watcher.inspect_err(|fault| tracing::warn!(%fault, "the configuration is not watched; send SIGHUP to reload")).ok()
}

/// The names by which events tell of a change of the file: its own, and those of the links and folders that lead to it. A
/// mounted Kubernetes volume replaces the link `..data`, not the file.
struct Watched {
    names: BTreeSet<OsString>,
    places: BTreeSet<PathBuf>,
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
        Self { names, places: places(path) }
    }

    /// Returns whether the file may have changed. An event without a path may be about any file.
    fn concerns(&self, event: &notify::Event) -> bool {
        let is_named = |path: &PathBuf| path.file_name().is_some_and(|name| self.names.contains(name));
        event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| is_named(path) || self.places.contains(path))
    }
}

/// Where a change shows: in the file's folder, as editors and orchestrators replace files and links rather than write into them;
/// in the folder of the file that a link leads to; and in the file itself, where a container has it and not its folder.
fn places(path: &Path) -> BTreeSet<PathBuf> {
    let folder = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).to_owned()
    };
    let led_to = path.canonicalize().ok();
    [Some(folder(path)), led_to.as_deref().map(folder), led_to].into_iter().flatten().collect()
}

/// Logs what is probably a mistake in a configuration.
pub fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(warning, "configuration warning");
    }
}

/// Reads the configuration again. One that cannot be used changes nothing.
fn reload(gateway: &Gateway, source: &ConfigSource, startup: &StartupConfig) {
    let ConfigSource::File { path, .. } = source else {
        tracing::info!("there is no configuration file to reload");
        return;
    };
    let read = Config::from_file(path, Secrets::Read).map_err(|error| error.lines().join("; "));
    let replaced = read.and_then(|(config, _)| {
        let waiting = startup.changed_in(&config);
        log_warnings(&config);
        gateway.replace(config).map(|()| waiting)
    });
    memory::give_back();
    let result = match replaced {
        Ok(waiting) => {
            tracing::info!(file = %path.display(), "the configuration was reloaded");
            fd_limit::make_room(gateway, startup.listen.workers);
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
