//! `calgate explain`.

use std::fmt::Write as _;

use clap::Args;
use http::Method;

use super::{ConfigArgs, Outcome, print};
use crate::app::App;
use crate::config::problem::known_names;
use crate::explain::{Asked, Explanation, explain};

/// What is asked about.
#[derive(Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The consumer that would ask
    #[arg(long, value_name = "NAME")]
    consumer: String,
    /// The request's method
    method: Method,
    /// The request's path, as a caller would send it
    path: String,
    /// The managed user it acts for, as in x-calgate-managed-user
    #[arg(long, value_name = "ID")]
    managed_user: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ExplainArgs) -> Outcome {
    let config = match args.config.read() {
        Ok((config, _)) => config,
        Err(outcome) => return outcome,
    };
    let app = match App::build(config, None) {
        Ok(app) => app,
        Err(fault) => return Outcome::Misused(format!("calgate: {fault}")),
    };
    let Some(consumer) = app.consumers.named(&args.consumer) else {
        let names = app.consumers.list().iter().map(|consumer| &*consumer.name);
        let help = known_names(&args.consumer, names);
        return Outcome::Misused(format!("calgate: there is no consumer `{}` ({help})", args.consumer));
    };
    let asked = Asked { method: &args.method, target: &args.path, managed_user: args.managed_user.as_deref() };
    let mut explanation = explain(&app, consumer, asked);
    // This process has sent nothing.
    if let Some(budget) = &mut explanation.budget {
        budget.now = None;
    }
    if args.json {
        return match serde_json::to_string_pretty(&explanation) {
            Ok(json) => print(&(json + "\n")),
            Err(fault) => Outcome::Failed(fault.to_string()),
        };
    }
    print(&for_people(&explanation))
}

fn for_people(explanation: &Explanation<'_>) -> String {
    let mut lines = vec![("decision", explanation.decision.to_owned())];
    lines.extend(explanation.only_with.map(|header| ("only with", header.to_owned())));
    if let (Some(code), Some(status)) = (explanation.code, explanation.status) {
        lines.push(("code", format!("{code} ({status})")));
    }
    lines.push(("rule", explanation.rule.clone()));
    lines.extend(explanation.endpoint.as_ref().map(|endpoint| ("endpoint", endpoint.to_string())));
    let names = [
        ("consumer", Some(explanation.consumer)),
        ("credential", explanation.credential),
        ("plan", explanation.plan),
        ("tier", explanation.tier),
    ];
    lines.extend(names.map(|(what, name)| (what, name.unwrap_or("-").to_owned())));
    lines.extend(explanation.budget.as_ref().map(|budget| ("budget", budget.to_string())));
    lines.iter().fold(String::new(), |mut text, (what, value)| {
        let _ = writeln!(text, "{what:<12}{value}");
        text
    })
}
