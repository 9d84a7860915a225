//! Who may have connections passed on, to where and how much: accounts and tickets of relays, what a relay refuses, its
//! limits, and its log.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::accounts::*;
use common::fake_relay::{FakeRelay, Then};
use common::guest::*;
use common::link::{Knobs, Link};
use common::metrics::{metrics_port, numbers};
use common::puller::fetch_from;
use common::relays::*;
use common::sender::*;
use common::*;
use parallel_transfer::client::{self, Login};
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::net::host::HostPort;
use parallel_transfer::net::tls;
use parallel_transfer::protocol::v2::{MAGIC, VERSIONS, reply, request};
use parallel_transfer::protocol::{Credential, Features, Open, Purpose, Reply, Status, Token};
use parallel_transfer::stop::Stop;

const FLAGS: [&str; 6] = ["--length", "256K", "--thread_num", "1", "--process_num", "1"];

/// A server, and a relay with accounts that leads there.
struct Account {
    server: Recv,
    relay: Service,
    source: TempDir,
    _root: TempDir,
}

impl Account {
    fn new(flags: &[&str], len: usize) -> Self {
        let root = temp_dir();
        let server = Recv::start(root.path());
        let relay = Service::start(&[&["--relay_to", &format!("127.0.0.1:{}", server.port)], flags].concat());
        Self { server, relay, source: large_tree(len), _root: root }
    }

    /// Through the relay alone, as alice.
    fn send(&self, flags: &[&str]) -> Command {
        let via = format!("alice@127.0.0.1:{}", self.relay.recv.port);
        send_to(self.server.port, self.source.path(), "in", &[&["--via", &via, "--no_direct"], flags].concat())
    }

    fn name(&self) -> String {
        format!("127.0.0.1:{}", self.relay.recv.port)
    }
}

fn password_file(place: &Path, password: &str) -> PathBuf {
    let file = place.join(password);
    write(&file, format!("{password}\n"));
    file
}

#[test]
fn a_relay_with_accounts_wants_a_login_of_its_own() {
    let (account, place) = (Account::new(&[], 1000), temp_dir());
    let file = password_file(place.path(), "pw of alice");
    let arrives = |command: &mut Command| {
        Ended::of(command).expect(0);
        assert_same(account.source.path(), &account.server.path("in"));
        fs::remove_dir_all(account.server.path("in")).unwrap();
    };
    arrives(&mut account.send(&["--via_password_file", file.to_str().unwrap()]));
    arrives(&mut account.send(&["--via-password-file", file.to_str().unwrap()]));
    arrives(account.send(&[]).env("PTF_VIA_PASSWORD", "pw of alice"));
    let line = text(&expect_code(send_command().arg("key").env("XDG_CONFIG_HOME", place.path()), 0).stdout);
    account.relay.user(&["key", "add", "alice", line.trim()]);
    arrives(account.send(&[]).env("XDG_CONFIG_HOME", place.path()));
    // What is for the server is for nobody else.
    let ended = Ended::of(account.send(&[]).env("PTF_PASSWORD", "pw of alice"));
    assert_ne!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains(&account.name()) || ended.said.contains("password"), "{}", ended.said);
    let mut nobody = send_to(account.server.port, account.source.path(), "in", &["--via", &account.name(), "--no_direct"]);
    let ended = Ended::of(&mut nobody).expect(4);
    assert!(ended.said.contains(&account.name()), "{}", ended.said);
    assert!(!account.server.path("in").exists());
}

