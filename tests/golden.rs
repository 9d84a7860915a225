//! The exact bytes of each frame: encoded they are the file's, decoded they are the value, every strict
//! prefix asks for more, and in version 2 every flipped bit is refused.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
mod common;

use std::fmt::Debug;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use common::*;
use parallel_transfer::compress::Level;
use parallel_transfer::digest::{Binding, Checksum, Digest};
use parallel_transfer::entry::{Attributes, Entry, FileMeta, Identity, Kind, Listed, ListedKind};
use parallel_transfer::limits::RELAY_NAME_LEN_MAX;
use parallel_transfer::path::RemotePath;
use parallel_transfer::protocol::v2::payload::Mark;
use parallel_transfer::protocol::v2::pipe::{self, Ending, Frame, Report, Setup, Task};
use parallel_transfer::protocol::v2::{MAGIC, VERSIONS, reply, request};
use parallel_transfer::protocol::{
    Algorithm, Answer, Credential, Decoded, Error, Features, Known, List, Names, Open, Page, Purpose, Put, QuotaSpace, Read,
    Reply, Request, Secret, Session, Space, Status, Token, Totals, Wanted, v1,
};
use parallel_transfer::pump::{self, Block, Ended, Inbox, Outbox, Run, Times};

/// The byte runs of a file of hex: separated by blank lines, with comments.
fn golden(name: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap();
    let code = |block: &str| block.lines().filter(|line| !line.starts_with('#')).collect::<String>();
    let bytes = |hex: String| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    text.split("\n\n").map(code).filter(|hex| !hex.is_empty()).map(bytes).collect()
}

fn expect_v1(frame: &[u8], header_len: usize, request: &Request<'_>) {
    for len in 0..header_len {
        assert_eq!(v1::decode(&frame[..len]), Ok(None), "{len} bytes of {frame:?}");
    }
    assert_eq!(v1::decode(frame), Ok(Some((request.clone(), header_len))));
}

#[test]
fn v1_frames_are_what_they_always_were() {
    let golden = golden("v1.hex");
    let [cd, done, cf, _, wf, digest, last] = &golden[..] else { panic!("{} runs", golden.len()) };
    let encoded = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        encode(&mut frame);
        frame
    };
    assert_eq!(&encoded(&|frame| v1::encode_make_directory(frame, b"/in/")), cd);
    expect_v1(cd, cd.len(), &Request::MakeDirectories(Names(b"/in/")));
    assert_eq!(&encoded(&|frame| v1::encode_create_file(frame, b"/in/x")), cf);
    expect_v1(cf, cf.len(), &Request::CreateFiles(Names(b"/in/x")));
    assert_eq!(encoded(&|frame| v1::encode_write(frame, b"/in/x", &(0..3))), wf[..wf.len() - 3]);
    expect_v1(wf, wf.len() - 3, &Request::Write { name: b"/in/x", range: 0..3 });
    let far = 999_999_999_999;
    assert_eq!(&encoded(&|frame| v1::encode_write(frame, b"x", &(far..far))), last);
    expect_v1(last, last.len(), &Request::Write { name: b"x", range: far..far });
    assert_eq!(done, &[v1::answer_to_list(true)]);
    assert_eq!(v1::answer_to_list(false), b'1');
    assert_eq!(&Digest::of(b"hi\n").to_hex()[..], digest);
}

#[test]
fn a_receiver_answers_the_golden_session_byte_for_byte() {
    let root = temp_dir();
    let recv = Recv::start(root.path());
    let stream = recv.connect();
    for pair in golden("v1.hex")[..6].chunks(2) {
        (&stream).write_all(&pair[0]).unwrap();
        assert_eq!(read_bytes(&stream, pair[1].len()), pair[1]);
    }
    assert_eq!(fs::read(recv.path("in/x")).unwrap(), b"hi\n");
}

