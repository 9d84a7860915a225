//! One job whose programs are killed or stopped again and again, at random moments: in the end all of it
//! is there as it was, nothing is left over, and what went over the wire has a bound.
//!
//! `PTF_SEED` repeats a run's choices, `PTF_KILLS` and `PTF_KILLS_SECONDS` say how long the long one is:
//! seven of ten hits kill, the others stop somebody for a moment.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says how to repeat it")]
mod common;

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use common::job::*;
use common::judge::*;
use common::link::{Knobs, Link};
use common::sender::*;
use common::*;

/// Two connections that carry content, one of them of a worker process.
const FLAGS: [&str; 8] = ["--length", "1M", "--process_num", "2", "--thread_num", "1", "--retry_for", "60s"];
const CONNECTIONS: u64 = 2;

const CHUNK: u64 = 1 << 20;

/// What is on its way between the link, where bytes are counted, and the receiver's disk: a piece, and a
/// moment's worth in the buffers.
const ON_ITS_WAY: u64 = 128 << 10;

/// What a connection carries besides content: a handshake, headers, all that is asked and described.
const OVERHEAD: u64 = 64 << 10;

/// A job under fire.
struct Fire {
    source: TempDir,
    root: TempDir,
    state: TempDir,
    recv: Option<Recv>,
    sender: Option<Sender>,
    link: Link,
    port: u16,
    random: u64,
    /// Bytes that the kills may cost, and how many there were.
    cost: u64,
    kills: u64,
    /// Bytes that had gone to the receiver when all connections were last new.
    new_at: u64,
    /// Runs that ended by themselves, since the receiver was gone before they had begun.
    not_begun: u64,
}

/// Who is hit.
#[derive(Debug, Clone, Copy)]
enum Hit {
    Send,
    Worker,
    Recv,
    All,
    StopRecv,
    StopSend,
    StopWorker,
}

const HITS: [Hit; 10] = [
    Hit::Send,
    Hit::Send,
    Hit::Worker,
    Hit::Worker,
    Hit::Recv,
    Hit::Recv,
    Hit::All,
    Hit::StopRecv,
    Hit::StopSend,
    Hit::StopWorker,
];

fn variable(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn strike(pid: u32, signal: Signal) {
    // It may have ended meanwhile.
    let _ = kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal);
}

/// A tree with a large file, some that come in several pieces, many small ones, and all kinds of links.
fn make_target_of_fire(top: &Path, large: usize) {
    make_job(top, large);
    for index in 0..3 {
        write(&top.join(format!("d{index}/pieces")), noise(3_000_000 + index, 2000 + index as u64));
        std::os::unix::fs::symlink("../large", top.join(format!("d{index}/link"))).unwrap();
        set_mode(&top.join(format!("d{index}/small {index}")), 0o640 + index as u32);
        set_mtime(&top.join(format!("d{index}/pieces")), 1_500_000_000, 1 + index as i64);
        set_mtime(&top.join(format!("d{index}")), 1_600_000_000, 7);
    }
    fs::create_dir(top.join("hollow")).unwrap();
    set_mtime(top, 1_600_000_001, 8);
}

impl Fire {
    /// A job that each connection carries so many bytes a second of.
    fn open(large: usize, rate: u64, seed: u64) -> Self {
        println!("PTF_SEED={seed}");
        let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
        make_target_of_fire(source.path(), large);
        let (recv, _) = recv_with_key(root.path(), state.path(), 0);
        let port = recv.port;
        let link = Link::with(port, move |_| Knobs { rate: Some(rate), ..Knobs::default() });
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut fire = Self {
            source,
            root,
            state,
            recv: Some(recv),
            sender: None,
            link,
            port,
            random,
            cost: 0,
            kills: 0,
            new_at: 0,
            not_begun: 0,
        };
        fire.start_send();
        fire
    }

    fn start_send(&mut self) {
        // The one before is gone for good first.
        self.sender = None;
        self.sender = Some(Sender::start(&mut send_to(self.link.port, self.source.path(), "in", &FLAGS)));
    }

