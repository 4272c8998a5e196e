//! Scripts and functions: Lua inside the server.
//!
//! Lua is LuaJIT's interpreter. Its compiler stays off, because compiled loops do not look at hooks, and a
//! hook is what stops a busy script. Its sources are maintained, which the last release of Lua 5.1 is not.

pub mod bit;
pub mod cjson;
pub mod cmsgpack;
pub mod native;
pub mod structs;
