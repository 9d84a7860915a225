//! The hot path alone: one file through a pair of sockets, hashed on both sides, no network, no
//! protocol. Prints bytes a second and CPU seconds; judges nothing.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark reports, and may fail")]

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use parallel_transfer::pump::{Inbox, Outbox, file_to_stream, stream_to_file};

const LEN_DEFAULT: u64 = 512 << 20;

fn main() {
    // `cargo bench` adds flags of its own.
    let len = env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(LEN_DEFAULT);
    let folder = if fs::exists("/dev/shm").unwrap_or(false) { "/dev/shm".into() } else { env::temp_dir() };
    let folder = tempfile::tempdir_in(folder).unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    fs::write(&source, vec![7; usize::try_from(len).unwrap()]).unwrap();
    for _ in 0..3 {
        let _ = fs::remove_file(&target);
        let (source, target) = (File::open(&source).unwrap(), File::create(&target).unwrap());
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let (started, cpu) = (Instant::now(), cpu_time());
        let (sent, received) = thread::scope(|scope| {
            let receiver = scope.spawn(|| stream_to_file(&mut Inbox::default(), &mut far, &target, 0, len).unwrap());
            let mut outbox = Outbox::default();
            let sent = file_to_stream(&source, 0, len, &mut outbox, &mut near).unwrap();
            outbox.flush(&mut near).unwrap();
            (sent, receiver.join().unwrap())
        });
        assert_eq!(sent, received);
        let (wall, cpu) = (started.elapsed(), cpu_time() - cpu);
        println!("{:.2} GB/s, {:.2} CPU s/GB", per_second(len, wall) / 1e9, cpu.as_secs_f64() * 1e9 / len as f64);
    }
}

fn per_second(len: u64, time: Duration) -> f64 {
    len as f64 / time.as_secs_f64()
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
