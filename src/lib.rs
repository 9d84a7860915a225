//! Moves files and whole trees between machines over many TCP connections at once.
//!
//! ```text
//!            bin/send                    bin/recv             flags in, exit code out
//!               |                           |
//!             client                      server              drive: what, when, for whom
//!                 \                       /
//!                  +------ landing ------+                    join: where entries land
//!                  +------- pump --------+                    join: the payload loops
//!                 /          |            \
//!           protocol        net          store                legs: bytes | sockets | disk
//!                 \          |            /
//!     path  entry  ranges  digest  compress  limits  progress  stop     ground: values, no I/O of their own
//! ```
//!
//! docs/ARCHITECTURE.md has a line on each module, the invariants, and where to change what.

pub mod compress;
pub mod digest;
pub mod entry;
pub mod exit;
pub mod flags;
pub mod limits;
pub mod login_key;
pub mod path;
pub mod progress;
pub mod ranges;
pub mod secret;
pub mod signals;
pub mod stop;
pub mod subtrees;

pub mod net;
pub mod protocol;
pub mod store;

pub mod pump;

pub mod landing;

pub mod client;
pub mod server;

pub mod terminal;
pub mod ticket;
