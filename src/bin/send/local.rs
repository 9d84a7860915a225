//! `send` without `--server`: a receiver in this very process, on a socket that no one else can
//! reach.

use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, ensure};
use parallel_transfer::client::{self, Login, Target};
use parallel_transfer::net::Listener;
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::path::Escaped;
use parallel_transfer::progress::Progress;
use parallel_transfer::server::accounts::Rights;
use parallel_transfer::server::{self, Config, Homes, LiveConfig};
use parallel_transfer::stop::Stop;
use parallel_transfer::store::{Store, take_umask};

use crate::args::Args;
use crate::place;
use crate::shared::folders::state_folder;

/// Copies `--file` to `--remote_dir` on this machine; says in `landed` where that is.
pub(crate) fn copy(args: &Args, landed: &mut String, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
    let target = Path::new(&args.remote_dir);
    let target = if target.as_os_str().is_empty() { Path::new(".") } else { target };
    let shown = Escaped::path(target);
    let transfer = &args.transfer;
    ensure!(
        !transfer.reach.routes.are_given(),
        "--via, --no_direct and --bind are for a receiver elsewhere: name it with --server and --port"
    );
    client::check_source(&args.file)?;
    let itself = || format!("'{shown}' is where '{}' is: it can't be copied onto or into itself", Escaped::path(&args.file));
    ensure!(!client::lands_in_itself(&args.file, target)?, itself());
    let umask = take_umask();
    let (root, directory) =
        place::split(target, umask, transfer.dry_run).with_context(|| format!("can't make folder '{shown}'"))?;
    let mut store = Store::open(&root, umask).with_context(|| format!("can't write below '{}'", Escaped::path(&root)))?;
    // What was missing may have led elsewhere: `missing/../here`.
    ensure!(!client::lands_in_itself(&args.file, &store.path().join(&directory))?, itself());
    *landed = Escaped::path(&store.path().join(&directory)).to_string();

    if !transfer.dry_run {
        store.keep_index_below(state_folder().as_deref());
    }

    let mut open = transfer.open(directory.as_os_str().as_bytes())?;
    if open.compression.take().is_some() {
        tracing::warn!("--compress is for a receiver elsewhere: nothing is compressed on this machine");
    }
    let private = private_folder().context("can't make a folder of its own for a socket")?;
    let socket = private.path().join("socket");
    let listener = Listener::bind_local(&socket).context("can't make a socket of its own")?;
    let mut job = args.job_to(
        Dialer::to_local(socket, transfer.reach.stall()).with_pace(transfer.reach.wire.pace()),
        Login::Nobody,
        Target::Session(open),
    )?;
    // One process owns what is written.
    job.program = None;
    let config = LiveConfig::new(Config::new(store.path().to_path_buf()));
    let (homes, served) = (Homes::of(store, Rights::ALL), Stop::new()?);
    thread::scope(|scope| {
        let receiver = thread::Builder::new()
            .name("receiver".to_owned())
            .spawn_scoped(scope, || server::serve(&listener, &homes, &config, &served))?;
        let result = crate::start(args, &job, landed, progress, stop);
        // Whoever refuses here is the file system.
        let result = result.map_err(|error| match client::is_refusal(&error) {
            true => anyhow::anyhow!("can't make {error:#}"),
            false => error,
        });
        served.ask();
        let served =
            receiver.join().unwrap_or_else(|_| Err(io::Error::other("its thread failed"))).context("the receiving side failed");
        result.and_then(|()| served.map(drop))
    })
}

/// A folder that only this user may enter, with a path that a socket's name has room behind.
fn private_folder() -> io::Result<tempfile::TempDir> {
    const PATH_LEN_MAX: usize = 80;
    let mut builder = tempfile::Builder::new();
    builder.prefix("send-").permissions(Permissions::from_mode(0o700));
    let usual = std::env::temp_dir();
    builder.tempdir_in(if usual.as_os_str().len() > PATH_LEN_MAX { Path::new("/tmp") } else { &usual })
}