    fn restart_recv(&mut self) {
        self.recv = None;
        self.recv = Some(recv_with_key(self.root.path(), self.state.path(), self.port).0);
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    fn pids(&self) -> (u32, u32, Vec<u32>) {
        let send = self.sender.as_ref().unwrap().child.id();
        (send, self.recv.as_ref().unwrap().process.pid(), children_of(send))
    }

    /// Waits until so many bytes more have gone to the receiver; not for ever, for perhaps none will.
    fn wait_for_bytes(&self, len: u64) {
        let (at, since) = (self.link.forth() + len, Instant::now());
        wait_until("something happened, or not", || self.link.forth() >= at || since.elapsed() > Duration::from_millis(700));
    }

    /// Stops somebody for a moment.
    fn stop(&mut self, pid: u32) {
        let (since, moment) = (Instant::now(), Duration::from_millis(10 + self.below(200)));
        strike(pid, Signal::STOP);
        wait_until("the moment is over", || since.elapsed() >= moment);
        strike(pid, Signal::CONT);
    }

    /// Counts a kill that ends all connections, each of which had at most so much that was not noted.
    fn count(&mut self, unconfirmed: u64) {
        let passed = self.link.forth() - self.new_at;
        self.cost += CONNECTIONS * ON_ITS_WAY + passed.min(CONNECTIONS * unconfirmed);
        (self.kills, self.new_at) = (self.kills + 1, self.link.forth());
    }

    fn hit(&mut self, hit: Hit) {
        let (send, recv, workers) = self.pids();
        match hit {
            // The receiver notes what came, and what is on its way is lost: also what the kernel would
            // send on, which goes with the machine here.
            Hit::Send => {
                self.count(0);
                strike(send, Signal::KILL);
                self.link.reset_all();
                self.start_send();
            }
            // The run goes on, and sends anew what that process held: a chunk, and what it was given
            // while it held less than one.
            Hit::Worker => {
                (self.cost, self.kills) = (self.cost + 2 * CHUNK + ON_ITS_WAY, self.kills + 1);
                workers.iter().for_each(|pid| strike(*pid, Signal::KILL));
            }
            // A chunk of this length is noted when it has come whole, and small files in the window of a
            // connection are less than that.
            Hit::Recv => {
                self.count(CHUNK);
                strike(recv, Signal::KILL);
                self.restart_recv();
            }
            Hit::All => {
                self.count(CHUNK);
                [recv, send].iter().chain(&workers).for_each(|pid| strike(*pid, Signal::KILL));
                self.link.reset_all();
                self.restart_recv();
                self.start_send();
            }
            // At the end somebody else repeats what they hold.
            Hit::StopRecv => self.stop(recv),
            Hit::StopSend => self.stop(send),
            Hit::StopWorker => workers.first().into_iter().for_each(|pid| self.stop(*pid)),
        }
    }

    /// Has the run ended? One that had not begun is begun again.
    fn has_ended(&mut self) -> bool {
        let sender = self.sender.as_mut().unwrap();
        let Some(status) = sender.child.try_wait().unwrap() else { return false };
        let said = sender.said();
        if status.success() {
            return true;
        }
        assert!(said.contains("nothing was sent"), "{status}: {said}");
        self.not_begun += 1;
        assert!(self.not_begun < 50, "{said}");
        self.start_send();
        false
    }

    /// Hits somebody so often, in so much time at the most; gives how often it was.
    fn rage(&mut self, hits: u64, time: Duration) -> u64 {
        let since = Instant::now();
        for done in 0..hits {
            let len = self.below(300_000);
            self.wait_for_bytes(len);
            if self.has_ended() || since.elapsed() >= time {
                return done;
            }
            let hit = HITS[self.below(HITS.len() as u64) as usize];
            self.hit(hit);
        }
        hits
    }

    /// Lets the job end, and sees that all is well.
    fn expect_all(mut self, hits: u64) {
        self.link.release();
        wait_until("send has done all", || self.has_ended());
        let ended = self.sender.take().unwrap().wait().expect(0);
        let target = self.root.path().join("in");
        let is_ours = |path: &Path| path.to_str().unwrap().contains(".ptf-");
        assert_kept_in(self.source.path(), &target, is_ours);
        assert!(fs::read(self.source.path().join("large")).unwrap() == fs::read(target.join("large")).unwrap());
        // A small file that a killed receiver was at stays under its temporary name, and so does another
        // name of a file that is there.
        let is_large = |name: &String| {
            let metadata = fs::symlink_metadata(self.root.path().join(name)).unwrap();
            name.ends_with('j') || (metadata.len() > 3000 && metadata.nlink() == 1)
        };
        let left: Vec<String> = leftovers(self.root.path()).into_iter().filter(is_large).collect();
        assert_eq!(left, [""; 0]);
        let files = list(self.source.path()).into_iter().filter(|name| !name.ends_with("twin"));
        let files = files.map(|name| fs::symlink_metadata(self.source.path().join(name)).unwrap());
        let content: u64 = files.filter(fs::Metadata::is_file).map(|metadata| metadata.len()).sum();
        let (sent, connections) = (self.link.forth(), self.link.connections() as u64);
        // At the end two chunks of each connection may be repeated.
        let bound = content + self.cost + connections * OVERHEAD + 2 * CONNECTIONS * CHUNK;
        println!(
            "{hits} hits, {} kills, {connections} connections, {} not begun: {sent} bytes for {content}, at most {bound}",
            self.kills, self.not_begun
        );
        assert!(sent >= content && sent <= bound, "{sent} bytes for {content}, at most {bound}: {}", ended.json);
    }
}

fn seed() -> u64 {
    variable("PTF_SEED", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into())
}

// E04, E06, E07, E15
#[test]
fn a_few_kills_lose_nothing() {
    let mut fire = Fire::open(12_000_000, 1_000_000, seed());
    let hits = fire.rage(6, Duration::from_secs(30));
    assert_eq!(hits, 6, "the job was too short");
    fire.expect_all(hits);
}

// E04, E06, E07, E15
#[test]
#[ignore = "takes two minutes: .ci/run has it"]
fn hundreds_of_kills_lose_nothing() {
    let (hits, seconds) = (variable("PTF_KILLS", 320), variable("PTF_KILLS_SECONDS", 115));
    let mut fire = Fire::open(100_000_000, 400_000, seed());
    let done = fire.rage(hits, Duration::from_secs(seconds));
    assert!(done > 0, "the job was too short");
    fire.expect_all(done);
}