// B14
#[test]
fn a_wrong_password_for_a_relay_is_named_and_costs_that_route_alone() {
    let account = Account::new(&[], 3 << 20);
    let wrong = |flags: &[&str]| {
        let mut command = account.send(flags);
        command.env("PTF_VIA_PASSWORD", "guess");
        command
    };
    let ended = Ended::of(&mut wrong(&[])).expect(4);
    assert!(ended.said.contains(&account.name()) && ended.said.contains("wrong name"), "{}", ended.said);
    let via = format!("alice@{}", account.name());
    let mut both = send_to(account.server.port, account.source.path(), "in", &[&FLAGS[..], &["--via", &via]].concat());
    let ended = Ended::of(both.args(["--bwlimit", "4M"]).env("PTF_VIA_PASSWORD", "guess")).expect(0);
    assert_same(account.source.path(), &account.server.path("in"));
    let fared = route(&ended, &account.name());
    assert!(fared.bytes == 0 && fared.trouble.contains("wrong name"), "{}", ended.json);
    // Each run shows it once, however many connections it would have.
    let log = account.relay.recv.process.log();
    assert_eq!(log.matches("not logged in: wrong password").count(), 2, "{log}");
}

// B14
#[test]
fn a_wrong_password_for_a_relay_is_shown_once_whatever_addresses_a_ticket_has() {
    let (account, root, place) = (Account::new(&[], 1000), temp_dir(), temp_dir());
    let (_server, ticket) = recv_once(root.path());
    let ticket = ticket.replacen("127.0.0.1", "127.0.0.77,127.0.0.1", 1);
    let via = format!("alice@{}", account.name());
    let mut command = send_ticket(place.path(), &ticket, account.source.path(), &["--via", &via, "--no_direct"]);
    let ended = Ended::of(command.env("PTF_VIA_PASSWORD", "guess")).expect(4);
    assert!(ended.said.contains("wrong name"), "{}", ended.said);
    let log = account.relay.recv.process.log();
    assert_eq!(log.matches("not logged in: wrong password").count(), 1, "{log}");
}

// B17
#[test]
fn a_relay_that_listens_to_nobody_at_an_address_for_a_while_is_tried_again() {
    let (root, place) = (temp_dir(), temp_dir());
    let server = Recv::start(root.path());
    let link = Link::narrow(server.port, |_| Knobs { rate: Some(2 << 20), ..Knobs::default() });
    let config = place.path().join("etc/recv.toml");
    write(&config, "login_tries = 1\n");
    let relay = Service::start(&["--relay_to", &format!("127.0.0.1:{}", link.port), "--config", config.to_str().unwrap()]);
    let mut guess = Guest::greeted(&relay);
    guess.send(&open_for(Purpose::Relay, "alice", "a guess", new_token()));
    assert!(guess.refusal().contains("wrong name"));
    let account = Account { server, relay, source: large_tree(8 << 20), _root: root };
    let sender = under_way(&account, &link, &[]);
    wait_until("nobody listens to it", || sender.said().contains("too many tries from your address"));
    write(&config, "login_tries = 100\n");
    account.relay.recv.process.signal("HUP");
    let ended = sender.wait().expect(0);
    assert_same(account.source.path(), &account.server.path("in"));
    assert!(route(&ended, &account.name()).bytes > 0, "{}\n{}", ended.json, ended.said);
}

#[test]
fn who_was_too_slow_to_join_a_job_hears_that_it_may_try_again() {
    let (recv, key, _root) = known_relay(&["--relay_to", "127.0.0.1:9", "--login_timeout", "300ms"]);
    let mut slow = Guest::try_greeted_by(&key, recv.port).unwrap();
    assert_eq!(slow.refusal(), "busy: the time to join a job is over");
}

#[test]
fn a_relay_is_shown_what_is_for_it_and_nothing_that_is_for_the_server() {
    let (service, source) = (Service::start(&[]), large_tree(1000));
    let fake = FakeRelay::start(Then::PassOn(service.recv.port));
    for (user, shown) in [("carol@", Some("for the relay")), ("", None)] {
        let via = format!("{user}127.0.0.1:{}", fake.port);
        let mut command = service.send_as("alice", "pw of alice", source.path(), &["--via", &via, "--no_direct"]);
        Ended::of(command.env("PTF_VIA_PASSWORD", "for the relay")).expect(0);
        assert!(!fake.shown().is_empty());
        for credential in fake.shown() {
            match (credential, shown) {
                (Credential::Password { user, password }, Some(shown)) => {
                    assert_eq!((&user[..], password.as_bytes()), (&b"carol"[..], shown.as_bytes()));
                }
                (Credential::None, None) | (Credential::Password { .. }, None) => {}
                (other, _) => panic!("{other:?}"),
            }
        }
    }
    assert!(fake.shown().contains(&Credential::None));
    assert_same(source.path(), &service.home(1).join("in"));
}

