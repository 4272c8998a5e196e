//! CLIENT PAUSE and similar pauses, which hold clients back until a time. Each purpose has a pause
//! of its own.

use crate::armed;
use crate::client::flag;
use crate::cluster::bitmap::Bitmap;
use crate::execute::blocked;
use crate::state::Server;

/// The purposes of a pause. Pauses for different purposes are independent of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PausePurpose {
    /// CLIENT PAUSE.
    Client,
    /// SHUTDOWN, while it waits for replicas.
    Shutdown,
    /// FAILOVER, and CLUSTER FAILOVER.
    Failover,
    /// `repl-throttling-enabled`, while a replica lags.
    Throttle,
}

/// The pauses, by purpose. While any pause runs, no key expires and no key is evicted, so that the
/// data set does not change.
#[derive(Default)]
pub struct Pause {
    purposes: [Paused; 4],
    /// The slots that are being handed over to another node.
    slots: Option<Box<HandedOver>>,
}

/// Slots that are being handed over.
struct HandedOver {
    /// Slots that are moving: clients that write to them wait.
    waiting: Bitmap,
    /// Slots of which it is not known which node has them: clients that write to them are refused.
    refused: Bitmap,
}

#[derive(Clone, Copy, Default)]
struct Paused {
    /// Unix time in milliseconds, 0 for no pause.
    until_ms: i64,
    /// Whether all commands wait, not only those that write.
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

    /// Ends the pause for a purpose.
    pub fn clear(&mut self, purpose: PausePurpose) {
        self.purposes[purpose as usize] = Paused::default();
    }

    /// Removes the pauses that are over.
    pub fn expire(&mut self, now_ms: i64) {
        self.purposes
            .iter_mut()
            .filter(|p| p.until_ms <= now_ms)
            .for_each(|p| *p = Paused::default());
    }

    /// Whether a pause was set and not removed yet.
    pub fn is_set(&self) -> bool {
        self.slots.is_some() || self.purposes.iter().any(|p| p.until_ms > 0)
    }

    /// Whether the writers of this slot wait.
    pub fn slot_waits(&self, slot: u16) -> bool {
        let slots = self.slots.as_ref();
        slots.is_some_and(|slots| slots.waiting.contains(slot))
    }

    /// Whether the writers of this slot are refused.
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

    /// Whether all commands wait.
    pub fn holds_all(&self, now_ms: i64) -> bool {
        self.purposes.iter().any(|p| p.all && p.until_ms > now_ms)
    }

    /// Whether at least the commands that write wait.
    pub fn holds_writes(&self, now_ms: i64) -> bool {
        self.purposes.iter().any(|p| p.until_ms > now_ms)
    }

    /// Whether the stream must not grow: a failover waits until a replica has all of it.
    pub fn stops_replication(&self, now_ms: i64) -> bool {
        self.purposes[PausePurpose::Failover as usize].until_ms > now_ms
    }

    /// Whether there is a pause for this purpose.
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

    /// Holds back the primary's stream while writes are held back. `networking::primary` resumes
    /// the stream after the pause.
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

    /// Sets the slots that are being handed over, whose writers wait or are refused.
    pub fn pause_slots(&mut self, waiting: Bitmap, refused: Bitmap) {
        let any = !waiting.is_empty() || !refused.is_empty();
        let slots = any.then(|| Box::new(HandedOver { waiting, refused }));
        self.pause.slots = slots;
        self.update_armed();
        // All commands that are held back are checked again.
        blocked::resume_postponed(self);
    }

    /// Ends the pause for a purpose before its time.
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
