//! Safe functions for the Lua interpreter's stack: the code that runs on every EVAL and every
//! `redis.call`.
//!
//! The mlua crate creates the interpreter and its libraries. mlua's values are handles into a
//! registry, and creating and dropping them would be half the cost of a short script. So the hot
//! path uses Lua's stack directly:
//!
//! ```text
//!   Vm::call(function, host)            lua_pcall ── script ── redis.call ──> Host::call(frame)
//!        |                                  |                                      |
//!        +-- Finished: result on the stack  +── every 100,000 instructions ──> Host::tick
//! ```
//!
//! A *host* runs a script and answers its calls of `redis.call` and other functions. The host is
//! lent to the Lua interpreter during one call. While the host answers one of the script's calls,
//! the reference is taken out of the interpreter, so that there is never a second reference.
//!
//! **Invariants**
//! - A Lua error jumps to the enclosing `lua_pcall`, over Rust's frames. So no function of this
//!   file calls a function of Lua that may raise, except the three `extern` functions, which do so
//!   last, with nothing left to drop. Lack of memory raises no error: mlua's allocator ends the
//!   process, as everywhere in this server.
//! - A string on the stack is borrowed from the frame; nothing is pushed or popped while a frame is
//!   borrowed.

mod calls;
mod errors;

pub use calls::SANDBOX;
pub use errors::{called_as, explain, frame_of_script, is_native};
pub use errors::{script_level, slot_of_frame};

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;

use mlua::ffi::{self, lua_State};
use mlua::{Lua, LuaOptions, StdLib};

use errors::error_handler;

use crate::sys::tape::{self, Input};

/// The number of Lua's instructions between two calls of [`Host::tick`].
const TICK: c_int = 100_000;
/// The maximum length in bytes of a string on Lua's stack: the interpreter's own limit is just
/// below 2 GB.
const STRING_MAX: usize = 1 << 30;
/// The most elements for which a table gets room ahead, if a script or a client gives its size.
const PREALLOCATE_MAX: usize = 1 << 16;
/// The key in Lua's registry of the pointer to [`Lent`]: the address of this byte.
static LENT_KEY: u8 = 0;

/// The result of a script's call of a function that the host answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The call returns this number of values from the top of Lua's stack.
    Return(u8),
    /// The value on top of Lua's stack is raised as an error.
    Raise,
}

/// The code that runs a script and answers its calls of functions such as `redis.call`.
pub trait Host {
    /// Called when the script calls a function that [`Vm::function`] made; the frame has the
    /// arguments.
    fn call(&mut self, function: u8, frame: &mut Frame) -> Outcome;

    /// In a debugger session: a line is about to run, or, if `count` is set, [`TICK`] instructions
    /// have run. Returns whether Lua raises the value on top of its stack as an error.
    fn line(&mut self, _: &mut Frame, _: bool) -> bool {
        false
    }

    /// Called every [`TICK`] instructions while a script runs. If it returns true, Lua raises the
    /// value on top of its stack as an error, and raises it again at every line, so that the script
    /// can't catch the error for long.
    fn tick(&mut self, frame: &mut Frame) -> bool;
}

/// The types of Lua values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LuaType {
    Nil,
    Boolean,
    Number,
    String,
    Table,
    Function,
    /// The type of a thread or a userdata.
    Other,
}

/// A Lua function that is kept in the interpreter's registry. [`Vm::release`] releases the
/// function, or else the end of the interpreter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionRef(c_int);

/// How a Lua function gets the keys and the arguments of EVAL or FCALL.
pub enum Arguments<'a> {
    /// Keys and arguments are the globals `KEYS` and `ARGV`.
    Globals(&'a [&'a [u8]], &'a [&'a [u8]]),
    /// Keys and arguments are two tables, which the function gets as parameters.
    Tables(&'a [&'a [u8]], &'a [&'a [u8]]),
    None,
}

/// The place in the source of a function at a level of the call stack.
pub struct Place {
    pub source: Vec<u8>,
    pub line: u32,
    /// Whether the whole function is written on one line of the source.
    pub one_line: bool,
    /// The name by which the function was called, if Lua knows it.
    pub name: Option<String>,
}

