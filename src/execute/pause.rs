//! CLIENT PAUSE and similar pauses, which hold back the commands of clients until a time. Each
//! purpose of a pause (CLIENT PAUSE, SHUTDOWN, FAILOVER, throttling) has an end of its own.

use crate::armed;
use crate::client::flag;
use crate::cluster::bitmap::Bitmap;
use crate::execute::blocked;
use crate::state::Server;

/// The purposes of a pause. Pauses for different purposes are independent of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PausePurpose {
    /// The command CLIENT PAUSE.
    Client,
    /// SHUTDOWN, while it waits for replicas.
    Shutdown,
    /// FAILOVER, and CLUSTER FAILOVER.
    Failover,
    /// `repl-throttling-enabled`, while a replica lags.
    Throttle,
}

/// The pauses of clients, by purpose. While any pause runs, no key expires and no key is evicted,
/// so that the data set does not change.
#[derive(Default)]
pub struct Pause {
    purposes: [Paused; 4],
    /// The slots of this cluster node that are being handed over to another node.
    slots: Option<Box<HandedOver>>,
}

/// Slots of this cluster node that are being handed over to another node.
struct HandedOver {
    /// Slots that are moving to another node: clients that write to these slots wait.
    waiting: Bitmap,
    /// Slots of which this node does not know whether the other node has taken them: writes to
    /// these slots are refused.
    refused: Bitmap,
}

#[derive(Clone, Copy, Default)]
struct Paused {
    /// The end of the pause as a Unix time in milliseconds; 0 for no pause.
    until_ms: i64,
    /// Whether the pause holds back all commands, not only those that write.
    all: bool,
}

impl Pause {
    /// Holds clients back until `until_ms`. A running pause for the same purpose can only become
    /// longer and stricter.
    pub fn set(&mut self, purpose: PausePurpose, until_ms: i64, all: bool) {
        let paused = &mut self.purposes[purpose as usize];
        paused.until_ms = paused.until_ms.max(until_ms);
        paused.all |= all;
    }

    /// Ends the pause for `purpose`.
    pub fn clear(&mut self, purpose: PausePurpose) {
        self.purposes[purpose as usize] = Paused::default();
    }

    /// Removes the pauses whose time has passed.
    pub fn expire(&mut self, now_ms: i64) {
        self.purposes
            .iter_mut()
            .filter(|p| p.until_ms <= now_ms)
            .for_each(|p| *p = Paused::default());
    }

    /// Whether a pause was set, or slots are being handed over; a pause whose time has passed
    /// counts until `expire` has removed it.
    pub fn is_set(&self) -> bool {
        self.slots.is_some() || self.purposes.iter().any(|p| p.until_ms > 0)
    }

    /// Whether clients that write to this slot wait, because the slot is moving to another node.
    pub fn slot_waits(&self, slot: u16) -> bool {
        let slots = self.slots.as_ref();
        slots.is_some_and(|slots| slots.waiting.contains(slot))
    }

    /// Whether writes to this slot are refused, because this node does not know which node has the
    /// slot.
    pub fn slot_is_refused(&self, slot: u16) -> bool {
        let slots = self.slots.as_ref();
        slots.is_some_and(|slots| slots.refused.contains(slot))
    }

    /// Whether a slot is being handed over, so that its keys must not change.
    pub fn holds_slot(&self, slot: u16) -> bool {
        self.slot_waits(slot) || self.slot_is_refused(slot)
    }

    /// Whether some slot is being handed over.
    pub fn holds_slots(&self) -> bool {
        self.slots.is_some()
    }

    /// Whether a pause holds back all commands.
    pub fn holds_all(&self, now_ms: i64) -> bool {
        self.purposes.iter().any(|p| p.all && p.until_ms > now_ms)
    }

    /// Whether a pause holds back at least the commands that write.
    pub fn holds_writes(&self, now_ms: i64) -> bool {
        self.purposes.iter().any(|p| p.until_ms > now_ms)
    }

    /// Whether the replication stream must not grow, because a failover waits until a replica has
    /// all of the stream.
    pub fn stops_replication(&self, now_ms: i64) -> bool {
        self.purposes[PausePurpose::Failover as usize].until_ms > now_ms
    }

    /// Whether the pause for `purpose` is running.
    pub fn runs(&self, purpose: PausePurpose, now_ms: i64) -> bool {
        self.purposes[purpose as usize].until_ms > now_ms
    }

    /// The purpose whose pause ends last, and the time of its end, for INFO.
    pub fn longest(&self, now_ms: i64) -> Option<(PausePurpose, i64)> {
        [
            PausePurpose::Client,
            PausePurpose::Shutdown,
            PausePurpose::Failover,
            PausePurpose::Throttle,
        ]
        .into_iter()
        .map(|purpose| (purpose, self.purposes[purpose as usize].until_ms))
        .filter(|&(_, until_ms)| until_ms > now_ms)
        .max_by_key(|&(_, until_ms)| until_ms)
    }
}

/// Ends pauses whose time has passed.
pub fn end_pause(server: &mut Server) {
    if server.armed & armed::PAUSED != 0 {
        server.pause.expire(server.clock.now_ms);
        server.follow_pause();
    }
}

impl Server {
    /// Holds clients back until `until_ms`: all commands, or those that write.
    pub fn pause_clients(&mut self, purpose: PausePurpose, until_ms: i64, all: bool) {
        self.pause.set(purpose, until_ms, all);
        self.update_armed();
        self.hold_primary();
    }

    /// On a replica, stops applying the primary's replication stream while writes are held back.
    /// `networking::primary` resumes the stream after the pause.
    pub fn hold_primary(&mut self) {
        let upstream = self.replication.upstream.as_ref();
        let client = upstream.and_then(|up| up.client);
        let paused = self.pause.holds_writes(self.clock.now_ms);
        if let Some(c) = client.and_then(|r| self.net.clients.resolve(r))
            && paused
        {
            c.set(flag::HELD);
        }
    }

    /// Sets the slots that are being handed over: writes to the slots in `waiting` wait, writes to
    /// those in `refused` get an error.
    pub fn pause_slots(&mut self, waiting: Bitmap, refused: Bitmap) {
        let any = !waiting.is_empty() || !refused.is_empty();
        let slots = any.then(|| Box::new(HandedOver { waiting, refused }));
        self.pause.slots = slots;
        self.update_armed();
        // All commands that were held back are checked again, since their slots may not be moving
        // any more.
        blocked::resume_postponed(self);
    }

    /// Ends the pause for `purpose` before its time.
    pub fn unpause_clients(&mut self, purpose: PausePurpose) {
        self.pause.clear(purpose);
        self.follow_pause();
    }

    /// Lets waiting commands run if no pause holds them back any more.
    fn follow_pause(&mut self) {
        self.update_armed();
        if !self.pause.is_set() {
            blocked::resume_postponed(self);
        }
    }
}
