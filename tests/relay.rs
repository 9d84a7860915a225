//! Connections that are passed on by other receivers: what goes by which route, how relays are named, and what one who
//! passes on can see of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail; what is skipped is named")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use common::fake_relay::*;
use common::judge::*;
use common::link::{Knobs, Link};
use common::puller::fetch_from;
use common::relays::*;
use common::sender::*;
use common::*;
use parallel_transfer::protocol::{Credential, Secret};

/// Enough for three routes of `RATE` to work for a second.
const SIZE: usize = 16 << 20;
const RATE: Option<u64> = Some(6 << 20);

/// Chunks small enough to be shared by all, and a connection by each route.
const FLAGS: [&str; 6] = ["--length", "256K", "--thread_num", "1", "--process_num", "1"];

fn small_file() -> (TempDir, std::path::PathBuf) {
    let place = temp_dir();
    let file = place.path().join("file");
    write(&file, noise(100_000, 7));
    (place, file)
}

/// Each route carried something, and nothing is wrong with any.
fn expect_all_used(ended: &Ended, relays: &[Relay]) {
    let used = routes(ended);
    let names: Vec<String> = used.iter().map(|route| route.name.clone()).collect();
    assert_eq!(names, ["direct".to_owned()].into_iter().chain(relays.iter().map(Relay::name)).collect::<Vec<_>>());
    for route in &used {
        assert!(route.bytes > 0 && route.connections > 0 && route.trouble.is_empty(), "{}: {}", route.name, ended.json);
    }
    assert!(used.iter().map(|route| route.bytes).sum::<u64>() >= SIZE as u64, "{}", ended.json);
}

#[test]
fn a_tree_goes_directly_and_through_two_relays_at_once_either_way() {
    let (source, target) = (large_tree(SIZE), temp_dir());
    let mut ways = Ways::new(2, RATE);
    let ended = Ended::of(&mut ways.send_by_all(source.path(), &FLAGS)).expect(0);
    assert_kept_in(source.path(), &ways.server.path("in"), |_| false);
    expect_all_used(&ended, &ways.relays);
    let via = ways.via();
    let flags = [&FLAGS[..], &["--via", &via]].concat();
    let ended = Ended::of(&mut ways.fetch("in", target.path(), &flags)).expect(0);
    assert_same(source.path(), target.path());
    expect_all_used(&ended, &ways.relays);
    ways.expect_idle();
}

#[test]
fn the_summary_says_what_each_route_carried_where_there_is_more_than_one() {
    let (ways, (_place, file)) = (Ways::new(1, None), small_file());
    let said = |command: &mut Command| text(&expect_code(command, 0).stdout);
    let relay = ways.relays[0].name();
    let by_one = said(&mut ways.send_by_all(&file, &["--no_direct"]));
    assert!(by_one.contains(&format!("by route: {relay}: 97.66 KiB")), "{by_one}");
    let by_two = said(&mut ways.fetch("in/file", &temp_dir().path().join("to"), &["--via", &relay]));
    assert!(by_two.contains("by route: direct: ") && by_two.contains(&format!(", {relay}: ")), "{by_two}");
    let straight = said(&mut ways.send(&file, &["--plain"]));
    assert!(!straight.contains("by route"), "{straight}");
}

#[test]
fn without_a_direct_route_all_goes_through_relays() {
    let source = large_tree(SIZE / 4);
    let mut ways = Ways::new(2, RATE);
    for (flag, remote) in [("--no_direct", "in"), ("--no-direct", "in")] {
        let ended = Ended::of(&mut ways.send_by_all(source.path(), &[&FLAGS[..], &[flag]].concat())).expect(0);
        assert_eq!(routes(&ended).iter().map(|route| &route.name).collect::<Vec<_>>(), ways.via().split(',').collect::<Vec<_>>());
        assert_kept_in(source.path(), &ways.server.path(remote), |_| false);
    }
    let target = temp_dir();
    Ended::of(&mut ways.fetch("in", target.path(), &["--via", &ways.via(), "--no_direct"])).expect(0);
    assert_same(source.path(), target.path());
    ways.expect_idle();
    let log: String = ways.relays.iter().map(|relay| relay.recv.process.log()).collect();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn relays_stand_in_a_row_up_to_four() {
    let ((_place, file), root) = (small_file(), temp_dir());
    let mut server = Recv::start(root.path());
    let mut relays = vec![Relay::to(&[server.port], &[])];
    for _ in 0..2 {
        let before = relays[0].recv.port;
        relays.insert(0, Relay::to(&[before], &[]));
    }
    let names: Vec<String> = relays.iter().map(Relay::name).collect();
    for count in [2, 3] {
        let via = names[3 - count..].join("/");
        let target = format!("by {count}");
        let ended = Ended::of(&mut send_to(server.port, &file, &target, &["--via", &via, "--no_direct"])).expect(0);
        assert_eq!(routes(&ended)[0].name, via);
        assert_eq!(fs::read(&file).unwrap(), fs::read(server.path(&target).join("file")).unwrap());
    }
    let five = [&names[..], &names[..2]].concat().join("/");
    let output = run(&mut send_to(server.port, &file, "in", &["--via", &five]));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("at most 4 relays in a row"), "{}", text(&output.stderr));
    server.expect_idle();
    relays.iter_mut().for_each(|relay| relay.recv.expect_idle());
}

