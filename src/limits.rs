//! Every bound in the program, with its reason, and the relations between bounds.
//!
//! What has no limit here has one anyway, and it is the machine's.

mod compress;
mod net;
mod tune;

use std::time::Duration;

pub use compress::*;
pub use net::*;
pub use tune::*;

/// Bytes in one name of a path: what Linux file systems allow (`NAME_MAX`).
pub const NAME_LEN_MAX: usize = 255;

/// Bytes in a path below a root: what one system call takes (`PATH_MAX` less its NUL).
pub const PATH_LEN_MAX: usize = 4095;

/// Bytes of a file name on the wire: a path below the root, and before it the root's own path.
pub const WIRE_NAME_LEN_MAX: usize = 2 * (PATH_LEN_MAX + 1);

/// Bytes of a user's name on the wire; the grammar of names allows fewer.
pub const USER_LEN_MAX: usize = 255;

/// Bytes in one `cd` or `cf` list: its length field has six digits.
pub const LIST_LEN_MAX: usize = 999_999;

/// Largest offset and largest size of a `wf`: the fields have twelve digits.
pub const WRITE_NUMBER_MAX: u64 = 999_999_999_999;

/// Bytes of one `wf` answer, the largest there is: an MD5 in hex.
pub const REPLY_LEN_MAX: usize = 32;

/// Bytes of the buffer that each connection reads into or writes from. Larger ones were no faster.
pub const BUFFER_LEN: usize = 256 * 1024;

/// Bytes of the buffer that a connection writes from: a whole block with what goes before and after.
pub const OUTBOX_LEN: usize = BLOCK_LEN + 16 * 1024;

/// Bytes that a connection's buffer may grow to: one whole list with its header.
pub const INBOX_LEN_MAX: usize = LIST_LEN_MAX + 8;

/// Free bytes below which a buffer is flushed rather than filled up with a tiny read.
pub const READ_LEN_MIN: usize = 32 * 1024;

/// Unanswered writes on one connection whose path is short, or not known yet: all their replies fit in a socket.
pub const WINDOW_FRAMES_MAX: usize = 256;

/// Unanswered creations (`cd`, `cf`) on the control connection. Each is answered by one byte.
pub const CREATE_FRAMES_MAX: usize = 8192;

/// Bytes of creations that are worth a write: the receiver should not wait while the walk goes on.
pub const CREATE_FLUSH_LEN: usize = 16 * 1024;

/// Bytes of replies that surely fit in a socket's buffer while their reader is busy writing.
pub const REPLIES_LEN_MAX: usize = 64 * 1024;

/// Entries between the walk and the connection that creates them.
pub const WALKED_MAX: usize = 4096;

/// Entries that the walk hands over at once.
pub const WALKED_BATCH: usize = 64;

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

/// The same over a long path: each connection begins there with ten packets a round trip (RFC 6928).
pub const THREAD_NUM_FAR: usize = 6;

/// Connections closed on a chunk before its file is given up: some seconds, with the waits between
/// them. A network that breaks every connection for a moment looks the same.
pub const CHUNK_REFUSALS_MAX: u8 = 6;

/// Times a chunk is sent that arrives with another digest, before its file is given up.
pub const CHUNK_TRIES_MAX: u8 = 3;

/// Times a file is sent anew because it changed while it was sent.
pub const CHANGES_MAX: u8 = 1;

/// Connections closed on a chunk sent alone, without one confirmation between them and for at least
/// [`REFUSALS_TIME_MIN`], after which the run is given up.
pub const REFUSALS_IN_A_ROW_MAX: u32 = 16;

/// How long a chunk is left to whoever has it at least, before somebody idle sends it as well: many
/// round trips, and what a busy machine may take to give a process its turn.
pub const REPEAT_AFTER_MIN: Duration = Duration::from_millis(500);

/// What a chunk is to take longer on its own route, at least, than twice what it would on another one, for that to send it
/// as well: a round trip, and what a rate is wrong by.
pub const REPEAT_ELSEWHERE_MIN: Duration = Duration::from_millis(250);

/// How often somebody idle looks for a chunk that takes too long, once no other work will come.
pub const REPEAT_POLL: Duration = Duration::from_millis(50);

/// Work of small chunks that somebody idle repeats at once: they share writes and a round trip.
pub const REPEATS_WORK_MAX: u64 = 1024 * 1024;

