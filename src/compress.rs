//! Blocks that are compressed on their way: each a frame of zstd of its own, with no state between them.
//!
//! A frame holds no more than a block, so its window is no larger, and whoever decompresses it does so
//! into the room of one block: what is longer is refused before it is anywhere. That is why nothing here
//! needs a bound on a ratio.

use std::fmt;

use crate::limits::{
    BLOCK_LEN, COMPRESS_ALONE_LEN_MIN, COMPRESS_LEN_MIN, COMPRESS_LEVEL_DEFAULT, COMPRESS_LEVEL_MAX, COMPRESS_MISSES_MAX,
    COMPRESS_SAVING, COMPRESS_SKIP_MAX, COMPRESS_SKIP_MIN,
};

/// How hard is tried: 1 to [`COMPRESS_LEVEL_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(u8);

impl Default for Level {
    fn default() -> Self {
        Self(COMPRESS_LEVEL_DEFAULT)
    }
}

impl Level {
    /// The one of this number; the highest there is for what is more, none for 0.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        (number > 0).then(|| Self(number.min(COMPRESS_LEVEL_MAX)))
    }

    /// Its number; 0 for none.
    #[must_use]
    pub fn number(level: Option<Self>) -> u8 {
        level.map_or(0, |level| level.0)
    }
}

/// Compresses the blocks of one connection, as long as that pays.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// Room for a block that shrank.
    room: Box<[u8]>,
    judgement: Judgement,
    /// Bytes of the file that it is of: one of another size is another file.
    size: u64,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("judgement", &self.judgement).finish_non_exhaustive()
    }
}

impl Compressor {
    /// One of this level; none where there is no memory for it.
    #[must_use]
    pub fn new(level: Level) -> Option<Self> {
        let zstd = zstd::bulk::Compressor::new(level.0.into()).ok()?;
        Some(Self { zstd, room: vec![0; room_for(BLOCK_LEN)].into(), judgement: Judgement::default(), size: 0 })
    }

    /// From here on come blocks of a file of `size` bytes, its first one if `is_start`.
    pub fn begin(&mut self, size: u64, is_start: bool) {
        let is_another = std::mem::replace(&mut self.size, size) != size || is_start;
        if is_another && size > COMPRESS_ALONE_LEN_MIN {
            self.judgement = Judgement::default();
        }
    }

    /// The block compressed; none where it is to go as it is.
    pub fn compress(&mut self, block: &[u8]) -> Option<&[u8]> {
        if !(COMPRESS_LEN_MIN..=BLOCK_LEN).contains(&block.len()) || !self.judgement.wants_a_try() {
            return None;
        }
        // What does not fit has not shrunk enough: the library gives up as soon as it sees that.
        let room = &mut self.room[..room_for(block.len())];
        let len = self.zstd.compress_to_buffer(block, room).ok();
        self.judgement.note(len.is_some());
        len.map(|len| &self.room[..len])
    }
}

/// Bytes that a block may have once it is compressed.
fn room_for(len: usize) -> usize {
    len - len.div_ceil(COMPRESS_SAVING)
}

/// Whether the next block is worth a try, from what became of those before.
#[derive(Debug, Clone, Copy, Default)]
struct Judgement {
    /// Tries in a row that were in vain.
    misses: u32,
    /// Blocks that are still left alone.
    left_alone: u32,
    /// How many were, the last time.
    skipped: u32,
}

impl Judgement {
    fn wants_a_try(&mut self) -> bool {
        if self.left_alone == 0 {
            return true;
        }
        self.left_alone -= 1;
        false
    }

    fn note(&mut self, did_shrink: bool) {
        if did_shrink {
            *self = Self::default();
            return;
        }
        self.misses = self.misses.saturating_add(1);
        if self.misses >= COMPRESS_MISSES_MAX {
            self.skipped = (self.skipped * 2).clamp(COMPRESS_SKIP_MIN, COMPRESS_SKIP_MAX);
            self.left_alone = self.skipped;
        }
    }
}

/// Why bytes are no compressed block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// They are no frame of zstd.
    #[error("zstd says: {0}")]
    Foreign(String),
    /// They are more than one frame, or something comes behind it.
    #[error("{0} bytes come behind its frame")]
    Trailing(usize),
    /// They are those of fewer bytes.
    #[error("it has {found} bytes in place of {wanted}")]
    Short {
        /// Bytes that came out.
        found: usize,
        /// Bytes of the block.
        wanted: usize,
    },
}

/// Decompresses blocks, one at a time into the same room.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
    room: Box<[u8]>,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self { zstd: zstd::bulk::Decompressor::default(), room: vec![0; BLOCK_LEN].into() }
    }
}

