//! Errors of scripts: their texts, and the place in the script where they were raised.
//!
//! ```text
//!   error ──> explain: the name of an element or the place of an overflow, which LuaJIT leaves out ──> pcall
//!         └─> error_handler: the same, and the place ──> the table {err, source, line} ──> reply
//! ```
//!
//! As in `sys::lua`, no function of this file raises a Lua error.

use super::calls::Calls;
use super::{Frame, LuaType, nan_text};
use memchr::memmem;
use mlua::Lua;
use mlua::ffi::{self, lua_State};
use std::ffi::{CStr, c_int, c_void};

/// The key in Lua's registry of the function `names` that [`explain`] was given: the address of
/// this byte.
static EXPLAIN_KEY: u8 = 0;

/// A Lua function for `xpcall` that adds to an error what Lua 5.1 has and LuaJIT leaves out: the
/// place of a stack overflow, and the name of a value, for which it calls `names`, a Lua function.
/// After a call of `explain`, [`error_handler`] adds these parts to errors, too.
pub fn explain(lua: &Lua, names: &mlua::Function) -> mlua::Result<mlua::Function> {
    // SAFETY: `names` is on the stack and is taken off; one value, the result, is left.
    unsafe {
        lua.exec_raw(names, |l| {
            ffi::lua_pushlightuserdata(l, explain_key());
            ffi::lua_insert(l, -2);
            ffi::lua_rawset(l, ffi::LUA_REGISTRYINDEX);
            ffi::lua_pushcfunction(l, explain_handler);
        })
    }
}

fn explain_key() -> *mut c_void {
    &EXPLAIN_KEY as *const u8 as *mut c_void
}

unsafe extern "C-unwind" fn explain_handler(l: *mut lua_State) -> c_int {
    // SAFETY: called by the interpreter with the error as the first value.
    unsafe {
        ffi::lua_settop(l, 1);
        complete_message(l);
        1
    }
}

/// Adds to the error at index 1, the only value on Lua's stack, the parts that Lua 5.1 has and
/// LuaJIT leaves out.
unsafe fn complete_message(l: *mut lua_State) {
    // SAFETY: called by Lua with room for 20 values; each branch leaves one value.
    unsafe {
        if Frame::new(l).bytes(1) == Some(b"stack overflow") {
            place_overflow(l);
        } else if let Some(text) = without_metamethod(l) {
            Frame::new(l).push_bytes(&text);
            ffi::lua_replace(l, 1);
        } else {
            name_operand(l);
        }
    }
}

/// The error at index 1 if it is about an argument of a metamethod, with `'?'` in place of the
/// metamethod's name: Lua 5.1 does not know that name.
unsafe fn without_metamethod(l: *mut lua_State) -> Option<Vec<u8>> {
    // SAFETY: the caller has the state of a running call.
    let (frame, calls) = unsafe { (Frame::new(l), Calls::of(l)) };
    let text = frame.bytes(1)?;
    let at = memmem::find(text, b"bad argument #")?;
    let name = at + memmem::find(&text[at..], b" to '__")? + b" to '".len();
    let end = name + memchr::memchr(b'\'', &text[name..])?;
    // If `xpcall` calls the error handler, the handler itself is at level 1 of the call stack,
    // without a name.
    let mut callers = (1..=2).map_while(|level| calls.caller(level));
    let raised_by_metamethod = callers.find(|caller| caller.is_named)?.is_metamethod;
    raised_by_metamethod.then(|| [&text[..name], b"?", &text[end..]].concat())
}

/// The number of innermost functions that are examined to see what a recursion consists of.
const CYCLE_MAX: c_int = 8;