/// How long a chunk that failed waits behind fresh ones.
pub const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A network that breaks all connections at once, perhaps twice, has settled by then.
pub const REFUSALS_TIME_MIN: Duration = Duration::from_secs(3);

/// Connections on which a receiver made no progress on a chunk before it is given up.
pub const CHUNK_STALLS_MAX: u8 = 5;

/// Files that did not arrive of which a sender remembers that much, 20 MB of them. Beyond it no hard
/// link is made any more: its file may be one of them.
pub const LOST_FILES_MAX: usize = 1_000_000;

/// Files of a run that are read for their digests at the end, since a part of each was there before: some
/// 40 MB. A receiver has far fewer incoming files at once.
pub const UNREAD_FILES_MAX: usize = 100_000;

/// Failed entries whose names the summary keeps. All are counted, and all are logged.
pub const FAILURES_KEPT_MAX: usize = 1000;

/// Bytes of a reason that one process tells another.
pub const REASON_LEN_MAX: usize = 1024;

/// Bytes of a file that holds a ticket.
pub const TICKET_LEN_MAX: u64 = 8 * 1024;

/// Bytes of the body of one frame of protocol v2: the largest are the header of a put with all its
/// extended attributes, and a batch of files to ask for.
pub const FRAME_LEN_MAX: usize = 128 * 1024;

/// Bytes of a block of protocol v2, which is verified as a whole: a power of two, as BLAKE3 wants,
/// that a core's own cache holds beside the other end's: on loopback 64 KiB took a tenth less time of
/// the processors than 256 KiB.
pub const BLOCK_LEN: usize = 64 * 1024;

/// Bytes of a reason in a reply of protocol v2: short, so that a window of replies fits in a socket.
pub const WIRE_REASON_LEN_MAX: usize = 180;

/// Bytes of a file above which what came of it is kept when its sender goes away, even if it was to come
/// in one piece. Smaller ones that come in one piece are sent again.
pub const JOURNALED_LEN_MIN: u64 = 32 * 1024 * 1024;

/// Ranges that a reply of protocol v2 names as wanted: no longer than the longest reason.
pub const WANTED_RANGES_MAX: usize = 10;

/// Bytes that a reply takes at the most, with what TLS adds to one alone.
pub const WIRE_REPLY_LEN_MAX: usize = 5 + 1 + 2 + WIRE_REASON_LEN_MAX + 4 + 22;

/// Files asked for at once whether they are there.
pub const HAVE_BATCH_MAX: usize = 512;

/// Bytes of a batch of files to ask for, before its last one.
pub const HAVE_BATCH_LEN: usize = 32 * 1024;

/// Bytes of content that are asked for ahead on a connection, where that is more than two ranges: at
/// 100 ms of delay that is 40 MB/s a connection.
pub const FETCH_AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// Ranges that are taken before it is said what became of them.
pub const FETCHED_AT_ONCE_MAX: usize = 64;

/// Names in one part of a list.
pub const LIST_PAGE_MAX: usize = 512;

/// Bytes of the names of folders that a server listed, and of what they cost beside, until those are listed too:
/// so much of this side's memory may a server take.
pub const FOLDERS_LISTED_LEN_MAX: usize = 64 * 1024 * 1024;

/// Folders that a server is asked to list at once: their lists are on their way while the first is worked off.
pub const LISTED_AT_ONCE_MAX: usize = 32;

/// Names that a server may list for one pull, or in one folder.
pub const LISTED_MAX: u64 = 1_000_000_000;

/// Bytes of one part of a list, before its last name.
pub const LIST_PAGE_LEN: usize = 32 * 1024;

/// Bytes that a name takes in it, beside those of its name, of a link's target and of extended attributes.
pub const LISTED_COST: usize = 64;

/// Bytes of content between two looks at whether its job must end. A hole is a mark more for each.
pub const CONTENT_STEP_LEN: u64 = 4 * 1024 * 1024;

/// Names of a folder that a prompt shows, or that a pattern may match: some ten MiB of memory.
pub const NAMES_SHOWN_MAX: usize = 100_000;

/// Names of a folder that a prompt keeps to complete words from.
pub const NAMES_COMPLETED_MAX: usize = 10_000;

