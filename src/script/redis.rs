//! The functions of the `redis` table, which scripts call.
//!
//! `redis.call` runs a command of the script's client. The command is checked as Redis checks
//! commands of scripts and run by `call()`, and its reply is read from the client's buffer. The
//! arguments of the command are borrowed from Lua's stack.
//!
//! Errors are tables with a field `err`. An error of a command is counted when the command runs;
//! the table is marked, so that the error is not counted again when the script returns it.

use log::Level;

use crate::acl;
use crate::armed;
use crate::client::resp::Sent;
use crate::command;
use crate::command::Command;
use crate::error::Error;
use crate::execute::call::call as call_command;
use crate::execute::{dispatch, route};
use crate::script::cache;
use crate::script::convert;
use crate::script::engine::{LOG_LEVELS, api, repl};
use crate::script::flags;
use crate::script::native::cast;
use crate::script::run::Run;
use crate::sys::lua::{Frame, LuaType, Outcome, nan_text};
use crate::texts::{self, Text, Words};
use crate::util::number;
use crate::util::number::{DoubleBuf, IntBuf, double_to_i64};

/// A command of a script with at most this number of arguments needs no allocation for them.
const FEW: usize = 16;

const RETURN: Outcome = Outcome::Return(1);

/// Runs the function of the `redis` table with this number (`engine::api`), which the script
/// called.
pub fn call(run: &mut Run, function: u8, frame: &mut Frame) -> Outcome {
    match function {
        api::CALL => command(run, frame, true),
        api::PCALL => command(run, frame, false),
        api::LOG => log(frame, run.server.config.words()),
        api::SHA1HEX => sha1hex(frame),
        api::ERROR_REPLY => error_reply(frame),
        api::STATUS_REPLY => status_reply(frame),
        api::SETRESP => setresp(run, frame),
        api::SET_REPL => set_repl(run, frame),
        api::ACL_CHECK_CMD => acl_check_cmd(run, frame),
        api::REPLICATE_COMMANDS => {
            frame.push_boolean(true);
            RETURN
        }
        api::BREAKPOINT => {
            if let Some(debugger) = &mut run.debugger {
                debugger.stop_soon();
            }
            frame.push_boolean(run.debugger.is_some());
            RETURN
        }
        api::DEBUG => {
            if let Some(debugger) = &mut run.debugger {
                debugger.note(frame);
            }
            Outcome::Return(0)
        }
        _ => raise(frame, run.server.config.text(texts::REGISTER_OUTSIDE_LOAD)),
    }
}

/// Pushes an error table onto Lua's stack; the error's code is `ERR`.
pub fn push_error(frame: &mut Frame, text: &str) {
    push_coded_error(frame, &[b"ERR ", text.as_bytes()].concat());
}

fn push_coded_error(frame: &mut Frame, text: &[u8]) {
    frame.push_table(0, 4);
    frame.push_bytes(convert::without_line_end(text));
    frame.set_field("err");
}

/// Pushes an error table onto Lua's stack and raises the error in the script.
pub fn raise(frame: &mut Frame, text: &str) -> Outcome {
    push_error(frame, text);
    Outcome::Raise
}

/// The reason why the arguments of `redis.call` are not a command.
enum Unfit {
    None,
    NotStrings,
}

impl Unfit {
    fn text(&self) -> Text {
        match self {
            Unfit::None => texts::CALL_WITHOUT_ARGUMENTS,
            Unfit::NotStrings => texts::CALL_ARGUMENTS,
        }
    }
}

/// Converts all arguments of `redis.call` on Lua's stack to strings, and returns their number.
fn prepare_arguments(frame: &mut Frame) -> Result<usize, Unfit> {
    let count = frame.len();
    if count == 0 {
        return Err(Unfit::None);
    }
    frame.room(4);
    for at in 1..=count as i32 {
        match frame.kind(at) {
            LuaType::String => {}
            LuaType::Number => {
                let number = frame.number(at);
                match double_to_i64(number) {
                    None if number.is_nan() => {
                        frame.replace_with_bytes(at, nan_text(number).as_bytes());
                    }
                    Some(n) => frame.replace_with_bytes(at, IntBuf::new().format(n)),
                    None => frame.replace_with_bytes(at, DoubleBuf::new().format(number)),
                }
            }
            _ => return Err(Unfit::NotStrings),
        }
    }
    Ok(count)
}

