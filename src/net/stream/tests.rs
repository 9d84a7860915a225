//! Streams in clear and in TLS, between two ends of a pair of sockets.

use super::*;
use crate::limits::{STALL_DEFAULT, TLS_HANDSHAKE_LEN_MAX, TLS_HELLO_TIMEOUT};
use crate::net::host_key::HostKey;
use crate::net::is_stall;
use socket2::{Domain, Type};
use std::io::ErrorKind;
use std::thread;

fn sockets() -> (Socket, Socket) {
    Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap()
}

fn stream(socket: Socket) -> Stream {
    Stream::new(socket, STALL_DEFAULT, false).unwrap()
}

fn soon() -> Instant {
    Instant::now() + TLS_HELLO_TIMEOUT
}

fn sealed(mut stream: Stream, server: &Server, first_bytes: &[u8]) -> Stream {
    stream.start_tls_server(server, first_bytes, soon()).unwrap();
    stream
}

/// The two ends of an encrypted stream.
fn pair() -> (Stream, Stream) {
    let key = HostKey::for_one_job().unwrap();
    let trust = Client::pinned(key.fingerprint()).unwrap();
    let (client, server) = sockets();
    let (client, server) = (stream(client), stream(server));
    thread::scope(|scope| {
        let server = scope.spawn(|| sealed(server, &key.server(), &[]));
        (client.start_tls_client(&trust, TLS_HELLO_TIMEOUT, &Stop::new().unwrap()).unwrap(), server.join().unwrap())
    })
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + index / 251) as u8).collect()
}

fn read_exact(stream: &mut Stream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// What is in a socket up to its end.
#[allow(clippy::disallowed_methods, reason = "the peer is this test")]
fn read_raw(mut socket: &Socket) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Reads to the end or to an error.
fn read_all(stream: &mut Stream) -> (Vec<u8>, io::Result<usize>) {
    let (mut bytes, mut room) = (Vec::new(), vec![0; 50_000]);
    loop {
        match stream.read(&mut room) {
            Ok(len @ 1..) => bytes.extend_from_slice(&room[..len]),
            end => return (bytes, end),
        }
    }
}

#[test]
fn bytes_arrive_in_both_directions_however_they_are_cut() {
    let (mut client, mut server) = pair();
    assert!(client.is_encrypted() && server.is_encrypted());
    for len in [1, 2, 1000, 16_383, 16_384, 16_385, 100_000] {
        client.write_all(&pattern(len)).unwrap();
        assert!(read_exact(&mut server, len) == pattern(len));
        server.write_all(&pattern(len)).unwrap();
        let mut in_pieces = vec![0; len];
        in_pieces.chunks_mut(7).for_each(|bytes| client.read_exact(bytes).unwrap());
        assert!(in_pieces == pattern(len));
    }
    (0..200_u8).for_each(|byte| client.write_all(&[byte]).unwrap());
    assert_eq!(read_exact(&mut server, 200), (0..200).collect::<Vec<u8>>());
}

#[test]
fn what_came_before_the_handshake_and_with_its_end_is_not_lost() {
    let key = HostKey::for_one_job().unwrap();
    let trust = Client::pinned(key.fingerprint()).unwrap();
    let (client, server) = sockets();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = stream(client).start_tls_client(&trust, TLS_HELLO_TIMEOUT, &Stop::new().unwrap()).unwrap();
            client.write_all(b"at once").unwrap();
            assert_eq!(read_exact(&mut client, 2), b"ok");
        });
        let mut server = stream(server);
        let first = read_exact(&mut server, 3);
        assert_eq!(first[0], 0x16);
        let mut server = sealed(server, &key.server(), &first);
        assert_eq!(read_exact(&mut server, 7), b"at once");
        server.write_all(b"ok").unwrap();
    });
}

#[test]
fn a_client_that_leaves_right_after_the_handshake_is_no_error() {
    let key = HostKey::for_one_job().unwrap();
    let trust = Client::pinned(key.fingerprint()).unwrap();
    let (client, server) = sockets();
    thread::scope(|scope| {
        let (through, middle) = sockets();
        let dialled = scope.spawn(|| {
            let mut client = stream(client).start_tls_client(&trust, TLS_HELLO_TIMEOUT, &Stop::new().unwrap()).unwrap();
            client.write_all(b"bye").unwrap();
            client.end_writing().unwrap();
        });
        let served = scope.spawn(|| sealed(stream(middle), &key.server(), &[]));
        // Everything after the hello arrives at once.
        let mut bytes = vec![0; 4096];
        let len = (&server).read(&mut bytes).unwrap();
        (&through).write_all(&bytes[..len]).unwrap();
        let len = (&through).read(&mut bytes).unwrap();
        (&server).write_all(&bytes[..len]).unwrap();
        dialled.join().unwrap();
        (&through).write_all(&read_raw(&server)).unwrap();
        assert_eq!(read_all(&mut served.join().unwrap()).0, b"bye");
    });
}

