//! The rules of the house that a reader of the source can check.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;

/// What each top-level module may use of the others. A new arrow is a change of design, and needs a
/// sentence in docs/ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("stop", &[]),
    ("path", &["limits"]),
    ("entry", &["path"]),
    ("ranges", &["limits"]),
    ("subtrees", &["limits"]),
    ("digest", &["subtrees", "limits"]),
    ("compress", &["limits"]),
    ("progress", &["path", "limits"]),
    ("exit", &["progress"]),
    ("signals", &["stop"]),
    ("flags", &["net"]),
    ("protocol", &["path", "entry", "digest", "compress", "limits"]),
    ("net", &["limits", "stop"]),
    ("store", &["path", "entry", "ranges", "digest", "limits"]),
    ("pump", &["protocol", "digest", "subtrees", "compress", "limits"]),
    ("landing", &["store", "protocol", "pump", "path", "entry", "digest", "ranges", "subtrees", "limits", "progress"]),
    ("ticket", &["net", "protocol", "limits"]),
    ("secret", &["protocol", "path", "limits"]),
    ("login_key", &["limits"]),
    (
        "client",
        &[
            "net",
            "landing",
            "store",
            "protocol",
            "pump",
            "login_key",
            "secret",
            "path",
            "entry",
            "ranges",
            "digest",
            "subtrees",
            "compress",
            "limits",
            "progress",
            "stop",
        ],
    ),
    (
        "server",
        &[
            "net",
            "landing",
            "store",
            "protocol",
            "pump",
            "login_key",
            "path",
            "entry",
            "digest",
            "compress",
            "limits",
            "progress",
            "stop",
        ],
    ),
    ("terminal", &["progress", "exit", "stop", "path", "secret"]),
    ("lib", &[]),
];

/// Who may know that there is a version 1: where its bytes are made and read. This may only shrink.
const KNOW_V1: &[&str] = &["client/create.rs", "client/mod.rs", "server/connection.rs"];

/// Who may start threads.
const START_THREADS: &[&str] =
    &["client/grow.rs", "client/mod.rs", "client/process.rs", "client/pull.rs", "server/finish.rs", "server/mod.rs"];

/// In whose scope threads end that others start.
const HOLD_THREADS: &[&str] = &["client/mod.rs", "client/pull.rs"];

/// Lines of a file of the program, and of a file of tests, which is a table of cases.
const LINES_MAX: (usize, usize) = (600, 900);

/// Source files below `src` but not `src/bin`: name, and code without tests and comments.
fn sources() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(&top).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let named = files.map(|entry| (entry.path().strip_prefix(&top).unwrap().to_str().unwrap().to_owned(), entry.into_path()));
    let library = named.filter(|(name, _)| !name.starts_with("bin/") && !name.ends_with("/tests.rs"));
    library.map(|(name, path)| (name, without_tests(&fs::read_to_string(path).unwrap()))).collect()
}

fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn module_of(name: &str) -> &str {
    name.split(['/', '.']).next().unwrap()
}

/// The top-level modules that code names behind `crate::`, braces included.
fn used(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect::<String>();
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(list.split('}').next().unwrap().split(',').map(|item| word(item.trim()))),
            None => names.push(word(rest)),
        }
    }
    names
}

#[test]
fn every_arrow_is_in_the_table() {
    let sources = sources();
    assert!(sources.len() > 30);
    for (name, code) in sources {
        let module = module_of(&name);
        let (_, allowed) = ARROWS.iter().find(|(known, _)| *known == module).unwrap_or_else(|| panic!("{name} is in no row"));
        for used in used(&code).iter().filter(|used| *used != module) {
            assert!(allowed.contains(&used.as_str()), "{name} uses {used}");
        }
    }
}

