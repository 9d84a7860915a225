//! `send shell`: a prompt for what is at a receiver, or commands from the command line or standard input.

mod commands;
mod complete;
mod glob;
mod interrupt;
mod local;
mod paths;
mod session;
mod show;
mod transfer;
mod tree;
mod words;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{self, BufRead, IsTerminal as _, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use parallel_transfer::client;
use parallel_transfer::exit::Verdict;
use parallel_transfer::limits::{COMMAND_LEN_MAX, HISTORY_LINES_MAX};
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::stop::Stop;
use parallel_transfer::store::take_umask;
use parallel_transfer::terminal::{self, Loudness, Terminal};
use rustyline::error::ReadlineError;
use rustyline::history::{FileHistory, MemHistory};
use rustyline::{Config, Editor};

use crate::shared::folders::state_folder;
use crate::shared::reach::Reach;
use crate::shared::wire::{Protocol, tell_of_new_key};
use commands::{Flow, Usage};
use complete::Completer;
use interrupt::{Interrupt, Interrupted};
use session::{Session, Twice};
use words::{Unfinished, parse};

/// The exit code of what makes no sense, as that of the parser of flags.
const WRONG_USAGE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  send shell --server backup --port 9000 --user alice
          a prompt; 'help' lists its commands, and Tab completes names
  send shell --server backup --port 9000 -c 'mkdir -p in/today; put *.csv -t in/today; ls -l in/today'
          the same without a prompt: ends at the first command that fails
  send shell --server backup --port 9000 < commands
          the same from a file, a command a line

Exit codes without a prompt: 0 all was done; 1 a command failed; 2 wrong usage; 3 a command did some of what it
was asked for; 4 refused, the login for one; 130 interrupted. A prompt ends with 0.";

/// List, move, remove, put and get what is at a receiver, at a prompt.
#[derive(Debug, Parser)]
#[command(name = "send shell", bin_name = "send shell", version, after_help = EXAMPLES)]
pub(super) struct Args {
    /// The receiver's name or address
    #[arg(long, value_name = "HOST")]
    server: String,

    /// The receiver's port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Do these commands, with ';' or line feeds between, and end
    #[arg(short = 'c', value_name = "COMMANDS")]
    commands: Option<OsString>,

    #[command(flatten)]
    reach: Reach,

    /// Say only what failed, and what was asked for
    #[arg(short, long)]
    quiet: bool,
}

/// What commands work on.
#[derive(Debug)]
pub(super) struct Shell {
    args: Args,
    session: Session,
    /// The folder at the receiver that names are below, and the one before it.
    here: RemotePath,
    before: RemotePath,
    /// The folder of this machine that names are below.
    local: PathBuf,
    is_interactive: bool,
    terminal: Terminal,
    /// Asked when the command that runs is to end.
    stop: Arc<Stop>,
}

/// `send shell`, with the words after that.
pub(crate) fn run() -> ExitCode {
    let words = std::env::args_os();
    let args = Args::parse_from(words.take(1).chain(std::env::args_os().skip(2)));
    if args.reach.wire.protocol != Protocol::V2 {
        Args::command().error(ErrorKind::ArgumentConflict, "protocol v1 has no shell: leave --protocol v1 out").exit()
    }
    let loudness = if args.quiet { Loudness::Quiet } else { Loudness::Normal };
    let terminal = Terminal::for_transfer("send shell", loudness);
    ExitCode::from(serve(args, terminal).unwrap_or_else(|error| {
        terminal::print_error("send shell", &error);
        code_of(&error)
    }))
}

fn serve(args: Args, terminal: Terminal) -> anyhow::Result<u8> {
    let is_interactive = args.commands.is_none() && io::stdin().is_terminal() && io::stdout().is_terminal();
    let takes_script = args.commands.is_none() && !is_interactive;
    ensure!(
        !(takes_script && args.reach.reads_stdin()),
        "standard input can't hold both a password and commands: use -c, or a file"
    );
    // Before there are threads.
    let _ = take_umask();
    let interrupt = Arc::new(Interrupt::default());
    interrupt.listen(is_interactive)?;
    let (dialer, login) = args.reach.dialer(None, Some((&args.server, args.port)))?;
    let session = Session::new(Arc::new(dialer), login, Arc::clone(&interrupt));
    let local = std::env::current_dir().context("the current folder is gone")?;
    let (here, before) = (RemotePath::root(), RemotePath::root());
    let stop = interrupt.begin()?;
    let mut shell = Shell { args, session, here, before, local, is_interactive, terminal, stop };
    shell.greet()?;
    interrupt.end();
    if is_interactive {
        return prompt(shell, &interrupt).map(|()| Verdict::Complete.code());
    }
    match shell.args.commands.take() {
        Some(commands) => match parse(commands.as_bytes()) {
            Ok(_) => Ok(shell.run_script(commands.as_bytes(), &interrupt)?.unwrap_or_default()),
            Err(Unfinished) => bail!(Usage("-c: a quote is not closed".to_owned())),
        },
        None => script(&mut shell, &interrupt, &mut io::stdin().lock()),
    }
}

impl Shell {
    /// Logs in, and says what there is room for.
    fn greet(&mut self) -> anyhow::Result<()> {
        let stop = Arc::clone(&self.stop);
        self.session.log_in(&stop)?;
        tell_of_new_key(self.session.dialer());
        // Who may not know that may be here all the same.
        match self.session.ask(&stop, Twice::Yes, client::Browser::space) {
            Ok(space) => show::space(&space).into_iter().for_each(|line| tracing::info!("{line}")),
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => tracing::debug!("how much room there is is not known: {error:#}"),
        }
        Ok(())
    }

