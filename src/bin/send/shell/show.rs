//! How names and what is known of them are shown: never so that a terminal obeys them.

use std::fs::Metadata;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use indicatif::BinaryBytes;
use parallel_transfer::entry::{Listed, ListedKind, Time};
use parallel_transfer::path::Escaped;
use parallel_transfer::protocol::{QuotaSpace, Space};
use parallel_transfer::terminal::date::date_of;
use rustix::termios::tcgetwinsize;

/// Columns of a terminal that does not say.
const WIDTH_DEFAULT: usize = 80;

/// Spaces between two columns of names.
const GAP: usize = 2;

/// One name, with what is known of it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: Vec<u8>,
    kind: char,
    mode: u32,
    size: u64,
    mtime: Time,
    target: Option<Vec<u8>>,
}

/// How rows are shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    /// With all that is known?
    pub(super) is_long: bool,
    /// Also names that begin with a dot?
    pub(super) all: bool,
    /// One name a line?
    pub(super) in_one_column: bool,
    /// Sizes with their units?
    pub(super) with_units: bool,
}

impl Row {
    /// What the receiver says of a name.
    pub(super) fn of(name: &[u8], listed: &Listed) -> Self {
        let (kind, size, mtime, target) = match &listed.kind {
            ListedKind::Directory { mtime } => ('d', 0, *mtime, None),
            ListedKind::File { identity, .. } => ('-', identity.size, identity.mtime, None),
            ListedKind::Symlink { target, mtime } => ('l', target.len() as u64, *mtime, Some(target.to_vec())),
            ListedKind::Special { mtime } => ('?', 0, *mtime, None),
        };
        Self { name: name.to_vec(), kind, mode: listed.attributes.mode.into(), size, mtime, target }
    }

    /// What this machine says of one.
    pub(super) fn of_local(name: &[u8], path: &Path, metadata: &Metadata) -> Self {
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => 'd',
            kind if kind.is_symlink() => 'l',
            kind if kind.is_file() => '-',
            _ => '?',
        };
        let target =
            (kind == 'l').then(|| path.read_link().map(|target| target.as_os_str().as_bytes().to_vec()).unwrap_or_default());
        let size = if kind == 'd' { 0 } else { metadata.len() };
        let mtime = (metadata.mtime(), metadata.mtime_nsec().try_into().unwrap_or_default());
        Self { name: name.to_vec(), kind, mode: metadata.mode() & 0o777, size, mtime, target }
    }

    fn size(&self, style: Style) -> String {
        if style.with_units { BinaryBytes(self.size).to_string() } else { self.size.to_string() }
    }

    fn line(&self, size: &str, width: usize) -> String {
        let line = format!("{}{}  {size:>width$}  {}  {}", self.kind, letters(self.mode), date(self.mtime), Escaped(&self.name));
        match &self.target {
            Some(target) => format!("{line} -> {}", Escaped(target)),
            None => line,
        }
    }

    /// All that is known, a line each.
    pub(super) fn stat(&self, path: &str, identity: Option<(u32, bool)>) -> Vec<String> {
        let what = match self.kind {
            'd' => "folder",
            'l' => "symbolic link",
            '-' => "file",
            _ => "special file",
        };
        let mut lines = vec![format!("{path}: {what}")];
        if let Some(target) = &self.target {
            lines.push(format!("  target  {}", Escaped(target)));
        }
        if let Some((names, is_sparse)) = identity {
            let holes = if is_sparse { ", with holes" } else { "" };
            lines.push(format!("  size    {} bytes ({}){holes}", self.size, BinaryBytes(self.size)));
            if names > 1 {
                lines.push(format!("  names   {names}"));
            }
        }
        lines.push(format!("  mode    {:04o} ({})", self.mode, letters(self.mode)));
        lines.push(format!("  changed {}", date_with_nanoseconds(self.mtime)));
        lines
    }
}

/// Rows as lines, sorted by name.
pub(super) fn lines(mut rows: Vec<Row>, style: Style, columns: Option<usize>) -> Vec<String> {
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    if style.is_long {
        let sizes: Vec<String> = rows.iter().map(|row| row.size(style)).collect();
        let width = sizes.iter().map(String::len).max().unwrap_or_default();
        return rows.iter().zip(&sizes).map(|(row, size)| row.line(size, width)).collect();
    }
    let names: Vec<String> = rows.iter().map(|row| Escaped(&row.name).to_string()).collect();
    match columns.filter(|_| !style.in_one_column) {
        Some(columns) => in_columns(&names, columns),
        None => names,
    }
}

/// Columns of the terminal on standard output, if that is one.
pub(super) fn terminal_width() -> Option<usize> {
    use std::io::IsTerminal as _;
    let out = io::stdout();
    out.is_terminal().then(|| match tcgetwinsize(out.as_fd()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => WIDTH_DEFAULT,
    })
}

