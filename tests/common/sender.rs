//! A `send` that runs beside the test, how it ended, and receivers whose first lines matter.

use std::collections::BTreeSet;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::link::Link;
use super::mount::can;
use super::*;

/// A `send` that runs beside the test, and ends with it.
pub struct Sender {
    pub child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

/// How a `send` ended: its exit code, its JSON object and its standard error.
pub struct Ended {
    pub code: Option<i32>,
    pub json: Value,
    pub said: String,
}

impl Sender {
    pub fn start(command: &mut Command) -> Self {
        let (stdout, stderr) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
        command.arg("--json").stdout(stdout.reopen().unwrap()).stderr(stderr.reopen().unwrap());
        Self { child: command.spawn().unwrap(), stdout, stderr }
    }

    pub fn said(&self) -> String {
        text(&fs::read(self.stderr.path()).unwrap())
    }

    pub fn wait(mut self) -> Ended {
        wait_until("send ends", || self.child.try_wait().unwrap().is_some());
        let json = serde_json::from_slice(&fs::read(self.stdout.path()).unwrap()).unwrap_or_default();
        Ended { code: self.child.wait().unwrap().code(), json, said: self.said() }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub fn of(command: &mut Command) -> Self {
        let output = run(command.arg("--json"));
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Self { code: output.status.code(), json, said: text(&output.stderr) }
    }

    /// Fails unless it ended with `code`.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.said, self.json);
        self
    }

    pub fn number(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap_or_else(|| panic!("no {field} in {}", self.json))
    }

    /// Bytes of files that were sent, whatever was there already.
    pub fn sent(&self) -> u64 {
        self.number("bytes") - self.number("unchanged_bytes")
    }

    /// The entries named as failed, escaped as they are shown.
    pub fn failed(&self) -> BTreeSet<String> {
        let failures = self.json["failures"].as_array().into_iter().flatten();
        failures.map(|failure| failure["path"].as_str().unwrap().to_owned()).collect()
    }

    /// Fails unless exactly these entries failed, each named on both streams, with `why` in the reason.
    pub fn expect_failed(self, names: &[&str], why: &str) -> Self {
        let ended = self.expect(3);
        let expected: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(ended.failed(), expected, "{}", ended.said);
        for failure in ended.json["failures"].as_array().unwrap() {
            assert!(failure["reason"].as_str().unwrap().contains(why), "no '{why}' in {failure}");
        }
        for name in names {
            assert!(ended.said.contains(name), "'{name}' is not in: {}", ended.said);
        }
        ended
    }
}

/// Sends a file through a relay that holds it in the middle; there `change` happens.
pub fn send_while(recv: &Recv, file: &Path, remote: &str, flags: &[&str], change: impl FnOnce(&Path)) -> Ended {
    let link = Link::holding(recv.port, 1 << 20);
    let sender = Sender::start(&mut send_to(link.port, file, remote, flags));
    link.wait_until_it_holds();
    change(file);
    link.release();
    sender.wait()
}

/// The local copy.
pub fn copy_to(file: &Path, target: &Path, flags: &[&str]) -> Command {
    let mut command = send_command();
    command.arg("--file").arg(file).arg("--remote_dir").arg(target).args(flags);
    command
}

/// Starts a receiver; gives also the second line that it prints: its host key, or its ticket.
pub fn recv_with_line(command: &mut Command, root: &Path) -> (Recv, String) {
    command.args(["--addr", "127.0.0.1", "--root"]).arg(root);
    let (stdout, stderr) = (NamedTempFile::new().unwrap(), Arc::new(Mutex::new(Vec::new())));
    command.stdin(Stdio::null()).stdout(stdout.reopen().unwrap()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut pipe, kept) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut bytes) {
            kept.lock().unwrap().extend_from_slice(&bytes[..len]);
        }
    });
    // Where its metrics are is on a third line.
    let count = 2 + usize::from(command.get_args().any(|flag| flag == "--metrics"));
    let printed = || text(&fs::read(stdout.path()).unwrap());
    wait_until("the receiver has said its first lines, or ended", || {
        printed().matches('\n').count() >= count || child.try_wait().unwrap().is_some()
    });
    let lines: Vec<String> = printed().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:?} {}", text(&stderr.lock().unwrap()));
    let more_lines = Arc::new(Mutex::new(lines[1..].to_vec()));
    let process = Running { child, first_line: lines[0].clone(), more_lines, stderr };
    let address = process.first_line.split([' ', ',']).nth(2).unwrap();
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    process.wait_until_it_serves();
    let idle = process.resources();
    (Recv { process, port, root: root.to_path_buf(), idle }, lines[1].clone())
}

