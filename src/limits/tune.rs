//! Bounds of what is found out while a job runs: how far a connection is ahead of its answers, which paths
//! lose segments.

use std::time::Duration;

use super::{ASKED_LEN_MAX, CHILD_CHUNKS_MAX, FETCH_AHEAD_BYTES, WINDOW_FRAMES_MAX, WIRE_REPLY_LEN_MAX};

/// Unanswered ranges on one connection of a long path: 20,000 small files a second at 200 ms. Somebody who
/// dies with them costs a few seconds of work at the most.
pub const WINDOW_GROWN_MAX: usize = 4096;

/// Chunks that a child process may hold on a long path.
pub const CHILD_CHUNKS_GROWN_MAX: usize = 8192;

/// How long a full window must have waited for answers, in all, to become a larger one: less is what a receiver takes for
/// the files that it has.
pub const WINDOW_WAIT_MIN: Duration = Duration::from_millis(5);

/// A round trip of a path that is long enough for a larger window. Within 5 ms nobody handles more than 256 files.
pub const WINDOW_TRIP_MIN: Duration = Duration::from_millis(5);

/// Bytes of replies that a sender takes in while its own write waits for room: all of a grown window.
pub const REPLIES_AHEAD_LEN_MAX: usize = 1024 * 1024;

/// Bytes of content that a client takes in while its requests wait for room: all that it may have asked for
/// before the last range, see [`FETCH_AHEAD_BYTES`], with what goes around it.
pub const CONTENT_AHEAD_LEN_MAX: usize = 5 * 1024 * 1024;

/// Bytes around the content of a range: a reply, marks, digests, and a record of TLS.
pub const CONTENT_COST_MAX: usize = 192;

/// A round trip of a path on which a lost segment costs much: the usual congestion controls send half as fast
/// after one, and take many round trips to come back.
pub const LOSS_TRIP_MIN: Duration = Duration::from_millis(10);

/// Segments sent again that may have had any reason.
pub const LOSS_SEGMENTS_MIN: u64 = 8;

/// Looks at which some were: what one event cost is seen at two at the most.
pub const LOSS_LOOKS_MIN: u32 = 3;

/// Looks in a row at which nothing is known of any stream, after which it is not asked again: netlink may be forbidden.
pub const LOSS_LOOKS_BLIND_MAX: u32 = 3;

/// Segments sent of which it is kept how many were sent again: a gigabyte, so that a path that begins to lose some is
/// seen within another.
pub const LOSS_SEGMENTS_KEPT: u64 = 700_000;

/// A round trip of more quarters of the shortest one is one with a queue: jitter and delayed acknowledgements are less.
pub const LOSS_QUEUE_QUARTERS: u32 = 5;

/// Of ten thousand segments so many sent again are a lossy path: at 50 ms a connection does 2 MB/s then.
pub const LOSS_TEN_THOUSANDTHS_MIN: u64 = 3;

/// Of ten thousand segments so many sent again while there was a queue are too many sent: the usual controls stay far
/// below that.
pub const LOSS_OVERFLOW_TEN_THOUSANDTHS_MIN: u64 = 100;

/// How often a path is looked at for losses, at the most.
pub const LOSS_LOOK_EVERY: Duration = Duration::from_millis(250);

/// Bytes that are taken in at once meanwhile.
pub const AHEAD_READ_LEN: usize = 64 * 1024;

/// How long a chunk of a large file should take on its connection: what is left of the last ones when the others are done
/// is waited for, and what a connection that dies holds is sent again.
pub const CHUNK_TIME: Duration = Duration::from_millis(500);

/// Bytes of such a chunk on the slowest connection, and before it is known how fast one is.
pub const CHUNK_LEN_MIN: u64 = 1024 * 1024;

/// How far back the rate of whoever takes chunks is looked at.
pub const RATE_TIME: Duration = Duration::from_secs(4);

/// Bytes that wait for their turn in the socket of a stream over a long path, or through a relay: what one that turns out to be slow has still
/// to send when all the others are done. A tenth of a second at 20 Mbit/s, and 2 ms, which a thread takes to send
/// more, at 1 Gbit/s.
pub const UNSENT_LEN_MAX: u32 = 256 * 1024;

/// Connections that a transfer begins with, where it may have more: those of a usual machine over a long path.
pub const TUNE_START: usize = 12;

/// How often the number of connections is looked at.
pub const TUNE_EVERY: Duration = Duration::from_millis(500);

/// How long a change of it has until it is measured: ten round trips of a long path.
pub const TUNE_SETTLE: Duration = Duration::from_secs(1);

/// How long a rate is measured. A tenth up or down is usual from one second to the next.
pub const TUNE_MEASURE: Duration = Duration::from_secs(2);

/// So many times the rate must be of what it was for more connections to stay.
pub const TUNE_MORE: f64 = 1.05;

/// And for fewer.
pub const TUNE_LESS: f64 = 0.97;

/// So many times more or less, and the path is another one.
pub const TUNE_OTHER: f64 = 1.4;

/// How long nothing is tried after all was.
pub const TUNE_REST: Duration = Duration::from_secs(30);

/// How long nothing at all is confirmed until others are to try.
pub const TUNE_STUCK: Duration = Duration::from_secs(3);

/// How often one that takes no chunks looks whether it may again.
pub const PARKED_POLL: Duration = Duration::from_millis(100);

const _: () = {
    assert!(WINDOW_FRAMES_MAX.is_power_of_two() && WINDOW_GROWN_MAX.is_power_of_two());
    assert!(WINDOW_GROWN_MAX * WIRE_REPLY_LEN_MAX <= REPLIES_AHEAD_LEN_MAX);
    assert!(FETCH_AHEAD_BYTES as usize + WINDOW_GROWN_MAX * CONTENT_COST_MAX <= CONTENT_AHEAD_LEN_MAX);
    assert!(CHILD_CHUNKS_MAX <= CHILD_CHUNKS_GROWN_MAX);
    // So many requests as a window has, of an average length.
    assert!(ASKED_LEN_MAX / WINDOW_FRAMES_MAX == 128);
};
