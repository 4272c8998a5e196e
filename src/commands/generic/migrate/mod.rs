//! MIGRATE: moves keys to another server. This module checks the arguments and blocks the client;
//! `networking::migrate` moves the keys while other clients go on. A transaction or a script can't
//! be interrupted: for these, `at_once` moves the keys.

mod at_once;
pub mod wire;

use crate::client::blocked::BlockKind;
use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::execute::blocked;
use crate::execute::migration::{Destination, Migration};
use crate::util::number::parse_i64;

/// The error for MIGRATE in a primary's stream or an AOF: MIGRATE is propagated as DEL.
const NOT_HERE: Error = Error::of("ERR MIGRATE is not a command of a primary's stream or an AOF");
/// The timeout of MIGRATE, in milliseconds, if the client's timeout is not positive.
const DEFAULT_TIMEOUT_MS: u64 = 1000;

/// MIGRATE host port key|"" destination-db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username
/// password] [KEYS key [key ...]]
pub fn migrate(ctx: &mut Ctx) -> CmdResult {
    let options = MigrateOptions::parse(ctx)?;
    let timeout = ctx.int(5)?;
    let to_db = ctx.int(4)?;
    let mut there = Vec::new();
    for &key in options.keys {
        if ctx.server.lookup_read(ctx.client, key).is_some() {
            there.push(key.into());
        }
    }
    if there.is_empty() {
        ctx.client.reply.status("NOKEY");
        return Ok(());
    }
    if ctx.client.must_obey() {
        return Err(NOT_HERE);
    }
    let port = parse_i64(ctx.argv[2]).unwrap_or(0);
    if port < 0 {
        return Err(Error::of("IOERR error or timeout connecting to the client"));
    }
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    let destination = Destination {
        host: String::from_utf8_lossy(ctx.argv[1]).into_owned(),
        port: port.ok_or(Error::of(
            "IOERR error or timeout writing to target instance",
        ))?,
        account: options.account,
    };
    let timeout_ms = u64::try_from(timeout).ok().filter(|ms| *ms > 0);
    let migration = Migration {
        client: ctx.client.reference(),
        destination,
        db: ctx.client.db,
        to_db,
        timeout_ms: timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
        copy: options.copy,
        replace: options.replace,
        queue: there.into(),
        due: Default::default(),
        restored: Vec::new(),
        error: None,
        round: 0,
        is_selected: false,
        may_retry: false,
    };
    if ctx.client.has(flag::DENY_BLOCKING) {
        return at_once::migrate(ctx, migration);
    }
    ctx.server.migrations.requested.push(migration);
    blocked::block(ctx.server, ctx.client, BlockKind::Migrate, ctx.argv, 0);
    Ok(())
}

/// The arguments of MIGRATE after the timeout.
struct MigrateOptions<'a> {
    copy: bool,
    replace: bool,
    account: Option<(Option<String>, String)>,
    /// The keys to move: the third argument, or those after KEYS. `keys::migrate`, the function of
    /// MIGRATE's row, finds the same keys.
    keys: &'a [&'a [u8]],
}

impl<'a> MigrateOptions<'a> {
    fn parse(ctx: &Ctx<'a>) -> Result<MigrateOptions<'a>, Error> {
        let argv = ctx.argv;
        let text = |at: usize| String::from_utf8_lossy(argv[at]).into_owned();
        let mut options = MigrateOptions {
            copy: false,
            replace: false,
            account: None,
            keys: &argv[3..4],
        };
        let mut at = 6;
        while at < argv.len() {
            let values = argv.len() - 1 - at;
            if ctx.is(at, "copy") {
                options.copy = true;
            } else if ctx.is(at, "replace") {
                options.replace = true;
            } else if ctx.is(at, "auth") && values >= 1 {
                options.account = Some((None, text(at + 1)));
                at += 1;
            } else if ctx.is(at, "auth2") && values >= 2 {
                options.account = Some((Some(text(at + 1)), text(at + 2)));
                at += 2;
            } else if ctx.is(at, "keys") && argv[3].is_empty() {
                options.keys = &argv[at + 1..];
                break;
            } else if ctx.is(at, "keys") {
                return Err(Error::of(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                ));
            } else {
                return Err(Error::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }
}
