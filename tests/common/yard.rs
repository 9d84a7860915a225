//! A receiver whose surroundings are watched.

use std::fs;
use std::path::Path;

use super::*;

/// What takes longer was waiting for something.
pub const QUICK: Duration = Duration::from_secs(10);

/// A receiver whose root has neighbours that nobody may touch.
pub struct Yard {
    pub recv: Recv,
    outer: TempDir,
    outside: Vec<(String, Option<Vec<u8>>)>,
}

impl Yard {
    pub fn new() -> Self {
        Self::prepared(|_| {})
    }

    /// With a root that was prepared before the receiver started.
    pub fn prepared(prepare: impl FnOnce(&Path)) -> Self {
        let outer = temp_dir();
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        for name in ["sentinel", "outside/sentinel", "outside/in/x", "root2/sentinel"] {
            write(&outer.path().join(name), name);
        }
        prepare(&root);
        let recv = Recv::start(&root);
        let mut yard = Self { recv, outer, outside: Vec::new() };
        yard.outside = yard.look_outside();
        yard
    }

    /// All that is beside the root, with its content.
    pub fn look_outside(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let top = self.outer.path();
        let walk = walkdir::WalkDir::new(top).sort_by_file_name().into_iter();
        // The root may hold paths that are too long for a walk.
        let entries = walk.filter_entry(|entry| entry.path() != self.root()).map(|entry| entry.unwrap().into_path());
        entries.map(|path| (path.to_str().unwrap().to_owned(), fs::read(path).ok())).collect()
    }

    /// Nothing is left over, the process is well, nothing outside changed, no log line is a trick.
    pub fn expect_well(&mut self) {
        self.recv.expect_idle();
        assert_eq!(self.look_outside(), self.outside);
        expect_printable(&self.recv.process.log());
    }

    pub fn root(&self) -> &Path {
        &self.recv.root
    }

    pub fn outside(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    pub fn names(&self) -> Vec<String> {
        list(self.root())
    }

    /// Sends a frame that is refused at once, with one log line that has `why` in it.
    pub fn refuses(&mut self, frame: &[u8], why: &str) {
        let shown = text(&frame[..frame.len().min(100)]);
        let (start, log_len) = (Instant::now(), self.recv.process.log().len());
        let stream = self.recv.connect();
        let peer = stream.local_addr().unwrap().to_string();
        let refusal = if frame.starts_with(b"wf") { "" } else { "1" };
        assert_eq!(text(&raw(&stream, frame)), refusal, "to {shown:?}");
        assert!(start.elapsed() < QUICK, "{shown:?} was refused after {:?}", start.elapsed());
        drop(stream);
        let lines = || {
            let log = self.recv.process.log();
            let whole = log.rfind('\n').map_or(log_len, |end| end.max(log_len));
            log[log_len..whole].lines().filter(|line| line.contains(&peer)).map(str::to_owned).collect::<Vec<_>>()
        };
        wait_until(&format!("the log has a line about {shown:?}"), || !lines().is_empty());
        let lines = lines();
        assert!(lines.len() == 1 && lines[0].contains(why), "not one line with '{why}' but {lines:#?}");
        self.expect_well();
    }

    /// The same for `cd`, `cf` and `wf` of a name.
    pub fn refuses_all(&mut self, name: impl AsRef<[u8]>, why: &str) {
        for operation in ["cd", "cf", "wf"] {
            self.refuses(&frame(operation, name.as_ref(), b"new"), why);
        }
    }

    /// Creates a file by frames and writes to it.
    pub fn stores(&mut self, name: impl AsRef<[u8]>, bytes: &[u8]) {
        let name = name.as_ref();
        let frames = [frame("cf", name, b""), frame("wf", name, bytes)].concat();
        assert_eq!(text(&self.recv.raw(&frames)), text(&stored(bytes)), "{}", text(name));
        self.expect_well();
    }
}

/// The answer to `cf` and `wf`.
pub fn stored(bytes: &[u8]) -> Vec<u8> {
    [b"0", &md5_hex(bytes)[..]].concat()
}

/// A frame about a name of any bytes; `bytes` are for `wf`.
pub fn frame(operation: &str, name: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut frame = [format!("{operation}{:06}", name.len()).as_bytes(), name].concat();
    if operation == "wf" {
        frame.extend([format!("{:012}{:012}", 0, bytes.len()).as_bytes(), bytes].concat());
    }
    frame
}

pub fn expect_printable(log: &str) {
    let tricks = |char: &char| char.is_control() && *char != '\n' || ('\u{202a}'..='\u{202e}').contains(char);
    assert_eq!(log.chars().find(tricks), None, "{log:?}");
}
