//! A ticket: all that a sender needs to reach a receiver that serves one job, on one line.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::limits::ADDRESSES_MAX;
use crate::net::tls::Fingerprint;
use crate::protocol::Token;

/// Where a receiver is, which key it has, and the secret that opens it: `ptf2`, addresses joined by
/// commas, port, fingerprint and secret, with spaces between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The receiver's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// That of its key.
    pub fingerprint: Fingerprint,
    /// What opens it.
    pub secret: Token,
}

/// What is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no ticket: what 'recv --once' prints begins with 'ptf2' and has five words")]
pub struct TicketError;

impl Ticket {
    /// The addresses with the port.
    #[must_use]
    pub fn sockets(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|&address| SocketAddr::new(address, self.port)).collect()
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        write!(f, "ptf2 {} {} {} ", addresses.join(","), self.port, self.fingerprint)?;
        self.secret.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["ptf2", addresses, port, fingerprint, secret] = words[..] else { return Err(TicketError) };
        let addresses: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
        let addresses = addresses.ok().filter(|addresses| addresses.len() <= ADDRESSES_MAX).ok_or(TicketError)?;
        let port = port.parse().ok().filter(|&port| port > 0).ok_or(TicketError)?;
        let fingerprint = fingerprint.parse().map_err(|_| TicketError)?;
        let mut token = [0; 32];
        if secret.len() != 2 * token.len() || !secret.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TicketError);
        }
        for (byte, digits) in token.iter_mut().zip(secret.as_bytes().chunks(2)) {
            *byte = str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(TicketError)?;
        }
        Ok(Self { addresses, port, fingerprint, secret: Token(token) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_reads_as_it_was_written_and_nothing_else_does() {
        let ticket = Ticket {
            addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            port: 9000,
            fingerprint: Fingerprint::of(b"x"),
            secret: Token([0xa5; 32]),
        };
        let text = ticket.to_string();
        assert_eq!(text.parse(), Ok(ticket));
        assert_eq!(format!(" {text}\n").parse::<Ticket>().map(|ticket| ticket.port), Ok(9000));
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<Ticket>().is_err(), "{cut}");
        }
        for (from, to) in
            [("ptf2", "ptf3"), ("9000", "0"), ("9000", "90000"), ("192.0.2.7", "host"), ("a5a5", "+5a5"), ("a5a5", "é")]
        {
            assert!(text.replacen(from, to, 1).parse::<Ticket>().is_err(), "{to}");
        }
    }
}
