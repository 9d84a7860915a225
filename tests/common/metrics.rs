//! The metrics page of a receiver, read as Prometheus would.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The line in which a receiver says where its metrics are.
const METRICS_ON: &str = "metrics on http://127.0.0.1:";

/// Where the metrics of a receiver are.
pub fn metrics_port(recv: &Recv) -> u16 {
    let line = || recv.process.more_lines().into_iter().find(|line| line.starts_with(METRICS_ON));
    wait_until("it says where its metrics are", || line().is_some());
    line().unwrap().strip_prefix(METRICS_ON).unwrap().strip_suffix("/metrics").unwrap().parse().unwrap()
}

/// Asks by these bytes; gives all that is answered.
pub fn ask(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be answered before all of it was written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

pub fn page(port: u16) -> String {
    let answer = ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

/// Reads the text format of Prometheus, and refuses what is not quite that: each family with its help
/// and its type before its samples, all together, no sample twice.
pub fn parse(page: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| name.chars().all(|char| char.is_ascii_lowercase() || char == '_') && !name.is_empty();
    let (mut samples, mut families, mut family) = (BTreeMap::new(), BTreeSet::new(), ("", ""));
    let mut helped = "";
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, what) = help.split_once(' ').unwrap();
            assert!(is_name(name) && what.ends_with('.') && families.insert(name), "{line}");
            helped = name;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            family = kind.split_once(' ').unwrap();
            assert!(family.0 == helped && ["counter", "gauge"].contains(&family.1), "{line}");
            assert_eq!(family.0.ends_with("_total"), family.1 == "counter", "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            assert_eq!(name, family.0, "{line}");
            let is_label = |label: &str| {
                let (key, value) = label.split_once('=').unwrap();
                is_name(key) && value.len() > 2 && value.starts_with('"') && value.ends_with('"')
            };
            assert!(labels.is_empty() || labels.strip_suffix('}').unwrap().split(',').all(is_label), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert_eq!(samples.insert(sample.to_owned(), value), None, "{line}");
        }
    }
    samples
}

/// The numbers once no connection is served any more.
pub fn numbers(port: u16) -> BTreeMap<String, f64> {
    wait_until("no connection is served", || parse(&page(port))["ptf_connections"] == 0.0);
    parse(&page(port))
}
