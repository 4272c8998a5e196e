//! The debugger of scripts: SCRIPT DEBUG, then EVAL, then commands for the debugger on the same
//! connection.
//!
//! ```text
//!   client            server
//!   SCRIPT DEBUG YES   +OK
//!   EVAL ...           fork: the child goes on with the script and the connection, the parent forgets the client
//!                      *2 +* Stopped at 1, stop reason = step over +-> 1   local a = 5
//!   s                  *2 +* Stopped at 2, ...
//!   p a                *1 +<value> 5
//!   c                  *1 +<endsession>, the script's reply, the end of the connection
//! ```
//!
//! Each reply of the debugger is an array of lines. The script's changes to the data set are lost
//! when the child ends. After SCRIPT DEBUG SYNC there is no child: all other clients wait, and the
//! changes stay.
//!
//! Lua calls [`Debugger::line`] before each line of the script. If the script must stop there,
//! commands are read from the socket until one of them continues the script.
//!
//! LuaJIT calls its line hook for a line again after each function call in the line. The depth of
//! the call stack distinguishes a return into a line from the beginning of the line. Functions that
//! `script::syntax` has inserted into a line are recognised by the line's source, which has no word
//! `function`.
//!
//! **Invariants**
//! - A child never returns to the event loop: it ends by `exit_now`, and nothing that it holds is
//!   dropped.
//! - A child writes no file: it has no threads that would write the AOF, and its settings have no
//!   save points.
//!
//! Limits: functions of FUNCTION LOAD are not debugged (nor are they in Redis), and an expression
//! that the debugger evaluates can't be interrupted. The command `trace` shows a function that was
//! called by `return f()` under the name of its caller, whose frame it has taken; LuaJIT does not
//! record tail calls. At a loop of a single line that calls functions, the debugger may stop less
//! often than Redis's.

mod commands;
mod show;

use ae::Io;
use std::io::ErrorKind;

use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::command::ctx::{CmdResult, Ctx};
use crate::connection::{Connection, Transfer};
use crate::error::Error;
use crate::script::engine::USER_SCRIPT;
use crate::script::redis::push_error;
use crate::script::run::Run;
use crate::state::Server;
use crate::sys::fork::{self, Forked};
use crate::sys::lua::{Frame, Place};
use crate::sys::signals::shutdown_asked;
use crate::sys::tape;
use crate::sys::{self, ticks};
use crate::texts::{self, Words};
use crate::util::number::parse_i64;

/// The maximum number of bytes of a shown value, by default, and the smallest number that the
/// client may set.
const SHOWN_MAX: usize = 256;
const SHOWN_LEAST: usize = 60;
/// The maximum number of breakpoints of a session.
const BREAKPOINTS_MAX: usize = 64;
/// The maximum size of a command in bytes, and the maximum number of its arguments.
const COMMAND_MAX: usize = 1 << 20;
const ARGUMENTS_MAX: i64 = 1024;
/// The time in milliseconds after which the debugger stops a script that may be in an infinite
/// loop, if `busy-reply-threshold` is 0.
const LOOP_MS: u64 = 5000;

/// One session of the debugger.
pub struct Debugger {
    /// The lines of the script.
    source: Vec<Vec<u8>>,
    /// The lines of the debugger's next reply.
    lines: Vec<Vec<u8>>,
    /// Bytes read from the socket that are not parsed yet.
    input: Vec<u8>,
    breakpoints: Vec<usize>,
    /// The source line that runs, or runs next, counted from 1.
    current: usize,
    /// For each depth of the call stack, the line for which LuaJIT called its line hook last; 0 for
    /// code that is not in the script's source.
    announced: Vec<usize>,
    /// Whether to stop the script at its next line.
    step: bool,
    /// Whether `redis.breakpoint()` was called.
    called: bool,
    /// The maximum number of bytes of a shown value; 0 for no limit.
    shown_max: usize,
    /// Whether the hint that a value was cut off, which is given once, was sent.
    hinted: bool,
    /// Whether the client has aborted the script, or broken the protocol.
    aborted: bool,
    /// Whether the client has disconnected; the script then runs to its end without stops.
    alone: bool,
    /// The time at which the script last continued, in ticks of the processor's counter.
    resumed: u64,
}

