//! Networks that fail for a while, programs that are killed or stand still at a certain moment, and others
//! who send to the same place meanwhile: nothing is lost, and hardly anything is sent twice.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::job::*;
use common::judge::*;
use common::link::{Knobs, Link};
use common::sender::*;
use common::*;

const SIZE: usize = 12_000_000;

/// A connection that breaks costs the chunk that it was at, and one behind it in the buffers.
const LOST_MAX: u64 = 2 << 20;

/// Two connections beside the one for control, slow enough for something to happen.
const FLAGS: [&str; 8] = ["--length", "1M", "--bwlimit", "12M", "--process_num", "1", "--thread_num", "2"];

/// Bytes of all that is not content: handshakes, headers, descriptions, marks.
const OVERHEAD: u64 = 600_000;

fn content_of(top: &Path) -> u64 {
    let files = list(top).into_iter().map(|name| fs::symlink_metadata(top.join(name)).unwrap());
    files.filter(fs::Metadata::is_file).map(|metadata| metadata.len()).sum()
}

/// A sender of a job over a link, until a part of the large file is there.
struct Half {
    source: TempDir,
    recv: Recv,
    link: Link,
    sender: Sender,
    _places: [TempDir; 2],
}

impl Half {
    fn reached(flags: &[&str], choose: impl Fn(usize) -> Knobs + Send + 'static) -> Self {
        let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
        make_job(source.path(), SIZE);
        // A name of the same file would count as content.
        fs::remove_file(source.path().join("twin")).unwrap();
        let (recv, _) = recv_with_key(root.path(), state.path(), 0);
        let link = Link::with(recv.port, choose);
        let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &[&FLAGS[..], flags].concat()));
        wait_until("a third has come", || incoming_bytes(&recv.path("in")) > SIZE as u64 / 3);
        Self { source, recv, link, sender, _places: [root, state] }
    }

    fn steady(flags: &[&str]) -> Self {
        Self::reached(flags, |_| Knobs::default())
    }

    /// All is there in the end, and as many connections as were lost cost their share at the most.
    fn expect_all(mut self, lost: u64) -> Ended {
        let ended = self.sender.wait().expect(0);
        assert_kept_in(self.source.path(), &self.recv.path("in"), |_| false);
        let (sent, content) = (self.link.forth(), content_of(self.source.path()));
        assert!(sent >= content && sent < content + OVERHEAD + lost * LOST_MAX, "{sent} of {content}: {}", ended.json);
        assert_eq!(leftovers(&self.recv.root), [""; 0]);
        self.link.release();
        self.recv.expect_idle();
        ended
    }
}

// E05
#[test]
fn a_short_outage_in_both_directions_costs_nothing_but_time() {
    let half = Half::steady(&[]);
    half.link.cut_off();
    // Both connections that carry content, and what answers they get.
    wait_until("nothing passes any more", || half.link.kept_back() >= 2);
    half.link.go_on();
    let ended = half.expect_all(0);
    assert_eq!(ended.number("lost_connections"), 0, "{}", ended.json);
}

// E05
#[test]
fn an_outage_that_is_longer_than_a_stall_is_dialled_through() {
    let half = Half::steady(&["--stall_timeout", "1s"]);
    let before = half.link.connections();
    half.link.cut_off();
    wait_until("send dials again", || half.link.connections() >= before + 2);
    half.link.go_on();
    let ended = half.expect_all(4);
    assert!(ended.number("lost_connections") >= 2, "{}", ended.json);
}

// E04, E05
#[test]
fn connections_that_are_all_reset_at_once_cost_what_was_not_confirmed() {
    let half = Half::steady(&[]);
    half.link.reset_all();
    let ended = half.expect_all(2);
    // The one for control, too.
    assert_eq!((ended.number("lost_connections"), ended.number("failed")), (3, 0), "{}", ended.json);
}