const TOKEN: Token = Token(counting(0));
const SECRET: Token = Token(counting(32));
const MTIME: (i64, u32) = (1_700_000_000, 5);

/// `first`, `first + 1` and so on.
const fn counting<const LEN: usize>(first: u8) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let mut at = 0;
    while at < LEN {
        bytes[at] = first + at as u8;
        at += 1;
    }
    bytes
}

fn path(name: &str) -> RemotePath {
    RemotePath::parse(name.as_bytes()).unwrap()
}

fn plain(mode: u16) -> Attributes {
    Attributes { mode, owner: None, xattrs: Vec::new() }
}

fn rich() -> Attributes {
    Attributes { mode: 0o640, owner: Some((1000, 100)), xattrs: vec![(b"user.x"[..].into(), b"y"[..].into())] }
}

/// The large file of the golden frames, of which a part is put.
fn large_file() -> FileMeta {
    let identity = Identity { size: 600_000, mtime: (-1, 999_999_999), tag: counting(0) };
    FileMeta { identity, attributes: rich(), is_sparse: true }
}

fn file_x(size: u64, is_sparse: bool) -> FileMeta {
    FileMeta { identity: Identity { size, mtime: MTIME, tag: counting(0) }, attributes: plain(0o644), is_sparse }
}

/// A frame is its bytes, both ways; nothing shorter is one, and nothing that differs in a bit. `decode`
/// says whether it found the value.
fn expect_v2(bytes: &[u8], encoded: &[u8], shown: &dyn Debug, decode: impl Fn(&[u8]) -> Decoded<bool>) {
    assert_eq!(hex(encoded), hex(bytes), "{shown:?}");
    for len in 0..bytes.len() {
        assert_eq!(decode(&bytes[..len]), Ok(None), "{len} bytes of {shown:?}");
    }
    let longer = [bytes, b"next"].concat();
    for here in [bytes, &longer] {
        assert_eq!(decode(here), Ok(Some((true, bytes.len()))), "{shown:?}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.to_vec();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&wrong).is_err(), "bit {bit} of {shown:?}");
    }
}

/// Is it this value that was decoded?
fn is<T: PartialEq>(decoded: Decoded<T>, value: &T) -> Decoded<bool> {
    Ok(decoded?.map(|(found, len)| (found == *value, len)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds a request to bytes, and gives its value.
type Encode = Box<dyn Fn(&mut Vec<u8>) -> Request<'static>>;

/// The requests of the file, in its order, each with its bytes as we write them. A put decodes to
/// its value with the binding that encoding it gave.
fn requests() -> Vec<(Vec<u8>, Request<'static>)> {
    let hello = |bytes: &mut Vec<u8>| {
        request::encode_hello(bytes, VERSIONS, Features::BLAKE3);
        Request::Hello { versions: 2..=2, features: Features::BLAKE3 }
    };
    let open = |open: Open| {
        move |bytes: &mut Vec<u8>| {
            request::encode_open(bytes, &open);
            Request::Open(open.clone())
        }
    };
    let plain_open = Open::plain(TOKEN, Purpose::Bring);
    let rich_open = Open {
        directory: b"/in".to_vec(),
        credential: Credential::Ticket(SECRET),
        checksum: Checksum::Blake3,
        keeps_old: true,
        syncs: true,
        is_dry: true,
        ..plain_open
    };
    let user = b"alice".to_vec();
    let password = Credential::Password { user: user.clone(), password: Secret::from(b"pw".to_vec()) };
    let key = Credential::Key { user, public: counting(32), signature: counting(64) };
    let put = |name: &'static str, file: FileMeta, range: std::ops::Range<u64>| {
        move |bytes: &mut Vec<u8>| {
            let binding = request::encode_put(bytes, &path(name), &file, &range);
            Request::Put(Put { path: path(name), file: file.clone(), range: range.clone(), binding })
        }
    };
    let have = |bytes: &mut Vec<u8>| {
        let files = [(path("x"), file_x(3, false)), (path("a/b"), large_file())];
        request::encode_have(bytes, files.iter().map(|(path, file)| (path, file)));
        let known = |(path, file): (RemotePath, FileMeta)| {
            let Identity { size, mtime, .. } = file.identity;
            Known { path, size, mtime, attributes: file.attributes }
        };
        Request::Have(files.into_iter().map(known).collect())
    };
    let describe = |path: RemotePath, kind: Kind, attributes: Attributes| {
        move |bytes: &mut Vec<u8>| {
            let entry = Entry { path: path.clone(), kind: kind.clone(), attributes: attributes.clone() };
            request::encode_describe(bytes, &entry);
            Request::Describe(entry)
        }
    };
    let link = Kind::Symlink { target: b"../x"[..].into(), mtime: MTIME };
    let encoders: Vec<Encode> = vec![
        Box::new(hello),
        Box::new(open(rich_open)),
        Box::new(open(plain_open.clone())),
        Box::new(|bytes| {
            request::encode_join(bytes, &TOKEN);
            Request::Join(TOKEN)
        }),
        Box::new(put("a/b", large_file(), 262_144..600_000)),
        Box::new(put("x", file_x(3, false), 0..3)),
        Box::new(put("x", file_x(262_147, true), 0..262_147)),
        Box::new(put("x", file_x(3, false), 3..3)),
        Box::new(have),
        Box::new(describe(RemotePath::root(), Kind::Directory { mtime: MTIME }, plain(0o755))),
        Box::new(describe(path("a"), Kind::Directory { mtime: (-1, 999_999_999) }, rich())),
        Box::new(describe(path("a/l"), link, plain(0o777))),
        Box::new(describe(path("a/h"), Kind::HardLink { to: path("a/b") }, plain(0o644))),
        Box::new(|bytes| {
            request::encode_finish(bytes);
            Request::Finish
        }),
        Box::new(|bytes| {
            let FileMeta { identity: Identity { size, mtime, .. }, attributes, .. } = file_x(3, false);
            request::encode_verify(bytes, &path("x"), &file_x(3, false), &counting(32));
            Request::Verify(Known { path: path("x"), size, mtime, attributes }, counting(32))
        }),
        Box::new(open(Open { credential: password, ..plain_open.clone() })),
        Box::new(open(Open { credential: key, ..plain_open.clone() })),
        Box::new(|bytes| {
            request::encode_sign_up(bytes, b"alice", &Secret::from(b"pw".to_vec()));
            Request::SignUp { user: b"alice".to_vec(), password: Secret::from(b"pw".to_vec()) }
        }),
        Box::new(open(Open { directory: b"/out".to_vec(), purpose: Purpose::Browse, ..plain_open })),
    ];
    let encoded = |encode: Encode| {
        let mut bytes = Vec::new();
        let request = encode(&mut bytes);
        (bytes, request)
    };
    encoders.into_iter().chain(requests_of_trees()).chain(requests_of_compression()).map(encoded).collect()
}

/// Those that ask for compression, and the put of what came compressed.
fn requests_of_compression() -> Vec<Encode> {
    let open = Open {
        token: TOKEN,
        directory: b"/out".to_vec(),
        credential: Credential::None,
        checksum: Checksum::Xxh3,
        keeps_old: false,
        syncs: false,
        is_dry: false,
        purpose: Purpose::Browse,
        compression: Level::of(19),
    };
    vec![
        Box::new(|bytes| {
            request::encode_hello(bytes, VERSIONS, Features::OURS);
            Request::Hello { versions: 2..=2, features: Features::OURS }
        }),
        Box::new(move |bytes| {
            request::encode_open(bytes, &open);
            Request::Open(open.clone())
        }),
        Box::new(|bytes| {
            let (path, file, range) = (path("x"), file_x(203, false), 0..203);
            let binding = request::encode_put(bytes, &path, &file, &range);
            Request::Put(Put { path, file, range, binding })
        }),
    ]
}

/// Those that read, list and change what is there, or have connections passed on.
fn requests_of_trees() -> Vec<Encode> {
    let read = |path: RemotePath, file: FileMeta, range: std::ops::Range<u64>| {
        move |bytes: &mut Vec<u8>| {
            let FileMeta { identity, is_sparse, .. } = file;
            let binding = request::encode_read(bytes, &path, &identity, is_sparse, &range);
            Request::Read(Read { path: path.clone(), identity, is_sparse, range: range.clone(), binding })
        }
    };
    let list = |list: List| {
        move |bytes: &mut Vec<u8>| {
            request::encode_list(bytes, &list);
            Request::List(list.clone())
        }
    };
    let remove = |name: &'static str, is_recursive| {
        move |bytes: &mut Vec<u8>| {
            request::encode_remove(bytes, &path(name), is_recursive);
            Request::Remove { path: path(name), is_recursive }
        }
    };
    let make_directory = |with_parents| {
        move |bytes: &mut Vec<u8>| {
            request::encode_make_directory(bytes, &path("a/n"), with_parents);
            Request::MakeDirectory { path: path("a/n"), with_parents }
        }
    };
    let sum = |path: RemotePath, algorithm| {
        move |bytes: &mut Vec<u8>| {
            request::encode_sum(bytes, &path, algorithm);
            Request::Sum { path: path.clone(), algorithm }
        }
    };
    let secret = |text: &str| Secret::from(text.as_bytes().to_vec());
    let relay = |to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            request::encode_relay(bytes, to);
            Request::Relay { to: to.to_owned() }
        }
    };
    vec![
        Box::new(read(path("a/b"), large_file(), 262_144..600_000)),
        Box::new(read(path("x"), file_x(3, false), 0..3)),
        Box::new(read(RemotePath::root(), file_x(3, false), 0..3)),
        Box::new(list(List { path: path("a"), itself: false, owner: false, xattrs: false })),
        Box::new(list(List { path: RemotePath::root(), itself: true, owner: true, xattrs: true })),
        Box::new(remove("x", false)),
        Box::new(remove("a", true)),
        Box::new(|bytes| {
            request::encode_rename(bytes, &path("x"), &path("a/y"));
            Request::Rename { from: path("x"), to: path("a/y") }
        }),
        Box::new(make_directory(false)),
        Box::new(make_directory(true)),
        Box::new(sum(path("x"), Algorithm::Md5)),
        Box::new(sum(RemotePath::root(), Algorithm::Blake3)),
        Box::new(|bytes| {
            request::encode_space(bytes);
            Request::Space
        }),
        Box::new(move |bytes| {
            request::encode_change_password(bytes, &secret("pw"), &secret("new pw"));
            Request::ChangePassword { old: secret("pw"), new: secret("new pw") }
        }),
        Box::new(|bytes| {
            let open = Open::plain(TOKEN, Purpose::Relay);
            request::encode_open(bytes, &open);
            Request::Open(open)
        }),
        Box::new(relay("example.net:9000")),
        Box::new(relay("[2001:db8::7]:9000")),
    ]
}

