//! Runs a script or a function, from the checks before it to its reply.
//!
//! ```text
//!   may it run? ─> lend the script's client ─> Lua ─> result, or error, to the caller's reply
//!                                               └─ tick: too long? answer others; killed? stop
//! ```
//!
//! **Invariant:** the script's client is put back in every case, whether the script succeeds or
//! fails.

use crate::client::{Client, OwnedArgv, flag};
use crate::clock;
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::{Error, said};
use crate::execute::busy;
use crate::execute::dispatch;
use crate::keyspace::evict;
use crate::script::convert::{self, Writer};
use crate::script::debug;
use crate::script::debug::Debugger;
use crate::script::engine::Engine;
use crate::script::flags::{self, Flags};
use crate::script::redis;
use crate::script::{Busy, Running, ScriptKind};
use crate::state::Server;
use crate::sys::lua::{Arguments, Frame, FunctionRef, Host, LuaType, Outcome};
use crate::sys::ticks;
use crate::texts;

/// The script, or the function, that is to be run.
pub struct Job<'a> {
    pub kind: ScriptKind,
    pub function: FunctionRef,
    /// The SHA-1 of a script, or the name of a function.
    pub name: &'a str,
    pub flags: Flags,
    /// Whether the command is EVAL_RO, EVALSHA_RO or FCALL_RO.
    pub read_only: bool,
    pub keys: &'a [&'a [u8]],
    pub argv: &'a [&'a [u8]],
}

/// A running script, and the server that executes its calls.
pub struct Run<'a> {
    pub server: &'a mut Server,
    pub caller: &'a mut Client,
    /// The client of the script, which has no socket.
    pub client: Box<Client>,
    /// Whether the script's commands that write are refused.
    pub read_only: bool,
    pub flags: Flags,
    /// Whether memory was above `maxmemory` when the script began.
    pub out_of_memory: bool,
    /// The debugger session; `None` while the session talks to the client.
    pub debugger: Option<Box<Debugger>>,
    job: &'a Job<'a>,
    command: &'a [&'a [u8]],
}

/// Runs a script with an interpreter and replies to the client.
pub fn run(ctx: &mut Ctx, engine: &mut Engine, job: &Job) -> CmdResult {
    let out_of_memory = out_of_memory(ctx.server);
    check(ctx.server, ctx.client, job, out_of_memory)?;
    ctx.prevent_propagation();
    let client = borrow_client(ctx.server, ctx.client);
    ctx.server.scripting.running = Some(Running {
        kind: job.kind,
        started: ticks::now(),
        obeyed: ctx.client.must_obey(),
        wrote: false,
        time_us: None,
        killed: false,
        busy: None,
    });
    ctx.server.scripting.crosses_slots =
        job.flags & (flags::COMPATIBILITY | flags::ALLOW_CROSS_SLOT) != 0;
    ctx.server.nesting += 1;
    let debugger = ctx.server.scripting.debugger.take();
    if debugger.is_some() {
        engine.vm.debug();
    }
    let mut run = Run {
        debugger,
        read_only: job.read_only || job.flags & flags::NO_WRITES != 0,
        flags: job.flags,
        out_of_memory,
        server: ctx.server,
        caller: ctx.client,
        client,
        job,
        command: ctx.argv,
    };
    let arguments = match job.kind {
        ScriptKind::Eval => Arguments::Globals(job.keys, job.argv),
        ScriptKind::Function => Arguments::Tables(job.keys, job.argv),
    };
    let mut finished = engine.vm.call(job.function, &mut run, arguments);
    let ok = finished.ok;
    let result = run.reply(&mut finished.frame, ok);
    drop(finished);
    let Run {
        client, debugger, ..
    } = run;
    ctx.server.scripting.client = Some(client);
    ctx.server.nesting -= 1;
    ctx.server.propagation.withheld = 0;
    if ctx
        .server
        .scripting
        .running
        .take()
        .is_some_and(|running| running.killed)
    {
        engine.vm.watch();
    }
    if debugger.is_some() {
        engine.vm.watch();
        ctx.server.scripting.debugger = debugger;
    }
    engine.tidy_up();
    result
}