impl Decompressor {
    /// The block of exactly `len` bytes, [`BLOCK_LEN`] at the most, that `bytes` are.
    ///
    /// # Errors
    /// They are not: one frame, of so many bytes, with nothing behind it.
    pub fn decompress(&mut self, bytes: &[u8], len: usize) -> Result<&[u8], Damaged> {
        let foreign = |why: &str| Damaged::Foreign(why.to_owned());
        // The library would take any number of frames, and those that mean nothing between them.
        let frame_len =
            zstd::zstd_safe::find_frame_compressed_size(bytes).map_err(|code| foreign(zstd::zstd_safe::get_error_name(code)))?;
        if frame_len != bytes.len() {
            return Err(Damaged::Trailing(bytes.len().saturating_sub(frame_len)));
        }
        let room = self.room.get_mut(..len).ok_or_else(|| foreign("too long for a block"))?;
        let found = self.zstd.decompress_to_buffer(bytes, room).map_err(|error| foreign(&error.to_string()))?;
        if found == len { Ok(&self.room[..len]) } else { Err(Damaged::Short { found, wanted: len }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressor() -> Compressor {
        Compressor::new(Level::default()).unwrap()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// How many of so many blocks of noise are tried.
    fn tries(compressor: &mut Compressor, blocks: usize) -> usize {
        let noise = noise(BLOCK_LEN);
        let mut tries = 0;
        for _ in 0..blocks {
            tries += usize::from(compressor.judgement.left_alone == 0);
            assert_eq!(compressor.compress(&noise), None);
        }
        tries
    }

    #[test]
    fn a_block_goes_compressed_only_where_a_sixteenth_is_saved() {
        let (mut compressor, mut decompressor) = (compressor(), Decompressor::default());
        // Noise, and behind it zeros, which cost nothing.
        for (zeros, shrinks) in [(0, false), (BLOCK_LEN / 32, false), (BLOCK_LEN / 12, true), (BLOCK_LEN, true)] {
            let mut block = noise(BLOCK_LEN - zeros);
            block.resize(BLOCK_LEN, 0);
            let compressed = compressor.compress(&block).map(<[u8]>::to_vec);
            assert_eq!(compressed.is_some(), shrinks, "{zeros} zeros");
            if let Some(compressed) = compressed {
                assert!(compressed.len() <= BLOCK_LEN - BLOCK_LEN / COMPRESS_SAVING);
                assert_eq!(decompressor.decompress(&compressed, BLOCK_LEN).unwrap(), block);
            }
        }
        assert_eq!(compressor.compress(&[0; COMPRESS_LEN_MIN - 1]), None);
        assert!(compressor.compress(&[0; COMPRESS_LEN_MIN]).is_some());
        assert_eq!(compressor.compress(&vec![0; BLOCK_LEN + 1]), None);
    }

    #[test]
    fn what_does_not_shrink_is_tried_less_and_less_but_for_ever() {
        let mut compressor = compressor();
        // 3 tries, then one behind each 4, 8, 16, 32 and 64 blocks, then one in 65.
        assert_eq!(tries(&mut compressor, 3 + 5 + 9 + 17 + 33), 3 + 4);
        assert_eq!(tries(&mut compressor, 650), 10);
        let text = vec![b'a'; BLOCK_LEN];
        let waited = (0..).take_while(|_| compressor.compress(&text).is_none()).count();
        assert!(waited <= COMPRESS_SKIP_MAX as usize, "{waited} blocks");
        assert_eq!(tries(&mut compressor, 3), 3, "one that shrinks ends it");
    }

    #[test]
    fn a_large_file_begins_anew_and_small_ones_share_what_was_found() {
        let large = COMPRESS_ALONE_LEN_MIN + 1;
        for (size, is_start, tried) in [(1, true, 0), (large, false, 0), (large, true, 3), (large + 1, false, 3)] {
            let mut compressor = compressor();
            compressor.begin(large, true);
            tries(&mut compressor, 3);
            compressor.begin(size, is_start);
            assert_eq!(tries(&mut compressor, 3), tried, "{size} {is_start}");
        }
    }

    #[test]
    fn a_frame_is_taken_whole_and_alone_or_not_at_all() {
        let (mut compressor, mut decompressor) = (compressor(), Decompressor::default());
        let block = vec![7; 1000];
        let frame = compressor.compress(&block).unwrap().to_vec();
        assert_eq!(decompressor.decompress(&frame, 1000).unwrap(), block);
        let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), b"x"].concat();
        for (bytes, len) in [
            (frame.clone(), 999),
            (frame.clone(), 1001),
            (frame.clone(), BLOCK_LEN + 1),
            (frame[..frame.len() - 1].to_vec(), 1000),
            ([&frame[..], b"x"].concat(), 1000),
            ([&frame[..], &frame].concat(), 2000),
            ([&frame[..], &skippable].concat(), 1000),
            ([&skippable[..], &frame].concat(), 1000),
            (skippable.clone(), 1),
            (Vec::new(), 1),
            (noise(500), 1000),
        ] {
            assert!(decompressor.decompress(&bytes, len).is_err(), "{} bytes of {len}", bytes.len());
        }
        assert_eq!(decompressor.decompress(&frame, 1000).unwrap(), block, "what was refused leaves nothing behind");
    }

    #[test]
    fn a_connection_needs_little_memory_at_any_level() {
        let text: Vec<u8> = noise(BLOCK_LEN).into_iter().map(|byte| b'a' + byte % 16).collect();
        for (number, kib_max) in [(COMPRESS_LEVEL_DEFAULT, 800), (COMPRESS_LEVEL_MAX, 2048)] {
            let mut compressor = Compressor::new(Level::of(number).unwrap()).unwrap();
            assert!(compressor.compress(&text).is_some());
            let kib = compressor.zstd.context_mut().sizeof() / 1024;
            assert!(kib <= kib_max, "level {number}: {kib} KiB");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_level_a_block_comes_back(
            number in 1..=COMPRESS_LEVEL_MAX, piece in proptest::collection::vec(proptest::num::u8::ANY, 1..40), len in 1..=BLOCK_LEN,
        ) {
            let block: Vec<u8> = piece.into_iter().cycle().take(len).collect();
            let mut compressor = Compressor::new(Level::of(number).unwrap()).unwrap();
            if let Some(bytes) = compressor.compress(&block) {
                let mut decompressor = Decompressor::default();
                proptest::prop_assert_eq!(decompressor.decompress(bytes, len).unwrap(), &block[..]);
            }
        }
    }
}
