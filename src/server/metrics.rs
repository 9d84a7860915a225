//! What a receiver did since it started, in numbers, as a page for Prometheus. No number is of a peer,
//! a user or a job: they are as many after a year as after a second.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::progress::{Counter, Timer};

/// Numbers that only grow. What is in use is the difference of two.
#[derive(Debug)]
pub(super) struct Metrics {
    started: SystemTime,
    pub(super) connections: Counter,
    pub(super) disconnections: Counter,
    pub(super) bytes: Counter,
    pub(super) files: Counter,
    pub(super) failed: Counter,
    pub(super) sent_bytes: Counter,
    pub(super) sent_files: Counter,
    pub(super) relayed_bytes: Counter,
    pub(super) logins_accepted: Counter,
    pub(super) logins_denied: Counter,
    pub(super) refused: Counter,
    pub(super) receiving: Timer,
    pub(super) verifying: Timer,
    pub(super) writing: Timer,
}

/// Bytes of accounts in use, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct QuotaUse {
    /// What they have, and what is reserved for them.
    pub(super) used_bytes: u64,
    /// What they may have.
    pub(super) limit_bytes: u64,
}

/// What others know at this moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elsewhere {
    /// Jobs that are open, and those that ever were.
    pub(super) sessions: (usize, u64),
    pub(super) quota: QuotaUse,
    pub(super) log_lines_lost: u64,
}

impl Metrics {
    pub(super) fn new() -> Self {
        #[allow(clippy::disallowed_methods, reason = "this is told, and nothing is timed by it")]
        let started = SystemTime::now();
        Self {
            started,
            connections: Counter::default(),
            disconnections: Counter::default(),
            bytes: Counter::default(),
            files: Counter::default(),
            failed: Counter::default(),
            sent_bytes: Counter::default(),
            sent_files: Counter::default(),
            relayed_bytes: Counter::default(),
            logins_accepted: Counter::default(),
            logins_denied: Counter::default(),
            refused: Counter::default(),
            receiving: Timer::default(),
            verifying: Timer::default(),
            writing: Timer::default(),
        }
    }

    /// All numbers in the text format of Prometheus, version 0.0.4.
    pub(super) fn page(&self, elsewhere: &Elsewhere) -> String {
        let mut page = Page(String::with_capacity(4096));
        // Who came after this look may have left before the other: the end is looked at first.
        let left = self.disconnections.sum();
        let came = self.connections.sum();
        page.gauge("ptf_connections", "Connections being served.", came.saturating_sub(left));
        page.counter("ptf_connections_total", "Connections that were served.", came);
        let (open, opened) = elsewhere.sessions;
        page.gauge("ptf_sessions", "Jobs that are open, or may be taken up again.", open);
        page.counter("ptf_sessions_total", "Jobs that were opened.", opened);
        page.counter("ptf_bytes_received_total", "Bytes of files that were verified and written.", self.bytes.sum());
        page.counter("ptf_files_published_total", "Files that arrived whole.", self.files.sum());
        let what = "Entries that were refused, or not as they should be at the end of their job.";
        page.counter("ptf_files_failed_total", what, self.failed.sum());
        page.counter("ptf_bytes_sent_total", "Bytes of files that were read and sent.", self.sent_bytes.sum());
        page.counter("ptf_files_sent_total", "Files that were sent to their end.", self.sent_files.sum());
        let what = "Bytes of connections that were passed on, both ways.";
        page.counter("ptf_bytes_relayed_total", what, self.relayed_bytes.sum());
        page.head("ptf_logins_total", "Logins, by what came of them.", "counter");
        page.line("ptf_logins_total", r#"{outcome="accepted"}"#, self.logins_accepted.sum());
        page.line("ptf_logins_total", r#"{outcome="denied"}"#, self.logins_denied.sum());
        page.counter("ptf_refused_total", "Connections that were refused, or closed on what they asked for.", self.refused.sum());
        page.gauge("ptf_quota_used_bytes", "Bytes of all accounts in use.", elsewhere.quota.used_bytes);
        page.gauge("ptf_quota_limit_bytes", "Bytes that those accounts may have.", elsewhere.quota.limit_bytes);
        page.head("ptf_stage_seconds_total", "Time of all connections together, by what it went into.", "counter");
        for (stage, timer) in [("receiving", &self.receiving), ("verifying", &self.verifying), ("writing", &self.writing)] {
            let label = format!(r#"{{stage="{stage}"}}"#);
            page.line("ptf_stage_seconds_total", &label, timer.sum().as_secs_f64());
        }
        page.counter("ptf_log_lines_lost_total", "Log lines that could not be written.", elsewhere.log_lines_lost);
        page.head("ptf_build_info", "The program that runs; always 1.", "gauge");
        page.line("ptf_build_info", concat!(r#"{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#), 1);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        page.gauge("process_start_time_seconds", "When the program started, in seconds since 1970.", started.as_secs_f64());
        page.0
    }
}

/// A page of metrics as it is written.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, what: &str, kind: &str) {
        // A string takes all that is written to it.
        let _ = writeln!(self.0, "# HELP {name} {what}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn counter(&mut self, name: &str, what: &str, value: u64) {
        self.head(name, what, "counter");
        self.line(name, "", value);
    }

    fn gauge(&mut self, name: &str, what: &str, value: impl fmt::Display) {
        self.head(name, what, "gauge");
        self.line(name, "", value);
    }
}
