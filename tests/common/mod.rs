//! What the integration tests share: the two programs as real processes, trees, judges.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods, reason = "a test may fail, and is no peer")]

pub mod accounts;
pub mod fake_relay;
pub mod fake_server;
pub mod guest;
pub mod job;
pub mod journal;
pub mod judge;
pub mod link;
pub mod metrics;
pub mod mount;
pub mod puller;
pub mod relays;
pub mod sender;
pub mod yard;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use tempfile::TempDir;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn temp_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Waits until `condition` holds; fails with `what` when it never does.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::yield_now();
        thread::sleep(Duration::from_millis(2));
    }
}

/// A process whose output lines are kept, and that ends with the test.
pub struct Running {
    pub child: Child,
    pub first_line: String,
    more_lines: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    /// Starts `command` and waits for the first line of its output.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (mut pipe, kept) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = pipe.read(&mut bytes) {
                kept.lock().unwrap().extend_from_slice(&bytes[..len]);
            }
        });
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first_line = String::new();
        out.read_line(&mut first_line).unwrap();
        let more_lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&more_lines);
        thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        let running = Self { child, first_line: first_line.trim_end().to_owned(), more_lines, stderr };
        assert!(!running.first_line.is_empty(), "it said nothing but: {}", running.log());
        running
    }

    /// What it wrote to its standard output so far, after the first line.
    pub fn more_lines(&self) -> Vec<String> {
        self.more_lines.lock().unwrap().clone()
    }

    /// What it wrote to its standard error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log says '{text}'"), || self.log().contains(text));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        signal_to(self.pid(), signal);
    }

    /// Waits for its end; gives its exit code, or none if a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        wait_until("a process ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Open descriptors and threads.
    pub fn resources(&self) -> (usize, usize) {
        let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", self.pid())).unwrap().count();
        (count("fd"), count("task"))
    }

    /// The names of its threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten();
        tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).map(|name| name.trim().to_owned()).collect()
    }

    /// Waits until a receiver has started all threads that stay, and the one that looks for leftovers has
    /// ended. Until it has its name a thread is called as the one that started it.
    pub fn wait_until_it_serves(&self) {
        wait_until("it serves", || {
            let threads = self.threads();
            let count = |name: &str| threads.iter().filter(|thread| *thread == name).count();
            (count("recv"), count("adopt"), count("drain"), count("sweep")) == (1, 0, 1, 1)
        });
    }

    /// Largest memory it ever had, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {}\n{}", self.first_line, self.log());
        }
    }
}

