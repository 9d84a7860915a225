//! `recv` as a service: its configuration file, signals, what passes between it and the service manager, its fence.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail; what is skipped is named")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::link::Link;
use common::mount::can;
use common::sender::{Ended, Sender};
use common::*;

/// A folder with a configuration file, and a root beside it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let place = Self { folder: temp_dir() };
        fs::create_dir(place.root()).unwrap();
        write(&place.config(), config);
        place
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("etc/recv.toml")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = recv_command();
        command.arg("--config").arg(self.config()).current_dir(self.root()).args(flags);
        command
    }

    /// A receiver on a free port, which says all that it does.
    fn start(&self, flags: &[&str]) -> Recv {
        Recv::start_with(&self.root(), &[&["-v", "--config", self.config().to_str().unwrap()], flags].concat())
    }
}

/// What it says of a file that it does not start with.
fn refusal(config: &str) -> String {
    let place = Place::new(config);
    let output = expect_code(&mut place.command(&["--port", "0"]), 2);
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr).replace(place.config().to_str().unwrap(), "FILE")
}

// F03
#[test]
fn a_configuration_file_says_what_flags_would() {
    let place = Place::new(
        "# a comment\nport = 0\naddr = '127.0.0.1'\nroot = \".\"\nallow = ['203.0.113.0/24', '2001:db8::1']\n\
         stall-timeout = \"90s\"\nmax_connections = 1_0\ndrain = 3\nonce = false\nverbose = 1\n",
    );
    let mut process = Running::start(&mut place.command(&[]));
    assert!(process.first_line.starts_with("listening on 127.0.0.1:"), "{}", process.first_line);
    assert!(process.first_line.ends_with(&format!("root {}", place.root().display())), "{}", process.first_line);
    process.wait_for_log("DEBUG");
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
}

// F03
#[test]
fn a_configuration_file_that_makes_no_sense_is_refused_with_the_line() {
    for (config, words) in [
        ("port = 1\nstal_timeout = '1m'\n", &["FILE", "line 2", "stal_timeout", "'stall_timeout' is the nearest"][..]),
        ("\n\nzzz = 1", &["line 3", "there is no 'zzz'"]),
        ("config = 'x'", &["line 1", "there is no 'config'"]),
        ("help = true", &["line 1", "there is no 'help'"]),
        ("[server]\nport = 1", &["line 1", "there is no 'server'"]),
        ("drain = true", &["line 1", "'drain': a string or a whole number"]),
        ("drain = 1.5", &["line 1", "'drain': a string or a whole number"]),
        ("\ndrain = ['1s']", &["line 2", "'drain': a string or a whole number"]),
        ("drain = {a = 1}", &["line 1", "'drain': a string or a whole number"]),
        ("once = 'yes'", &["line 1", "'once': true or false"]),
        ("verbose = -1", &["line 1", "'verbose': a number from 0 to 255"]),
        ("drain = 'soon'", &["line 1", "--drain", "'soon' is no unit of time"]),
        ("max_connections = 'many'", &["line 1", "--max_connections"]),
        ("port = 65536", &["line 1", "65536"]),
        ("allow = [\n'10.0.0.0/8',\n'10.0.0.0/99',\n]", &["line 3", "10.0.0.0/99"]),
        ("quiet = true\nverbose = 1\n", &["--quiet", "cannot be used with"]),
        ("port = 1\nport = 2", &["line 2", "duplicate key"]),
        ("stall_timeout = 1\nstall-timeout = 2", &["line 2", "is on line 1, too"]),
        ("port = ", &["line 1"]),
        ("port = 1\nroot = 'open\n", &["line 2"]),
        ("port", &["line 1"]),
        ("\u{feff}drain = 'soon'", &["line 1"]),
    ] {
        let said = refusal(config);
        for word in words {
            assert!(said.contains(word), "no '{word}' for {config:?} in: {said}");
        }
        assert!(said.starts_with("error: config file 'FILE': "), "{said}");
    }
}

