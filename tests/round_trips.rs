//! How often a sender waits for its receiver: counted in turns, through a network that takes its time.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::*;

/// On the way in each direction: what is said without waiting for an answer is said in less.
const DELAY: Duration = Duration::from_millis(50);

/// What a proxy saw of one connection.
#[derive(Debug, Default)]
struct Seen {
    /// Did the client speak last?
    client_spoke: bool,
    /// How often the client began to speak: at the start, and after it was spoken to.
    turns: usize,
    /// Bytes that went to the server and to the client so far, each time that some did.
    bytes: Vec<(usize, usize)>,
}

impl Seen {
    fn add(&mut self, forth: usize, back: usize) {
        let (before_forth, before_back) = self.bytes.last().copied().unwrap_or_default();
        self.bytes.push((before_forth + forth, before_back + back));
    }

    /// The most of `count` things that were said and not answered at once, where all are as long.
    fn most_unanswered(&self, count: usize) -> usize {
        let Some(&(forth, back)) = self.bytes.last() else { return 0 };
        let said = |bytes: usize, all: usize| bytes * count / all.max(1);
        self.bytes.iter().map(|&(one, other)| said(one, forth).saturating_sub(said(other, back))).max().unwrap_or_default()
    }
}

/// A network between a sender and its receiver.
struct Proxy {
    port: u16,
    seen: Arc<Mutex<Vec<Arc<Mutex<Seen>>>>>,
}

impl Proxy {
    fn start(to: u16) -> Self {
        Self::over(to, DELAY)
    }

    /// Over a path of which each direction takes so long.
    fn over(to: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let all = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&all);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let seen = Arc::new(Mutex::new(Seen::default()));
                all.lock().unwrap().push(Arc::clone(&seen));
                let of_client = move |seen: &mut Seen, len| {
                    seen.turns += usize::from(!seen.client_spoke);
                    seen.client_spoke = true;
                    seen.add(len, 0);
                };
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                carry(ends, delay, Arc::clone(&seen), of_client);
                carry((server, client), delay, seen, |seen, len| {
                    seen.client_spoke = false;
                    seen.add(0, len);
                });
            }
        });
        Self { port, seen }
    }

    /// The turns on each connection since this was asked last, the most first.
    fn take_turns(&self) -> Vec<usize> {
        let mut turns: Vec<_> = self.seen.lock().unwrap().drain(..).map(|seen| seen.lock().unwrap().turns).collect();
        turns.sort_by(|one, other| other.cmp(one));
        turns
    }

    /// The most that was unanswered at once on the one connection that carried so many files.
    fn most_unanswered(&self, files: usize) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|seen| seen.lock().unwrap()).max_by_key(|seen| seen.bytes.last().copied()).unwrap().most_unanswered(files)
    }
}