#[test]
fn a_ticket_opens_a_relay_for_one_job() {
    let (source, roots, place) = (large_tree(1 << 20), [temp_dir(), temp_dir()], temp_dir());
    let server = Recv::start(roots[0].path());
    let target = format!("127.0.0.1:{}", server.port);
    let (relay, line) = recv_with_line(recv_command().args(["--port", "0", "--once", "--relay_to", &target]), roots[1].path());
    let file = place.path().join("ticket");
    write(&file, line.strip_prefix("ticket ").unwrap());
    for flag in ["--via_ticket_file", "--via-ticket-file"] {
        let flags = [flag, file.to_str().unwrap(), "--no_direct"];
        let mut command = send_to(server.port, source.path(), "in", &flags);
        if flag == "--via_ticket_file" {
            let ended = Ended::of(&mut command).expect(0);
            assert_eq!(routes(&ended)[0].name, format!("127.0.0.1:{}", relay.port));
            assert_same(source.path(), &server.path("in"));
        } else {
            // It was for one job.
            let ended = Ended::of(&mut command).expect(4);
            assert!(ended.said.contains(&format!("no way through relay 127.0.0.1:{}", relay.port)), "{}", ended.said);
        }
    }
    assert_eq!(list(roots[1].path()), [""; 0]);
}

#[test]
fn a_ticket_is_for_a_run_that_has_something_passed_on_and_then_the_relay_ends() {
    let (source, roots, place) = (large_tree(1 << 20), [temp_dir(), temp_dir()], temp_dir());
    let server = Recv::start(roots[0].path());
    let target = format!("127.0.0.1:{}", server.port);
    let start = || {
        let mut command = recv_command();
        let (relay, line) = recv_with_line(command.args(["--port", "0", "--once", "--relay_to", &target]), roots[1].path());
        write(&place.path().join("ticket"), line.strip_prefix("ticket ").unwrap());
        relay
    };
    let flags = ["--via_ticket_file", place.path().join("ticket").to_str().unwrap(), "--no_direct"].map(str::to_owned);
    let send = |port: u16| send_to(port, source.path(), "in", &flags.each_ref().map(String::as_str));
    let mut relay = start();
    // A mistake costs nobody the ticket.
    let ended = Ended::of(&mut send(9)).expect(4);
    assert!(ended.said.contains("--relay_to 127.0.0.1:9"), "{}", ended.said);
    Ended::of(&mut send(server.port)).expect(0);
    assert_same(source.path(), &server.path("in"));
    let ended = Ended::of(&mut send(server.port)).expect(4);
    assert!(ended.said.contains("begun already"), "{}", ended.said);
    // Nobody says that the run is over: told to stop while it waits whether more comes, it has done what it was for.
    relay.process.signal("TERM");
    assert_eq!(relay.process.wait(), Some(0), "{}", relay.process.log());
    // Before the run it has not.
    let mut relay = start();
    Ended::of(&mut send(9)).expect(4);
    relay.process.signal("TERM");
    assert_eq!(relay.process.wait(), Some(130), "{}", relay.process.log());
}

