//! Parameters of one simulation: number of gateways, limit, and load.

use std::fmt;
use std::time::Duration;

/// Window of Cal.com.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Case to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Number of gateways on the credential. They share only the headers of Cal.com.
    pub gateways: u32,
    /// N: requests per minute that Cal.com grants the credential.
    pub limit: u32,
    /// Load of the consumers.
    pub load: Load,
    /// Whether a request in the last millisecond of a window prolongs the window with its old count.
    pub quirk: bool,
    /// Load of another client of the credential, at random times, in percent of N.
    pub foreign: u32,
    /// Duration in seconds.
    pub seconds: u64,
    /// Seconds before the requests of light consumers count, in which gateways learn the demand of the consumers.
    pub warm_up: u64,
    /// Number of the hour, which seeds the random numbers.
    pub hour: u64,
}

/// Load of the consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Four equal consumers, which together send this percentage of N at random times.
    Poisson(u32),
    /// One consumer that sends 3N requests at once, every other minute.
    Bursts,
    /// One consumer that sends 250 % of N, and five that send 10 % each.
    HeavyAndLight,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisson(percent) => write!(f, "{percent} %"),
            Self::Bursts => f.write_str("bursts of 3N"),
            Self::HeavyAndLight => f.write_str("1 heavy, 5 light"),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gateways, limit, load, quirk, foreign, .. } = self;
        write!(f, "{gateways} gateways, N = {limit}, {load}, quirk {quirk}, others {foreign} %")
    }
}

impl Load {
    /// Returns the load of each consumer, in percent of N per minute.
    pub fn consumers(self) -> Vec<f64> {
        match self {
            Self::Poisson(percent) => vec![f64::from(percent) / 4.0; 4],
            Self::Bursts => vec![150.0],
            Self::HeavyAndLight => vec![250.0, 10.0, 10.0, 10.0, 10.0, 10.0],
        }
    }

    /// Returns whether the load always exceeds the limit.
    pub fn saturates(self) -> bool {
        matches!(self, Self::Poisson(300) | Self::HeavyAndLight)
    }
}
