//! `trace-record` and `--replay`: a recording of the loop's inputs from the start of the server on,
//! and the replay of the same turns from the file.
//!
//! ```text
//!   record   settings ─ facts ─> Server::new ─> sockets ─> data set ─> loop ─> shutdown
//!                         │          seed          │           │        │ clocks, polls, reads, writes
//!                         v                        v           v        v
//!                       the tape (sys::tape) ──────────────────────> FILE
//!                         │                        │           │        │
//!   replay              facts ──────────────> listeners ─> snapshot ─> loop ─> digest
//! ```
//!
//! A recording carries what the start depends on: the settings as one text, and the RDB file.
//! Settings that a recording can't carry are refused ([`refusal`]). `sys::tape` describes the
//! inputs after the start.
//!
//! TRACE RECORD restarts the server ([`restart`]): the state of a running server (its clients,
//! tables in the middle of a resize, scripts, counters) is the result of all earlier inputs, and no
//! file could carry it. So the data set is saved, and the new process loads it. Settings that
//! CONFIG SET has changed are passed on as arguments.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ae::{Change, EventLoop, Tap};

use crate::VERSION;
use crate::client::Client;
use crate::config::{Config, IMMUTABLE, ShutdownFlags, Sources, TABLE, expanded_text, parse_args};
use crate::connection::taped;
use crate::persist::loading;
use crate::server::cli;
use crate::server::shutdown::{self, Restart};
use crate::server::{init, start};
use crate::state::Server;
use crate::sync::role;
use crate::sys::print::print_error;
use crate::sys::tape::{self, Input};
use crate::sys::{self};
use crate::util::fnv;

/// The number of bytes of a snapshot in one entry of the recording.
const CHUNK: usize = 1 << 20;

/// Connects the event loop's inputs to the tape, which records or replays them.
struct LoopTap;

impl Tap for LoopTap {
    fn clock(&self, live: &dyn Fn() -> u64) -> u64 {
        tape::number(Input::Loop, live)
    }

    fn poll(&self, live: &mut dyn FnMut() -> io::Result<Vec<Change>>) -> io::Result<Vec<Change>> {
        let changes = tape::poll(|| Ok(live()?.into_iter().map(Change::to_raw).collect()))?;
        Ok(changes.into_iter().map(Change::from_raw).collect())
    }

    fn has_files(&self) -> bool {
        !tape::replays()
    }
}

/// Passes the event loop's inputs through the tape while it records or replays.
pub fn tap(el: &mut EventLoop<Server>) {
    el.set_tap(tape::is_on().then_some(&LoopTap));
}

/// The facts that the start of a recorded server depends on.
struct Facts {
    /// The version and the build of the program.
    program: String,
    settings: Vec<u8>,
    file: Vec<u8>,
    dir: Vec<u8>,
    start_dir: Vec<u8>,
    argv: Vec<u8>,
    maxclients: u64,
}

impl Facts {
    /// Records the facts on the tape, or takes them from the tape in a replay.
    fn pass(live: impl FnOnce() -> Option<Facts>) -> Facts {
        let live = if tape::replays() { None } else { live() };
        let field =
            |of: fn(&Facts) -> &[u8]| tape::text(|| live.as_ref().map_or(&[][..], of).to_vec());
        let program = String::from_utf8_lossy(&field(|f| f.program.as_bytes())).into_owned();
        // The warning comes before the other facts are read, as another version of the program may
        // have recorded others.
        warn_of_another_program(&program);
        Facts {
            program,
            settings: field(|f| &f.settings),
            file: field(|f| &f.file),
            dir: field(|f| &f.dir),
            start_dir: field(|f| &f.start_dir),
            argv: field(|f| &f.argv),
            maxclients: tape::number(Input::Fact, || {
                live.as_ref().map_or(0, |facts| facts.maxclients)
            }),
        }
    }
}

/// The version, and a hash of the executable file: two builds of one version may read different
/// inputs. Any change of the source moves most of the machine code behind it, so a sample of the
/// file's bytes is enough.
fn program() -> String {
    const EACH: usize = 61;
    let executable = std::fs::read("/proc/self/exe").unwrap_or_default();
    let sample: Vec<u8> = executable.iter().step_by(EACH).copied().collect();
    format!(
        "aeris {VERSION} build {:016x}",
        fnv::hash(executable.len() as u64, &sample)
    )
}

