//! `calgate explain`: prints what the gateway would decide about a request.

use std::fmt::Write as _;

use clap::Args;
use http::Method;

use super::{CheckArgs, Outcome, print};
use crate::config::diagnostics::known_names;
use crate::explain::{Client, ExplainRequest, Explanation, PassthroughKind, explain};
use crate::gateway::Snapshot;

/// Arguments of `calgate explain`.
#[derive(Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: CheckArgs,
    #[command(flatten)]
    client: ClientArgs,
    /// The request's method
    method: Method,
    /// The request's path, as a client would send it
    path: String,
    /// The managed user that the request acts for, as in x-calgate-managed-user
    #[arg(long, value_name = "ID")]
    managed_user: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The client that would send the request.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct ClientArgs {
    /// The consumer that would send it
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// A client without a key would send it
    #[arg(long)]
    anonymous: bool,
    /// A client with its own Cal.com credential would send it: api-key, token or platform-client
    #[arg(long, value_name = "KIND", value_parser = parse_passthrough_kind)]
    passthrough: Option<PassthroughKind>,
}

fn parse_passthrough_kind(text: &str) -> Result<PassthroughKind, String> {
    let known = PassthroughKind::NAMES;
    let kind = known.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    kind.ok_or_else(|| known_names(text, known.iter().map(|(name, _)| *name)))
}

impl ClientArgs {
    fn client<'a>(&self, snapshot: &'a Snapshot) -> Result<Client<'a>, Outcome> {
        let Some(name) = &self.consumer else {
            return Ok(self.passthrough.map_or(Client::Anonymous, Client::Passthrough));
        };
        snapshot.consumers.find_by_name(name).map(Client::Consumer).ok_or_else(|| {
            let help = known_names(name, snapshot.consumers.list().iter().map(|consumer| &*consumer.name));
            Outcome::Misused(format!("calgate: unknown consumer `{name}` ({help})"))
        })
    }
}

pub(super) fn run(args: &ExplainArgs) -> Outcome {
    let config = match args.config.config.read_with(args.config.secrets()) {
        Ok((config, _)) => config,
        Err(outcome) => return outcome,
    };
    let snapshot = match Snapshot::build(config, None) {
        Ok(snapshot) => snapshot,
        Err(fault) => return Outcome::Misused(format!("calgate: {fault}")),
    };
    let client = match args.client.client(&snapshot) {
        Ok(client) => client,
        Err(outcome) => return outcome,
    };
    let request =
        ExplainRequest { method: &args.method, target: &args.path, managed_user: args.managed_user.as_deref() };
    let mut explanation = explain(&snapshot, client, request);
    // The budget of this process is unused, and says nothing about a running gateway.
    if let Some(budget) = &mut explanation.budget {
        budget.now = None;
    }
    let printed = if args.json {
        match serde_json::to_string_pretty(&explanation) {
            Ok(json) => print(&(json + "\n")),
            Err(fault) => Outcome::Failed(fault.to_string()),
        }
    } else {
        print(&as_text(&explanation))
    };
    match printed {
        Outcome::Done if explanation.code.is_some() => Outcome::Denied,
        printed => printed,
    }
}

fn as_text(explanation: &Explanation<'_>) -> String {
    let mut lines = vec![("decision", explanation.decision.to_owned())];
    lines.extend(explanation.only_with.map(|header| ("only with", header.to_owned())));
    if let (Some(code), Some(status)) = (explanation.code, explanation.status) {
        lines.push(("code", format!("{code} ({status})")));
    }
    lines.push(("rule", explanation.rule.clone()));
    lines.extend(explanation.allow.as_ref().map(|allow| ("allow", allow.clone())));
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
