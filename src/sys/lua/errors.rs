//! Errors of scripts: their texts, and the place in the script where they were raised.
//!
//! ```text
//!   error ──> explain: the name of an element or the place of an overflow, which LuaJIT leaves out ──> pcall
//!         └─> error_handler: the same, and the place ──> the table {err, source, line} ──> reply
//! ```
//!
//! As in `sys::lua`, no function of this file raises a Lua error.

use super::{Frame, LuaType, nan_text};
use mlua::Lua;
use mlua::ffi::{self, lua_State};
use std::ffi::{CStr, c_int, c_void};

/// The key in Lua's registry of the function of [`explain`]: the address of this byte.
static EXPLAIN_KEY: u8 = 0;

/// A Lua function for `xpcall`: if LuaJIT may have left out the name of a value, the error's
/// message is passed to `names`, a Lua function. From then on, [`error_handler`] passes such
/// messages to `names`, too.
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
    // SAFETY: called by the machine with the error as the first value.
    unsafe {
        ffi::lua_settop(l, 1);
        complete_message(l);
        1
    }
}

/// Adds to the error at index 1, the only value, the parts that Lua 5.1 has and LuaJIT leaves out.
unsafe fn complete_message(l: *mut lua_State) {
    // SAFETY: called by Lua with room for 20 values; both functions leave one value.
    unsafe {
        if Frame::new(l).bytes(1) == Some(b"stack overflow") {
            place_overflow(l);
        } else {
            name_operand(l);
        }
    }
}

/// The number of innermost functions that are examined to see what a recursion consists of.
const CYCLE_MAX: c_int = 8;

