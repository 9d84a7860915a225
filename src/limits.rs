//! Every bound in the program, with its reason, and the relations between bounds.
//!
//! What has no limit here has one anyway, and it is the machine's.

use std::time::Duration;

/// Bytes in one name of a path: what Linux file systems allow (`NAME_MAX`).
pub const NAME_LEN_MAX: usize = 255;

/// Bytes in a path below a root: what one system call takes (`PATH_MAX` less its NUL).
pub const PATH_LEN_MAX: usize = 4095;

/// Bytes of a file name on the wire: a path below the root, and before it the root's own path.
pub const WIRE_NAME_LEN_MAX: usize = 2 * (PATH_LEN_MAX + 1);

/// Bytes in one `cd` or `cf` list: its length field has six digits.
pub const LIST_LEN_MAX: usize = 999_999;

/// Largest offset and largest size of a `wf`: the fields have twelve digits.
pub const WRITE_NUMBER_MAX: u64 = 999_999_999_999;

/// Bytes of one `wf` answer, the largest there is: an MD5 in hex.
pub const REPLY_LEN_MAX: usize = 32;

/// Bytes of the buffer that each connection reads into or writes from. Larger ones were no faster.
pub const BUFFER_LEN: usize = 256 * 1024;

/// Bytes that a connection's buffer may grow to: one whole list with its header.
pub const INBOX_LEN_MAX: usize = LIST_LEN_MAX + 8;

/// Free bytes below which a buffer is flushed rather than filled up with a tiny read.
pub const READ_LEN_MIN: usize = 32 * 1024;

/// Unanswered writes on one connection.
pub const WINDOW_FRAMES_MAX: usize = 256;

/// Unanswered creations (`cd`, `cf`) on the control connection. Each is answered by one byte.
pub const CREATE_FRAMES_MAX: usize = 8192;

/// Bytes of creations that are worth a write: the receiver should not wait while the walk goes on.
pub const CREATE_FLUSH_LEN: usize = 16 * 1024;

/// Bytes of replies that surely fit in a socket's buffer while their reader is busy writing.
pub const REPLIES_LEN_MAX: usize = 64 * 1024;

/// Entries between the walk and the connection that creates them.
pub const WALKED_MAX: usize = 4096;

/// Bytes that a folder of the source is listed into at a time: some hundred names.
pub const LISTING_LEN: usize = 32 * 1024;

/// Bytes of names of folders that the walk has seen but not yet entered: millions of them, far from
/// what a machine has no memory for.
pub const FOLDERS_WAITING_LEN_MAX: usize = 256 * 1024 * 1024;

/// Bytes of first names of files with several names that the walk remembers: about 700,000 files
/// in the copies of copies that backup programs make. Beyond it such files are sent once a name.
pub const LINK_NAMES_LEN_MAX: usize = 128 * 1024 * 1024;

/// What a remembered file costs beside the bytes of its name.
pub const LINK_COST: usize = 96;

/// Bytes of one entry's extended attributes, names and values: what Linux allows one of them to have.
pub const XATTRS_LEN_MAX: usize = 64 * 1024;

/// Bytes in the name of an extended attribute: what Linux allows (`XATTR_NAME_MAX`).
pub const XATTR_NAME_LEN_MAX: usize = 255;

/// Rules of a filter: each is held against every name.
pub const RULES_MAX: usize = 4096;

/// Bytes of a file of rules.
pub const RULES_FILE_LEN_MAX: u64 = 1024 * 1024;

/// Bytes that a machine's id has at the most, as a UUID is written and with some space around it.
pub const MACHINE_ID_LEN_MAX: u64 = 64;

/// Bytes that a machine's id has at least: 128 bits in hex.
pub const MACHINE_ID_LEN_MIN: usize = 32;

/// Files waiting in the queue. The walk waits when it is full, so that memory stays flat.
pub const QUEUE_FILES_MAX: usize = 8192;

/// Work that makes the queue start one more thread, see [`CHUNK_COST`].
pub const GROW_THREAD_BYTES: u64 = 1024 * 1024;

/// Work that makes the queue start one more process, whose start takes some milliseconds.
pub const GROW_PROCESS_BYTES: u64 = 8 * 1024 * 1024;

/// What a chunk costs beside its bytes, in bytes: about 20 µs of system calls at 0.8 GB/s.
pub const CHUNK_COST: u64 = 16 * 1024;

/// Length of a chunk where `--length` does not say.
pub const CHUNK_LEN_DEFAULT: u64 = 16 * 1024 * 1024;

/// Worker processes of one `send`.
pub const PROCESS_NUM_MAX: usize = 64;

/// Threads in each worker process.
pub const THREAD_NUM_MAX: usize = 256;

/// Threads in each worker process where `--thread_num` does not say.
pub const THREAD_NUM_DEFAULT: usize = 3;