// E12
#[test]
fn connections_that_arrive_in_another_order_are_one_job() {
    let (source, root) = (temp_dir(), temp_dir());
    make_job(source.path(), 2_000_000);
    for early_is_late in [true, false] {
        let mut recv = Recv::start(root.path());
        let link = Link::with(recv.port, move |index| {
            let is_late = if early_is_late { index < 2 } else { index >= 2 };
            Knobs { delay: is_late.then_some(Duration::from_millis(20)), ..Knobs::default() }
        });
        let target = format!("to {early_is_late}");
        let flags = ["--length", "200K", "--process_num", "2", "--thread_num", "2"];
        Ended::of(&mut send_to(link.port, source.path(), &target, &flags)).expect(0);
        assert_kept(source.path(), &recv.path(&target), is_root(), |_| false);
        drop(link);
        recv.expect_idle();
    }
    assert_eq!(leftovers(root.path()), [""; 0]);
}

// E15
#[test]
fn a_receiver_that_stands_still_for_less_than_a_stall_loses_no_connection() {
    let half = Half::steady(&["--stall_timeout", "20s"]);
    half.recv.process.signal("STOP");
    let stopped = Instant::now();
    wait_until("it stood still for a second", || stopped.elapsed() > Duration::from_secs(1));
    half.recv.process.signal("CONT");
    let ended = half.expect_all(0);
    assert_eq!(ended.number("lost_connections"), 0, "{}", ended.json);
}

/// Kills a receiver at a moment of a run of a whole job, starts it again, and sees all arrive. Before
/// that `prepare` is done to the target, and the moment is when `is_due`.
fn kill_receiver_when(
    what: &str, knobs: impl Fn(usize) -> Knobs + Send + 'static, prepare: impl FnOnce(&Path),
    is_due: impl Fn(&Link, &Path) -> bool,
) {
    let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
    make_job(source.path(), 3_000_000);
    // So that to finish takes a moment.
    for index in 0..1000 {
        std::os::unix::fs::symlink("large", source.path().join(format!("d{}/link {index}", index % 7))).unwrap();
    }
    (0..7).for_each(|index| set_mtime(&source.path().join(format!("d{index}")), 1_600_000_000, 7));
    let target = root.path().join("in");
    prepare(&target);
    let (mut recv, _) = recv_with_key(root.path(), state.path(), 0);
    let link = Link::with(recv.port, knobs);
    let flags = ["--plain", "--length", "1M", "--process_num", "1", "--thread_num", "2"];
    let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &flags));
    wait_until(what, || is_due(&link, &target));
    recv.process.signal("KILL");
    recv.process.wait();
    let (recv, _) = recv_with_key(root.path(), state.path(), recv.port);
    link.release();
    sender.wait().expect(0);
    assert_kept_in(source.path(), &recv.path("in"), |path| path.to_str().unwrap().contains(".ptf-"));
}

// E06
#[test]
fn a_receiver_may_be_killed_while_it_is_asked_what_is_there() {
    let asked = |index| Knobs { hold: (index == 0).then_some(10_000), ..Knobs::default() };
    let answered = |index| Knobs { hold_answer: (index == 0).then_some(1_000), ..Knobs::default() };
    let is_due = |link: &Link, _: &Path| {
        link.wait_until_it_holds();
        true
    };
    let prepare = |target: &Path| write(&target.join("d1/small 1"), noise(3000, 1));
    kill_receiver_when("it was asked in part", asked, prepare, is_due);
    kill_receiver_when("some of its answers are on their way", answered, prepare, is_due);
}

// E06
#[test]
fn a_receiver_may_be_killed_between_two_files() {
    for reached in [1, 200] {
        let knobs = |_| Knobs { rate: Some(4_000_000), ..Knobs::default() };
        kill_receiver_when("some files are there", knobs, |_| {}, |_, target| files_in(target) >= reached);
    }
}