/// Passes the arguments of `redis.call` to the closure `then`, as slices of Lua's stack.
fn with_arguments<R>(frame: &Frame, count: usize, then: impl FnOnce(&[&[u8]]) -> R) -> R {
    let argument = |at: usize| frame.bytes(at as i32 + 1).unwrap_or_default();
    if count <= FEW {
        let mut few: [&[u8]; FEW] = [&[]; FEW];
        for (at, place) in few[..count].iter_mut().enumerate() {
            *place = argument(at);
        }
        return then(&few[..count]);
    }
    let many: Vec<&[u8]> = (0..count).map(argument).collect();
    then(&many)
}

/// redis.call(command, ...), and redis.pcall(command, ...), which returns errors instead of raising
/// them.
fn command(run: &mut Run, frame: &mut Frame, raises: bool) -> Outcome {
    let count = match prepare_arguments(frame) {
        Ok(count) => count,
        Err(unfit) => {
            push_error(frame, run.server.config.text(unfit.text()));
            return outcome(true, raises);
        }
    };
    let start = run.client.reply.mark();
    if let Some(debugger) = &mut run.debugger {
        with_arguments(frame, count, |argv| debugger.note_command(argv));
    }
    if let Err(error) = with_arguments(frame, count, |argv| run_command(run, argv)) {
        if let Some(debugger) = &mut run.debugger {
            debugger.note_refusal(&error);
        }
        frame.clear();
        push_refusal(frame, &error);
        return outcome(true, raises);
    }
    if let Some(debugger) = &mut run.debugger {
        debugger.note_reply(&run.client.reply.bytes_from(start));
    }
    // The arguments are removed first, since the maximum number of arguments leaves no room on
    // Lua's stack for a reply.
    frame.clear();
    let is_error = match run.client.reply.single_piece() {
        Some(bytes) => convert::push_reply(frame, bytes),
        None => convert::push_reply(frame, &run.client.reply.take_bytes()),
    };
    run.client.reply.truncate(start);
    match is_error {
        Ok(is_error) => outcome(is_error, raises),
        Err(convert::TooDeep) => raise(frame, run.server.config.text(texts::REPLY_TOO_DEEP)),
    }
}

fn outcome(is_error: bool, raises: bool) -> Outcome {
    if is_error && raises {
        Outcome::Raise
    } else {
        RETURN
    }
}

/// Pushes the error of a refused command onto Lua's stack, marked as counted by INFO errorstats.
fn push_refusal(frame: &mut Frame, error: &Error) {
    push_coded_error(frame, &error.bytes().collect::<Vec<u8>>());
    convert::mark_counted(frame);
}

/// Checks and runs a command of a script; its reply is then in the buffer of the script's client.
pub fn run_command(run: &mut Run, argv: &[&[u8]]) -> Result<(), Error> {
    let id = lookup(run, argv);
    let checked = match id {
        Some(id) => check(run, argv, id),
        None => Err(Error::of(
            run.server.config.text(texts::UNKNOWN_COMMAND_IN_SCRIPT),
        )),
    };
    if let Err(error) = checked {
        if let Some(id) = id {
            run.server.commands.entries[id as usize].stats.rejected += 1;
        }
        run.server.stats.count_error(error.code());
        return Err(error);
    }
    let Some(id) = id else { return Ok(()) };
    if run.server.commands.row(id).flags & command::WRITE != 0
        && let Some(running) = &mut run.server.scripting.running
    {
        running.wrote = true;
    }
    call_command(run.server, &mut run.client, argv, id, Sent::default());
    run.caller.commands += 1;
    Ok(())
}

/// The id of the command, or of its subcommand. A container command without an argument has its own
/// id.
fn lookup(run: &Run, argv: &[&[u8]]) -> Option<u16> {
    let commands = &run.server.commands;
    let id = commands.lookup(argv[0])?;
    if commands.entry(id).subcommands.1 == 0 || argv.len() < 2 {
        return Some(id);
    }
    commands.lookup_subcommand(id, argv[1])
}