#[test]
fn a_window_of_answers_does_not_stop_a_long_transfer() {
    const PARTS: usize = 100;
    let (mut client, mut server) = pair();
    let part = pattern(100_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..PARTS {
                assert!(read_exact(&mut server, part.len()) == part);
                server.write_all(&[7; 32]).unwrap();
            }
        });
        let (mut answered, mut room) = (0, [0; 1000]);
        for _ in 0..PARTS {
            client.write_all(&part).unwrap();
            answered += client.read_available(&mut room).unwrap().unwrap_or_default();
        }
        assert!(read_exact(&mut client, PARTS * 32 - answered).iter().all(|byte| *byte == 7));
    });
}

#[test]
fn both_ends_may_write_at_once_what_the_sockets_hold() {
    let (mut client, mut server) = pair();
    for round in 1..20 {
        let bytes = pattern(round * 1000);
        client.write_all(&bytes).unwrap();
        server.write_all(&bytes).unwrap();
        assert!(read_exact(&mut client, bytes.len()) == bytes);
        assert!(read_exact(&mut server, bytes.len()) == bytes);
    }
}

#[test]
fn what_was_changed_on_the_way_is_never_taken_for_content() {
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    const LEN: usize = 60_000;
    const RECORD_LEN: usize = 5 + 16_384 + 17;
    let flip = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 1;
    let changes: [Change<'_>; 9] = [
        &|bytes| bytes[0] ^= 0x80,
        &flip(4),
        &flip(5),
        &flip(RECORD_LEN + 9000),
        &flip(2 * RECORD_LEN - 1),
        &|bytes| *bytes.last_mut().unwrap() ^= 0x80,
        &|bytes| drop(bytes.drain(..RECORD_LEN)),
        &|bytes| bytes.extend_from_within(..RECORD_LEN),
        &|bytes| bytes.rotate_left(RECORD_LEN),
    ];
    for (index, change) in changes.iter().enumerate() {
        let (mut client, mut server) = pair();
        client.write_all(&pattern(LEN)).unwrap();
        client.handle().shutdown(Shutdown::Write);
        let mut bytes = read_raw(&server.handle.0);
        change(&mut bytes);
        let (other, changed) = sockets();
        (&other).write_all(&bytes).unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        server.handle = Handle(Arc::new(changed));
        let (came, end) = read_all(&mut server);
        assert!(pattern(LEN).starts_with(&came), "change {index}");
        // A length that was made larger is a record that never ends.
        let ended_early = end.as_ref().is_ok_and(|len| *len == 0) && came.len() < LEN;
        assert!(ended_early || end.is_err_and(|error| error.kind() == ErrorKind::InvalidData), "change {index}");
        assert!(index == 1 || server.read(&mut [0; 9]).is_err(), "change {index}: an error stays");
    }
}

#[test]
fn what_is_here_is_read_without_waiting() {
    let (mut client, mut server) = pair();
    let mut room = [0; 100];
    assert!(server.read_available(&mut room).unwrap().is_none() && !server.is_readable());
    client.write_all(&[1; 150]).unwrap();
    assert!(server.is_readable());
    assert_eq!(server.read(&mut room).unwrap(), 100);
    assert!(server.is_readable() && !server.handle().is_readable(), "decrypted and not read");
    assert_eq!(server.read_available(&mut room).unwrap(), Some(50));
    assert!(!server.is_readable() && server.read_available(&mut room).unwrap().is_none());

    // Two thirds of a record are nothing yet.
    client.write_all(&[2; 90]).unwrap();
    let mut record = [0; 200];
    let len = (&*server.handle.0).read(&mut record).unwrap();
    let (through, end) = sockets();
    server.handle = Handle(Arc::new(end));
    (&through).write_all(&record[..60]).unwrap();
    assert!(server.read_available(&mut room).unwrap().is_none() && !server.is_readable());
    (&through).write_all(&record[60..len]).unwrap();
    assert_eq!(server.read_available(&mut room).unwrap(), Some(90));
    assert!(server.read_available(&mut []).unwrap() == Some(0));
}

