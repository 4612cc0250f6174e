//! Failures around a credential: lost responses, an unreachable upstream, wrong clocks, and a store that is damaged, full or
//! unavailable.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use super::rig::{OTHER_SEAL_KEY, Rig, SEAL_KEY, living, sim};
use crate::cal_sim::options::TokenRules;
use crate::harness::{Key, Postgres, Setup, Upstream, eventually};

#[test]
fn a_lost_response_is_recovered_or_reported() {
    for recover in [false, true] {
        let mut rig = Rig::new(living(3600));
        rig.platform = if recover { "recover = \"force-refresh\"" } else { "" };
        let ((user, _), (other, _)) = (rig.import_user(), rig.import_user());
        let gateway = rig.start();
        assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
        rig.sim.advance(Duration::from_secs(3601));
        rig.sim.lose_next_token_answers(1);
        if recover {
            eventually("recovery", || (rig.for_user(&gateway, user, "GET /v2/me").status == 200).then_some(()));
            assert_eq!(rig.sim.token_counts().force_refreshes, 1);
        } else {
            eventually("a name for it", || {
                let answer = rig.for_user(&gateway, user, "GET /v2/me");
                assert_eq!(answer.status, 503, "{}", answer.text());
                (rig.state(&format!("platform/{user}")) == "needs-login").then_some(())
            });
            assert!(gateway.ask_admin("GET /readyz", &[]).text().contains(&format!("platform/{user}: needs-login")));
        }
        assert_eq!(rig.for_user(&gateway, other, "GET /v2/me").status, 200);
    }
}

#[test]
fn a_lost_response_does_not_cost_an_oauth_grant() {
    let rig = Rig::new(living(4));
    rig.import_app();
    let gateway = rig.start();
    rig.sim.lose_next_token_answers(1);
    eventually("a renewal", || {
        assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200);
        (rig.sim.token_counts().oauth_refreshes >= 2).then_some(())
    });
}

#[test]
fn a_credential_survives_an_outage_longer_than_its_lifetime() {
    let rig = Rig::new(living(4));
    rig.import_app();
    let (user, _) = rig.import_user();
    let gateway = rig.start();
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    // A fresh token lives until its next renewal has failed at least once.
    let before = rig.sim.token_counts().oauth_refreshes;
    eventually("a renewal", || (rig.sim.token_counts().oauth_refreshes > before).then_some(()));
    rig.sim.set_down(true);
    let state = |name: &str, state: &str| {
        gateway.metric("calgate_credentials", &format!("credential=\"{name}\",state=\"{state}\"")) == 1
    };
    // The metric shows this state only while the token lives. A busy machine may miss that.
    let degraded = |line: &String| line.contains("its token works until it expires") && line.contains("\"app\"");
    eventually("degraded", || gateway.log().iter().any(degraded).then_some(()));
    let gone = eventually("no token", || Some(gateway.ask("GET /v2/me", &[])).filter(|answer| answer.status == 503));
    assert_eq!(gone.code(), Some("GATEWAY_CREDENTIAL_UNAVAILABLE"));
    assert!(gone.header("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() >= 1));
    assert!(state("app", "unavailable"));
    rig.sim.set_down(false);
    eventually("service", || (gateway.ask("GET /v2/me", &[]).status == 200).then_some(()));
    eventually("service", || (rig.for_user(&gateway, user, "GET /v2/me").status == 200).then_some(()));
    assert_eq!(rig.sim.token_counts().force_refreshes, 0);
}

#[test]
fn a_wrong_wall_clock_costs_at_most_one_renewal() {
    for offset in [-86_400_i64, -3600, 3600, 86_400] {
        let rig = Rig::new(living(1800));
        rig.import_app();
        let (user, _) = rig.import_user();
        let right = rig.start();
        assert_eq!(right.ask("GET /v2/me", &[]).status, 200);
        let wrong = rig.setup().env("CALGATE_CLOCK_OFFSET", &offset.to_string()).start();
        for gateway in [&wrong, &right, &wrong, &right] {
            assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200, "{offset}");
            assert_eq!(rig.for_user(gateway, user, "GET /v2/me").status, 200, "{offset}");
        }
        // The replica with the wrong clock may also store the next pair.
        rig.sim.advance(Duration::from_secs(1801));
        for gateway in [&wrong, &right, &wrong, &right] {
            assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200, "{offset}");
            assert_eq!(rig.for_user(gateway, user, "GET /v2/me").status, 200, "{offset}");
        }
        let counts = rig.sim.token_counts();
        assert!(counts.oauth_refreshes <= 3 && counts.managed_refreshes <= 3, "{offset}: {counts:?}");
        assert_eq!((counts.refused, counts.force_refreshes), (0, 0), "{offset}");
    }
}