/// Checks whether the script may run a command; the checks are in Redis's order.
fn check(run: &mut Run, argv: &[&[u8]], id: u16) -> Result<(), Error> {
    let cmd = run.server.commands.row(id);
    if !cmd.check_arity(argv.len()) {
        return Err(Error::of(run.server.config.text(texts::ARITY_IN_SCRIPT)));
    }
    if cmd.flags & command::NOSCRIPT != 0 && !run.server.debug.allow_noscript {
        return Err(Error::of(
            "ERR This Redis command is not allowed from script",
        ));
    }
    acl::check_script(run.server, run.caller, &run.client, argv, id)?;
    if cmd.flags & (command::WRITE | command::MAY_REPLICATE) != 0 && run.read_only {
        return Err(Error::of(
            "ERR Write commands are not allowed from read-only scripts.",
        ));
    }
    if cmd.flags & command::STALE == 0 && dispatch::is_stale(run.server) {
        return Err(Error::of(
            "ERR Can not execute the command on a stale replica",
        ));
    }
    check_disk(run, cmd)?;
    check_memory(run, cmd)?;
    if run.server.armed & armed::CLUSTER == 0 {
        return Ok(());
    }
    let may_cross = run.server.scripting.crosses_slots;
    route::check_in_script(
        run.server,
        run.caller,
        &mut run.client,
        (id, argv),
        may_cross,
    )
}

/// Whether the script has written. A script that has written may continue when the disk fails or
/// memory is full, so that its changes are complete: only its own errors stop it.
fn wrote(run: &Run) -> bool {
    let running = run.server.scripting.running.as_ref();
    running.is_some_and(|running| running.wrote)
}

/// Refuses a script's command that writes if its change could not be saved or replicated. The disk
/// may begin to fail while the script is busy and the loop turns.
fn check_disk(run: &mut Run, cmd: &Command) -> Result<(), Error> {
    if cmd.flags & command::WRITE == 0 || wrote(run) || obeyed(run) {
        return Ok(());
    }
    if let Some(error) = dispatch::write_refusal(run.server) {
        return Err(error);
    }
    if dispatch::is_read_only(run.server) {
        return Err(Error::READONLY);
    }
    if dispatch::too_few_replicas(run.server) {
        return Err(Error::NOREPLICAS);
    }
    let is_replica = run.server.replication.is_replica();
    run.server.stats.replica_local_writes += u64::from(is_replica);
    Ok(())
}

/// Whether the command that began the script came from a primary or the AOF: the script's commands
/// then run without checks of disk and memory.
fn obeyed(run: &Run) -> bool {
    run.caller.must_obey()
}

fn check_memory(run: &Run, cmd: &Command) -> Result<(), Error> {
    let refused = run.out_of_memory
        && cmd.flags & command::DENYOOM != 0
        && run.flags & flags::ALLOW_OOM == 0
        && !wrote(run)
        && !obeyed(run);
    if refused { Err(Error::OOM) } else { Ok(()) }
}

/// redis.log(level, message, ...): writes a line to the server's log.
pub fn log(frame: &mut Frame, words: Words) -> Outcome {
    if frame.len() < 2 {
        return raise(frame, texts::LOG_ARGUMENTS.of(words));
    }
    if !frame.is_number(1) {
        return raise(frame, "First argument must be a number (log level).");
    }
    let level = cast(frame.number(1));
    if !(0..LOG_LEVELS.len() as i64).contains(&level) {
        return raise(frame, "Invalid log level.");
    }
    let mut text = Vec::new();
    for at in 2..=frame.len() as i32 {
        let Some(part) = text_of(frame, at) else {
            continue;
        };
        if at > 2 {
            text.push(b' ');
        }
        text.extend_from_slice(&part);
    }
    let level = [Level::Trace, Level::Debug, Level::Info, Level::Warn][level as usize];
    log::log!(level, "{}", String::from_utf8_lossy(&text));
    Outcome::Return(0)
}

