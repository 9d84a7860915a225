//! What any bytes must come to in each decoder: a value or a reason, never a panic, and what is true
//! of every value. One function a decoder; tests/fuzz.rs runs the same ones without a fuzzer.
//!
//!     cargo +nightly fuzz run v2_requests

use std::fmt::Debug;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use parallel_transfer::digest::{self, Binding, Checksum};
use parallel_transfer::entry::{Attributes, Identity, Listed, ListedKind};
use parallel_transfer::limits::{FRAME_LEN_MAX, LIST_PAGE_MAX, WIRE_REASON_LEN_MAX};
use parallel_transfer::net::known_hosts;
use parallel_transfer::net::tls::Fingerprint;
use parallel_transfer::path::RemotePath;
use parallel_transfer::protocol::hello::recognise;
use parallel_transfer::protocol::v2::{pipe, reply, request};
use parallel_transfer::protocol::{Answer, Decoded, Page, Put, Read, Reply, Request, v1};
use parallel_transfer::pump::{Block, Ended, Inbox, Run, Times, blocks_to_file};
use parallel_transfer::ranges::Ranges;
use parallel_transfer::store::Journal;
use parallel_transfer::ticket::Ticket;

/// The frame that has the first byte as its type and the others as its body: a fuzzer does not guess
/// a check, and a peer can make one.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let Some((&kind, body)) = bytes.split_first() else { return Vec::new() };
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = [kind, high, middle, low, kind ^ high ^ middle ^ low ^ 0x5a];
    [&head[..], body, &digest::check(body, kind.into()).to_be_bytes()[4..]].concat()
}

/// Bytes as they are, and as the body of a frame that is right.
fn as_frames(bytes: &[u8], check: impl Fn(&[u8])) {
    check(bytes);
    check(&framed(bytes));
}

/// A value takes bytes that are there, needs all of them and none that follow.
fn expect_exact<T: Debug + PartialEq>(bytes: &[u8], decode: impl Fn(&[u8]) -> Decoded<T>) -> Option<T> {
    let (value, len) = decode(bytes).ok().flatten()?;
    assert!(len <= bytes.len());
    let again = decode(&bytes[..len]).expect("without what follows").expect("without what follows");
    assert_eq!(again, (value, len));
    assert!(matches!(decode(&bytes[..len - 1]), Ok(None)), "without the last byte");
    Some(again.0)
}

pub fn v1_requests(bytes: &[u8]) {
    let decode = |bytes: &[u8]| Ok(v1::decode(bytes)?.map(|(request, len)| (format!("{request:?}"), len)));
    expect_exact(bytes, decode);
    if let Ok(Some((Request::MakeDirectories(names) | Request::CreateFiles(names), _))) = v1::decode(bytes) {
        assert!(names.iter().all(|name| !name.is_empty() && !name.contains(&b'\n')));
    }
}