/// Names in as many columns as there is room for, each filled before the next one.
fn in_columns(names: &[String], width: usize) -> Vec<String> {
    let lens: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    let widths = |rows: usize| -> Vec<usize> {
        lens.chunks(rows).map(|column| column.iter().max().copied().unwrap_or_default() + GAP).collect()
    };
    let shortest = lens.iter().min().copied().unwrap_or_default() + GAP;
    let columns_max = ((width + GAP) / shortest).max(1);
    let fits = |rows: &usize| widths(*rows).iter().sum::<usize>() <= width + GAP;
    let rows_min = names.len().div_ceil(columns_max).max(1);
    let rows = (rows_min..names.len()).find(fits).unwrap_or_else(|| names.len().max(1));
    let widths = widths(rows);
    (0..rows.min(names.len()))
        .map(|row| {
            let cells = names.iter().zip(&lens).skip(row).step_by(rows).zip(&widths);
            let line: String = cells.map(|((name, len), width)| format!("{name}{}", " ".repeat(width - len))).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

fn letters(mode: u32) -> String {
    (0..9).map(|bit| if mode >> (8 - bit) & 1 == 1 { ['r', 'w', 'x'][bit % 3] } else { '-' }).collect()
}

fn date(time: Time) -> String {
    const DAY: i64 = 86_400;
    let (day, second) = (time.0.div_euclid(DAY), time.0.rem_euclid(DAY));
    format!("{} {:02}:{:02}:{:02}Z", date_of(day), second / 3600, second / 60 % 60, second % 60)
}

fn date_with_nanoseconds(time: Time) -> String {
    let date = date(time);
    format!("{}.{:09}Z", date.trim_end_matches('Z'), time.1)
}

/// How much room there is, in a line or two.
pub(super) fn space(space: &Space) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(QuotaSpace { bytes, files, bytes_max, files_max }) = space.quota {
        let of = |max: u64, max_shown: String| if max == u64::MAX { String::new() } else { format!(" of {max_shown}") };
        let share = match bytes_max {
            0 | u64::MAX => String::new(),
            max => format!(" ({} %)", u128::from(bytes) * 100 / u128::from(max)),
        };
        lines.push(format!(
            "used: {}{}{share}, {files}{} files",
            BinaryBytes(bytes),
            of(bytes_max, BinaryBytes(bytes_max).to_string()),
            of(files_max, files_max.to_string())
        ));
    }
    lines.push(format!("disk: {} free of {}", BinaryBytes(space.free), BinaryBytes(space.size)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use parallel_transfer::entry::Attributes;

    #[test]
    fn times_are_dates() {
        for (time, expected) in [
            (0, "1970-01-01 00:00:00Z"),
            (-1, "1969-12-31 23:59:59Z"),
            (951_827_696, "2000-02-29 12:34:56Z"),
            (1_709_208_000, "2024-02-29 12:00:00Z"),
            (253_402_300_799, "9999-12-31 23:59:59Z"),
        ] {
            assert_eq!(date((time, 0)), expected);
        }
        assert_eq!(date_with_nanoseconds((0, 7)), "1970-01-01 00:00:00.000000007Z");
        // What a receiver may say.
        for time in [i64::MIN, i64::MAX] {
            assert!(!date((time, 999_999_999)).is_empty());
        }
    }

    #[test]
    fn names_stand_in_as_many_columns_as_there_is_room_for() {
        let names: Vec<String> = ["a", "bb", "ccc", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(in_columns(&names, 80), ["a  bb  ccc  d  e"]);
        assert_eq!(in_columns(&names, 10), ["a   ccc  e", "bb  d"]);
        assert_eq!(in_columns(&names, 9), ["a    d", "bb   e", "ccc"]);
        assert_eq!(in_columns(&names, 1), names);
        assert_eq!(in_columns(&[], 80), [""; 0]);
        for width in 1..30 {
            let lines = in_columns(&names, width);
            let cells: usize = lines.iter().map(|line| line.split_whitespace().count()).sum();
            assert_eq!(cells, names.len());
            assert!(width < 3 || lines.iter().all(|line| line.len() <= width), "{width} {lines:?}");
        }
    }

    #[test]
    fn a_name_reaches_no_terminal_as_it_is() {
        let attributes = Attributes { mode: 0o644, ..Attributes::default() };
        let kind = ListedKind::Symlink { target: b"\x1b[2J\xff".as_slice().into(), mtime: (0, 0) };
        let listed = Listed { name: Box::default(), kind, attributes };
        let name = b"a\x1b]0;x\x07\n";
        for style in [Style::default(), Style { is_long: true, ..Style::default() }] {
            let lines = lines(vec![Row::of(name, &listed)], style, Some(80));
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains(char::is_control) && lines[0].contains("a\\u{1b}]0;x"), "{lines:?}");
        }
        let long = lines(vec![Row::of(b"a", &listed)], Style { is_long: true, ..Style::default() }, None);
        assert_eq!(long, ["lrw-r--r--  5  1970-01-01 00:00:00Z  a -> \\u{1b}[2J\\xff"]);
        assert!(Row::of(name, &listed).stat("x", None).iter().all(|line| !line.contains(char::is_control)));
    }

    #[test]
    fn a_quota_without_a_maximum_shows_none() {
        let quota = QuotaSpace { bytes: 1 << 20, files: 3, bytes_max: 1 << 30, files_max: u64::MAX };
        let lines = space(&Space { quota: Some(quota), free: 1 << 30, size: 1 << 40 });
        assert_eq!(lines, ["used: 1.00 MiB of 1.00 GiB (0 %), 3 files", "disk: 1.00 GiB free of 1.00 TiB"]);
        assert_eq!(space(&Space { quota: None, free: 0, size: 0 }).len(), 1);
    }
}