#[test]
fn an_end_is_an_end_announced_or_not() {
    let (mut client, mut server) = pair();
    client.write_all(b"last").unwrap();
    client.end_writing().unwrap();
    assert_eq!(client.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(read_all(&mut server).0, b"last");
    assert_eq!(server.read_available(&mut [0; 9]).unwrap(), Some(0));
    server.write_all(b"answer").unwrap();
    server.handle().shutdown(Shutdown::Write);
    let (answer, end) = read_all(&mut client);
    assert_eq!((answer.as_slice(), end.unwrap()), (&b"answer"[..], 0));
}

#[test]
fn no_progress_for_the_time_of_a_stall_is_an_error() {
    let (mut client, mut server) = pair();
    server.handle().limit_waits(Duration::from_millis(20)).unwrap();
    client.handle().limit_waits(Duration::from_millis(20)).unwrap();
    assert!(is_stall(&server.read(&mut [0; 9]).unwrap_err()));
    assert!(is_stall(&client.write_all(&pattern(3_000_000)).unwrap_err()));
    assert_eq!(client.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe, "a record was torn");
    server.write_all(b"the other direction").unwrap();
    assert_eq!(read_exact(&mut client, 19), b"the other direction");
}

#[test]
fn memory_given_back_is_taken_again() {
    let (mut client, mut server) = pair();
    for _ in 0..3 {
        client.write_all(&pattern(100_000)).unwrap();
        client.release();
        let mut came = read_exact(&mut server, 10);
        server.release();
        came.extend(read_exact(&mut server, 99_990));
        assert!(came == pattern(100_000));
        server.release();
        assert!(!server.is_readable());
    }
}

fn serve(first_bytes: &[u8], server: Socket, time: Duration) -> TlsError {
    let key = HostKey::for_one_job().unwrap();
    stream(server).start_tls_server(&key.server(), first_bytes, Instant::now() + time).unwrap_err()
}

#[test]
fn a_hello_of_an_older_version_is_refused_with_an_alert() {
    let mut hello = vec![0x16, 3, 1, 0, 57, 1, 0, 0, 53, 3, 3];
    hello.extend([7; 32]);
    // No session, two ciphers, no compression, and one extension: a way to sign.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0, 0x9c, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let (client, server) = sockets();
    let error = serve(&hello, server, TLS_HELLO_TIMEOUT);
    assert!(matches!(error, TlsError::Failed(rustls::Error::PeerIncompatible(_))), "{error:?}");
    assert!(!error.to_string().contains('\n'));
    let alert = read_raw(&client);
    assert_eq!(alert[0], 21, "an alert");
    assert_eq!(alert[alert.len() - 2..], [2, 70], "protocol_version");
}

#[test]
fn a_client_that_speaks_no_tls_is_told_apart() {
    for first in [&b"\x16\x16\x16\x16\x16\x16\x16\x16"[..], b"\x16\x03\x01\xff\xff", &[0x16; TLS_HANDSHAKE_LEN_MAX + 1]] {
        let error = serve(first, sockets().1, TLS_HELLO_TIMEOUT);
        assert!(matches!(error, TlsError::Foreign(_)), "{error:?}");
    }
}

#[test]
fn a_handshake_ends_at_its_deadline_however_it_is_fed() {
    let (client, server) = sockets();
    let time = Duration::from_millis(60);
    thread::scope(|scope| {
        scope.spawn(move || {
            let hello = [0x16, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc].into_iter().chain(std::iter::repeat(0));
            // A byte now and then, for as long as someone takes it.
            for byte in hello {
                if (&client).write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let start = Instant::now();
        let error = serve(&[], server, time);
        assert!(matches!(error, TlsError::Late), "{error:?}");
        assert!(start.elapsed() >= time && start.elapsed() < TLS_HELLO_TIMEOUT);
    });
}

#[test]
fn a_receiver_that_speaks_no_tls_is_told_apart() {
    let time = Duration::from_millis(30);
    let dial = |answer: Option<&[u8]>| {
        let (client, server) = sockets();
        let trust = Client::pinned(HostKey::for_one_job().unwrap().fingerprint()).unwrap();
        if let Some(answer) = answer {
            (&server).write_all(answer).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
        }
        let error = stream(client).start_tls_client(&trust, time, &Stop::new().unwrap()).unwrap_err();
        drop(server);
        error
    };
    for (answer, foreign) in [
        (None, true),
        (Some(&b""[..]), true),
        (Some(b"d41d8cd98f00b204e9800998ecf8427e"), true),
        (Some(b"F"), true),
        (Some(&[0x16, 3, 3]), false),
    ] {
        let error = dial(answer);
        assert_eq!(matches!(error, TlsError::Foreign(_)), foreign, "{answer:?}: {error}");
    }
    let error = dial(Some(&[21, 3, 3, 0, 2, 2, 40]));
    assert!(error.to_string().contains("HandshakeFailure"), "{error}");
}
