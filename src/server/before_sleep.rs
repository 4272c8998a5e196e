//! The steps at the end of each turn, before the loop waits for the kernel.
//!
//! ```text
//!    1 handle_timeouts             blocked clients whose time is over; before 3 could serve them
//!    2 fast_cycle                  expires keys before 3 hands them to blocked clients: none gets an expired one
//!    3 handle_ready_keys           clients that wait for a key which was written; they write, so before the AOF
//!    4 run_unblocked_clients       requests that arrived while a client was blocked; after 1 and 3 unblocked it.
//!                                  MIGRATE goes on first: it unblocks clients and writes keys
//!    5 tracking::broadcast         invalidations, before the replies: caches get them first
//!    6 shutdown::handle_request    SHUTDOWN, after all commands of the turn and before their replies: what it saves
//!                                  is what was acknowledged
//!    7 write_aof                   before any reply leaves: a reply promises the AOF
//!    8 write_to_replicas           after the AOF, so that a replica is not ahead of its primary's file
//!    9 failover::update            a failover, which waits until a replica has the stream that 8 has just sent
//!   10 bus::turn                   the cluster: its packets carry the offset after 7; it sets the role that 11 follows
//!   11 primary::follow             the link to our primary, as REPLICAOF, 9 and 10 have set it; acknowledgements
//!   12 read_again                  clients that were not read because the AOF's disk was behind are read in the next
//!                                  turn; after 7, which may have caught up
//!   13 handle_clients_with_pending_writes    the replies; after 7, which releases those that waited for the AOF
//!   14 free_clients_in_async_queue after the replies: a client that says QUIT gets its OK
//!   15 evict_clients               after the replies, which may have shrunk the largest clients
//!   16 follow_settings             changes that need the loop, after the reply to CONFIG SET
//!   17 connect_resolved            links whose host name was resolved by the resolver's thread, which woke the loop
//!   18 child::watch                a child's pipe, so that the child's end wakes the loop; after 8, which may start one
//!   19 set_alarm                   the next deadline of a blocked client, after the last step that may block one
//!   20 continue_evictions          timers for what is left to evict, and for defragmentation; after the turn's
//!                                  last command, which may have begun one
//!   21 end_turn                    how long the turn took, last
//! ```
//!
//! A step for which the drawing gives no order may be anywhere in the list.
//!
//! **Invariant:** the drawing above and the function `steps` have the same steps in the same order
//! (`tests/drawings.rs`).
//! **Invariant:** the AOF is written before any reply leaves.

use std::time::Duration;

use ae::{EventLoop, TimerId};

use crate::armed;
use crate::clock;
use crate::execute::blocked;
use crate::keyspace::evict;
use crate::keyspace::expire;
use crate::networking::{self, accept, bus, close, link, migrate, primary, query, replicas, write};
use crate::observe::trace::event::EventKind;
use crate::persist::aof::flush;
use crate::persist::child;
use crate::propagate::gate;
use crate::server;
use crate::server::{defrag, shutdown, trace};
use crate::state::Server;
use crate::sync::{acks, failover};
use crate::sys::ticks;
use crate::tracking;

/// The names of the steps for the trace of the loop, in the order of the drawing above.
pub const STEPS: [&str; 21] = [
    "handle_timeouts",
    "fast_cycle",
    "handle_ready_keys",
    "run_unblocked_clients",
    "tracking::broadcast",
    "shutdown::handle_request",
    "write_aof",
    "write_to_replicas",
    "failover::update",
    "bus::turn",
    "primary::follow",
    "read_again",
    "handle_clients_with_pending_writes",
    "free_clients_in_async_queue",
    "evict_clients",
    "follow_settings",
    "connect_resolved",
    "child::watch",
    "set_alarm",
    "continue_evictions",
    "end_turn",
];

/// Runs the end of a turn, step by step as in the drawing. The steps are compiled twice: once
/// alone, and once with a reading of the clock after each step, for the trace.
pub fn before_sleep(el: &mut EventLoop<Server>, server: &mut Server) {
    if server.armed & armed::TRACE == 0 {
        steps(el, server, |_| {});
    } else {
        traced_steps(el, server);
    }
    if server.shutdown.now {
        el.stop();
    }
}

#[cold]
fn traced_steps(el: &mut EventLoop<Server>, server: &mut Server) {
    let (mut began, mut step) = (ticks::now(), 0);
    server.trace.begin_part(began);
    steps(el, server, |server| {
        let now = ticks::now();
        server.trace.span(EventKind::Step, began, now, 0, step);
        server.trace.begin_part(now);
        (began, step) = (now, step + 1);
    });
}

