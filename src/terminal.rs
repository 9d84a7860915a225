//! All that a person sees: the bar, the log lines, the summary, the JSON object.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that prints")]

pub mod date;
mod log;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{self, DefaultFields, Format};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields as _, MakeWriter, SubscriberBuilder};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use log::Log;

use crate::exit::Verdict;
use crate::path::RemotePath;
use crate::progress::{Counter, Progress, Route};
use crate::secret::{PasswordError, Secret};
use crate::stop::Stop;

/// Time between two looks at the progress.
const TICK: Duration = Duration::from_millis(100);

/// A run that was shorter was limited by its start.
const LIMIT_AFTER: Duration = Duration::from_millis(200);

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loudness {
    /// What failed.
    Quiet,
    /// That, and what is being done.
    Normal,
    /// That, and why.
    Verbose,
}

impl Loudness {
    /// What `-q`, and so many `-v`, ask for.
    #[must_use]
    pub fn of(quiet: bool, verbose: u8) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (false, 0) => Self::Normal,
            (false, _) => Self::Verbose,
        }
    }

    fn level(self) -> tracing::Level {
        match self {
            Self::Quiet => tracing::Level::WARN,
            Self::Normal => tracing::Level::INFO,
            Self::Verbose => tracing::Level::DEBUG,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A sentence a line.
    Human,
    /// A JSON object a line.
    Json,
}

/// How a program that runs on its own keeps its log.
#[derive(Debug, Clone)]
pub struct Logging<'a> {
    /// How much it says; an audit trail that was asked for is always in it.
    pub loudness: Loudness,
    /// How its lines look.
    pub format: LogFormat,
    /// Where they go, to a file of each day, instead of standard error.
    pub file: Option<&'a Path>,
    /// For how many days such files are kept.
    pub keep_days: u32,
}

/// The standard error stream, and perhaps a bar on it.
#[derive(Debug, Clone)]
pub struct Terminal {
    bar: ProgressBar,
}

impl Terminal {
    /// Takes over the log. A bar is shown on a terminal only, and not to those who want it quiet.
    #[must_use]
    pub fn for_transfer(program: &'static str, loudness: Loudness) -> Self {
        let bar = if loudness != Loudness::Quiet && io::stderr().is_terminal() {
            let template = "{bar:24} {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  ETA {eta}  {msg}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr()).with_style(style)
        } else {
            ProgressBar::hidden()
        };
        // Lines are written above a bar: there is none before there is a transfer, and none between two.
        bar.finish_and_clear();
        let terminal = Self { bar };
        log_to(&terminal, loudness).event_format(Plain(program)).init();
        terminal
    }

    /// Takes over the log of a program that runs on its own: its lines say when. Gives what its
    /// log says, and the number of lines that could not be written, which grows on.
    ///
    /// # Errors
    /// There is no such log file to be had.
    pub fn for_recv(logging: &Logging<'_>) -> io::Result<(LogLevel, Arc<Counter>)> {
        let log = match logging.file {
            None => Log::to_stderr(),
            Some(path) => Log::to_file(path, logging.keep_days)?,
        };
        let lost = log.lost();
        let lines = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(log);
        let lines = match logging.format {
            LogFormat::Human => lines.with_target(false).with_ansi(logging.file.is_none() && io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        };
        let (wanted, handle) = reload::Layer::new(wanted(logging.loudness));
        tracing_subscriber::registry().with(wanted).with(lines).init();
        Ok((LogLevel(handle), lost))
    }

    /// Shows `progress` until `done`; may be called again.
    pub fn follow(&self, progress: &Progress, done: &Stop) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.reset();
        while !done.wait(TICK) {
            self.bar.set_length(progress.found_bytes.sum().max(1));
            self.bar.set_position(progress.done_bytes.sum());
            let failed = match progress.failed() {
                0 => String::new(),
                failed => format!(", {failed} failed"),
            };
            self.bar.set_message(format!("{} of {} files{failed}", progress.done_files.sum(), progress.found_files.sum()));
        }
        self.bar.finish_and_clear();
    }
}

/// How much the log of a program says that runs on its own.
#[derive(Debug)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// From now on it says so much.
    pub fn change(&self, loudness: Loudness) {
        // It fails where the log is gone, and nobody can hear of it.
        let _ = self.0.reload(wanted(loudness));
    }
}

/// What is logged: who did what always, where it is said at all.
fn wanted(loudness: Loudness) -> Targets {
    Targets::new().with_default(loudness.level()).with_target("audit", tracing::Level::INFO)
}

