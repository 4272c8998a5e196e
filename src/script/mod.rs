//! Scripts and functions: Lua inside the server.
//!
//! ```text
//!   EVAL ──> cache: source -> compiled script ─┐
//!   FCALL ─> functions: name -> function ──────┴─> run ──> sys::lua ──> Lua
//!                                                   ^                    |
//!                        convert: reply <-> values  └── redis.call ──────┘──> server::call
//! ```
//!
//! Scripts run on LuaJIT's interpreter. LuaJIT's compiler stays off, because compiled loops do not
//! call hooks, and a hook is needed to stop a busy script. LuaJIT is maintained; the last release
//! of Lua 5.1 is not.
//!
//! There are two interpreters, created when they are first needed: one for EVAL, which SCRIPT FLUSH
//! drops, and one for functions. In each interpreter all scripts share one sealed set of globals
//! (`sandbox.lua`), so that a script can't leave variables for the next script.
//!
//! A script acts through a client without a socket, so its commands go through `call()` like those
//! of other clients. The commands of a script are propagated as one transaction; the script itself
//! is not propagated.
//!
//! **Invariants**
//! - The interpreter of a running script is moved out of [`Scripting`]: the script's commands can't
//!   reach the interpreter, and scripts do not nest.
//! - `Scripting::running` is set exactly while a script runs, also when it fails.

pub mod bit;
pub mod cache;
pub mod cjson;
pub mod cmsgpack;
pub mod convert;
pub mod debug;
pub mod engine;
pub mod flags;
pub mod functions;
pub mod native;
pub mod redis;
pub mod run;
pub mod structs;
pub mod syntax;

use crate::armed;
use crate::client::{Client, OwnedArgv};
use crate::command;
use crate::command::Command;
use crate::config::Config;
use crate::error::Error;
use crate::observe::monitor;
use crate::state::Server;
use crate::texts::{self, Words};
use engine::Engine;

/// The state of scripts and functions.
#[derive(Default)]
pub struct Scripting {
    pub scripts: cache::Cache,
    /// EVAL's interpreter; `None` while a script runs.
    pub eval: Option<Box<Engine>>,
    /// The client that runs the commands of scripts; it has no socket, and is kept between scripts.
    pub client: Option<Box<Client>>,
    pub running: Option<Running>,
    /// Whether the last script may use keys of several slots of the cluster.
    pub crosses_slots: bool,
    /// The debugger session for the script that is about to run.
    pub debugger: Option<Box<debug::Debugger>>,
    /// The pids of children that run debugger sessions.
    pub debugging: Vec<i32>,
}

/// Whether a Lua interpreter runs scripts of EVAL or functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScriptKind {
    Eval,
    Function,
}

/// The script that runs now.
pub struct Running {
    pub kind: ScriptKind,
    /// When the script began, in ticks of the processor's counter.
    pub started: u64,
    /// Whether the command that began the script came from the primary or from the AOF.
    pub obeyed: bool,
    /// Whether the script has called a command that writes; such a script can't be killed.
    pub wrote: bool,
    /// The time that TIME returns in a script that runs for very long: the moment when other
    /// clients were last served. For all other commands of a script the clock stands still.
    pub time_us: Option<i64>,
    /// Whether SCRIPT KILL or FUNCTION KILL was called.
    pub killed: bool,
    /// Set when the script has run for longer than `busy-reply-threshold`; other clients are then
    /// served while it runs.
    pub busy: Option<Busy>,
}

impl Running {
    /// The error for other clients while this script is busy.
    pub fn busy_error(&self, config: &Config) -> Error {
        self.kind.busy_error(config)
    }
}

impl ScriptKind {
    /// The error for other clients while a script of EVAL, or a function, is busy.
    pub fn busy_error(self, config: &Config) -> Error {
        Error::of(config.text(match self {
            ScriptKind::Eval => texts::BUSY_SCRIPT,
            ScriptKind::Function => texts::BUSY_FUNCTION,
        }))
    }
}

