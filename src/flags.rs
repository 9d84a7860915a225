//! Values of flags: sizes, times, versions.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::net::IpVersion;

/// Bytes from `1572864`, `1.5M`, `16MiB`, `1GB`: a letter alone and `iB` mean powers of 1024, `B`
/// after the letter powers of 1000, as in rsync.
///
/// # Errors
/// What is no size, or none above 0.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let unit = unit.to_ascii_lowercase();
    let (letter, base) = match unit.as_bytes() {
        [] | [b'b'] => (None, 1024),
        [letter] | [letter, b'i', b'b'] => (Some(*letter), 1024),
        [letter, b'b'] => (Some(*letter), 1000),
        _ => return Err(format!("'{unit}' is no unit of size; K, M, G and T are")),
    };
    let power = match letter {
        None => 0,
        Some(letter) => match b"kmgtpe".iter().position(|&known| known == letter) {
            Some(index) => index + 1,
            None => return Err(format!("'{unit}' is no unit of size; K, M, G and T are")),
        },
    };
    let factor = (0..power).try_fold(1u64, |factor, _| factor.checked_mul(base));
    let wrong = || format!("'{text}' is no size; write it like 150M or 1GiB");
    let bytes = match (number.parse::<u64>(), factor) {
        (Ok(whole), Some(factor)) => whole.checked_mul(factor).ok_or_else(|| format!("'{text}' is too large"))?,
        (Err(_), Some(factor)) => fraction(number, factor).ok_or_else(wrong)?,
        (_, None) => return Err(format!("'{text}' is too large")),
    };
    if bytes == 0 { Err("a size of at least 1 byte is needed".to_owned()) } else { Ok(bytes) }
}

/// A time from `30`, `1.5s`, `500ms`, `2m`, `1h`, `7d`; seconds where there is no unit.
///
/// # Errors
/// What is no time.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("'{unit}' is no unit of time; ms, s, m, h and d are")),
    };
    let wrong = || format!("'{text}' is no time; write it like 30s or 2m");
    match fraction(number, milliseconds).ok_or_else(wrong)? {
        0 => Err("a time above 0 is needed".to_owned()),
        milliseconds => Ok(Duration::from_millis(milliseconds)),
    }
}

/// An IP version from `4` or `6`.
///
/// # Errors
/// Anything else.
pub fn parse_ip_version(text: &str) -> Result<IpVersion, String> {
    match text {
        "4" => Ok(IpVersion::V4),
        "6" => Ok(IpVersion::V6),
        _ => Err("there are versions 4 and 6".to_owned()),
    }
}

/// Where to listen, from `9100`, which means this machine alone, `192.0.2.7:9100` or `[::]:9100`.
///
/// # Errors
/// Anything else.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| text.parse().map(|port: u16| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)))
        .map_err(|_| format!("'{text}' is neither a port like 9100 nor an address with one like 192.0.2.7:9100"))
}

/// This program's folder below `chosen`, or below `usual` in the user's home where nothing absolute was
/// chosen; `None` where there is no home either (XDG Base Directory Specification).
#[must_use]
pub fn folder_of_user(chosen: Option<OsString>, home: Option<OsString>, usual: &str) -> Option<PathBuf> {
    let absolute = |folder: Option<OsString>| folder.map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = absolute(chosen).or_else(|| Some(absolute(home)?.join(usual)))?;
    Some(folder.join(Path::new("parallel-transfer")))
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..end].trim_end(), &text[end..])
}

/// `number`, which may have a fraction, times `factor`; `None` if it is no plain number.
fn fraction(number: &str, factor: u64) -> Option<u64> {
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let product = number.parse::<f64>().ok()? * factor as f64;
    (product < u64::MAX as f64).then_some(product.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_user_is_never_relative() {
        let folder = |chosen: &str, home: &str| folder_of_user(Some(chosen.into()), Some(home.into()), ".config");
        assert_eq!(folder("/etc", "/home/x"), Some("/etc/parallel-transfer".into()));
        assert_eq!(folder("etc", "/home/x"), Some("/home/x/.config/parallel-transfer".into()));
        assert_eq!(folder("", "x"), None);
    }

    // F01
    #[test]
    fn sizes_take_suffixes() {
        for (text, bytes) in [
            ("1", 1),
            ("1572864", 1_572_864),
            ("1.5M", 1_572_864),
            ("150M", 150 << 20),
            ("1GiB", 1 << 30),
            ("1gb", 1_000_000_000),
            ("16 KiB", 16384),
            ("5b", 5),
            ("9223372036854775808", 1 << 63),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["0", "-1", "", "M", "1X", "1MiX", "1.5.5M", "1e3", "0.0001", "99999E", "inf", "nan", "1,5M"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_alone_listens_on_this_machine_alone() {
        for (text, address) in
            [("9100", "127.0.0.1:9100"), ("0", "127.0.0.1:0"), ("0.0.0.0:9100", "0.0.0.0:9100"), ("[::]:1", "[::]:1")]
        {
            assert_eq!(parse_listen(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", ":9100", "65536", "-1", "host:9100", "127.0.0.1", "::1", "http://127.0.0.1:9100"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_take_units() {
        for (text, milliseconds) in
            [("30", 30_000), ("1.5s", 1500), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["0", "-1", "", "s", "1y", "1e30", "99999999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
