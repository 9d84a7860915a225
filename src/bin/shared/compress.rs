//! The flags that ask for compression, of either end.

use clap::ValueEnum;
use parallel_transfer::compress::Level;
use parallel_transfer::limits::COMPRESS_LEVEL_MAX;
use parallel_transfer::protocol::Features;

/// The flags as they are given.
#[derive(Debug, clap::Args)]
pub(crate) struct Compression {
    /// Have content compressed on its way, where the other end can do that, too: zstd, or none, also
    /// where the other end asks for it [default: what the other end asks for]
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = true)]
    compress: Option<Method>,

    /// How hard that is tried, whichever end does it: 1 (fast) to 19 (small) [default: 3]
    #[arg(long = "compress_level", alias = "compress-level", value_name = "N", requires = "compress",
          value_parser = clap::value_parser!(u8).range(1..=i64::from(COMPRESS_LEVEL_MAX)))]
    compress_level: Option<u8>,
}

/// What can compress a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    Zstd,
    None,
}

impl Compression {
    /// What this end says that it can do.
    pub(crate) fn features(&self) -> Features {
        let declined = if self.compress == Some(Method::None) { Features::ZSTD } else { Features(0) };
        Features::OURS.without(declined)
    }

    /// What is asked for, if anything is.
    pub(crate) fn level(&self) -> Option<Level> {
        let level = self.compress_level.map_or_else(|| Some(Level::default()), Level::of);
        level.filter(|_| self.compress == Some(Method::Zstd))
    }
}
