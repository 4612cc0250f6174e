//! Parameters of one simulation: number of gateways, limit, and load.

use std::fmt;
use std::time::Duration;

/// Cal.com's window.
pub const WINDOW: Duration = Duration::from_secs(60);

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Gateways on the credential that share nothing but Cal.com's headers.
    pub gateways: u32,
    /// N: requests a minute that Cal.com grants the credential.
    pub limit: u32,
    /// What consumers ask for.
    pub load: Load,
    /// Whether a hit in the millisecond in which a window ends prolongs it with its old count.
    pub quirk: bool,
    /// What another program uses of the credential: percent of N, at random moments.
    pub foreign: u32,
    /// How long it goes on.
    pub seconds: u64,
    /// For how long gateways get to know consumers before it is counted which of the light ones' requests are served.
    pub warm_up: u64,
    /// Which hour: another has other requests, as much at random.
    pub hour: u64,
}

/// What consumers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Four equal consumers, which together ask for so many percent of N at random moments.
    Poisson(u32),
    /// 3N requests of one consumer at once, every other minute.
    Bursts,
    /// One consumer that asks for 250 % of N, and five for 10 % each.
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
    /// How much each consumer asks for, in percent of N a minute.
    pub fn consumers(self) -> Vec<f64> {
        match self {
            Self::Poisson(percent) => vec![f64::from(percent) / 4.0; 4],
            Self::Bursts => vec![150.0],
            Self::HeavyAndLight => vec![250.0, 10.0, 10.0, 10.0, 10.0, 10.0],
        }
    }

    /// Whether more is asked for than there is, all the time.
    pub fn saturates(self) -> bool {
        matches!(self, Self::Poisson(300) | Self::HeavyAndLight)
    }
}
