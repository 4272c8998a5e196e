//! `aeris-check-aof`: checks whether an AOF is valid, finds where it ends, and can cut its end off.
//!
//! ```text
//!   aeris-check-aof appendonlydir/appendonly.aof.manifest     all parts, in order
//!   aeris-check-aof appendonly.aof                            one file, as Redis 6 wrote them
//!     --fix                       cut a last file off behind its last whole command, or transaction
//!     --truncate-to-timestamp T   cut the last file off where what was written after T begins (`#TS:`)
//! ```
//!
//! The output has the same lines as that of redis-check-aof, since operators and scripts read them.
//! Commands are not run or looked up: the check covers their framing, and that each MULTI has its
//! EXEC.
//!
//! Only the last file of an AOF may be cut: commands of later files would run on a different state.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::load::is_rdb;
use super::manifest::{LINE_MAX, Manifest};
use super::reader::{AofReader, Fault, Item};
use crate::persist::rdb::check as rdb_check;
use crate::sys::error_text;
use crate::sys::print::{print_line, program_name};
use crate::util::quote::repr;

/// The options of the command line of `aeris-check-aof`.
#[derive(Clone, Copy, Default)]
struct AofCheckOptions {
    fix: bool,
    /// The Unix time in seconds after which commands are cut off.
    until_s: Option<i64>,
}

/// The reason why the check of an AOF stops, as a line of the output.
type Stop = String;

/// The result of the check of one file of the AOF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Valid,
    Empty,
    /// The file was cut off at the given time, or repaired.
    Truncated,
}

/// What the check found in a file: the end of its last whole command or transaction, and the fault
/// that follows.
#[derive(Debug)]
struct Extent {
    good: u64,
    good_line: u64,
    /// The position of the first time annotation (`#TS:`) that is later than the time of
    /// `--truncate-to-timestamp`.
    late: Option<u64>,
    trouble: Option<String>,
}

/// The answer to `--help`.
const HELP: &str = "\
Usage: NAME [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>
       NAME -v or --version
       NAME -h or --help

Checks an append-only file (AOF): all files of a manifest, or one file. The
exit status is 0 if they are valid or were repaired, 1 otherwise.

  --fix    cuts the last file off behind its last whole command, after a question
  --truncate-to-timestamp $timestamp
           cuts the last file off before the first change after this Unix time in
           seconds; needs a file written with aof-timestamp-enabled yes
";

/// The main function of `aeris-check-aof`.
pub fn main(args: &[String]) -> ExitCode {
    let name = args.first().map_or("aeris-check-aof", String::as_str);
    let (options, path) = match parse(&args[args.len().min(1)..]) {
        Some(Request::Check(options, path)) => (options, path),
        Some(Request::Version) => {
            print_line(format_args!("redis-check-aof {}", crate::REDIS_VERSION));
            return ExitCode::SUCCESS;
        }
        Some(Request::Help) => {
            print_line(HELP.replace("NAME", program_name(name)).trim_end());
            return ExitCode::SUCCESS;
        }
        None => {
            print_line(format_args!(
                "Usage: {name} [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>"
            ));
            return ExitCode::FAILURE;
        }
    };
    match check(&path, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            print_line(line);
            ExitCode::FAILURE
        }
    }
}

enum Request {
    Check(AofCheckOptions, PathBuf),
    Version,
    Help,
}

fn parse(args: &[String]) -> Option<Request> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut options = AofCheckOptions::default();
    let path = match words[..] {
        ["-v" | "--version"] => return Some(Request::Version),
        ["-h" | "--help"] => return Some(Request::Help),
        [path] => path,
        ["--fix", path] => {
            options.fix = true;
            path
        }
        ["--truncate-to-timestamp", time, path] => {
            options.until_s = Some(time.parse().ok()?);
            path
        }
        _ => return None,
    };
    Some(Request::Check(options, path.into()))
}

/// The kind of a file that is checked, as its first bytes show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Manifest,
    Rdb,
    Commands,
}

