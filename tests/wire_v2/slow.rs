//! Those who take their time. The login's deadline is ten seconds: all of them wait for it at once.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use parallel_transfer::protocol::Status;
use parallel_transfer::protocol::v2::MAGIC;

use crate::client::*;
use crate::common::yard::{QUICK, Yard};
use crate::common::*;

/// When a login is over.
const DEADLINE: Range<Duration> = Duration::from_secs(9)..Duration::from_secs(14);

/// Says these bytes, then one of the others each second; gives what was answered, and when it ended.
fn trickle(recv: &Recv, first: &[u8], others: &[u8]) -> (Vec<u8>, Duration) {
    let mut stream = recv.connect();
    let start = Instant::now();
    stream.write_all(first).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut answer = Vec::new();
    let took = thread::scope(|scope| {
        scope.spawn(move || {
            for byte in others {
                thread::sleep(Duration::from_secs(1));
                if writer.write_all(&[*byte]).is_err() || start.elapsed() > DEADLINE.end {
                    break;
                }
            }
        });
        // Bounded too: a deadline that is missed is to be seen, not waited for.
        stream.set_read_timeout(Some(DEADLINE.end)).unwrap();
        let _ = stream.read_to_end(&mut answer);
        let took = start.elapsed();
        let _ = stream.shutdown(Shutdown::Both);
        took
    });
    (answer, took)
}

// E02, B18
#[test]
fn a_login_that_takes_too_long_is_cut_at_its_deadline_and_nobody_else_notices() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let recv = &yard.recv;
    // A record of TLS that is long in coming, and the frames of a hello.
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 40]].concat();
    let unknown = new_token();
    let rows: [(&str, Vec<u8>, Vec<u8>, &str); 6] = [
        ("a hello in TLS, byte by byte", tls[..1].to_vec(), tls[1..].to_vec(), ""),
        ("nothing after the first byte of TLS", tls[..1].to_vec(), Vec::new(), ""),
        ("a hello, byte by byte", MAGIC.to_vec(), hello()[4..].to_vec(), "time to join a job is over"),
        ("nothing after a hello", hello(), Vec::new(), "time to join a job is over"),
        ("a job that nobody opens", [hello(), join_frame(unknown)].concat(), Vec::new(), "knows no such job"),
        ("a part of the first four bytes", MAGIC[..1].to_vec(), Vec::new(), ""),
    ];
    thread::scope(|scope| {
        for (what, first, others, words) in &rows {
            scope.spawn(move || {
                let (answer, took) = trickle(recv, first, others);
                assert!(DEADLINE.contains(&took), "{what}: after {took:?}");
                assert!(text(&answer).contains(words), "{what} was answered {:?}", text(&answer));
            });
        }
    });
    bystander.expect_well(&mut yard);
}

// E02
#[test]
fn a_body_that_makes_slow_progress_is_served_and_one_that_stops_is_given_up() {
    let root = temp_dir();
    let recv = Recv::start_with(root.path(), &["--stall_timeout", "500ms"]);
    let token = new_token();
    let mut holder = Client::with(&recv, &open(token));
    let bytes = put("slow", &noise(2000, 1));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::joined(&recv, token);
            for piece in bytes.chunks(bytes.len().div_ceil(12)) {
                client.send(piece);
                // Longer in all than a stall, and shorter each.
                thread::sleep(Duration::from_millis(150));
            }
            assert_eq!(client.status(), Status::Published);
        });
        for cut in [3, 40, 100, 1500] {
            let stopped = put("stopped", &noise(2000, 2))[..cut].to_vec();
            let recv = &recv;
            scope.spawn(move || {
                let mut client = Client::joined(recv, token);
                client.send(&stopped);
                let start = Instant::now();
                while client.reply().is_some() {}
                assert!(start.elapsed() < QUICK, "{cut} bytes: after {:?}", start.elapsed());
            });
        }
    });
    // Silent for longer than a stall between two frames, it is served.
    assert_eq!(holder.ask(&put("late", b"late")), Status::Published);
    holder.finish_well();
    drop(holder);
    assert_eq!(list(&recv.path("in")), ["late", "slow"]);
    assert!(fs::read(recv.path("in/slow")).unwrap() == noise(2000, 1));
}