/// What the script does after a stop of the debugger.
pub enum Next {
    GoOn,
    /// The script fails with the error whose text is given.
    Raise(&'static str),
}

impl Debugger {
    fn new(source: &[u8]) -> Debugger {
        let end = source.iter().rposition(|b| !b" \r\n".contains(b));
        let source = &source[..end.map_or(0, |last| last + 1)];
        Debugger {
            source: source.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect(),
            lines: Vec::new(),
            input: Vec::new(),
            breakpoints: Vec::new(),
            current: 0,
            announced: Vec::new(),
            step: true,
            called: false,
            shown_max: SHOWN_MAX,
            hinted: false,
            aborted: false,
            alone: false,
            resumed: ticks::now(),
        }
    }

    /// Appends a line to the debugger's next reply. A line end within the text becomes a space.
    fn append_line(&mut self, line: impl AsRef<[u8]>) {
        let clean = |&b: &u8| if b == b'\r' || b == b'\n' { b' ' } else { b };
        self.lines.push(line.as_ref().iter().map(clean).collect());
    }

    /// Appends a value to the debugger's next reply; a long value is cut off.
    fn append_value(&mut self, mut line: Vec<u8>) {
        if self.shown_max == 0 || line.len() <= self.shown_max {
            return self.append_line(line);
        }
        line.truncate(self.shown_max);
        line.extend_from_slice(b" ...");
        self.append_line(line);
        if !std::mem::replace(&mut self.hinted, true) {
            self.append_line(
                "<hint> The above reply was trimmed. Use 'maxlen 0' to disable trimming.",
            );
        }
    }

    /// Sends the collected lines to the client as one reply of the debugger.
    fn send(&mut self, c: &mut Client) {
        let mut out = format!("*{}\r\n", self.lines.len()).into_bytes();
        for line in self.lines.drain(..) {
            out.push(b'+');
            out.extend_from_slice(&line);
            out.extend_from_slice(b"\r\n");
        }
        self.alone |= !write_all(c, &out);
    }

    /// `redis.debug(...)`: appends the arguments to the debugger's next reply.
    pub fn note(&mut self, frame: &mut Frame) {
        let mut line = format!("<debug> line {}:", self.current).into_bytes();
        for at in 1..=frame.len() as i32 {
            line.extend_from_slice(if at > 1 { b", " } else { b" " });
            show::value(frame, at, &mut line);
        }
        self.append_line(line);
    }

    /// `redis.breakpoint()`: stops the script at its next line.
    pub fn stop_soon(&mut self) {
        self.called = true;
    }

    /// In step mode, adds to the debugger's next reply a command that the script calls.
    pub fn note_command(&mut self, argv: &[&[u8]]) {
        if self.step {
            self.append_line([b"<redis> ", argv.join(&b' ').as_slice()].concat());
        }
    }

    /// In step mode, adds to the debugger's next reply what a command of the script has replied.
    pub fn note_reply(&mut self, reply: &[u8]) {
        if self.step {
            let mut line = b"<reply> ".to_vec();
            show::reply(reply, &mut line);
            self.append_value(line);
        }
    }

    /// In step mode, adds to the debugger's next reply the error of a script's command that was
    /// refused.
    pub fn note_refusal(&mut self, error: &Error) {
        if self.step {
            let text = error.text();
            let text = text.strip_prefix("ERR ").unwrap_or(text);
            self.append_line(format!("<error> {text}"));
        }
    }

