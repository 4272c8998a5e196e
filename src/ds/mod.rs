//! Data structures over packed bytes. `unsafe` lives here and in `sys`.
#![allow(unsafe_code)]

pub mod member;
pub mod zset_tree;