fn shape_of(path: &Path) -> io::Result<Shape> {
    let mut file = File::open(path)?;
    if is_rdb(&mut file)? {
        return Ok(Shape::Rdb);
    }
    let mut head = Vec::new();
    (&mut file).take(LINE_MAX as u64).read_to_end(&mut head)?;
    let lines = head.split_inclusive(|&b| b == b'\n');
    let line = lines.into_iter().find(|line| !line.starts_with(b"#"));
    let manifest = line.is_some_and(|line| line.starts_with(b"file "));
    Ok(if manifest {
        Shape::Manifest
    } else {
        Shape::Commands
    })
}

fn check(path: &Path, options: AofCheckOptions) -> Result<(), Stop> {
    let shown = path.display();
    let cannot =
        |e: io::Error| format!("Cannot open file {shown}: {}, aborting...", error_text(&e));
    match shape_of(path).map_err(cannot)? {
        Shape::Manifest => check_manifest(path, options),
        shape => {
            print_line("Start checking Old-Style AOF");
            let verdict = check_file(path, shape, options, true)?;
            report("AOF", path, verdict, options);
            Ok(())
        }
    }
}

fn check_manifest(path: &Path, options: AofCheckOptions) -> Result<(), Stop> {
    print_line("Start checking Multi Part AOF");
    let bytes = std::fs::read(path).map_err(|e| {
        format!(
            "Cannot open file {}: {}, aborting...",
            path.display(),
            error_text(&e)
        )
    })?;
    let manifest = Manifest::parse(&bytes).map_err(|e| match e.line_number {
        0 => e.text.to_string(),
        n => format!(
            "Reading the manifest file, at line {n}\n>>> '{}'\n{}",
            String::from_utf8_lossy(&e.line),
            e.text
        ),
    })?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let last = manifest.loaded().last().cloned();
    let check_part = |what: &str, part: &super::manifest::Part| -> Result<(), Stop> {
        let path = part.path(dir);
        let shape = shape_of(&path).map_err(|e| {
            format!(
                "Cannot open file {}: {}, aborting...",
                path.display(),
                error_text(&e)
            )
        })?;
        if what == "BASE AOF" {
            let format = if shape == Shape::Rdb { "RDB" } else { "RESP" };
            print_line(format_args!("Start to check BASE AOF ({format} format)."));
        }
        let verdict = check_file(&path, shape, options, last.as_ref() == Some(part))?;
        report(what, &path, verdict, options);
        Ok(())
    };
    if let Some(base) = &manifest.base {
        check_part("BASE AOF", base)?;
    }
    if !manifest.incr.is_empty() {
        print_line("Start to check INCR files.");
    }
    for part in &manifest.incr {
        check_part("INCR AOF", part)?;
    }
    print_line("All AOF files and manifest are valid");
    Ok(())
}

fn report(what: &str, path: &Path, verdict: Verdict, options: AofCheckOptions) {
    let path = path.display();
    match (verdict, options.until_s) {
        (Verdict::Valid, _) => print_line(format_args!("{what} {path} is valid")),
        (Verdict::Empty, _) => print_line(format_args!("{what} {path} is empty")),
        (Verdict::Truncated, Some(time)) => {
            print_line(format_args!(
                "Successfully truncated AOF {path} to timestamp {time}"
            ));
        }
        (Verdict::Truncated, None) => print_line(format_args!("Successfully truncated AOF {path}")),
    }
}