/// How long a prompt waits for such names.
pub const COMPLETION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long such names are good for: while somebody types a word.
pub const COMPLETION_FRESH: Duration = Duration::from_secs(3);

/// Bytes of a line of commands: one that a person typed, or a program made for many files.
pub const COMMAND_LEN_MAX: usize = 1024 * 1024;

/// Lines that the prompt remembers.
pub const HISTORY_LINES_MAX: usize = 1000;

/// Bytes of the digest of a file, in any algorithm.
pub const SUM_LEN_MAX: usize = 64;

/// Bytes of requests without an answer where the answers are longer than the requests: they wait in the
/// server's socket, so that a client that writes never waits for a server that waits for it.
pub const ASKED_LEN_MAX: usize = 32 * 1024;

/// Extended attributes of one entry.
pub const XATTRS_NUM_MAX: usize = 256;

/// Bytes of all extended attributes of one entry, names included.
pub const XATTRS_LEN_MAX: usize = 64 * 1024 - 1;

/// BLAKE3 values in one report: a range has at most two of each power of two.
pub const SUBTREES_MAX: usize = 128;

/// Bytes of headers that are gathered before they are written to a child.
pub const PIPE_WRITE_LEN: usize = 8 * 1024;

/// Chunks that a child process may hold on a short path, whatever its threads could.
pub const CHILD_CHUNKS_MAX: usize = 2048;

/// Folders of one job that were made for what is in them and not described yet: those that a
/// description has not caught up with. Further ones stay their owner's alone.
pub const FOLDERS_MADE_MAX: usize = 100_000;

/// How long a child process may take to end once there is nothing left for it to do.
pub const CHILD_END_MAX: Duration = Duration::from_secs(1);

/// Jobs that a receiver serves at once.
pub const SESSIONS_MAX: usize = 256;

/// Files of one job that a receiver remembers as changed while they were sent.
pub const VOIDED_MAX: usize = 4096;

/// Files of one job that came in pieces and that a receiver remembers as published, the last ones: a copy of a piece that comes
/// late comes soon after them.
pub const PUBLISHED_MAX: usize = 4096;

/// How long a job that nobody works on may be taken up again.
pub const SESSION_LINGER: Duration = Duration::from_secs(60);

/// How often a receiver looks for jobs that nobody works on any more.
pub const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How long a connection may take until it has joined a job, from its first byte on.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long nobody who joins a job has to make room for others: a login takes a tenth of that.
pub const JOIN_GRACE: Duration = Duration::from_secs(1);

/// How long a job may do nothing at all.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// Wrong logins from one address, or one IPv6 network, that are answered within [`PENALTY_TIME`].
pub const LOGIN_TRIES_DEFAULT: u32 = 10;

/// How long a wrong login counts.
pub const PENALTY_TIME: Duration = Duration::from_secs(15 * 60);

/// What the first wrong login waits for its answer; each further one waits twice as long.
pub const LOGIN_DELAY_MIN: Duration = Duration::from_millis(100);

/// What any wrong login waits at the most: its connection takes up room meanwhile.
pub const LOGIN_DELAY_MAX: Duration = Duration::from_secs(5);

/// Addresses whose wrong logins are remembered.
pub const PENALTIES_MAX: usize = 4096;

/// How long a home that nobody is in stays open: what is in it need not be counted again.
pub const HOME_LINGER: Duration = Duration::from_secs(10 * 60);

/// How often a receiver looks whether its accounts were changed.
pub const ACCOUNTS_EVERY: Duration = Duration::from_millis(500);

/// Connections from one address, or one IPv6 network: a large job opens a hundred.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 512;

/// Jobs of one account that are served at once: others want some, too.
pub const SESSIONS_PER_ACCOUNT_MAX: usize = 64;

/// Connections of one account.
pub const CONNECTIONS_PER_ACCOUNT_MAX: usize = 256;

/// How long a receiver may take to open a job, whatever it says meanwhile.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a receiver says that long work goes on.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// Bytes of a configuration file: a few lines for each flag, and a list of networks.
pub const CONFIG_FILE_LEN_MAX: u64 = 1 << 20;

/// Connections that a receiver serves at once; each has a thread.
pub const CONNECTIONS_MAX: usize = 1024;

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

/// Folders that one connection holds open for the files it receives. A walk goes from folder to
/// folder; a thousand connections with as many each stay below the usual hard limit on descriptors.
pub const FOLDERS_MAX: usize = 16;

