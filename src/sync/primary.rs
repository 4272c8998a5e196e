//! Serves PSYNC and SYNC on the primary.
//!
//! ```text
//!   serve ─> psync::decide ─┬─ Continue ─> +CONTINUE, and the stream from there
//!                           └─ Full ─────> snapshot::enqueue: joins a child, starts one, or waits
//! ```

use crate::client::announced::Announced;
use crate::client::{Client, ClientRef, flag};
use crate::error::Error;
use crate::replication::psync::{self, Answer, Dialect, Reason};
use crate::replication::replicas::{Channel, Replica, State};
use crate::replication::snapshot::Way;
use crate::replication::{self, Replication};
use crate::state::Server;
use crate::sync::{channels, failover, snapshot};
use crate::util::number::parse_i64;
use crate::util::quote::printable;

/// The request by which a replica begins a sync.
#[derive(Clone, Copy)]
pub enum Request<'a> {
    /// SYNC: requests a snapshot, without offsets.
    Sync,
    /// PSYNC id offset [FAILOVER]: requests the stream from `offset` on, or a snapshot.
    Psync {
        id: &'a [u8],
        offset: &'a [u8],
        /// FAILOVER: the server that receives this request becomes the primary.
        failover: bool,
    },
}

/// Makes a client a replica, which gets the part of the stream that it lacks, or a snapshot. An
/// `Err` is the error reply that refuses the sync.
pub fn serve(server: &mut Server, c: &mut Client, request: Request) -> Result<(), Error> {
    if server.replication.replicas.get(c.reference()).is_some() {
        return Ok(()); // the client has sent the request before
    }
    if let Request::Psync {
        id, failover: true, ..
    } = request
    {
        failover::take_over(server, c, id)?;
    }
    if server.replication.failover.is_running() {
        return Err(Error::of("NOMASTERLINK Can't SYNC while failing over"));
    }
    if server.replication.is_link_down() {
        return Err(Error::of(
            "NOMASTERLINK Can't SYNC while not connected with my master",
        ));
    }
    if !c.reply.is_empty() {
        return Err(Error::of(
            "ERR SYNC and PSYNC are invalid with pending output",
        ));
    }
    let announced = c.announced.as_deref().cloned().unwrap_or_default();
    if announced.contents.is_filtered() && !announced.eof {
        return Err(Error::of("ERR Filtered replica requires EOF capability"));
    }
    let replica = new_replica(server, c, announced, request);
    let name = replica.name();
    log::info!("Replica {name} asks for synchronization");
    let answer = match request {
        Request::Psync { id, offset, .. } if !replica.announced.rdb_channel => {
            let Some(offset) = parse_i64(offset) else {
                log::warn!("Replica {name} asks for synchronization but with a wrong offset");
                return Err(Error::NOT_INTEGER);
            };
            psync::decide(server.replication.history(), id, offset)
        }
        _ => Answer::Full(Reason::Requested),
    };
    if let (Answer::Full(reason), Request::Psync { id, offset, .. }) = (answer, request) {
        log_reason(&server.replication, reason, &name, id, offset);
        server.stats.sync_partial_err += u64::from(reason != Reason::Requested);
    }
    if matches!(answer, Answer::Full(_)) {
        refuse_for_overruns(server, &name)?;
    }
    match answer {
        Answer::Continue { offset } => {
            become_replica(server, c, replica);
            resume(server, c, offset, &name);
        }
        Answer::Full(_) => match channels::dialect(server, &replica) {
            None => {
                become_replica(server, c, replica);
                full_sync(server, c);
            }
            // The replica sends PSYNC again when its second connection has requested the snapshot.
            Some(Dialect::Valkey) => c.reply.status("DUALCHANNELSYNC"),
            Some(Dialect::Redis) => {
                let text = format!("RDBCHANNELSYNC {}", c.id);
                c.reply.status(&text);
                become_replica(server, c, wait_for_channel(replica, server.clock.now_ms));
            }
        },
    }
    Ok(())
}

