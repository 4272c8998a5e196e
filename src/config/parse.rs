//! Reading a configuration: the file, then standard input, then the options of the command line, as
//! one text.
//!
//! ```text
//!   line := blank | '#' anything | name argument*        arguments are split and unquoted like a shell's
//!   name := a row of TABLE or its alias | include | rename-command | user | loadmodule
//! ```
//!
//! `include` inserts another file, or all files that a pattern matches, in the place of its line;
//! relative paths start in the working directory at that line. [`Directives`] checks the lines that
//! are more than settings (`rename-command`: does the command exist; `user`: are the rules valid),
//! so that this module needs neither commands nor ACLs.
//!
//! The first invalid line ends the start of the server, with Redis's error text; see
//! [`StartError`].

use super::Config;
use super::args::Sources;
use super::enums::{RenameCommand, Text};
use super::row::{Apply, MULTI_ARG, Origin, Reason};
use super::set::change_dir;
use super::table::lookup;
use crate::sys::{self, error_text};
use crate::util::glob::glob_match;
use crate::util::quote::split_args;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The reason why the server can't start, which it shows on standard error before it exits with
/// code 1.
#[derive(Debug, PartialEq, Eq)]
pub enum StartError {
    Line {
        number: usize,
        line: String,
        reason: Reason,
    },
    /// Each line of the configuration is valid, but the lines contradict each other.
    Whole(Reason),
    Open {
        path: PathBuf,
        reason: Reason,
    },
}

