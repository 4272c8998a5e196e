//! General information about the server: INFO, ROLE, LASTSAVE, TIME, LOLWUT.

use crate::clock;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::commands::server::info;
use crate::util::random::Random;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("info", info, -1, LOADING | STALE, DANGEROUS).tips(&[
        "nondeterministic_output",
        "request_policy:all_shards",
        "response_policy:special",
    ]),
    cmd(
        "lastsave",
        lastsave,
        1,
        LOADING | STALE | FAST,
        ADMIN_CAT | DANGEROUS,
    )
    .tips(&["nondeterministic_output"]),
    cmd("lolwut", lolwut, -1, READONLY | FAST, NONE_CAT),
    cmd(
        "role",
        role,
        1,
        NOSCRIPT | LOADING | STALE | FAST,
        ADMIN_CAT | DANGEROUS,
    ),
    cmd("time", time, 1, LOADING | STALE | FAST, NONE_CAT).tips(&["nondeterministic_output"]),
];

/// INFO [section ...]
fn info(ctx: &mut Ctx) -> CmdResult {
    let text = info::info(ctx.server, ctx.client, &ctx.argv[1..]);
    ctx.client.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// LASTSAVE
fn lastsave(ctx: &mut Ctx) -> CmdResult {
    ctx.client.reply.integer(ctx.server.last_save_s);
    Ok(())
}

/// ROLE: a primary replies with its offset and its replicas, a replica with its primary and the
/// state of the link.
fn role(ctx: &mut Ctx) -> CmdResult {
    let (replication, reply) = (&ctx.server.replication, &mut ctx.client.reply);
    if let Some(upstream) = &replication.upstream {
        reply.array(5);
        reply.bulk(b"slave");
        reply.bulk(upstream.host.as_bytes());
        reply.integer(upstream.port.into());
        reply.bulk(upstream.phase.name().as_bytes());
        let offset = replication.stream.end() as i64;
        reply.integer(if upstream.is_connected() { offset } else { -1 });
        return Ok(());
    }
    let online: Vec<_> = replication
        .replicas
        .iter()
        .filter(|r| r.is_online())
        .collect();
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(replication.stream.end() as i64);
    reply.array(online.len());
    for replica in online {
        reply.array(3);
        reply.bulk(replica.ip.as_bytes());
        reply.bulk_integer(replica.announced.port.into());
        reply.bulk_integer(replica.acked as i64);
    }
    Ok(())
}

/// TIME
fn time(ctx: &mut Ctx) -> CmdResult {
    // TIME replies with the same time throughout a script or a transaction.
    let server = &ctx.server;
    let moved = server.scripting.running.as_ref();
    let now = match moved.and_then(|script| script.time_us) {
        Some(moved) => moved,
        None if server.nesting > 0 => server.clock.now_us,
        None => clock::unix_us(),
    };
    ctx.client.reply.array(2);
    ctx.client.reply.bulk_integer(now / 1_000_000);
    ctx.client.reply.bulk_integer(now % 1_000_000);
    Ok(())
}

/// The default size of LOLWUT's picture, in columns and rows; `LOLWUT_MAX` is the maximum.
const LOLWUT_SIZE: (i64, i64) = (66, 12);
const LOLWUT_MAX: (i64, i64) = (200, 100);

/// LOLWUT [VERSION version] [columns [rows]]: a random picture, and the version of the server.
fn lolwut(ctx: &mut Ctx) -> CmdResult {
    let version = match ctx.argv.len() > 2 && ctx.is(1, "version") {
        true => Some(ctx.int(2)?),
        false => None,
    };
    let numbers = if version.is_some() { 3 } else { 1 };
    let mut size = [LOLWUT_SIZE.0, LOLWUT_SIZE.1];
    let given = ctx.argv.len().saturating_sub(numbers);
    for (at, side) in size.iter_mut().enumerate().take(given) {
        match ctx.int(numbers + at) {
            Ok(number) => *side = number,
            // LOLWUT: for the versions 5 and 6 an argument that is not a number is an error, as in
            // Redis, which has pictures for these two; for other versions such an argument is
            // ignored.
            Err(e) if matches!(version, Some(5 | 6)) => return Err(e),
            Err(_) => {}
        }
    }
    let columns = size[0].clamp(1, LOLWUT_MAX.0) as usize;
    let rows = size[1].clamp(1, LOLWUT_MAX.1) as usize;
    let mut art = wind(columns, rows, &mut ctx.server.rng);
    art.push_str(&format!("\nRedis ver. {}\n", crate::REDIS_VERSION));
    ctx.client.reply.verbatim(b"txt", art.as_bytes());
    Ok(())
}

/// A picture of wind: the direction at each character cell is the sum of a few long waves with
/// random phases, drawn as the nearest line character; cells with weak wind stay empty.
fn wind(columns: usize, rows: usize, rng: &mut Random) -> String {
    const STROKES: [char; 4] = ['─', '╲', '│', '╱'];
    let mut wave = || {
        (
            rng.below(1000) as f64 / 1000.0 + 0.5,
            rng.below(628) as f64 / 100.0,
        )
    };
    let waves = [wave(), wave(), wave()];
    let mut art = String::with_capacity(rows * (3 * columns + 1));
    for row in 0..rows {
        for column in 0..columns {
            // A character cell is twice as high as it is wide.
            let (x, y) = (column as f64 / 12.0, row as f64 / 6.0);
            let [a, b, c] = waves.map(|(pitch, phase)| (x * pitch + y / pitch + phase).sin());
            let (east, south) = (1.2 + a - 0.5 * c, b + 0.5 * c);
            let strength = (a * b + c).abs() + east.abs() / 4.0;
            let turn = (south.atan2(east) / std::f64::consts::FRAC_PI_4).round() as i64;
            art.push(if strength < 0.45 {
                ' '
            } else {
                STROKES[turn.rem_euclid(4) as usize]
            });
        }
        art.push('\n');
    }
    art
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wind_fills_its_frame() {
        for (columns, rows) in [(1, 1), (66, 12), (200, 100)] {
            let art = wind(columns, rows, &mut Random::from_seed(7));
            assert_eq!(art.lines().count(), rows);
            assert!(art.lines().all(|line| line.chars().count() == columns));
        }
        let again = |seed| wind(66, 12, &mut Random::from_seed(seed));
        assert_eq!(again(1), again(1));
        assert_ne!(again(1), again(2));
    }
}
