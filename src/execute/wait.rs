//! The conditions on which WAIT, WAITAOF, CLUSTER SETSLOT and FLUSHALL stop waiting. WAIT and
//! WAITAOF: whether replicas and the disk have a client's writes. CLUSTER SETSLOT: whether the
//! replicas have executed the command, before this server executes it. FLUSHALL SYNC: whether the
//! background thread has freed the old data set.
//!
//! ```text
//!   client writes      repl_offset, aof_offset: the ends of its last write in stream and AOF
//!   WAIT n             replicas whose acknowledged offset is at least repl_offset: n of them?
//!                      no: block, and ask the replicas (REPLCONF GETACK *, once before the loop sleeps)
//!   REPLCONF ACK       before the loop sleeps: serve_acks looks at the clients that wait
//! ```

use crate::client::Client;
use crate::client::blocked::BlockKind;
use crate::error::Error;
use crate::state::Server;
use crate::util::number::parse_i64;

/// The error of WAITAOF for the local disk on a server without an AOF.
pub const WAITAOF_WITHOUT_AOF: Error =
    Error::of("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.");

/// The number of replicas that have acknowledged all writes of this client.
pub fn replica_acks(server: &Server, c: &Client) -> i64 {
    server.replication.replicas.acked(c.repl_offset) as i64
}

/// 1 if the AOF of this server has all writes of this client on disk, otherwise 0.
fn local_acks(server: &Server, c: &Client) -> i64 {
    i64::from(server.aof.has_synced(c.aof_offset))
}

/// The number of replicas whose AOF has all writes of this client on disk.
fn replica_disk_acks(server: &Server, c: &Client) -> i64 {
    server.replication.replicas.acked_aof(c.repl_offset) as i64
}

/// Replies to WAIT: the number of replicas that have the client's writes.
pub fn reply_wait(server: &Server, c: &mut Client) {
    let replicas = replica_acks(server, c);
    c.reply.integer(replicas);
}

/// Replies to WAITAOF: the numbers of local disks (0 or 1) and of replicas' disks that have the
/// client's writes.
pub fn reply_waitaof(server: &Server, c: &mut Client) {
    let (local, replicas) = (local_acks(server, c), replica_disk_acks(server, c));
    c.reply.array(2);
    c.reply.integer(local);
    c.reply.integer(replicas);
}

/// Whether the client's writes are on as many disks as WAITAOF demands: `local` (0 or 1) of this
/// server, and those of `replicas` replicas.
pub fn waitaof_is_met(server: &Server, c: &Client, local: i64, replicas: i64) -> bool {
    local_acks(server, c) >= local && (replicas == 0 || replica_disk_acks(server, c) >= replicas)
}

/// Whether a client's WAIT, WAITAOF, SETSLOT or FLUSHALL is over, with an error if it has failed;
/// `None` while the client must go on waiting.
pub fn is_over(server: &Server, c: &Client) -> Option<Result<(), Error>> {
    let blocked = c.blocked.as_ref()?;
    let argv = blocked.argv.slices();
    let number = |at: usize| argv.get(at).and_then(|text| parse_i64(text)).unwrap_or(0);
    let (first, second) = (number(1), number(2));
    let met = match blocked.kind {
        BlockKind::Wait => replica_acks(server, c) >= first,
        BlockKind::WaitAof if first > 0 && !server.config.appendonly => {
            return Some(Err(WAITAOF_WITHOUT_AOF));
        }
        BlockKind::WaitAof => waitaof_is_met(server, c, first, second),
        BlockKind::SetSlot { replicas } => replica_acks(server, c) >= replicas as i64,
        BlockKind::Freed { job } => server.lazyfree.is_done(job),
        _ => false,
    };
    met.then_some(Ok(()))
}