    fn prompt(&self) -> String {
        let name = self.session.user().map_or_else(String::new, |user| format!("{}@", Escaped(user.as_bytes())));
        format!("{name}{}:{}> ", Escaped(self.args.server.as_bytes()), paths::shown(&self.here))
    }

    /// Does all commands of a text, up to the first that fails; its exit code where it is to be the program's.
    fn run_script(&mut self, text: &[u8], interrupt: &Interrupt) -> anyhow::Result<Option<u8>> {
        for words in parse(text)? {
            match self.run_command(&words, interrupt)? {
                Flow::Leave => return Ok(Some(0)),
                Flow::Done(0) => {}
                Flow::Done(code) => return Ok(Some(code)),
            }
        }
        Ok(None)
    }

    fn run_command(&mut self, words: &[words::Word], interrupt: &Interrupt) -> anyhow::Result<Flow> {
        self.stop = interrupt.begin()?;
        let flow = commands::run(self, words);
        interrupt.end();
        Ok(flow)
    }
}

/// Commands that are read a line at a time, so that what makes them may look at what came of the last.
fn script(shell: &mut Shell, interrupt: &Interrupt, input: &mut impl BufRead) -> anyhow::Result<u8> {
    let mut text = Vec::new();
    loop {
        let room = (COMMAND_LEN_MAX - text.len()) as u64 + 1;
        let len = input.by_ref().take(room).read_until(b'\n', &mut text).context("can't read commands")?;
        if interrupt.is_over() {
            return Ok(Verdict::Interrupted.code());
        }
        ensure!(text.len() <= COMMAND_LEN_MAX, "a line of commands is longer than {COMMAND_LEN_MAX} bytes");
        let is_whole = parse(&text).is_ok();
        if len == 0 && !is_whole {
            return Err(Usage("the commands end in the middle of a quote".to_owned()).into());
        }
        if is_whole {
            if let Some(code) = shell.run_script(&text, interrupt)? {
                return Ok(code);
            }
            text.clear();
        }
        if len == 0 {
            return Ok(Verdict::Complete.code());
        }
    }
}

/// The prompt, until somebody has had enough of it.
fn prompt(shell: Shell, interrupt: &Interrupt) -> anyhow::Result<()> {
    let shell = Rc::new(RefCell::new(shell));
    let config = Config::builder().max_history_size(HISTORY_LINES_MAX)?.history_ignore_dups(true)?.history_ignore_space(true);
    // What a signal leaves behind must be a terminal as it was.
    let config = config.bracketed_paste(false).auto_add_history(false).build();
    let mut editor: Editor<Completer, FileHistory> = Editor::with_config(config).context("can't read from this terminal")?;
    editor.set_helper(Some(Completer::new(Rc::clone(&shell))));
    let history = history_file();
    if let Some(file) = &history {
        // There is none at first.
        let _ = editor.load_history(file);
    }
    while !interrupt.is_over() {
        let prompt = shell.borrow().prompt();
        let line = match editor.readline(&prompt) {
            Ok(line) => line,
            Err(ReadlineError::Eof) => break,
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => continue,
            Err(error) => return Err(error).context("can't read from this terminal"),
        };
        let Ok(commands) = parse(line.as_bytes()) else {
            terminal::print_error("send shell", &Unfinished.into());
            continue;
        };
        if !commands::tells_secrets(&commands) {
            let _ = editor.add_history_entry(&line);
            if let Some(file) = &history {
                // A prompt without a history is better than none.
                let _ = editor.append_history(file);
            }
        }
        for words in commands {
            match shell.borrow_mut().run_command(&words, interrupt)? {
                Flow::Leave => return Ok(()),
                Flow::Done(code) if code == Verdict::Interrupted.code() => break,
                Flow::Done(_) => {}
            }
        }
    }
    Ok(())
}

/// Where the lines are kept that were typed; none where there is no home.
fn history_file() -> Option<PathBuf> {
    let folder = state_folder()?;
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder.join(Path::new("shell_history")))
}

/// Asks a question on the terminal that is answered by yes or no, and no if it is not yes.
fn confirm(question: &str) -> anyhow::Result<bool> {
    let config = Config::builder().bracketed_paste(false).build();
    let mut editor: Editor<(), MemHistory> = Editor::with_history(config, MemHistory::new())?;
    match editor.readline(question) {
        Ok(answer) => Ok(matches!(answer.trim(), "y" | "Y" | "yes")),
        Err(ReadlineError::Eof) => Ok(false),
        Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => Err(Interrupted.into()),
        Err(error) => Err(error.into()),
    }
}

/// The exit code of a command that ended so.
fn code_of(error: &anyhow::Error) -> u8 {
    match error {
        error if error.is::<Usage>() => WRONG_USAGE,
        error if error.is::<Interrupted>() => Verdict::Interrupted.code(),
        error if client::is_refusal(error) => Verdict::Refused.code(),
        _ => Verdict::Failed.code(),
    }
}
