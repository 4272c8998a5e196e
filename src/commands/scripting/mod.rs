//! EVAL and its variants, SCRIPT, FCALL, FUNCTION. `script` runs the scripts.

mod eval;
mod function;
mod script;

use crate::command::ctx::Ctx;
use crate::command::*;
use crate::error::Error;
use crate::util::number::parse_i64;

/// The flags of a command that runs a script or a function.
const RUN: Flags =
    MAY_REPLICATE | NOSCRIPT | STALE | SKIP_MONITOR | NO_MANDATORY_KEYS | SCRIPT_DECIDES;
/// The flags of a command that runs a script or a function which does not write.
const RUN_RO: Flags =
    READONLY | NOSCRIPT | STALE | SKIP_MONITOR | NO_MANDATORY_KEYS | SCRIPT_DECIDES;

const WORST: &str =
    "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE";
const WORST_RO: &str =
    "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS";

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("eval", eval::eval, -3, RUN, SCRIPTING)
        .keys(&[counted_keys(2, RW | ACCESS | UPDATE).note(WORST)]),
    cmd("eval_ro", eval::eval_ro, -3, RUN_RO, SCRIPTING)
        .keys(&[counted_keys(2, RO | ACCESS).note(WORST_RO)]),
    cmd("evalsha", eval::evalsha, -3, RUN, SCRIPTING)
        .keys(&[counted_keys(2, RW | ACCESS | UPDATE)]),
    cmd("evalsha_ro", eval::evalsha_ro, -3, RUN_RO, SCRIPTING)
        .keys(&[counted_keys(2, RO | ACCESS)]),
    cmd("fcall", function::fcall, -3, RUN, SCRIPTING).keys(&[counted_keys(
        2,
        RW | ACCESS | UPDATE,
    )
    .note(WORST)]),
    cmd("fcall_ro", function::fcall_ro, -3, RUN_RO, SCRIPTING).keys(&[counted_keys(
        2,
        RO | ACCESS,
    )
    .note(WORST_RO)]),
    cmd("function", container, -2, NONE, NONE_CAT).subcommands(&[
        cmd("delete", function::delete, 3, WRITE | NOSCRIPT, SCRIPTING)
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        cmd("dump", function::dump, 2, NOSCRIPT, SCRIPTING),
        cmd("flush", function::flush, -2, WRITE | NOSCRIPT, SCRIPTING)
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        cmd("help", function::help, 2, LOADING | STALE, SCRIPTING),
        cmd("kill", function::kill, 2, NOSCRIPT | ALLOW_BUSY, SCRIPTING)
            .tips(&["request_policy:all_shards", "response_policy:one_succeeded"]),
        cmd("list", function::list, -2, NOSCRIPT, SCRIPTING)
            .tips(&["nondeterministic_output_order"]),
        cmd(
            "load",
            function::load,
            -3,
            WRITE | DENYOOM | NOSCRIPT,
            SCRIPTING,
        )
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        cmd(
            "restore",
            function::restore,
            -3,
            WRITE | DENYOOM | NOSCRIPT,
            SCRIPTING,
        )
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        cmd(
            "stats",
            function::stats,
            2,
            NOSCRIPT | ALLOW_BUSY,
            SCRIPTING,
        )
        .tips(&[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ]),
    ]),
    cmd("script", container, -2, NONE, NONE_CAT).subcommands(&[
        cmd("debug", script::debug, 3, NOSCRIPT, SCRIPTING),
        cmd("exists", script::exists, -3, NOSCRIPT, SCRIPTING).tips(&[
            "request_policy:all_shards",
            "response_policy:agg_logical_and",
        ]),
        cmd("flush", script::flush, -2, NOSCRIPT, SCRIPTING)
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        cmd("help", script::help, 2, LOADING | STALE, SCRIPTING),
        cmd("kill", script::kill, 2, NOSCRIPT | ALLOW_BUSY, SCRIPTING)
            .tips(&["request_policy:all_shards", "response_policy:one_succeeded"]),
        cmd("load", script::load, 3, NOSCRIPT | STALE, SCRIPTING)
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        cmd("show", script::show, 3, NOSCRIPT, SCRIPTING),
    ]),
];

/// Some consecutive arguments of a command, such as its keys.
type Args<'a> = &'a [&'a [u8]];

/// Splits `numkeys key ... arg ...`, from the third argument on, into the keys and the other
/// arguments.
fn keys_and_arguments<'a>(
    ctx: &Ctx<'a>,
    not_a_number: Error,
) -> Result<(Args<'a>, Args<'a>), Error> {
    let count = parse_i64(ctx.argv[2]).ok_or(not_a_number)?;
    let rest = &ctx.argv[3..];
    if count > rest.len() as i64 {
        return Err(Error::of(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let count =
        usize::try_from(count).map_err(|_| Error::of("ERR Number of keys can't be negative"))?;
    Ok(rest.split_at(count))
}
