//! `maxmemory-clients`: closes the largest clients until the memory of the remaining clients is
//! within the limit.

use std::collections::BinaryHeap;

use crate::client::flag;
use crate::clients::describe;
use crate::clients::memory::update_memory;
use crate::execute::disconnect;
use crate::state::Server;

/// The least limit in bytes that `maxmemory-clients` has in effect: with a lower limit no client
/// could connect to correct the setting.
const LIMIT_MIN: usize = 128 * 1024;

/// Marks clients for closing, largest first, until the memory of the remaining clients is within
/// `maxmemory-clients`. Returns false if the memory of all clients was within the limit.
pub fn evict_clients(server: &mut Server) -> bool {
    let limit = server
        .config
        .maxmemory_clients
        .bytes(server.config.maxmemory) as usize;
    if limit == 0 {
        server.net.memory.limited = false;
        return false;
    }
    let limit = limit.max(LIMIT_MIN);
    if !std::mem::replace(&mut server.net.memory.limited, true) {
        count_all(server);
    }
    if server.net.memory.evictable <= limit {
        return false;
    }
    let candidates = server
        .net
        .clients
        .iter()
        .filter(|c| c.counted.evictable && !c.has(flag::CLOSE_ASAP));
    let mut heap: BinaryHeap<(usize, u64)> = candidates.map(|c| (c.counted.bytes, c.id)).collect();
    while server.net.memory.evictable > limit
        && let Some((_, id)) = heap.pop()
    {
        let Some(r) = server.net.clients.reference_of(id) else {
            continue;
        };
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        log::info!("Evicting client: {}", describe::describe(server, &c));
        disconnect::kill(server, &mut c);
        server.stats.evicted_clients += 1;
        server.net.clients.put(c);
    }
    true
}

/// Counts the memory of all clients after `maxmemory-clients` was set: while `maxmemory-clients` is
/// 0, the memory of clients is not tracked.
fn count_all(server: &mut Server) {
    for r in server.net.clients.refs() {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        update_memory(server, &mut c);
        server.net.clients.put(c);
    }
}
