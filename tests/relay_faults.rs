//! Relays that die, lie, stall, alter what passes or can't be had: the job goes on by the other routes, nothing wrong is
//! ever stored, and where there is no other route the error says which relay it was and why.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::fake_relay::{FakeRelay, Then};
use common::job::*;
use common::judge::*;
use common::link::{Knobs, Link};
use common::relays::*;
use common::sender::*;
use common::yard::QUICK;
use common::*;

const SIZE: usize = 6 << 20;
const FLAGS: [&str; 6] = ["--length", "256K", "--thread_num", "1", "--process_num", "1"];

/// What each connection to the server carries a second.
const RATE: u64 = 3 << 20;

fn slowed(_: usize) -> Knobs {
    Knobs { rate: Some(RATE), ..Knobs::default() }
}

/// A port that nobody listens at.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A port at which each connection is told this, and kept.
fn port_that_says(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(bytes);
            kept.push(stream);
        }
    });
    port
}

// F09
#[test]
fn a_relay_that_is_killed_in_the_middle_costs_what_it_had_in_hand() {
    let source = large_tree(2 * SIZE);
    let mut ways = Ways::with(2, slowed);
    // What lies in the sockets of one relay can't go by another.
    let [link, other] = [0, 1].map(|index: usize| Link::narrow(ways.relays[index].recv.port, slowed));
    let via = format!("127.0.0.1:{},127.0.0.1:{}", link.port, other.port);
    let sender = Sender::start(&mut ways.send(source.path(), &[&FLAGS[..], &["--via", &via]].concat()));
    wait_until("the relay has carried something", || link.forth() > 1 << 19);
    ways.relays[0].recv.process.signal("KILL");
    let ended = sender.wait().expect(0);
    assert_kept_in(source.path(), &ways.server.path("in"), |_| false);
    let (sent, content) = (ways.link.forth(), 2 * SIZE as u64 + 3_200_000);
    assert!(sent < content + (3 << 20), "{sent} of {content}: {}", ended.json);
    let others = ["direct".to_owned(), format!("127.0.0.1:{}", other.port)];
    assert!(others.iter().all(|name| route(&ended, name).bytes > 0), "{}", ended.json);
    assert!(ended.said.contains(&format!("127.0.0.1:{}", link.port)) && ended.said.contains("others carry on"), "{}", ended.said);
    ways.relays.remove(0);
    ways.expect_idle();
}