fn warn_of_another_program(recorded: &str) {
    if !tape::replays() {
        return;
    }
    let ours = program();
    if recorded != ours {
        print_error(format_args!(
            "The recording is of {recorded}, this is {ours}: the turns may differ."
        ));
    }
}

/// Why a server with these settings can't be recorded; `None` if it can.
fn refusal(config: &Config, sources: &Sources) -> Option<&'static str> {
    let reasons = [
        (config.appendonly, "appendonly yes"),
        (config.cluster_enabled, "cluster-enabled yes"),
        (config.activedefrag, "activedefrag yes"),
        (config.replicaof.is_some(), "replicaof"),
        (config.tls_port != 0, "tls-port"),
        (!config.aclfile.is_empty(), "aclfile"),
        (sources.stdin, "settings from standard input"),
    ];
    reasons
        .into_iter()
        .find_map(|(refused, reason)| refused.then_some(reason))
}

/// Whether a file is directly in the working directory.
fn is_in_working_directory(path: &Path) -> bool {
    let here = std::env::current_dir().and_then(std::fs::canonicalize);
    let parent = path.parent().map(std::fs::canonicalize);
    matches!((here, parent), (Ok(here), Some(Ok(parent))) if here == parent)
}

/// TRACE RECORD: saves the data set, then starts the server again with `trace-record`. The client
/// gets a reply only if the restart can't begin. `may_leave_dir`: the recording may be in any
/// directory.
pub fn restart(
    server: &mut Server,
    c: &mut Client,
    argv: &[&[u8]],
    path: &Path,
    may_leave_dir: bool,
) -> Result<(), String> {
    let arguments: Vec<String> = server.run.argv.iter().skip(1).cloned().collect();
    let sources = parse_args(&arguments);
    if let Some(reason) = refusal(&server.config, &sources) {
        return Err(format!("a recording does not carry {reason}"));
    }
    let path = std::path::absolute(path).map_err(|e| sys::error_text(&e))?;
    if !may_leave_dir && !is_in_working_directory(&path) {
        return Err("a file outside of dir needs enable-protected-configs".into());
    }
    let mut further = changed_settings(&server.config, &sources)?;
    // The new process would not start if it could not write the recording.
    tape::check_file(&path).map_err(|e| sys::error_text(&e))?;
    let path = path.to_str().ok_or("the name is not UTF-8")?.to_string();
    further.extend(["--trace-record".into(), path]);
    server.shutdown.restart = Some(Restart {
        arguments: further,
        ..Restart::default()
    });
    let options = ShutdownFlags {
        save: true,
        now: true,
        ..Default::default()
    };
    shutdown::request(server, c, argv, options);
    Ok(())
}

/// The settings that CONFIG SET has changed, as arguments: those that differ from what a start
/// would read now. A start's settings are read in the directory in which the server was started, in
/// which relative paths begin.
fn changed_settings(config: &Config, sources: &Sources) -> Result<Vec<String>, String> {
    let here = std::env::current_dir().map_err(|e| sys::error_text(&e))?;
    let enter = |dir: &Path| std::env::set_current_dir(dir).map_err(|e| sys::error_text(&e));
    enter(&config.start_dir)?;
    let loaded = cli::load_settings(sources);
    enter(&here)?;
    let (at_start, _) = loaded.map_err(|error| error.to_string())?;
    let mut arguments = Vec::new();
    for row in TABLE {
        let value = row.get(config);
        if value != row.get(&at_start) && !row.is(IMMUTABLE) {
            let value = String::from_utf8(value).map_err(|_| row.name.to_string())?;
            arguments.extend([format!("--{}", row.name), value]);
        }
    }
    Ok(arguments)
}