/// How long an open folder is taken for the one that has its name.
pub const FOLDER_TRUSTED_FOR: Duration = Duration::from_secs(1);

/// Files that a store receives in several frames at once: each holds a descriptor.
pub const INCOMING_MAX: usize = 8192;

/// Pieces of a set of ranges, 16 bytes each: a file of 1 TiB in chunks of 16 MiB, each alone.
pub const RANGES_MAX: usize = 65_536;

/// Blocks that one record of a journal speaks of, 4 MiB: some hundred records for a GiB, and of what is
/// not yet noted a kill costs no more than that.
pub const JOURNAL_BLOCKS_MAX: usize = 64;

/// How long a file that was not received whole is kept, with its journal, for its sender to go on with.
pub const KEEP_INCOMING_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a file under a temporary name without a journal and without a lock must have been as it is,
/// where no index tells whose it is: a living process may be at it. It comes in one piece, in minutes.
pub const UNCLAIMED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Folders that a process remembers as recorded in its index, eight bytes each. Then it forgets them all,
/// and records them again.
pub const INDEX_FOLDERS_MAX: usize = 65_536;

/// Indexes of incoming files that are looked at: those of processes that live, and of ones that were
/// killed. Further ones wait for another start.
pub const INDEXES_MAX: usize = 4096;

/// Bytes that a store with a quota may hold where nothing else was said.
pub const QUOTA_BYTES_DEFAULT: u64 = 500 * 1024 * 1024;

/// Files that such a store may hold: of 512 bytes each they would fill it.
pub const QUOTA_FILES_DEFAULT: u64 = 1_000_000;

/// Files with several names that are known to be counted while a store is, some 32 MiB of memory. Beyond
/// it each name counts as a file: too much rather than too little.
pub const LINKED_FILES_MAX: usize = 1_000_000;

/// Folders with something to go on with that a receiver looks through at its end, to tell whether any of
/// it is still there. Where there were more, its index stays, and the next start finds out.
pub const KEPT_FOLDERS_MAX: usize = 4096;

/// Bytes of names of folders that are met at once in a folder that is being removed: with as many in each of
/// 2,000 folders above one another that is 32 MiB.
pub const REMOVE_NAMES_LEN_MAX: usize = 16 * 1024;

/// Of folders above one another that are being removed one in so many is held open: the next is found below
/// it, and not from the top, or the work would grow with the square of their number.
pub const REMOVE_HELD_EVERY: usize = 128;

/// So many are held at the most: enough for as many folders as a path may name.
pub const REMOVE_HELD_MAX: usize = 16;

/// Times that a folder is gone through again because something is left in it after all was removed: some
/// file systems pass over names while others go, half of them at the most.
pub const REMOVE_ROUNDS_MAX: u32 = 64;

/// Temporary names of one folder that are looked after at once. Further ones wait for another start.
pub const LEFTOVERS_MAX: usize = 65_536;

/// Bytes of a journal that are read at once.
pub const JOURNAL_READ_LEN: usize = 64 * 1024;

/// Bytes that are hashed again between two signs of life: far less than a heartbeat's time, even on a
/// disk that is slow.
pub const REHASH_STEP_LEN: u64 = 4 * 1024 * 1024;

/// Names tried for a file being received before giving up: leftovers of earlier runs are in the way
/// of the first few only.
pub const TEMP_TRIES_MAX: usize = 100;

/// Bytes of links and folder attributes that wait in memory before they go to a file.
pub const PENDING_BLOCK_LEN: usize = 64 * 1024;

/// Bytes of links and of folder attributes that may wait for the end, each: some ten million of them.
pub const PENDING_LEN_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes of one link or folder that waits: the kernel takes 64 KiB of extended attributes on most
/// file systems, and this many on none.
pub const PENDING_ENTRY_LEN_MAX: usize = 4 * 1024 * 1024;

/// How long a receiver that was asked to stop lets running chunks end.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// Bytes of a user's name.
pub const USER_NAME_LEN_MAX: usize = 32;

/// Bytes of a password: more says no more, and each is hashed for whoever asks.
pub const PASSWORD_LEN_MAX: usize = 1024;

/// KiB of memory for one hash of a password: with [`HASH_PASSES`] and [`HASH_LANES`] what OWASP recommends
/// for Argon2id (Password Storage Cheat Sheet).
pub const HASH_MEMORY_KIB: u32 = 19 * 1024;