/// A relay at any address of this machine.
fn relay_at(address: &str, port: u16, to: &str) -> (Running, u16) {
    let root = temp_dir();
    let mut command = recv_command();
    command.args(["--addr", address, "--port", &port.to_string(), "--relay-to", to, "--root"]).arg(root.path());
    let process = Running::start(&mut command);
    let at = process.first_line.split([' ', ',']).nth(2).unwrap();
    let port = at.rsplit(':').next().unwrap().parse().unwrap();
    (process, port)
}

#[test]
fn relays_and_servers_are_named_by_address_or_name_with_a_port_or_without() {
    let ((_place, file), root) = (small_file(), temp_dir());
    let server = Recv::start(root.path());
    let port = server.port;
    let arrives = |name: &str, via: &str| {
        let mut command = send_command();
        command.args(["--server", name, "--port", &port.to_string(), "--via", via, "--no_direct", "--remote_dir"]);
        Ended::of(command.arg(format!("{name} {via}")).arg("--file").arg(&file)).expect(0);
        assert!(server.path(&format!("{name} {via}/file")).exists());
    };
    // The port of a relay is that of the server where none is said.
    let (_same_port, _) = relay_at("127.0.0.2", port, &format!("127.0.0.1:{port}"));
    arrives("127.0.0.1", "127.0.0.2");
    // Who has a name covers its addresses.
    let (_named, named) = relay_at("127.0.0.1", 0, &format!("LocalHost:{port}"));
    arrives("127.0.0.1", &format!("localhost:{named}"));
    arrives("localhost", &format!("127.0.0.1:{named}"));
    if TcpListener::bind("[::1]:0").is_ok() {
        let (_v6, v6) = relay_at("::1", 0, &format!("127.0.0.1:{port}"));
        arrives("127.0.0.1", &format!("[::1]:{v6}"));
    } else {
        println!("SKIPPED: no IPv6 here");
    }
}

#[test]
fn a_name_is_no_address_that_was_allowed_and_the_refusal_says_what_to_allow() {
    let ((_place, file), root) = (small_file(), temp_dir());
    let server = Recv::start(root.path());
    let relay = Relay::to(&[server.port], &[]);
    let mut command = send_command();
    command.args(["--server", "localhost", "--port", &server.port.to_string(), "--via", &relay.name(), "--no_direct"]);
    let ended = Ended::of(command.arg("--file").arg(&file).args(["--remote_dir", "in"])).expect(4);
    let way_out = format!("--relay_to localhost:{}", server.port);
    assert!(ended.said.contains(&relay.name()) && ended.said.contains(&way_out), "{}", ended.said);
    assert_eq!(list(root.path()), [""; 0]);
}