#[inline(always)]
fn steps(el: &mut EventLoop<Server>, server: &mut Server, mut done: impl FnMut(&mut Server)) {
    blocked::handle_timeouts(server);
    done(server);
    expire::fast_cycle(server);
    done(server);
    blocked::handle_ready_keys(server);
    done(server);
    run_unblocked_clients(el, server);
    done(server);
    tracking::broadcast(server);
    done(server);
    shutdown::handle_request(server);
    done(server);
    write_aof(server);
    done(server);
    replicas::write_to_replicas(el, server);
    done(server);
    failover::update(server);
    done(server);
    bus::turn(el, server);
    done(server);
    primary::follow(el, server);
    done(server);
    query::read_again(el, server);
    done(server);
    write::handle_clients_with_pending_writes(el, server);
    done(server);
    close::free_clients_in_async_queue(el, server);
    done(server);
    evict_clients(el, server);
    done(server);
    follow_settings(el, server);
    done(server);
    link::connect_resolved(el, server);
    done(server);
    child::watch(el, server);
    done(server);
    set_alarm(el, server);
    done(server);
    continue_evictions(el, server);
    done(server);
    end_turn(server);
    done(server);
}

/// Continues MIGRATE, then runs the requests that arrived while their clients were blocked.
fn run_unblocked_clients(el: &mut EventLoop<Server>, server: &mut Server) {
    migrate::go_on(el, server);
    let lent = server.event_loop.lent.clone();
    lent.lend(el, || query::process_unblocked_clients(server));
}

/// Closes the largest clients while all clients together exceed `maxmemory-clients`.
fn evict_clients(el: &mut EventLoop<Server>, server: &mut Server) {
    if networking::evict_clients::evict_clients(server) {
        close::free_clients_in_async_queue(el, server);
    }
}

/// Writes what the turn's commands fed to the AOF, and releases replies and clients that waited for
/// this write.
pub fn write_aof(server: &mut Server) {
    // Changes that were propagated outside of any command, such as expired keys, are first passed
    // to the AOF's buffer, as those of a command are at its end.
    server.end_unit();
    if server.aof.feed.is_open() {
        let (began, bytes) = (ticks::now(), server.aof.feed.pending());
        flush::flush_append_only_file(server);
        let ended = ticks::now();
        server.stats.aof_ticks += ended.wrapping_sub(began);
        if server.armed & armed::TRACE != 0 && bytes > 0 {
            server
                .trace
                .span(EventKind::AofFlush, began, ended, 0, bytes);
        }
    }
    if server.replication.is_replica() {
        acks::note_aof(server);
    }
    gate::release_held(server);
    gate::release_stream(server);
    blocked::serve_acks(server);
}

/// Sets a timer for the earliest deadline of a blocked client.
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

/// The timer has fired: `before_sleep` will reply to the clients whose deadline has passed, and set
/// the next timer.
fn alarm_handler(_: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    server.blocked.alarm_ms = 0;
    None
}

/// Reads the clock after the loop has waited.
pub fn after_sleep(_: &mut EventLoop<Server>, server: &mut Server) {
    server.clock.update();
    server.stats.turn_began_us = server.clock.now_us;
    server.stats.turn_began_commands = server.stats.commands_processed;
}

/// Continues an eviction between the turns if one turn's share was not enough, and active
/// defragmentation while it runs.
fn continue_evictions(el: &mut EventLoop<Server>, server: &mut Server) {
    if server.evict.unfinished && !server.evict.timer {
        server.evict.timer = true;
        el.add_timer(Duration::ZERO, 0, eviction_timer);
    }
    if server.defrag.needs_timer() {
        defrag::start_timer(el, server);
    }
}

fn eviction_timer(_: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    evict::perform_evictions(server);
    server.evict.timer = server.evict.unfinished;
    server.evict.timer.then_some(Duration::ZERO)
}

/// Applies changes of settings that need the event loop, such as new listening sockets.
fn follow_settings(el: &mut EventLoop<Server>, server: &mut Server) {
    if std::mem::take(&mut server.net.relisten) {
        accept::rewatch(el, server);
    }
    if server.trace.follow {
        trace::follow(el, server);
    }
    if std::mem::take(&mut server.net.resize) {
        let wanted = server::init::event_loop_size(&server.config);
        if el.setsize() < wanted && el.resize(wanted).is_err() {
            log::warn!(
                "The event loop can't be resized for {} clients",
                server.config.maxclients
            );
        }
    }
}

/// Records the duration of the turn, for INFO and the live page.
fn end_turn(server: &mut Server) {
    if server.stats.turn_began_us != 0 {
        let us = server.stats.turn_ended(clock::unix_us());
        if let Some(turns) = &mut server.turns {
            turns.add(&server.stats, &server.clock, us);
        }
    }
}
