//! What happens at the end of each turn, before the loop waits for the kernel.
//!
//! ```text
//!   timeouts of blocked clients -> short expire cycle -> unblocked clients' requests -> invalidations -> AOF
//!   -> SHUTDOWN -> replication stream -> replies -> closing clients
//! ```
//!
//! **Invariant:** the AOF is written before any reply leaves: a reply promises the log.

use std::time::Duration;

use ae::{EventLoop, TimerId};

use crate::execute::blocked;
use crate::keyspace::expire;
use crate::networking::{accept, close, evict_clients, query, replicas, write};
use crate::persist::aof::flush;
use crate::server::shutdown;
use crate::state::Server;
use crate::sys::ticks;

pub fn before_sleep(el: &mut EventLoop<Server>, server: &mut Server) {
    blocked::handle_timeouts(server);
    expire::fast_cycle(server);
    blocked::handle_ready_keys(server);
    server
        .event_loop
        .lent
        .clone()
        .lend(el, || query::process_unblocked_clients(server));
    crate::tracking::broadcast(server);
    shutdown::handle_request(server);
    write_log(server);
    replicas::write_to_replicas(el, server);
    query::read_again(el, server);
    write::handle_clients_with_pending_writes(el, server);
    close::free_clients_in_async_queue(el, server);
    if evict_clients::evict_clients(server) {
        close::free_clients_in_async_queue(el, server);
    }
    follow_settings(el, server);
    set_alarm(el, server);
    continue_evictions(el, server);
    end_turn(server);
    if server.shutdown.now {
        el.stop();
    }
}

/// What the turn's commands told goes to the log, and those who waited for the log go on.
pub fn write_log(server: &mut Server) {
    // Whatever was told outside of a command is a unit of its own.
    server.end_unit();
    if server.aof.feed.is_open() {
        let began = ticks::now();
        flush::flush_append_only_file(server);
        server.stats.aof_ticks += ticks::now().wrapping_sub(began);
    }
    write::release_held(server);
    blocked::serve_waitaof(server);
}

/// Wake up for the earliest deadline of a blocked client.
fn set_alarm(el: &mut EventLoop<Server>, server: &mut Server) {
    let Some(&(deadline_ms, _)) = server.blocked.timeouts.first() else {
        return;
    };
    let alarm_ms = &mut server.blocked.alarm_ms;
    if *alarm_ms == 0 || deadline_ms < *alarm_ms {
        *alarm_ms = deadline_ms;
        let after_ms = deadline_ms.saturating_sub(server.clock.now_ms).max(0) as u64;
        el.add_timer(Duration::from_millis(after_ms), 0, alarm_handler);
    }
}

/// It is time: `before_sleep` looks who has waited long enough, and sets the next alarm.
fn alarm_handler(_: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    server.blocked.alarm_ms = 0;
    None
}

pub fn after_sleep(_: &mut EventLoop<Server>, server: &mut Server) {
    server.clock.update();
    server.stats.turn_began_us = server.clock.now_us;
    server.stats.turn_began_commands = server.stats.commands_processed;
}

/// A turn's share of eviction did not suffice: go on between the turns until it does.
fn continue_evictions(el: &mut EventLoop<Server>, server: &mut Server) {
    if server.evict.unfinished && !server.evict.timer {
        server.evict.timer = true;
        el.add_timer(Duration::ZERO, 0, eviction_timer);
    }
}

fn eviction_timer(_: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    crate::keyspace::evict::perform_evictions(server);
    server.evict.timer = server.evict.unfinished;
    server.evict.timer.then_some(Duration::ZERO)
}

/// Changes of settings that need the loop.
fn follow_settings(el: &mut EventLoop<Server>, server: &mut Server) {
    if std::mem::take(&mut server.net.relisten) {
        accept::rewatch(el, server);
    }
    if std::mem::take(&mut server.net.resize) {
        let wanted = crate::server::init::event_loop_size(&server.config);
        if el.setsize() < wanted && el.resize(wanted).is_err() {
            log::warn!(
                "The event loop can't be resized for {} clients",
                server.config.maxclients
            );
        }
    }
}

/// How long the turn took, for INFO.
fn end_turn(server: &mut Server) {
    if server.stats.turn_began_us != 0 {
        server.stats.turn_ended(crate::clock::unix_us());
    }
}