/// `trace-record`: begins the recording, before the server is made.
pub fn begin(config: &Config, argv: &[std::ffi::OsString]) -> Result<(), ExitCode> {
    if config.trace_record.is_empty() {
        return Ok(());
    }
    let sources = parse_args(&argv[1..]);
    if let Some(reason) = refusal(config, &sources) {
        log::warn!("trace-record can't be used with {reason}, which a recording does not carry");
        return Err(ExitCode::FAILURE);
    }
    let settings = expanded_text(&sources, &config.start_dir).map_err(|error| {
        log::warn!("{error}");
        ExitCode::FAILURE
    })?;
    let path = config.trace_record.as_path();
    tape::record(path, config.trace_record_max_size).map_err(|e| {
        let reason = sys::error_text(&e);
        log::warn!("Can't write the recording {}: {reason}", path.display());
        ExitCode::FAILURE
    })?;
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let facts = Facts {
        program: program(),
        settings,
        file: config.file.as_deref().map_or(Vec::new(), bytes),
        dir: config.dir.as_bytes().to_vec(),
        start_dir: bytes(&config.start_dir),
        argv: cli::lossy(argv).join("\0").into_bytes(),
        maxclients: config.maxclients.into(),
    };
    Facts::pass(|| Some(facts));
    log::info!("The loop's inputs are recorded into {}", path.display());
    Ok(())
}

/// Loads the data set from the RDB file, which is put into the recording; a replay takes it from
/// there.
pub fn load(server: &mut Server) -> Result<(), ExitCode> {
    let path = server.config.dbfilename.as_path().to_path_buf();
    let snapshot = pass_snapshot(&path).map_err(|e| {
        log::warn!("Can't read {}: {}", path.display(), sys::error_text(&e));
        ExitCode::FAILURE
    })?;
    let loaded = match snapshot.is_empty() {
        true => Ok(()),
        false => loading::load_bytes(server, &snapshot),
    };
    tape::loop_begins();
    loaded
}

/// The bytes of the RDB file, empty if there is no file; they are recorded, and a replay takes them
/// from the recording.
fn pass_snapshot(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match tape::replays() {
        true => None,
        false => match File::open(path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        },
    };
    let mut snapshot = Vec::new();
    loop {
        let mut result = Ok(0);
        let chunk = tape::text(|| {
            let mut chunk = Vec::new();
            if let Some(file) = &mut file {
                result = file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
            }
            chunk
        });
        result?;
        if chunk.is_empty() {
            return Ok(snapshot);
        }
        snapshot.extend_from_slice(&chunk);
    }
}

/// `--replay FILE`: replays a recording. Does not return from a replay that comes to its end: the
/// tape ends the process.
pub fn replay(path: &str) -> ExitCode {
    match run(Path::new(path)) {
        Ok(()) => {
            tape::finish();
            ExitCode::SUCCESS
        }
        Err(reason) => {
            print_error(format_args!("{path} can't be replayed: {reason}"));
            ExitCode::from(2)
        }
    }
}

fn run(path: &Path) -> Result<(), String> {
    if let Err(fault) = tape::replay(path) {
        print_error(format_args!("{} {fault}.", path.display()));
        std::process::exit(2);
    }
    let facts = Facts::pass(|| None);
    let (config, renames) = settings(&facts)?;
    let argv = String::from_utf8_lossy(&facts.argv).into_owned();
    let mut server = Server::new(config, argv.split('\0').map(str::to_string).collect());
    start::rename_commands(&mut server, &renames);
    // An ordinary start logs a failure to set oom_score_adj; a replay ignores it.
    let _ = server.apply_oom_score_adj();
    let failed = |_| "the start fails".to_string();
    start::load_users(&mut server).map_err(failed)?;
    server.net.listeners = taped::listeners(Vec::new());
    let mut el = init::event_loop(&mut server).map_err(|e| sys::error_text(&e))?;
    role::begin(&mut server);
    load(&mut server).map_err(failed)?;
    el.run(&mut server).map_err(|e| sys::error_text(&e))
}

/// Reads the settings that the recording carries. Reading the settings changes neither the working
/// directory nor the log.
fn settings(facts: &Facts) -> Result<(Config, cli::Renames), String> {
    let sources = Sources {
        options: facts.settings.clone(),
        ..Sources::default()
    };
    let (mut config, renames) = cli::load_settings(&sources).map_err(|error| error.to_string())?;
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    config.file = Some(path(&facts.file)).filter(|file| !file.as_os_str().is_empty());
    config.start_dir = path(&facts.start_dir);
    config.dir = facts.dir.as_slice().into();
    config.maxclients = u32::try_from(facts.maxclients).map_err(|_| "maxclients".to_string())?;
    Ok((config, renames))
}
