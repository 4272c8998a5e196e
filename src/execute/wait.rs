//! WAIT and WAITAOF: whether replicas and the disk have what a client wrote.

use crate::client::Client;
use crate::error::Error;
use crate::state::Server;
use crate::util::number::parse_i64;

/// The error of WAITAOF for the local disk on a server without an AOF.
pub const WAITAOF_WITHOUT_AOF: Error =
    Error::of("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.");

/// 1 if the local disk has what this client wrote, otherwise 0.
pub fn local_acks(server: &Server, c: &Client) -> i64 {
    i64::from(server.aof.has_synced(c.aof_offset))
}

/// Replies to WAITAOF: the number of local disks (0 or 1) and of replicas that have the client's
/// writes.
pub fn reply_waitaof(server: &Server, c: &mut Client) {
    let local = local_acks(server, c);
    c.reply.array(2);
    c.reply.integer(local);
    c.reply.integer(0);
}

/// The reply that ends a client's WAITAOF; `None` while it must wait on.
pub fn waitaof_is_over(server: &Server, c: &Client) -> Option<Result<(), Error>> {
    let blocked = c.blocked.as_ref()?;
    let argv = blocked.argv.slices();
    let number = |at: usize| argv.get(at).and_then(|text| parse_i64(text)).unwrap_or(0);
    let (local, replicas) = (number(1), number(2));
    if local > 0 && !server.config.appendonly {
        return Some(Err(WAITAOF_WITHOUT_AOF));
    }
    let done = local_acks(server, c) >= local && replicas == 0;
    done.then_some(Ok(()))
}