/// Replaces the message of a stack overflow by that of Lua 5.1: the place of the call that failed,
/// and whether the recursion goes through functions of the library or metamethods, for which Lua
/// 5.1 needs the stack of C.
unsafe fn place_overflow(l: *mut lua_State) {
    // SAFETY: the caller has the state of a running call.
    let calls = unsafe { Calls::of(l) };
    let mut callers: Vec<_> = (1..=CYCLE_MAX)
        .map_while(|level| calls.caller(level))
        .collect();
    // The function for whose call there was no room may be at the first level, as a function of C
    // without a name.
    if callers
        .first()
        .is_some_and(|caller| caller.is_library && !caller.is_named)
    {
        callers.remove(0);
    }
    let of_script = callers.iter().find(|caller| caller.line > 0);
    let by_library = callers.first().is_some_and(|caller| caller.is_library);
    let mut text = match of_script {
        Some(caller) if !by_library => {
            [&caller.chunk[..], format!(":{}: ", caller.line).as_bytes()].concat()
        }
        _ => Vec::new(),
    };
    if callers
        .iter()
        .any(|caller| caller.is_library || caller.is_metamethod)
    {
        text.extend_from_slice(b"C ");
    }
    text.extend_from_slice(b"stack overflow");
    // SAFETY: there is room, see `complete_message`; the new message replaces the old one.
    unsafe {
        Frame::new(l).push_bytes(&text);
        ffi::lua_replace(l, 1);
    }
}

/// Adds the name of the value to the error at index 1, the only value on Lua's stack, if the error
/// is about a value and does not name it.
unsafe fn name_operand(l: *mut lua_State) {
    // SAFETY: the stack is checked for room; the call is protected, and leaves one value.
    unsafe {
        let mut frame = Frame::new(l);
        let lacks_name = frame.kind(1) == LuaType::String
            && frame.bytes(1).is_some_and(|text| {
                text.ends_with(b" value") && text.windows(9).any(|part| part == b": attempt")
            });
        if !lacks_name || !frame.room(8) {
            return;
        }
        ffi::lua_pushlightuserdata(l, explain_key());
        ffi::lua_rawget_(l, ffi::LUA_REGISTRYINDEX);
        ffi::lua_pushvalue(l, 1);
        let status = ffi::lua_pcall(l, 1, 1, 0);
        if status == 0 && Frame::new(l).kind(-1) == LuaType::String {
            ffi::lua_replace(l, 1);
        }
        ffi::lua_settop(l, 1);
    }
}

/// A Lua function without arguments: it returns the innermost function of the script on the call
/// stack, and its line; nothing if there is no such function.
pub fn frame_of_script(lua: &Lua) -> mlua::Result<mlua::Function> {
    // SAFETY: one value, the result, is left on the stack.
    unsafe { lua.exec_raw((), |l| ffi::lua_pushcfunction(l, push_function)) }
}

unsafe extern "C-unwind" fn push_function(l: *mut lua_State) -> c_int {
    // SAFETY: the level exists, and its function is pushed.
    unsafe {
        let Some((level, line)) = Calls::of(l).innermost_of_script() else {
            return 0;
        };
        let mut ar: ffi::lua_Debug = std::mem::zeroed();
        ffi::lua_getstack(l, level, &mut ar);
        ffi::lua_getinfo(l, c"f".as_ptr(), &mut ar);
        Frame::new(l).push_number(f64::from(line));
        2
    }
}

/// A Lua function: `slot(n)` returns the name of local variable `n`, from 1, of the function that
/// [`frame_of_script`] returns, and the type of its value. Values without a name follow in the
/// order of their registers.
pub fn slot_of_frame(lua: &Lua) -> mlua::Result<mlua::Function> {
    // SAFETY: one value, the result, is left on the stack.
    unsafe { lua.exec_raw((), |l| ffi::lua_pushcfunction(l, describe_slot)) }
}

unsafe extern "C-unwind" fn describe_slot(l: *mut lua_State) -> c_int {
    // SAFETY: the level exists; the value that is pushed is read and stays below the results.
    unsafe {
        let n = ffi::lua_tointeger_(l, 1) as c_int;
        let Some((level, _)) = Calls::of(l).innermost_of_script() else {
            return 0;
        };
        let mut ar: ffi::lua_Debug = std::mem::zeroed();
        ffi::lua_getstack(l, level, &mut ar);
        let name = ffi::lua_getlocal(l, &ar, n);
        if name.is_null() {
            return 0;
        }
        let kind = CStr::from_ptr(ffi::lua_typename(l, ffi::lua_type(l, -1)));
        let mut frame = Frame::new(l);
        frame.push_bytes(CStr::from_ptr(name).to_bytes());
        frame.push_bytes(kind.to_bytes());
        2
    }
}

/// A Lua function: `called_as(level)` returns the name by which the function at a level of the call
/// stack was called (`?` if it has none), and whether it was called as a method. Level 1 is the
/// function that calls `called_as`.
pub fn called_as(lua: &Lua) -> mlua::Result<mlua::Function> {
    // SAFETY: one value, the result, is left on the stack.
    unsafe { lua.exec_raw((), |l| ffi::lua_pushcfunction(l, call_name)) }
}

