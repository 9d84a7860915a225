//! A TCP relay in front of a receiver that counts, alters, cuts, holds and slows what passes, and may
//! pass nothing on for a while.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};

use super::*;

/// What is done to one connection; numbers count the bytes that went towards the receiver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knobs {
    /// Alters one bit of the byte at this place.
    pub flip: Option<u64>,
    /// Alters one bit of the byte at this place of the answers.
    pub flip_answer: Option<u64>,
    /// Ends the connection after so many bytes.
    pub cut: Option<u64>,
    /// Lets nothing more through after so many bytes, until released.
    pub hold: Option<u64>,
    /// Lets no more answers through after so many bytes of them, until released.
    pub hold_answer: Option<u64>,
    /// Waits before it passes each piece on.
    pub delay: Option<Duration>,
    /// Lets so many bytes a second through.
    pub rate: Option<u64>,
    /// Lets so many bytes of answers a second through.
    pub rate_answer: Option<u64>,
    /// Resets the connection after so long.
    pub lifetime: Option<Duration>,
    /// Comes from 127.0.0 and this.
    pub from: Option<u8>,
    /// Keeps all that passes.
    pub keeps: bool,
}

/// All that passed on one connection: towards the receiver, and its answers.
pub type Kept = [Vec<u8>; 2];

/// The same, while it passes.
type Keeping = [Mutex<Vec<u8>>; 2];

/// Bytes of each connection's start that are kept.
const KEPT_LEN: usize = 16 * 1024;

#[derive(Default)]
struct Shared {
    forth: AtomicU64,
    back: AtomicU64,
    connections: AtomicUsize,
    holding: AtomicUsize,
    resets: AtomicUsize,
    released: AtomicBool,
    /// Nothing passes, either way.
    is_cut: AtomicBool,
    /// Pieces that are kept back since.
    kept_back: AtomicUsize,
    /// Both ends of all connections.
    streams: Mutex<Vec<Weak<[TcpStream; 2]>>>,
    starts: Mutex<Vec<u8>>,
    /// Bytes that went to the receiver, by connection.
    forth_each: Mutex<Vec<u64>>,
    /// Of those connections of which all is kept.
    kept: Mutex<Vec<Arc<Keeping>>>,
}

/// The relay.
pub struct Link {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Link {
    /// One that only counts.
    pub fn to(port: u16) -> Self {
        Self::with(port, |_| Knobs::default())
    }

    /// One that holds each connection after so many bytes.
    pub fn holding(port: u16, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // What the kernel keeps in between has been read by its sender already.
        socket2::SockRef::from(&listener).set_recv_buffer_size(64 * 1024).unwrap();
        Self::start(listener, port, move |_| Knobs { hold: Some(after), ..Knobs::default() })
    }

    /// One that asks `choose` what to do to each connection, by how many there were before.
    pub fn with(upstream: u16, choose: impl Fn(usize) -> Knobs + Send + 'static) -> Self {
        Self::start(TcpListener::bind("127.0.0.1:0").unwrap(), upstream, choose)
    }

    /// The same, which keeps little of what it read and did not pass on yet.
    pub fn narrow(upstream: u16, choose: impl Fn(usize) -> Knobs + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener).set_recv_buffer_size(64 * 1024).unwrap();
        Self::start(listener, upstream, choose)
    }