// F09
#[test]
fn a_relay_is_asked_for_the_addresses_of_a_ticket_in_turn_until_it_reaches_one() {
    let (_place, file) = small_file();
    for (allowed, code, why) in [
        (&["127.0.0.77", "127.0.0.1"][..], 0, ""),
        (&["127.0.0.1"], 0, ""),
        // One that may be reached another time counts for more than one that never is.
        (&["127.0.0.77"], 1, "can't reach 127.0.0.77:"),
        (&["127.0.0.78"], 4, "start this receiver with --relay_to 127.0.0.77:"),
    ] {
        let (place, roots) = (temp_dir(), [temp_dir(), temp_dir()]);
        let (server, ticket) = recv_once(roots[0].path());
        let targets: Vec<String> = allowed.iter().map(|address| format!("{address}:{}", server.port)).collect();
        let named = targets.iter().flat_map(|target| ["--relay_to", target]);
        let relay = Recv::start_with(roots[1].path(), &named.collect::<Vec<_>>());
        let via = format!("127.0.0.1:{}", relay.port);
        let ticket = ticket.replacen("127.0.0.1", "127.0.0.77,127.0.0.1", 1);
        let ended = Ended::of(&mut send_ticket(place.path(), &ticket, &file, &["--via", &via, "--no_direct"])).expect(code);
        assert_eq!(server.path("in/file").exists(), code == 0, "{allowed:?}: {}", ended.said);
        assert!(ended.said.contains(why), "{allowed:?}: {}", ended.said);
    }
}

#[test]
fn what_names_no_relay_is_refused_before_anything_begins() {
    let (_place, file) = small_file();
    for (flags, code, why) in [
        (&["--via", "::x"][..], 2, "::x"),
        (&["--via", "host:0"], 2, "a port is from 1 to 65535"),
        (&["--via", "a//b"], 2, "1 to 255 characters"),
        (&["--via", "a/b/c/d/e"], 2, "at most 4 relays in a row"),
        (&["--no_direct"], 1, "--via"),
        (&["--via", "127.0.0.1:9", "--plain"], 1, "--plain"),
        (&["--via", "127.0.0.1:9", "--protocol", "v1"], 1, "--protocol v1"),
        (&["--via_ticket_file", "/nowhere"], 1, "'/nowhere'"),
        (&["--bind", "127.0.0.1", "--no_direct"], 2, "--bind"),
    ] {
        let output = expect_code(&mut send_to(9, &file, "in", flags), code);
        let said = text(&output.stderr);
        assert!(said.contains(why), "{flags:?}: {said}");
    }
    for (target, why) in [("127.0.0.1", "a port is needed"), ("::1:9", "a port is needed"), ("", "HOST:PORT")] {
        let output = expect_code(recv_command().args(["--port", "0", "--relay_to", target]), 2);
        assert!(text(&output.stderr).contains(why), "{target}: {}", text(&output.stderr));
    }
    let output = expect_code(recv_command().args(["--port", "0", "--relay_only"]), 2);
    assert!(text(&output.stderr).contains("--relay_to"), "{}", text(&output.stderr));
}

