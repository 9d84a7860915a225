//! The modes of folders while a job goes on, and after its end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use parallel_transfer::entry::{Attributes, Kind};
use parallel_transfer::protocol::{Open, Status};

use crate::client::*;
use crate::common::yard::Yard;
use crate::common::*;

fn mode(yard: &Yard, name: &str) -> u32 {
    fs::metadata(yard.root().join(name)).unwrap().permissions().mode() & 0o7777
}

/// What the umask leaves of a folder's mode, here as in the receiver.
fn usual_mode() -> u32 {
    let place = temp_dir();
    let probe = place.path().join("probe");
    fs::create_dir(&probe).unwrap();
    fs::metadata(probe).unwrap().permissions().mode() & 0o777
}

fn folder_of(name: &str, mode: u16) -> Vec<u8> {
    describe_with(name, Kind::Directory { mtime: (1, 2) }, Attributes { mode, ..attributes() })
}

// C17
#[test]
fn a_folder_is_its_owners_alone_until_the_end_in_whatever_order_all_comes() {
    let mut yard = Yard::new();
    let mut client = Client::with(&yard.recv, &Open { directory: b"above/in".to_vec(), ..open(new_token()) });
    // Nothing of the job is in it: it is as any program makes it.
    assert_eq!(mode(&yard, "above"), usual_mode());
    let content = noise(700_000, 1);
    assert_eq!(client.ask(&put("a/b/small", b"small")), Status::Published);
    assert_eq!(client.ask(&put_range("c/d/large", &content, 0..300_000, 1)), Status::Stored);
    assert_eq!(client.ask(&folder_of("e/f", 0o751)), Status::Stored);
    let folders = ["", "/a", "/a/b", "/c", "/c/d", "/e", "/e/f"].map(|name| format!("above/in{name}"));
    let expect_private = || folders.iter().for_each(|name| assert_eq!(mode(&yard, name), 0o700, "{name}"));
    expect_private();
    for (name, mode) in [("", 0o750), ("a", 0o700), ("c", 0o500)] {
        assert_eq!(client.ask(&folder_of(name, mode)), Status::Stored);
    }
    assert_eq!(client.ask(&hard_link("g/link", "a/b/small")), Status::Stored);
    assert_eq!(client.ask(&put_range("c/d/large", &content, 300_000..700_000, 1)), Status::Published);
    expect_private();
    client.finish_well();
    let usual = usual_mode();
    let modes = [0o750, 0o700, usual, 0o500, usual, usual, 0o751];
    for (name, expected) in folders.iter().zip(modes).chain([(&"above/in/g".to_owned(), usual)]) {
        assert_eq!(mode(&yard, name), expected, "{name}");
    }
    drop(client);
    yard.expect_well();
}

// C17
#[test]
fn a_folder_of_a_job_that_nobody_ended_gets_the_usual_mode_unless_it_was_described() {
    let mut yard = Yard::new();
    let mut client = Client::opened(&yard.recv);
    assert_eq!(client.ask(&put("a/x", b"x")), Status::Published);
    assert_eq!(client.ask(&put("b/x", b"x")), Status::Published);
    assert_eq!(client.ask(&folder_of("b", 0o777)), Status::Stored);
    assert_eq!((mode(&yard, "in"), mode(&yard, "in/a")), (0o700, 0o700));
    drop(client);
    yard.recv.process.signal("TERM");
    assert_eq!(yard.recv.process.wait(), Some(0));
    assert_eq!(["in", "in/a", "in/b"].map(|name| mode(&yard, name)), [usual_mode(), usual_mode(), 0o700]);
}

// C17
#[test]
fn a_folder_that_was_there_keeps_its_mode_unless_it_is_described() {
    let yard = Yard::prepared(|root| {
        for name in ["in", "in/there", "in/known"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o2710)).unwrap();
        }
    });
    let mut client = Client::opened(&yard.recv);
    assert_eq!(client.ask(&put("there/x", b"x")), Status::Published);
    assert_eq!(client.ask(&folder_of("known", 0o755)), Status::Stored);
    client.finish_well();
    assert_eq!(["in", "in/there", "in/known"].map(|name| mode(&yard, name)), [0o2710, 0o2710, 0o2755]);
}