fn replies() -> Vec<Reply> {
    let answer = |status, reason: &str| Reply::Answer(Answer { status, reason: reason.to_owned() });
    let missing = |path| Reply::Missing { path, reason: "no room".to_owned() };
    vec![
        Reply::Welcome { version: 2, features: Features::BLAKE3 },
        Reply::Opened { is_new: true, is_known: false, landed: b"/srv/in".to_vec() },
        answer(Status::Stored, ""),
        answer(Status::Published, ""),
        answer(Status::Had, ""),
        answer(Status::Mismatched, ""),
        answer(Status::Voided, ""),
        answer(Status::Refused, "ge\u{e4}ndert"),
        Reply::Had([true, false, false, false, false, false, false, false, true].to_vec()),
        missing(path("a/b")),
        missing(RemotePath::root()),
        Reply::Finished(Totals {
            files: 1,
            bytes: 2,
            folders: 3,
            links: 4,
            failed: 5,
            receiving_us: 6,
            verifying_us: 7,
            writing_us: 8,
        }),
        Reply::Heartbeat,
        Reply::Refused("busy".to_owned()),
        Reply::Doubted { had: vec![true, false, false], doubtful: vec![false, false, true] },
        Reply::Wanted(Wanted { bytes: 600_000, ranges: vec![0..262_144, 300_000..600_000] }),
        Reply::Listed(Page { is_last: false, entries: listed_of_all_kinds() }),
        Reply::Listed(Page { is_last: true, entries: Vec::new() }),
        Reply::Listed(Page { is_last: true, entries: vec![Listed { name: Box::default(), ..listed_x() }] }),
        Reply::Content,
        Reply::Sum(counting::<16>(0).to_vec()),
        Reply::Space(Space {
            quota: Some(QuotaSpace { bytes: 1, files: 2, bytes_max: 3, files_max: u64::MAX }),
            free: 5,
            size: 6,
        }),
        Reply::Space(Space { quota: None, free: 5, size: 6 }),
        Reply::Welcome { version: 2, features: Features::OURS.asking(Some(Level::default())) },
    ]
}

