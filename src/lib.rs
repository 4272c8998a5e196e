//! aeris: a Redis-compatible server. One thread owns every data structure and runs one event loop.
#![deny(unsafe_code)]

pub mod config;
pub mod ds;
pub mod sys;
pub mod util;
