//! The commands for what is at the receiver.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use parallel_transfer::client::Browser;
use parallel_transfer::entry::{Listed, ListedKind};
use parallel_transfer::exit::Verdict;
use parallel_transfer::limits::PASSWORD_LEN_MAX;
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::protocol::Algorithm;
use parallel_transfer::secret::PasswordError;
use parallel_transfer::terminal;

use super::commands::{Call, NoMatch, Usage, print, style_of};
use super::interrupt::Interrupted;
use super::session::{Twice, is_denial};
use super::show::{self, Row};
use super::transfer::{self, Missing, Source};
use super::words::Word;
use super::{Shell, confirm, paths};

fn is_folder(listed: &Listed) -> bool {
    matches!(listed.kind, ListedKind::Directory { .. })
}

pub(super) fn ls(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let style = style_of(call);
    let names = if call.words.is_empty() { vec![b".".to_vec()] } else { shell.remote_names(&call.words)? };
    let (mut rows, mut folders) = (Vec::new(), Vec::new());
    let mut code = shell.each(call, &names, |shell, name| {
        // The folder that the prompt is in needs no look.
        if name == b"." {
            folders.push(name.to_vec());
            return Ok(());
        }
        let (_, listed) = shell.look(name).with_context(|| format!("can't list '{}'", Escaped(name)))?;
        if is_folder(&listed) {
            folders.push(name.to_vec())
        } else {
            rows.push(Row::of(name, &listed))
        }
        Ok(())
    })?;
    let width = show::terminal_width();
    let with_titles = names.len() > 1;
    let mut is_first = rows.is_empty();
    terminal::print_lines(&show::lines(rows, style, width))?;
    let listed = shell.each(call, &folders, |shell, name| {
        let listing = shell.path(name).and_then(|path| shell.list(&path));
        let listing = listing.with_context(|| format!("can't list '{}'", Escaped(name)))?;
        let rows = listing.entries.iter().filter(|entry| style.all || !entry.name.starts_with(b"."));
        let rows = rows.map(|entry| Row::of(&entry.name, entry)).collect();
        let mut lines = if with_titles { vec![format!("{}:", Escaped(name))] } else { Vec::new() };
        if with_titles && !std::mem::take(&mut is_first) {
            lines.insert(0, String::new());
        }
        lines.extend(show::lines(rows, style, width));
        terminal::print_lines(&lines)?;
        if listing.more > 0 {
            tracing::warn!("{}: {} more names are not shown", Escaped(name), listing.more);
        }
        Ok(())
    })?;
    if listed != 0 {
        code = if folders.len() < names.len() { Verdict::Partial.code() } else { listed };
    }
    Ok(code)
}

pub(super) fn cd(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let name = call.words.first().map_or_else(|| b"/".to_vec(), Word::text);
    let path = if name == b"-" { Ok(shell.before.clone()) } else { shell.path(&name) };
    let failed = || format!("can't go to '{}'", Escaped(&name));
    let path = path.with_context(failed)?;
    let listed = shell.session.look(&Arc::clone(&shell.stop), &path).with_context(failed)?;
    ensure!(is_folder(&listed), "{}: it is not a folder", failed());
    shell.before = std::mem::replace(&mut shell.here, path);
    Ok(0)
}

pub(super) fn pwd(shell: &mut Shell, _: &Call) -> anyhow::Result<u8> {
    print(paths::shown(&shell.here))
}

pub(super) fn mkdir(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let names: Vec<Vec<u8>> = call.words.iter().map(Word::text).collect();
    shell.session.forget_names();
    shell.each(call, &names, |shell, name| {
        let made = shell.path(name).and_then(|path| {
            shell.session.ask(&Arc::clone(&shell.stop), Twice::No, |browser| browser.make_directory(&path, call.has('p')))
        });
        made.with_context(|| format!("can't make folder '{}'", Escaped(name)))
    })
}

pub(super) fn rm(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let (is_recursive, is_forced) = (call.has('r') || call.has('R'), call.has('f'));
    if call.words.is_empty() && !is_forced {
        bail!(Usage("a name is missing; usage: rm [-r] [-f] NAME...".to_owned()));
    }
    let mut names = Vec::new();
    for word in &call.words {
        match shell.remote_names(std::slice::from_ref(word)) {
            Err(error) if is_forced && error.is::<NoMatch>() => {}
            found => names.extend(found?),
        }
    }
    shell.session.forget_names();
    shell.each(call, &names, |shell, name| {
        let failed = || format!("can't remove '{}'", Escaped(name));
        let path = shell.path(name).with_context(failed)?;
        let is_dots =
            name.split(|&byte| byte == b'/').rfind(|name| !name.is_empty()).is_some_and(|last| matches!(last, b"." | b".."));
        ensure!(!path.is_root() && !is_dots, "{}: it is not removed by that name", failed());
        let removed = shell.session.look(&Arc::clone(&shell.stop), &path).and_then(|listed| {
            if is_folder(&listed) {
                ensure!(is_recursive, "it is a folder: -r removes it with all that is in it");
                let question = || format!("remove '{}' with all that is in it? [y/N] ", Escaped(name));
                if shell.is_interactive && !is_forced && !confirm(&question())? {
                    return Ok(());
                }
            }
            shell.session.ask(&Arc::clone(&shell.stop), Twice::No, |browser| browser.remove(&path, is_recursive))
        });
        match removed {
            Err(error) if is_forced && is_denial(&error) && shell.is_missing(&path)? => Ok(()),
            removed => removed.with_context(failed),
        }
    })
}

