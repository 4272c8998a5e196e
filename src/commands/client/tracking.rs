//! CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO: the commands of client-side caching, see
//! `crate::tracking`.

use crate::client::flag::{
    TRACKING, TRACKING_BCAST, TRACKING_BROKEN_REDIR, TRACKING_CACHING, TRACKING_NOLOOP,
    TRACKING_OPTIN, TRACKING_OPTOUT,
};
use crate::command::ctx::{CmdResult, Ctx};
use crate::error::Error;
use crate::tracking::{self, TrackingOptions, overlap};
use crate::util::number::parse_i64;

/// CLIENT TRACKING ON | OFF [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST]
/// [OPTIN] [OPTOUT] [NOLOOP]
pub fn client_tracking(ctx: &mut Ctx) -> CmdResult {
    let options = parse(ctx)?;
    if ctx.is(2, "on") {
        check(ctx, &options)?;
        tracking::start(ctx.server, ctx.client, &options);
    } else if ctx.is(2, "off") {
        tracking::stop(ctx.server, ctx.client);
    } else {
        return Err(Error::SYNTAX);
    }
    ctx.client.reply.ok();
    Ok(())
}

fn parse<'a>(ctx: &Ctx<'a>) -> Result<TrackingOptions<'a>, Error> {
    let mut options = TrackingOptions::default();
    let mut at = 3;
    while at < ctx.argv.len() {
        let value = ctx.argv.get(at + 1).copied();
        match value {
            Some(id) if ctx.is(at, "redirect") => {
                if options.redirect != 0 {
                    return Err(Error::of(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                options.redirect = redirect_target(ctx, id)?;
                at += 1;
            }
            Some(prefix) if ctx.is(at, "prefix") => {
                options.prefixes.push(prefix);
                at += 1;
            }
            _ => options.flags |= mode(ctx, at)?,
        }
        at += 1;
    }
    Ok(options)
}

/// Parses the client id of the option REDIRECT; the client must exist now, but may disconnect
/// later.
fn redirect_target(ctx: &Ctx, text: &[u8]) -> Result<u64, Error> {
    let id = parse_i64(text).ok_or(Error::NOT_INTEGER)?;
    u64::try_from(id)
        .ok()
        .filter(|id| ctx.server.net.clients.reference_of(*id).is_some())
        .ok_or(Error::of(
            "ERR The client ID you want redirect to does not exist",
        ))
}

fn mode(ctx: &Ctx, at: usize) -> Result<u64, Error> {
    let modes = [
        ("bcast", TRACKING_BCAST),
        ("optin", TRACKING_OPTIN),
        ("optout", TRACKING_OPTOUT),
        ("noloop", TRACKING_NOLOOP),
    ];
    let said = modes.iter().find(|(name, _)| ctx.is(at, name));
    said.map(|(_, flag)| *flag).ok_or(Error::SYNTAX)
}

/// Refuses options of CLIENT TRACKING that contradict each other or the client's present mode.
fn check(ctx: &Ctx, options: &TrackingOptions) -> Result<(), Error> {
    let wants = |bits: u64| options.flags & bits != 0;
    let c = &ctx.client;
    if !wants(TRACKING_BCAST) && !options.prefixes.is_empty() {
        return Err(Error::of(
            "ERR PREFIX option requires BCAST mode to be enabled",
        ));
    }
    if c.has(TRACKING) && c.has(TRACKING_BCAST) != wants(TRACKING_BCAST) {
        return Err(Error::of(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        ));
    }
    if wants(TRACKING_BCAST) && wants(TRACKING_OPTIN | TRACKING_OPTOUT) {
        return Err(Error::of(
            "ERR OPTIN and OPTOUT are not compatible with BCAST",
        ));
    }
    if wants(TRACKING_OPTIN) && wants(TRACKING_OPTOUT) {
        return Err(Error::of(
            "ERR You can't specify both OPTIN mode and OPTOUT mode",
        ));
    }
    if wants(TRACKING_OPTIN) && c.has(TRACKING_OPTOUT)
        || wants(TRACKING_OPTOUT) && c.has(TRACKING_OPTIN)
    {
        return Err(Error::of(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        ));
    }
    check_prefixes(ctx, &options.prefixes)
}

/// Refuses prefixes of which one is the beginning of another: a change of a key that has both
/// prefixes would be reported twice.
fn check_prefixes(ctx: &Ctx, prefixes: &[&[u8]]) -> Result<(), Error> {
    let refuse = |prefix: &[u8], what: &str, other: &[u8]| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Err(Error::new(format!(
            "ERR Prefix '{}' overlaps with {what} prefix '{}'. Prefixes for a single client must not overlap.",
            text(prefix),
            text(other)
        )))
    };
    let existing = ctx.server.tracking.prefixes_of(ctx.client.id);
    for (i, prefix) in prefixes.iter().enumerate() {
        if let Some(other) = existing.iter().find(|other| overlap(prefix, other)) {
            return refuse(prefix, "an existing", other);
        }
        if let Some(other) = prefixes[i + 1..]
            .iter()
            .find(|other| overlap(prefix, other))
        {
            return refuse(prefix, "another provided", other);
        }
    }
    Ok(())
}

/// CLIENT CACHING YES | NO
pub fn client_caching(ctx: &mut Ctx) -> CmdResult {
    let c = &ctx.client;
    if !c.has(TRACKING) {
        return Err(Error::of(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
             mode enabled",
        ));
    }
    if ctx.is(2, "yes") {
        if !c.has(TRACKING_OPTIN) {
            return Err(Error::of(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
    } else if ctx.is(2, "no") {
        if !c.has(TRACKING_OPTOUT) {
            return Err(Error::of(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
    } else {
        return Err(Error::SYNTAX);
    }
    tracking::set_caching(ctx.server, ctx.client, true);
    ctx.client.reply.ok();
    Ok(())
}

/// The id of the client to which the calling client redirects: 0 for none, -1 if tracking is off.
fn redirect_of(ctx: &Ctx) -> i64 {
    let redirect = ctx.server.tracking.redirect_of(ctx.client.id);
    redirect.map_or(-1, |id| id as i64)
}

/// CLIENT GETREDIR
pub fn client_getredir(ctx: &mut Ctx) -> CmdResult {
    let redirect = redirect_of(ctx);
    ctx.client.reply.integer(redirect);
    Ok(())
}

/// CLIENT TRACKINGINFO
pub fn client_trackinginfo(ctx: &mut Ctx) -> CmdResult {
    let redirect = redirect_of(ctx);
    let c = &mut *ctx.client;
    let caching = c.has(TRACKING_CACHING);
    let words = [
        (!c.has(TRACKING), "off"),
        (c.has(TRACKING), "on"),
        (c.has(TRACKING_BCAST), "bcast"),
        (c.has(TRACKING_OPTIN), "optin"),
        (c.has(TRACKING_OPTIN) && caching, "caching-yes"),
        (c.has(TRACKING_OPTOUT), "optout"),
        (c.has(TRACKING_OPTOUT) && caching, "caching-no"),
        (c.has(TRACKING_NOLOOP), "noloop"),
        (c.has(TRACKING_BROKEN_REDIR), "broken_redirect"),
    ];
    let words = words.iter().filter(|(said, _)| *said);
    c.reply.map(3);
    c.reply.bulk(b"flags");
    c.reply.set(words.clone().count());
    words.for_each(|(_, word)| c.reply.bulk(word.as_bytes()));
    c.reply.bulk(b"redirect");
    c.reply.integer(redirect);
    c.reply.bulk(b"prefixes");
    let prefixes = ctx.server.tracking.prefixes_of(c.id);
    c.reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| c.reply.bulk(prefix));
    Ok(())
}