// F03
#[test]
fn a_configuration_file_that_can_not_be_read_is_named() {
    let place = Place::new("");
    for (content, words) in
        [(Some(b"a = '\xff'".to_vec()), "not UTF-8"), (Some(vec![b'#'; 2 << 20]), "bytes"), (None, "No such file")]
    {
        match content {
            Some(content) => write(&place.config(), content),
            None => fs::remove_file(place.config()).unwrap(),
        }
        let said = text(&expect_code(&mut place.command(&["--port", "0"]), 2).stderr);
        assert!(said.contains(words) && said.contains("recv.toml"), "{said}");
    }
    let said = text(&expect_code(recv_command().args(["incoming", "list", "--config", "x"]), 2).stderr);
    assert!(said.contains("--config"), "{said}");
    let said = text(&expect_code(&mut recv_command(), 2).stderr);
    assert!(said.contains("--port"), "{said}");
}

// F03
#[test]
fn a_flag_on_the_command_line_beats_the_file() {
    let place = Place::new("port = 1\nroot = '/nowhere'\nquiet = true\nallow = ['10.0.0.0/8']\n");
    let mut recv = place.start(&[]);
    // It is loud where the file wants it quiet, and on another port and root.
    recv.process.wait_for_log("DEBUG");
    recv.expect_idle();
}

/// Two connections, of which one is served at most: the first, which has spoken.
fn crowd(recv: &Recv) -> (std::net::TcpStream, std::net::TcpStream) {
    let mut first = recv.connect();
    first.write_all(&cd("first")).unwrap();
    assert_eq!(read_bytes(&first, 1), b"0");
    let mut second = recv.connect();
    second.write_all(&cd("second")).unwrap();
    (first, second)
}

// E15
#[test]
fn a_hang_up_reads_the_configuration_again_and_a_bad_one_changes_nothing() {
    let place = Place::new("max_connections = 1\n");
    let mut recv = place.start(&[]);
    let (_first, second) = crowd(&recv);
    write(&place.config(), "max_connections = 2\ndrian = 1\n");
    recv.process.signal("HUP");
    recv.process.wait_for_log("line 2: there is no 'drian'; 'drain' is the nearest");
    recv.process.wait_for_log("the old configuration stays");
    assert!(!recv.path("second").exists());
    // Another file in its place, as editors and tools leave it.
    write(&place.config().with_extension("new"), "max_connections = 2\nstate_dir = '/elsewhere'\nport = 9\n");
    fs::rename(place.config().with_extension("new"), place.config()).unwrap();
    recv.process.signal("HUP");
    assert_eq!(read_bytes(&second, 1), b"0");
    recv.process.wait_for_log("the configuration was read again");
    recv.process.wait_for_log("'state_dir' stays as it was at the start");
    assert!(!recv.process.log().contains("'port' stays"), "the command line has a word on that");
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());
}

// E15
#[test]
fn a_hang_up_changes_what_is_logged() {
    let place = Place::new("");
    let recv = Recv::start_with(&place.root(), &["--config", place.config().to_str().unwrap()]);
    let closed = |name: &str| {
        let _ = recv.raw(&cd(name));
        recv.process.log()
    };
    assert!(!closed("a").contains("DEBUG"));
    write(&place.config(), "verbose = true");
    recv.process.signal("HUP");
    recv.process.wait_for_log("read again");
    closed("b");
    recv.process.wait_for_log("connected");
    write(&place.config(), "quiet = true");
    recv.process.signal("HUP");
    // What is wrong is said all the same, and comes after.
    wait_until("it is quiet", || {
        let (before, after) = (recv.process.log().len(), closed("c").len());
        before == after
    });
    write(&place.config(), "quiet = maybe");
    recv.process.signal("HUP");
    recv.process.wait_for_log("the old configuration stays");
}

// E15
#[test]
fn a_hang_up_without_a_configuration_changes_nothing() {
    let root = temp_dir();
    let mut recv = Recv::start(root.path());
    recv.process.signal("HUP");
    recv.process.wait_for_log("SIGHUP");
    assert_eq!(recv.raw(&cd("x")), b"0");
    recv.expect_idle();
}

