//! What of a source is sent: rules that leave names out, and what a walk must not fall into.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "a test says what it skips")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::*;

/// Copies on this machine; gives what arrived, and what was said.
fn copy(from: &Path, flags: &[&str], code: i32) -> (Vec<String>, String) {
    let target = temp_dir();
    let mut command = send_command();
    command.arg("--file").arg(from).arg("--remote_dir").arg(target.path()).args(flags);
    let output = expect_code(&mut command, code);
    (list(target.path()), text(&output.stdout) + &text(&output.stderr))
}

fn photos() -> TempDir {
    let top = temp_dir();
    for name in ["a.jpg", "notes.txt", "2026/b.jpg", "2026/b.raw", "2026/raw/c.jpg", "cache/d.jpg", "#save#"] {
        write(&top.path().join(name), name);
    }
    top
}

#[test]
fn only_what_an_include_names_is_sent_in_both_ways_of_saying_it() {
    let (top, root) = (photos(), temp_dir());
    let expected = ["2026", "2026/b.jpg", "2026/raw", "2026/raw/c.jpg", "a.jpg", "cache", "cache/d.jpg"];
    for flags in [&["--exclude", "*", "--include", "*/", "--include", "*.jpg"][..], &["--include", "*.jpg"]] {
        assert_eq!(copy(top.path(), flags, 0).0, expected, "{flags:?}");
    }
    let recv = Recv::start(root.path());
    expect_code(&mut send_v1(recv.port, top.path(), "in", &["--include", "*.jpg"]), 0);
    assert_eq!(list(&recv.path("in")), expected);
}

#[test]
fn rules_count_in_the_order_they_are_given_in_whatever_flag_gives_them() {
    let top = photos();
    let (_, said) = copy(top.path(), &["--exclude", "*.jpg"], 0);
    assert!(said.contains("complete: 3 files and 3 folders") && said.contains("; 4 names left out as asked"), "{said}");
    let rules = top.path().join("rules");
    fs::write(&rules, "# what is not for others\n/rules\n*.jpg\n").unwrap();
    let rules = rules.to_str().unwrap();
    for (flags, is_sent) in [
        (["--exclude_from", rules, "--include", "a.jpg"], true),
        (["--include", "a.jpg", "--exclude-from", rules], false),
        (["--exclude", "*.txt", "--exclude_from", rules], false),
    ] {
        assert_eq!(copy(top.path(), &flags, 0).0.contains(&"a.jpg".to_owned()), is_sent, "{flags:?}");
    }
    assert!(!copy(top.path(), &["--exclude", "#*#"], 0).0.contains(&"#save#".to_owned()));
    // A folder that is left out is not even opened.
    let (names, said) = copy(top.path(), &["--exclude", "2026/", "--json"], 0);
    assert!(names.iter().all(|name| !name.starts_with("2026")), "{names:?}");
    assert!(said.contains("\"excluded\":1,"), "{said}");
    // What the user names is sent.
    assert_eq!(copy(&top.path().join("a.jpg"), &["--exclude", "*.jpg"], 0).0, ["a.jpg"]);
}

#[test]
fn rules_that_mean_nothing_are_refused_by_name() {
    let top = photos();
    for glob in ["x[a", "{a", "", "./a", "a//b"] {
        for flag in ["--exclude", "--include"] {
            let (names, said) = copy(top.path(), &[flag, glob], 2);
            assert!(names.is_empty() && said.contains(&format!("'{glob}' for '{flag} <GLOB>'")), "{said}");
        }
    }
    let (_, said) = copy(top.path(), &["--include", "*/", "--include", "*.jpg", "--exclude", "*"], 2);
    assert!(said.contains("the last rule that matches wins"), "{said}");
    let rules = top.path().join("rules");
    for (content, word) in [(&b"a\n{b\n"[..], "line 2 of"), (b"a\nb\n\xff\n", "line 3 of"), (b"", "No such file")] {
        if content.is_empty() {
            fs::remove_file(&rules).unwrap()
        } else {
            fs::write(&rules, content).unwrap()
        }
        let (names, said) = copy(top.path(), &["--exclude_from", rules.to_str().unwrap()], 1);
        assert!(names.is_empty() && said.contains(word) && said.contains(rules.to_str().unwrap()), "{said}");
    }
    for flag in ["--owner", "--xattrs"] {
        let output = expect_code(&mut send_v1(1, top.path(), "/", &[flag]), 1);
        assert!(text(&output.stderr).contains("protocol v1 can't keep"));
    }
}

// C22
#[test]
fn a_folder_mounted_below_itself_is_named_and_the_rest_is_sent() {
    let (top, target) = (temp_dir(), temp_dir());
    write(&top.path().join("a/b/file"), "x");
    write(&top.path().join("side/file"), "x");
    write(&top.path().join("a/z"), "x");
    for folder in ["a/b/loop", "a/b/other"] {
        fs::create_dir(top.path().join(folder)).unwrap();
    }
    // Seen by this command alone.
    let script = "mount --rbind a a/b/loop && mount --bind side a/b/other || exit 99
        exec \"$0\" --file . --remote_dir \"$1\" --json";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_send")]).arg(target.path()).current_dir(top.path());
    let Ok(output) = command.output() else {
        eprintln!("SKIPPED C22: no unshare here");
        return;
    };
    if output.status.code() != Some(3) && text(&output.stdout).is_empty() {
        eprintln!("SKIPPED C22: can't mount here: {}", text(&output.stderr));
        return;
    }
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["failed"], &json["failures"][0]["path"]), (&1.into(), &"a/b/loop".into()), "{json}");
    // The same folder twice, one not below the other, is no loop.
    let all = ["a", "a/b", "a/b/file", "a/b/other", "a/b/other/file", "a/z", "side", "side/file"];
    assert_eq!(list(target.path()), all);
}