/// A Lua function that returns whether its argument is a function not written in Lua.
pub fn is_native(lua: &Lua) -> mlua::Result<mlua::Function> {
    // SAFETY: one value, the result, is left on the stack.
    unsafe { lua.exec_raw((), |l| ffi::lua_pushcfunction(l, check_native)) }
}

/// A Lua function for the replacement of `error`, which ends by calling LuaJIT's `error`:
/// `script_level(level)` returns the level for that call. If there is a library function at
/// `level`, or no function, the result is a level that does not exist, so that the error names no
/// line.
pub fn script_level(lua: &Lua) -> mlua::Result<mlua::Function> {
    // SAFETY: one value, the result, is left on the stack.
    unsafe { lua.exec_raw((), |l| ffi::lua_pushcfunction(l, find_script_level)) }
}

unsafe extern "C-unwind" fn find_script_level(l: *mut lua_State) -> c_int {
    // SAFETY: reads the argument, and leaves one value, the result.
    unsafe {
        let wanted = ffi::lua_tointeger_(l, 1) as c_int;
        let level = Calls::of(l).level_of_script(wanted);
        Frame::new(l).push_number(f64::from(level));
        1
    }
}

unsafe extern "C-unwind" fn call_name(l: *mut lua_State) -> c_int {
    // SAFETY: called by the interpreter, with room for 20 values.
    unsafe {
        let level = ffi::lua_tointeger_(l, 1) as c_int;
        let mut frame = Frame::new(l);
        let (name, is_method) = Calls::of(l)
            .name(level)
            .unwrap_or_else(|| (b"?".to_vec(), false));
        frame.push_bytes(&name);
        frame.push_boolean(is_method);
        2
    }
}

unsafe extern "C-unwind" fn check_native(l: *mut lua_State) -> c_int {
    // SAFETY: only reads the argument; an index without a value is not a function.
    unsafe {
        let native = ffi::lua_iscfunction(l, 1) != 0;
        Frame::new(l).push_boolean(native);
        1
    }
}

/// Turns an error into the table `{err, source, line}`, which scripts and clients see, as in Redis.
pub unsafe extern "C-unwind" fn error_handler(l: *mut lua_State) -> c_int {
    // SAFETY: called by the interpreter with the error as the only value; nothing raises.
    unsafe {
        let mut frame = Frame::new(l);
        if !frame.room(8) {
            return 1;
        }
        complete_message(l);
        if frame.kind(1) != LuaType::Table {
            let text = describe_error(l);
            frame.push_table(0, 3);
            let mut message = b"ERR ".to_vec();
            message.extend_from_slice(&text);
            frame.push_bytes(&message);
            frame.set_field("err");
            ffi::lua_replace(l, 1);
        }
        if let Some((source, line)) = Calls::of(l).place_of_error() {
            frame.push_bytes(&source);
            frame.set_field("source");
            frame.push_number(f64::from(line));
            frame.set_field("line");
        }
        ffi::lua_settop(l, 1);
        1
    }
}

/// The text of the error at index 1 of Lua's stack.
unsafe fn describe_error(l: *mut lua_State) -> Vec<u8> {
    // SAFETY: the caller has the state of a running call. The value at index 1 is only read, and a
    // number is converted to a string in place.
    unsafe {
        let frame = Frame::new(l);
        match frame.kind(1) {
            LuaType::String => frame.bytes(1).unwrap_or_default().to_vec(),
            LuaType::Number if frame.number(1).is_nan() => nan_text(frame.number(1)).into(),
            LuaType::Number => {
                ffi::lua_tolstring(l, 1, std::ptr::null_mut());
                frame.bytes(1).unwrap_or_default().to_vec()
            }
            LuaType::Nil => b"nil".to_vec(),
            LuaType::Boolean if frame.boolean(1) => b"true".to_vec(),
            LuaType::Boolean => b"false".to_vec(),
            _ => {
                let name = CStr::from_ptr(ffi::lua_typename(l, ffi::lua_type(l, 1)));
                format!("{}: {:#x}", name.to_string_lossy(), frame.address(1)).into_bytes()
            }
        }
    }
}