/// Carries bytes, each piece delayed by as much, and notes the pieces when they arrive here.
fn carry(
    (mut from, mut to): (TcpStream, TcpStream), delay: Duration, seen: Arc<Mutex<Seen>>,
    note: impl Fn(&mut Seen, usize) + Send + 'static,
) {
    let (pieces, delayed) = mpsc::channel::<(Instant, Vec<u8>)>();
    to.set_nodelay(true).unwrap();
    thread::spawn(move || {
        let mut bytes = vec![0; 256 * 1024];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            note(&mut seen.lock().unwrap(), len);
            if pieces.send((Instant::now() + delay, bytes[..len].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, piece) in delayed {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Turns of the connection that opens the job: opening it, asking or describing, its end.
const CONTROL_TURNS: usize = 3;

/// Turns of each that carries content: all is said at once, joining included; two to spare, for
/// replies that come while more is being read.
const CONTENT_TURNS_MAX: usize = 3;

/// Sends through the proxy; the turns on each connection, the most first.
fn turns_of(proxy: &Proxy, source: &Path) -> Vec<usize> {
    expect_code(&mut send_to(proxy.port, source, "in", &["--plain"]), 0);
    proxy.take_turns()
}

/// No more than that many connections, and `spare` turns beside those that must be.
fn expect_few(turns: &[usize], connections: usize, spare: usize) {
    let (control, content) = turns.split_first().unwrap();
    assert!(*control <= CONTROL_TURNS + spare && content.iter().all(|turns| *turns <= CONTENT_TURNS_MAX), "{turns:?}");
    assert!(turns.len() <= connections, "{turns:?}");
}

#[test]
fn a_small_file_costs_two_connections_and_few_turns_and_one_when_it_is_there() {
    let (source, root) = (temp_dir(), temp_dir());
    let file = source.path().join("file");
    write(&file, noise(1024, 1));
    let recv = Recv::start(root.path());
    let proxy = Proxy::start(recv.port);
    expect_few(&turns_of(&proxy, &file), 2, 0);
    expect_few(&turns_of(&proxy, &file), 1, 0);
}

#[test]
fn a_thousand_small_files_cost_hardly_more_turns_than_one() {
    let (source, root) = (temp_dir(), temp_dir());
    for index in 0..1000 {
        write(&source.path().join(format!("file{index}")), noise(1024, index));
    }
    let recv = Recv::start(root.path());
    let proxy = Proxy::start(recv.port);
    let most = 1 + num_cpus::get() * parallel_transfer::limits::THREAD_NUM_DEFAULT;
    expect_few(&turns_of(&proxy, source.path()), most, 1);
    // The walk goes on while answers come.
    expect_few(&turns_of(&proxy, source.path()), 1, 2);
    assert_same(source.path(), &recv.path("in"));
}

/// A folder with so many small files, whose names are as long.
fn small_files(count: usize) -> TempDir {
    let source = temp_dir();
    (0..count).for_each(|index| write(&source.path().join(format!("{index:06}")), noise(50, index as u64)));
    source
}

/// Enough for a window to grow twice and to be full then, and what none has at its start.
const FILES: usize = 6000;
const AHEAD: usize = 400;

/// Sends so many small files over one connection; gives the most that was unanswered at once.
fn most_unanswered(files: usize, flags: &[&str]) -> usize {
    let (source, root) = (small_files(files), temp_dir());
    let recv = Recv::start(root.path());
    let proxy = Proxy::start(recv.port);
    let flags = [&["--process_num", "1", "--thread_num", "1"], flags].concat();
    expect_code(&mut send_to(proxy.port, source.path(), "in", &flags), 0);
    assert_same(source.path(), &recv.path("in"));
    proxy.most_unanswered(files)
}

// E12
#[test]
fn one_connection_is_ever_further_ahead_of_its_answers_on_a_long_path() {
    let most = most_unanswered(FILES, &["--plain"]);
    assert!(most > AHEAD, "never more than {most}");
}

#[test]
fn over_v1_it_is_not() {
    let most = most_unanswered(1500, &["--protocol", "v1"]);
    assert!(most < AHEAD, "{most}");
}

/// Whoever writes fewer files in a round trip than a window has waits for the disk and not for the path, and a machine
/// that runs all tests at once may write few.
const DELAY_FAR: Duration = Duration::from_millis(300);
const FILES_FAR: usize = 2000;

// E12
#[test]
fn a_pull_asks_ever_further_ahead_on_a_long_path() {
    let (source, root) = (small_files(FILES_FAR), temp_dir());
    let recv = Recv::start(source.path());
    let proxy = Proxy::over(recv.port, DELAY_FAR);
    let flags = ["--process_num", "1", "--thread_num", "1", "--plain"];
    expect_code(&mut puller::fetch_from(proxy.port, ".", root.path(), &flags), 0);
    assert_same(source.path(), root.path());
    let most = proxy.most_unanswered(FILES_FAR);
    assert!(most > AHEAD, "never more than {most}");
}
