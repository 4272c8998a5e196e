//! `repl-throttling-enabled`: delays clients that write while a replica lags so far that it will
//! soon be closed, since a full sync costs the writers more than a delay.
//!
//! ```text
//!   write_to_replicas ─> update: lag > limit / 2 ─> pause for writes ─ timer ─> end_pause
//! ```
//!
//! A client that the pause holds runs its next write after the delay, so each client writes at
//! least a few times a second, whatever the replicas do. No key expires and no key is evicted
//! during a delay, as in any pause.

use std::time::Duration;

use ae::{EventLoop, TimerId};

use crate::client::ClientRef;
use crate::execute::pause::{self, PausePurpose};
use crate::replication;
use crate::state::Server;

/// Pauses writes if a replica still lags after the stream was sent.
pub fn update(el: &mut EventLoop<Server>, server: &mut Server) {
    let (enabled, now_ms) = (server.config.repl_throttling_enabled, server.clock.now_ms);
    if !enabled || server.pause.runs(PausePurpose::Throttle, now_ms) {
        return;
    }
    let replication = &server.replication;
    let clients = replication.replicas.iter().map(|replica| replica.client);
    let lag = clients.map(|r: ClientRef| replication.lag(r)).max();
    let delay_ms = replication::limits(server).delay_ms(lag.unwrap_or(0));
    if delay_ms == 0 || replication.is_replica() {
        return;
    }
    server.stats.repl_throttles += 1;
    server.stats.repl_throttled_ms += delay_ms;
    let until_ms = now_ms.saturating_add(delay_ms as i64);
    server.pause_clients(PausePurpose::Throttle, until_ms, false);
    el.add_timer(Duration::from_millis(delay_ms), 0, resume);
}

/// Ends the pause when the timer fires, so that the clients that it holds back run their next
/// writes.
fn resume(_: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    pause::end_pause(server);
    None
}