pub(super) fn rmdir(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let names = shell.remote_names(&call.words)?;
    shell.session.forget_names();
    shell.each(call, &names, |shell, name| {
        let removed = shell.look(name).and_then(|(path, listed)| {
            ensure!(is_folder(&listed), "it is not a folder");
            shell.session.ask(&Arc::clone(&shell.stop), Twice::No, |browser| browser.remove(&path, false))
        });
        removed.with_context(|| format!("can't remove '{}'", Escaped(name)))
    })
}

pub(super) fn mv(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let [from @ .., to] = &call.words[..] else { bail!(Usage("a name is missing".to_owned())) };
    let names = shell.remote_names(from)?;
    let to = to.text();
    let shown = || format!("'{}'", Escaped(&to));
    let target = shell.path(&to).with_context(shown)?;
    let is_into = match shell.session.look(&Arc::clone(&shell.stop), &target) {
        Ok(listed) => is_folder(&listed),
        Err(error) if is_denial(&error) => false,
        Err(error) => return Err(error),
    };
    ensure!(is_into || (names.len() == 1 && !to.ends_with(b"/")), "{} is not a folder", shown());
    shell.session.forget_names();
    shell.each(call, &names, |shell, name| {
        let moved = shell.path(name).and_then(|path| {
            let Some((_, last)) = path.split() else { bail!("it is the top of all") };
            let target = if is_into { target.join(&RemotePath::parse(last.as_bytes())?)? } else { target.clone() };
            ensure!(target == path || !paths::is_within(&target, &path), "it can't be moved into itself");
            shell.session.ask(&Arc::clone(&shell.stop), Twice::No, |browser| browser.rename(&path, &target))
        });
        moved.with_context(|| format!("can't move '{}' to {}", Escaped(name), shown()))
    })
}

pub(super) fn stat(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let names = shell.remote_names(&call.words)?;
    shell.each(call, &names, |shell, name| {
        let (path, listed) = shell.look(name).with_context(|| format!("can't look at '{}'", Escaped(name)))?;
        let file = match listed.kind {
            ListedKind::File { is_sparse, names, .. } => Some((names, is_sparse)),
            _ => None,
        };
        Ok(terminal::print_lines(&Row::of(name, &listed).stat(&paths::shown(&path), file))?)
    })
}

pub(super) fn sum(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    ensure!(!(call.has('m') && call.has('3')), Usage("--md5 and --blake3 exclude each other".to_owned()));
    let algorithm = if call.has('m') { Algorithm::Md5 } else { Algorithm::Blake3 };
    let names = shell.remote_names(&call.words)?;
    shell.each(call, &names, |shell, name| {
        let summed = shell
            .path(name)
            .and_then(|path| shell.session.ask(&Arc::clone(&shell.stop), Twice::Yes, |browser| browser.sum(&path, algorithm)));
        let digest = summed.with_context(|| format!("can't sum up '{}'", Escaped(name)))?;
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        print(format!("{hex}  {}", Escaped(name))).map(drop)
    })
}

pub(super) fn df(shell: &mut Shell, _: &Call) -> anyhow::Result<u8> {
    let space = shell.session.ask(&Arc::clone(&shell.stop), Twice::Yes, Browser::space)?;
    terminal::print_lines(&show::space(&space)).context("standard output")?;
    Ok(0)
}

pub(super) fn put(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let names = shell.local_names(&call.words)?;
    let into = match &call.value {
        Some(word) => shell.path(&word.text()).with_context(|| format!("'{}'", Escaped(&word.text())))?,
        None => {
            // It would be made anew where somebody has removed it.
            let listed = shell.session.look(&Arc::clone(&shell.stop), &shell.here);
            listed.with_context(|| format!("can't send to {}", paths::shown(&shell.here)))?;
            shell.here.clone()
        }
    };
    shell.session.forget_names();
    transfer::put(shell, &names, &into)
}

pub(super) fn get(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let names = shell.remote_names(&call.words)?;
    let (mut sources, mut missing, mut last_names) = (Vec::new(), Missing::default(), HashSet::new());
    let code = shell.each(call, &names, |shell, name| {
        let looked = shell.look(name).with_context(|| format!("can't fetch '{}'", Escaped(name)));
        missing.count += u64::from(looked.is_err());
        let (path, listed) = looked?;
        let (_, last) = path.split_bytes();
        let is_new = last.is_empty() || last_names.insert(last.to_vec());
        missing.count += u64::from(!is_new);
        ensure!(is_new, "can't fetch '{}': it would replace what is fetched under that name", Escaped(name));
        sources.push(Source { path, is_folder: is_folder(&listed) });
        Ok(())
    })?;
    missing.code = Some(code).filter(|code| *code != 0);
    transfer::get(shell, &sources, &missing)
}

pub(super) fn passwd(shell: &mut Shell, _: &Call) -> anyhow::Result<u8> {
    let user = shell.session.user().context("nobody is logged in: the receiver is open to all")?.to_owned();
    let ask = |prompt: &str| match terminal::ask_secret(prompt) {
        Ok(typed) => Ok(typed),
        Err(PasswordError::Nowhere(error)) if error.kind() == ErrorKind::Interrupted => Err(Interrupted.into()),
        Err(_) => Err(anyhow::anyhow!("nobody answers: a password is asked for on a terminal")),
    };
    let old = ask(&format!("Password of {user} so far: "))?;
    let new = ask("New password: ")?;
    ensure!(
        (1..=PASSWORD_LEN_MAX).contains(&new.as_bytes().len()),
        "a password has 1 to {PASSWORD_LEN_MAX} bytes; it is not changed"
    );
    ensure!(ask("New password again: ")? == new, "the two passwords differ; it is not changed");
    shell.session.change_password(&Arc::clone(&shell.stop), &old, &new)?;
    shell.session.change_login(new);
    terminal::print_lines(&["the password is changed".to_owned()])?;
    Ok(0)
}