/// Refuses a full sync of a replica whose last full syncs were all ended by its output limit, until
/// a delay is over. Replicas repeat PSYNC after this error.
fn refuse_for_overruns(server: &Server, name: &str) -> Result<(), Error> {
    let (limits, now_ms) = (replication::limits(server), server.clock.now_ms);
    match server.replication.overruns.delay(name, limits, now_ms) {
        None => Ok(()),
        Some((count, rest_ms)) => Err(Error::new(format!(
            "NOMASTERLINK The last {count} full syncs exceeded client-output-buffer-limit; the next one may begin in \
             {} seconds",
            rest_ms.div_euclid(1000) + 1
        ))),
    }
}

/// Makes the replica the main connection of a sync in Redis's dialect.
fn wait_for_channel(replica: Replica, since_ms: i64) -> Replica {
    Replica {
        state: State::WaitsForChannel { since_ms },
        channel: Channel::Main {
            snapshot: None,
            dialect: Dialect::Redis,
        },
        ..replica
    }
}

fn new_replica(server: &Server, c: &Client, announced: Announced, request: Request) -> Replica {
    let ip = match &*announced.address {
        "" => host_of(&c.peer).to_string(),
        announced => announced.to_string(),
    };
    let channel = match announced.rdb_channel {
        true => Channel::Snapshot,
        false => Channel::Only,
    };
    Replica {
        is_old: matches!(request, Request::Sync),
        channel,
        ..Replica::new(c.reference(), announced, &ip, server.clock.now_ms)
    }
}