struct Lent {
    host: Cell<Option<*mut (dyn Host + 'static)>>,
    /// The index in Lua's registry of the globals of scripts.
    globals: Cell<c_int>,
}

/// A Lua interpreter.
pub struct Vm {
    /// mlua's handle of the interpreter. Declared before `lent`, to which the interpreter points:
    /// fields are dropped in order.
    lua: Lua,
    state: *mut lua_State,
    lent: Box<Lent>,
    handler: c_int,
    globals: c_int,
}

impl Vm {
    /// Creates an interpreter with the libraries that scripts may use. The interpreter's compiler
    /// is off and its hook is set.
    pub fn new() -> mlua::Result<Vm> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS | StdLib::JIT;
        let options = LuaOptions::new().catch_rust_panics(false);
        let lua = Lua::new_with(libraries, options)?;
        lua.load("jit.off() jit = nil").exec()?;
        let lent = Box::new(Lent {
            host: Cell::new(None),
            globals: Cell::new(0),
        });
        let state = Cell::new(std::ptr::null_mut());
        let (mut handler, mut globals) = (0, 0);
        // SAFETY: the closure leaves the stack as it found it, and `lent` lives as long as the
        // interpreter.
        unsafe {
            lua.exec_raw::<()>((), |l| {
                state.set(l);
                let at = &*lent as *const Lent as *mut c_void;
                ffi::lua_pushlightuserdata(l, &LENT_KEY as *const u8 as *mut c_void);
                ffi::lua_pushlightuserdata(l, at);
                ffi::lua_rawset(l, ffi::LUA_REGISTRYINDEX);
                ffi::lua_pushcclosure(l, error_handler, 0);
                handler = ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX);
                ffi::lua_pushvalue(l, ffi::LUA_GLOBALSINDEX);
                globals = ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX);
            })?;
        }
        lent.globals.set(globals);
        let vm = Vm {
            lua,
            state: state.get(),
            lent,
            handler,
            globals,
        };
        vm.watch();
        Ok(vm)
    }

    /// mlua's handle of the interpreter, by which libraries and the sandbox are set up.
    pub fn lua(&self) -> &Lua {
        &self.lua
    }

    /// The bytes of memory that the interpreter uses.
    pub fn memory(&self) -> usize {
        tape::number(Input::Memory, || self.lua.used_memory() as u64) as usize
    }

    /// A Lua function that calls the host's [`Host::call`] with this number.
    pub fn function(&self, number: u8) -> mlua::Result<mlua::Function> {
        let at = &*self.lent as *const Lent as *mut c_void;
        // SAFETY: `lent` lives as long as the interpreter; one value is left on the stack, the
        // result.
        unsafe {
            self.lua.exec_raw((), |l| {
                ffi::lua_pushlightuserdata(l, at);
                ffi::lua_pushinteger(l, ffi::lua_Integer::from(number));
                ffi::lua_pushcclosure(l, host_function, 2);
            })
        }
    }

    /// Makes `sealed` the table of globals of Lua functions that are created later. With
    /// [`Arguments::Globals`], KEYS and ARGV are still written to the former table of globals.
    pub fn seal_globals(&self, sealed: &mlua::Table) -> mlua::Result<()> {
        self.lua.set_globals(sealed.clone())
    }

    /// LuaJIT's functions `funcbc(function, n)`, which returns instruction `n` of a function, and
    /// `funcinfo(function, n)`, whose `currentline` is the line of that instruction.
    pub fn bytecode(&self) -> mlua::Result<(mlua::Function, mlua::Function)> {
        let loaders: mlua::Table = self.lua.named_registry_value("_PRELOAD")?;
        let open: mlua::Function = loaders.get("jit.util")?;
        let library: mlua::Table = open.call(())?;
        Ok((library.get("funcbc")?, library.get("funcinfo")?))
    }

    /// Compiles Lua source to a function; `Err` has the compiler's message.
    pub fn compile(&mut self, source: &[u8], name: &CStr) -> Result<FunctionRef, Vec<u8>> {
        let l = self.state;
        // SAFETY: the mode "t" refuses bytecode; one value is pushed in any case and taken off
        // again.
        unsafe {
            let text: *const c_char = source.as_ptr().cast();
            let status = ffi::luaL_loadbufferx(l, text, source.len(), name.as_ptr(), c"t".as_ptr());
            if status == 0 {
                return Ok(FunctionRef(ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX)));
            }
            let frame = Frame::new(l);
            let message = frame.bytes(-1).unwrap_or(b"out of memory").to_vec();
            ffi::lua_settop(l, -2);
            Err(message)
        }
    }

    /// Removes a Lua function from the interpreter's registry.
    pub fn release(&mut self, function: FunctionRef) {
        // SAFETY: the reference came from `luaL_ref` of this interpreter's registry.
        unsafe { ffi::luaL_unref(self.state, ffi::LUA_REGISTRYINDEX, function.0) }
    }

    /// Runs a Lua function. The function's first result, or its error, is on top of the returned
    /// frame.
    pub fn call(
        &mut self,
        function: FunctionRef,
        host: &mut dyn Host,
        arguments: Arguments,
    ) -> Finished<'_> {
        let l = self.state;
        // SAFETY: the stack has room for the few values pushed (checked); the host pointer is taken
        // back before this function returns, so it never outlives the borrow it came from.
        unsafe {
            let base = ffi::lua_gettop(l);
            let mut frame = Frame::new(l);
            if !frame.room(16) {
                return Finished {
                    frame,
                    base,
                    ok: false,
                };
            }
            ffi::lua_rawgeti_(l, ffi::LUA_REGISTRYINDEX, self.handler);
            ffi::lua_rawgeti_(l, ffi::LUA_REGISTRYINDEX, function.0);
            let count = match arguments {
                Arguments::None => 0,
                Arguments::Tables(keys, argv) => {
                    frame.push_strings(keys);
                    frame.push_strings(argv);
                    2
                }
                Arguments::Globals(keys, argv) => {
                    ffi::lua_rawgeti_(l, ffi::LUA_REGISTRYINDEX, self.globals);
                    frame.push_strings(keys);
                    frame.set_field("KEYS");
                    frame.push_strings(argv);
                    frame.set_field("ARGV");
                    frame.pop(1);
                    0
                }
            };
            let host: *mut (dyn Host + '_) = host;
            let host: *mut (dyn Host + 'static) = std::mem::transmute(host);
            self.lent.host.set(Some(host));
            let status = ffi::lua_pcall(l, count, 1, base + 1);
            self.lent.host.set(None);
            Finished {
                frame,
                base,
                ok: status == 0,
            }
        }
    }

    /// Sets the hook that calls [`Host::tick`]; also needed after a script was stopped, which
    /// changes the hook.
    pub fn watch(&self) {
        // SAFETY: setting a hook touches nothing but the interpreter's own state.
        unsafe { ffi::lua_sethook(self.state, Some(tick_hook), ffi::LUA_MASKCOUNT, TICK) };
    }

    /// Sets the debugger's hook in place of the hook that calls [`Host::tick`].
    pub fn debug(&self) {
        let mask = ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT;
        // SAFETY: setting a hook touches nothing but the interpreter's own state.
        unsafe { ffi::lua_sethook(self.state, Some(debug_hook), mask, TICK) };
    }

    /// Runs a step of Lua's garbage collection. Returns true at the end of a cycle.
    pub fn collect_step(&mut self, size: i32) -> bool {
        // SAFETY: a collection can run no code of a script: values with finalizers can't be made in
        // the sandbox.
        unsafe { ffi::lua_gc(self.state, ffi::LUA_GCSTEP, size) != 0 }
    }
}