// F09
#[test]
fn relays_that_can_not_be_had_or_keep_silent_or_lie_keep_nobody_from_the_direct_route() {
    let ways = Ways::with(0, slowed);
    let silent = FakeRelay::start(Then::Silent);
    let closing = FakeRelay::start(Then::Close);
    let speaking = FakeRelay::start(Then::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    let busy = FakeRelay::start(Then::Refuse("busy: too many jobs"));
    let refusing = FakeRelay::start(Then::Refuse("not for you"));
    for (port, why) in [
        (closed_port(), "refused"),
        (port_that_says(b""), ""),
        (port_that_says(b"\x16\x03garbage of any kind, and more of it than a record's header"), ""),
        (port_that_says(b"SSH-2.0-OpenSSH_9.6\r\n"), ""),
        (silent.port, ""),
        (closing.port, "clos"),
        (speaking.port, ""),
        (busy.port, "busy"),
        (refusing.port, "not for you"),
    ] {
        let source = large_tree(SIZE / 2);
        let name = format!("127.0.0.1:{port}");
        let begun = Instant::now();
        let command = &mut send_to(ways.link.port, source.path(), &name, &[&FLAGS[..], &["--via", &name]].concat());
        let ended = Ended::of(command).expect(0);
        assert!(begun.elapsed() < QUICK, "{name} ({why}) held it up for {:?}: {}", begun.elapsed(), ended.said);
        assert_same(source.path(), &ways.server.path(&name));
        let fared = route(&ended, &name);
        assert!(fared.bytes == 0 && fared.trouble.contains(why), "'{why}' is not in: {}", ended.json);
        assert_eq!(ended.number("failed"), 0);
    }
}

// F09
#[test]
fn a_relay_that_stalls_in_the_middle_is_not_waited_for() {
    let source = large_tree(SIZE);
    let mut ways = Ways::with(1, slowed);
    let link = Link::holding(ways.relays[0].recv.port, 700_000);
    let via = format!("127.0.0.1:{}", link.port);
    let begun = Instant::now();
    let ended = Ended::of(&mut ways.send(source.path(), &[&FLAGS[..], &["--via", &via]].concat())).expect(0);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    link.wait_until_it_holds();
    assert_kept_in(source.path(), &ways.server.path("in"), |_| false);
    assert_eq!(ended.number("failed"), 0);
    link.release();
    ways.expect_idle();
}

// F09, B08
#[test]
fn what_a_relay_alters_is_never_stored_and_goes_by_the_others() {
    for (what, knobs) in [
        ("content", Knobs { flip: Some(60_000), ..Knobs::default() }),
        ("the handshake of the server", Knobs { flip_answer: Some(1_300), ..Knobs::default() }),
        ("content later on", Knobs { flip: Some(400_000), ..Knobs::default() }),
    ] {
        let source = large_tree(SIZE);
        let ways = Ways::with(1, slowed);
        let link = Link::with(ways.relays[0].recv.port, move |_| knobs);
        let via = format!("127.0.0.1:{}", link.port);
        let ended = Ended::of(&mut ways.send(source.path(), &[&FLAGS[..], &["--via", &via]].concat())).expect(0);
        assert_kept_in(source.path(), &ways.server.path("in"), |_| false);
        assert_eq!((ended.number("failed"), leftovers(&ways.server.root)), (0, Vec::new()), "{what}: {}", ended.json);
        let reached = [(knobs.flip, link.forth()), (knobs.flip_answer, link.back())];
        assert!(reached.iter().all(|(flip, passed)| flip.is_none_or(|flip| flip < *passed)), "{what}: {}", ended.json);
    }
}

// F09, B08
#[test]
fn where_the_only_relay_alters_what_passes_the_run_fails_and_says_so() {
    let source = temp_dir();
    write(&source.path().join("large"), noise(SIZE, 1));
    let ways = Ways::new(1, None);
    let link = Link::with(ways.relays[0].recv.port, |_| Knobs { flip: Some(60_000), ..Knobs::default() });
    let via = format!("127.0.0.1:{}", link.port);
    let ended = Ended::of(&mut ways.send(source.path(), &["--via", &via, "--no_direct"])).expect(1);
    assert!(ended.said.contains(&format!("connections by {via} break again and again")), "{}", ended.said);
    assert!(!ways.server.path("in/large").exists());
    // What is left is verified: the run that goes on has no more to do than the rest.
    Ended::of(&mut ways.send(source.path(), &[])).expect(0);
    assert_same(source.path(), &ways.server.path("in"));
}

// F09, B12
#[test]
fn one_who_answers_in_place_of_the_server_is_not_trusted_and_others_carry_on() {
    let (source, roots, states) = (large_tree(SIZE / 2), [temp_dir(), temp_dir()], [temp_dir(), temp_dir()]);
    let (server, fingerprint) = recv_with_key(roots[0].path(), states[0].path(), 0);
    let (impostor, _) = recv_with_key(roots[1].path(), states[1].path(), 0);
    let fake = FakeRelay::start(Then::PassOn(impostor.port));
    let via = format!("127.0.0.1:{}", fake.port);
    let flags = [&FLAGS[..], &["--via", &via, "--bwlimit", "4M"]].concat();
    let ended = Ended::of(&mut send_to(server.port, source.path(), "in", &flags)).expect(0);
    assert_same(source.path(), &server.path("in"));
    let fared = route(&ended, &via);
    assert!(fared.bytes == 0 && fared.trouble.contains("key"), "{}", ended.json);
    assert!(ended.said.contains(&via) && ended.said.contains("others carry on"), "{}", ended.said);
    // The server is known by now; and it may be pinned.
    for pinned in [&[][..], &["--host_key", &fingerprint]] {
        let flags = [&["--via", &via, "--no_direct"], pinned].concat();
        let ended = Ended::of(&mut send_to(server.port, source.path(), "in", &flags)).expect(4);
        assert!(ended.said.contains(&via) && ended.said.contains("key"), "{}", ended.said);
    }
    assert_eq!(list(roots[1].path()), [""; 0]);
}

// F09
#[test]
fn a_relay_that_is_a_hundred_times_slower_does_not_hold_the_run_up() {
    let (source, len) = (temp_dir(), 4 * RATE);
    write(&source.path().join("large"), noise(usize::try_from(len).unwrap(), 1));
    let ways = Ways::with(1, slowed);
    let link = Link::narrow(ways.relays[0].recv.port, |_| Knobs { rate: Some(RATE / 100), ..Knobs::default() });
    let via = format!("127.0.0.1:{}", link.port);
    let alone = Instant::now();
    Ended::of(&mut ways.send(source.path(), &FLAGS)).expect(0);
    let alone = alone.elapsed();
    let flags = [&FLAGS[..], &["--via", &via]].concat();
    let both = Instant::now();
    let ended = Ended::of(&mut send_to(ways.link.port, source.path(), "again", &flags)).expect(0);
    let both = both.elapsed();
    assert_same(source.path(), &ways.server.path("again"));
    assert!(both < alone * 2 + Duration::from_secs(3), "{alone:?} alone, {both:?} with it: {}", ended.json);
    link.release();
}

// F09
#[test]
fn where_no_relay_can_be_had_and_nothing_else_is_wanted_the_error_names_it_and_the_cause() {
    let (source, root) = (large_tree(1000), temp_dir());
    let server = Recv::start(root.path());
    let (closed, mute) = (closed_port(), port_that_says(b"SSH-2.0-OpenSSH_9.6\r\n"));
    let silent = FakeRelay::start(Then::Silent);
    let closing = FakeRelay::start(Then::Close);
    for (port, why) in [(closed, "refused"), (mute, "does not answer"), (silent.port, ""), (closing.port, "")] {
        let (via, begun) = (format!("127.0.0.1:{port}"), Instant::now());
        let ended = Ended::of(&mut send_to(server.port, source.path(), "in", &["--via", &via, "--no_direct"])).expect(1);
        assert!(ended.said.contains(&format!("no way through relay {via}")) && ended.said.contains(why), "{}", ended.said);
        assert!(begun.elapsed() < 2 * QUICK, "{:?}", begun.elapsed());
    }
    // The server behind the relay is not there.
    let relay = Relay::to(&[closed], &[]);
    let ended = Ended::of(&mut send_to(closed, source.path(), "in", &["--via", &relay.name(), "--no_direct"])).expect(1);
    assert!(
        ended.said.contains(&relay.name()) && ended.said.contains(&format!("can't reach 127.0.0.1:{closed}")),
        "{}",
        ended.said
    );
    assert_eq!(list(root.path()), [""; 0]);
}

// E06, F09
#[test]
fn a_server_that_is_restarted_in_the_middle_is_reached_by_all_routes_again() {
    for direct in [&[][..], &["--no_direct"]] {
        let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
        make_job(source.path(), 2 * SIZE);
        let (mut server, _) = recv_with_key(root.path(), state.path(), 0);
        let link = Link::with(server.port, slowed);
        let relays = [Relay::to(&[link.port], &[]), Relay::to(&[link.port], &[])];
        let via = relays.iter().map(Relay::name).collect::<Vec<_>>().join(",");
        let flags = [&FLAGS[..], &["--via", &via], direct].concat();
        let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &flags));
        wait_until("a third has come", || incoming_bytes(&server.path("in")) > 2 * SIZE as u64 / 3);
        server.process.signal("KILL");
        server.process.wait();
        let (again, _) = recv_with_key(root.path(), state.path(), server.port);
        let ended = sender.wait().expect(0);
        assert_kept_in(source.path(), &again.path("in"), |_| false);
        assert_eq!((ended.number("failed"), leftovers(root.path())), (0, Vec::new()), "{}", ended.json);
    }
}