/// What FUNCTION STATS shows of a busy script.
pub struct Busy {
    /// The SHA-1 of a script, or the name of a function.
    pub name: Box<str>,
    pub command: OwnedArgv,
}

impl Scripting {
    /// Takes EVAL's interpreter, which is created if there is none.
    pub fn take_eval(&mut self, insecure: bool) -> Result<Box<Engine>, Error> {
        if self.running.is_some() {
            return Err(Error::of("ERR A script is running already"));
        }
        match self.eval.take() {
            Some(engine) => Ok(engine),
            None => Engine::new(ScriptKind::Eval, insecure),
        }
    }

    /// SCRIPT FLUSH: drops all scripts and the interpreter.
    pub fn flush(&mut self) {
        self.scripts = cache::Cache::default();
        self.eval = None;
    }

    /// SCRIPT KILL and FUNCTION KILL: NOTBUSY if no script runs, UNKILLABLE after a write.
    pub fn kill(&mut self, config: &Config, kind: ScriptKind) -> Result<(), Error> {
        let Some(running) = &mut self.running else {
            return Err(Error::of("NOTBUSY No scripts in execution right now."));
        };
        if running.obeyed {
            return Err(Error::of(
                "UNKILLABLE The busy script was sent by a master instance in the context of replication and cannot be \
                 killed.",
            ));
        }
        if running.wrote {
            return Err(Error::of(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
                 the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
            ));
        }
        if running.kind != kind {
            return Err(running.busy_error(config));
        }
        running.killed = true;
        Ok(())
    }

    /// The command flags of EVAL, FCALL or a variant: those of its row, changed by the flags that
    /// the script declares.
    pub fn command_flags(
        &self,
        functions: &functions::Functions,
        cmd: &Command,
        argv: &[&[u8]],
    ) -> command::Flags {
        if cmd.flags & command::SCRIPT_DECIDES == 0 || argv.len() < 2 {
            return cmd.flags;
        }
        let said = match cmd.name {
            // An error in the script's first line is dropped here, so it does not matter whether
            // its text is Redis's or Valkey's.
            "eval" | "eval_ro" => flags::of_script(argv[1], Words::Redis)
                .ok()
                .map(|(flags, _)| flags),
            "evalsha" | "evalsha_ro" => {
                let place = self.scripts.by_sha(argv[1]);
                place
                    .and_then(|place| self.scripts.get(place))
                    .map(|script| script.flags)
            }
            _ => functions.all.find(argv[1]).map(|function| function.flags),
        };
        match said {
            Some(said) if said & flags::COMPATIBILITY == 0 => flags::of_command(cmd.flags, said),
            _ => cmd.flags,
        }
    }

    /// The memory of the script cache in bytes: the sources and the tables by which scripts are
    /// found.
    pub fn cache_memory(&self) -> usize {
        self.scripts.memory()
    }

    /// The memory of EVAL's interpreter in bytes.
    pub fn eval_memory(&self) -> usize {
        self.eval.as_ref().map_or(0, |engine| engine.vm.memory())
    }
}

/// Called when EVAL, FCALL or a variant begins: feeds the command to monitors, before the commands
/// that the script runs.
pub fn begin(server: &mut Server, c: &Client, argv: &[&[u8]]) -> Result<(), Error> {
    check_enabled(server)?;
    if server.armed & armed::MONITOR != 0 {
        // Whether the script will change data is not known yet, so the line for monitors waits for
        // the AOF as if it did.
        monitor::feed(server, c, argv, true);
    }
    Ok(())
}

/// Returns an error if the setting `lua-enabled` is `no`.
pub fn check_enabled(server: &Server) -> Result<(), Error> {
    if server.config.lua_enabled {
        return Ok(());
    }
    Err(Error::of(
        "ERR Scripting is disabled by the setting lua-enabled",
    ))
}

#[cfg(test)]
mod tests;
