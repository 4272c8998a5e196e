//! MIGRATE. Moving keys to another server is not built yet. The arguments are checked, and missing
//! keys reported, as in Redis.

use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;

/// MIGRATE host port key|"" destination-db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username
/// password] [KEYS key [key ...]]
pub fn migrate(ctx: &mut Ctx) -> CmdResult {
    let keys = parse_keys(ctx)?;
    ctx.int(5)?;
    ctx.int(4)?;
    for key in keys {
        if ctx.server.lookup_read(ctx.client, key).is_some() {
            return Err(Error::of("ERR MIGRATE is not supported yet"));
        }
    }
    ctx.client.reply.status("NOKEY");
    Ok(())
}

/// The keys to move: the third argument, or those after KEYS. `keys::migrate` finds the same keys.
fn parse_keys<'a>(ctx: &Ctx<'a>) -> Result<&'a [&'a [u8]], Error> {
    let argv = ctx.argv;
    let mut at = 6;
    while at < argv.len() {
        let values = argv.len() - 1 - at;
        at += match () {
            () if ctx.is(at, "copy") || ctx.is(at, "replace") => 1,
            () if ctx.is(at, "auth") && values >= 1 => 2,
            () if ctx.is(at, "auth2") && values >= 2 => 3,
            () if ctx.is(at, "keys") && argv[3].is_empty() => return Ok(&argv[at + 1..]),
            () if ctx.is(at, "keys") => {
                return Err(Error::of(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                ));
            }
            () => return Err(Error::SYNTAX),
        };
    }
    Ok(&argv[3..4])
}