// F09: a pull loses nothing either.
#[test]
fn a_pull_goes_on_where_a_relay_dies_or_alters_what_it_passes() {
    for is_killed in [true, false] {
        let (source, target) = (large_tree(2 * SIZE), temp_dir());
        let mut ways = Ways::with(1, |_| Knobs { rate_answer: Some(RATE), ..Knobs::default() });
        assert_eq!(
            run(std::process::Command::new("cp").arg("-a").arg(source.path()).arg(ways.server.path("x"))).status.code(),
            Some(0)
        );
        let flip_answer = (!is_killed).then_some(400_000);
        let link = Link::with(ways.relays[0].recv.port, move |_| Knobs { flip_answer, ..Knobs::default() });
        let via = format!("127.0.0.1:{}", link.port);
        let flags = [&FLAGS[..], &["--via", &via]].concat();
        let puller = Sender::start(&mut ways.fetch("x", target.path(), &flags));
        wait_until("the relay has carried something", || link.back() > 300_000);
        if is_killed {
            ways.relays[0].recv.process.signal("KILL");
        }
        let ended = puller.wait().expect(0);
        assert_same(source.path(), target.path());
        assert_eq!((ended.number("failed"), leftovers(target.path())), (0, Vec::new()), "{}", ended.json);
        ways.server.expect_idle();
    }
}

// F09
#[test]
fn a_relay_that_is_killed_where_it_is_the_only_way_is_waited_for_and_used_again() {
    let (source, root) = (large_tree(SIZE), temp_dir());
    let server = Recv::start(root.path());
    let link = Link::with(server.port, slowed);
    let place = temp_dir();
    let start = |port: u16| {
        let (port, target) = (port.to_string(), format!("127.0.0.1:{}", link.port));
        let mut command = recv_command();
        command.args(["--port", &port, "--relay_to", &target, "--state_dir"]).arg(place.path().join("state"));
        recv_with_line(&mut command, Path::new(place.path())).0
    };
    let mut relay = start(0);
    let via = format!("127.0.0.1:{}", relay.port);
    let flags = [&FLAGS[..], &["--via", &via, "--no_direct"]].concat();
    let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &flags));
    wait_until("something has come", || link.forth() > 1 << 20);
    relay.process.signal("KILL");
    relay.process.wait();
    let _again = start(relay.port);
    sender.wait().expect(0);
    assert_kept_in(source.path(), &server.path("in"), |_| false);
}

#[test]
fn a_small_job_does_not_wait_for_a_first_route_that_leads_nowhere() {
    let ways = Ways::new(1, None);
    let place = temp_dir();
    let file = place.path().join("small");
    fs::write(&file, vec![7; 100_000]).unwrap();
    // The first is dead, and too little is to be done for a second connection.
    let via = format!("127.0.0.1:{},{}", closed_port(), ways.via());
    let ended = Ended::of(&mut ways.send(&file, &["--via", &via, "--no_direct", "--retry_for", "1h"])).expect(0);
    assert_eq!(fs::read(ways.root.path().join("in/small")).unwrap(), vec![7; 100_000]);
    assert!(ended.said.contains("others carry on"), "{}", ended.said);
}
