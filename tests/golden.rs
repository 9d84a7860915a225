//! The exact bytes of each frame: encoded they are the file's, decoded they are the value, and every
//! strict prefix asks for more.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
mod common;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use common::*;
use parallel_transfer::digest::Digest;
use parallel_transfer::protocol::{Names, Request, v1};

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
