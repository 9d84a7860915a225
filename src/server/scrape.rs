//! Answers those who read a receiver's metrics: as much of HTTP/1.0 as a scraper needs, in one thread.
//!
//! Whoever connects may send anything, or nothing, and stay: requests have a length and a time, and at
//! the cap the oldest visitor makes room.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use crate::limits::{METRICS_REQUEST_LEN_MAX, METRICS_TIMEOUT, METRICS_VISITORS_MAX};
use crate::net::Listener;
use crate::stop::Stop;

/// One who asks.
struct Visitor {
    socket: Socket,
    request: Vec<u8>,
    /// It has its answer, and is waited for to close: a close with unread bytes would drop the answer.
    is_answered: bool,
    deadline: Instant,
}

/// Answers until asked to stop. `page` makes the page anew for each who asks for it.
pub(super) fn serve(listener: &Listener, stop: &Stop, page: &dyn Fn() -> String) {
    let mut visitors = VecDeque::new();
    while !stop.is_asked() {
        wait(listener, stop, &visitors);
        match listener.try_accept() {
            Ok(Some((socket, _))) => {
                if visitors.len() >= METRICS_VISITORS_MAX {
                    visitors.pop_front();
                }
                visitors.extend(Visitor::new(socket));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!("can't take one who asks for metrics: {error}");
                stop.wait(Duration::from_millis(100));
            }
        }
        let now = Instant::now();
        visitors.retain_mut(|visitor| visitor.go_on(page, now));
    }
}

/// Waits until somebody comes, says something, or has had all its time.
fn wait(listener: &Listener, stop: &Stop, visitors: &VecDeque<Visitor>) {
    let mut polled = vec![PollFd::new(stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
    polled.extend(visitors.iter().map(|visitor| PollFd::new(&visitor.socket, PollFlags::IN)));
    // The oldest has the first deadline.
    let left = visitors.front().map(|visitor| visitor.deadline.saturating_duration_since(Instant::now()));
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    // An interrupted wait is a short one.
    let _ = poll(&mut polled, timeout.as_ref());
}

impl Visitor {
    fn new(socket: Socket) -> Option<Self> {
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, request: Vec::new(), is_answered: false, deadline: Instant::now() + METRICS_TIMEOUT })
    }

    /// Reads what is there, and answers once that is a request; false when there is no more to do.
    fn go_on(&mut self, page: &dyn Fn() -> String, now: Instant) -> bool {
        let mut bytes = [0; 2048];
        match self.socket.read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) if self.is_answered => {}
            Ok(len) => {
                self.request.extend_from_slice(&bytes[..len]);
                if let Some(answer) = answer(&self.request, page) {
                    // It fits in the buffer of a socket to which nothing was written yet.
                    if self.socket.write_all(answer.as_bytes()).is_err() {
                        return false;
                    }
                    let _ = self.socket.shutdown(Shutdown::Write);
                    self.is_answered = true;
                    self.request = Vec::new();
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return false,
        }
        now < self.deadline
    }
}

/// The answer to what came so far; `None` while more is to come.
fn answer(request: &[u8], page: &dyn Fn() -> String) -> Option<String> {
    let has_end = |end: &[u8]| request.windows(end.len()).any(|bytes| bytes == end);
    let is_whole = has_end(b"\r\n\r\n") || has_end(b"\n\n");
    let words = |line: &[u8]| line.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let line = request.split(|&byte| byte == b'\n').next().map(|line| words(line.trim_ascii_end())).unwrap_or_default();
    let line: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
    let wrong = |status: &str, more: &str| Some(response(status, more, &format!("{status}\n")));
    match &line[..] {
        _ if !is_whole && request.len() <= METRICS_REQUEST_LEN_MAX => None,
        _ if !is_whole => wrong("431 Request Header Fields Too Large", ""),
        [method, target, version] if version.starts_with(b"HTTP/1.") => {
            let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
            match (*method, path) {
                (b"GET", b"/metrics") => Some(response("200 OK", "", &page())),
                (_, b"/metrics") => wrong("405 Method Not Allowed", "Allow: GET\r\n"),
                _ => wrong("404 Not Found", ""),
            }
        }
        _ => wrong("400 Bad Request", ""),
    }
}

fn response(status: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n{more}\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, expected: Option<&str>) {
        let answer = answer(request.as_bytes(), &|| "the page".to_owned());
        let status = answer.as_deref().map(|answer| &answer[9..12]);
        assert_eq!(status, expected, "{request:?}");
        let body = answer.as_deref().and_then(|answer| answer.split("\r\n\r\n").nth(1));
        assert_eq!(body == Some("the page"), expected == Some("200"), "{request:?}");
    }

    #[test]
    fn one_path_is_answered_and_nothing_before_a_request_is_whole() {
        let whole = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n";
        for cut in 0..whole.len() {
            check(&whole[..cut], None);
        }
        for (request, status) in [
            (whole, "200"),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200"),
            ("GET /metrics HTTP/1.0\n\n", "200"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
            ("GET /../metrics HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics\r\n\r\n", "400"),
            ("GET  /metrics HTTP/1.1\r\n\r\n", "400"),
            ("GET /metrics HTTP/2\r\n\r\n", "400"),
            ("\r\n\r\n", "400"),
            ("\u{16}\u{3}\u{1}\n\n", "400"),
        ] {
            check(request, Some(status));
        }
        check(&"x".repeat(METRICS_REQUEST_LEN_MAX), None);
        check(&"x".repeat(METRICS_REQUEST_LEN_MAX + 1), Some("431"));
    }
}
