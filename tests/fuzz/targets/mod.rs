//! The fuzz targets: functions that take any bytes and fail by a panic.
//!
//! ```text
//!   make fuzz   libFuzzer -> fuzz_targets/NAME.rs -\
//!                                                   targets::NAME(bytes) -> parser, and what must hold of its answer
//!   make test   seeds, and mutations of them ------/
//! ```
//!
//! A target must not crash. Each target also checks properties of accepted inputs: the result is
//! the same in both directions, when the input is split in any two places, and when the value is
//! written and read again. An input that fails becomes a seed, with a test beside the parser that
//! is named after it.

mod cluster;
mod files;
mod link;
mod packed;
mod replication;
mod script;
mod tape;
mod text;

pub type Target = fn(&[u8]);

/// All targets. Each has a folder of its name in `seeds`, and a program in `fuzz_targets`.
pub const ALL: &[(&str, Target)] = &[
    ("aof", files::aof),
    ("bus", cluster::bus),
    ("cjson", script::cjson),
    ("cmsgpack", script::cmsgpack),
    ("config", text::config),
    ("dialogue", replication::dialogue),
    ("glob", text::glob),
    ("hll", packed::hll),
    ("inline", text::inline),
    ("intset", packed::intset),
    ("link", link::link),
    ("listpack", packed::listpack),
    ("lzf", packed::lzf),
    ("manifest", files::manifest),
    ("nodes_conf", cluster::nodes_conf),
    ("number", text::number),
    ("payload", files::payload),
    ("rdb", files::rdb),
    ("resp", text::resp),
    ("script_reply", script::script_reply),
    ("snapshot", replication::snapshot),
    ("source", script::source),
    ("stream", packed::stream),
    ("struct", script::structs),
    ("syncslots", cluster::sync_slots),
    ("tape", tape::tape),
    ("ziplist", packed::ziplist),
    ("zipmap", packed::zipmap),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = ALL.iter().find(|(known, _)| *known == name);
    target.expect("a target of ALL").1(bytes)
}