fn listed_x() -> Listed {
    let FileMeta { identity, attributes, is_sparse } = file_x(3, false);
    Listed { name: b"x"[..].into(), kind: ListedKind::File { identity, is_sparse, names: 1 }, attributes }
}

fn listed_of_all_kinds() -> Vec<Listed> {
    let listed = |name: &[u8], kind, attributes| Listed { name: name.into(), kind, attributes };
    let FileMeta { identity, attributes, is_sparse } = large_file();
    vec![
        listed(b"d", ListedKind::Directory { mtime: MTIME }, plain(0o755)),
        listed(b"l", ListedKind::Symlink { target: b"../x"[..].into(), mtime: MTIME }, plain(0o777)),
        listed_x(),
        listed(b"a", ListedKind::File { identity, is_sparse, names: 2 }, attributes),
        listed(b"p", ListedKind::Special { mtime: (-1, 999_999_999) }, plain(0o600)),
    ]
}

fn pipe_frames() -> Vec<Frame> {
    let setup = |session, is_new: bool| {
        Frame::Setup(Setup {
            addresses: vec!["127.0.0.1:9000".parse().unwrap(), "[fe80::1%3]:9000".parse().unwrap()],
            thread_num: 3,
            stall_ms: 120_000,
            retry_ms: 30_000,
            session,
            host_key: is_new.then(|| counting(32)),
            congestion: if is_new { "bbr" } else { "" }.to_owned(),
            wants_subtrees: is_new,
            is_tree: is_new,
            source: if is_new { &b"/data"[..] } else { b"/data/x" }.to_vec(),
        })
    };
    let task = Task { ticket: 7, alone: true, is_repeat: false, path: path("a/b"), file: large_file(), range: 262_144..600_000 };
    let failed = Report::of(7, Ending::SourceFailed, "ge\u{e4}ndert".to_owned());
    let wanted = Wanted { bytes: 4, ranges: vec![1..4, 6..7] };
    let subtrees = vec![(0, 262_144, counting(32))];
    vec![
        setup(Session::V1 { prefix: b"/in/".to_vec() }, false),
        setup(Session::V2 { token: TOKEN, checksum: Checksum::Blake3, features: Features::OURS, level: Level::of(19) }, true),
        Frame::Task(task),
        Frame::Report(failed),
        Frame::Report(Report { subtrees, ..Report::of(8, Ending::Stored, String::new()) }),
        Frame::Report(Report { wanted, ..Report::of(9, Ending::Wanted, String::new()) }),
        Frame::Report(Report::of(4096, Ending::WentOut, String::new())),
    ]
}

