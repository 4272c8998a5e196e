//! EVAL, EVALSHA, and their read-only forms.

use super::keys_and_arguments;
use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::config::Config;
use crate::error::{Error, said};
use crate::script::cache::{Script, sha_of};
use crate::script::engine::Engine;
use crate::script::run::{self, Job};
use crate::script::{self, ScriptKind, flags};
use crate::texts;

/// The name of scripts of EVAL in error messages; Lua takes a name with `@` for that of a file.
const CHUNK_NAME: &std::ffi::CStr = c"@user_script";

/// EVAL script numkeys [key ...] [arg ...]
pub fn eval(ctx: &mut Ctx) -> CmdResult {
    eval_generic(ctx, false)
}

/// EVAL_RO script numkeys [key ...] [arg ...]
pub fn eval_ro(ctx: &mut Ctx) -> CmdResult {
    eval_generic(ctx, true)
}

/// EVALSHA sha1 numkeys [key ...] [arg ...]
pub fn evalsha(ctx: &mut Ctx) -> CmdResult {
    evalsha_generic(ctx, false)
}

/// EVALSHA_RO sha1 numkeys [key ...] [arg ...]
pub fn evalsha_ro(ctx: &mut Ctx) -> CmdResult {
    evalsha_generic(ctx, true)
}

fn eval_generic(ctx: &mut Ctx, read_only: bool) -> CmdResult {
    script::begin(ctx.server, ctx.client, ctx.argv)?;
    if ctx.client.has(flag::SCRIPT_DEBUG) {
        return script::debug::session(ctx, |ctx| eval_now(ctx, read_only));
    }
    eval_now(ctx, read_only)
}

fn eval_now(ctx: &mut Ctx, read_only: bool) -> CmdResult {
    let (keys, argv) = keys_and_arguments(ctx, Error::NOT_INTEGER)?;
    let mut engine = take_engine(ctx)?;
    let result = place_of(ctx, &mut engine, ctx.argv[1], true)
        .and_then(|place| run_at(ctx, &mut engine, place, read_only, keys, argv));
    ctx.server.scripting.eval = Some(engine);
    result
}

fn evalsha_generic(ctx: &mut Ctx, read_only: bool) -> CmdResult {
    if ctx.client.has(flag::SCRIPT_DEBUG) {
        return Err(Error::of(
            "ERR Please use EVAL instead of EVALSHA for debugging",
        ));
    }
    // An argument that can't be a SHA-1 is refused before the number of keys is parsed.
    if ctx.argv[1].len() != 40 {
        return Err(no_script(&ctx.server.config));
    }
    script::begin(ctx.server, ctx.client, ctx.argv)?;
    let (keys, argv) = keys_and_arguments(ctx, Error::NOT_INTEGER)?;
    let place = ctx
        .server
        .scripting
        .scripts
        .by_sha(ctx.argv[1])
        .ok_or_else(|| no_script(&ctx.server.config))?;
    let mut engine = take_engine(ctx)?;
    let result = run_at(ctx, &mut engine, place, read_only, keys, argv);
    ctx.server.scripting.eval = Some(engine);
    result
}

/// The NOSCRIPT error, for a SHA-1 of which there is no script.
pub fn no_script(config: &Config) -> Error {
    Error::of(config.text(texts::NO_SCRIPT))
}

fn take_engine(ctx: &mut Ctx) -> Result<Box<Engine>, Error> {
    let insecure = ctx.server.config.lua_enable_insecure_api;
    ctx.server.scripting.take_eval(insecure)
}

fn run_at(
    ctx: &mut Ctx,
    engine: &mut Engine,
    place: u32,
    read_only: bool,
    keys: &[&[u8]],
    argv: &[&[u8]],
) -> CmdResult {
    ctx.server.scripting.scripts.touch(place);
    let script = ctx
        .server
        .scripting
        .scripts
        .get(place)
        .ok_or_else(|| no_script(&ctx.server.config))?;
    let sha = script.sha;
    let job = Job {
        kind: ScriptKind::Eval,
        function: script.function,
        name: std::str::from_utf8(&sha).unwrap_or_default(),
        flags: script.flags,
        read_only,
        keys,
        argv,
    };
    run::run(ctx, engine, &job)
}

/// The index of a script in the cache of scripts. A new script is compiled and added, and a new
/// script of EVAL may evict an older one from the cache.
fn place_of(
    ctx: &mut Ctx,
    engine: &mut Engine,
    source: &[u8],
    by_eval: bool,
) -> Result<u32, Error> {
    let hash = ctx.server.seed.hash(source);
    let scripting = &mut ctx.server.scripting;
    if let Some(place) = scripting.scripts.by_source(hash, source) {
        return Ok(place);
    }
    let sha = sha_of(source);
    if let Some(place) = scripting.scripts.by_sha(&sha) {
        return Ok(place);
    }
    let (flags, begin) = flags::of_script(source, ctx.server.config.words())?;
    let function = engine
        .compile(&source[begin..], CHUNK_NAME)
        .map_err(|message| {
            let message = said(&message);
            Error::new(format!(
                "ERR Error compiling script (new function): {message}"
            ))
        })?;
    let place = scripting.scripts.insert(hash, sha, source, function, flags);
    if by_eval && let Some(Script { function, .. }) = scripting.scripts.enlist(place) {
        engine.vm.release(function);
        ctx.server.stats.evicted_scripts += 1;
    }
    Ok(place)
}

/// SCRIPT LOAD script
pub fn load(ctx: &mut Ctx) -> CmdResult {
    let mut engine = take_engine(ctx)?;
    let place = place_of(ctx, &mut engine, ctx.argv[2], false);
    let scripting = &mut ctx.server.scripting;
    scripting.eval = Some(engine);
    let place = place?;
    scripting.scripts.pin(place);
    let script = scripting
        .scripts
        .get(place)
        .ok_or_else(|| no_script(&ctx.server.config))?;
    ctx.client.reply.bulk(&script.sha);
    Ok(())
}