#[test]
fn a_receiver_that_only_relays_serves_no_files_by_name_of_that() {
    let (source, mut ways) = (large_tree(1000), Ways::new(0, None));
    for flag in ["--relay_only", "--relay-only"] {
        let relay = Relay::to(&[ways.link.port], &[flag]);
        write(&relay.root.path().join("there"), "there");
        let port = relay.recv.port;
        let why = "this receiver serves no files (--relay_only)";
        let ended = Ended::of(&mut send_to(port, source.path(), "in", &[])).expect(4);
        assert!(ended.said.contains(why), "{}", ended.said);
        let ended = Ended::of(&mut fetch_from(port, "there", temp_dir().path(), &[])).expect(4);
        assert!(ended.said.contains(why), "{}", ended.said);
        let mut shell = send_command();
        shell.args(["shell", "--server", "127.0.0.1", "--port", &port.to_string(), "-c", "ls"]);
        let output = expect_code(&mut shell, 4);
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
        assert_ne!(run(&mut send_v1(port, source.path(), "in", &["--retry_for", "0s"])).status.code(), Some(0));
        relay.recv.process.wait_for_log("relay_only");
        assert_eq!(list(relay.root.path()), ["there"]);
        let flags = ["--via", &relay.name(), "--no_direct"];
        Ended::of(&mut ways.send(source.path(), &flags)).expect(0);
        assert_same(source.path(), &ways.server.path("in"));
    }
    ways.expect_idle();
}

fn frame(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

fn open(purpose: Purpose) -> Vec<u8> {
    frame(|bytes| request::encode_open(bytes, &Open::plain(new_token(), purpose)))
}

fn relay_to(port: u16) -> Vec<u8> {
    frame(|bytes| request::encode_relay(bytes, &format!("127.0.0.1:{port}")))
}

/// A relay in a process of its own whose key is known.
fn known_relay(flags: &[&str]) -> (Recv, String, TempDir) {
    let root = temp_dir();
    let (recv, line) = recv_with_line(recv_command().args(["--port", "0"]).args(flags), root.path());
    (recv, line.strip_prefix("host key ").unwrap().to_owned(), root)
}

// B04
#[test]
fn what_is_not_asked_for_as_it_should_be_is_not_passed_on() {
    let root = temp_dir();
    let server = Recv::start(root.path());
    let target = format!("127.0.0.1:{}", server.port);
    let (mut recv, key, _root) = known_relay(&["--relay_to", &target]);
    let refused = |opened: &[u8], asked: &[u8], why: &str| {
        let mut guest = Guest::try_greeted_by(&key, recv.port).unwrap();
        assert!(matches!(guest.ask(opened), Some(Reply::Opened { .. })));
        let said = match guest.ask(asked) {
            Some(Reply::Refused(said)) => said,
            Some(Reply::Answer(answer)) if answer.status == Status::Refused => answer.reason,
            other => panic!("no refusal but {other:?}"),
        };
        assert!(said.contains(why), "no '{why}' in: {said}");
    };
    let port = server.port;
    refused(&open(Purpose::Bring), &relay_to(port), "opened for that");
    refused(&open(Purpose::Browse), &relay_to(port), "opened for that");
    refused(&open(Purpose::Relay), &relay_to(9), "--relay_to 127.0.0.1:9");
    refused(&open(Purpose::Relay), &frame(|bytes| request::encode_relay(bytes, "nonsense")), "a port is needed");
    refused(&open(Purpose::Relay), &frame(request::encode_space), "only has connections passed on");
    let make =
        frame(|bytes| request::encode_make_directory(bytes, &parallel_transfer::path::RemotePath::parse(b"x").unwrap(), false));
    refused(&open(Purpose::Relay), &make, "only has connections passed on");
    // What follows before that was granted is for nobody.
    refused(&open(Purpose::Relay), &[relay_to(port), b"early".to_vec()].concat(), "after that was granted");
    let mut early = Guest::try_greeted_by(&key, recv.port).unwrap();
    early.send(&relay_to(port));
    assert!(early.refusal().contains("before a job was joined"));
    recv.expect_idle();

    // In clear nobody is passed on.
    let hello = frame(|bytes| request::encode_hello(bytes, VERSIONS, Features::OURS));
    let answers = recv.raw(&[&MAGIC[..], &hello, &open(Purpose::Relay), &relay_to(port)].concat());
    let (mut at, mut last) = (0, None);
    while let Some((reply, len)) = reply::decode(&answers[at..]).unwrap() {
        (at, last) = (at + len, Some(reply));
    }
    assert!(matches!(&last, Some(Reply::Refused(why)) if why.contains("encrypted")), "{last:?}");
    assert_eq!(server.process.log().matches("conn").count(), 0, "nobody was passed on");
    recv.expect_idle();

    let (plain, key, _root) = known_relay(&[]);
    let mut guest = Guest::try_greeted_by(&key, plain.port).unwrap();
    guest.send(&open(Purpose::Relay));
    assert!(guest.refusal().contains("--relay_to"));
}

/// A dialer through a relay, which is trusted by its key, to a server with another.
fn dialer(relay: &Service, login: Login, server_port: u16, server_key: &str) -> Dialer {
    let pinned = |key: &str| Some(tls::Client::pinned(key.parse().unwrap()).unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], relay.recv.port));
    let near = Dialer::to_addresses(vec![address], PATIENCE, Duration::ZERO).with_tls(pinned(&relay.host_key));
    let host = HostPort::new("127.0.0.1", server_port).unwrap();
    client::through(vec![host], "the relay".to_owned(), near, login).unwrap().with_tls(pinned(server_key))
}