#[test]
fn modules_keep_from_what_is_not_theirs() {
    let rules: &[(&str, &[&str])] = &[
        (
            "protocol",
            &["TcpStream", "UdpSocket", "UnixStream", "std::fs", "std::thread", "SystemTime", "Instant", "tracing", "anyhow"],
        ),
        ("net", &["crate::protocol", "crate::store", "RemotePath"]),
        ("store", &["crate::protocol", "crate::net", "peer"]),
        ("pump", &["tracing", "features", "retry"]),
        ("client", &["crate::server", "std::process::exit"]),
        ("server", &["crate::client", "std::process::exit"]),
        ("progress", &["println", "std::fs", "std::net"]),
    ];
    for (name, code) in sources() {
        for (_, forbidden) in rules.iter().filter(|(module, _)| *module == module_of(&name)) {
            for word in *forbidden {
                assert!(!code.contains(word), "{name} has {word}");
            }
        }
        assert!(name == "terminal.rs" || !code.contains("println!"), "{name} prints");
        assert!(!code.contains("unsafe"), "{name} has unsafe code");
        let starts = code.contains("thread::Builder");
        assert!(!starts || START_THREADS.contains(&name.as_str()), "{name} starts threads");
        let holds = code.contains("thread::scope");
        assert!(!holds || START_THREADS.iter().chain(HOLD_THREADS).any(|known| *known == name), "{name} holds threads");
        let knows = code.contains("v1::");
        assert!(!knows || name.starts_with("protocol/") || KNOW_V1.contains(&name.as_str()), "{name} knows of v1");
    }
}

#[test]
fn what_both_programs_do_stands_once() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let files = walkdir::WalkDir::new(top).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let code: String = files.map(|entry| without_tests(&fs::read_to_string(entry.path()).unwrap())).collect();
    for words in ["\"XDG_STATE_HOME\"", "\"XDG_CONFIG_HOME\"", "\"new receiver: its key"] {
        assert_eq!(code.matches(words).count(), 1, "{words}");
    }
}

#[test]
fn every_limit_has_a_reason_and_a_use() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_limits = |name: &str| name.starts_with("limits");
    let limits: String = ["src/limits.rs", "src/limits/compress.rs", "src/limits/net.rs", "src/limits/tune.rs"]
        .iter()
        .map(|file| fs::read_to_string(top.join(file)).unwrap())
        .collect();
    let mut code: String = sources().into_iter().filter(|(name, _)| !is_limits(name)).map(|(_, code)| code).collect();
    for file in walkdir::WalkDir::new(top.join("src/bin")).into_iter().map(Result::unwrap) {
        if file.file_type().is_file() {
            code.push_str(&fs::read_to_string(file.path()).unwrap());
        }
    }
    let lines: Vec<&str> = limits.lines().collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub const")) {
        let name = line.split([' ', ':']).nth(2).unwrap();
        assert!(lines[index - 1].starts_with("///"), "{name} has no reason");
        // Some are there for the relations between them, which are checked where they stand.
        let related = limits.matches(name).count() > 1;
        assert!(code.contains(name) || related, "{name} limits nothing");
    }
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Put together, so that this file does not hold the words.
    let left_open = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["unimple", "mented!"], ["to", "do!("]]
        .map(|[one, two]| format!("{one}{two}"));
    for folder in ["src", "tests", "benches", "docs"] {
        for entry in
            walkdir::WalkDir::new(top.join(folder)).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file())
        {
            let (path, text) = (entry.path(), fs::read_to_string(entry.path()).unwrap());
            let is_merged = !text.lines().any(|line| line.starts_with(&"<".repeat(7)) || line.starts_with(&">".repeat(7)));
            assert!(is_merged, "{} was not merged to the end", path.display());
            for word in &left_open {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
            if path.extension().is_some_and(|extension| extension == "rs") {
                assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
                let lines = text.lines().count();
                let lines_max = if folder == "tests" { LINES_MAX.1 } else { LINES_MAX.0 };
                assert!(lines <= lines_max, "{} has {lines} lines", path.display());
            }
        }
    }
}