/// The result of a Lua function that has returned. Dropping this value restores Lua's stack.
pub struct Finished<'a> {
    pub frame: Frame<'a>,
    base: c_int,
    pub ok: bool,
}

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        // SAFETY: the stack is at least as high as it was when the call began.
        unsafe { ffi::lua_settop(self.frame.l, self.base) }
    }
}

/// The part of Lua's stack that belongs to a call of a function: its arguments, and the values that
/// it pushes. Indices count from 1, or from the top if negative.
pub struct Frame<'a> {
    l: *mut lua_State,
    interpreter: PhantomData<&'a mut lua_State>,
}

impl Frame<'_> {
    unsafe fn new<'a>(l: *mut lua_State) -> Frame<'a> {
        Frame {
            l,
            interpreter: PhantomData,
        }
    }

    /// The number of values in the frame.
    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: reads the stack's height.
        unsafe { ffi::lua_gettop(self.l) as usize }
    }

    /// Whether the frame has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `n` more values on Lua's stack; false if the stack can't grow.
    #[inline]
    pub fn room(&mut self, n: usize) -> bool {
        // SAFETY: `lua_checkstack` reports a failure instead of raising an error.
        n < 8000 && unsafe { ffi::lua_checkstack(self.l, n as c_int) != 0 }
    }

    /// The type of the value at an index.
    #[inline]
    pub fn kind(&self, at: i32) -> LuaType {
        // SAFETY: for an index without a value, `lua_type` returns `LUA_TNONE`.
        match unsafe { ffi::lua_type(self.l, at) } {
            ffi::LUA_TSTRING => LuaType::String,
            ffi::LUA_TNUMBER => LuaType::Number,
            ffi::LUA_TTABLE => LuaType::Table,
            ffi::LUA_TBOOLEAN => LuaType::Boolean,
            ffi::LUA_TFUNCTION => LuaType::Function,
            ffi::LUA_TNIL | ffi::LUA_TNONE => LuaType::Nil,
            _ => LuaType::Other,
        }
    }

    /// The bytes of the string at an index; `None` for other types, numbers included.
    #[inline]
    pub fn bytes(&self, at: i32) -> Option<&[u8]> {
        if self.kind(at) != LuaType::String {
            return None;
        }
        let mut len = 0;
        // SAFETY: the value is a string, so nothing is converted; a string lives at least as long
        // as it stays on the stack, and nothing leaves the stack while the frame is borrowed.
        unsafe {
            let start = ffi::lua_tolstring(self.l, at, &mut len);
            Some(std::slice::from_raw_parts(start.cast(), len))
        }
    }

    /// Whether the value at an index is a number, or a string that looks like a number.
    pub fn is_number(&self, at: i32) -> bool {
        // SAFETY: only reads the value at this index.
        unsafe { ffi::lua_isnumber(self.l, at) != 0 }
    }

    /// The number at an index; strings that look like numbers are converted, and anything else is
    /// 0.
    #[inline]
    pub fn number(&self, at: i32) -> f64 {
        // SAFETY: `lua_tonumber` converts without changing the value.
        unsafe { ffi::lua_tonumber(self.l, at) }
    }

    /// The truth of the value at an index: everything except nil and false is true.
    #[inline]
    pub fn boolean(&self, at: i32) -> bool {
        // SAFETY: only reads the value at this index.
        unsafe { ffi::lua_toboolean(self.l, at) != 0 }
    }

    /// Replaces the value at an index by a string of these bytes.
    pub fn replace_with_bytes(&mut self, at: i32, bytes: &[u8]) {
        self.push_bytes(bytes);
        // SAFETY: `at` is an index below the top of the stack.
        unsafe { ffi::lua_replace(self.l, at) }
    }

    /// Pushes nil onto Lua's stack.
    #[inline]
    pub fn push_nil(&mut self) {
        // SAFETY: every caller has room: 20 values from the interpreter itself, more from `room`.
        unsafe { ffi::lua_pushnil(self.l) }
    }

    /// Pushes a boolean onto Lua's stack.
    #[inline]
    pub fn push_boolean(&mut self, yes: bool) {
        // SAFETY: the stack has room, see `push_nil`.
        unsafe { ffi::lua_pushboolean(self.l, yes as c_int) }
    }

    /// Pushes a number onto Lua's stack.
    #[inline]
    pub fn push_number(&mut self, n: f64) {
        // SAFETY: the stack has room, see `push_nil`.
        unsafe { ffi::lua_pushnumber(self.l, n) }
    }

    /// Pushes a string onto Lua's stack; bytes beyond the interpreter's limit are cut off.
    #[inline]
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(STRING_MAX);
        // SAFETY: the stack has room, see `push_nil`; the bytes are copied.
        unsafe { ffi::lua_pushlstring_(self.l, bytes.as_ptr().cast(), len) }
    }

    /// Pushes a copy of the value at an index.
    pub fn push_value(&mut self, at: i32) {
        // SAFETY: the stack has room, see `push_nil`; `at` is the index of a value.
        unsafe { ffi::lua_pushvalue(self.l, at) }
    }

    /// Pushes an empty table with room for `elements` elements and `fields` fields.
    #[inline]
    pub fn push_table(&mut self, elements: usize, fields: usize) {
        let elements = elements.min(PREALLOCATE_MAX) as c_int;
        let fields = fields.min(PREALLOCATE_MAX) as c_int;
        // SAFETY: the stack has room, see `push_nil`; the sizes are within the interpreter's
        // limits.
        unsafe { ffi::lua_createtable(self.l, elements, fields) }
    }

    /// Pushes a table of strings onto Lua's stack.
    #[inline]
    fn push_strings(&mut self, strings: &[&[u8]]) {
        self.push_table(strings.len(), 0);
        for (at, string) in strings.iter().enumerate() {
            self.push_bytes(string);
            self.set_element(at + 1);
        }
    }

    /// Removes all values of the frame from Lua's stack.
    #[inline]
    pub fn clear(&mut self) {
        // SAFETY: the top of the stack can always be lowered.
        unsafe { ffi::lua_settop(self.l, 0) }
    }

    /// Removes the `n` topmost values.
    pub fn pop(&mut self, n: usize) {
        // SAFETY: the stack has at least `n` values.
        unsafe { ffi::lua_settop(self.l, -(n as c_int) - 1) }
    }

    /// Pops a value and makes it element `n`, from 1, of the table below it.
    #[inline]
    pub fn set_element(&mut self, n: usize) {
        // SAFETY: a table lies below the top; integer keys are valid keys.
        unsafe { ffi::lua_rawseti_(self.l, -2, n as c_int) }
    }

    /// Pops a value and makes it a field of the table below it.
    pub fn set_field(&mut self, name: &str) {
        self.push_bytes(name.as_bytes());
        // SAFETY: a table lies below the value, and a string is a valid key.
        unsafe {
            ffi::lua_insert(self.l, -2);
            ffi::lua_rawset(self.l, -3);
        }
    }

    /// Pops a value and a key, and sets this field of the table below them. Keys that are not
    /// allowed in a table (nil, NaN) are ignored.
    pub fn set_pair(&mut self) {
        let invalid = match self.kind(-2) {
            LuaType::Nil => true,
            LuaType::Number => self.number(-2).is_nan(),
            _ => false,
        };
        if invalid {
            return self.pop(2);
        }
        // SAFETY: a table lies below the pair, and the key is valid.
        unsafe { ffi::lua_rawset(self.l, -3) }
    }

    /// Pushes a field of a table; the table's metatable is not used.
    pub fn get_field(&mut self, at: i32, name: &str) -> LuaType {
        // SAFETY: the table's index is made absolute before the push of the key moves the top.
        unsafe {
            let table = ffi::lua_absindex(self.l, at);
            self.push_bytes(name.as_bytes());
            ffi::lua_rawget_(self.l, table);
        }
        self.kind(-1)
    }

    /// Pushes element `n` of a table; the table's metatable is not used.
    pub fn get_element(&mut self, at: i32, n: usize) -> LuaType {
        // SAFETY: `at` is the index of a table.
        unsafe { ffi::lua_rawgeti_(self.l, at, n as c_int) };
        self.kind(-1)
    }

    /// Pops a key and pushes the next key and value of the table at `at`. Returns false, and pushes
    /// nothing, after the last key. The first key to pass is nil.
    pub fn next(&mut self, at: i32) -> bool {
        // SAFETY: the key came from the table itself, which is not changed meanwhile.
        unsafe { ffi::lua_next(self.l, at) != 0 }
    }

    /// The place in the source of the function at a level of the call stack; level 0 is the
    /// innermost. May be called only in a hook of Lua.
    pub fn place(&self, level: i32) -> Option<Place> {
        // SAFETY: `lua_getstack` says whether the level exists, and then `ar` is filled.
        unsafe {
            let mut ar: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(self.l, level, &mut ar) == 0
                || ffi::lua_getinfo(self.l, c"Snl".as_ptr(), &mut ar) == 0
            {
                return None;
            }
            let named = !ar.name.is_null();
            Some(Place {
                source: CStr::from_ptr(ar.source).to_bytes().to_vec(),
                line: ar.currentline.max(0) as u32,
                one_line: ar.linedefined == ar.lastlinedefined,
                name: named.then(|| CStr::from_ptr(ar.name).to_string_lossy().into_owned()),
            })
        }
    }

    /// The number of levels of the call stack. May be called only in a hook of Lua.
    pub fn depth(&self) -> usize {
        // SAFETY: `lua_getstack` only reads whether a level exists.
        let exists = |level: c_int| unsafe {
            let mut ar: ffi::lua_Debug = std::mem::zeroed();
            ffi::lua_getstack(self.l, level, &mut ar) != 0
        };
        let (mut exist, mut beyond) = (0, 1);
        while exists(beyond) {
            (exist, beyond) = (beyond, beyond * 2);
        }
        while beyond - exist > 1 {
            let middle = exist + (beyond - exist) / 2;
            if exists(middle) {
                exist = middle;
            } else {
                beyond = middle;
            }
        }
        beyond as usize
    }

    /// Pushes local variable `n`, from 1, of a level of the call stack and returns its name; `None`
    /// if there is no such variable.
    pub fn push_local(&mut self, level: i32, n: i32) -> Option<Vec<u8>> {
        // SAFETY: `lua_getstack` says whether the level exists; there is room for one value.
        unsafe {
            let mut ar: ffi::lua_Debug = std::mem::zeroed();
            if !self.room(1) || ffi::lua_getstack(self.l, level, &mut ar) == 0 {
                return None;
            }
            let name = ffi::lua_getlocal(self.l, &ar, n);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes().to_vec())
        }
    }

    /// Pushes a global of the scripts, `KEYS` or `ARGV`. Returns false, and pushes nothing, if the
    /// global does not exist.
    pub fn push_global(&mut self, name: &[u8]) -> bool {
        // SAFETY: `lent` lives as long as the interpreter; the globals are a table.
        unsafe {
            let Some(lent) = self.lent() else {
                return false;
            };
            ffi::lua_rawgeti_(self.l, ffi::LUA_REGISTRYINDEX, lent.globals.get());
            self.push_bytes(name);
            ffi::lua_rawget_(self.l, -2);
            ffi::lua_remove(self.l, -2);
        }
        true
    }

    /// The address of a table or function, for messages.
    pub fn address(&self, at: i32) -> usize {
        // SAFETY: only reads the value at this index.
        unsafe { ffi::lua_topointer(self.l, at) as usize }
    }

    /// Compiles a text as an expression, or else as a chunk, and runs it with a host of its own
    /// while another call is running. Returns whether the run succeeded; its result, or its error,
    /// is on top of the stack.
    pub fn evaluate(
        &mut self,
        expression: &[u8],
        chunk: &[u8],
        name: &CStr,
        host: &mut dyn Host,
    ) -> bool {
        let l = self.l;
        let load = |source: &[u8]| {
            let text: *const c_char = source.as_ptr().cast();
            // SAFETY: the mode "t" refuses bytecode; one value is pushed in any case.
            unsafe { ffi::luaL_loadbufferx(l, text, source.len(), name.as_ptr(), c"t".as_ptr()) }
        };
        if !self.room(8) {
            // Every function has room on Lua's stack for a few values without a check.
            self.push_bytes(b"stack overflow");
            return false;
        }
        if load(expression) != 0 {
            self.pop(1);
            if load(chunk) != 0 {
                return false;
            }
        }
        // SAFETY: as in `Vm::call`: the host pointer is taken back before this function returns.
        unsafe {
            let Some(lent) = self.lent() else {
                return false;
            };
            let host: *mut (dyn Host + '_) = host;
            let host: *mut (dyn Host + 'static) = std::mem::transmute(host);
            let before = lent.host.replace(Some(host));
            let status = ffi::lua_pcall(l, 0, 1, 0);
            lent.host.set(before);
            status == 0
        }
    }

    /// Finds the pointer to the lent host (`Lent`) in the registry of the running script's Lua
    /// state.
    unsafe fn lent(&mut self) -> Option<&'static Lent> {
        // SAFETY: the registry's entry was set by `Vm::new` and lives as long as the interpreter,
        // whose stack this is.
        unsafe {
            if !self.room(2) {
                return None;
            }
            ffi::lua_pushlightuserdata(self.l, &LENT_KEY as *const u8 as *mut c_void);
            ffi::lua_rawget_(self.l, ffi::LUA_REGISTRYINDEX);
            let lent = &*ffi::lua_touserdata(self.l, -1).cast::<Lent>();
            ffi::lua_settop(self.l, -2);
            Some(lent)
        }
    }

    /// Pops a Lua function and keeps it in the interpreter's registry.
    pub fn keep_function(&mut self) -> FunctionRef {
        // SAFETY: there is a value on top of the stack.
        FunctionRef(unsafe { ffi::luaL_ref(self.l, ffi::LUA_REGISTRYINDEX) })
    }
}