#[test]
fn a_damaged_record_affects_one_credential_and_is_not_overwritten() {
    let mut rig = Rig::new(TokenRules::default());
    rig.import_app();
    rig.environment.push(("SEAL_KEY".to_owned(), OTHER_SEAL_KEY.to_owned()));
    let (user, _) = rig.import_user();
    let gateway = rig.start();
    let refused = gateway.ask("GET /v2/me", &[]);
    assert_eq!((refused.status, refused.code()), (503, Some("GATEWAY_CREDENTIAL_UNAVAILABLE")));
    assert!(gateway.wait_for_log("the stored record of `app` cannot be used").contains("token_store.seal_keys"));
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    assert_eq!(rig.state("app"), "damaged");
    let said = rig.refused(&["credentials", "import", "app"], "{\"access_token\":\"a\",\"refresh_token\":\"b\"}");
    assert!(said.contains("add that key"), "{said}");
    // The original seal key opens the record again.
    let place = std::mem::take(&mut rig.place);
    rig.place = format!("{place}\n");
    rig.environment.clear();
    assert_eq!(rig.state("app"), "fresh");
    assert_eq!(rig.ran(&["credentials", "forget", "app"], ""), "removed app\n");
    assert_eq!(rig.state("app"), "needs-login");
}

#[test]
fn records_without_a_configured_credential_are_listed_and_can_be_forgotten() {
    const CLIENT: &str = "[credentials.client]\nkind = \"platform-client\"\nclient_id = \"x\"\n\
        client_secret = { env = \"CLIENT_SECRET\" }\nplan = \"teams\"\n";
    let mut rig = Rig::new(TokenRules::default());
    let old = "managed_users = true\n[credentials.old]\nkind = \"oauth\"\nclient_id = \"x\"\nplan = \"teams\"\n";
    rig.platform = format!("{CLIENT}{old}").leak();
    let pair = "{\"access_token\":\"a\",\"refresh_token\":\"b\"}";
    rig.ran(&["credentials", "import", "old"], pair);
    rig.ran(&["credentials", "import", "client", "--managed-user", "7"], pair);
    rig.ran(&["credentials", "import", "client", "--managed-user", "8"], pair);
    let names = ["old", "client/7", "client/8"];
    assert_eq!(names.map(|name| rig.state(name)), ["fresh"; 3]);

    rig.platform = CLIENT;
    assert_eq!(names.map(|name| rig.state(name)), ["unused"; 3]);
    // The command also removes a record that no key opens.
    rig.environment.push(("SEAL_KEY".to_owned(), OTHER_SEAL_KEY.to_owned()));
    let said = rig.refused(&["store", "rekey"], "");
    assert!(said.contains("`calgate credentials forget old`"), "{said}");
    assert_eq!(rig.ran(&["credentials", "forget", "old"], ""), "removed old\n");
    let of_user = ["credentials", "forget", "client", "--managed-user", "7"];
    assert_eq!(rig.ran(&of_user, ""), "removed client/7\n");
    assert_eq!(rig.ran(&["credentials", "forget", "client/8"], ""), "removed client/8\n");
    assert_eq!(names.map(|name| rig.state(name)), ["none"; 3]);
    for name in ["old", "ap"] {
        let said = rig.refused(&["credentials", "forget", name], "");
        assert!(said.contains(&format!("unknown credential `{name}`")), "{said}");
    }
    assert_eq!(rig.ran(&["credentials", "forget", "app"], ""), "no record of app\n");
}

#[test]
fn an_invalid_store_causes_no_crash_loop() {
    let rig = Rig::new(TokenRules::default());
    rig.import_app();
    let whole = fs::read(rig.file()).unwrap();
    for damaged in [Vec::new(), whole[..4096].to_vec(), vec![b'x'; 20_000]] {
        fs::write(rig.file(), &damaged).unwrap();
        let gateway = rig.start();
        let refused = gateway.ask("GET /v2/me", &[]);
        assert_eq!((refused.status, refused.code()), (503, Some("GATEWAY_CREDENTIAL_UNAVAILABLE")));
        assert!(gateway.ask_admin("GET /readyz", &[]).text().contains("credential app: unavailable"));
        gateway.wait_for_log("the token store cannot be used");
        assert_eq!(fs::read(rig.file()).unwrap(), damaged);
        // The gateway uses the repaired store without a restart.
        fs::write(rig.file(), &whole).unwrap();
        eventually("service", || (gateway.ask("GET /v2/me", &[]).status == 200).then_some(()));
    }
}