// E06
#[test]
fn a_receiver_may_be_killed_right_after_the_last_file() {
    let is_due = |link: &Link, target: &Path| {
        let is_due = files_in(target) >= 401;
        if is_due {
            // What was said of it may have been heard or not.
            link.cut_off();
        }
        is_due
    };
    kill_receiver_when("all files are there", |_| Knobs::default(), |_| {}, is_due);
}

// E06
#[test]
fn a_receiver_may_be_killed_while_it_finishes() {
    let has_links = |target: &Path| fs::symlink_metadata(target.join("link")).is_ok();
    kill_receiver_when("the first link is there", |_| Knobs::default(), |_| {}, move |_, target| has_links(target));
}

/// The same files, times and modes, but other inodes.
fn copy_of(source: &Path) -> TempDir {
    let copy = temp_dir();
    expect_code(Command::new("cp").arg("-a").arg(source.join(".")).arg(copy.path()), 0);
    copy
}

// E07, E13, F11
#[test]
fn a_sender_that_is_killed_does_not_hold_up_another_machine_with_the_same_tree() {
    let half = Half::steady(&[]);
    let copy = copy_of(half.source.path());
    let other = Sender::start(&mut send_to(half.recv.port, copy.path(), "in", &["--length", "1M"]));
    let Half { source, recv, sender, .. } = &half;
    signal_to(sender.child.id(), "KILL");
    other.wait().expect(0);
    let is_its = |path: &Path| path.to_str().unwrap().contains(".ptf-");
    assert_kept_in(source.path(), &recv.path("in"), is_its);
    // And the first one finds all there.
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", &FLAGS)).expect(0);
    assert_eq!(ended.sent(), 0, "{}", ended.json);
    assert_kept_in(source.path(), &recv.path("in"), is_its);
}

// E13
#[test]
fn two_who_send_the_same_source_at_once_both_succeed() {
    let (source, root) = (temp_dir(), temp_dir());
    make_job(source.path(), SIZE);
    fs::remove_file(source.path().join("twin")).unwrap();
    let mut recv = Recv::start(root.path());
    let link = Link::to(recv.port);
    let senders: Vec<Sender> =
        (0..2).map(|_| Sender::start(&mut send_to(link.port, source.path(), "in", &["--length", "1M"]))).collect();
    senders.into_iter().for_each(|sender| drop(sender.wait().expect(0)));
    assert_kept_in(source.path(), &recv.path("in"), |_| false);
    let content = content_of(source.path());
    assert!(link.forth() < 2 * (content + OVERHEAD), "{} of {content}", link.forth());
    recv.expect_idle();
    assert_eq!(leftovers(root.path()), [""; 0]);
}

// F11, C16
#[test]
fn of_two_sources_that_look_the_same_one_is_there_whole() {
    let (sources, root) = ([temp_dir(), temp_dir()], temp_dir());
    let mut recv = Recv::start(root.path());
    let contents = [1, 2].map(|seed| noise(SIZE, seed));
    for (source, content) in sources.iter().zip(&contents) {
        write(&source.path().join("x"), content);
        set_mtime(&source.path().join("x"), 1_700_000_000, 1);
    }
    // Each is held in the middle until the other has come so far.
    let links = [(); 2].map(|()| Link::holding(recv.port, 2_000_000));
    let senders = [0, 1].map(|index| {
        let file = sources[index].path().join("x");
        Sender::start(&mut send_to(links[index].port, &file, "in", &["--length", "1M"]))
    });
    links.iter().for_each(Link::wait_until_it_holds);
    assert_eq!(leftovers(root.path()).len(), 4, "two files, and their journals");
    links.iter().for_each(Link::release);
    senders.into_iter().for_each(|sender| drop(sender.wait().expect(0)));
    assert!(contents.contains(&fs::read(recv.path("in/x")).unwrap()));
    recv.expect_idle();
    assert_eq!(leftovers(root.path()), [""; 0]);
}