/// Which of the runs of the file are payloads, each of the put or the read that has this index among the
/// requests.
const PAYLOADS: [(usize, usize); 9] = [(7, 5), (8, 5), (9, 5), (10, 5), (12, 6), (13, 6), (15, 7), (29, 20), (48, 38)];

#[test]
fn every_frame_of_v2_is_its_bytes_both_ways_and_no_others() {
    let golden = golden("v2.hex");
    let is_payload = |index: usize| PAYLOADS.iter().any(|(payload, _)| *payload == index);
    let mut runs = golden.iter().enumerate().filter(|(index, _)| !is_payload(*index)).map(|(_, run)| run);
    assert_eq!(runs.next().unwrap(), &MAGIC);
    for ((encoded, value), bytes) in requests().iter().zip(&mut runs) {
        expect_v2(bytes, encoded, value, |bytes| is(request::decode(bytes), value));
    }
    for (value, bytes) in replies().iter().zip(&mut runs) {
        let mut encoded = Vec::new();
        reply::encode(&mut encoded, value);
        expect_v2(bytes, &encoded, value, |bytes| is(reply::decode(bytes), value));
    }
    for (value, bytes) in pipe_frames().iter().zip(&mut runs) {
        let mut encoded = Vec::new();
        pipe::encode(&mut encoded, value);
        expect_v2(bytes, &encoded, value, |bytes| is(pipe::decode(bytes), value));
    }
    assert_eq!(runs.next(), None);
}

