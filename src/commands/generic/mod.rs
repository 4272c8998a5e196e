//! Commands on keys of any type: names, times to live, iteration.
//!
//! ```text
//!   names    COPY DEL EXISTS MOVE RANDOMKEY RENAME TOUCH TYPE UNLINK, and whole databases: FLUSHALL SWAPDB
//!   expire   EXPIRE and its variants, TTL, PERSIST: an expiry time is kept as Unix time in milliseconds
//!   scan     KEYS, SCAN
//!   migrate  MIGRATE
//!   object   OBJECT: how a value is stored and used
//!   dump     DUMP, RESTORE: a value as bytes
//!   wait     WAIT, WAITAOF
//! ```
//!
//! **Invariant:** no command here replies with an expired key (`tests/transcripts/keys.txt`).

mod dump;
mod expire;
pub mod migrate;
mod names;
mod object;
pub mod scan;
pub mod wait;

use crate::command::keys as find_keys;
use crate::command::*;

use dump::{dump, restore};
use expire::{expire, expireat, expiretime, persist, pexpire, pexpireat, pexpiretime, pttl, ttl};
use migrate::migrate;
use names::{
    copy, dbsize, del, exists, flushall, flushdb, move_command, randomkey, rename, renamenx,
    swapdb, touch, type_command, unlink,
};
pub use object::refcount;
use object::{object_encoding, object_freq, object_help, object_idletime, object_refcount};
pub use scan::{ScanOf, ScanOptions, parse_cursor, reply_nothing_found};
use scan::{keys, scan};
use wait::{wait, waitaof};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("copy", copy, -3, WRITE | DENYOOM, KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS), key_at(2, OW | UPDATE)])
        .databases(databases::copy),
    cmd("dbsize", dbsize, 1, READONLY | FAST, KEYSPACE)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"]),
    cmd("del", del, -2, WRITE, KEYSPACE)
        .keys(&[key(RM | DELETE, index(1), range(-1, 1, 0))])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    cmd("dump", dump, 2, READONLY, KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("exists", exists, -2, READONLY | FAST, KEYSPACE)
        .keys(&[key(RO, index(1), range(-1, 1, 0))])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    cmd("expire", expire, -3, WRITE | FAST, KEYSPACE).keys(&[key_at(1, RW | UPDATE)]),
    cmd("expireat", expireat, -3, WRITE | FAST, KEYSPACE).keys(&[key_at(1, RW | UPDATE)]),
    cmd("expiretime", expiretime, 2, READONLY | FAST, KEYSPACE).keys(&[key_at(1, RO | ACCESS)]),
    cmd(
        "flushall",
        flushall,
        -1,
        WRITE | ALL_DATABASES,
        KEYSPACE | DANGEROUS,
    )
    .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    cmd("flushdb", flushdb, -1, WRITE, KEYSPACE | DANGEROUS)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    cmd("keys", keys, 2, READONLY, KEYSPACE | DANGEROUS)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"]),
    cmd("migrate", migrate, -6, WRITE, KEYSPACE | DANGEROUS)
        .role(Role::Migrate)
        .keys(&[
            key_at(3, RW | ACCESS | DELETE),
            key(
                RW | ACCESS | DELETE | INCOMPLETE,
                keyword("KEYS", -2),
                range(-1, 1, 0),
            ),
        ])
        .get_keys(find_keys::migrate)
        .tips(&["nondeterministic_output"]),
    cmd("move", move_command, 3, WRITE | FAST, KEYSPACE)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .databases(databases::move_key),
    cmd("object", container, -2, NONE, NONE_CAT).subcommands(&[
        cmd("encoding", object_encoding, 3, READONLY, KEYSPACE)
            .keys(&[key_at(2, RO)])
            .tips(&["nondeterministic_output"]),
        cmd("freq", object_freq, 3, READONLY, KEYSPACE)
            .keys(&[key_at(2, RO)])
            .tips(&["nondeterministic_output"]),
        cmd("help", object_help, 2, LOADING | STALE, KEYSPACE),
        cmd("idletime", object_idletime, 3, READONLY, KEYSPACE)
            .keys(&[key_at(2, RO)])
            .tips(&["nondeterministic_output"]),
        cmd("refcount", object_refcount, 3, READONLY, KEYSPACE)
            .keys(&[key_at(2, RO)])
            .tips(&["nondeterministic_output"]),
    ]),
    cmd("persist", persist, 2, WRITE | FAST, KEYSPACE).keys(&[key_at(1, RW | UPDATE)]),
    cmd("pexpire", pexpire, -3, WRITE | FAST, KEYSPACE).keys(&[key_at(1, RW | UPDATE)]),
    cmd("pexpireat", pexpireat, -3, WRITE | FAST, KEYSPACE).keys(&[key_at(1, RW | UPDATE)]),
    cmd("pexpiretime", pexpiretime, 2, READONLY | FAST, KEYSPACE).keys(&[key_at(1, RO | ACCESS)]),
    cmd("pttl", pttl, 2, READONLY | FAST, KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("randomkey", randomkey, 1, READONLY, KEYSPACE).tips(&[
        "request_policy:all_shards",
        "response_policy:special",
        "nondeterministic_output",
    ]),
    cmd("rename", rename, 3, WRITE, KEYSPACE)
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, OW | UPDATE)]),
    cmd("renamenx", renamenx, 3, WRITE | FAST, KEYSPACE)
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, OW | INSERT)]),
    cmd(
        "restore",
        restore,
        -4,
        WRITE | DENYOOM,
        KEYSPACE | DANGEROUS,
    )
    .keys(&[key_at(1, OW | UPDATE)]),
    cmd(
        "restore-asking",
        restore,
        -4,
        WRITE | DENYOOM | ASKING,
        KEYSPACE | DANGEROUS,
    )
    .keys(&[key_at(1, OW | UPDATE)]),
    cmd("scan", scan, -2, READONLY, KEYSPACE).tips(&[
        "nondeterministic_output",
        "request_policy:special",
        "response_policy:special",
    ]),
    cmd("swapdb", swapdb, 3, WRITE | FAST, KEYSPACE | DANGEROUS).databases(databases::swapdb),
    cmd("touch", touch, -2, READONLY | FAST, KEYSPACE)
        .keys(&[key(RO, index(1), range(-1, 1, 0))])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    cmd("ttl", ttl, 2, READONLY | FAST, KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"]),
    cmd("type", type_command, 2, READONLY | FAST, KEYSPACE).keys(&[key_at(1, RO)]),
    cmd("unlink", unlink, -2, WRITE | FAST, KEYSPACE)
        .keys(&[key(RM | DELETE, index(1), range(-1, 1, 0))])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    cmd("wait", wait, 3, BLOCKING, CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
    cmd("waitaof", waitaof, 4, BLOCKING, CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
];
