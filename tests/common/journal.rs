//! Journals as docs/JOURNAL.md describes them, read and written by another hand than the program's.

use std::collections::BTreeSet;

use twox_hash::XxHash3_64;

use super::*;

/// Bytes of a block.
pub const BLOCK: u64 = 65_536;

/// Where the fields of a header are.
const VERSION_AT: usize = 4;
const BOOT_AT: usize = 5;
const PATH_LEN_AT: usize = 57;

/// A journal, without its checks.
pub struct JournalFile {
    path: PathBuf,
    header: Vec<u8>,
    bodies: Vec<Vec<u8>>,
}

impl JournalFile {
    /// The only one in a folder, and all its records.
    pub fn in_folder(folder: &Path) -> Self {
        let names = list(folder).into_iter().filter(|name| name.starts_with(".ptf-") && name.ends_with('j'));
        let names: Vec<String> = names.collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let path = folder.join(&names[0]);
        let bytes = fs::read(&path).unwrap();
        let header_len = PATH_LEN_AT + 2 + usize::from(u16::from_be_bytes([bytes[PATH_LEN_AT], bytes[PATH_LEN_AT + 1]]));
        let (header, mut rest) = bytes.split_at(header_len);
        let mut check = XxHash3_64::oneshot_with_seed(0, header);
        let mut bodies = Vec::new();
        loop {
            let (own, after) = rest.split_at(8);
            assert_eq!(own, check.to_be_bytes(), "record {}", bodies.len());
            if after.is_empty() {
                return Self { path, header: header.to_vec(), bodies };
            }
            let len = usize::from(u16::from_be_bytes([after[0], after[1]]));
            check = XxHash3_64::oneshot_with_seed(check, &after[..2 + len]);
            bodies.push(after[2..2 + len].to_vec());
            rest = &after[2 + len..];
        }
    }

    /// The file whose journal it is.
    pub fn data(&self) -> PathBuf {
        PathBuf::from(self.path.to_str().unwrap().strip_suffix('j').unwrap())
    }

    /// Where the blocks begin that it says are there.
    pub fn blocks(&self) -> BTreeSet<u64> {
        let mut blocks = BTreeSet::new();
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        for body in self.bodies.iter().filter(|body| body[0] == 1) {
            let (offset, len) = (number(&body[1..9]), number(&body[9..17]));
            blocks.extend((offset..offset + len).step_by(BLOCK as usize));
        }
        blocks
    }

    /// As if it had been written before this machine was last started.
    pub fn set_boot(&mut self, boot: [u8; 16]) {
        assert!(self.bodies.iter().all(|body| body[0] != 4), "it names boots in records, too");
        self.header[BOOT_AT..BOOT_AT + 16].copy_from_slice(&boot);
    }

    pub fn set_version(&mut self, version: u8) {
        self.header[VERSION_AT] = version;
    }

    /// Puts it in its place, `torn` bytes short.
    pub fn store(&self, torn: usize) {
        let mut bytes = self.header.clone();
        let mut check = XxHash3_64::oneshot_with_seed(0, &bytes);
        bytes.extend(check.to_be_bytes());
        for body in &self.bodies {
            let record = [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
            check = XxHash3_64::oneshot_with_seed(check, &record);
            bytes.extend(record);
            bytes.extend(check.to_be_bytes());
        }
        bytes.truncate(bytes.len() - torn);
        fs::write(&self.path, bytes).unwrap();
    }

    /// Bytes of its last record.
    pub fn last_len(&self) -> usize {
        2 + self.bodies.last().unwrap().len() + 8
    }

    /// Without its last record.
    pub fn pop(&mut self) {
        self.bodies.pop().unwrap();
    }
}