/// The text that C writes for NaN, with its sign; LuaJIT leaves out the sign.
pub fn nan_text(number: f64) -> &'static str {
    if number.is_sign_negative() {
        "-nan"
    } else {
        "nan"
    }
}

/// The C function behind all Lua functions that [`Vm::function`] creates. The upvalues of the C
/// function are the pointer to `Lent` and the Lua function's number.
unsafe extern "C-unwind" fn host_function(l: *mut lua_State) -> c_int {
    // SAFETY: the upvalues were set by `Vm::function`. A Lua error jumps over this frame, so
    // nothing may be left to drop: `answer` has dropped all its values.
    unsafe {
        match answer(l) {
            Outcome::Return(n) => c_int::from(n),
            Outcome::Raise => ffi::lua_error(l),
        }
    }
}

unsafe fn answer(l: *mut lua_State) -> Outcome {
    // SAFETY: the pointer leads to the interpreter's own `Lent`, which holds the lent host. The
    // host is taken out while it answers, so there is never a second reference to it.
    unsafe {
        let lent = &*ffi::lua_touserdata(l, ffi::LUA_GLOBALSINDEX - 1).cast::<Lent>();
        let number = ffi::lua_tointeger_(l, ffi::LUA_GLOBALSINDEX - 2) as u8;
        let mut frame = Frame::new(l);
        match lent.host.take() {
            Some(host) => {
                let outcome = (*host).call(number, &mut frame);
                lent.host.set(Some(host));
                outcome
            }
            None => {
                frame.push_bytes(b"This function can be called by a running script only");
                Outcome::Raise
            }
        }
    }
}

