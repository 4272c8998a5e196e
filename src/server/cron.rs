//! The timer: work that is done `hz` times a second, independent of requests.

use ae::{EventLoop, TimerId};
use std::time::Duration;

use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::clients::memory;
use crate::clients::output_limit;
use crate::keyspace::expire;
use crate::networking::write;
use crate::observe::trace::event::EventKind;
use crate::server::jobs;
use crate::server::record;
use crate::state::Server;
use crate::sys::signals;
use crate::sys::tape;
use crate::sys::ticks;

/// The minimum number of clients checked in each call of the cron. Every client is checked about
/// once a second.
const CLIENTS_MIN_PER_TICK: usize = 5;
/// The time in milliseconds after which a busy client's reply buffer may shrink.
const REPLY_PEAK_RESET_MS: i64 = 5000;
/// The time in each call of the cron for moving buckets of hash tables that are being resized.
const REHASH_BUDGET: Duration = Duration::from_millis(1);

/// The handler of the cron's timer.
pub fn server_cron(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    _: TimerId,
) -> Option<Duration> {
    server.clock.update();
    if server.config.watchdog_period != 0 && !tape::replays() {
        signals::set_alarm(server.config.watchdog_period);
    }
    if server.debug.no_cron {
        return Some(Duration::from_millis(100));
    }
    let began = ticks::now();
    jobs::run_due(server);
    tape::flush();
    record::tap(el);
    server.trace.notice_end_of_tape();
    server.stats.cron_ticks += ticks::now().wrapping_sub(began);
    Some(server.cron_period())
}

pub(super) fn clients_cron(server: &mut Server) {
    let per_tick = server.net.clients.len() / server.effective_hz() as usize;
    let peak_reset = server
        .debug
        .reply_peak_reset_ms
        .unwrap_or(REPLY_PEAK_RESET_MS);
    for _ in 0..per_tick
        .max(CLIENTS_MIN_PER_TICK)
        .min(server.net.clients.len())
    {
        let after = server.net.cron_cursor;
        let Some(r) = server
            .net
            .clients
            .after(after)
            .or_else(|| server.net.clients.after(0))
        else {
            return;
        };
        server.net.cron_cursor = r.id;
        let Some(mut c) = server.net.clients.take(r.slot) else {
            continue;
        };
        close_if_idle(server, &mut c);
        if !server.debug.no_reply_resize {
            let shrunk = write::resize_reply_buffer(&mut c, server.clock.now_ms, peak_reset);
            server.stats.reply_buffer_shrinks += shrunk as u64;
        }
        shrink_query_buffer(&mut c, server.clock.now_ms);
        memory::update_memory(server, &mut c);
        output_limit::check_output_limit(server, &mut c);
        server.net.clients.put(c);
    }
}

/// `timeout`: closes a client that has sent nothing for the time of this setting, except replicas,
/// the primary, and clients that are blocked or subscribed.
fn close_if_idle(server: &mut Server, c: &mut Client) {
    let exempt = flag::REPLICA | flag::PRIMARY | flag::BLOCKED | flag::PUBSUB | flag::SLOT_LINK;
    let idle_s = (server.clock.now_ms - c.last_interaction_ms) / 1000;
    if server.config.timeout != 0 && !c.has(exempt) && idle_s > server.config.timeout as i64 {
        log::debug!("Closing idle client");
        Net::close_asap(&mut server.net.close_asap, c);
    }
}

/// Shrinks a query buffer that is much larger than its content.
fn shrink_query_buffer(c: &mut Client, now_ms: i64) {
    let idle = now_ms - c.last_interaction_ms > 2000;
    let capacity = c.querybuf.capacity();
    if idle || capacity > 32 * 1024 && capacity / 2 > c.querybuf_peak {
        c.querybuf.shrink_to_fit();
        if let Some(big) = c.open.as_mut().and_then(|open| open.big.as_mut()) {
            big.bytes.shrink_to_fit();
        }
    }
    c.querybuf_peak = c.querybuf.len();
}

pub(super) fn databases_cron(server: &mut Server) {
    expire::cron_cycle(server);
    if !server.config.activerehashing || server.debug.no_resize || server.child.is_some() {
        return;
    }
    // Before it loads keys, the loader has reserved room for all of them in the tables: a table
    // that is still almost empty must not shrink.
    if server.loading.is_in_place() {
        return;
    }
    for at in 0..server.data.dbs.len() {
        let began = ticks::now();
        if server.data.dbs[at].keys.maintain(REHASH_BUDGET) {
            return server.traced(EventKind::Rehash, began, at as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::db::Ttl;
    use crate::persist::loading::Loading;
    use crate::types::{New, kind};

    /// After a child has ended, the cron resizes the tables without waiting for a command.
    #[test]
    fn tables_go_on_growing_after_a_child_without_traffic() {
        let mut server = Server::new(Config::default(), Vec::new());
        crate::ds::hashtable::set_resize_policy(crate::ds::hashtable::ResizePolicy::Avoid);
        for n in 0..20_000u32 {
            let key = n.to_le_bytes();
            server.set_key(0, &key, kind::INT, New::Int(1), Ttl::Clear);
        }
        let before = server.data.dbs[0].keys.tables()[0].stats();
        assert!(before.rehash_target.is_none());
        server.follow_resize_policy();
        for _ in 0..10_000 {
            databases_cron(&mut server);
        }
        let after = server.data.dbs[0].keys.tables()[0].stats();
        assert!(after.rehash_target.is_none(), "it is done");
        assert!(after.main.buckets > before.main.buckets);
    }

    /// The room that a load has reserved in a table is kept until the keys are loaded.
    #[test]
    fn a_table_does_not_shrink_during_a_load() {
        let mut server = Server::new(Config::default(), Vec::new());
        server.loading = Loading::InPlace;
        server.data.dbs[0].keys.reserve(100_000);
        let buckets = |server: &Server| server.data.dbs[0].keys.tables()[0].stats().main.buckets;
        let reserved = buckets(&server);
        server.set_key(0, b"key", kind::INT, New::Int(1), Ttl::Clear);
        (0..100).for_each(|_| databases_cron(&mut server));
        assert_eq!(buckets(&server), reserved);
        server.loading = Loading::No;
        (0..10_000).for_each(|_| databases_cron(&mut server));
        assert!(buckets(&server) < reserved / 100);
    }
}
