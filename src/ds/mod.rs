//! Data structures over packed bytes. `unsafe` lives here and in `sys`.
#![allow(unsafe_code)]

pub mod intset;
pub mod listpack;
pub mod lzf;
mod thin;
