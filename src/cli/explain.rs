//! `calgate explain`.

use clap::Args;
use http::Method;

use super::{ConfigArgs, Outcome};
use crate::app::App;
use crate::config::problem::known_names;
use crate::explain::{Explanation, explain};

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
    let explanation = explain(&app, consumer, &args.method, &args.path);
    if args.json {
        match serde_json::to_string_pretty(&explanation) {
            Ok(json) => println!("{json}"),
            Err(fault) => return Outcome::Failed(fault.to_string()),
        }
    } else {
        print_for_people(&explanation);
    }
    Outcome::Done
}

fn print_for_people(explanation: &Explanation<'_>) {
    let none = "-";
    println!("decision    {}", explanation.decision);
    if let (Some(code), Some(status)) = (explanation.code, explanation.status) {
        println!("code        {code} ({status})");
    }
    println!("rule        {}", explanation.rule);
    if let Some(endpoint) = &explanation.endpoint {
        println!("endpoint    {endpoint}");
    }
    println!("consumer    {}", explanation.consumer);
    println!("credential  {}", explanation.credential.unwrap_or(none));
    println!("plan        {}", explanation.plan.unwrap_or(none));
    println!("tier        {}", explanation.tier.unwrap_or(none));
}