pub fn v2_requests(bytes: &[u8]) {
    as_frames(bytes, |bytes| {
        expect_exact(bytes, |bytes| Ok(request::decode(bytes)?.map(|(request, len)| (format!("{request:?}"), len))));
        let Ok(Some((value, _))) = request::decode(bytes) else { return };
        let mut encoded = Vec::new();
        match &value {
            Request::Hello { versions, features } => request::encode_hello(&mut encoded, versions.clone(), *features),
            Request::Open(open) => request::encode_open(&mut encoded, open),
            Request::SignUp { user, password } => request::encode_sign_up(&mut encoded, user, password),
            Request::Join(token) => request::encode_join(&mut encoded, token),
            Request::Put(Put { path, file, range, .. }) => {
                assert!(range.start <= range.end && range.end <= file.identity.size);
                request::encode_put(&mut encoded, path, file, range);
            }
            Request::Describe(entry) => request::encode_describe(&mut encoded, entry),
            Request::Finish => request::encode_finish(&mut encoded),
            Request::Read(Read { path, identity, is_sparse, range, .. }) => {
                let _ = request::encode_read(&mut encoded, path, identity, *is_sparse, range);
            }
            Request::List(list) => request::encode_list(&mut encoded, list),
            Request::Remove { path, is_recursive } => request::encode_remove(&mut encoded, path, *is_recursive),
            Request::Rename { from, to } => request::encode_rename(&mut encoded, from, to),
            Request::MakeDirectory { path, with_parents } => {
                request::encode_make_directory(&mut encoded, path, *with_parents);
            }
            Request::Sum { path, algorithm } => request::encode_sum(&mut encoded, path, *algorithm),
            Request::Space => request::encode_space(&mut encoded),
            Request::Relay { to } => request::encode_relay(&mut encoded, to),
            Request::ChangePassword { old, new } => request::encode_change_password(&mut encoded, old, new),
            Request::Have(_) | Request::Verify(..) => return,
            other => panic!("{other:?} in version 2"),
        }
        let Ok(Some((again, len))) = request::decode(&encoded) else { panic!("{value:?} does not decode again") };
        assert_eq!(len, encoded.len());
        match (again, value) {
            // Bound to the bytes it came in, of which some may mean nothing.
            (Request::Put(again), Request::Put(value)) => {
                assert_eq!(Put { binding: Binding::default(), ..again }, Put { binding: Binding::default(), ..value });
            }
            (again, value) => assert_eq!(again, value),
        }
    });
}

pub fn v2_replies(bytes: &[u8]) {
    as_frames(bytes, |bytes| {
        let Some(value) = expect_exact(bytes, reply::decode) else { return };
        // What was escaped in a reason may have made it longer than a reply may be.
        if let Reply::Answer(Answer { reason, .. }) | Reply::Missing { reason, .. } | Reply::Refused(reason) = &value
            && reason.len() > WIRE_REASON_LEN_MAX
        {
            return;
        }
        let mut encoded = Vec::new();
        reply::encode(&mut encoded, &value);
        assert_eq!(expect_exact(&encoded, reply::decode), Some(value));
    });
}

/// A part of a list, made of the bytes: it decodes to what it is where every name in it is one name, and
/// every target one that may be; otherwise it is refused.
pub fn pages(bytes: &[u8]) {
    let Some((&flags, mut rest)) = bytes.split_first() else { return };
    let mut take = |len: usize| -> Vec<u8> {
        let (taken, others) = rest.split_at(len.min(rest.len()));
        rest = others;
        taken.to_vec()
    };
    let (mut entries, mut is_good, mut len) = (Vec::new(), true, 0);
    // One more than may be; and no more than a frame holds.
    while entries.len() <= LIST_PAGE_MAX && len < FRAME_LEN_MAX / 2 {
        let head = take(6);
        let &[kind, name_len, mode, seconds, nanoseconds, more] = &head[..] else { break };
        let name = if more == 255 { vec![b'n'; usize::from(name_len) + 128] } else { take(name_len.into()) };
        let mtime = ((i64::from(seconds) - 128) << (more % 57), u32::from(nanoseconds) * 4_200_000);
        let size = u64::from(seconds) << (more % 57);
        is_good &= mtime.1 < 1_000_000_000;
        is_good &= name.is_empty() || !name.contains(&b'/') && RemotePath::parse(&name).is_ok();
        let kind = match kind % 5 {
            0 => ListedKind::Directory { mtime },
            1 => {
                let target = if more == 254 { vec![b't'; 4000 + usize::from(mode)] } else { take((more % 16).into()) };
                is_good &= (1..=4095).contains(&target.len()) && !target.contains(&0);
                ListedKind::Symlink { target: target.into(), mtime }
            }
            2 => ListedKind::Special { mtime },
            even => {
                let identity = Identity { size, mtime, tag: [more; 16] };
                ListedKind::File { identity, is_sparse: even == 3, names: u32::from(more) << 24 }
            }
        };
        let attributes = Attributes {
            mode: u16::from(mode),
            owner: (more & 1 != 0).then_some((seconds.into(), u32::MAX)),
            xattrs: (0..more % 4).map(|index| ([b'u', index][..].into(), take(3).into())).collect(),
        };
        len += if more >= 254 { 5_000 } else { 100 + usize::from(name_len) };
        entries.push(Listed { name: name.into(), kind, attributes });
    }
    is_good &= entries.len() <= LIST_PAGE_MAX;
    let value = Reply::Listed(Page { is_last: flags & 1 != 0, entries });
    let mut encoded = Vec::new();
    reply::encode(&mut encoded, &value);
    assert_eq!(expect_exact(&encoded, reply::decode), is_good.then_some(value));
}