/// Command that runs a program without the right of root to ignore file permissions.
const WITHOUT_OVERRIDE: [&str; 3] = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"];

/// Command that limits the file size of a program to 60 blocks of 512 bytes. A longer write fails and does not kill it.
const WITHOUT_ROOM: [&str; 4] = ["sh", "-c", "trap '' XFSZ; ulimit -f 60; exec \"$@\"", "sh"];

#[test]
fn with_a_read_only_store_valid_tokens_are_used_and_none_is_renewed() {
    for (through, what) in [(&WITHOUT_OVERRIDE[..], "readonly"), (&WITHOUT_ROOM[..], "full")] {
        let rig = Rig::new(living(4));
        rig.import_app();
        let folder = rig.file().parent().unwrap().to_owned();
        let closed = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        if what == "full" {
            // These records make the file longer than the limit.
            for user in 1000..1020 {
                let pair = format!("{{\"access_token\":\"{}\",\"expires_at\":9999999999}}", "x".repeat(3000));
                rig.ran(&["credentials", "import", "platform", "--managed-user", &user.to_string()], &pair);
            }
        } else {
            fs::set_permissions(rig.file(), fs::Permissions::from_mode(0o400)).unwrap();
            closed(0o500);
        }
        rig.sim.advance(Duration::from_secs(1));
        // Only root ignores file permissions.
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let through = if is_root || what == "full" { through } else { &["env"] };
        let gateway = rig.setup().through(through).start();
        let answer = eventually("no token", || Some(gateway.ask("GET /v2/me", &[])).filter(|a| a.status == 503));
        assert_eq!(answer.code(), Some("GATEWAY_CREDENTIAL_UNAVAILABLE"), "{what}");
        gateway.wait_for_log("the token store cannot be used");
        assert_eq!(rig.sim.token_counts().oauth_refreshes, 0, "{what}");
        drop(gateway);
        closed(0o700);
        fs::set_permissions(rig.file(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(rig.start().ask("GET /v2/me", &[]).status, 200, "{what}");
    }
}

#[test]
fn without_postgres_valid_tokens_are_used_and_none_is_renewed() {
    let server = Postgres::start();
    let mut rig = Rig::at(sim(living(10)));
    rig.place = "postgres = { env = \"DATABASE_URL\" }".to_owned();
    rig.environment.push(("DATABASE_URL".to_owned(), server.address()));
    let (user, _) = rig.import_user();
    let replicas = [rig.start(), rig.start(), rig.start()];
    let all = || replicas.iter().map(|gateway| rig.for_user(gateway, user, "GET /v2/me").status);
    assert!(all().all(|status| status == 200));
    server.stop();
    assert!(all().all(|status| status == 200), "tokens that are good serve on");
    eventually("no token", || all().all(|status| status == 503).then_some(()));
    assert_eq!(rig.sim.token_counts().managed_refreshes, 0);
    server.resume();
    eventually("service", || all().all(|status| status == 200).then_some(()));
    let counts = rig.sim.token_counts();
    assert_eq!((counts.refused, counts.force_refreshes), (0, 0), "{counts:?}");
}

#[test]
fn a_store_that_hangs_delays_neither_configured_keys_nor_the_shutdown() {
    // This store accepts connections and never replies.
    let store = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("postgresql://calgate@{}/postgres", store.local_addr().unwrap());
    let (upstream, key) = (Upstream::start(), Key::new());
    let setup = Setup::to(&upstream.base_url()).env("DATABASE_URL", &address).env("SEAL_KEY", SEAL_KEY);
    let place = "[token_store]\npostgres = { env = \"DATABASE_URL\" }\nseal_keys = [{ env = \"SEAL_KEY\" }]";
    let mut gateway = setup.with(place).billing("unrestricted", &key).start();
    let ask = || gateway.ask("GET /v2/me", &[&format!("X-Api-Key: {}", key.text)]).status;
    let given_up = || gateway.log().iter().any(|line| line.contains("the token store cannot be used"));
    assert_eq!((ask(), given_up()), (200, false), "served before the store is given up");
    gateway.wait_for_log("the token store cannot be used");
    assert_eq!(ask(), 200);
    gateway.signal("-TERM");
    assert_eq!(gateway.wait_for_exit(), Some(0));
    assert!(!gateway.log().iter().any(|line| line.contains("limits.drain is over")));
}
