//! Which address is dialled, and which receiver is taken.

use super::*;
use crate::limits::{RETRY_FOR_DEFAULT, STALL_DEFAULT};
use crate::net::Listener;
use crate::net::host_key::HostKey;
use std::thread;

fn listener() -> Listener {
    Listener::bind(Some([127, 0, 0, 1].into()), 0, None).unwrap()
}

/// Serves one connection with `key`, or closes it without a word.
fn serve(listener: &Listener, key: Option<&HostKey>) -> bool {
    let (socket, _) = listener.accept(&Stop::new().unwrap()).unwrap().unwrap();
    let mut stream = listener.stream(socket, STALL_DEFAULT).unwrap();
    key.is_some_and(|key| stream.start_tls_server(&key.server(), &[], Instant::now() + TLS_HELLO_TIMEOUT).is_ok())
}

fn dialer(listeners: &[&Listener], trusted: &HostKey) -> Dialer {
    let addresses = listeners.iter().map(|listener| listener.address().unwrap()).collect();
    let client = Client::pinned(trusted.fingerprint()).unwrap();
    Dialer::to_addresses(addresses, STALL_DEFAULT, RETRY_FOR_DEFAULT).with_tls(Some(client))
}

#[test]
fn a_refused_receiver_is_not_asked_again_nor_elsewhere() {
    let (key, other) = (HostKey::for_one_job().unwrap(), HostKey::for_one_job().unwrap());
    let (one, two) = (listener(), listener());
    let dialer = dialer(&[&one, &two], &other);
    thread::scope(|scope| {
        scope.spawn(|| assert!(!serve(&one, Some(&key))));
        let start = Instant::now();
        let error = dialer.dial_patiently(&Stop::new().unwrap()).unwrap_err();
        assert!(error.is_refusal() && !error.is_foreign(), "{error}");
        assert!(start.elapsed() < RETRY_FOR_DEFAULT);
    });
    let Listener::Tcp(two) = two else { return };
    assert!(two.accept().is_err(), "the other address was left alone");
}

#[test]
fn an_address_without_tls_is_passed_over_and_named_when_it_is_the_last() {
    let key = HostKey::for_one_job().unwrap();
    let (one, two) = (listener(), listener());
    let stop = Stop::new().unwrap();
    let both = dialer(&[&one, &two], &key);
    thread::scope(|scope| {
        scope.spawn(|| serve(&one, None));
        scope.spawn(|| assert!(serve(&two, Some(&key))));
        assert!(both.dial(&stop).unwrap().is_encrypted());
    });
    assert_eq!(both.addresses()[0], two.address().unwrap(), "it is asked first from now on");
    assert_eq!(both.tls().unwrap().seen().unwrap().fingerprint, key.fingerprint());
    thread::scope(|scope| {
        scope.spawn(|| serve(&one, None));
        let error = dialer(&[&one], &key).dial(&stop).unwrap_err();
        assert!(error.is_foreign() && !error.is_refusal());
        assert!(error.to_string().contains("--protocol v1"), "{error}");
    });
}
