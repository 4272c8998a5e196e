//! Tests with RDB files of newer servers: which of their types are read, refused by name, or left
//! out. The bytes of the files are made by hand, after the layouts in `foreign`.

use super::decode::{Fault, Result};
use super::load::{self, Meta, Sink};
use super::payload::{self, Checks};
use super::*;
use crate::client::Client;
use crate::commands::server::debug::digest::data_set;
use crate::config::Config;
use crate::db::Ttl;
use crate::persist::loading::{Live, LoadOptions, Place, load_stream};
use crate::persist::rio::{Reader, checksum};
use crate::testing;
use crate::types::New;

fn server() -> Server {
    Server::new(Config::default(), Vec::new())
}

/// An RDB file with the bytes `parts` and, behind them, the string key `last`.
fn file(magic: &str, parts: &[u8]) -> Vec<u8> {
    let mut file = [
        magic.as_bytes(),
        b"\xfe\x00",
        parts,
        b"\x00\x04last\x01v\xff",
    ]
    .concat();
    let crc = checksum(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    file
}

/// A sink that records the names of a file's keys, and refuses keys of unknown types.
#[derive(Default)]
struct Names(Vec<String>);

impl Sink for Names {
    fn tick(&mut self, _: u64) -> u64 {
        u64::MAX
    }
    fn aux(&mut self, _: &[u8], _: &[u8]) {}
    fn select_db(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
    fn resize_db(&mut self, _: u64, _: u64, _: u64) {}
    fn function(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn key(&mut self, name: &[u8], _: Meta, _: u8, _: New) -> Result<()> {
        self.0.push(String::from_utf8_lossy(name).into_owned());
        Ok(())
    }
    fn empty_key(&mut self, _: &[u8]) {}
    fn footer(&mut self, found: u64, computed: u64) -> Result<()> {
        assert_eq!(found, computed);
        Ok(())
    }
}

fn names(file: &[u8]) -> Result<Vec<String>> {
    let limits = Limits::of(&server());
    let mut source = file;
    let mut reader = Reader::new(&mut source, Some(file.len() as u64));
    let version = load::read_version(&mut reader, false).expect("a known version");
    let mut sink = Names::default();
    load::read(&mut reader, version, limits, &mut sink).map(|()| sink.0)
}

/// Loads a file with `rdb-skip-unknown yes`; returns the numbers of loaded and of skipped keys.
fn skipping(file: &[u8]) -> (u64, u64) {
    let mut server = server();
    server.config.rdb_skip_unknown = true;
    let mut live = Live {
        server: &mut server,
        el: None,
    };
    live.begin(file.len() as u64);
    let mut source = file;
    let mut reader = Reader::new(&mut source, Some(file.len() as u64));
    let loaded = load_stream(
        &mut live,
        &mut reader,
        Place::Server,
        LoadOptions::default(),
    );
    live.end();
    let counts = loaded.expect("it is readable").counts;
    (counts.loaded, counts.skipped)
}

/// Files with a key `k` of a type that this server does not have: the file's magic, the bytes of
/// the key, and words in the error.
const FOREIGN: [(&str, &[u8], &str); 7] = [
    ("REDIS0014", b"\x1c\x01k\x02\x00\x05\x00\x01x\x07\x0112345678", "an array"),
    ("REDIS0014", b"\x1c\x01k\x01\x01\x03\x05\x03\x01x", "an array"),
    ("REDIS0014", b"\x1e\x01k\x03abc", "a compact hash"),
    (
        "REDIS0014",
        b"\xf2\x07\x02\x01a\x01b\x20\x01k\x07\x01x\xc0\x05",
        "a compact hash",
    ),
    (
        "VALKEY081",
        b"\x17\x01k\x02\x01p\x01\x01f\x01v\x01q\x01\x01f\x01v",
        "a path hash",
    ),
    (
        "REDIS0012",
        b"\x07\x01k\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x05\x05\x02ab\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        "module",
    ),
    ("REDIS0014", RELEASED, "a stream with released entries"),
];

/// A stream without entries, with a group `g` that has one released entry.
const RELEASED: &[u8] = b"\x1b\x01k\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01\
    \x01g\x00\x00\x00\x01\
    \x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\
    \x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\
    \x32\x32\x00\x00\x00";

#[test]
fn a_foreign_key_is_refused_by_name_or_left_out() {
    for (magic, bytes, what) in FOREIGN {
        let file = file(magic, bytes);
        let fault = names(&file).expect_err("a foreign type").to_string();
        assert!(fault.contains(what) && fault.contains("'k'"), "{fault}");
        assert_eq!(skipping(&file), (1, 1), "{what}");
        for cut in 11..file.len() {
            let mut source = &file[..cut];
            let mut reader = Reader::new(&mut source, Some(cut as u64));
            let _ = load::read_version(&mut reader, false);
            let limits = Limits::of(&server());
            assert!(load::read(&mut reader, 14, limits, &mut Names::default()).is_err());
        }
    }
}

#[test]
fn the_versions_in_between_are_refused() {
    let read = |magic: &str| {
        let mut source = magic.as_bytes();
        load::read_version(&mut Reader::new(&mut source, Some(9)), false).is_ok()
    };
    for known in [
        "REDIS0012",
        "REDIS0013",
        "REDIS0014",
        "VALKEY080",
        "VALKEY081",
    ] {
        assert!(read(known), "{known}");
    }
    for unknown in [
        "REDIS0000",
        "REDIS0015",
        "REDIS0079",
        "VALKEY100",
        "VALKEY079",
    ] {
        assert!(!read(unknown), "{unknown}");
    }
}

#[test]
fn metadata_of_keys_are_passed_over() {
    // The bytes have a key with a time to live, and before the key the metadata of a module's
    // class, with an integer and a string.
    let meta =
        b"\xfc\x00\x00\x00\x00\x00\x00\x00\x7f\xf3\x01abcd\x02\x05\x05\x02xy\x00\x00\x01k\x01v";
    let read = names(&file("REDIS0013", meta)).expect("a string");
    assert_eq!(read, ["k", "last"]);
    // In Valkey's files the opcode that Redis 8.6 has for metadata of keys announces an import of
    // slots.
    let import = b"\xf3\x02ab\x01\x05\x06\x00\x01k\x01v";
    let read = names(&file("VALKEY080", import)).expect("a string");
    assert_eq!(read, ["k", "last"]);
}

/// The payload of a stream of Redis 7.2, with the fields that Redis 8.6 appends, restores the
/// stream of Redis 7.2.
#[test]
fn a_stream_of_redis_8_6_is_that_of_7_2_and_its_producers() {
    let mut server = server();
    for line in [
        "XADD s 5-1 a 1",
        "XADD s 6-0 b 2",
        "XGROUP CREATE s g 0",
        "XREADGROUP GROUP g c COUNT 1 STREAMS s >",
    ] {
        let slot = match server.net.clients.len() {
            0 => {
                let client = Client::detached(1, 1000);
                server.net.clients.insert(Box::new(client))
            }
            _ => 0,
        };
        testing::say(&mut server, slot, &[line]);
    }
    let entry = server.lookup_in(0, b"s").expect("a stream");
    let dumped = payload::dump(entry, 11, false);
    let checks = Checks {
        any_version: false,
        skip_checksum: false,
    };
    let (_, body) = payload::open(&dumped, checks).expect("our own");
    assert_eq!(body[0], kind::STREAM_LISTPACKS_3);
    // The bytes of the producers are: duration, maximum, one producer with one id, two counts.
    let producers = b"\x40\x64\x40\x64\x01\x01p\x01\x02id\x05\x01\x02\x00";
    let newer = [&[kind::STREAM_PRODUCERS], &body[1..], producers].concat();
    let wanted = data_set(&server);
    let restored = |version: u32, body: &[u8]| {
        let mut server = self::server();
        let limits = Limits::of(&server);
        payload::restore(version, body, limits, &mut 0, |kind, value| {
            server.set_key(0, b"s", kind, value, Ttl::Clear);
        })?;
        Ok::<String, Fault>(data_set(&server))
    };
    assert_eq!(restored(13, &newer).expect("a stream"), wanted);
    // `with_meta` is a payload with the metadata of a module before the type byte.
    let with_meta = [b"\xf3\x01abcd\x00", &newer[..]].concat();
    assert_eq!(restored(13, &with_meta).expect("a stream"), wanted);
    assert!(restored(13, &newer[..newer.len() - 1]).is_err());
    let array = restored(14, b"\x1c\x01\x00\x05\x00\x01x").expect_err("foreign");
    assert!(array.to_string().contains("an array"), "{array}");
}
