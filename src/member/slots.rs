//! Deletes keys and redirects clients when slots get another owner.

use crate::db::slot::key_slot;
use crate::execute::blocked;
use crate::pubsub;
use crate::state::Server;

/// Deletes the keys of slots that belong to another node now.
pub fn delete_keys(server: &mut Server, slots: &[u16]) {
    let Some(member) = &server.cluster else {
        return;
    };
    let myself = member.machine.myself();
    let (called, shard) = (myself.called(), myself.shard);
    for slot in slots {
        log::info!("Deleting keys in dirty slot {slot} on node {called} in shard {shard}");
        server.drop_slot(*slot);
    }
}

/// Reacts to a change of slot owners, roles, addresses or the state of the cluster: blocked clients
/// and subscribers of shard channels may have to go to another node.
pub fn topology_changed(server: &mut Server) {
    if let Some(member) = &mut server.cluster {
        let now = member.now();
        member.transfers.topology_changed(now, &member.machine);
        member.topology += 1;
        if let Some(stats) = &mut server.stats.slots {
            stats.retain(|slot| member.machine.is_of_shard(slot));
        }
    }
    blocked::redirect_waiting(server);
    pubsub::end_shard_channels(server, |server, channel| {
        let member = server.cluster.as_ref();
        member.is_none_or(|member| member.machine.keeps_channels(key_slot(channel)))
    });
}