/// The Redis version in the header of the error, where scripts that parse the error expect it.
const REDIS_VERSION: &str = "7.2.4";

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = format!("\n*** FATAL CONFIG FILE ERROR (Redis {REDIS_VERSION}) ***");
        match self {
            StartError::Line {
                number,
                line,
                reason,
            } => write!(
                f,
                "{header}\nReading the configuration file, at line {number}\n>>> '{line}'\n{reason}"
            ),
            StartError::Whole(reason) => write!(f, "{header}\n{reason}"),
            StartError::Open { path, reason } => {
                write!(
                    f,
                    "Fatal error, can't open config file '{}': {reason}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for StartError {}

/// Checks the lines of a configuration that are more than settings. The default implementation of
/// each method accepts the line.
pub trait Directives {
    /// `rename-command`: checks that the command exists and the new name is free. Called in the
    /// order of the lines.
    fn rename_command(&mut self, _from: &[u8], _to: &[u8]) -> Result<(), Reason> {
        Ok(())
    }

    /// `user`: checks the rules of the user.
    fn user(&mut self, _args: &[Text]) -> Result<(), Reason> {
        Ok(())
    }
}

impl Directives for () {}

/// The maximum depth of includes, so that files which include each other are an error.
const MAX_INCLUDE_DEPTH: usize = 32;

/// The maximum size of a configuration file: a longer file is probably a data file that was named
/// by mistake.
const MAX_CONFIG_BYTES: u64 = 64 << 20;

/// Old names of settings, which are accepted with one argument and have no effect.
const DEPRECATED: [&str; 3] = [
    "list-max-ziplist-entries",
    "list-max-ziplist-value",
    "lua-replicate-commands",
];

/// Reads the configuration file, standard input and options into `config`, which has the defaults.
pub fn load(
    config: &mut Config,
    sources: &Sources,
    directives: &mut dyn Directives,
) -> Result<(), StartError> {
    let cwd = std::env::current_dir().unwrap_or_default();
    config.start_dir = cwd.clone();
    let mut text = Vec::new();
    if let Some(file) = &sources.file {
        config.file = Some(cwd.join(file));
        text = read_file(file)?;
    }
    if sources.stdin {
        log::info!("Reading config from stdin");
        let read = sys::read_at_most(io::stdin().lock(), MAX_CONFIG_BYTES);
        text.extend(read.map_err(|error| StartError::Open {
            path: "-".into(),
            reason: error_text(&error),
        })?);
    }
    text.extend_from_slice(&sources.options);
    let mut loader = Loader {
        config,
        directives,
        depth: 0,
    };
    loader.read_text(&text)?;
    if config.cluster_enabled && config.replicaof.is_some() {
        return Err(StartError::Whole(
            "replicaof directive not allowed in cluster mode".into(),
        ));
    }
    Ok(())
}

/// The lines of all sources but standard input, with included files in their place and without
/// `dir`: for a recording, as its replay reads no files and keeps its working directory.
///
/// Relative paths of includes start in `start_dir`, and after a line `dir` in the directory that
/// this line names.
pub fn expanded_text(sources: &Sources, start_dir: &Path) -> Result<Vec<u8>, StartError> {
    let mut cwd = start_dir.to_path_buf();
    let mut text = match &sources.file {
        Some(file) => read_file(&cwd.join(file))?,
        None => Vec::new(),
    };
    text.extend_from_slice(&sources.options);
    let mut out = Vec::new();
    expand(&text, 0, &mut cwd, &mut out)?;
    Ok(out)
}

fn expand(
    text: &[u8],
    depth: usize,
    cwd: &mut PathBuf,
    out: &mut Vec<u8>,
) -> Result<(), StartError> {
    for line in text.split(|b| *b == b'\n') {
        let words = split_args(trim_line(line)).unwrap_or_default();
        let is = |name: &[u8]| words.first().is_some_and(|w| w.eq_ignore_ascii_case(name));
        if is(b"include") && words.len() == 2 && depth < MAX_INCLUDE_DEPTH {
            for path in expand_include(cwd, &words[1]) {
                expand(&read_file(&path)?, depth + 1, cwd, out)?;
            }
        } else if is(b"dir") && words.len() == 2 {
            *cwd = cwd.join(OsStr::from_bytes(&words[1]));
        } else if !is_blank(line) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    Ok(())
}

/// The reason why the server can't start with these settings: one setting needs another.
pub(super) fn refused(config: &Config) -> Option<&'static str> {
    if config.cluster_enabled && config.tls_cluster && config.tls_port == 0 {
        return Some("tls-cluster needs a tls-port, which other nodes use");
    }
    None
}

/// Checks that the server's log file can be opened. The check is needed since logging opens the
/// file for each log line, and drops a log line that can't be written.
pub(super) fn check_logfile(config: &Config) -> Result<(), StartError> {
    if config.logfile.is_empty() {
        return Ok(());
    }
    let opened = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&config.logfile);
    opened.map(drop).map_err(|error| {
        StartError::Whole(format!("Can't open the log file: {}", error_text(&error)))
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, StartError> {
    let open_error = |error: io::Error| StartError::Open {
        path: path.into(),
        reason: error_text(&error),
    };
    let file = std::fs::File::open(path).map_err(open_error)?;
    sys::read_at_most(file, MAX_CONFIG_BYTES).map_err(open_error)
}

struct Loader<'a> {
    config: &'a mut Config,
    directives: &'a mut dyn Directives,
    depth: usize,
}

/// The error of a line of the configuration: an error of the line itself, or of a file that the
/// line includes.
enum Failure {
    Here(Reason),
    Included(StartError),
}

impl<T: Into<String>> From<T> for Failure {
    fn from(reason: T) -> Failure {
        Failure::Here(reason.into())
    }
}

impl Loader<'_> {
    fn read_text(&mut self, text: &[u8]) -> Result<(), StartError> {
        for (i, line) in text.split(|b| *b == b'\n').enumerate() {
            let line = trim_line(line);
            self.read_line(line).map_err(|failure| match failure {
                Failure::Included(error) => error,
                Failure::Here(reason) => {
                    let line = String::from_utf8_lossy(line).into_owned();
                    StartError::Line {
                        number: i + 1,
                        line,
                        reason,
                    }
                }
            })?;
        }
        Ok(())
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        if is_blank(line) {
            return Ok(());
        }
        let words = split_args(line).ok_or("Unbalanced quotes in configuration line")?;
        let Some((name, args)) = words.split_first() else {
            return Ok(());
        };
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        if lookup(name).is_some() {
            return self.read_setting(name, &args);
        }
        match (name.to_ascii_lowercase().as_slice(), &args[..]) {
            (b"include", [pattern]) => self.include(pattern),
            (b"rename-command", [from, to]) => {
                self.directives.rename_command(from, to)?;
                let (from, to) = (Text::from(*from), Text::from(*to));
                self.config.rename_command.push(RenameCommand { from, to });
                Ok(())
            }
            (b"user", [_, ..]) => self.user(&args),
            (b"loadmodule", [_, ..]) => {
                let line = args.iter().map(|arg| Text::from(*arg)).collect();
                self.config.loadmodule.push(line);
                Ok(())
            }
            (name, [_]) if DEPRECATED.iter().any(|old| old.as_bytes() == name) => Ok(()),
            _ => Err("Bad directive or wrong number of arguments".into()),
        }
    }

    fn read_setting(&mut self, name: &[u8], args: &[&[u8]]) -> Result<(), Failure> {
        apply_line(self.config, name, args)?;
        if lookup(name).is_some_and(|row| row.apply == Apply::Dir) {
            change_dir(self.config)?;
        }
        Ok(())
    }

    fn user(&mut self, args: &[&[u8]]) -> Result<(), Failure> {
        let args: Vec<Text> = args.iter().map(|arg| Text::from(*arg)).collect();
        if self
            .config
            .user
            .iter()
            .any(|known| known.first() == args.first())
        {
            let reason = "Duplicate user found. A user can only be defined once in config files";
            return Err(format!("Error in user declaration '{}': {reason}", args[0]).into());
        }
        self.directives.user(&args)?;
        self.config.user.push(args);
        Ok(())
    }

    fn include(&mut self, pattern: &[u8]) -> Result<(), Failure> {
        if self.depth == MAX_INCLUDE_DEPTH {
            return Err("Too many nested include directives".into());
        }
        for path in expand_include(Path::new(""), pattern) {
            let text = read_file(&path).map_err(Failure::Included)?;
            self.depth += 1;
            self.read_text(&text).map_err(Failure::Included)?;
            self.depth -= 1;
        }
        Ok(())
    }
}

/// Applies the line of a setting. If a setting takes several arguments and has a single one, that
/// is split: `save "900 1"`.
pub(super) fn apply_line(config: &mut Config, name: &[u8], args: &[&[u8]]) -> Result<(), Reason> {
    let Some(row) = lookup(name) else {
        return Err("Bad directive or wrong number of arguments".into());
    };
    let resplit = match args {
        [one] if row.is(MULTI_ARG) => split_args(one),
        _ => None,
    };
    match &resplit {
        Some(words) => {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            row.set(config, &words, Origin::Load)
        }
        None => row.set(config, args, Origin::Load),
    }
}

pub(super) fn is_blank(line: &[u8]) -> bool {
    line.is_empty() || line[0] == b'#'
}

/// Removes spaces, tabs and carriage returns at both ends of a line of the configuration.
pub(super) fn trim_line(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}

/// The files of an `include`: those that match a pattern, in order, or the named file, which may
/// not exist.
pub(super) fn expand_include(cwd: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let is_pattern = |part: &[u8]| part.iter().any(|b| matches!(b, b'*' | b'?' | b'['));
    let pattern_path = Path::new(OsStr::from_bytes(pattern));
    if !is_pattern(pattern) {
        return vec![cwd.join(pattern_path)];
    }
    let mut found = vec![cwd.to_path_buf()];
    for part in pattern_path.components() {
        let part = part.as_os_str();
        if !is_pattern(part.as_bytes()) {
            found = found
                .iter()
                .map(|dir| dir.join(part))
                .filter(|path| path.exists())
                .collect();
            continue;
        }
        found = found
            .iter()
            .flat_map(|dir| matching_entries(dir, part.as_bytes()))
            .collect();
    }
    found.sort();
    found
}

/// The files and folders in `dir` whose names match `pattern`. Hidden files match only a pattern
/// that starts with a dot.
fn matching_entries(dir: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let dir_or_here = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let Ok(entries) = std::fs::read_dir(dir_or_here) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let wanted = names.filter(|name| {
        let name = name.as_bytes();
        (name[0] != b'.' || pattern[0] == b'.') && glob_match(pattern, name)
    });
    wanted.map(|name| dir.join(name)).collect()
}
