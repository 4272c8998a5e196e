//! Creates Lua interpreters for scripts: libraries, the `redis` table, the sandbox.

use std::cell::Cell;
use std::ffi::CStr;

use mlua::{Function, IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value};
use nix::sys::time::TimeValLike;
use nix::time::ClockId;

use crate::error::Error;
use crate::script::syntax;
use crate::script::{ScriptKind, bit, cjson, cmsgpack, native, structs};
use crate::sys::lua;
use crate::sys::lua::{FunctionRef, SANDBOX, Vm};
use crate::sys::lua::{
    called_as, frame_of_script, is_native, nan_text, script_level, slot_of_frame,
};
use crate::sys::tape::{self, Input};

/// The numbers of the `redis` table's functions, which [`crate::sys::lua::Host::call`] gets.
pub mod api {
    /// The number of the function redis.call.
    pub const CALL: u8 = 0;
    /// The number of the function redis.pcall.
    pub const PCALL: u8 = 1;
    /// The number of the function redis.log.
    pub const LOG: u8 = 2;
    /// The number of the function redis.sha1hex.
    pub const SHA1HEX: u8 = 3;
    /// The number of the function redis.error_reply.
    pub const ERROR_REPLY: u8 = 4;
    /// The number of the function redis.status_reply.
    pub const STATUS_REPLY: u8 = 5;
    /// The number of the function redis.setresp.
    pub const SETRESP: u8 = 6;
    /// The number of the function redis.set_repl.
    pub const SET_REPL: u8 = 7;
    /// The number of the function redis.acl_check_cmd.
    pub const ACL_CHECK_CMD: u8 = 8;
    /// The number of the function redis.replicate_commands.
    pub const REPLICATE_COMMANDS: u8 = 9;
    /// The number of the function redis.breakpoint.
    pub const BREAKPOINT: u8 = 10;
    /// The number of the function redis.debug.
    pub const DEBUG: u8 = 11;
    /// The number of the function redis.register_function.
    pub const REGISTER_FUNCTION: u8 = 12;
}

/// The functions of the `redis` table in all scripts.
const COMMON: &[(&str, u8)] = &[
    ("call", api::CALL),
    ("pcall", api::PCALL),
    ("log", api::LOG),
    ("sha1hex", api::SHA1HEX),
    ("error_reply", api::ERROR_REPLY),
    ("status_reply", api::STATUS_REPLY),
    ("setresp", api::SETRESP),
    ("set_repl", api::SET_REPL),
    ("acl_check_cmd", api::ACL_CHECK_CMD),
];
/// The functions of the `redis` table in scripts of EVAL only.
const EVAL_ONLY: &[(&str, u8)] = &[
    ("replicate_commands", api::REPLICATE_COMMANDS),
    ("breakpoint", api::BREAKPOINT),
    ("debug", api::DEBUG),
];
/// The functions of the `redis` table in a library of functions while its code is loaded.
const LOADING: &[(&str, u8)] = &[
    ("log", api::LOG),
    ("register_function", api::REGISTER_FUNCTION),
];

/// Lua's name for the source of a script of EVAL. The `@` makes this name a file name in error
/// messages.
pub const USER_SCRIPT: &[u8] = b"@user_script";

/// The levels of redis.log.
pub const LOG_LEVELS: [&str; 4] = ["LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING"];

/// The flags of redis.set_repl, which say where later commands are propagated.
pub mod repl {
    use crate::propagate::sink;

    /// The script's later commands are propagated nowhere.
    pub const NONE: u8 = 0;
    /// The script's later commands are propagated to the AOF only.
    pub const AOF: u8 = sink::AOF;
    /// The script's later commands are propagated to the replicas only.
    pub const REPLICA: u8 = sink::REPLICAS;
    /// The script's later commands are propagated to the AOF and the replicas.
    pub const ALL: u8 = sink::AOF | sink::REPLICAS;
}

/// `REDIS_VERSION` as a number with a byte for each part.
const VERSION_NUM: u32 = 0x0007_0204;
/// The kilobytes that one step of Lua's garbage collection should free, and the percentage by which
/// Lua's memory grows before the next collection begins.
const COLLECTION_SIZE: i32 = 50;
const GROWTH_PERCENT: usize = 40;
/// The modulus of the random numbers in `math.random`.
const RANDOM_MAX: u64 = i32::MAX as u64;