/// Passes over that memory.
pub const HASH_PASSES: u32 = 2;

/// Lanes in it: a login has one thread.
pub const HASH_LANES: u32 = 1;

/// Times that a stored hash may want more memory, passes or lanes than ours: a database that somebody
/// altered must not take all of the machine's.
pub const HASH_COST_FACTOR_MAX: u32 = 8;

/// Hashes of passwords that are computed at once: 38 MiB, and no more than two cores.
pub const HASHES_MAX: usize = 2;

/// Hashes that wait for their turn: two seconds of work. Who comes later hears that we are busy.
pub const HASHES_WAITING_MAX: usize = 64;

/// Bytes that an account may keep where nobody said otherwise.
pub const ACCOUNT_BYTES_DEFAULT: u64 = 500 * 1024 * 1024;

/// Files that an account may keep where nobody said otherwise: those bytes in files of 5 KiB.
pub const ACCOUNT_FILES_DEFAULT: u64 = 100_000;

/// What administrators did that is kept until a receiver has told it.
pub const ACTS_KEPT_MAX: i64 = 1000;

/// Keys of one account: a machine has one.
pub const ACCOUNT_KEYS_MAX: usize = 64;

/// Bytes of what is said about a key: a user and a machine's name.
pub const KEY_COMMENT_LEN_MAX: usize = 128;

/// Bytes of a file with a private key: a key has 120.
pub const LOGIN_KEY_LEN_MAX: usize = 8 * 1024;

/// How long the accounts may be locked by another program, which needs them for a moment.
pub const ACCOUNTS_BUSY_MAX: Duration = Duration::from_secs(5);

/// Who reads a receiver's numbers at once: a scraper or two. Who has waited longest makes room.
pub const METRICS_VISITORS_MAX: usize = 16;

/// Bytes of a request for a receiver's numbers: scrapers send some hundred.
pub const METRICS_REQUEST_LEN_MAX: usize = 8 * 1024;

/// How long such a request may take, its answer included.
pub const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// Days whose log files are kept where `--log_keep` does not say.
pub const LOG_KEEP_DAYS_DEFAULT: u32 = 30;

/// Days that `--log_keep` may ask for: a century.
pub const LOG_KEEP_DAYS_MAX: u32 = 36_525;
/// How long sessions may go on whose account was locked or removed.
pub const SESSION_END_MAX: Duration = Duration::from_secs(2);

const _: () = {
    assert!(WINDOW_FRAMES_MAX * REPLY_LEN_MAX <= REPLIES_LEN_MAX);
    assert!(WINDOW_FRAMES_MAX * WIRE_REPLY_LEN_MAX <= REPLIES_LEN_MAX);
    assert!(8 + 2 + 16 * WANTED_RANGES_MAX <= 3 + WIRE_REASON_LEN_MAX);
    assert!(CREATE_FRAMES_MAX <= REPLIES_LEN_MAX);
    assert!(HAVE_BATCH_LEN + XATTRS_LEN_MAX + PATH_LEN_MAX + 256 < FRAME_LEN_MAX);
    assert!(LIST_PAGE_LEN + XATTRS_LEN_MAX + PATH_LEN_MAX + NAME_LEN_MAX + 256 < FRAME_LEN_MAX);
    assert!(BLOCK_LEN.is_power_of_two());
    assert!(XATTRS_LEN_MAX + PATH_LEN_MAX + 256 < FRAME_LEN_MAX);
    assert!(READ_LEN_MIN < BUFFER_LEN);
    assert!(WIRE_NAME_LEN_MAX + 32 < READ_LEN_MIN);
    assert!(WIRE_NAME_LEN_MAX <= LIST_LEN_MAX);
    assert!(BUFFER_LEN < INBOX_LEN_MAX);
    assert!(PATH_LEN_MAX + REASON_LEN_MAX + 64 < FRAME_LEN_MAX);
    assert!(ADDRESSES_MAX * 64 + 3 * PATH_LEN_MAX < FRAME_LEN_MAX);
    assert!(TLS_HANDSHAKE_LEN_MAX <= TLS_INCOMING_LEN);
    assert!(TLS_WRITE_LEN.is_multiple_of(TLS_PLAIN_LEN_MAX));
};