/// The host of an address: `10.0.0.1:6379` without the port, `[::1]:6379` without port and
/// brackets.
fn host_of(peer: &str) -> &str {
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn become_replica(server: &mut Server, c: &mut Client, replica: Replica) {
    let is_first = server.replication.replicas.is_empty();
    if is_first && !server.replication.stream.is_open() {
        open_backlog(server);
    }
    c.set(flag::REPLICA);
    if let Some(conn) = &c.conn
        && server.config.repl_disable_tcp_nodelay
        && let Err(e) = conn.set_nodelay(false)
    {
        log::debug!("TCP_NODELAY of a replica's socket can't be changed: {e}");
    }
    server.replication.add(replica);
}

/// Opens the backlog for the first replica of a history, under a new id: a replica with an old id
/// must not continue, since earlier bytes were not kept.
fn open_backlog(server: &mut Server) {
    let id = server.rng.hex(40);
    server.replication.begin_history(id);
    replication::ensure_backlog(server);
    log::info!(
        "Replication backlog created, my new replication IDs are '{}' and '{}'",
        server.replication.id,
        server.replication.second_id
    );
}

/// Lets the replica continue where it stopped: `+CONTINUE`.
fn resume(server: &mut Server, c: &mut Client, offset: u64, name: &str) {
    let r = c.reference();
    let held = server.replication.attach(r, offset);
    debug_assert!(held, "the decision was made on what is held");
    let now_ms = server.clock.now_ms;
    let Some(replica) = server.replication.replicas.get_mut(r) else {
        return;
    };
    replica.state = State::Online;
    replica.ack_ms = now_ms;
    if replica.announced.psync2 {
        let text = format!("CONTINUE {}", server.replication.id);
        c.reply.status(&text);
    } else {
        c.reply.status("CONTINUE");
    }
    channels::main_attached(server, r);
    server.stats.sync_partial_ok += 1;
    log::info!(
        "Partial resynchronization request from {name} accepted. Sending {} bytes of backlog starting from offset {}.",
        server.replication.stream.end() - offset,
        offset + 1,
    );
}

fn full_sync(server: &mut Server, c: &mut Client) {
    server.stats.sync_full += 1;
    snapshot::enqueue(server, c);
}

/// The maximum length in a log line of the id, or of the offset, that a replica has sent; an id has
/// 40 bytes.
const SHOWN_MAX: usize = 64;

fn log_reason(replication: &Replication, reason: Reason, name: &str, id: &[u8], offset: &[u8]) {
    let (id, offset) = (printable(id, SHOWN_MAX), printable(offset, SHOWN_MAX));
    match reason {
        Reason::Requested => log::info!("Full resync requested by replica {name}"),
        Reason::UnknownId => log::info!(
            "Partial resynchronization not accepted: Replication ID mismatch (Replica asked for '{id}', my replication \
             IDs are '{}' and '{}')",
            replication.id,
            replication.second_id
        ),
        Reason::BeyondSecondId => log::info!(
            "Partial resynchronization not accepted: Requested offset for second ID was {offset}, but I can reply up \
             to {}",
            replication.second_offset
        ),
        Reason::NotHeld { future } => {
            log::info!(
                "Unable to partial resync with replica {name} for lack of backlog (Replica request was: {offset})."
            );
            if future {
                log::warn!(
                    "Warning: replica {name} tried to PSYNC with an offset that is greater than the master replication \
                     offset."
                );
            }
        }
    }
}

/// Puts a replica online that was sent its whole snapshot. Returns false for a replica that
/// requested only the snapshot; the caller must close its connection.
pub fn put_online(server: &mut Server, c: &mut Client) -> bool {
    let now_ms = server.clock.now_ms;
    let Some(replica) = server.replication.replicas.get_mut(c.reference()) else {
        return false;
    };
    let name = replica.name();
    if replica.announced.rdb_only {
        replica.synced = true;
        log::info!("RDB transfer completed, rdb only replica ({name}) should be disconnected asap");
        return false;
    }
    replica.state = State::Online;
    replica.ack_ms = now_ms;
    // From now on a reply would be received as a part of the stream.
    replica.began |= c.reply.is_empty();
    if replica.is_old {
        // A replica that sent SYNC sends no acknowledgements.
        synced(&mut server.replication, c.reference(), now_ms);
    }
    log::info!("Synchronization with replica {name} succeeded");
    true
}

/// Notes that a replica has loaded its snapshot.
fn synced(replication: &mut Replication, r: ClientRef, now_ms: i64) {
    let Some(replica) = replication.replicas.get_mut(r) else {
        return;
    };
    if std::mem::replace(&mut replica.synced, true) {
        return;
    }
    if let Some(after_ms) = replica.sync_ms(now_ms) {
        let name = replica.name();
        replication.forecast.succeeded(after_ms);
        replication.overruns.forget(&name);
    }
}

/// Handles REPLCONF ACK: the offsets up to which a replica has applied the stream, and has it in
/// its AOF on disk.
///
/// Returns false if the replica was not sent the stream up to such an offset: WAIT and a failover
/// would count writes that the replica does not have.
pub fn acknowledged(
    server: &mut Server,
    r: ClientRef,
    offset: i64,
    aof_offset: Option<i64>,
) -> bool {
    let now_ms = server.clock.now_ms;
    let replication = &mut server.replication;
    let sent = replication.stream.end() - replication.lag(r);
    let known = |offset: i64| u64::try_from(offset).unwrap_or(0);
    let aof_offset = known(aof_offset.unwrap_or(0));
    let offset = known(offset);
    if let Some(replica) = replication.replicas.get_mut(r) {
        if offset.max(aof_offset) > sent {
            log::warn!(
                "Replica {} acknowledges offset {}, but it was sent the stream up to {sent} only. Closing its link.",
                replica.name(),
                offset.max(aof_offset),
            );
            return false;
        }
        replica.acked = replica.acked.max(offset);
        replica.acked_aof = replica.acked_aof.max(aof_offset);
        replica.ack_ms = now_ms;
        match replica.state {
            State::Online => {
                replica.waits_for_ack = false;
                synced(replication, r, now_ms);
            }
            // The replica has loaded the snapshot of its other connection.
            State::Loading => {
                replica.state = State::Online;
                log::info!("Synchronization with replica {} succeeded", replica.name());
                synced(replication, r, now_ms);
            }
            // The replica may have loaded a snapshot whose child has not ended yet.
            State::SnapshotRunning => {
                if let Some(Way::Pipe(broadcast)) = replication
                    .snapshot
                    .as_mut()
                    .map(|snapshot| &mut snapshot.way)
                {
                    broadcast.acknowledged(r);
                }
            }
            _ => {}
        }
    }
    true
}