// F10, B18
#[test]
fn a_token_is_as_good_through_a_relay_as_it_is_elsewhere_and_no_better() {
    let server = Service::start(&[]);
    let relay = Service::start(&["--relay_to", &format!("127.0.0.1:{}", server.recv.port)]);
    let bob = || Login::Password { user: "bob".to_owned(), password: b"pw of bob".to_vec().into() };
    let by_relay = dialer(&relay, bob(), server.recv.port, &server.host_key);
    let token = new_token();
    let mut alice = Guest::opened(&server, "alice", token);
    let mut second = Guest::try_greeted_over(&by_relay).unwrap();
    assert!(matches!(second.ask(&join(token)), Some(Reply::Answer(_))), "bob of the relay is nobody to the server");
    // What bob is to the relay opens nothing at the server, where his password is the same here.
    let mut other = Guest::try_greeted_over(&by_relay).unwrap();
    other.send(&open_as("bob", "pw of bob", token));
    assert!(other.refusal().contains("another session has this token"));
    assert!(matches!(alice.ask(&frame(request::encode_finish)), Some(Reply::Finished(_))));
    let mut late = Guest::try_greeted_over(&by_relay).unwrap();
    late.send(&join(token));
    assert!(late.refusal().contains("has ended"));

    // A session of the relay's is its account's.
    let token = new_token();
    let mut first = Guest::greeted(&relay);
    assert!(matches!(first.ask(&open_for(Purpose::Relay, "alice", "pw of alice", token)), Some(Reply::Opened { .. })));
    let mut thief = Guest::greeted(&relay);
    thief.send(&open_for(Purpose::Relay, "bob", "pw of bob", token));
    assert!(thief.refusal().contains("another session has this token"));
    let mut nobody = Guest::greeted(&relay);
    let unknown = frame(|bytes| request::encode_open(bytes, &Open::plain(Token([9; 32]), Purpose::Relay)));
    nobody.send(&[unknown, relay_to(server.recv.port)].concat());
    assert!(nobody.refusal().contains("--user"));
}

/// A run through a relay as alice, and directly, in the middle.
fn under_way(account: &Account, link: &Link, flags: &[&str]) -> Sender {
    let via = format!("alice@{}", account.name());
    let mut command = send_to(link.port, account.source.path(), "in", &[&FLAGS[..], &["--via", &via], flags].concat());
    Sender::start(command.env("PTF_VIA_PASSWORD", "pw of alice"))
}

fn relays_connections(account: &Account) -> usize {
    account.relay.recv.process.threads().iter().filter(|name| name.starts_with("conn")).count()
}

