//! FAILOVER: executes the actions of `replication::failover` on the primary, and takes over the
//! role on the target.
//!
//! ```text
//!   FAILOVER ─> begin: writes wait ─> update (before_sleep): a replica has it all ─> role::follow
//!                                                      networking::primary sends PSYNC .. FAILOVER
//!   the target: PSYNC .. FAILOVER ─> take_over: role::promote, then PSYNC is served as any other
//! ```

use crate::client::Client;
use crate::clients::describe::describe;
use crate::error::Error;
use crate::execute::pause::PausePurpose;
use crate::replication::failover::{Action, Address, Event, Request};
use crate::replication::replicas::Replica;
use crate::state::Server;
use crate::sync::role;
use crate::util::quote::printable;

/// FAILOVER: begins a failover to the requested replica, or to any replica.
pub fn begin(server: &mut Server, request: Request) {
    match &request.target {
        Some(target) => {
            log::info!("FAILOVER requested to {}:{}.", target.host, target.port);
        }
        None => log::info!("FAILOVER requested to any replica."),
    }
    // Requests an acknowledgement of the last bytes, before the stream stops growing: without a
    // request, replicas acknowledge once a second only.
    server.replication.request_acks();
    server.pause_clients(PausePurpose::Failover, i64::MAX, false);
    server.replication.failover.begin(request);
}

/// The replica whose address is `host` and which listens on `port`.
pub fn find_replica<'a>(server: &'a Server, host: &str, port: i64) -> Option<&'a Replica> {
    let is = |replica: &&Replica| {
        port != 0
            && replica.has_stream()
            && i64::from(replica.announced.port) == port
            && replica.ip.eq_ignore_ascii_case(host)
    };
    server.replication.replicas.iter().find(is)
}

/// The address at which a replica accepts connections, if it has announced one.
pub fn address_of(replica: &Replica) -> Option<Address> {
    let port = u16::try_from(replica.announced.port).ok()?;
    (port != 0).then(|| Address {
        host: replica.ip.clone(),
        port,
    })
}

/// Before the loop sleeps, while a failover waits: checks whether a replica has the whole stream,
/// or the deadline has passed.
pub fn update(server: &mut Server) {
    if !server.replication.failover.is_waiting() || server.is_nested() {
        return;
    }
    let end = server.replication.stream.end();
    let synced = |replica: &&Replica| replica.is_streaming() && replica.acked == end;
    let replicas = server.replication.replicas.iter().filter(synced);
    let synced: Vec<Address> = replicas.filter_map(address_of).collect();
    let now_ms = server.clock.now_ms;
    step(
        server,
        Event::Turn {
            now_ms,
            synced: &synced,
        },
    );
}

/// Passes an event to the state machine of FAILOVER, and executes the resulting action.
pub fn step(server: &mut Server, event: Event) {
    match server.replication.failover.step(event) {
        None => {}
        Some(Action::Follow { target, forced }) => {
            let Address { host, port } = target;
            match forced {
                true => log::info!("FAILOVER to {host}:{port} time out exceeded, failing over."),
                false => log::info!("Failover target {host}:{port} is synced, failing over."),
            }
            role::follow(server, &host, port);
        }
        Some(Action::Finish) => server.unpause_clients(PausePurpose::Failover),
        Some(Action::Abort {
            target,
            reason,
            promote,
        }) => {
            match target {
                Some(Address { host, port }) => {
                    log::info!("FAILOVER to {host}:{port} aborted: {reason}");
                }
                None => log::info!("FAILOVER to any replica aborted: {reason}"),
            }
            if promote {
                role::promote(server);
            }
            server.unpause_clients(PausePurpose::Failover);
        }
    }
}

/// Takes over the role of this replica's primary, which has sent `PSYNC id offset FAILOVER`.
pub fn take_over(server: &mut Server, c: &Client, id: &[u8]) -> Result<(), Error> {
    log::info!(
        "Failover request received for replid {}.",
        printable(id, 64)
    );
    if !server.replication.is_replica() {
        return Err(Error::of("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    if !id.eq_ignore_ascii_case(server.replication.id.as_bytes()) {
        return Err(Error::of("ERR PSYNC FAILOVER replid must match my replid."));
    }
    role::promote(server);
    let words = server.config.words();
    let requester = describe(server, c);
    let line = words.line(
        "MASTER MODE enabled (failover request from '{}')",
        &[&requester],
    );
    log::info!("{line}");
    Ok(())
}