/// Checks one file of the AOF. If `last`, no file follows, so this file may be cut off at a fault
/// or a time.
fn check_file(
    path: &Path,
    shape: Shape,
    options: AofCheckOptions,
    last: bool,
) -> Result<Verdict, Stop> {
    let shown = path.display();
    let cannot =
        |e: io::Error| format!("Cannot open file {shown}: {}, aborting...", error_text(&e));
    let mut file = File::options()
        .read(true)
        .write(options.fix || options.until_s.is_some())
        .open(path)
        .map_err(cannot)?;
    let len = file.metadata().map_err(cannot)?.len();
    if len == 0 {
        return Ok(Verdict::Empty);
    }
    let start = match shape {
        Shape::Rdb => check_preamble(path)?,
        _ => 0,
    };
    file.seek(SeekFrom::Start(start)).map_err(cannot)?;
    let extent = walk(&file, start, len, options.until_s);
    if let Some(late) = extent.late {
        return cut_at_time(&file, path, late, options, last);
    }
    if let Some(trouble) = &extent.trouble {
        print_line(trouble);
    }
    let diff = len - extent.good;
    print_line(format_args!(
        "AOF analyzed: filename={shown}, size={len}, ok_up_to={}, ok_up_to_line={}, diff={diff}",
        extent.good, extent.good_line
    ));
    match diff {
        0 => Ok(Verdict::Valid),
        _ if options.fix => fix(&file, path, &extent, len, last),
        _ => Err(format!(
            "AOF {shown} is not valid. Use the --fix option to try fixing it."
        )),
    }
}

/// Checks the RDB at the beginning of an AOF file. Returns the position of the RDB's end in the
/// file.
fn check_preamble(path: &Path) -> Result<u64, Stop> {
    print_line(format_args!(
        "The AOF appears to start with an RDB preamble.\nChecking the RDB preamble to start:"
    ));
    match rdb_check::check_preamble(path, &mut |line| print_line(line)) {
        Some(end) => {
            print_line("RDB preamble is OK, proceeding with AOF tail...");
            Ok(end)
        }
        None => Err("RDB preamble of AOF file is not sane, aborting.".into()),
    }
}

/// Reads all commands of a file, up to a fault, or to a time annotation (`#TS:`) later than
/// `until_s`.
fn walk(file: &File, start: u64, len: u64, until_s: Option<i64>) -> Extent {
    let mut reader = AofReader::new(file, start, len);
    let mut extent = Extent {
        good: start,
        good_line: 1,
        late: None,
        trouble: None,
    };
    let mut in_multi = false;
    loop {
        let at = reader.offset();
        match reader.next_item() {
            Ok(Item::End) if in_multi => {
                extent.trouble = Some("Reached EOF before reading EXEC for MULTI".into());
                return extent;
            }
            Ok(Item::End) => return extent,
            Ok(Item::Stamp(time)) if until_s.is_some_and(|until| time > until) && !in_multi => {
                extent.late = Some(at);
                return extent;
            }
            Ok(Item::Stamp(_) | Item::Position(_) | Item::Comment) => {}
            Ok(Item::Command) => match follow_transaction(&reader.argv(), in_multi) {
                Ok(now) => in_multi = now,
                Err(text) => {
                    extent.trouble = Some(trouble(at, text));
                    return extent;
                }
            },
            Err(fault) => {
                extent.trouble = Some(describe(reader.offset(), fault));
                return extent;
            }
        }
        if !in_multi {
            (extent.good, extent.good_line) = (reader.offset(), reader.lines + 1);
        }
    }
}

/// Returns whether a transaction is open after the command `argv`; `open` is whether one was open
/// before.
fn follow_transaction(argv: &[&[u8]], open: bool) -> Result<bool, &'static str> {
    let name = argv.first().map(|name| name.to_ascii_lowercase());
    match name.as_deref() {
        Some(b"multi") if open => Err("Unexpected MULTI"),
        Some(b"multi") => Ok(true),
        Some(b"exec") if !open => Err("Unexpected EXEC"),
        Some(b"exec") => Ok(false),
        _ => Ok(open),
    }
}

fn trouble(at: u64, text: &str) -> String {
    format!("0x{at:16x}: {text}")
}

fn describe(at: u64, fault: Fault) -> String {
    match fault {
        Fault::Io(e) => trouble(at, &error_text(&e)),
        Fault::Truncated => trouble(at, "Reached EOF before reading a whole command"),
        Fault::Format { wanted, found } => trouble(at, &format!("{wanted}, got: {}", repr(&found))),
    }
}

