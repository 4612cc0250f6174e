//! Picture of one hour as SVG: what Cal.com accepts and refuses of a token bucket, a request spacer and calgate.

use std::fmt::Write as _;

use super::HOUR;
use super::table::cell::{Cell, Load};
use super::table::gateway::Policy;
use super::table::simulation::{Outcome, run};

/// Hour that the picture shows: one gateway, a load of three times the limit, and a limiter that prolongs windows.
const CELL: Cell = Cell {
    gateways: 1,
    limit: 120,
    load: Load::Poisson(300),
    quirk: true,
    foreign: 0,
    seconds: HOUR,
    warm_up: 0,
    hour: 0,
};

/// Width of the picture, and the left edge of its charts, in pixels.
const WIDTH: u32 = 760;
const LEFT: u32 = 48;

/// Width of one minute, and of its bar, in pixels.
const MINUTE: u32 = 11;
const BAR: u32 = 9;

/// Height of a chart, and the distance from one to the next, in pixels.
const CHART: u32 = 110;
const STEP: u32 = 168;

/// Top of the first chart, in pixels.
const TOP: u32 = 74;

/// Requests at the top of a chart.
const MAX_REQUESTS: u32 = 160;

const ACCEPTED: &str = "#2f6f9f";
const REFUSED: &str = "#d1495b";
const TEXT: &str = "#333333";

/// Runs the hour with each policy and returns the picture as SVG.
pub(super) fn draw() -> String {
    let charts = [("Token bucket", Policy::Bucket), ("Request spacer", Policy::Spacer), ("calgate", Policy::Budget)];
    let mut out = String::new();
    let height = TOP + STEP * 3 - 24;
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"{TEXT}\">\n\
         <title>Requests per minute that Cal.com accepts and refuses, for one hour</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">Requests per minute at a limit of {} per minute, under three times that \
         load</text>",
        CELL.limit
    );
    legend(&mut out);
    for (index, (name, policy)) in (0..).zip(charts) {
        chart(&mut out, TOP + STEP * index, name, &run(&CELL, policy));
    }
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String) {
    for (x, color, text) in [(LEFT, ACCEPTED, "accepted by Cal.com"), (LEFT + 160, REFUSED, "answered 429")] {
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"34\" width=\"10\" height=\"10\" fill=\"{color}\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"43\">{text}</text>", x + 16);
    }
}

/// Draws one chart whose top is at `top`.
fn chart(out: &mut String, top: u32, name: &str, outcome: &Outcome) {
    let bottom = top + CHART;
    let label = format!("{name}: {} answers of 429, {:.1} % of the limit used", outcome.refused, outcome.used * 100.0);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\">{label}</text>", top - 8);
    for (x, minute) in (0..).map(|index| LEFT + MINUTE * index).zip(&outcome.minutes) {
        let (accepted, refused) = (pixels(minute.accepted), pixels(minute.accepted + minute.refused));
        for (from, to, color) in [(0, accepted, ACCEPTED), (accepted, refused, REFUSED)] {
            if to > from {
                let (y, height) = (bottom - to, to - from);
                let _ =
                    writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{BAR}\" height=\"{height}\" fill=\"{color}\"/>");
            }
        }
    }
    let right = LEFT + MINUTE * 60;
    let limit = bottom - pixels(CELL.limit);
    for (y, value, dash) in [(bottom, 0, ""), (limit, CELL.limit, " stroke-dasharray=\"4 3\"")] {
        let _ = writeln!(out, "<path d=\"M{LEFT} {y}H{right}\" stroke=\"{TEXT}\"{dash}/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value}</text>", LEFT - 6, y + 4);
    }
    for minute in (0..=60).step_by(15) {
        let x = LEFT + MINUTE * minute;
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{minute} min</text>", bottom + 16);
    }
}

/// Returns the height of a number of requests in pixels. Larger numbers end at the top of the chart.
fn pixels(requests: u32) -> u32 {
    requests.min(MAX_REQUESTS) * CHART / MAX_REQUESTS
}
