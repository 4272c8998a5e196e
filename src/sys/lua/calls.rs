//! The call stack of a running script: which functions are being called, where, and by which name.
//!
//! ```text
//!   level 0   the function of C that asks
//!   level 1   its caller ..
//!   level n   the function of the script that is asked for
//! ```
//!
//! The levels of the server's own Lua code are passed over, since an error must name a line of the
//! script.

use mlua::ffi::{self, lua_State};
use std::ffi::{CStr, c_int};

/// The source name of the server's own Lua code: errors in this code are reported at the line of
/// the script that called it.
pub const SANDBOX: &str = "=sandbox";
const OWN_SOURCES: [&[u8]; 2] = [SANDBOX.as_bytes(), b"=[native]"];
const LIBRARY: &[u8] = b"=[C]";

/// The maximum level of the call stack that is searched: to find a level takes time in proportion
/// to its number.
const LEVELS_MAX: c_int = 250;
/// A level of the call stack at which there is never a function.
const NO_LEVEL: c_int = c_int::MAX;

fn is_own(source: &[u8]) -> bool {
    OWN_SOURCES.contains(&source)
}

/// The functions that are being called, innermost first.
pub struct Calls {
    l: *mut lua_State,
}

/// A function on the call stack.
pub struct Caller {
    /// The name of the chunk in messages: `user_script`, `[string "..."]`.
    pub chunk: Vec<u8>,
    /// The line that runs; 0 or -1 if the function is not one of the script.
    pub line: c_int,
    /// Whether the call gives the function a name, as `f()` does.
    pub is_named: bool,
    /// Whether the function is written in C.
    pub is_library: bool,
    /// Whether an operator has called the function, as a metamethod.
    pub is_metamethod: bool,
}

impl Calls {
    /// # Safety
    /// `l` must be the Lua state of a call that runs as long as the returned value is used.
    pub unsafe fn of(l: *mut lua_State) -> Calls {
        Calls { l }
    }

    /// Lua's debug information of the kinds `what` on a level of the call stack; `None` if there is
    /// no such level.
    fn info(&self, level: c_int, what: &CStr) -> Option<ffi::lua_Debug> {
        // SAFETY: `Calls::of` was given the state of a running call; `lua_getstack` says whether
        // the level exists, and then `ar` is filled.
        unsafe {
            let mut ar: ffi::lua_Debug = std::mem::zeroed();
            let found = ffi::lua_getstack(self.l, level, &mut ar) != 0
                && ffi::lua_getinfo(self.l, what.as_ptr(), &mut ar) != 0;
            found.then_some(ar)
        }
    }

    /// The source and the present line of the function at a level of the call stack. The source of
    /// a chunk without a name is its whole text.
    fn place(&self, level: c_int) -> Option<(&[u8], c_int)> {
        let ar = self.info(level, c"Sl")?;
        // SAFETY: the text of the source belongs to a function that is being called as long as
        // `self` is used.
        let source = unsafe { CStr::from_ptr(ar.source) };
        Some((source.to_bytes(), ar.currentline))
    }

    /// What Lua's debug interface knows of the function at this level of the call stack.
    pub fn caller(&self, level: c_int) -> Option<Caller> {
        let ar = self.info(level, c"Snl")?;
        // SAFETY: the texts of `ar` live as long as the level of the call stack.
        unsafe {
            let is_own = is_own(CStr::from_ptr(ar.source).to_bytes());
            Some(Caller {
                line: if is_own { 0 } else { ar.currentline },
                chunk: CStr::from_ptr(ar.short_src.as_ptr()).to_bytes().to_vec(),
                is_named: !ar.name.is_null(),
                is_library: CStr::from_ptr(ar.what) == c"C",
                is_metamethod: is_metamethod(&ar),
            })
        }
    }

    /// The name by which the function at a level of the call stack was called, and whether it was
    /// called as a method. Lua 5.1 has no names for metamethods.
    pub fn name(&self, level: c_int) -> Option<(Vec<u8>, bool)> {
        let ar = self.info(level, c"n")?;
        if ar.name.is_null() || is_metamethod(&ar) {
            return None;
        }
        // SAFETY: the name and its kind live as long as the level of the call stack.
        unsafe {
            let name = CStr::from_ptr(ar.name).to_bytes().to_vec();
            Some((name, CStr::from_ptr(ar.namewhat) == c"method"))
        }
    }

    /// The level and the line of the innermost function of the script.
    pub fn innermost_of_script(&self) -> Option<(c_int, c_int)> {
        (1..)
            .map_while(|level| Some((level, self.place(level)?)))
            .find_map(|(level, (source, line))| {
                let of_script = line > 0 && source != LIBRARY && !is_own(source);
                of_script.then_some((level, line))
            })
    }

    /// Converts the level that a script passes to `error` to the level for LuaJIT's `error`:
    /// `wanted` counts functions of the script and of libraries, the result also counts the
    /// server's own Lua functions. [`NO_LEVEL`] if there is a library function at the level, or no
    /// function.
    pub fn level_of_script(&self, wanted: c_int) -> c_int {
        let (mut level, mut passed) = (1, 0);
        while passed < wanted && level < LEVELS_MAX {
            level += 1;
            match self.place(level) {
                None => return NO_LEVEL,
                Some((source, _)) if is_own(source) => {}
                Some(_) => passed += 1,
            }
        }
        match self.place(level) {
            Some((_, line)) if line > 0 && passed == wanted => level - 1,
            _ => NO_LEVEL,
        }
    }

    /// The source and the line of an error: those of the call in the script, if a function of the
    /// server raised the error.
    pub fn place_of_error(&self) -> Option<(Vec<u8>, c_int)> {
        let mut level = 1;
        let mut place = self.place(level)?;
        if place.0 == LIBRARY {
            level += 1;
            place = self.place(level)?;
        }
        // Some of LuaJIT's library functions are written in Lua; their only line is 0.
        while place.1 == 0 || is_own(place.0) {
            level += 1;
            place = self.place(level)?;
        }
        Some((place.0.to_vec(), place.1))
    }
}

fn is_metamethod(ar: &ffi::lua_Debug) -> bool {
    // SAFETY: a text that `lua_getinfo` has set is a C string of the interpreter.
    !ar.namewhat.is_null() && unsafe { CStr::from_ptr(ar.namewhat) } == c"metamethod"
}