pub fn signal_to(pid: u32, signal: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    let signals = [("TERM", Signal::TERM), ("KILL", Signal::KILL), ("INT", Signal::INT), ("HUP", Signal::HUP)];
    let others = [("STOP", Signal::STOP), ("CONT", Signal::CONT)];
    let (_, signal) = signals.into_iter().chain(others).find(|(name, _)| *name == signal).unwrap();
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// The child processes of a process.
pub fn children_of(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task");
    let Ok(tasks) = fs::read_dir(path) else { return Vec::new() };
    let children = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    children.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Lets this process have so many descriptors, if it may.
pub fn allow_descriptors(count: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= count);
    enough(limit.current)
        || (enough(limit.maximum) && setrlimit(Resource::Nofile, Rlimit { current: Some(count), ..limit }).is_ok())
}

/// A receiver in a process of its own, on a free port of 127.0.0.1.
pub struct Recv {
    pub process: Running,
    pub port: u16,
    pub root: PathBuf,
    idle: (usize, usize),
}

impl Recv {
    pub fn start(root: &Path) -> Self {
        Self::start_with(root, &[])
    }

    pub fn start_with(root: &Path, flags: &[&str]) -> Self {
        let mut command = recv_command();
        command.args(["--port", "0", "--addr", "127.0.0.1", "--root"]).arg(root).args(flags);
        let process = Running::start(&mut command);
        let address = process.first_line.split([' ', ',']).nth(2).unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        process.wait_until_it_serves();
        let idle = process.resources();
        Self { process, port, root: root.to_path_buf(), idle }
    }

    /// Waits until all connections are gone, with nothing left over, and the process is well.
    pub fn expect_idle(&mut self) {
        let idle = self.idle;
        wait_until("no descriptor and no thread is left over", || self.process.resources() == idle);
        assert!(self.process.is_alive());
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends bytes on a connection of their own, ends it, and gives all that was answered.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        raw(&self.connect(), bytes)
    }

    /// The path of a file below the root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Sends bytes, ends the stream's writing, and gives all that comes until its end.
pub fn raw(mut stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    // A receiver that refuses may close before all is written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Reads exactly so many bytes.
pub fn read_bytes(mut stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

pub fn recv_command() -> Command {
    at_home(Command::new(env!("CARGO_BIN_EXE_recv")))
}

pub fn send_command() -> Command {
    at_home(Command::new(env!("CARGO_BIN_EXE_send")))
}

/// Keys and known hosts of the tests are theirs: a folder of this process, which its user's are not in.
fn at_home(mut command: Command) -> Command {
    static HOME: LazyLock<TempDir> = LazyLock::new(temp_dir);
    command.env("XDG_STATE_HOME", HOME.path().join("state")).env("XDG_CONFIG_HOME", HOME.path().join("config"));
    command.env_remove("PTF_TICKET").env_remove("PTF_PASSWORD").env_remove("PTF_VIA_PASSWORD");
    command
}

/// `send` to a port of 127.0.0.1, over protocol v1.
pub fn send_v1(port: u16, file: &Path, remote_dir: impl AsRef<OsStr>, flags: &[&str]) -> Command {
    let mut command = send_to(port, file, remote_dir, flags);
    command.args(["--protocol", "v1"]);
    command
}

/// `send` to a port of 127.0.0.1.
pub fn send_to(port: u16, file: &Path, remote_dir: impl AsRef<OsStr>, flags: &[&str]) -> Command {
    let mut command = send_command();
    command.args(["--server", "127.0.0.1", "--port", &port.to_string(), "--file"]).arg(file);
    command.arg("--remote_dir").arg(remote_dir.as_ref()).args(flags).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Fails unless the command ended with `code`; gives its output.
pub fn expect_code(command: &mut Command, code: i32) -> Output {
    let output = run(command);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    output
}

/// The outside judge of trees.
pub fn assert_same(source: &Path, target: &Path) {
    let output = run(Command::new("diff").arg("-r").arg("--no-dereference").arg(source).arg(target));
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Bytes that differ from place to place and from seed to seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Makes what is never sent.
/// A folder, a name that makes the longest path in it that can be, and one that is a byte too long.
pub fn names_near_the_limit() -> (String, String, String) {
    // 16 x 250 + 15 = 4015 bytes.
    let folder = vec!["r".repeat(250); 16].join("/");
    (folder, "f".repeat(4095 - 4015 - 1), "t".repeat(4096 - 4015 - 1))
}

pub fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// A tree of the kinds that v1 can carry: folders, empty ones, files of many sizes, spaces, depth.
pub fn make_tree(top: &Path) {
    for (index, (name, len)) in [
        ("empty", 0),
        ("one byte", 1),
        ("a/b/c/deep", 4096),
        ("a/small", 100),
        ("a/large", 3_000_000),
        ("sp ace/d d/x y", 70_000),
        ("exact", 65_536),
        ("ünï/文", 10),
        ("-dash", 5),
        ("a/...", 5),
    ]
    .into_iter()
    .enumerate()
    {
        write(&top.join(name), noise(len, index as u64 + 1));
    }
    for name in ["hollow", "a/hollow/within"] {
        fs::create_dir_all(top.join(name)).unwrap();
    }
}

/// All paths below a folder, relative and sorted.
pub fn list(top: &Path) -> Vec<String> {
    let mut names: Vec<_> = walkdir::WalkDir::new(top)
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.unwrap().path().strip_prefix(top).unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The v1 peer in Python.
pub fn v1_peer() -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/v1_peer.py"));
    command
}

/// A v1 receiver of another make; its paths mean what they say. Gives its port.
pub fn start_v1_peer(folder: &Path, flags: &[&str]) -> (Running, u16) {
    let process = Running::start(v1_peer().current_dir(folder).arg("recv").args(flags));
    let port = process.first_line.rsplit(' ').next().unwrap().parse().unwrap();
    (process, port)
}

/// A frame that makes a folder.
pub fn cd(name: &str) -> Vec<u8> {
    format!("cd{:06}{name}", name.len()).into_bytes()
}

/// A frame that creates a file.
pub fn cf(name: &str) -> Vec<u8> {
    format!("cf{:06}{name}", name.len()).into_bytes()
}

/// A frame that writes.
pub fn wf(name: &str, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut frame = format!("wf{:06}{name}{offset:012}{:012}", name.len(), bytes.len()).into_bytes();
    frame.extend_from_slice(bytes);
    frame
}

/// The MD5 of bytes in hex, by another implementation than the program's.
pub fn md5_hex(bytes: &[u8]) -> Vec<u8> {
    use md5::Digest as _;
    md5::Md5::digest(bytes).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}
