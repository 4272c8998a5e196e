//! The DEBUG subcommands that end the process (by a signal, a panic, or exhausted memory) or
//! restart it.

use std::time::Duration;

use crate::client::flag;
use crate::command::ctx::{CmdResult, Ctx};
use crate::config::{Extent, ShutdownFlags, rewrite};
use crate::error::Error;
use crate::server::shutdown;
use crate::sys;
use crate::sys::tape;
use crate::util::number::parse_i64;

/// DEBUG SEGFAULT
pub fn segfault(_: &mut Ctx) -> CmdResult {
    tape::not_recorded("DEBUG SEGFAULT");
    // The server sends itself the signal that the kernel would send at an invalid access.
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV)
        .map_err(|error| Error::new(format!("ERR {error}")))
}

/// DEBUG PANIC
pub fn panic_now(_: &mut Ctx) -> CmdResult {
    panic!("called by DEBUG PANIC")
}

/// DEBUG ASSERT
pub fn assert_now(ctx: &mut Ctx) -> CmdResult {
    assert!(ctx.argv.is_empty(), "called by DEBUG ASSERT");
    Ok(())
}

/// DEBUG OOM
pub fn oom(ctx: &mut Ctx) -> CmdResult {
    // No address space has room for `isize::MAX` bytes: the failed allocation ends the process.
    let memory: Vec<u8> = Vec::with_capacity(isize::MAX as usize);
    ctx.client.reply.bulk(&memory);
    Ok(())
}

/// The delay of DEBUG RESTART; an argument that is not a number means no delay.
fn restart_delay(ctx: &Ctx) -> Duration {
    let ms = ctx.argv.get(2).and_then(|text| parse_i64(text));
    Duration::from_millis(ms.unwrap_or(0).max(0) as u64)
}

/// DEBUG RESTART [milliseconds]
pub fn restart(ctx: &mut Ctx) -> CmdResult {
    if ctx.client.has(flag::DENY_BLOCKING) {
        return Err(Error::of(
            "ERR DEBUG RESTART isn't allowed for DENY BLOCKING client",
        ));
    }
    if ctx.server.shutdown.pending.is_some() {
        return Err(Error::of(
            "ERR failed to restart the server. Check server logs.",
        ));
    }
    if ctx.server.config.file.is_some() {
        rewrite(&ctx.server.config, Extent::Changed).map_err(|e| Error::new(format!("ERR {e}")))?;
    }
    let delay = restart_delay(ctx);
    ctx.server.shutdown.restart = Some(shutdown::Restart {
        delay,
        ..Default::default()
    });
    let options = ShutdownFlags {
        now: true,
        ..Default::default()
    };
    shutdown::request(ctx.server, ctx.client, ctx.argv, options);
    Ok(())
}

/// DEBUG CRASH-AND-RECOVER [milliseconds]
pub fn crash_and_recover(ctx: &mut Ctx) -> CmdResult {
    tape::not_recorded("DEBUG CRASH-AND-RECOVER");
    let delay = restart_delay(ctx);
    let wanted = shutdown::Restart {
        delay,
        ..Default::default()
    };
    let error = shutdown::restart(ctx.server, wanted);
    Err(Error::new(format!(
        "ERR failed to restart the server: {}",
        sys::error_text(&error)
    )))
}
