//! Receivers that answer as they should, and such that do not.
#![allow(clippy::disallowed_methods, reason = "a server of a test")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use super::*;
use crate::entry::{Attributes, ListedKind};
use crate::protocol::{Features, Page};

/// A browser of a receiver that gives these replies, all at once, when it was asked something.
fn browser_of(replies: Vec<Reply>) -> Browser {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialer = Dialer::to_addresses(vec![listener.local_addr().unwrap()], Duration::from_secs(5), Duration::ZERO);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        v2::reply::encode(&mut bytes, &Reply::Welcome { version: 2, features: Features::OURS });
        v2::reply::encode(&mut bytes, &Reply::Opened { is_new: false, is_known: false, landed: b"/srv".to_vec() });
        stream.write_all(&bytes).unwrap();
        // The opening, and the first request.
        let (mut heard, mut room) = (0, [0; 4096]);
        while heard < OPENING_LEN {
            heard += stream.read(&mut room).unwrap();
        }
        if heard == OPENING_LEN {
            let _ = stream.read(&mut room);
        }
        bytes.clear();
        replies.iter().for_each(|reply| v2::reply::encode(&mut bytes, reply));
        let _ = stream.write_all(&bytes);
    });
    Browser::open(&Arc::new(dialer), &Login::Nobody, &Stop::new().unwrap(), &|_| ()).unwrap()
}

/// Bytes of what opens such a session.
const OPENING_LEN: usize = 4 + (8 + 10 + 1) + (8 + 32 + 2 + 1 + 2 + 1);

fn listed(name: &[u8]) -> Listed {
    Listed { name: name.into(), kind: ListedKind::Directory { mtime: (0, 0) }, attributes: Attributes::default() }
}

fn page(names: &[&str], is_last: bool) -> Reply {
    Reply::Listed(Page { is_last, entries: names.iter().map(|name| listed(name.as_bytes())).collect() })
}

fn names_of(replies: Vec<Reply>) -> Result<Vec<String>, BrowseError> {
    let mut names = Vec::new();
    let done = browser_of(replies).list(&RemotePath::root(), &mut |entry| {
        names.push(String::from_utf8_lossy(&entry.name).into_owned());
        true
    });
    done.map(|()| names)
}

#[test]
fn a_list_comes_in_pages_with_heartbeats_between() {
    let replies = vec![Reply::Heartbeat, page(&["a", "b"], false), Reply::Heartbeat, page(&["c"], true)];
    assert_eq!(names_of(replies).unwrap(), ["a", "b", "c"]);
    assert_eq!(names_of(vec![page(&[], true)]).unwrap(), [""; 0]);
}

#[test]
fn a_list_that_makes_no_sense_ends_the_conversation() {
    for replies in [
        vec![page(&[], false), page(&["a"], true)],
        vec![page(&[""], true)],
        vec![Reply::Finished(crate::protocol::Totals::default())],
        vec![Reply::Answer(Answer::of(Status::Stored))],
        vec![page(&["a"], false)],
        vec![],
    ] {
        let error = names_of(replies.clone()).unwrap_err();
        assert!(matches!(error, BrowseError::Lost(_)), "{replies:?} {error}");
    }
}

#[test]
fn what_is_denied_leaves_the_conversation_open() {
    let denied = || Reply::Answer(Answer { status: Status::Refused, reason: "no".to_owned() });
    let mut browser = browser_of(vec![denied()]);
    let path = RemotePath::parse(b"a").unwrap();
    assert!(matches!(browser.remove(&path, false), Err(BrowseError::Denied(why)) if why == "no"));
    assert!(matches!(names_of(vec![denied()]), Err(BrowseError::Denied(_))));
    assert!(matches!(names_of(vec![Reply::Refused("late".to_owned())]), Err(BrowseError::Ended(why)) if why == "late"));
}

#[test]
fn a_look_is_at_one_name_and_a_digest_has_its_length() {
    let path = RemotePath::parse(b"a").unwrap();
    assert_eq!(browser_of(vec![page(&[""], true)]).look(&path).unwrap(), listed(b""));
    for replies in [vec![page(&["a"], true)], vec![page(&[""], false)], vec![page(&["", ""], true)], vec![page(&[], true)]] {
        assert!(matches!(browser_of(replies).look(&path), Err(BrowseError::Lost(_))));
    }
    assert_eq!(browser_of(vec![Reply::Sum(vec![7; 32])]).sum(&path, Algorithm::Blake3).unwrap(), [7; 32]);
    for len in [0, 16, 31, 33] {
        let answered = browser_of(vec![Reply::Sum(vec![7; len])]).sum(&path, Algorithm::Blake3);
        assert!(matches!(answered, Err(BrowseError::Lost(_))), "{len}");
    }
}

#[test]
fn a_conversation_that_was_ended_meanwhile_is_not_open() {
    let mut browser = browser_of(vec![Reply::Answer(Answer::of(Status::Stored)), Reply::Refused("idle".to_owned())]);
    browser.make_directory(&RemotePath::parse(b"a").unwrap(), false).unwrap();
    assert!(!browser.is_open());
}