pub fn v2_pipe(bytes: &[u8]) {
    as_frames(bytes, |bytes| {
        let Some(value) = expect_exact(bytes, pipe::decode) else { return };
        let mut encoded = Vec::new();
        pipe::encode(&mut encoded, &value);
        assert_eq!(expect_exact(&encoded, pipe::decode), Some(value));
    });
}

/// What the first bytes say is not unsaid by those that follow.
pub fn dialects(bytes: &[u8]) {
    let said: Vec<_> = (0..=bytes.len().min(8)).map(|len| recognise(&bytes[..len])).collect();
    assert_eq!(said.first(), Some(&None));
    assert!(said.windows(2).all(|pair| pair[0].is_none() || pair[0] == pair[1]), "{said:?}");
    assert!(said.len() <= 4 || said[4].is_some());
}

/// The first bytes say what is put, the others are its payload.
pub fn payloads(bytes: &[u8]) {
    let Some((&[checksum, start, len, rest], bytes)) = bytes.split_first_chunk() else { return };
    // Around the end of a block, where it matters.
    let start = u64::from(start) + if rest & 1 == 0 { 0 } else { 262_144 - 128 };
    let range = start..start + u64::from(len);
    let checksum = [Checksum::None, Checksum::Xxh3, Checksum::Blake3][usize::from(checksum % 3)];
    let size = range.end + u64::from(rest >> 1);
    let run = Run { range: range.clone(), size, is_sparse: false, checksum, binding: Binding::of(b"body") };
    for is_taken in [true, false] {
        let (mut left, mut at) = (bytes, range.start);
        let mut take = |block: Block<'_>| {
            let taken = match block {
                Block::Data(offset, data, _) => offset..offset + data.len() as u64,
                Block::Hole(range) => range,
            };
            assert!(taken.start == at && taken.end >= at && taken.end <= range.end, "{taken:?} after {at}");
            at = taken.end;
        };
        let taker: Option<&mut dyn FnMut(Block<'_>)> = if is_taken { Some(&mut take) } else { None };
        let ended = blocks_to_file(&mut Inbox::default(), &mut left, &run, &mut Times::default(), taker, None);
        assert!(!is_taken || at == range.end || !matches!(ended, Ok(Ended::Same)), "the same, but only up to {at}");
    }
}

pub fn paths(bytes: &[u8]) {
    let names = |path: &RemotePath| {
        let bytes = path.as_bytes();
        assert!(bytes.len() <= 4095 && !bytes.contains(&0) && !bytes.starts_with(b"/"));
        let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= 255 && !name.starts_with(b".ptf-");
        assert!(path.is_root() || bytes.split(|byte| *byte == b'/').all(is_name), "{path:?}");
    };
    if let Ok(path) = RemotePath::parse(bytes) {
        names(&path);
        assert!(path.as_bytes() == bytes && !path.is_root());
    }
    for path in [RemotePath::parse_loosely(bytes), RemotePath::below(&["/srv/in"], bytes)].into_iter().flatten() {
        names(&path);
        if !path.is_root() {
            assert_eq!(RemotePath::parse(path.as_bytes()).as_ref(), Ok(&path));
        }
        let shown = path.to_string();
        assert!(shown.chars().all(|char| !char.is_control()), "{shown:?}");
    }
}