// B20
#[test]
fn an_account_that_is_locked_has_nothing_passed_on_within_two_seconds_and_others_carry_on() {
    let root = temp_dir();
    let server = Recv::start(root.path());
    let link = Link::narrow(server.port, |_| Knobs { rate: Some(2 << 20), ..Knobs::default() });
    let relay = Service::start(&["--relay_to", &format!("127.0.0.1:{}", link.port)]);
    let account = Account { server, relay, source: large_tree(10 << 20), _root: root };
    let sender = under_way(&account, &link, &[]);
    wait_until("something went through the relay", || account.relay.recv.process.log().contains("outcome=granted"));
    account.relay.user(&["lock", "alice"]);
    let locked = Instant::now();
    wait_until("nothing is passed on any more", || relays_connections(&account) == 0);
    assert!(locked.elapsed() < Duration::from_secs(3), "{:?}", locked.elapsed());
    let ended = sender.wait().expect(0);
    assert_same(account.source.path(), &account.server.path("in"));
    assert!(route(&ended, &account.name()).trouble.contains("wrong name"), "{}", ended.json);
}

// B20
#[test]
fn an_account_that_is_locked_has_nothing_passed_on_to_a_server_that_stands_still() {
    let account = Account::new(&[], 8 << 20);
    let mut command = account.send(&[&FLAGS[..], &["--bwlimit", "1M"]].concat());
    let sender = Sender::start(command.env("PTF_VIA_PASSWORD", "pw of alice"));
    wait_until("something arrives", || account.server.path("in").exists());
    account.server.process.signal("STOP");
    account.relay.user(&["lock", "alice"]);
    let locked = Instant::now();
    wait_until("nothing is passed on any more", || {
        relays_connections(&account) == 0 || locked.elapsed() > Duration::from_secs(6)
    });
    let took = locked.elapsed();
    account.server.process.signal("CONT");
    drop(sender);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

// E15
#[test]
fn a_relay_that_is_told_to_stop_ends_although_a_server_stands_still() {
    let root = temp_dir();
    let server = Recv::start(root.path());
    let mut relay = Relay::to(&[server.port], &["--drain", "1s"]);
    let source = large_tree(8 << 20);
    let via = relay.name();
    let flags = [&FLAGS[..], &["--via", &via, "--no_direct", "--bwlimit", "1M"]].concat();
    let sender = Sender::start(&mut send_to(server.port, source.path(), "in", &flags));
    wait_until("something arrives", || server.path("in").exists());
    server.process.signal("STOP");
    relay.recv.process.signal("TERM");
    let told = Instant::now();
    wait_until("it ends", || !relay.recv.process.is_alive() || told.elapsed() > Duration::from_secs(10));
    let took = told.elapsed();
    server.process.signal("CONT");
    drop(sender);
    assert!(took < Duration::from_secs(6), "{took:?}");
}

// E15
#[test]
fn a_relay_that_is_told_to_stop_passes_on_more_of_a_job_that_goes_on_and_nothing_of_new_ones() {
    let server = Service::start(&[]);
    let mut relay = Service::start(&["--relay_to", &format!("127.0.0.1:{}", server.recv.port)]);
    let by = |name: &str| {
        let login = Login::Password { user: name.to_owned(), password: format!("pw of {name}").into_bytes().into() };
        dialer(&relay, login, server.recv.port, &server.host_key)
    };
    let goes_on = by("alice");
    let first = Guest::try_greeted_over(&goes_on).unwrap();
    relay.recv.process.signal("TERM");
    // Each dialer is a run of its own, also of one who has connections passed on.
    for name in ["alice", "bob"] {
        wait_until("nothing new is passed on", || {
            let refused = by(name).dial(&Stop::new().unwrap()).err().map(|error| format!("{:#}", anyhow::Error::from(error)));
            refused.is_some_and(|why| why.contains("busy: this receiver is stopping"))
        });
    }
    let mut second = Guest::try_greeted_over(&goes_on).expect("a further connection of a job that goes on");
    let opened = second.ask(&open_as("bob", "pw of bob", new_token()));
    assert!(matches!(opened, Some(Reply::Opened { .. })), "{opened:?}");
    drop((first, second));
    assert_eq!(relay.recv.process.wait(), Some(0), "{}", relay.recv.process.log());
}

#[test]
fn the_rates_of_a_relay_hold_for_what_it_passes_on() {
    for flags in [&["--bwlimit", "2M"][..], &["--bwlimit_account", "2M"]] {
        let account = Account::new(flags, 4 << 20);
        let begun = Instant::now();
        let mut command = account.send(&FLAGS);
        Ended::of(command.env("PTF_VIA_PASSWORD", "pw of alice")).expect(0);
        // 7 MiB and a burst at the start.
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(2000) && took < Duration::from_secs(20), "{flags:?}: {took:?}");
        assert_same(account.source.path(), &account.server.path("in"));
    }
}

