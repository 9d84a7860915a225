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
}

/// A network between a sender and its receiver.
struct Proxy {
    port: u16,
    seen: Arc<Mutex<Vec<Arc<Mutex<Seen>>>>>,
}

impl Proxy {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let all = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&all);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let seen = Arc::new(Mutex::new(Seen::default()));
                all.lock().unwrap().push(Arc::clone(&seen));
                let of_client = move |seen: &mut Seen| {
                    seen.turns += usize::from(!seen.client_spoke);
                    seen.client_spoke = true;
                };
                carry(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&seen), of_client);
                carry(server, client, seen, |seen| seen.client_spoke = false);
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
}

/// Carries bytes, each piece delayed by as much, and notes the pieces when they arrive here.
fn carry(mut from: TcpStream, mut to: TcpStream, seen: Arc<Mutex<Seen>>, note: impl Fn(&mut Seen) + Send + 'static) {
    let (pieces, delayed) = mpsc::channel::<(Instant, Vec<u8>)>();
    to.set_nodelay(true).unwrap();
    thread::spawn(move || {
        let mut bytes = vec![0; 256 * 1024];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            note(&mut seen.lock().unwrap());
            if pieces.send((Instant::now() + DELAY, bytes[..len].to_vec())).is_err() {
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