/// A Lua interpreter with the sandbox of scripts.
pub struct Engine {
    pub vm: Vm,
    /// The Lua function that sets whether a library is loaded now, which determines the available
    /// globals.
    loading: Function,
    /// The memory in bytes at which [`Engine::tidy_up`] collects garbage.
    collect_at: usize,
}

/// Compiles the Lua code of the sandbox, without the line numbers and the names of variables, which
/// would take a third of an interpreter's memory.
fn sandbox(lua: &Lua, code: &str) -> mlua::Result<Function> {
    let text = lua.load(code).set_name(SANDBOX);
    let stripped = text.into_function()?.dump(true);
    lua.load(stripped).set_name(SANDBOX).into_function()
}

impl Engine {
    /// Creates a Lua interpreter. `insecure` gives it the globals that `lua-enable-insecure-api`
    /// allows.
    pub fn new(kind: ScriptKind, insecure: bool) -> Result<Box<Engine>, Error> {
        Engine::build(kind, insecure)
            .map(Box::new)
            .map_err(|e| Error::new(format!("ERR Can't start the interpreter: {e}")))
    }

    fn build(kind: ScriptKind, insecure: bool) -> mlua::Result<Engine> {
        let vm = Vm::new()?;
        let lua = vm.lua();
        register_libraries(lua)?;
        let redis = functions(&vm, COMMON)?;
        if kind == ScriptKind::Eval {
            add_functions(&vm, &redis, EVAL_ONLY)?;
        }
        constants(&redis)?;
        replication_constants(&redis)?;
        lua.globals().set("redis", redis)?;
        let options = lua.create_table()?;
        if kind == ScriptKind::Function {
            let registration = functions(&vm, LOADING)?;
            constants(&registration)?;
            options.set("registration", registration)?;
        }
        options.set("insecure", insecure)?;
        options.set("translate", lua.create_function(translate)?)?;
        options.set("called_as", called_as(lua)?)?;
        options.set("is_native", is_native(lua)?)?;
        options.set("nan_text", lua.create_function(|_, n| Ok(nan_text(n)))?)?;
        options.set("script_level", script_level(lua)?)?;
        options.set(
            "clock",
            lua.create_function(|_, ()| Ok(processor_seconds()))?,
        )?;
        options.set("unsigned", lua.create_function(native::unsigned)?)?;
        add_names(&vm, &options)?;
        let formats = |lua: &Lua, ()| sandbox(lua, include_str!("formats.lua"));
        options.set("load_formats", lua.create_function(formats)?)?;
        add_random(lua, &options)?;
        let sandbox = sandbox(lua, include_str!("sandbox.lua"))?;
        let (sealed, loading): (Table, Function) = sandbox.call(options)?;
        vm.seal_globals(&sealed)?;
        lua.gc_collect()?; // frees what was needed only to create the interpreter
        Ok(Engine {
            vm,
            loading,
            collect_at: 0,
        })
    }

    /// Collects a part of Lua's garbage after each run of a script. The number of values that
    /// outlive a script hardly grows, so a walk over all values after every few short scripts would
    /// take a tenth of their time.
    #[inline]
    pub fn tidy_up(&mut self) {
        if self.vm.memory() >= self.collect_at {
            self.collect();
        }
    }

    #[cold]
    fn collect(&mut self) {
        if self.vm.collect_step(COLLECTION_SIZE) {
            self.collect_at = self.vm.memory() / 100 * (100 + GROWTH_PERCENT);
        }
    }

    /// Compiles source to a function; `Err` has the compiler's message.
    pub fn compile(&mut self, source: &[u8], name: &CStr) -> Result<FunctionRef, Vec<u8>> {
        let shown = syntax::shown_name(name.to_bytes());
        self.vm.compile(&syntax::translate(source, &shown)?, name)
    }

    /// Sets whether scripts see the `redis` table with `register_function`, as a library's code
    /// does while the library is loaded.
    pub fn set_loading(&mut self, loading: bool) -> Result<(), Error> {
        self.loading
            .call::<()>(loading)
            .map_err(|e| Error::new(format!("ERR {e}")))
    }
}

