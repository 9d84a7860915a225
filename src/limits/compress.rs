//! Bounds of compression: how hard, how often it is tried in vain, and what it must save.

/// The highest level: those above it are for windows far larger than a block.
pub const COMPRESS_LEVEL_MAX: u8 = 19;

/// The level where none is named, which is zstd's own default: 60 MB of source code went to 18.1 % at 0.23 GB/s a
/// core, in blocks; with level 1 to 18.9 % at 0.32, with 6 to 16.4 % at 0.075, with 19 to 15.1 % at 0.0014.
pub const COMPRESS_LEVEL_DEFAULT: u8 = 3;

/// Bytes of a block below which compression is not tried: a frame's head and a mark take some 13 bytes of
/// what there is to win.
pub const COMPRESS_LEN_MIN: usize = 128;

/// A block goes compressed where that saves at least this part of it: a sixteenth, 6 %. For less the other
/// end should not have to decompress.
pub const COMPRESS_SAVING: usize = 16;

/// Blocks in a row that do not shrink, before some are left alone.
pub const COMPRESS_MISSES_MAX: u32 = 3;

/// Blocks that are left alone then; twice as many each time the next one does not shrink either.
pub const COMPRESS_SKIP_MIN: u32 = 4;

/// Blocks that are left alone at the most, 4 MiB of them: a file that begins with an archive or a picture
/// may go on with text.
pub const COMPRESS_SKIP_MAX: u32 = 64;

/// Bytes of a file above which it is judged by itself. Smaller ones of a connection share what was found of
/// those before: a folder of pictures is not tried picture by picture.
pub const COMPRESS_ALONE_LEN_MIN: u64 = 1024 * 1024;

/// The mark of a compressed block, its length and the guard take three bytes more than the mark of another.
const _: () = assert!(COMPRESS_LEN_MIN / COMPRESS_SAVING > 3);
