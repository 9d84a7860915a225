//! Trees that are read, listed and changed by their names: our programs against a peer of another make,
//! both ways.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::*;

/// The part of the v2 peer in Python that is about trees.
fn peer() -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/v2_tree_peer.py"));
    command
}

#[test]
fn the_peer_makes_the_golden_frames() {
    let golden = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2.hex")).unwrap();
    let code = |block: &str| block.lines().filter(|line| !line.starts_with('#')).collect::<String>();
    let golden: Vec<String> = golden.split("\n\n").map(code).collect();
    let made = text(&expect_code(peer().arg("frames"), 0).stdout);
    let mut rest = golden.iter();
    for frame in made.lines() {
        assert!(rest.any(|golden| golden == frame), "{frame} is not in the file, or not in its order");
    }
    assert_eq!(made.lines().count(), 23);
}
