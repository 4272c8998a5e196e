//! Running a script or a function: before, meanwhile, after.
//!
//! ```text
//!   may it run? ─> lend the script's client ─> Lua ─> result, or error, to the caller's reply
//!                                               └─ tick: too long? answer others; killed? stop
//! ```
//!
//! **Invariant:** whatever happens, the interpreter and the client are put back.

use crate::client::{Client, OwnedArgv, flag};
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::{Error, said};
use crate::script::convert::{self, Writer};
use crate::script::debug::Debugger;
use crate::script::engine::Engine;
use crate::script::flags::{self, Flags};
use crate::script::{Busy, Kind, Running};
use crate::state::Server;
use crate::sys::lua::{Arguments, Frame, FunctionRef, Host, Kind as Type, Outcome};
use crate::sys::ticks;

/// What is to be run.
pub struct Job<'a> {
    pub kind: Kind,
    pub function: FunctionRef,
    /// A script's SHA-1, or a function's name.
    pub name: &'a str,
    pub flags: Flags,
    /// EVAL_RO and its kin.
    pub read_only: bool,
    pub keys: &'a [&'a [u8]],
    pub argv: &'a [&'a [u8]],
}

/// A running script, and the server that executes its calls.
pub struct Run<'a> {
    pub server: &'a mut Server,
    pub caller: &'a mut Client,
    /// The client without a socket that the script acts through.
    pub client: Box<Client>,
    /// Commands that write are refused.
    pub read_only: bool,
    pub flags: Flags,
    /// There was too little memory when the script began.
    pub out_of_memory: bool,
    /// The session that this belongs to; out while it converses.
    pub debugger: Option<Box<Debugger>>,
    job: &'a Job<'a>,
    command: &'a [&'a [u8]],
}

/// Run it with an interpreter, and answer the client.
pub fn run(ctx: &mut Ctx, engine: &mut Engine, job: &Job) -> CmdResult {
    let out_of_memory = out_of_memory(ctx.server);
    check(ctx.server, job, out_of_memory)?;
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
        Kind::Eval => Arguments::Globals(job.keys, job.argv),
        Kind::Function => Arguments::Tables(job.keys, job.argv),
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

/// Whether commands that may need memory would be refused.
fn out_of_memory(server: &mut Server) -> bool {
    server.config.maxmemory != 0 && !crate::keyspace::evict::perform_evictions(server)
}

/// A script that says what it does is refused as a whole.
fn check(server: &mut Server, job: &Job, out_of_memory: bool) -> Result<(), Error> {
    if job.flags & flags::COMPATIBILITY != 0 {
        return Ok(());
    }
    if job.flags & flags::NO_CLUSTER != 0 && server.config.cluster_enabled {
        return Err(Error::of(
            "ERR Can not run script on cluster, 'no-cluster' flag is set.",
        ));
    }
    if job.flags & flags::NO_WRITES == 0 && job.read_only {
        return Err(Error::of(
            "ERR Can not execute a script with write flag using *_ro command.",
        ));
    }
    if out_of_memory && job.flags & (flags::NO_WRITES | flags::ALLOW_OOM) == 0 {
        return Err(Error::of(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        ));
    }
    Ok(())
}

/// The script's client, as new: the caller's user and database, RESP2.
fn borrow_client(server: &mut Server, caller: &Client) -> Box<Client> {
    let mut client = server.scripting.client.take().unwrap_or_else(|| {
        let id = server.net.clients.next_id();
        Box::new(Client::detached(id, server.clock.now_ms))
    });
    let inherited = flag::PRIMARY | flag::AOF_LOADER | flag::NO_TOUCH;
    client.flags = flag::SCRIPT | flag::DENY_BLOCKING | caller.flags & inherited;
    client.db = caller.db;
    // For the slow log.
    client.peer.clone_from(&caller.peer);
    client.name.clone_from(&caller.name);
    client.user = caller.user;
    client.reply.resp3 = false;
    client
}

impl Run<'_> {
    /// What the function returned, or the error that it ended with.
    fn reply(&mut self, frame: &mut Frame, ok: bool) -> CmdResult {
        if !ok {
            let error = self.failure(frame);
            return Err(self.count(error));
        }
        if frame.kind(-1) == Type::Table
            && let Some(error) = convert::error_of(frame)
        {
            return Err(self.count(error));
        }
        let mut writer = Writer {
            resp3: self.client.reply.resp3,
            reply: &mut self.caller.reply,
            stats: &mut self.server.stats,
        };
        writer.write(frame);
        Ok(())
    }

    /// An error of a script is counted by its code, whatever the script made up.
    fn count(&mut self, error: Error) -> Error {
        if !error.is_counted() {
            self.server.stats.count_script_error(error.code());
        }
        error.counted()
    }

    /// The error on top, with the place where it was raised.
    fn failure(&self, frame: &mut Frame) -> Error {
        if frame.kind(-1) != Type::Table {
            let text = said(frame.bytes(-1).unwrap_or(b"execution failure"));
            return Error::new(format!(
                "ERR Error running script {}, {text}",
                self.job.name
            ));
        }
        let error = convert::error_of(frame).unwrap_or(Error::of("ERR unknown error"));
        let mut text = error.text().to_string();
        let found = frame.get_field(-1, "source") == Type::String;
        if found && frame.get_field(-2, "line") == Type::Number {
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

    /// It has run for too long: from now on others are answered.
    fn become_busy(&mut self, ms: u64) {
        let (name, kill) = match self.job.kind {
            Kind::Eval => (self.job.name, "SCRIPT KILL"),
            Kind::Function => (self.job.name, "FUNCTION KILL"),
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

    /// TIME goes on, never back. Keys don't expire meanwhile: the clock of commands stands still.
    fn move_time(&mut self) {
        let began = self.server.clock.now_us;
        if let Some(running) = &mut self.server.scripting.running {
            let before = running.time_us.unwrap_or(began);
            running.time_us = Some(before.max(crate::clock::unix_us()));
        }
    }

    fn is_killed(&self) -> bool {
        let running = self.server.scripting.running.as_ref();
        running.is_some_and(|running| running.killed)
    }
}

impl Host for Run<'_> {
    fn call(&mut self, function: u8, frame: &mut Frame) -> Outcome {
        crate::script::redis::call(self, function, frame)
    }

    fn line(&mut self, frame: &mut Frame, count: bool) -> bool {
        crate::script::debug::line(self, frame, count)
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
            // Others are never answered, but a script that waits by TIME must come to its end.
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
        crate::execute::busy::process_events_while_blocked(self.server);
        if !self.is_killed() {
            return false;
        }
        let text = match self.job.kind {
            Kind::Eval => "Script killed by user with SCRIPT KILL.",
            Kind::Function => "Script killed by user with FUNCTION KILL.",
        };
        log::info!("{text}");
        crate::script::redis::push_error(frame, text);
        true
    }
}
