//! Reports the replication offset to the cluster's state machine, and makes replication follow the
//! role that the state machine has for this node.

use crate::cluster::event::{Event, Replication};
use crate::member;
use crate::state::Server;
use crate::sync::role;

/// Reports the offset of the replication stream and the state of the primary's link to the
/// cluster's state machine, if they have changed.
pub(super) fn report_replication(server: &mut Server) {
    let Some(member) = &server.cluster else {
        return;
    };
    let state = match &server.replication.upstream {
        None => Replication {
            offset: server.replication.stream.end(),
            connected: false,
            heard_ms: 0,
        },
        Some(upstream) => {
            let now = member.now();
            let client = upstream.client;
            let client = client.and_then(|r| server.net.clients.get(r.slot));
            let heard = client.map_or(upstream.down_since_s * 1000, |c| c.last_interaction_ms);
            let age = now.wall_ms.saturating_sub(heard.max(0) as u64);
            // Offset 0 means that this replica does not have the primary's data: CLUSTER SLOTS does
            // not list a replica with offset 0, and the primary's other replicas are preferred in
            // an election.
            let offset = match upstream.has_foreign_data || server.loading.is_in_place() {
                true => 0,
                false => server.replication.stream.end(),
            };
            Replication {
                offset,
                connected: upstream.is_connected(),
                heard_ms: match heard {
                    0 => 0,
                    _ => now.ms.saturating_sub(age).max(1),
                },
            }
        }
    };
    if member.machine.replication() != &state {
        member::step(server, Event::Replication(state));
    }
}

/// Makes replication follow the primary that the cluster's state machine has for this node, also
/// after a start.
pub(super) fn follow_role(server: &mut Server) {
    let Some(member) = &server.cluster else {
        return;
    };
    let Some(primary) = member.machine.myself().replica_of else {
        return;
    };
    let address = &member.machine.nodes()[primary].address;
    let port = match server.config.tls_replication {
        true => address.tls_port,
        false => address.tcp_port,
    };
    let host = address.ip.as_str().to_string();
    let followed = server.replication.upstream.as_ref();
    let same = followed.is_some_and(|up| *up.host == *host && up.port == port);
    if !same && !host.is_empty() && port != 0 && !server.is_nested() {
        role::follow(server, &host, port);
    }
}