    /// The reason to stop the script before its present line, if there is one.
    fn reason(&self, looping: bool, words: Words) -> Option<&'static str> {
        match () {
            () if self.alone => None,
            () if self.called => Some(texts::BREAKPOINT_CALLED.of(words)),
            () if self.breakpoints.contains(&self.current) => Some("break point"),
            () if looping => Some("timeout reached, infinite loop?"),
            () if self.step => Some("step over"),
            () => None,
        }
    }
}

/// Lua's hook: called when the script is about to run a line; or, with `count`, when it has run
/// many instructions. Returns whether Lua must raise the value on top of its stack as an error.
pub fn line(run: &mut Run, frame: &mut Frame, count: bool) -> bool {
    let Some(mut debugger) = run.debugger.take() else {
        return false;
    };
    let next = debugger.line(run, frame, count);
    run.debugger = Some(debugger);
    match next {
        Next::GoOn => false,
        Next::Raise(text) => {
            push_error(frame, text);
            true
        }
    }
}

impl Debugger {
    fn line(&mut self, run: &mut Run, frame: &mut Frame, count: bool) -> Next {
        if self.aborted {
            // The script has caught the error that aborts it (by pcall), so the error is raised
            // again.
            return Next::Raise(ABORTED);
        }
        let Some(place) = frame.place(0) else {
            return Next::GoOn;
        };
        let looping = count && self.is_looping(run.server);
        let begins = if count {
            looping && place.source == USER_SCRIPT
        } else {
            self.begins_line(frame.depth(), &place)
        };
        if !begins {
            return Next::GoOn;
        }
        self.current = place.line as usize;
        let Some(reason) = self.reason(looping, run.server.config.words()) else {
            return Next::GoOn;
        };
        self.step = false;
        self.called = false;
        let current = self.current;
        self.append_line(format!("* Stopped at {current}, stop reason = {reason}"));
        self.append_source(current);
        self.send(run.caller);
        let next = self.converse(run, frame);
        self.resumed = ticks::now();
        next
    }

    /// Whether the script begins the line of `place`, rather than returns to it after a call.
    fn begins_line(&mut self, depth: usize, place: &Place) -> bool {
        let line = match place.line as usize {
            line if place.source == USER_SCRIPT && !self.is_inserted(line, place) => line,
            _ => 0,
        };
        let called = self.announced.len() > depth;
        let before = self.announced.get(depth.wrapping_sub(1)).copied();
        self.announced.resize(depth.max(1), 0);
        let last = self.announced.len() - 1;
        self.announced[last] = line;
        line > 0 && !(called && before == Some(line))
    }

    /// Whether the code at `place` is a function that `script::syntax` has inserted into this line.
    fn is_inserted(&self, line: usize, place: &Place) -> bool {
        let text = line.checked_sub(1).and_then(|at| self.source.get(at));
        let word = b"function";
        place.one_line
            && !text.is_some_and(|text| text.windows(word.len()).any(|part| part == word))
    }

    fn is_looping(&self, server: &Server) -> bool {
        let limit_ms = match server.config.busy_reply_threshold {
            0 => LOOP_MS,
            ms => ms,
        };
        !self.step && server.clock.us(ticks::now().wrapping_sub(self.resumed)) / 1000 >= limit_ms
    }

    /// Runs the client's debugger commands until one of them continues or ends the script.
    fn converse(&mut self, run: &mut Run, frame: &mut Frame) -> Next {
        loop {
            let argv = match self.read_command(run.caller) {
                Ok(Some(argv)) => argv,
                Ok(None) => {
                    self.alone = true;
                    self.breakpoints.clear();
                    return Next::GoOn;
                }
                Err(text) => {
                    self.aborted = true;
                    return Next::Raise(text);
                }
            };
            if let Some(next) = commands::run(self, run, frame, &argv) {
                return next;
            }
            self.send(run.caller);
            if self.alone {
                return Next::GoOn;
            }
        }
    }