fn log_to(terminal: &Terminal, loudness: Loudness) -> SubscriberBuilder<DefaultFields, Format, LevelFilter, Terminal> {
    tracing_subscriber::fmt()
        .with_max_level(loudness.level())
        .with_target(false)
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(terminal.clone())
}

/// Lines of a program for someone who waits for them: what, and how bad, but not when.
struct Plain(&'static str);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, DefaultFields> for Plain {
    fn format_event(
        &self, context: &FmtContext<'_, S, DefaultFields>, mut line: format::Writer<'_>, event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let how = match *event.metadata().level() {
            tracing::Level::ERROR => "error: ",
            tracing::Level::WARN => "warning: ",
            _ => "",
        };
        write!(line, "{}: {how}", self.0)?;
        context.field_format().format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

impl<'a> MakeWriter<'a> for Terminal {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

/// Writes whole log lines, above the bar where there is one.
impl Write for Terminal {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Work goes on where nobody can hear of it.
        let _ = self.bar.suspend(|| io::stderr().write_all(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a run ended, for people and for programs.
#[derive(Debug)]
pub struct Report<'a> {
    /// The verdict.
    pub verdict: Verdict,
    /// What ended the run before its end.
    pub error: Option<String>,
    /// Where it landed, in full.
    pub landed: &'a str,
    /// The protocol that was spoken.
    pub protocol: &'a str,
    /// The congestion control that this side sent with at the end, if it sent over TCP. In a fetch that was the server.
    pub congestion: Option<String>,
    /// What was done.
    pub progress: &'a Progress,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report<'_> {
    /// Prints the summary line, or the JSON object, and what ended the run.
    pub fn print(&self, as_json: bool, loudness: Loudness) {
        if let Some(error) = &self.error {
            tracing::error!("{error}");
        }
        // A reader who left early does not change what was done.
        let mut out = io::stdout().lock();
        let _ = if as_json {
            writeln!(out, "{}", self.to_json())
        } else if loudness != Loudness::Quiet {
            let lines = [Some(self.to_string()), self.lacks(), self.routes(), self.limit()];
            lines.into_iter().flatten().try_for_each(|line| writeln!(out, "{line}"))
        } else {
            Ok(())
        };
        let _ = out.flush();
    }

    /// What entries that are there lack, if any do.
    fn lacks(&self) -> Option<String> {
        let without = self.progress.without_xattrs.sum();
        let whose = if without == 1 { "its" } else { "their" };
        (without > 0).then(|| format!("{} sent without {whose} extended attributes", count(without, "entry")))
    }

    /// What each route carried, where there were several.
    fn routes(&self) -> Option<String> {
        let told = |route: &Route| match route.trouble().filter(|_| route.bytes.sum() == 0) {
            Some(why) => format!("{}: nothing ({why})", route.name()),
            None => format!("{}: {}", route.name(), BinaryBytes(route.bytes.sum())),
        };
        let routes = self.progress.routes();
        (!routes.is_empty()).then(|| format!("by route: {}", routes.iter().map(told).collect::<Vec<_>>().join(", ")))
    }

    /// What limited the run, if it was long enough for that to mean anything.
    fn limit(&self) -> Option<String> {
        let shares = self.progress.waits.shares();
        let is_short = self.elapsed < LIMIT_AFTER || shares.iter().all(|(_, share)| *share == 0);
        let [(first, share), rest @ ..] = &shares[..] else { return None };
        let rest: Vec<String> = rest.iter().map(|(name, share)| format!("{name} {share} %")).collect();
        (!is_short).then(|| format!("limited by {first}: {share} % of the time ({})", rest.join(", ")))
    }

    fn bytes_per_second(&self) -> u64 {
        let per_second = u128::from(self.progress.done_bytes.sum()) * 1_000_000 / self.elapsed.as_micros().max(1);
        u64::try_from(per_second).unwrap_or(u64::MAX)
    }

    fn to_json(&self) -> serde_json::Value {
        let progress = self.progress;
        let failures = progress.failures();
        let (unchanged_bytes, resumed_bytes) = progress.bytes_there();
        json!({
            "outcome": self.verdict.word(),
            "exit_code": self.verdict.code(),
            "error": self.error,
            "landed": self.landed,
            "protocol": self.protocol,
            "congestion": self.congestion,
            "files": progress.done_files.sum(),
            "unchanged_files": progress.unchanged(),
            "excluded": progress.excluded.sum(),
            "folders": progress.done_directories.sum(),
            "links": progress.done_links.sum(),
            "without_xattrs": progress.without_xattrs.sum(),
            "bytes": progress.done_bytes.sum(),
            "unchanged_bytes": unchanged_bytes,
            "resumed_bytes": resumed_bytes,
            "found_files": progress.found_files.sum(),
            "found_bytes": progress.found_bytes.sum(),
            "found_links": progress.found_links.sum(),
            "repeated_bytes": progress.repeated_bytes.sum(),
            "wire_bytes": progress.wire_bytes.sum(),
            "compressed": progress.is_compressed(),
            "seconds": self.elapsed.as_secs_f64(),
            "bytes_per_second": self.bytes_per_second(),
            "connections": progress.connections.sum(),
            "tuned_connections": progress.at_work(),
            "lost_connections": progress.lost_connections.sum(),
            "processes": progress.processes.sum(),
            "routes": progress.routes().iter().map(|route| json!({
                "route": route.name(),
                "bytes": route.bytes.sum(),
                "connections": route.connections.sum(),
                "trouble": route.trouble(),
            })).collect::<Vec<_>>(),
            "seconds_spent": progress.waits.all().iter().map(|(name, timer)| (*name, timer.sum().as_secs_f64())).collect::<HashMap<_, _>>(),
            "limited_by": progress.waits.shares().iter().map(|(name, share)| json!({"what": name, "percent": share})).collect::<Vec<_>>(),
            "failed": progress.failed(),
            "failures": failures.iter().map(|failure| json!({"path": failure.path.to_string(), "reason": failure.reason})).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.progress;
        let (files, folders, bytes) = (progress.done_files.sum(), progress.done_directories.sum(), progress.done_bytes.sum());
        write!(f, "{}: {} and {}", self.verdict.word(), count(files, "file"), count(folders, "folder"))?;
        match progress.done_links.sum() {
            0 => {}
            links => write!(f, ", {}", count(links, "link"))?,
        }
        write!(f, ", {}", BinaryBytes(bytes))?;
        match progress.unchanged() {
            0 => {}
            unchanged => write!(f, " ({} unchanged)", count(unchanged, "file"))?,
        }
        match progress.bytes_there() {
            (_, 0) => {}
            (_, resumed) => write!(f, ", {} of them resumed", BinaryBytes(resumed))?,
        }
        if progress.is_compressed() {
            write!(f, ", {} on the wire (compressed)", BinaryBytes(progress.wire_bytes.sum()))?;
        }
        write!(f, " in {:.2} s ({}/s) into {}", self.elapsed.as_secs_f64(), BinaryBytes(self.bytes_per_second()), self.landed)?;
        match progress.excluded.sum() {
            0 => {}
            excluded => write!(f, "; {} left out as asked", count(excluded, "name"))?,
        }
        match progress.failed() {
            0 => Ok(()),
            failed => write!(f, "; {} failed", count(failed, "entry")),
        }
    }
}

fn count(number: u64, of: &str) -> String {
    match (number, of.strip_suffix('y')) {
        (1, _) => format!("1 {of}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {of}s"),
    }
}

/// Prints what others wait for: where a receiver listens, in the first line of its output.
///
/// # Errors
/// Nobody reads it.
pub fn print_lines(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// Prints a name that would be sent.
pub fn print_would_send(path: &RemotePath) {
    // A reader who left early has seen enough.
    let _ = writeln!(io::stdout(), "{path}");
}

/// Asks for a secret on the terminal of this process, wherever its input comes from, and shows nothing of it.
///
/// # Errors
/// [`PasswordError::Nowhere`] where there is no terminal; it can't be read.
pub fn ask_secret(prompt: &str) -> Result<Secret, PasswordError> {
    match rpassword::prompt_password(prompt) {
        Ok(typed) => Ok(Secret::from(typed.into_bytes())),
        Err(error) => Err(PasswordError::Nowhere(error)),
    }
}

/// Asks a question that is answered by yes or no, and no if it is not yes.
///
/// # Errors
/// The answer can't be read.
pub fn confirm(question: &str) -> io::Result<bool> {
    write!(io::stderr(), "{question}")?;
    let answer = io::stdin().lines().next().transpose()?.unwrap_or_default();
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Prints what ended a program before it began.
pub fn print_error(program: &str, error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "{program}: {error:#}");
}