/// A payload of the file, with what it is the payload of.
struct Payload {
    bytes: Vec<u8>,
    run: Run,
}

fn payloads() -> Vec<Payload> {
    let (golden, requests) = (golden("v2.hex"), requests());
    let checksum_of = |index| match index {
        8 | 13 => Checksum::Blake3,
        9 => Checksum::None,
        _ => Checksum::Xxh3,
    };
    let payload = |&(index, of): &(usize, usize)| {
        let (range, size, is_sparse, binding) = match requests[of].1.clone() {
            Request::Put(Put { file, range, binding, .. }) => (range, file.identity.size, file.is_sparse, binding),
            Request::Read(Read { identity, is_sparse, range, binding, .. }) => (range, identity.size, is_sparse, binding),
            other => panic!("{other:?} has no payload"),
        };
        let run = Run { range, size, is_sparse, checksum: checksum_of(index), binding };
        Payload { bytes: golden[index].clone(), run }
    };
    PAYLOADS.iter().map(payload).collect()
}

/// What bytes are as a payload, and the blocks in it.
fn take(mut bytes: &[u8], run: &Run) -> (io::Result<Ended>, Vec<(u64, Vec<u8>)>) {
    let mut blocks = Vec::new();
    let mut take = |block: Block<'_>| match block {
        Block::Data(offset, data, _) => blocks.push((offset, data.to_vec())),
        Block::Hole(range) => blocks.push((range.start, vec![0; usize::try_from(range.end - range.start).unwrap()])),
    };
    let ended = pump::blocks_to_file(&mut Inbox::default(), &mut bytes, run, &mut Times::default(), Some(&mut take), None);
    (ended.inspect(|_| assert!(bytes.len() < 40, "{} bytes were left", bytes.len())), blocks)
}

/// The range of the file that a payload is of: zeros, and `hi` and a line feed at its end.
fn content(run: &Run) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(run.range.end - run.range.start).unwrap()];
    if let Some(end) = content.last_chunk_mut() {
        *end = *b"hi\n";
    }
    content
}

fn is_compressed(payload: &[u8]) -> bool {
    payload.first() == Some(&(Mark::Compressed as u8))
}