    fn start(listener: TcpListener, upstream: u16, choose: impl Fn(usize) -> Knobs + Send + 'static) -> Self {
        let (port, shared) = (listener.local_addr().unwrap().port(), Arc::<Shared>::default());
        let link = Self { port, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let index = shared.connections.fetch_add(1, Ordering::SeqCst);
                let (knobs, shared) = (choose(index), Arc::clone(&shared));
                shared.forth_each.lock().unwrap().push(0);
                thread::spawn(move || {
                    let Ok(receiver) = connect_from(knobs.from.unwrap_or(1), upstream) else { return };
                    let back =
                        Knobs { flip: knobs.flip_answer, hold: knobs.hold_answer, rate: knobs.rate_answer, ..Knobs::default() };
                    let kept = knobs.keeps.then(Arc::<Keeping>::default);
                    shared.kept.lock().unwrap().extend(kept.clone());
                    let [kept_forth, kept_back] = [0, 1].map(|way| kept.as_ref().map(|kept| &kept[way]));
                    let ends = Arc::new([stream, receiver]);
                    shared.streams.lock().unwrap().push(Arc::downgrade(&ends));
                    let [stream, receiver] = &*ends;
                    thread::scope(|scope| {
                        let (has_ended, ended) = mpsc::channel::<()>();
                        scope.spawn(|| pass_on(receiver, stream, back, &shared, (&shared.back, kept_back), None));
                        if let Some(lifetime) = knobs.lifetime {
                            let resets = &shared.resets;
                            scope.spawn(move || {
                                if ended.recv_timeout(lifetime) == Err(mpsc::RecvTimeoutError::Timeout) {
                                    resets.fetch_add(1, Ordering::SeqCst);
                                    [stream, receiver].into_iter().for_each(reset);
                                }
                            });
                        }
                        pass_on(stream, receiver, knobs, &shared, (&shared.forth, kept_forth), Some(index));
                        drop(has_ended);
                    });
                });
            }
        });
        link
    }

    /// Bytes that went to the receiver.
    pub fn forth(&self) -> u64 {
        self.shared.forth.load(Ordering::SeqCst)
    }

    /// Bytes that went to the receiver over one connection.
    pub fn forth_of(&self, index: usize) -> u64 {
        self.shared.forth_each.lock().unwrap().get(index).copied().unwrap_or_default()
    }

    /// Bytes that came from the receiver.
    pub fn back(&self) -> u64 {
        self.shared.back.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that were reset at the end of their time.
    pub fn resets(&self) -> usize {
        self.shared.resets.load(Ordering::SeqCst)
    }

    /// What all connections to the receiver began with.
    pub fn starts(&self) -> Vec<u8> {
        self.shared.starts.lock().unwrap().clone()
    }

    /// All that passed on the connections of which that is kept.
    pub fn kept(&self) -> Vec<Kept> {
        let kept = self.shared.kept.lock().unwrap();
        kept.iter().map(|ways| [0, 1].map(|way: usize| ways[way].lock().unwrap().clone())).collect()
    }

    pub fn wait_until_it_holds(&self) {
        wait_until("the relay holds something back", || self.shared.holding.load(Ordering::SeqCst) > 0);
    }

    /// Lets everything through from now on.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// Passes nothing on from now on, either way, and says nothing.
    pub fn cut_off(&self) {
        self.shared.kept_back.store(0, Ordering::SeqCst);
        self.shared.is_cut.store(true, Ordering::SeqCst);
    }

    /// Pieces that came since it was cut off, at most one of each direction of a connection.
    pub fn kept_back(&self) -> usize {
        self.shared.kept_back.load(Ordering::SeqCst)
    }

    /// Goes on where it was cut off.
    pub fn go_on(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    /// Resets all connections that there are.
    pub fn reset_all(&self) {
        let streams = std::mem::take(&mut *self.shared.streams.lock().unwrap());
        let ends: Vec<_> = streams.iter().filter_map(Weak::upgrade).collect();
        self.shared.resets.fetch_add(ends.len(), Ordering::SeqCst);
        ends.iter().flat_map(|ends| ends.iter()).for_each(reset);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.release();
    }
}

fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}

/// A stream to a port of this machine, from one of its addresses.
pub fn connect_from(last: u8, port: u16) -> std::io::Result<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    Ok(socket.into())
}

/// Passes on what comes `from` one side; `forth` is which connection it is, on the way to the receiver.
fn pass_on(
    mut from: &TcpStream, mut to: &TcpStream, knobs: Knobs, shared: &Shared,
    (count, kept): (&AtomicU64, Option<&Mutex<Vec<u8>>>), forth: Option<usize>,
) {
    let (mut bytes, mut passed, start) = ([0; 16_384], 0, Instant::now());
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let here = |at: Option<u64>| at.and_then(|at| at.checked_sub(passed)).filter(|&at| at < len as u64);
        if let Some(at) = here(knobs.flip) {
            bytes[usize::try_from(at).unwrap()] ^= 4;
        }
        if let Some(at) = here(knobs.cut) {
            let _ = to.write_all(&bytes[..usize::try_from(at).unwrap()]);
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
        if here(knobs.hold).is_some() && !shared.released.load(Ordering::SeqCst) {
            shared.holding.fetch_add(1, Ordering::SeqCst);
            while !shared.released.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
        }
        if shared.is_cut.load(Ordering::SeqCst) {
            shared.kept_back.fetch_add(1, Ordering::SeqCst);
            while shared.is_cut.load(Ordering::SeqCst) && !shared.released.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
        }
        knobs.delay.into_iter().for_each(thread::sleep);
        if let Some(rate) = knobs.rate {
            let due = start + Duration::from_secs_f64((passed + len as u64) as f64 / rate as f64);
            let slept = due.saturating_duration_since(Instant::now());
            // In steps, so that a link that is let go is not waited for.
            for _ in 0..=slept.as_millis() / 20 {
                if !shared.released.load(Ordering::SeqCst) {
                    let left = due.saturating_duration_since(Instant::now());
                    thread::sleep(left.min(Duration::from_millis(20)));
                }
            }
        }
        if forth.is_some() && passed < KEPT_LEN as u64 {
            shared.starts.lock().unwrap().extend_from_slice(&bytes[..len]);
        }
        if let Some(kept) = kept {
            kept.lock().unwrap().extend_from_slice(&bytes[..len]);
        }
        count.fetch_add(len as u64, Ordering::SeqCst);
        if let Some(index) = forth {
            shared.forth_each.lock().unwrap()[index] += len as u64;
        }
        if to.write_all(&bytes[..len]).is_err() {
            let _ = from.shutdown(Shutdown::Read);
            break;
        }
        passed += len as u64;
    }
    let _ = to.shutdown(Shutdown::Write);
}
