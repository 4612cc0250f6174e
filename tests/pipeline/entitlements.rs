//! Tests of every operation under every built-in plan. Denied requests do not reach Cal.com.

use std::fmt::Write as _;

use crate::entitle::decisions::{Decision, table};
use crate::harness::{Key, Setup, Upstream};

#[test]
fn decides_every_operation_for_every_plan_as_in_the_table() {
    let table = table();
    let plans: Vec<_> = table[0].decisions.iter().map(|(plan, _)| (*plan, Key::new())).collect();
    let mut config = "[budget]\nmode = \"off\"\n[tiers.roomy]\nrequests_per_minute = 100000\n".to_owned();
    for (plan, key) in &plans {
        // A credential of both kinds, so that only the plan decides.
        let _ = write!(
            config,
            "[credentials.{plan}]\nkind = \"platform-client\"\nclient_id = \"client\"\n\
             client_secret = {{ env = \"CAL_SECRET\" }}\napi_key = {{ env = \"CAL_KEY\" }}\nplan = \"{plan}\"\n\
             [consumers.{plan}]\nkeys = [\"{}\"]\ncredential = \"{plan}\"\ntier = \"roomy\"\n",
            key.hash
        );
    }
    let upstream = Upstream::start();
    let gateway = Setup::to(&upstream.base_url())
        .with(&config)
        .env("CAL_SECRET", "secret-0123456789")
        .env("CAL_KEY", "cal_test_0123456789")
        .start();
    let (mut connection, mut allowed) = (gateway.connect(), Vec::new());
    for row in &table {
        let (method, template) = row.operation.split_once(' ').unwrap();
        let path: Vec<_> = template.split('/').map(|part| if part.starts_with('{') { "7" } else { part }).collect();
        let request = format!("{method} {}", path.join("/"));
        for ((plan, decision), (_, key)) in row.decisions.iter().zip(&plans) {
            let answer = connection.ask(&request, &[&format!("X-Api-Key: {}", key.text)]);
            let expected = match decision {
                Decision::Allow => (200, None),
                Decision::DenyPlan => (403, Some("GATEWAY_NOT_ENTITLED")),
                Decision::DenyCredential => (403, Some("GATEWAY_CREDENTIAL_OPERATION")),
            };
            assert_eq!((answer.status, answer.code()), expected, "{} for {plan}", row.operation);
            if *decision == Decision::Allow {
                allowed.push(format!("{request} HTTP/1.1"));
            }
        }
    }
    assert_eq!(table.len(), 272 + 68);
    let reached: Vec<_> = upstream.requests().into_iter().map(|asked| asked.request_line).collect();
    assert_eq!(reached, allowed);
}
