//! Claims about the budget of calgate, checked for each simulation.

use super::cell::{Cell, Load};
use super::simulation::Outcome;

/// Minimum number of requests per minute and gateway from which a gateway can estimate the demand of a consumer.
const PARTS: u32 = 10;

/// Returns the claims that do not hold. `as_one` is set for gateways that share a store.
pub fn broken(cell: &Cell, as_one: bool, outcome: &Outcome) -> Vec<String> {
    let as_one = as_one || cell.gateways == 1;
    let tells_apart = cell.limit / cell.gateways >= PARTS;
    let mut broken = Vec::new();
    let mut claim = |holds: bool, fault: String| {
        if !holds {
            broken.push(fault);
        }
    };
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    if cell.foreign == 0 {
        claim(outcome.refused == 0, format!("{} answers of 429", outcome.refused));
        claim(outcome.blocks == 0, format!("{} blocks", outcome.blocks));
    } else {
        claim(outcome.blocks <= 1 + outcome.prolonged_by_others, format!("{} blocks", outcome.blocks));
        claim(!as_one || outcome.foreign_seen > 0, "others are not seen".to_owned());
    }
    let least_used = if as_one { 0.95 } else { 0.90 };
    if cell.load.saturates() && cell.foreign == 0 {
        claim(outcome.used >= least_used, format!("only {} of N used", percent(outcome.used)));
    }
    if cell.load == Load::Poisson(50) && cell.foreign == 0 {
        claim(outcome.served >= 0.99, format!("only {} served at half load", percent(outcome.served)));
    }
    if let Some((least, _)) = outcome.of_bursts {
        claim(least >= least_used, format!("only {} of N served of a burst", percent(least)));
    }
    if let Some(light) = outcome.light_served.filter(|_| cell.foreign == 0 && tells_apart) {
        claim(light >= 0.99, format!("light consumers served {}", percent(light)));
    }
    if let Some(spread) = outcome.spread.filter(|_| cell.load.saturates() && tells_apart) {
        claim(spread <= 0.10, format!("equal consumers are {} apart", percent(spread)));
    }
    broken
}