/// Connections closed on a chunk before its file is given up: some seconds, with the waits between
/// them. A network that breaks every connection for a moment looks the same.
pub const CHUNK_REFUSALS_MAX: u8 = 6;

/// Times a chunk is sent that arrives with another digest, before its file is given up.
pub const CHUNK_TRIES_MAX: u8 = 3;

/// Connections closed on a chunk sent alone, without one confirmation between them and for at least
/// [`REFUSALS_TIME_MIN`], after which the run is given up.
pub const REFUSALS_IN_A_ROW_MAX: u32 = 16;

/// How long a chunk that failed waits behind fresh ones.
pub const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A network that breaks all connections at once, perhaps twice, has settled by then.
pub const REFUSALS_TIME_MIN: Duration = Duration::from_secs(3);

/// Connections on which a receiver made no progress on a chunk before it is given up.
pub const CHUNK_STALLS_MAX: u8 = 5;

/// Failed entries whose names the summary keeps. All are counted, and all are logged.
pub const FAILURES_KEPT_MAX: usize = 1000;

/// Bytes of a reason that one process tells another.
pub const REASON_LEN_MAX: usize = 1024;

/// Addresses that one host name may resolve to.
pub const ADDRESSES_MAX: usize = 64;

/// Bytes of one frame between a process and its children.
pub const PIPE_FRAME_LEN_MAX: usize = 64 * 1024;

/// Bytes of headers that are gathered before they are written to a child.
pub const PIPE_WRITE_LEN: usize = 8 * 1024;

/// Chunks that a child process may hold, whatever its threads could.
pub const CHILD_CHUNKS_MAX: usize = 2048;

/// Connections that a receiver serves at once; each has a thread.
pub const CONNECTIONS_MAX: usize = 1024;

/// Connections that the kernel may hold for a receiver that is busy accepting.
pub const BACKLOG: i32 = 1024;

/// Bytes of stack of a connection's thread: no recursion, no large arrays.
pub const CONNECTION_STACK_LEN: usize = 256 * 1024;

/// Frames whose answers a receiver gathers for one write.
pub const ANSWERS_MAX: usize = 64;

/// How long an answer may wait for its neighbours.
pub const ANSWERS_TIME_MAX: Duration = Duration::from_millis(100);

/// Time between two frames after which the peer may have left without this having been noticed.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// Bytes of a peer's name that a log line shows.
pub const NAME_SHOWN_LEN_MAX: usize = 1024;

/// Files in each of the two generations of created files that a receiver remembers.
pub const CREATED_GENERATION_MAX: usize = 450_000;

/// Times that `openat2` is asked again when a rename elsewhere made it uncertain (`EAGAIN`).
pub const RESOLVE_TRIES_MAX: usize = 128;

/// Times that a file is set aside for a new one of its name, when others create that name as well.
pub const CREATE_TRIES_MAX: usize = 1000;

/// Names tried for the kept version of a file before giving up.
pub const BACKUP_TRIES_MAX: usize = 100;

/// Bytes that wait in a socket's buffer at the most, as Linux is usually set up (`tcp_wmem`).
pub const SOCKET_BUFFER_LEN_MAX: u64 = 4 * 1024 * 1024;

/// A peer that takes at least so many bytes in the time of a stall is slow, not gone.
pub const SLOW_BYTES_MIN: u64 = 1024 * 1024;

/// A peer that makes no progress for this long is given up.
pub const STALL_DEFAULT: Duration = Duration::from_secs(120);

/// The longest time that a socket's options can hold: 31 bits of milliseconds.
pub const STALL_MAX: Duration = Duration::from_secs(24 * 24 * 3600);

/// How long a lost connection is dialled again.
pub const RETRY_FOR_DEFAULT: Duration = Duration::from_secs(30);

/// Wait before a second attempt to connect; doubles with each further one.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest wait between two attempts to connect.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long one address may take to accept a connection.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a receiver that was asked to stop lets running chunks end.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// How long a refused peer's bytes are read off, so that answers before the refusal arrive.
pub const LINGER: Duration = Duration::from_secs(2);

/// Idle time after which the kernel asks whether a silent peer is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

const _: () = {
    assert!(WINDOW_FRAMES_MAX * REPLY_LEN_MAX <= REPLIES_LEN_MAX);
    assert!(CREATE_FRAMES_MAX <= REPLIES_LEN_MAX);
    assert!(READ_LEN_MIN < BUFFER_LEN);
    assert!(WIRE_NAME_LEN_MAX + 32 < READ_LEN_MIN);
    assert!(WIRE_NAME_LEN_MAX <= LIST_LEN_MAX);
    assert!(BUFFER_LEN < INBOX_LEN_MAX);
    assert!(PATH_LEN_MAX + REASON_LEN_MAX + 64 < PIPE_FRAME_LEN_MAX);
    assert!(ADDRESSES_MAX * 64 + 3 * PATH_LEN_MAX < PIPE_FRAME_LEN_MAX);
};