/// Whether commands with the flag `denyoom` would be refused now.
fn out_of_memory(server: &mut Server) -> bool {
    server.config.maxmemory != 0 && !evict::perform_evictions(server)
}

/// Refuses a script whose declared flags don't allow it to run now.
fn check(server: &Server, caller: &Client, job: &Job, out_of_memory: bool) -> Result<(), Error> {
    let stale = dispatch::is_stale(server);
    if job.flags & flags::COMPATIBILITY != 0 {
        return match stale {
            true => Err(Error::MASTERDOWN),
            false => Ok(()),
        };
    }
    if job.flags & flags::NO_CLUSTER != 0 && server.config.cluster_enabled {
        return Err(Error::of(
            "ERR Can not run script on cluster, 'no-cluster' flag is set.",
        ));
    }
    if stale && job.flags & flags::ALLOW_STALE == 0 {
        return Err(Error::of(
            "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and 'allow-stale' flag is \
             not set on the script.",
        ));
    }
    if job.flags & flags::NO_WRITES == 0 {
        check_writes(server, caller, job)?;
    }
    if out_of_memory && job.flags & (flags::NO_WRITES | flags::ALLOW_OOM) == 0 {
        return Err(Error::of(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        ));
    }
    Ok(())
}

/// Refuses a script that may write if this server refuses writes now.
fn check_writes(server: &Server, caller: &Client, job: &Job) -> Result<(), Error> {
    let obeyed = caller.must_obey();
    if dispatch::is_read_only(server) && !obeyed {
        return Err(Error::of(
            "READONLY Can not run script with write flag on readonly replica.",
        ));
    }
    if let Some(error) = dispatch::write_refusal(server)
        && !obeyed
    {
        return Err(error);
    }
    if job.read_only {
        return Err(Error::of(
            "ERR Can not execute a script with write flag using *_ro command.",
        ));
    }
    match dispatch::too_few_replicas(server) {
        true => Err(Error::NOREPLICAS),
        false => Ok(()),
    }
}

/// The script's client, reset to the caller's user and database, and to RESP2.
fn borrow_client(server: &mut Server, caller: &Client) -> Box<Client> {
    let mut client = server.scripting.client.take().unwrap_or_else(|| {
        let id = server.net.clients.next_id();
        Box::new(Client::detached(id, server.clock.now_ms))
    });
    let inherited = flag::PRIMARY
        | flag::AOF_LOADER
        | flag::SLOT_IMPORT
        | flag::NO_TOUCH
        | flag::READONLY
        | flag::ASKING;
    client.flags = flag::SCRIPT | flag::DENY_BLOCKING | caller.flags & inherited;
    client.db = caller.db;
    // The slow log shows the caller's address and name for the script's commands.
    client.peer.clone_from(&caller.peer);
    client.name.clone_from(&caller.name);
    client.user = caller.user;
    // WAIT and WAITAOF in a script wait for the caller's writes.
    client.repl_offset = caller.repl_offset;
    client.aof_offset = caller.aof_offset;
    client.reply.resp3 = false;
    client
}

