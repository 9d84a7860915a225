//! A host and a port, as people and receivers name them to each other.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use crate::limits::{ADDRESSES_MAX, RELAY_NAME_LEN_MAX};

/// A name or an address, and a port: `host:9000`, `192.0.2.7:9000`, `[2001:db8::7]:9000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// What names no host and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not HOST:PORT: {why}", text.escape_debug())]
pub struct HostPortError {
    text: String,
    why: &'static str,
}

impl HostPort {
    /// A host, with or without brackets, and a port.
    ///
    /// # Errors
    /// It can't be a host's name, or is longer than a relay takes.
    pub fn new(host: &str, port: u16) -> Result<Self, HostPortError> {
        let error = |why| HostPortError { text: host.to_owned(), why };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // Names differ in nothing by their case (RFC 4343).
        let host = bare.to_ascii_lowercase();
        let is_address = host.parse::<IpAddr>().is_ok();
        if host.is_empty() || host.len() > RELAY_NAME_LEN_MAX - 8 {
            return Err(error("a host's name has 1 to 255 characters"));
        }
        if host.chars().any(|char| char.is_control() || char.is_whitespace()) || host.contains(['/', ',', '@', '[', ']']) {
            return Err(error("that is no name of a host"));
        }
        if port == 0 {
            return Err(error("a port is from 1 to 65535"));
        }
        // What is left are addresses with the name of a link behind them.
        match host.contains(':') && !is_address && !host.contains('%') {
            true => Err(error("an IPv6 address goes into brackets, as in [::1]:9000")),
            false => Ok(Self { host, port }),
        }
    }

    /// The one that `text` names; where it has no port, with `port`.
    ///
    /// # Errors
    /// It names none.
    pub fn parse(text: &str, port: Option<u16>) -> Result<Self, HostPortError> {
        let error = |why| HostPortError { text: text.to_owned(), why };
        let (host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => {
                (host, Some(rest.strip_prefix(':').ok_or_else(|| error("a colon and a port go behind the brackets"))?))
            }
            // An address of IPv6 alone.
            None if text.parse::<IpAddr>().is_ok() => (text, None),
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match rest {
            Some(digits) => digits.parse().map_err(|_| error("a port is from 1 to 65535"))?,
            None => port.ok_or_else(|| error("a port is needed"))?,
        };
        Self::new(host, port).map_err(|HostPortError { why, .. }| error(why))
    }

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its addresses, the system's favourite first.
    ///
    /// # Errors
    /// Those of the resolver.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
    }

    /// Does `other` name the same, or one of its addresses?
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let Ok(address) = other.host.parse::<IpAddr>() else { return false };
        let is_same = |own: &SocketAddr| own.ip().to_canonical() == address.to_canonical();
        self.port == other.port && self.resolve().is_ok_and(|own| own.iter().any(is_same))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_taken_as_people_write_them() {
        for (text, shown) in [
            ("Relay:9000", Some("relay:9000")),
            ("relay", Some("relay:7000")),
            ("192.0.2.7:1", Some("192.0.2.7:1")),
            ("192.0.2.7", Some("192.0.2.7:7000")),
            ("[2001:db8::7]:9000", Some("[2001:db8::7]:9000")),
            ("[2001:db8::7]", Some("[2001:db8::7]:7000")),
            ("2001:db8::7", Some("[2001:db8::7]:7000")),
            ("[fe80::1%eth0]:9", Some("[fe80::1%eth0]:9")),
            ("", None),
            (":9000", None),
            ("relay:0", None),
            ("relay:65536", None),
            ("relay:", None),
            ("[::1]9000", None),
            ("a b:1", None),
            ("a/b:1", None),
            ("user@relay:1", None),
            ("::1:x", None),
        ] {
            let parsed = HostPort::parse(text, Some(7000)).ok().map(|parsed| parsed.to_string());
            assert_eq!(parsed.as_deref(), shown, "{text}");
        }
        assert!(HostPort::parse("relay", None).is_err());
        assert!(HostPort::parse(&"x".repeat(256), Some(1)).is_err());
        assert!(HostPort::parse(&"x".repeat(255), Some(1)).is_ok());
    }

    #[test]
    fn an_address_is_covered_by_a_name_that_has_it_and_not_the_other_way_round() {
        let of = |text: &str| HostPort::parse(text, None).unwrap();
        assert!(of("localhost:9").covers(&of("127.0.0.1:9")));
        assert!(!of("localhost:9").covers(&of("127.0.0.1:10")));
        assert!(!of("127.0.0.1:9").covers(&of("localhost:9")));
        assert!(of("LOCALHOST:9").covers(&of("localhost:9")));
    }
}
