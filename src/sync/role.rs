//! Changes the server's role: REPLICAOF and failover.
//!
//! ```text
//!   follow    primary ─> replica    blocked clients go; the own history is what PSYNC offers to the new primary
//!   promote   replica ─> primary    a new id; the old one is valid up to here, for the replicas of both
//! ```
//!
//! This module uses no sockets; `networking::primary` notices the new upstream, closes the old
//! link, and connects.

use crate::client::table::Net;
use crate::config::enums::HostPort;
use crate::execute::blocked;
use crate::observe::logging;
use crate::persist::aof;
use crate::replication;
use crate::state::Server;

/// Makes this server a replica of the primary at this address.
pub fn follow(server: &mut Server, host: &str, port: u16) {
    let was_primary = !server.replication.is_replica();
    close_primary_client(server);
    let words = server.config.words();
    let offered = server.replication.upstream.take();
    let selected_db = server.replication.stream.selected_db();
    let upstream = server.replication.set_upstream(host, port);
    // The new primary may have the same history as the old one.
    upstream.can_continue = offered.as_ref().is_none_or(|old| old.can_continue);
    upstream.has_foreign_data = offered.as_ref().is_some_and(|old| old.has_foreign_data);
    upstream.down_since_s = offered.as_ref().map_or(0, |old| old.down_since_s);
    upstream.db = offered.map_or(selected_db.unwrap_or(0), |old| old.db);
    server.config.replicaof = Some(HostPort {
        host: host.into(),
        port,
    });
    blocked::disconnect_all(server);
    if was_primary {
        log::info!(
            "{}",
            words.line(
                "Before turning into a replica, using my own master parameters to synthesize a cached master: I may \
                 be able to synchronize with the new master with just a partial transfer.",
                &[]
            )
        );
        replication::ensure_backlog(server);
    }
    changed(server);
}

/// At the start, before the data set is loaded: sets the role that the settings require. Port 0 in
/// the settings means that the server has no primary.
pub fn begin(server: &mut Server) {
    let named = server.config.replicaof.clone();
    if let Some(primary) = named.filter(|primary| primary.port != 0) {
        let host = primary.host.to_str_lossy().into_owned();
        server.replication.set_upstream(&host, primary.port).is_new = false;
        changed(server);
    }
}

/// Makes this server a primary.
pub fn promote(server: &mut Server) {
    if !server.replication.is_replica() {
        return;
    }
    close_primary_client(server);
    server.replication.upstream = None;
    server.config.replicaof = None;
    server.replication.own_expiries.forget(None);
    let id = server.rng.hex(40);
    server.replication.branch_history(id);
    log::info!(
        "Setting secondary replication ID to {}, valid up to offset: {}. New replication ID is {}",
        server.replication.second_id,
        server.replication.second_offset,
        server.replication.id
    );
    // The replicas connect again at once, and get the new id in the reply to PSYNC.
    close_replicas(server);
    server.replication.stream.forget_db();
    server.replication.no_replicas_since_s = server.clock.now_s();
    changed(server);
    // The AOF may be off after a sync that failed, so it is started again. `follow_setting` logs an
    // error, so the result is ignored.
    let _ = aof::follow_setting(server);
}

/// Sets the letter of the role in the lines of the log.
pub fn set_log_role(server: &Server) {
    logging::set_role(match server.replication.is_replica() {
        true => logging::Role::Replica,
        false => logging::Role::Primary,
    });
}

/// Updates everything that depends on the server's role, primary or replica.
fn changed(server: &mut Server) {
    set_log_role(server);
    replication::follow_stream(server);
    if let Err(reason) = server.apply_oom_score_adj() {
        log::warn!("{reason}");
    }
}

/// Closes the client that applies the primary's stream at the end of this turn; until then the
/// client applies nothing.
fn close_primary_client(server: &mut Server) {
    let client = server
        .replication
        .upstream
        .as_ref()
        .and_then(|up| up.client);
    if let Some(r) = client
        && let Some(mut c) = server.net.clients.take_ref(r)
    {
        replication::primary_left(server, &c);
        Net::close_asap(&mut server.net.close_asap, &mut c);
        server.net.clients.put(c);
    }
}

/// Begins a new history when the data set is about to be replaced, since the old id no longer
/// describes this server's data.
pub fn end_history(server: &mut Server) {
    let id = server.rng.hex(40);
    server.replication.begin_history(id);
    let end = server.replication.stream.end();
    // `restart_at` can't fail here: the stream's own end is a valid offset.
    let _ = server.replication.stream.restart_at(end);
}

/// Closes the links of all replicas, since this server's history has changed.
pub fn close_replicas(server: &mut Server) {
    for r in server.replication.replicas.clients() {
        if let Some(c) = server.net.clients.resolve(r) {
            Net::close_asap(&mut server.net.close_asap, c);
        }
    }
}