/// A relay that holds a large file in the middle.
fn hold_a_job(recv: &Recv, source: &Path) -> (Link, Sender) {
    write(&source.join("large"), noise(6 << 20, 3));
    let link = Link::holding(recv.port, 1 << 20);
    let sender = Sender::start(&mut send_to(link.port, source, "in", &["--length", "1M", "--thread_num", "2"]));
    link.wait_until_it_holds();
    (link, sender)
}

// E15
#[test]
fn a_job_that_is_under_way_may_end_after_the_signal_and_new_ones_are_refused_by_name() {
    let (source, root) = (temp_dir(), temp_dir());
    let mut recv = Recv::start_with(root.path(), &["--drain", "1h"]);
    let (link, sender) = hold_a_job(&recv, source.path());
    let silent = recv.connect();
    recv.process.signal("TERM");
    assert_eq!(raw(&silent, b""), b"");
    let late = Ended::of(&mut send_to(recv.port, source.path(), "late", &["--retry_for", "1s"])).expect(4);
    assert!(late.said.contains("this receiver is stopping"), "{}", late.said);
    assert_eq!(recv.raw(&cd("v1")), b"");
    link.release();
    sender.wait().expect(0);
    assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());
    assert_same(source.path(), &recv.path("in"));
    assert_eq!(list(root.path()), ["in", "in/large"]);
}

// E15
#[test]
fn a_job_that_does_not_end_in_time_is_cut_off() {
    let (source, root) = (temp_dir(), temp_dir());
    let mut recv = Recv::start_with(root.path(), &["--drain", "300ms"]);
    let (link, sender) = hold_a_job(&recv, source.path());
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(130), "{}", recv.process.log());
    recv.process.wait_for_log("cut off");
    drop((link, sender));
}

/// The next words to a service manager.
fn told(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let len = manager.recv(&mut bytes).unwrap();
    text(&bytes[..len])
}

// E15
#[test]
fn the_service_manager_hears_how_things_stand() {
    let place = Place::new("drain = 2");
    let socket = place.folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut process = Running::start(place.command(&["--port", "0", "--addr", "127.0.0.1"]).env("NOTIFY_SOCKET", &socket));
    let ready = told(&manager);
    assert!(ready.starts_with("READY=1\nSTATUS=listening on 127.0.0.1:"), "{ready}");
    process.signal("HUP");
    let reloading = told(&manager);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(&manager), ready);
    process.signal("TERM");
    assert!(told(&manager).starts_with("STOPPING=1\n"));
    assert_eq!(process.wait(), Some(0));
}

/// Starts a receiver with what `make`, lines of Python, puts in the place of descriptor 3.
fn with_descriptor(make: &str, flags: &[&str], root: &Path) -> Command {
    let script = format!(
        "import os, socket, sys\n{make}\nfor n in (3, 4):\n try: os.set_inheritable(n, True)\n except OSError: pass\nos.environ['LISTEN_FDS'] = os.environ.get('COUNT', '1')\n\
         os.environ['LISTEN_PID'] = str(os.getpid())\nos.execv(sys.argv[1], sys.argv[1:])"
    );
    let recv = recv_command();
    let mut command = Command::new("python3");
    command.envs(recv.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-c", &script]).arg(recv.get_program()).arg("--root").arg(root).args(flags);
    command
}

const LISTENING: &str = "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); os.dup2(s.fileno(), 3)";

#[test]
fn a_socket_that_was_passed_is_listened_with() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("file"), "abc");
    for (flags, warns) in [(&[][..], false), (&["--port", "1"], true)] {
        let mut process = Running::start(&mut with_descriptor(LISTENING, flags, root.path()));
        let address = process.first_line.split([' ', ',']).nth(2).unwrap();
        let port = address.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
        Ended::of(&mut send_to(port, source.path(), "in", &[])).expect(0);
        assert_same(source.path(), &root.path().join("in"));
        process.signal("TERM");
        assert_eq!(process.wait(), Some(0));
        assert_eq!(process.log().contains("a socket was passed"), warns, "{}", process.log());
    }
}