/// A receiver with a key of its own; gives its fingerprint.
pub fn recv_with_key(root: &Path, state_dir: &Path, port: u16) -> (Recv, String) {
    let mut command = recv_command();
    let (recv, line) = recv_with_line(command.args(["--port", &port.to_string(), "--state_dir"]).arg(state_dir), root);
    let fingerprint = line.strip_prefix("host key ").unwrap().to_owned();
    (recv, fingerprint)
}

/// A receiver of one job; gives its ticket.
pub fn recv_once(root: &Path) -> (Recv, String) {
    let (recv, line) = recv_with_line(recv_command().args(["--port", "0", "--once"]), root);
    let ticket = line.strip_prefix("ticket ").unwrap().to_owned();
    (recv, ticket)
}

/// A `send` with a ticket in a file.
pub fn send_ticket(place: &Path, ticket: &str, file: &Path, flags: &[&str]) -> Command {
    let path = place.join("ticket");
    write(&path, ticket);
    let mut command = send_command();
    command.arg("--ticket_file").arg(path).arg("--file").arg(file).args(["--remote_dir", "in"]).args(flags);
    command
}

/// Names of files being received that were left behind anywhere below a folder.
pub fn leftovers(top: &Path) -> Vec<String> {
    list(top).into_iter().filter(|name| name.rsplit('/').next().unwrap().starts_with(".ptf-")).collect()
}

/// Fails unless what was left behind below a folder are files with their journals, so many, that a later
/// run goes on with.
pub fn expect_kept(top: &Path, count: usize) {
    let left = leftovers(top);
    let (journals, files): (Vec<_>, Vec<_>) = left.iter().partition(|name| name.ends_with('j'));
    let without = |name: &&String| name.trim_end_matches('j').to_owned();
    assert_eq!(journals.iter().map(without).collect::<Vec<_>>(), files.iter().map(without).collect::<Vec<_>>(), "{left:?}");
    assert_eq!(files.len(), count, "{left:?}");
}

/// Sends in one of the ways that keep everything.
pub struct Way<'a> {
    pub name: &'static str,
    pub target: PathBuf,
    pub recv: &'a Recv,
}

impl Way<'_> {
    pub fn send(&self, file: &Path, flags: &[&str]) -> Command {
        match self.name {
            "local" => copy_to(file, &self.target, flags),
            "plain" => send_to(self.recv.port, file, "in", &[flags, &["--plain"]].concat()),
            _ => send_to(self.recv.port, file, "in", flags),
        }
    }
}

/// Tests all ways that keep everything: in TLS, in clear, and on this machine. Nothing is left behind.
pub fn in_each_way(test: impl Fn(&Way<'_>)) {
    for name in ["TLS", "plain", "local"] {
        let root = temp_dir();
        let mut recv = Recv::start(root.path());
        test(&Way { name, target: root.path().join("in"), recv: &recv });
        recv.expect_idle();
        assert_eq!(leftovers(root.path()), [""; 0], "{name}");
        judge::open_up(root.path());
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One of the programs as anyone may run it, started by nobody in particular; none where this user
/// can't become another.
pub fn as_nobody(program: &str, place: &Path) -> Option<Command> {
    use std::os::unix::process::CommandExt as _;
    judge::set_mode(place, 0o755);
    let copy = place.join(Path::new(program).file_name().unwrap());
    if !copy.exists() && fs::hard_link(program, &copy).is_err() {
        fs::copy(program, &copy).unwrap();
    }
    let nobody = |command: &mut Command| {
        if is_root() {
            command.uid(65534).gid(65534);
        }
    };
    let mut probe = Command::new(&copy);
    nobody(&mut probe);
    let mut command = Command::new(copy);
    nobody(&mut command);
    command.env("XDG_STATE_HOME", place.join("state of nobody")).env("XDG_CONFIG_HOME", place.join("config of nobody"));
    can(probe.arg("--version")).then_some(command)
}