// E15
#[test]
fn a_file_of_configuration_names_targets_and_a_reload_adds_and_removes_them() {
    let ((_place, file), folder) = (small_file(), temp_dir());
    let roots = [temp_dir(), temp_dir()];
    let servers = [0, 1].map(|index: usize| Recv::start(roots[index].path()));
    let [first, second] = [0, 1].map(|index: usize| format!("127.0.0.1:{}", servers[index].port));
    let config = folder.path().join("etc/recv.toml");
    write(&config, format!("relay_to = [\"{first}\"]\n"));
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let relay = Recv::start_with(&root, &["--config", config.to_str().unwrap(), "-v"]);
    let via = format!("127.0.0.1:{}", relay.port);
    let code = |index: usize| {
        let flags = ["--via", &via, "--no_direct"];
        run(&mut send_to(servers[index].port, &file, "in", &flags)).status.code()
    };
    assert_eq!([code(0), code(1)], [Some(0), Some(4)]);
    for (reload, (targets, codes)) in [
        (format!("\"{first}\", \"{second}\""), [Some(0), Some(0)]),
        (format!("\"{second}\""), [Some(4), Some(0)]),
        // A file that is wrong changes nothing.
        ("\"nothing\"".to_owned(), [Some(4), Some(0)]),
    ]
    .into_iter()
    .enumerate()
    {
        write(&config, format!("relay_to = [{targets}]\n"));
        relay.process.signal("HUP");
        let done = || relay.process.log().matches("the configuration was read again").count();
        let undone = || relay.process.log().matches("the old configuration stays").count();
        wait_until("it has read the file again", || done() + undone() > reload);
        assert_eq!([code(0), code(1)], codes, "{targets}: {}", relay.process.log());
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

// What a relay passes on is what it got: nothing is taken off, and nothing is put around it.
#[test]
fn a_relay_sees_ciphertext_only_and_nothing_is_encrypted_twice() {
    let (place, state) = (temp_dir(), temp_dir());
    let secret = "the content of this file is nobody's business\n".repeat(3000);
    write(&place.path().join("source/a name that nobody is to see"), &secret);
    for name in ["alice", "bob"] {
        expect_code(&mut accounts::user(state.path(), &["add", name], "a password of hers"), 0);
    }
    let service = accounts::Service::start_in(state, temp_dir(), &[]);
    let keeping = |port| Link::with(port, |_| Knobs { keeps: true, ..Knobs::default() });
    let beyond = keeping(service.recv.port);
    let relay = Relay::to(&[beyond.port], &[]);
    let before = keeping(relay.recv.port);
    let via = format!("127.0.0.1:{}", before.port);
    let mut command =
        send_to(beyond.port, &place.path().join("source"), "in", &["--via", &via, "--no_direct", "--user", "alice"]);
    command.env("PTF_PASSWORD", "a password of hers");
    Ended::of(&mut command).expect(0);
    assert_same(&place.path().join("source"), &service.home(1).join("in"));

    let (outer, inner) = (before.kept(), beyond.kept());
    assert!(inner.len() >= 2 && inner.len() == outer.len(), "{} and {}", outer.len(), inner.len());
    assert!(inner.iter().map(|ways| ways[0].len()).sum::<usize>() > secret.len());
    for ways in &inner {
        // A record of a handshake, of any version before the one that is spoken.
        assert_eq!(ways[0][..2], [0x16, 3]);
        let is_it = |leg: &&link::Kept| (0..2).all(|way| leg[way].ends_with(&ways[way]));
        let leg = outer.iter().find(is_it).expect("on both sides of the relay the same bytes");
        // The relay's own TLS: a handshake, a request and its answer, and no more of it.
        for way in 0..2 {
            let own = leg[way].len() - ways[way].len();
            assert!((200..4000).contains(&own), "{own} bytes before the grant");
        }
    }
    let all: Vec<u8> = inner.iter().chain(&outer).flatten().flatten().copied().collect();
    for open in ["nobody's business", "a name that nobody", "alice", "a password of hers", "PTF", "127.0.0.1"] {
        assert!(!contains(&all, open.as_bytes()), "{open}");
    }
}

fn connects(recv: &Recv) -> Vec<String> {
    recv.process
        .log()
        .lines()
        .filter(|line| line.contains("connect") && !line.contains("disconnect"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_job_goes_from_several_addresses_of_this_machine() {
    let (source, root) = (large_tree(SIZE), temp_dir());
    let mut server = Recv::start_with(root.path(), &["--audit", "--log_format", "json"]);
    let flags = [&FLAGS[..], &["--bind", "127.0.0.1,127.0.0.2", "--bwlimit", "12M"]].concat();
    let ended = Ended::of(&mut send_to(server.port, source.path(), "in", &flags)).expect(0);
    assert_kept_in(source.path(), &server.path("in"), |_| false);
    for name in ["127.0.0.1", "127.0.0.2"] {
        assert!(route(&ended, name).bytes > 0, "{}", ended.json);
        let from = format!("\"peer\":\"{name}:");
        wait_until("the server says who came", || connects(&server).iter().any(|line| line.contains(&from)));
    }
    assert_eq!(routes(&ended).len(), 2, "no other: {}", ended.json);
    server.expect_idle();
}

#[test]
fn an_address_that_nothing_can_start_from_is_named_and_the_others_are_used() {
    let (source, root) = (large_tree(SIZE / 4), temp_dir());
    let server = Recv::start(root.path());
    let alone = |bind: &str| Ended::of(&mut send_to(server.port, source.path(), "in", &["--bind", bind]));
    for (bind, why) in [("192.0.2.1", "can't start from 192.0.2.1"), ("::1", "another IP version"), ("nosuch0", "nosuch0")] {
        let ended = alone(bind).expect(1);
        assert!(ended.said.contains(why), "{bind}: {}", ended.said);
        let both = format!("127.0.0.1,{bind}");
        let ended = Ended::of(&mut send_to(server.port, source.path(), bind, &["--bind", &both, "--bwlimit", "4M"])).expect(0);
        assert_same(source.path(), &server.path(bind));
        assert_eq!(route(&ended, bind).bytes, 0);
        assert!(route(&ended, bind).trouble.contains(why), "{}", ended.json);
    }
    let ended = alone("lo");
    if ended.code == Some(0) {
        assert_same(source.path(), &server.path("in"));
    } else {
        assert!(ended.said.contains("can't start from lo"), "{}", ended.said);
        println!("SKIPPED: this user may not choose an interface");
    }
}

// F10
#[test]
fn the_port_of_a_relay_is_one_of_a_receiver_that_serves_its_own_files_as_well() {
    let ((_place, file), ways) = (small_file(), Ways::new(1, None));
    let relay = &ways.relays[0];
    Ended::of(&mut send_to(relay.recv.port, &file, "own", &[])).expect(0);
    assert!(relay.recv.path("own/file").exists());
    let to = temp_dir();
    Ended::of(&mut fetch_from(relay.recv.port, "own/file", to.path(), &[])).expect(0);
    assert_eq!(fs::read(&file).unwrap(), fs::read(Path::new(to.path()).join("file")).unwrap());
    // And nothing of what it passes on lands with it.
    Ended::of(&mut ways.send_by_all(&file, &["--no_direct"])).expect(0);
    assert_eq!(list(relay.root.path()), ["own", "own/file"]);
}

/// A shell on a port of 127.0.0.1.
fn shell(port: u16, local: &Path, flags: &[&str]) -> Command {
    let mut command = send_command();
    command.args(["shell", "--server", "127.0.0.1", "--port", &port.to_string(), "--process_num", "1"]).args(flags);
    command.current_dir(local);
    command
}

#[test]
fn a_shell_and_its_transfers_go_through_relays_that_are_logged_in_to_once() {
    let (root, local) = (temp_dir(), temp_dir());
    make_tree(&local.path().join("tree"));
    let recv = Recv::start(root.path());
    let relay = FakeRelay::start(Then::PassOn(recv.port));
    let via = format!("ana@127.0.0.1:{}", relay.port);
    // It is taken, and nobody listens.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = nobody.local_addr().unwrap().as_socket().unwrap().port();
    for no_direct in [&["--no_direct"][..], &[]] {
        let flags = ["--via", &via, "--via_password_file", "-", "-c", "put tree; mv tree there; get there; ls"];
        let mut command = shell(port, local.path(), &[&flags, no_direct].concat());
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        // There is nothing to be read a second time.
        child.stdin.take().unwrap().write_all(b"pw of ana\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("there"), "{}", text(&output.stdout));
        assert_same(&local.path().join("tree"), &local.path().join("there"));
        assert_same(&local.path().join("tree"), &root.path().join("there"));
        for folder in [local.path(), root.path()] {
            fs::remove_dir_all(folder.join("there")).unwrap();
        }
    }
    let password = Secret::from(b"pw of ana".to_vec());
    let ana = Credential::Password { user: b"ana".to_vec(), password };
    let shown = relay.shown();
    assert!(shown.len() >= 6 && shown.iter().all(|credential| *credential == ana), "{} connections", shown.len());
}

#[test]
fn a_shell_takes_the_flags_of_routes_as_send_does() {
    let (root, local) = (temp_dir(), temp_dir());
    write(&root.path().join("file"), "x");
    let recv = Recv::start(root.path());
    let relay = Relay::to(&[recv.port], &[]);
    let get = |flags: &[&str]| shell(recv.port, local.path(), &[&["-c", "get file"], flags].concat());
    for (flags, code, why) in [
        (&["--via", &relay.name(), "--no_direct"][..], 0, ""),
        (&["--bind", "127.0.0.1"], 0, ""),
        (&["--bind", "192.0.2.1"], 1, "can't start from 192.0.2.1"),
        (&["--no_direct"], 1, "name relays with --via"),
        (&["--via", &relay.name(), "--plain"], 1, "through a relay only encrypted connections go"),
        (&["--no_direct", "--bind", "127.0.0.1"], 2, "cannot be used with"),
    ] {
        let said = text(&expect_code(&mut get(flags), code).stderr);
        assert!(said.contains(why), "{flags:?}: {said}");
        assert_eq!(local.path().join("file").exists(), code == 0, "{flags:?}");
        let _ = fs::remove_file(local.path().join("file"));
    }
    let (via, file) = (format!("ana@{}", relay.name()), ["--via_password_file", "-"]);
    let said = text(&expect_code(&mut shell(recv.port, local.path(), &[&["--via", &via], &file[..]].concat()), 1).stderr);
    assert!(said.contains("standard input can't hold both"), "{said}");
}