#[test]
fn what_was_passed_and_is_no_listening_socket_is_named() {
    let root = temp_dir();
    let one = "descriptor 3 that was passed (LISTEN_FDS) is no TCP socket that listens";
    for (make, words) in [
        ("s = socket.socket(); s.bind(('127.0.0.1', 0)); os.dup2(s.fileno(), 3)", one),
        ("s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0)); os.dup2(s.fileno(), 3)", one),
        ("a, b = socket.socketpair(); os.dup2(a.fileno(), 3)", one),
        ("f = open('/dev/null'); os.dup2(f.fileno(), 3)", one),
        ("os.environ['COUNT'] = '1'; os.closerange(3, 9)", "can't take the socket that was passed"),
        ("os.environ['COUNT'] = 'x'", "can't take the socket that was passed"),
        ("s = socket.socket(); [os.dup2(s.fileno(), n) for n in (3, 4)]; os.environ['COUNT'] = '2'", "2 sockets were passed"),
    ] {
        let output = expect_code(&mut with_descriptor(make, &["--port", "0"], root.path()), 1);
        let said = text(&output.stderr);
        assert!(said.contains(words) && said.lines().count() == 1, "{make}: {said}");
    }
    // Somebody else's sockets are not its own.
    let mut command = recv_command();
    command.args(["--port", "0", "--addr", "127.0.0.1"]).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    Running::start(command.current_dir(root.path()));
}

#[test]
fn the_fence_keeps_the_process_from_what_it_does_not_need() {
    let place = Place::new("");
    write(&place.folder.path().join("outside/recv.toml"), "drain = 7");
    for fenced in [true, false] {
        write(&place.config(), "");
        let recv = place.start(if fenced { &[] } else { &["--no_fence"] });
        if fenced && recv.process.log().contains("fence: none") {
            println!("SKIPPED: no Landlock here");
            continue;
        }
        assert_eq!(recv.process.log().contains("fence: this process is kept"), fenced);
        // A way out for whoever reads it: the kernel alone says no.
        fs::remove_file(place.config()).unwrap();
        std::os::unix::fs::symlink("../outside/recv.toml", place.config()).unwrap();
        recv.process.signal("HUP");
        recv.process.wait_for_log(if fenced { "Permission denied" } else { "was read again" });
        fs::remove_file(place.config()).unwrap();
    }
}

#[test]
fn the_units_are_what_systemd_takes_and_the_example_is_a_configuration() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    let (service, example) =
        (fs::read_to_string(dist.join("recv.service")).unwrap(), fs::read_to_string(dist.join("recv.toml")).unwrap());
    let seconds = |text: &str, key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_matches(|char: char| !char.is_ascii_digit()).parse().unwrap()
    };
    assert!(seconds(&service, "TimeoutStopSec=") > seconds(&example, "drain = "));
    assert!(service.contains("ReadWritePaths=/srv/in\n") && example.contains("root = \"/srv/in\"\n"));
    for line in [
        "Type=notify",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "SystemCallFilter=@system-service",
    ] {
        assert!(service.lines().any(|own| own == line), "{line}");
    }
    let place = Place::new(&example);
    Running::start(&mut place.command(&["--port", "0", "--addr", "127.0.0.1", "--root", "."]));
    if !can(Command::new("systemd-analyze").arg("--version")) {
        println!("SKIPPED: no systemd-analyze here");
        return;
    }
    let units = place.folder.path();
    write(&units.join("recv.service"), service.replace("/usr/local/bin/recv", env!("CARGO_BIN_EXE_recv")));
    fs::copy(dist.join("recv.socket"), units.join("recv.socket")).unwrap();
    let output = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args([units.join("recv.service"), units.join("recv.socket")]));
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}