/// Cuts the file off at `at`, the position of the first later time annotation
/// (`--truncate-to-timestamp`).
fn cut_at_time(
    file: &File,
    path: &Path,
    at: u64,
    options: AofCheckOptions,
    last: bool,
) -> Result<Verdict, Stop> {
    let (shown, time) = (path.display(), options.until_s.unwrap_or(0));
    if !last {
        return Err(format!(
            "Failed to truncate AOF {shown} to timestamp {time} to offset {at} because it is not the last file.\n\
             If you insist, please delete all files after this file according to the manifest file and delete the \
             corresponding records in manifest file manually. Then re-run redis-check-aof."
        ));
    }
    if at == 0 {
        return Err(format!(
            "AOF {shown} has nothing before timestamp {time}, aborting..."
        ));
    }
    cut(file, path, at)?;
    Ok(Verdict::Truncated)
}

/// Cuts the file after its last whole command (`--fix`), if the operator agrees.
fn fix(file: &File, path: &Path, extent: &Extent, len: u64, last: bool) -> Result<Verdict, Stop> {
    let shown = path.display();
    if !last {
        return Err(format!(
            "Failed to truncate AOF {shown} because it is not the last file"
        ));
    }
    let good = extent.good;
    print_line(format_args!(
        "This will shrink the AOF {shown} from {len} bytes, with {} bytes, to {good} bytes",
        len - good
    ));
    // An error of the output is ignored: if the terminal is closed, the question gets no answer
    // either.
    let mut terminal = io::stdout();
    let _ = terminal
        .write_all(b"Continue? [y/N]: ")
        .and_then(|()| terminal.flush());
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    if !answer.trim_start().starts_with(['y', 'Y']) {
        return Err("Aborting...".into());
    }
    cut(file, path, good)?;
    Ok(Verdict::Truncated)
}

fn cut(file: &File, path: &Path, at: u64) -> Result<(), Stop> {
    let done = file.set_len(at).and_then(|()| file.sync_all());
    done.map_err(|e| {
        format!(
            "Failed to truncate AOF {}: {}",
            path.display(),
            error_text(&e)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::bulk::push_command;

    fn extent_of(bytes: &[u8], until_s: Option<i64>) -> Extent {
        let path = std::env::temp_dir().join(format!(
            "aeris-check-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, bytes).expect("a file");
        let file = File::open(&path).expect("the file");
        let extent = walk(&file, 0, bytes.len() as u64, until_s);
        std::fs::remove_file(&path).expect("gone");
        extent
    }

    #[test]
    fn a_transaction_counts_as_a_whole() {
        let mut bytes = Vec::new();
        push_command(&mut bytes, &["SET", "a", "1"]);
        let good = bytes.len() as u64;
        for argv in [&["MULTI"][..], &["SET", "b", "2"]] {
            push_command(&mut bytes, argv);
        }
        let extent = extent_of(&bytes, None);
        assert_eq!((extent.good, extent.good_line), (good, 8));
        assert!(extent.trouble.is_some());
        push_command(&mut bytes, &["EXEC"]);
        let extent = extent_of(&bytes, None);
        assert_eq!((extent.good, extent.trouble), (bytes.len() as u64, None));
        push_command(&mut bytes, &["EXEC"]);
        assert!(extent_of(&bytes, None).trouble.is_some());
    }

    #[test]
    fn what_is_later_than_wanted_begins_at_its_annotation() {
        let mut bytes = b"#TS:10\r\n".to_vec();
        push_command(&mut bytes, &["SET", "a", "1"]);
        let at = bytes.len() as u64;
        bytes.extend_from_slice(b"#TS:11\r\n");
        push_command(&mut bytes, &["SET", "b", "1"]);
        assert_eq!(extent_of(&bytes, Some(10)).late, Some(at));
        assert_eq!(extent_of(&bytes, Some(9)).late, Some(0));
        assert_eq!(extent_of(&bytes, Some(11)).late, None);
    }
}