    /// Waits for a debugger command from the client. Returns `None` if the client has disconnected.
    fn read_command(&mut self, c: &mut Client) -> Result<Option<Vec<Vec<u8>>>, &'static str> {
        loop {
            if let Some((argv, used)) = parse(&self.input)? {
                self.input.drain(..used);
                return Ok(Some(argv));
            }
            if self.input.len() > COMMAND_MAX {
                return Err("max client query buffer reached");
            }
            let Some(conn) = &mut c.conn else {
                return Ok(None);
            };
            match conn.read_into(&mut self.input, COMMAND_MAX) {
                Ok(Transfer { bytes: 0, io }) if io == Io::Drained && !wait_for(conn, false) => {
                    return Ok(None);
                }
                Ok(_) => {}
                Err(_) => return Ok(None),
            }
        }
    }
}

/// Waits until the socket can be read or, with `to_write`, written. Returns false if the connection
/// failed or the server must stop.
fn wait_for(conn: &Connection, to_write: bool) -> bool {
    loop {
        match sys::wait_for(conn.raw_fd(), to_write) {
            Ok(()) => return true,
            Err(e) if e.kind() == ErrorKind::Interrupted && shutdown_asked().is_none() => {}
            Err(_) => return false,
        }
    }
}

/// The error in a script that the client aborts.
const ABORTED: &str = "script aborted for user request";
const PROTOCOL_ERROR: &str = "protocol error";

/// The arguments of a debugger command, and the number of input bytes that the command takes.
type Parsed = (Vec<Vec<u8>>, usize);

/// Parses one debugger command. Returns the command's arguments and its length in bytes; `None` if
/// the command is incomplete.
fn parse(input: &[u8]) -> Result<Option<Parsed>, &'static str> {
    let mut at = 0;
    let number = |kind: u8, at: &mut usize| {
        let rest = &input[*at..];
        if rest.first().is_some_and(|&first| first != kind) {
            return Err(PROTOCOL_ERROR);
        }
        let Some(end) = memchr::memchr(b'\r', rest) else {
            return Ok(None);
        };
        let n = parse_i64(&rest[1..end]).filter(|n| (0..COMMAND_MAX as i64).contains(n));
        *at += end + 2;
        n.map(Some).ok_or(PROTOCOL_ERROR)
    };
    let Some(count) = number(b'*', &mut at)? else {
        return Ok(None);
    };
    if !(1..=ARGUMENTS_MAX).contains(&count) {
        return Err(PROTOCOL_ERROR);
    }
    let mut argv = Vec::new();
    for _ in 0..count {
        if at > input.len() {
            return Ok(None);
        }
        let Some(len) = number(b'$', &mut at)? else {
            return Ok(None);
        };
        let Some(argument) = input.get(at..at + len as usize) else {
            return Ok(None);
        };
        argv.push(argument.to_vec());
        at += len as usize + 2;
    }
    Ok((at <= input.len()).then_some((argv, at)))
}

/// Sends all bytes to the client, and waits while its socket is full. Returns false if the client
/// has disconnected.
fn write_all(c: &mut Client, mut bytes: &[u8]) -> bool {
    let Some(conn) = &mut c.conn else {
        return false;
    };
    while !bytes.is_empty() {
        match conn.write(bytes) {
            Ok(Transfer { io, .. }) if io == Io::Drained && !wait_for(conn, true) => return false,
            Ok(sent) => bytes = &bytes[sent.bytes..],
            Err(_) => return false,
        }
    }
    true
}

fn send_replies(c: &mut Client) {
    let bytes = c.reply.take_bytes();
    write_all(c, &bytes);
}

/// The flags of a client that SCRIPT DEBUG sets.
const MODES: u64 = flag::SCRIPT_DEBUG | flag::SCRIPT_DEBUG_SYNC;