/// Replaces the message of a stack overflow by that of Lua 5.1: the place of the call that failed,
/// and whether the recursion goes through functions of the library or metamethods, for which Lua
/// 5.1 needs the stack of C.
unsafe fn place_overflow(l: *mut lua_State) {
    let mut callers: Vec<_> = (1..=CYCLE_MAX)
        .map_while(|level| caller(l, level))
        .collect();
    // The function for which there was no room may be the first level, as a function of C without a
    // name.
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

/// A level of the call stack, for [`place_overflow`].
struct Caller {
    /// The name of the chunk in messages: `user_script`, `[string "..."]`.
    chunk: Vec<u8>,
    /// The line that runs; 0 or -1 if the function is not one of the script.
    line: c_int,
    is_named: bool,
    is_library: bool,
    is_metamethod: bool,
}

fn caller(l: *mut lua_State, level: c_int) -> Option<Caller> {
    let ar = level_info(l, level, c"Snl")?;
    // SAFETY: the texts of `ar` live as long as the level.
    unsafe {
        let is_own = is_own(CStr::from_ptr(ar.source).to_bytes());
        Some(Caller {
            line: if is_own { 0 } else { ar.currentline },
            chunk: CStr::from_ptr(ar.short_src.as_ptr()).to_bytes().to_vec(),
            is_named: !ar.name.is_null(),
            is_library: CStr::from_ptr(ar.what) == c"C",
            is_metamethod: !ar.namewhat.is_null() && CStr::from_ptr(ar.namewhat) == c"metamethod",
        })
    }
}

/// Replaces the error at index 1, the only value, if it is a message that lacks the name of a
/// value.
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
        let Some((level, line)) = innermost_of_script(l) else {
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
        let Some((level, _)) = innermost_of_script(l) else {
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

/// The level and the line of the innermost function that does not belong to the server's own Lua
/// code.
fn innermost_of_script(l: *mut lua_State) -> Option<(c_int, c_int)> {
    (1..)
        .map_while(|level| Some((level, source_line(l, level)?)))
        .find_map(|(level, place)| {
            let (source, line) = place;
            let of_script = line > 0 && source != b"=[C]" && !is_own(&source);
            of_script.then_some((level, line))
        })
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
/// `script_level(level)` returns the level for that call. The result is beyond all levels, for an
/// error without a place, if a library function stands at `level`, or no function.
pub fn script_level(lua: &Lua) -> mlua::Result<mlua::Function> {
    // SAFETY: one value, the result, is left on the stack.
    unsafe { lua.exec_raw((), |l| ffi::lua_pushcfunction(l, find_script_level)) }
}

unsafe extern "C-unwind" fn find_script_level(l: *mut lua_State) -> c_int {
    // SAFETY: reads the argument, and leaves one value, the result.
    unsafe {
        let wanted = ffi::lua_tointeger_(l, 1) as c_int;
        let level = level_of_script(l, wanted);
        Frame::new(l).push_number(f64::from(level));
        1
    }
}

/// The level of the function that is at level `wanted` if the server's own functions are not
/// counted. The result counts all functions, and level 1 is the caller of the function that calls
/// this one.
fn level_of_script(l: *mut lua_State, wanted: c_int) -> c_int {
    let (mut level, mut passed) = (1, 0);
    while passed < wanted && level < LEVELS_MAX {
        level += 1;
        match source_line(l, level) {
            None => return NO_LEVEL,
            Some((source, _)) if is_own(&source) => {}
            Some(_) => passed += 1,
        }
    }
    match source_line(l, level) {
        Some((_, line)) if line > 0 && passed == wanted => level - 1,
        _ => NO_LEVEL,
    }
}

unsafe extern "C-unwind" fn call_name(l: *mut lua_State) -> c_int {
    // SAFETY: called by Lua with room for 20 values; the name lives as long as the calling
    // function, and is copied.
    unsafe {
        let level = ffi::lua_tointeger_(l, 1) as c_int;
        let mut frame = Frame::new(l);
        let info = level_info(l, level, c"n");
        let Some(ar) = info.filter(|ar| !ar.name.is_null()) else {
            frame.push_bytes(b"?");
            frame.push_boolean(false);
            return 2;
        };
        frame.push_bytes(CStr::from_ptr(ar.name).to_bytes());
        frame.push_boolean(CStr::from_ptr(ar.namewhat) == c"method");
        2
    }
}

unsafe extern "C-unwind" fn check_native(l: *mut lua_State) -> c_int {
    // SAFETY: reads the argument; a place without a value is no function.
    unsafe {
        let native = ffi::lua_iscfunction(l, 1) != 0;
        Frame::new(l).push_boolean(native);
        1
    }
}

/// The source and line of a level of the call stack.
fn source_line(l: *mut lua_State, level: c_int) -> Option<(Vec<u8>, c_int)> {
    let ar = level_info(l, level, c"Sl")?;
    // SAFETY: the source's name lives as long as the level.
    let source = unsafe { CStr::from_ptr(ar.source) };
    Some((source.to_bytes().to_vec(), ar.currentline))
}

/// The fields `what` of a level of the call stack; `None` if there is no such level.
fn level_info(l: *mut lua_State, level: c_int, what: &CStr) -> Option<ffi::lua_Debug> {
    // SAFETY: `l` is the state of a running call; `lua_getstack` says whether the level exists, and
    // then `ar` is filled.
    unsafe {
        let mut ar: ffi::lua_Debug = std::mem::zeroed();
        let found = ffi::lua_getstack(l, level, &mut ar) != 0
            && ffi::lua_getinfo(l, what.as_ptr(), &mut ar) != 0;
        found.then_some(ar)
    }
}

/// The source name of the server's own Lua code: an error in it is reported at the place in the
/// script that called it.
pub const SANDBOX: &str = "=sandbox";
/// The maximum number of levels that are searched: the time to find a level grows with its number.
const LEVELS_MAX: c_int = 250;
const NO_LEVEL: c_int = c_int::MAX;
const OWN_SOURCES: [&[u8]; 2] = [SANDBOX.as_bytes(), b"=[native]"];

fn is_own(source: &[u8]) -> bool {
    OWN_SOURCES.contains(&source)
}

/// Turns an error into the table `{err, source, line}`, which scripts and clients see, as in Redis.
pub unsafe extern "C-unwind" fn error_handler(l: *mut lua_State) -> c_int {
    // SAFETY: called by the machine with the error as the only value; nothing raises.
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
        if let Some((source, line)) = error_place(l) {
            frame.push_bytes(&source);
            frame.set_field("source");
            frame.push_number(f64::from(line));
            frame.set_field("line");
        }
        ffi::lua_settop(l, 1);
        1
    }
}

/// The place in the script where a function of the server was called, if that function raised the
/// error.
fn error_place(l: *mut lua_State) -> Option<(Vec<u8>, c_int)> {
    let mut level = 1;
    let mut place = source_line(l, level)?;
    if place.0 == b"=[C]" {
        level += 1;
        place = source_line(l, level)?;
    }
    // Some of LuaJIT's library functions are written in Lua; their only line is 0.
    while place.1 == 0 || is_own(&place.0) {
        level += 1;
        place = source_line(l, level)?;
    }
    Some(place)
}

/// `tostring` of the error at index 1, without calling any code of the script.
fn describe_error(l: *mut lua_State) -> Vec<u8> {
    // SAFETY: reads the value; a number is converted in place.
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