#[test]
fn every_payload_of_v2_is_its_bytes_both_ways() {
    for Payload { bytes, run } in payloads() {
        let is_void = bytes == [0x44];
        let source = tempfile::tempfile().unwrap();
        source.set_len(run.size).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&source, b"hi\n", run.size - 3).unwrap();
        let (mut outbox, mut encoded) = (Outbox::default(), Vec::new());
        if !is_void {
            pump::file_to_blocks(&source, &run, &mut outbox, &mut encoded, &mut Times::default(), None).unwrap();
        }
        pump::end_blocks(&mut outbox, &mut encoded, !is_void).unwrap();
        outbox.flush(&mut encoded).unwrap();
        // What compresses may do so in more than one way.
        assert!(is_compressed(&bytes) || hex(&encoded) == hex(&bytes), "{run:?}");
        let (ended, blocks) = take(&bytes, &run);
        assert_eq!(ended.unwrap(), if is_void { Ended::Void } else { Ended::Same });
        let taken: Vec<u8> = blocks.into_iter().flat_map(|(_, data)| data).collect();
        assert!(is_void || taken == content(&run), "{run:?}");
    }
}

// B07, B08
#[test]
fn no_part_of_a_payload_and_no_flipped_bit_in_it_passes_for_it() {
    for Payload { bytes, run } in payloads() {
        for len in 0..bytes.len() {
            let (ended, _) = take(&bytes[..len], &run);
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::UnexpectedEof, "{len} bytes of {run:?}");
        }
        if run.checksum == Checksum::None {
            continue;
        }
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let (ended, blocks) = take(&wrong, &run);
            let content = content(&run);
            // One bit of the head of zstd's frames means nothing (RFC 8878, 3.1.1.1.1.3).
            let is_unused = is_compressed(&bytes) && bit == 8 * 8 + 4 && blocks == [(0, content.clone())];
            assert!(is_unused || !matches!(ended, Ok(Ended::Same | Ended::Void)), "bit {bit} of {run:?}: {ended:?}");
            for (offset, data) in blocks {
                let start = usize::try_from(offset - run.range.start).unwrap();
                assert!(content[start..].starts_with(&data), "bit {bit} of {run:?}: other bytes at {offset}");
            }
        }
    }
}

// B07
#[test]
fn a_payload_is_of_its_put_and_of_no_other() {
    let [payload, ..] = &payloads()[..] else { panic!("no payloads") };
    for binding in [Binding::default(), Binding::of(b"another body")] {
        let (ended, blocks) = take(&payload.bytes, &Run { binding, ..payload.run.clone() });
        assert_eq!((ended.unwrap(), blocks), (Ended::Mismatched, Vec::new()));
    }
}

// B03
#[test]
fn a_job_is_for_one_purpose_and_a_relay_is_asked_for_a_name_that_can_be_printed() {
    let of = |kind: u8, body: &[u8]| fake_server::raw_frame(kind, body);
    let open = |flags: u8| of(2, &[&TOKEN.0[..], &[0, flags, 0, 0, 0, 0]].concat());
    for (flags, purpose) in [(0, Purpose::Bring), (8, Purpose::Browse), (16, Purpose::Relay)] {
        let bytes = open(flags);
        assert!(matches!(request::decode(&bytes), Ok(Some((Request::Open(open), _))) if open.purpose == purpose), "{flags}");
    }
    assert_eq!(request::decode(&open(8 | 16)), Err(Error::Malformed("purpose of a session")));
    let longest = "x".repeat(RELAY_NAME_LEN_MAX);
    let relay = |name: &[u8]| of(0x12, &[&u16::try_from(name.len()).unwrap().to_be_bytes()[..], name].concat());
    let bytes = relay(longest.as_bytes());
    assert_eq!(request::decode(&bytes), Ok(Some((Request::Relay { to: longest.clone() }, bytes.len()))));
    for name in [&b""[..], b"a b:1", b"a\n:1", b"\xff:1", "ä:1".as_bytes(), format!("{longest}x").as_bytes()] {
        assert!(request::decode(&relay(name)).is_err(), "{name:?}");
    }
}
