//! Limits a process to a part of one processor, like a container with a CPU limit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Default period of a CPU limit in Linux.
const PERIOD: Duration = Duration::from_millis(100);

/// CPU limit of one process. Dropping it ends the limit.
pub enum CpuLimit {
    /// A control group that contains only this process.
    Group { folder: PathBuf, outside: PathBuf, pid: u32 },
    /// Fallback without control groups: a thread stops the process for the rest of each period.
    Signals { over: Arc<AtomicBool>, thread: Option<JoinHandle<()>> },
}

impl CpuLimit {
    /// Limits `pid` to `percent` of one processor.
    pub fn of(pid: u32, percent: u32) -> Self {
        Self::group(pid, percent).unwrap_or_else(|| Self::signals(pid, percent))
    }

    /// Creates a control group, in version 1 or version 2 of the interface (`cgroups(7)`).
    fn group(pid: u32, percent: u32) -> Option<Self> {
        let (period, quota) = (PERIOD.as_micros(), PERIOD.as_micros() * u128::from(percent) / 100);
        let first = [("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
        let second = [("cpu.max", format!("{quota} {period}"))];
        let versions: [(&str, &[(&str, String)]); 2] = [("/sys/fs/cgroup/cpu", &first), ("/sys/fs/cgroup", &second)];
        versions.into_iter().find_map(|(root, values)| {
            let folder = Path::new(root).join(format!("calgate-test-{pid}"));
            std::fs::create_dir(&folder).ok()?;
            let set = values.iter().all(|(file, value)| folder.join(file).exists() && write(&folder.join(file), value));
            if set && write(&folder.join("cgroup.procs"), &pid.to_string()) {
                return Some(Self::Group { folder, outside: Path::new(root).join("cgroup.procs"), pid });
            }
            let _ = std::fs::remove_dir(&folder);
            None
        })
    }

    /// Stops and continues the process with signals.
    fn signals(pid: u32, percent: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, running) = (over.clone(), PERIOD * percent / 100);
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(running);
                signal(pid, "-STOP");
                std::thread::sleep(PERIOD.saturating_sub(running));
                signal(pid, "-CONT");
            }
        });
        Self::Signals { over, thread: Some(thread) }
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        match self {
            Self::Group { folder, outside, pid } => {
                write(outside, &pid.to_string());
                let _ = std::fs::remove_dir(folder);
            }
            Self::Signals { over, thread } => {
                over.store(true, Ordering::Relaxed);
                let _ = thread.take().map(JoinHandle::join);
            }
        }
    }
}

fn write(file: &Path, value: &str) -> bool {
    std::fs::write(file, value).is_ok()
}

fn signal(pid: u32, signal: &str) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).status();
}