pub fn tickets(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string().parse::<Fingerprint>().ok(), Some(fingerprint));
    }
}

/// A file of these bytes is understood or not; a key that it does not have is never known.
pub fn known_hosts(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("room in it");
    let found = Fingerprint::of(b"a certificate");
    let verdict = known_hosts::look_up(file.path(), "host:9000", found);
    let text = String::from_utf8_lossy(bytes);
    let has_host = text.to_lowercase().contains("host:9000");
    match verdict {
        Ok(known_hosts::Verdict::Known) => assert!(has_host && text.contains(&found.to_string())),
        Ok(known_hosts::Verdict::Changed { line, .. }) => assert!(has_host && line >= 1),
        Ok(known_hosts::Verdict::Unknown) | Err(_) => {}
    }
}

/// The first byte says how large the file is; the others are its journal, or stand behind the header
/// of that, or are the bodies of records that are right in all else, each behind its length.
pub fn journals(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let size = [0, 5, 70_000, 300_000, 1 << 40, 1 << 62][usize::from(size % 6)];
    let identity = Identity { size, mtime: (1, 2), tag: [3; 16] };
    let path = RemotePath::parse(b"d/f").expect("a path");
    let mut head = [&b"PTFJ\x01"[..], &[7; 16], &size.to_be_bytes(), &1_i64.to_be_bytes(), &2_u32.to_be_bytes()].concat();
    head.extend_from_slice(&[&[3; 16][..], b"\0\x03d/f"].concat());
    let mut check = digest::check(&head, 0);
    head.extend_from_slice(&check.to_be_bytes());
    let (mut chained, mut rest) = (head.clone(), bytes);
    while let Some((&len, bodies)) = rest.split_first() {
        let (body, further) = bodies.split_at(usize::from(len).min(bodies.len()));
        let record = [&[0, body.len() as u8], body].concat();
        check = digest::check(&record, check);
        chained.extend_from_slice(&[&record[..], &check.to_be_bytes()].concat());
        rest = further;
    }
    for journal in [bytes, &[&head[..], bytes].concat(), &chained] {
        let files = [tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("another")];
        let [file, data] = &files;
        file.write_all_at(journal, 0).expect("room in it");
        data.set_len(size.min(300_000)).expect("room in it");
        data.write_all_at(b"content", 65_530).expect("room in it");
        // At the boot that it was begun at, and at another.
        for boot in [[7; 16], [8; 16]] {
            let open = || {
                let opened = Journal::open(file.try_clone().expect("a file"), &path, &identity, boot).expect("it can be read");
                opened.map(|(journal, here)| (here, journal.unsure().clone(), journal))
            };
            let Some((here, unsure, mut read)) = open() else { continue };
            assert!(here.iter().chain(unsure.iter()).all(|range| range.end <= size && !range.is_empty()));
            assert!(unsure.iter().all(|range| here.within(&range).next().is_none()), "both sure and not");
            let len = file.metadata().expect("a file").len();
            assert!(len >= head.len() as u64 && len <= journal.len() as u64);
            let (again, still, _) = open().expect("it is still there");
            assert_eq!((&again, &still), (&here, &unsure));
            assert_eq!(file.metadata().expect("a file").len(), len);
            if boot == [8; 16] {
                let good = read.verify(data, &mut || Ok(())).expect("it can be read and written");
                assert!(good.iter().all(|range| unsure.covers(&range)), "more than was asked for");
                let mut all = Ranges::default();
                here.iter().chain(good.iter()).for_each(|range| all.insert(range).expect("few pieces"));
                let (found, unsure, _) = open().expect("it is still there");
                assert!(found == all && unsure.is_empty(), "{found:?} and {unsure:?} instead of {all:?}");
            }
        }
    }
}