/// The text of the string or number at an index of Lua's stack; `None` for other types.
pub fn text_of(frame: &Frame, at: i32) -> Option<Vec<u8>> {
    match frame.kind(at) {
        LuaType::String => frame.bytes(at).map(<[u8]>::to_vec),
        LuaType::Number => {
            if frame.number(at).is_nan() {
                return Some(nan_text(frame.number(at)).into());
            }
            let mut text = Vec::new();
            number::write_g(&mut text, frame.number(at), 14);
            Some(text)
        }
        _ => None,
    }
}

/// redis.sha1hex(text): the SHA-1 of the text as hexadecimal digits.
fn sha1hex(frame: &mut Frame) -> Outcome {
    if frame.len() != 1 {
        return raise(frame, "wrong number of arguments");
    }
    let text = text_of(frame, 1).unwrap_or_default();
    frame.push_bytes(&cache::sha_of(&text));
    RETURN
}

/// redis.error_reply(text): a table that is an error.
fn error_reply(frame: &mut Frame) -> Outcome {
    if frame.len() != 1 || frame.kind(1) != LuaType::String {
        push_error(frame, "wrong number or type of arguments");
        return RETURN;
    }
    let text = frame.bytes(1).unwrap_or_default();
    // `-CODE text` and `CODE text` are the same error; a single word is not a code.
    let text = text.strip_prefix(b"-").unwrap_or(text);
    // The text of the error ends at its first zero byte, as in Redis.
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    let (code, message) = match memchr::memchr(b' ', text) {
        Some(space) => text.split_at(space + 1),
        None => (&b"ERR "[..], text),
    };
    let text = [code, without_line_ends(message)].concat();
    push_coded_error(frame, &text);
    RETURN
}

/// Removes the line ends before and after the message of an error.
fn without_line_ends(mut text: &[u8]) -> &[u8] {
    while let [b'\r' | b'\n', rest @ ..] | [rest @ .., b'\r' | b'\n'] = text {
        text = rest;
    }
    text
}

/// redis.status_reply(text): a table that is a status.
fn status_reply(frame: &mut Frame) -> Outcome {
    if frame.len() != 1 || frame.kind(1) != LuaType::String {
        push_error(frame, "wrong number or type of arguments");
        return RETURN;
    }
    frame.push_table(0, 1);
    frame.push_value(1);
    frame.set_field("ok");
    RETURN
}

/// redis.setresp(2 or 3): sets the protocol version of replies that scripts get, and of returned
/// booleans.
fn setresp(run: &mut Run, frame: &mut Frame) -> Outcome {
    if frame.len() != 1 {
        return raise(frame, run.server.config.text(texts::SETRESP_ARGUMENTS));
    }
    match frame.number(1) as i64 {
        2 => run.client.reply.resp3 = false,
        3 => run.client.reply.resp3 = true,
        _ => return raise(frame, "RESP version must be 2 or 3."),
    }
    Outcome::Return(0)
}

/// redis.set_repl(flags): whether later commands are propagated to the AOF, the replicas, both or
/// neither.
fn set_repl(run: &mut Run, frame: &mut Frame) -> Outcome {
    if frame.len() != 1 {
        return raise(frame, run.server.config.text(texts::SET_REPL_ARGUMENTS));
    }
    let sinks = cast(frame.number(1));
    if !(0..=i64::from(repl::ALL)).contains(&sinks) {
        return raise(
            frame,
            "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        );
    }
    run.server.propagation.withheld = repl::ALL & !(sinks as u8);
    Outcome::Return(0)
}

/// redis.acl_check_cmd(command, ...): whether the user may run a command.
fn acl_check_cmd(run: &mut Run, frame: &mut Frame) -> Outcome {
    let count = match prepare_arguments(frame) {
        Ok(count) => count,
        Err(unfit) => return raise(frame, run.server.config.text(unfit.text())),
    };
    let allowed = with_arguments(frame, count, |argv| {
        let id = lookup(run, argv)?;
        let (user, db) = (run.client.user, run.client.db);
        Some(acl::check_without_log(run.server, user, db, argv, id).is_ok())
    });
    match allowed {
        Some(allowed) => frame.push_boolean(allowed),
        None => return raise(frame, run.server.config.text(texts::ACL_CHECK_CMD_COMMAND)),
    }
    RETURN
}