// B19, E14
#[test]
fn the_limits_of_a_relay_hold_for_connections_that_it_passes_on() {
    let account = Account::new(&["--max_per_account", "2"], 1000);
    let server = Service::start(&[]);
    let relay = &account.relay;
    let alice = || Login::Password { user: "alice".to_owned(), password: b"pw of alice".to_vec().into() };
    let by_relay = dialer(relay, alice(), account.server.port, &key_of(&account.server));
    let first = Guest::try_greeted_over(&by_relay).unwrap();
    let second = Guest::try_greeted_over(&by_relay).unwrap();
    assert!(Guest::try_greeted_over(&by_relay).is_none(), "a third");
    relay.recv.process.wait_for_log("busy");
    drop((first, second, server));
    wait_until("there is room again", || Guest::try_greeted_over(&by_relay).is_some());
}

/// The key of a receiver, as it says it.
fn key_of(recv: &Recv) -> String {
    wait_until("it says its key", || recv.process.more_lines().iter().any(|line| line.starts_with("host key ")));
    recv.process.more_lines().iter().find_map(|line| line.strip_prefix("host key ").map(str::to_owned)).unwrap()
}

#[test]
fn what_is_passed_on_is_in_the_audit_trail_and_counted() {
    let root = temp_dir();
    let server = Recv::start(root.path());
    let flags = ["--audit", "--log_format", "json", "--metrics", "0"];
    let mut relay = Relay::to(&[server.port], &flags);
    let source = large_tree(1 << 20);
    Ended::of(&mut send_to(server.port, source.path(), "in", &["--via", &relay.name(), "--no_direct"])).expect(0);
    Ended::of(&mut send_to(9, source.path(), "in", &["--via", &relay.name(), "--no_direct"])).expect(4);
    let metrics = metrics_port(&relay.recv);
    let relayed = numbers(metrics)["ptf_bytes_relayed_total"];
    relay.recv.expect_idle();
    let log = relay.recv.process.log();
    let objects: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let acts = |outcome: &str| {
        let is_one = |object: &&serde_json::Value| object["event"] == "relay" && object["outcome"] == outcome;
        objects.iter().filter(is_one).collect::<Vec<_>>()
    };
    let (granted, ended, refused) = (acts("granted"), acts("ended"), acts("refused"));
    let target = format!("127.0.0.1:{}", server.port);
    assert!(granted.len() >= 2 && granted.len() == ended.len(), "{log}");
    assert!(granted.iter().chain(&ended).all(|act| act["path"] == target.as_str() && act["session"].is_u64()), "{log}");
    let bytes: u64 = ended.iter().map(|act| act["bytes"].as_u64().unwrap()).sum();
    assert!(bytes as f64 == relayed && bytes > 4 << 20, "{bytes} and {relayed}");
    assert_eq!(refused.len(), 1);
    assert!(refused[0]["path"] == "127.0.0.1:9" && refused[0]["reason"].as_str().unwrap().contains("--relay_to"), "{log}");
}