/// The hook that runs every [`TICK`] instructions, and at every line of a script that is being
/// stopped.
unsafe extern "C-unwind" fn tick_hook(l: *mut lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: nothing is left to drop when an error jumps over this frame (see `host_function`).
    unsafe {
        if tick(l) {
            ffi::lua_sethook(l, Some(tick_hook), ffi::LUA_MASKLINE, 0);
            ffi::lua_error(l);
        }
    }
}

unsafe fn tick(l: *mut lua_State) -> bool {
    // SAFETY: nothing is left to drop when an error jumps over this frame (see `host_function`).
    unsafe { with_host(l, |host, frame| host.tick(frame)) }
}

/// The hook that runs at each line of a script that is debugged, and every [`TICK`] instructions.
unsafe extern "C-unwind" fn debug_hook(l: *mut lua_State, ar: *mut ffi::lua_Debug) {
    // SAFETY: an error jumps over this frame as in `host_function`; `ar` is the event that the
    // interpreter passes to a hook.
    unsafe {
        let count = (*ar).event == ffi::LUA_HOOKCOUNT;
        if with_host(l, |host, frame| host.line(frame, count)) {
            ffi::lua_error(l);
        }
    }
}

/// Calls the host, whose reference is taken out of the interpreter during the call. Returns false
/// if there is no host.
unsafe fn with_host(
    l: *mut lua_State,
    ask: impl FnOnce(&mut (dyn Host + 'static), &mut Frame) -> bool,
) -> bool {
    // SAFETY: the host's pointer was set for the duration of the enclosing call.
    unsafe {
        let mut frame = Frame::new(l);
        if !frame.room(8) {
            return false;
        }
        let Some(lent) = frame.lent() else {
            return false;
        };
        let Some(host) = lent.host.take() else {
            return false;
        };
        let stop = ask(&mut *host, &mut frame);
        lent.host.set(Some(host));
        stop
    }
}
