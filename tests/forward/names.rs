//! Lost DNS packets, tested through the program and the resolver of the system.
//!
//! It needs a name server on port 53 and a `/etc/resolv.conf` of its own, and so the right to make a mount namespace. Where
//! there is none, the test says so and passes; `resolve` has the same rules with a resolver of the tests'.

use std::io::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::NamedTempFile;

use crate::cal_sim::Sim;
use crate::cal_sim::certificates::NAME;
use crate::cal_sim::options::{DEMO_API_KEY, Options};
use crate::harness::{Gateway, Key, Setup};

/// Answers 127.0.0.1 for every name (RFC 1035 §4.1), and loses packets as `is_lost` says by their number. Counts them all.
/// `None` where the test may not do that.
fn name_server(address: &str, is_lost: impl Fn(usize) -> bool + Send + 'static) -> Option<Arc<AtomicUsize>> {
    let can_mount = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    let Some(socket) = UdpSocket::bind((address, 53)).ok().filter(|_| can_mount) else {
        println!("skipped: no right to a mount namespace and to port 53");
        return None;
    };
    let packets = Arc::new(AtomicUsize::new(0));
    let counted = packets.clone();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            if !is_lost(counted.fetch_add(1, Ordering::SeqCst)) {
                let _ = socket.send_to(&answer(&packet[..length]), from);
            }
        }
    });
    Some(packets)
}

fn answer(question: &[u8]) -> Vec<u8> {
    // The name ends with an empty label; its type and class follow.
    let end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
    let is_a = question[end - 4..end - 2] == [0, 1];
    let mut answer = question[..end].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// A gateway in front of a cal-sim whose name only the name server at `address` knows.
fn gateway(sim: &Sim, key: &Key, address: &str, upstream: &str) -> (Gateway, [NamedTempFile; 2]) {
    let file = |text: &str| {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    };
    let (ca, resolv_conf) = (file(sim.ca_pem().unwrap()), file(&format!("nameserver {address}\n")));
    let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv_conf.path().display());
    let gateway = Setup::to(&format!("https://{NAME}:{}", sim.address().port()))
        .with(&format!("ca_file = \"{}\"\n{upstream}", ca.path().display()))
        .billing("teams", key)
        .env("CAL_TEST_KEY", DEMO_API_KEY)
        .env("HTTPS_PROXY", "")
        .env("https_proxy", "")
        .through(&["unshare", "-m", "sh", "-c", &mount, "sh"])
        .start();
    (gateway, [ca, resolv_conf])
}

fn sim() -> Sim {
    Sim::start(Options { tls: true, ..Options::default() }).unwrap()
}

#[test]
fn a_lost_dns_packet_costs_no_request() {
    // A and AAAA of the first lookup.
    let Some(packets) = name_server("127.0.0.153", |number| number < 2) else { return };
    let (sim, key) = (sim(), Key::new());
    // The resolver itself repeats a packet after 5 s.
    let (gateway, _files) = gateway(&sim, &key, "127.0.0.153", "[limits]\nupstream_lookup = \"4500ms\"");
    let answer = gateway.ask("GET /v2/me", &[&format!("X-Api-Key: {}", key.text)]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(packets.load(Ordering::SeqCst) >= 4);
}

#[test]
fn a_late_lookup_is_logged_once_with_the_time_that_was_waited() {
    let is_silent = Arc::new(AtomicBool::new(false));
    let silent = is_silent.clone();
    let Some(packets) = name_server("127.0.0.154", move |_| silent.load(Ordering::SeqCst)) else { return };
    let (sim, key) = (sim(), Key::new());
    let (gateway, _files) = gateway(&sim, &key, "127.0.0.154", "http2 = false");
    let own = format!("X-Api-Key: {}", key.text);
    assert_eq!(gateway.ask("GET /v2/me", &[&own]).status, 200);
    is_silent.store(true, Ordering::SeqCst);
    let known = packets.load(Ordering::SeqCst);
    // New connections look the name up again.
    gateway.signal("-HUP");
    gateway.wait_for_log("reconnecting to the upstream");
    let requests = || (0..8).map(|_| gateway.ask("GET /v2/me", &[&own]).status).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(requests)).collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), [200; 8]);
        }
    });
    assert!(packets.load(Ordering::SeqCst) > known, "the name was looked up again");
    let log = gateway.log();
    let late: Vec<_> = log.iter().filter(|line| line.contains("its last known addresses are used")).collect();
    assert_eq!(late.len(), 1, "{late:?}");
    assert!(late[0].contains("no answer within 500 ms (the wait where older addresses are known)"), "{late:?}");
}
