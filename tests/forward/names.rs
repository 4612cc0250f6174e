//! A lost DNS packet, through the program and the system's own resolver.
//!
//! It needs a name server on port 53 and a `/etc/resolv.conf` of its own, and so the right to make a mount namespace. Where
//! there is none, the test says so and passes; `resolve` has the same rules with a resolver of the tests'.

use std::io::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cal_sim::Sim;
use crate::cal_sim::certificates::NAME;
use crate::cal_sim::options::{DEMO_API_KEY, Options};
use crate::harness::{Key, Setup};

const NAME_SERVER: &str = "127.0.0.153";

/// Answers 127.0.0.1 for every name (RFC 1035 §4.1), and loses the first `lost` packets. Counts them all.
fn name_server(lost: usize) -> Option<Arc<AtomicUsize>> {
    let socket = UdpSocket::bind((NAME_SERVER, 53)).ok()?;
    let packets = Arc::new(AtomicUsize::new(0));
    let counted = packets.clone();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            if counted.fetch_add(1, Ordering::SeqCst) >= lost {
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

#[test]
fn a_lost_dns_packet_costs_no_request() {
    let can_mount = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    // A and AAAA of the first lookup.
    let Some(packets) = name_server(2).filter(|_| can_mount) else {
        println!("skipped: no right to a mount namespace and to port 53");
        return;
    };
    let (sim, key) = (Sim::start(Options { tls: true, ..Options::default() }).unwrap(), Key::new());
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(sim.ca_pem().unwrap().as_bytes()).unwrap();
    let mut resolv_conf = tempfile::NamedTempFile::new().unwrap();
    writeln!(resolv_conf, "nameserver {NAME_SERVER}").unwrap();
    let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv_conf.path().display());
    let gateway = Setup::to(&format!("https://{NAME}:{}", sim.address().port()))
        // The resolver itself repeats a packet after 5 s.
        .with(&format!("ca_file = \"{}\"\n[limits]\nupstream_lookup = \"4500ms\"", ca.path().display()))
        .billing("teams", &key)
        .env("CAL_TEST_KEY", DEMO_API_KEY)
        .env("HTTPS_PROXY", "")
        .env("https_proxy", "")
        .through(&["unshare", "-m", "sh", "-c", &mount, "sh"])
        .start();
    let answer = gateway.ask("GET /v2/me", &[&format!("X-Api-Key: {}", key.text)]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(packets.load(Ordering::SeqCst) >= 4);
}
