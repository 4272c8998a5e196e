//! `maxmemory-clients`: when the buffers of all clients together are too large, the largest clients
//! are closed.
//!
//! The memory of a client is counted each time after it was served, and after each message to it;
//! the sums over all clients are updated by the difference, so that checking the limit costs one
//! comparison. Only when `maxmemory-clients` is exceeded, a heap of all clients is built, and the
//! largest clients are closed until the sum is below the limit.
//!
//! **Invariant:** `Net::memory` has the sums of the fields `counted` of all clients. Test:
//! `the_sums_follow_each_client`. Rejected: lists of clients by size that are always up to date.
//! Lists of clients by size avoid the search for large clients, but cost time whenever a client is
//! served, and evictions are rare.

use crate::client::{Client, Counted, flag};
use crate::state::Server;

/// The memory of a client in bytes, including its prefixes in the tracking table.
pub fn memory_of(server: &Server, c: &Client) -> usize {
    let tracking = c.has(flag::TRACKING_BCAST);
    c.memory()
        + if tracking {
            server.tracking.memory_of(c.id)
        } else {
            0
        }
}

/// Counts the memory of a client again and updates the sums over all clients.
pub fn update_memory(server: &mut Server, c: &mut Client) {
    let exempt = flag::NO_EVICT | flag::REPLICA | flag::PRIMARY | flag::SLOT_LINK;
    let new = Counted {
        bytes: memory_of(server, c),
        class: c.class() as usize,
        evictable: c.conn.is_some() && !c.has(exempt),
    };
    replace(server, c, new);
}

/// Counts the memory of a client after it was served, if `maxmemory-clients` is set.
#[inline]
pub fn note_turn(server: &mut Server, c: &mut Client) {
    if server.net.memory.limited {
        update_memory(server, c);
    }
}

/// Subtracts the memory of a client that is being closed from the sums over all clients.
pub fn forget(server: &mut Server, c: &mut Client) {
    replace(server, c, Counted::default());
}

fn replace(server: &mut Server, c: &mut Client, new: Counted) {
    let sums = &mut server.net.memory;
    let old = std::mem::replace(&mut c.counted, new);
    sums.by_class[old.class] -= old.bytes;
    sums.by_class[new.class] += new.bytes;
    sums.evictable -= if old.evictable { old.bytes } else { 0 };
    sums.evictable += if new.evictable { new.bytes } else { 0 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_sums_follow_each_client() {
        let mut server = Server::new(Config::default(), Vec::new());
        let (mut a, mut b) = (Client::detached(1, 0), Client::detached(2, 0));
        a.querybuf.reserve_exact(1000);
        update_memory(&mut server, &mut a);
        update_memory(&mut server, &mut b);
        assert_eq!(server.net.memory.by_class, [a.memory() + b.memory(), 0, 0]);
        b.set(flag::PUBSUB);
        update_memory(&mut server, &mut b);
        assert_eq!(server.net.memory.by_class, [a.memory(), 0, b.memory()]);
        forget(&mut server, &mut a);
        forget(&mut server, &mut b);
        assert_eq!(server.net.memory.by_class, [0, 0, 0]);
        assert_eq!(server.net.memory.evictable, 0);
    }
}