fn functions(vm: &Vm, list: &[(&str, u8)]) -> mlua::Result<Table> {
    let table = vm.lua().create_table()?;
    add_functions(vm, &table, list)?;
    Ok(table)
}

fn add_functions(vm: &Vm, table: &Table, list: &[(&str, u8)]) -> mlua::Result<()> {
    list.iter()
        .try_for_each(|&(name, number)| table.set(name, vm.function(number)?))
}

fn constants(table: &Table) -> mlua::Result<()> {
    for (level, name) in LOG_LEVELS.iter().enumerate() {
        table.set(*name, level)?;
    }
    table.set("REDIS_VERSION", crate::REDIS_VERSION)?;
    table.set("REDIS_VERSION_NUM", VERSION_NUM)?;
    table.set("SERVER_NAME", "redis")
}

fn replication_constants(table: &Table) -> mlua::Result<()> {
    table.set("REPL_NONE", repl::NONE)?;
    table.set("REPL_AOF", repl::AOF)?;
    table.set("REPL_SLAVE", repl::REPLICA)?;
    table.set("REPL_REPLICA", repl::REPLICA)?;
    table.set("REPL_ALL", repl::ALL)
}

/// Registers the libraries that Lua itself does not have: `bit`, `cjson`, `cmsgpack`, `struct`.
fn register_libraries(lua: &Lua) -> mlua::Result<()> {
    let globals = lua.globals();
    globals.set("bit", bit::register(lua)?)?;
    globals.set("cjson", cjson::register(lua)?)?;
    globals.set("cmsgpack", cmsgpack::register(lua)?)?;
    globals.set("struct", structs::register(lua)?)
}

/// For `load` and `loadstring` of scripts: the source as translated for LuaJIT's compiler, or nil
/// and the error.
fn translate(lua: &Lua, (source, name): (LuaString, LuaString)) -> mlua::Result<MultiValue> {
    let shown = syntax::shown_name(&name.as_bytes());
    match syntax::translate(&source.as_bytes(), &shown) {
        Ok(translated) => lua.create_string(translated)?.into_lua_multi(lua),
        Err(message) => (Value::Nil, lua.create_string(message)?).into_lua_multi(lua),
    }
}

/// Adds the functions that find the names of values for error messages.
fn add_names(vm: &Vm, options: &Table) -> mlua::Result<()> {
    let lua = vm.lua();
    let explain = |lua: &Lua, names: Function| lua::explain(lua, &names);
    options.set("explain", lua.create_function(explain)?)?;
    let names = |lua: &Lua, ()| sandbox(lua, include_str!("names.lua"));
    options.set("load_names", lua.create_function(names)?)?;
    options.set("frame_of_script", frame_of_script(lua)?)?;
    options.set("slot_of_frame", slot_of_frame(lua)?)?;
    let (instruction_at, line_at) = vm.bytecode()?;
    options.set("instruction_at", instruction_at)?;
    options.set("line_at", line_at)
}

/// The CPU time that the process has used, in seconds, for `os.clock`. The CPU time is an input of
/// the event loop, so a replay takes it from its recording.
fn processor_seconds() -> f64 {
    let us = tape::number(Input::Fact, || {
        let used = ClockId::CLOCK_PROCESS_CPUTIME_ID.now();
        used.map_or(0, |used| used.num_microseconds().unsigned_abs())
    });
    us as f64 / 1e6
}

thread_local! {
    /// The state of the random number generator of `math.random`. All Lua interpreters share this
    /// state, as in Redis.
    static RANDOM: Cell<u64> = const { Cell::new(0x1234_abcd_330e) };
}

/// Replaces Lua's random number generator by POSIX's lrand48, so that a seed gives the same numbers
/// as in Redis.
fn add_random(lua: &Lua, options: &Table) -> mlua::Result<()> {
    let random = lua.create_function(|_, ()| {
        let state = RANDOM.get();
        let next = state.wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & ((1 << 48) - 1);
        RANDOM.set(next);
        Ok(((next >> 17) % RANDOM_MAX) as f64 / RANDOM_MAX as f64)
    })?;
    let seed = lua.create_function(|_, seed: f64| {
        RANDOM.set(u64::from(seed as i64 as u32) << 16 | 0x330e);
        Ok(())
    })?;
    options.set("random", random)?;
    options.set("randomseed", seed)
}