impl Run<'_> {
    /// Writes the value that the script returned, or its error, as the reply.
    fn reply(&mut self, frame: &mut Frame, ok: bool) -> CmdResult {
        if !ok {
            let error = self.failure(frame);
            return Err(self.count(error));
        }
        if frame.kind(-1) == LuaType::Table
            && let Some(error) = convert::error_of(frame)
        {
            return Err(self.count(error));
        }
        let mut writer = Writer {
            resp3: self.client.reply.resp3,
            reply: &mut self.caller.reply,
            stats: &mut self.server.stats,
            overflows: 0,
        };
        writer.write(frame);
        Ok(())
    }

    /// Counts an error of a script in INFO errorstats by its code, which the script may have
    /// chosen.
    fn count(&mut self, error: Error) -> Error {
        if !error.is_counted() {
            self.server.stats.count_script_error(counted_code(&error));
        }
        error.counted()
    }

    /// The error of a script that failed, which is on top of Lua's stack, with the line that raised
    /// it.
    fn failure(&self, frame: &mut Frame) -> Error {
        if frame.kind(-1) != LuaType::Table {
            let text = said(frame.bytes(-1).unwrap_or(b"execution failure"));
            let name = self.job.name;
            // After a stack overflow Lua may have no room to call the error handler: then the line
            // of the error is not known.
            return Error::new(match &*text {
                "stack overflow" => format!("ERR {text} script: {name}."),
                _ => format!("ERR Error running script {name}, {text}"),
            });
        }
        let error = convert::error_of(frame).unwrap_or(Error::of("ERR unknown error"));
        let mut text = error.text().to_string();
        let found = frame.get_field(-1, "source") == LuaType::String;
        if found && frame.get_field(-2, "line") == LuaType::Number {
            let source = said(frame.bytes(-2).unwrap_or_default());
            let line = frame.number(-1);
            text += &format!(" script: {}, on {source}:{line}.", self.job.name);
            frame.pop(1);
        } else if found {
            frame.pop(1);
        }
        frame.pop(1);
        let counted = error.is_counted();
        let error = Error::new(text);
        if counted { error.counted() } else { error }
    }

    /// Marks the script as busy: other clients are served from now on while it runs.
    fn become_busy(&mut self, ms: u64) {
        let (name, kill) = match self.job.kind {
            ScriptKind::Eval => (self.job.name, "SCRIPT KILL"),
            ScriptKind::Function => (self.job.name, "FUNCTION KILL"),
        };
        log::warn!(
            "Slow script detected: still in execution after {ms} milliseconds. You can try killing the script using \
             the {kill} command. Script name is: {name}."
        );
        if let Some(running) = &mut self.server.scripting.running {
            running.busy = Some(Busy {
                name: name.into(),
                command: OwnedArgv::new(self.command),
            });
        }
    }

    /// Moves the time that TIME returns in a long script forwards to the present. Keys don't expire
    /// while a script runs, since the clock of all other commands stands still.
    fn move_time(&mut self) {
        let began = self.server.clock.now_us;
        if let Some(running) = &mut self.server.scripting.running {
            let before = running.time_us.unwrap_or(began);
            running.time_us = Some(before.max(clock::unix_us()));
        }
    }

    fn is_killed(&self) -> bool {
        let running = self.server.scripting.running.as_ref();
        running.is_some_and(|running| running.killed)
    }
}

/// The code under which INFO errorstats counts an error of a script: its first word, or `ERR` if
/// the first word does not end within 31 bytes.
fn counted_code(error: &Error) -> &str {
    let start = &error.text().as_bytes()[..error.text().len().min(31)];
    match start.contains(&b' ') {
        true => error.code(),
        false => "ERR",
    }
}

impl Host for Run<'_> {
    fn call(&mut self, function: u8, frame: &mut Frame) -> Outcome {
        redis::call(self, function, frame)
    }

    fn line(&mut self, frame: &mut Frame, count: bool) -> bool {
        debug::line(self, frame, count)
    }

    fn tick(&mut self, frame: &mut Frame) -> bool {
        let limit_ms = self.server.config.busy_reply_threshold;
        let Some(running) = &self.server.scripting.running else {
            return false;
        };
        let ms = self
            .server
            .clock
            .us(ticks::now().wrapping_sub(running.started))
            / 1000;
        if limit_ms == 0 {
            // With `busy-reply-threshold 0` other clients are not served while a script runs, but a
            // script that calls TIME until a certain time must end.
            self.move_time();
            return false;
        }
        if ms < limit_ms {
            return false;
        }
        if running.busy.is_none() {
            self.become_busy(ms);
        }
        self.move_time();
        busy::process_events_while_blocked(self.server);
        if !self.is_killed() {
            return false;
        }
        let text = self.server.config.text(match self.job.kind {
            ScriptKind::Eval => texts::SCRIPT_KILLED,
            ScriptKind::Function => texts::FUNCTION_KILLED,
        });
        log::info!("{text}");
        redis::push_error(frame, text);
        true
    }
}
