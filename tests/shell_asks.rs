//! What `send shell` asks of a receiver, and what it makes of the answers: also of those that no receiver of
//! ours gives.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use common::*;
use parallel_transfer::entry::{Attributes, Identity, Listed, ListedKind};
use parallel_transfer::protocol::v2::{MAGIC, reply, request};
use parallel_transfer::protocol::{Answer, Features, Page, QuotaSpace, Reply, Request, Space, Status};

/// What is done at one request.
enum Act {
    /// These replies.
    Say(Vec<Reply>),
    /// The connection ends without one.
    Close,
}

/// A receiver that asks `answer` what to say, and what it was asked.
struct Scripted {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn start(answer: impl Fn(&Request<'_>, usize) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &answer, &noted);
            }
        });
        Self { port, asked }
    }

    /// Does commands; gives the exit code, what was printed and what was said.
    fn shell(&self, commands: &str) -> (i32, String, String) {
        let mut command = send_command();
        command.args(["shell", "--plain", "--server", "127.0.0.1", "--port", &self.port.to_string(), "-c", commands]);
        let output = run(&mut command);
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// Requests of one kind so far, as they show themselves.
    fn asked(&self, kind: &str) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with(kind)).cloned().collect()
    }
}

/// One connection, until its end.
fn serve(mut stream: TcpStream, answer: &impl Fn(&Request<'_>, usize) -> Act, asked: &Mutex<Vec<String>>) {
    let (mut bytes, mut room) = (Vec::new(), [0; 4096]);
    let mut is_new = true;
    while let Ok(len @ 1..) = stream.read(&mut room) {
        bytes.extend_from_slice(&room[..len]);
        if is_new && bytes.len() >= MAGIC.len() {
            bytes.drain(..MAGIC.len());
            is_new = false;
        }
        while let Ok(Some((asking, len))) = request::decode(&bytes) {
            let act = match &asking {
                Request::Hello { .. } => Act::Say(vec![Reply::Welcome { version: 2, features: Features::OURS }]),
                Request::Open(_) => Act::Say(vec![Reply::Opened { is_new: false, is_known: false, landed: b"/".to_vec() }]),
                other => {
                    let mut asked = asked.lock().unwrap();
                    asked.push(format!("{other:?}"));
                    answer(other, asked.len())
                }
            };
            let Act::Say(replies) = act else { return };
            let mut said = Vec::new();
            replies.iter().for_each(|said_one| reply::encode(&mut said, said_one));
            if stream.write_all(&said).is_err() || replies.iter().any(|reply| matches!(reply, Reply::Refused(_))) {
                return;
            }
            bytes.drain(..len);
        }
    }
}

fn listed(name: &str, kind: char) -> Listed {
    let identity = Identity { size: 7, mtime: (0, 0), tag: [0; 16] };
    let kind = match kind {
        'd' => ListedKind::Directory { mtime: (0, 0) },
        _ => ListedKind::File { identity, is_sparse: false, names: 1 },
    };
    Listed { name: name.as_bytes().into(), kind, attributes: Attributes { mode: 0o644, ..Attributes::default() } }
}

fn page(entries: Vec<Listed>) -> Act {
    Act::Say(vec![Reply::Heartbeat, Reply::Listed(Page { is_last: true, entries })])
}

fn denied(reason: &str) -> Act {
    Act::Say(vec![Reply::Answer(Answer { status: Status::Refused, reason: reason.to_owned() })])
}

fn done() -> Act {
    Act::Say(vec![Reply::Answer(Answer::of(Status::Stored))])
}

/// `d` is a folder with `e` in it, `f` a file; anything else is not there.
fn small_tree(asked: &Request<'_>, _: usize) -> Act {
    let space = Space {
        quota: Some(QuotaSpace { bytes: 1 << 20, files: 3, bytes_max: 1 << 21, files_max: 9 }),
        free: 1 << 30,
        size: 1 << 40,
    };
    match asked {
        Request::List(list) if list.itself => match list.path.as_bytes() {
            b"" | b"d" | b"d/e" => page(vec![listed("", 'd')]),
            b"f" => page(vec![listed("", '-')]),
            _ => denied("it is not there"),
        },
        Request::List(list) => match list.path.as_bytes() {
            b"" => page(vec![listed("f", '-'), listed("d", 'd')]),
            b"d" => page(vec![listed("e", 'd')]),
            b"d/e" => page(Vec::new()),
            _ => denied("it is not there"),
        },
        Request::Space => Act::Say(vec![Reply::Space(space)]),
        Request::Sum { path, .. } if path.as_bytes() == b"f" => Act::Say(vec![Reply::Heartbeat, Reply::Sum(vec![0xab; 16])]),
        Request::Remove { path, .. } if !matches!(path.as_bytes(), b"d" | b"d/e" | b"f") => denied("it is not there"),
        Request::Sum { .. } => denied("it is a folder"),
        _ => done(),
    }
}

#[test]
fn changes_are_asked_for_by_whole_paths() {
    for (commands, kind, expected) in [
        ("rm f", "Remove", vec!["Remove { path: RemotePath(f), is_recursive: false }"]),
        (
            "cd d; rm -rf ../f e",
            "Remove",
            vec!["Remove { path: RemotePath(f), is_recursive: true }", "Remove { path: RemotePath(d/e), is_recursive: true }"],
        ),
        ("rm -r d", "Remove", vec!["Remove { path: RemotePath(d), is_recursive: true }"]),
        ("rm [f-z]", "Remove", vec!["Remove { path: RemotePath(f), is_recursive: false }"]),
        ("rmdir d/e", "Remove", vec!["Remove { path: RemotePath(d/e), is_recursive: false }"]),
        ("mv f g", "Rename", vec!["Rename { from: RemotePath(f), to: RemotePath(g) }"]),
        ("mv f d", "Rename", vec!["Rename { from: RemotePath(f), to: RemotePath(d/f) }"]),
        ("cd d; mv /f .", "Rename", vec!["Rename { from: RemotePath(f), to: RemotePath(d/f) }"]),
        (
            "mv f d/e /",
            "Rename",
            vec!["Rename { from: RemotePath(f), to: RemotePath(f) }", "Rename { from: RemotePath(d/e), to: RemotePath(e) }"],
        ),
        (
            "mkdir x 'y z'",
            "MakeDirectory",
            vec![
                "MakeDirectory { path: RemotePath(x), with_parents: false }",
                "MakeDirectory { path: RemotePath(y z), with_parents: false }",
            ],
        ),
        ("cd d; mkdir -p x/../y", "MakeDirectory", vec!["MakeDirectory { path: RemotePath(d/y), with_parents: true }"]),
    ] {
        let server = Scripted::start(small_tree);
        let (code, _, said) = server.shell(commands);
        assert_eq!((code, server.asked(kind)), (0, expected.into_iter().map(str::to_owned).collect()), "{commands}: {said}");
    }
}

#[test]
fn what_would_be_a_mistake_is_not_asked_for() {
    for (commands, expected, why) in [
        ("rm d", 1, "-r removes it"),
        ("rm d f", 3, "-r removes it"),
        ("rm -r /", 1, "not removed by that name"),
        ("cd d; rm -r .", 1, "not removed by that name"),
        ("cd d; rm -r e/..", 1, "not removed by that name"),
        ("rm -r ''", 1, "empty"),
        ("rm none", 1, "it is not there"),
        ("rm *.none", 1, "nothing matches"),
        ("rm", 2, "a name is missing"),
        ("rmdir f", 1, "not a folder"),
        ("mv none g", 0, ""),
        ("mv d d/e/x", 1, "into itself"),
        ("mv / x", 1, "top of all"),
        ("mv f g/", 1, "not a folder"),
        ("mv f d g", 1, "not a folder"),
        ("mv f", 2, "a name is missing"),
        ("rm -f none d/none none/none *.none", 0, ""),
        ("rm -f", 0, ""),
    ] {
        let server = Scripted::start(small_tree);
        let (code, _, said) = server.shell(commands);
        assert!(code == expected && said.contains(why), "{commands}: {code} {said}");
        let removed = server.asked("Remove").into_iter().filter(|asked| !asked.contains("(f)")).count();
        assert!(removed == 0, "{commands}");
    }
}

#[test]
fn digests_and_room_are_printed_for_programs_and_people() {
    let server = Scripted::start(small_tree);
    let (code, out, said) = server.shell("sum --md5 f; df");
    let expected =
        format!("{}  f\nused: 1.00 MiB of 2.00 MiB (50 %), 3 of 9 files\ndisk: 1.00 GiB free of 1.00 TiB\n", "ab".repeat(16));
    assert_eq!((code, out), (0, expected), "{said}");
    // What is said at the login.
    assert!(said.contains("send shell: used: 1.00 MiB of 2.00 MiB"), "{said}");
    let (code, _, said) = server.shell("sum --md5 f d");
    assert!(code == 3 && said.contains("can't sum up 'd': it is a folder"), "{said}");
    // BLAKE3 has other digests.
    let (code, _, said) = server.shell("sum f");
    assert!(code == 1 && said.contains("answers out of turn"), "{said}");
}

#[test]
fn a_session_that_the_receiver_ended_is_opened_again_without_a_word() {
    let server = Scripted::start(|asked, count| match count {
        3 => Act::Say(vec![Reply::Refused("nothing was done for too long".to_owned())]),
        5 => Act::Close,
        _ => small_tree(asked, count),
    });
    // Space, a list; one that is refused and asked again; a list that gets no answer and is asked again.
    let (code, out, said) = server.shell("ls; ls; ls");
    assert_eq!((code, out.as_str()), (0, "d\nf\nd\nf\nd\nf\n"), "{said}");
    assert_eq!(server.asked("List").len(), 5);
}

#[test]
fn what_may_have_been_done_is_not_done_twice() {
    let server = Scripted::start(|asked, count| match asked {
        Request::Rename { .. } => Act::Close,
        _ => small_tree(asked, count),
    });
    let (code, _, said) = server.shell("mv f g; ls");
    assert!(code == 1 && said.contains("can't move 'f' to 'g': whether it was done is not known"), "{said}");
    assert_eq!(server.asked("Rename").len(), 1);
}

#[test]
fn answers_that_make_no_sense_end_a_command_and_nothing_else() {
    for reply in [
        Reply::Listed(Page { is_last: false, entries: Vec::new() }),
        Reply::Listed(Page { is_last: true, entries: vec![listed("", 'd')] }),
        Reply::Finished(Default::default()),
        Reply::Content,
        Reply::Had(vec![true]),
    ] {
        let shown = format!("{reply:?}");
        let server = Scripted::start(move |asked, count| match asked {
            Request::List(list) if !list.itself => Act::Say(vec![reply.clone()]),
            _ => small_tree(asked, count),
        });
        let (code, out, said) = server.shell("ls; pwd");
        assert_eq!((code, out.as_str()), (1, ""), "{shown}: {said}");
        assert!(said.contains("answers out of turn"), "{said}");
    }
}

// C25, and what a full folder is cut to
#[test]
fn a_list_that_is_too_long_is_cut_and_that_is_said() {
    let names = |start: usize| (start..start + 512).map(|index| listed(&format!("{index:06}"), '-')).collect();
    let server = Scripted::start(move |asked, count| match asked {
        Request::List(list) if !list.itself => {
            Act::Say((0..200).map(|index| Reply::Listed(Page { is_last: index == 199, entries: names(index * 512) })).collect())
        }
        _ => small_tree(asked, count),
    });
    let (code, out, said) = server.shell("ls");
    assert_eq!((code, out.lines().count()), (0, 100_000), "{said}");
    assert!(said.contains("2400 more names are not shown"), "{said}");
    let (code, _, said) = server.shell("rm *");
    assert!(code == 1 && said.contains("more than 100000 names"), "{said}");
    assert!(server.asked("Remove").is_empty());
}