/// SCRIPT DEBUG: sets the mode of the client's next EVAL.
pub fn set_mode(c: &mut Client, mode: u64) -> Result<(), Error> {
    if !c.reply.is_empty() {
        return Err(Error::of(
            "ERR SCRIPT DEBUG must be called outside a pipeline",
        ));
    }
    c.clear(MODES);
    c.set(mode);
    Ok(())
}

/// Runs an EVAL as a debugger session.
pub fn session(ctx: &mut Ctx, eval: impl FnOnce(&mut Ctx) -> CmdResult) -> CmdResult {
    tape::not_recorded("the debugger of scripts");
    let forked = !ctx.client.has(flag::SCRIPT_DEBUG_SYNC);
    ctx.client.clear(MODES);
    send_replies(ctx.client);
    if forked {
        match fork::fork() {
            Ok(Forked::Parent(pid)) => {
                log::info!("Lua debugging session child {pid} started");
                ctx.server.scripting.debugging.push(pid);
                Net::close_asap(&mut ctx.server.net.close_asap, ctx.client);
                return Ok(());
            }
            Ok(Forked::Child) => enter_child(ctx.server, ctx.client),
            Err(e) => {
                let reason = sys::error_text(&e);
                return Err(Error::new(format!(
                    "ERR Can't fork() in order to run the debugging session: {reason}."
                )));
            }
        }
    }
    ctx.server.scripting.debugger = Some(Box::new(Debugger::new(ctx.argv[1])));
    let result = eval(ctx);
    if let Some(mut debugger) = ctx.server.scripting.debugger.take() {
        debugger.append_line("<endsession>");
        debugger.send(ctx.client);
    }
    if !forked {
        ctx.client.set(flag::CLOSE_AFTER_REPLY);
        return result;
    }
    if let Err(error) = result {
        ctx.client.reply.error(&error);
    }
    send_replies(ctx.client);
    fork::exit_now(0)
}

fn enter_child(server: &mut Server, c: &Client) {
    fork::set_up_child_signals();
    let own = c.conn.as_ref().map(|conn| conn.raw_fd());
    fork::close_sockets(own.as_slice());
    // Without save points FLUSHALL does not write an RDB file.
    server.config.save.clear();
}

/// A step of the cron: waits for the child processes of debugger sessions that have ended.
pub fn reap(server: &mut Server) {
    server
        .scripting
        .debugging
        .retain(|&pid| fork::try_wait(pid).is_none());
}

/// Ends the child processes of all debugger sessions when the server stops.
pub fn end_sessions(server: &mut Server) {
    for pid in server.scripting.debugging.drain(..) {
        fork::end(pid);
        fork::wait(pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_understood_when_it_is_complete() {
        let whole = b"*2\r\n$1\r\np\r\n$3\r\nabc\r\n*1";
        for end in 0..whole.len() - 2 {
            assert_eq!(parse(&whole[..end]), Ok(None), "{end}");
        }
        let argv = vec![b"p".to_vec(), b"abc".to_vec()];
        assert_eq!(parse(whole), Ok(Some((argv, whole.len() - 2))));
        for wrong in [
            "foo\r\n",
            "*0\r\n",
            "*1\r\n$-1\r\n",
            "*1\r\n:1\r\n",
            "*2000\r\n",
        ] {
            assert_eq!(parse(wrong.as_bytes()), Err(PROTOCOL_ERROR), "{wrong}");
        }
    }

    #[test]
    fn long_values_are_cut_and_the_hint_comes_once() {
        let mut debugger = Debugger::new(b"return 1\n\n");
        assert_eq!(debugger.source.len(), 1);
        debugger.append_value(vec![b'a'; SHOWN_MAX]);
        debugger.append_value(vec![b'a'; SHOWN_MAX + 1]);
        debugger.append_value(vec![b'a'; SHOWN_MAX + 1]);
        let lens: Vec<usize> = debugger.lines.iter().map(Vec::len).collect();
        assert_eq!(lens, [SHOWN_MAX, SHOWN_MAX + 4, 71, SHOWN_MAX + 4]);
    }
}
