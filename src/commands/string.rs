//! Strings.

use crate::commands::command::*;
use crate::commands::ctx::{CmdResult, Ctx};
use crate::db::{Ttl, notify};
use crate::types::string::{StrView, encode};
use crate::util::number::IntBuf;

pub const TABLE: &[Command] = &[
    cmd("get", get, 2, READONLY | FAST, STRING).keys(&[key(RO | ACCESS, index(1), range(0, 1, 0))]),
    cmd("set", set, -3, WRITE | DENYOOM, STRING).keys(&[key(
        RW | ACCESS | UPDATE | VARIABLE_FLAGS,
        index(1),
        range(0, 1, 0),
    )]),
];

/// GET key
fn get(ctx: &mut Ctx) -> CmdResult {
    match ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        None => ctx.client.reply.null(),
        Some(entry) => {
            let value = StrView::of(entry)?;
            ctx.client.reply.bulk(value.bytes(&mut IntBuf::new()));
        }
    }
    Ok(())
}

/// SET key value
fn set(ctx: &mut Ctx) -> CmdResult {
    let key = ctx.argv[1];
    let (kind, value) = encode(ctx.argv[2], ctx.shared_arg(2));
    ctx.server
        .set_key(ctx.client.db, key, kind, value, Ttl::Clear);
    ctx.dirty(1);
    ctx.changed(key, notify::STRING, "set");
    ctx.client.reply.ok();
    Ok(())
}
