//! Streams: the entries (the log, `ds::stream`) and the groups that read them.
//!
//! ```text
//!  Stream { log, groups: name -> Group }
//!  Group  { last_id, entries_read,
//!           pel:       id -> Nack { delivery_time, delivery_count, consumer },   what was delivered, not acknowledged
//!           consumers: name -> number,  slots: number -> Consumer { pel: ids, seen_time, active_time } }
//! ```
//!
//! A pending entry is in two maps: that of its group, which XACK, XPENDING and XCLAIM search, and
//! that of its consumer, which XREADGROUP with an explicit ID reads. A Nack, a pending entry of the
//! group, names its consumer by a slot number. So a claim moves an ID between two sets, and the
//! deletion of a consumer touches only the entries of this consumer.
//!
//! **Invariant:** each ID of the group's PEL (its pending entries) is in the PEL of the consumer
//! that its Nack names, and in no other consumer's (`tests::agrees_with_a_map`).
//!
//! `entries_read` is the number of entries, of all that were ever added, that a group has read. The
//! number may be unknown; XINFO then shows a lag only where the lag can be derived ([`Group::lag`],
//! as in Redis 8.2). The number is incremented only while no entry ahead of the group can have been
//! deleted or trimmed, as in Valkey 8.1 and Redis 7.4; older versions always increment it and show
//! a lag that never reaches zero.

use crate::ds::btree_memory::map_bytes;
use crate::ds::entry::{ValueMut, ValueRef};
use crate::ds::relocate::{Cursor, Relocate, in_turn};
use crate::ds::stream::{Precision, StreamId, StreamLog, Trim};
use crate::ds::thin_buffer::{size_class, vec_bytes};
use crate::error::Error;
use crate::sys::mover::Mover;
use crate::types::lengths::KeyWrite;
use crate::types::{KeyRef, Value};
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::RangeBounds;

/// The value of a stream key.
#[derive(Clone, Default)]
pub struct Stream {
    pub log: StreamLog,
    groups: BTreeMap<Box<[u8]>, Group>,
}

// A stream that is deleted lazily is dropped by another thread, so `Stream` must be `Send`.
const fn is_send<T: Send>() {}
const _: () = is_send::<Stream>();

/// Active defragmentation moves the allocations of the log first, by ID, then those of the groups.
impl Relocate for Stream {
    fn relocate(&mut self, cursor: Cursor, mover: &mut Mover) -> Cursor {
        let log =
            |stream: &mut Stream, cursor, mover: &mut Mover| stream.log.relocate(cursor, mover);
        in_turn(self, cursor, mover, log, |stream, cursor, mover| {
            if cursor == 0 {
                mover.map(&mut stream.groups, |mover, name, _| mover.boxed_slice(name));
            }
            let first = usize::try_from(cursor).unwrap_or(usize::MAX);
            for (at, group) in stream.groups.values_mut().enumerate().skip(first) {
                if mover.is_spent() && at > first {
                    return at as Cursor;
                }
                group.relocate(mover);
            }
            0
        })
    }
}

impl Stream {
    /// An empty stream without groups.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// The groups, in order of their names.
    pub fn groups(&self) -> btree_map::Iter<'_, Box<[u8]>, Group> {
        self.groups.iter()
    }

    /// The number of groups.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// The group of this name.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// The group of this name, which can be changed.
    pub fn group_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.groups.get_mut(name)
    }

    /// The log for reading and a group for writing, borrowed together.
    pub fn log_and_group(&mut self, name: &[u8]) -> Option<(&mut StreamLog, &mut Group)> {
        let group = self.groups.get_mut(name)?;
        Some((&mut self.log, group))
    }

    /// Creates a group. Returns `None` if the name is taken.
    pub fn create_group(
        &mut self,
        name: &[u8],
        last_id: StreamId,
        entries_read: Option<u64>,
    ) -> Option<&mut Group> {
        match self.groups.entry(name.into()) {
            btree_map::Entry::Occupied(_) => None,
            btree_map::Entry::Vacant(vacant) => {
                Some(vacant.insert(Group::new(last_id, entries_read)))
            }
        }
    }

    /// Removes a group. Returns false if there is no group of this name.
    pub fn destroy_group(&mut self, name: &[u8]) -> bool {
        self.groups.remove(name).is_some()
    }

    /// Whether a group still needs an entry: the entry is pending in the group, or was not
    /// delivered yet.
    pub fn is_referenced(&self, id: StreamId) -> bool {
        is_referenced(&self.groups, id)
    }

    /// Removes an ID from the pending entries of all groups.
    pub fn unreference(&mut self, id: StreamId) {
        self.groups.values_mut().for_each(|group| {
            group.ack(id);
        });
    }

    /// Removes entries from the front of the stream. `policy` says what happens to the groups'
    /// references to the removed entries. Returns the number of removed entries.
    pub fn trim(&mut self, trim: Trim, precision: Precision, policy: RefPolicy) -> u64 {
        let gone = match policy {
            RefPolicy::Keep => return self.log.trim(trim, precision),
            RefPolicy::Delete => self.log.trim_where(trim, precision, |_| true),
            RefPolicy::Acked => {
                let groups = &self.groups;
                self.log
                    .trim_where(trim, precision, |id| !is_referenced(groups, id))
            }
        };
        if policy == RefPolicy::Delete {
            gone.iter().for_each(|&id| self.unreference(id));
        }
        gone.len() as u64
    }

    /// The memory of the stream in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Stream>() + self.log.memory_bytes() + self.groups_memory()
    }

    /// An estimate of the memory: only a few nodes of entries are measured.
    pub fn memory_estimate(&self) -> usize {
        size_of::<Stream>() + self.log.memory_estimate() + self.groups_memory()
    }

    fn groups_memory(&self) -> usize {
        let groups = self.groups.iter();
        let each: usize = groups
            .map(|(name, group)| size_class(name.len()) + group.memory_bytes())
            .sum();
        each + map_bytes::<Box<[u8]>, Group>(self.groups.len())
    }
}

/// Methods that open the stream of a key.
impl Stream {
    /// The stream in an entry; WRONGTYPE for any other type.
    #[inline]
    pub fn of(entry: KeyRef<'_>) -> Result<&Stream, Error> {
        match entry.value() {
            ValueRef::Obj(Value::Stream(stream)) => Ok(stream),
            _ => Err(Error::WRONGTYPE),
        }
    }

    /// The stream in an entry, which can be changed; WRONGTYPE for any other type.
    #[inline]
    pub fn of_mut(entry: KeyWrite<'_>) -> Result<&mut Stream, Error> {
        match entry.into_value_of_same_length() {
            ValueMut::Obj(Value::Stream(stream)) => Ok(stream),
            _ => Err(Error::WRONGTYPE),
        }
    }
}

/// The policy for the groups' references to an entry that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefPolicy {
    /// KEEPREF: the references stay.
    Keep,
    /// DELREF: the references are removed with the entry.
    Delete,
    /// ACKED: the entry is deleted only if no group needs it any more.
    Acked,
}

fn is_referenced(groups: &BTreeMap<Box<[u8]>, Group>, id: StreamId) -> bool {
    groups
        .values()
        .any(|group| group.last_id < id || group.nack(id).is_some())
}

/// A pending entry of a group: a delivery that waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack {
    /// Unix time of the last delivery, in milliseconds.
    pub delivery_time: i64,
    pub delivery_count: u64,
    consumer: ConsumerId,
}

impl Nack {
    /// The consumer to which the entry was delivered last.
    pub fn consumer(&self) -> ConsumerId {
        self.consumer
    }
}

/// The slot of a consumer in its group. The slots of deleted consumers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerId(u32);

impl ConsumerId {
    /// The consumer of a pending entry while an RDB file is loaded: the file has the pending
    /// entries of a group before its consumers.
    const UNKNOWN: ConsumerId = ConsumerId(u32::MAX);
}

/// A consumer of a group.
#[derive(Clone)]
pub struct Consumer {
    name: Box<[u8]>,
    /// The Unix time of the consumer's last attempt to read or claim, in milliseconds.
    pub seen_time: i64,
    /// The Unix time of the last attempt that returned an entry, in milliseconds, or -1.
    pub active_time: i64,
    pel: BTreeSet<StreamId>,
}

impl Consumer {
    /// The consumer's name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The number of deliveries to this consumer that are not acknowledged.
    pub fn pending_count(&self) -> usize {
        self.pel.len()
    }

    /// The IDs in this range that are pending at this consumer.
    pub fn pending(
        &self,
        ids: impl RangeBounds<StreamId>,
    ) -> impl DoubleEndedIterator<Item = StreamId> {
        self.pel.range(ids).copied()
    }
}

/// The fields that XCLAIM sets in the pending entries that it moves.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The Unix time of the delivery in milliseconds.
    pub delivery_time: i64,
    pub delivery_count: u64,
}

/// A consumer group.
#[derive(Clone)]
pub struct Group {
    /// The last entry that was delivered: XREADGROUP with `>` continues behind this entry.
    pub last_id: StreamId,
    /// The number of entries, of all that were ever added, that the group has read; `None` if
    /// unknown.
    pub entries_read: Option<u64>,
    pel: BTreeMap<StreamId, Nack>,
    consumers: BTreeMap<Box<[u8]>, ConsumerId>,
    slots: Vec<Option<Consumer>>,
    /// The slots of deleted consumers.
    free: Vec<u32>,
}

impl Group {
    /// Offers all allocations of the group to the mover of active defragmentation, in one step.
    fn relocate(&mut self, mover: &mut Mover) {
        mover.visited(1 + self.slots.len());
        mover.map(&mut self.pel, |_, _, _| ());
        mover.map(&mut self.consumers, |mover, name, _| {
            mover.boxed_slice(name)
        });
        mover.vec(&mut self.slots);
        mover.vec(&mut self.free);
        for consumer in self.slots.iter_mut().flatten() {
            mover.boxed_slice(&mut consumer.name);
            mover.set(&mut consumer.pel);
        }
    }

    fn new(last_id: StreamId, entries_read: Option<u64>) -> Group {
        Group {
            last_id,
            entries_read,
            pel: BTreeMap::new(),
            consumers: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The number of consumers.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// The consumer of this name.
    pub fn find_consumer(&self, name: &[u8]) -> Option<ConsumerId> {
        self.consumers.get(name).copied()
    }

    /// Creates a consumer. Returns `None` if the name is taken.
    pub fn create_consumer(&mut self, name: &[u8], now_ms: i64) -> Option<ConsumerId> {
        if self.consumers.contains_key(name) {
            return None;
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None => u32::try_from(self.slots.len()).ok()?,
        };
        let id = ConsumerId(at);
        let consumer = Consumer {
            name: name.into(),
            seen_time: now_ms,
            active_time: -1,
            pel: BTreeSet::new(),
        };
        match self.slots.get_mut(at as usize) {
            Some(slot) => *slot = Some(consumer),
            None => self.slots.push(Some(consumer)),
        }
        self.consumers.insert(name.into(), id);
        Some(id)
    }

    /// Removes a consumer and its pending entries. Returns the number of removed pending entries.
    pub fn delete_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let id = self.consumers.remove(name)?;
        let consumer = self.slots[id.0 as usize]
            .take()
            .expect("a name has its slot");
        self.free.push(id.0);
        for pending in &consumer.pel {
            self.pel.remove(pending);
        }
        Some(consumer.pel.len())
    }

    /// The consumer with this ID, which must be from this group. The consumer must not have been
    /// deleted.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        self.slots[id.0 as usize]
            .as_ref()
            .expect("consumers are deleted by name, with their Nacks")
    }

    /// As [`Group::consumer`], but the consumer can be changed.
    pub fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        self.slots[id.0 as usize]
            .as_mut()
            .expect("consumers are deleted by name, with their Nacks")
    }

    /// The consumers, in order of their names.
    pub fn consumers(&self) -> impl Iterator<Item = (ConsumerId, &Consumer)> {
        self.consumers.values().map(|&id| (id, self.consumer(id)))
    }

    /// The number of deliveries that are not acknowledged.
    pub fn pending_count(&self) -> usize {
        self.pel.len()
    }

    /// The pending entries in this range of IDs.
    pub fn pending(&self, ids: impl RangeBounds<StreamId>) -> btree_map::Range<'_, StreamId, Nack> {
        self.pel.range(ids)
    }

    /// The pending entry of this ID.
    pub fn nack(&self, id: StreamId) -> Option<&Nack> {
        self.pel.get(&id)
    }

    /// Records the delivery of an entry to a consumer. The entry may have been delivered before, if
    /// XGROUP SETID moved the group back.
    pub fn deliver(&mut self, id: StreamId, to: ConsumerId, now_ms: i64) {
        self.assign(
            id,
            to,
            Claim {
                delivery_time: now_ms,
                delivery_count: 1,
            },
        );
    }

    /// Counts another delivery to the same consumer, which reads its own pending entries again.
    pub fn redeliver(&mut self, id: StreamId, now_ms: i64) {
        if let Some(nack) = self.pel.get_mut(&id) {
            nack.delivery_time = now_ms;
            nack.delivery_count = nack.delivery_count.saturating_add(1);
        }
    }

    /// Makes an entry pending at this consumer, and not any more at its previous consumer.
    pub fn assign(&mut self, id: StreamId, to: ConsumerId, claim: Claim) {
        let new = Nack {
            delivery_time: 0,
            delivery_count: 0,
            consumer: to,
        };
        let nack = self.pel.entry(id).or_insert(new);
        let from = std::mem::replace(&mut nack.consumer, to);
        nack.delivery_time = claim.delivery_time;
        nack.delivery_count = claim.delivery_count;
        if from != to {
            self.consumer_mut(from).pel.remove(&id);
        }
        self.consumer_mut(to).pel.insert(id);
    }

    /// Removes a pending entry: XACK, or XCLAIM of an entry that is no longer in the log.
    pub fn ack(&mut self, id: StreamId) -> bool {
        let Some(nack) = self.pel.remove(&id) else {
            return false;
        };
        self.consumer_mut(nack.consumer).pel.remove(&id);
        true
    }

    /// Sets `last_id` to an entry that is being delivered, and counts it as read.
    pub fn advance(&mut self, log: &StreamLog, id: StreamId) {
        if id <= self.last_id {
            return;
        }
        let nothing_lost =
            self.last_id >= log.first_id() && !has_tombstones_from(log, self.last_id);
        self.entries_read = match self.entries_read {
            Some(read) if nothing_lost => read.checked_add(1),
            known if log.entries_added() == 0 => known,
            _ => entries_up_to(log, id),
        };
        self.last_id = id;
    }

    /// The number of entries that the group has not read; `None` if unknown. The lag is known in
    /// three cases: the group is before the first entry, or the log is empty; nothing was deleted
    /// ahead of the group, and `entries_read` is known; `last_id` is the first or last entry of the
    /// log.
    pub fn lag(&self, log: &StreamLog) -> Option<i64> {
        let added = log.entries_added();
        if added == 0 || log.is_empty() {
            return Some(0);
        }
        if self.last_id < log.first_id() && log.max_deleted_id() < log.first_id() {
            return i64::try_from(log.len()).ok();
        }
        let read = match self.entries_read {
            Some(read) if !has_tombstones_from(log, self.last_id) => read,
            _ => entries_up_to(log, self.last_id)?,
        };
        Some(added.wrapping_sub(read) as i64)
    }

    /// Adds a pending entry while loading, before its consumer is known. Returns false if the ID is
    /// already pending.
    pub fn load_pending(&mut self, id: StreamId, delivery_time: i64, delivery_count: u64) -> bool {
        let nack = Nack {
            delivery_time,
            delivery_count,
            consumer: ConsumerId::UNKNOWN,
        };
        self.pel.insert(id, nack).is_none()
    }

    /// Sets the consumer of a loaded pending entry. Returns false if the ID is not pending, or if
    /// it has a consumer.
    pub fn load_owner(&mut self, id: StreamId, consumer: ConsumerId) -> bool {
        match self.pel.get_mut(&id) {
            Some(nack) if nack.consumer == ConsumerId::UNKNOWN => nack.consumer = consumer,
            _ => return false,
        }
        self.consumer_mut(consumer).pel.insert(id)
    }

    /// Whether every loaded pending entry has a consumer. If not, the group must be discarded.
    pub fn finish_load(&self) -> bool {
        self.pel
            .values()
            .all(|nack| nack.consumer != ConsumerId::UNKNOWN)
    }

    fn memory_bytes(&self) -> usize {
        let consumers = self.slots.iter().flatten();
        let each: usize = consumers
            .map(|c| 2 * size_class(c.name.len()) + map_bytes::<StreamId, ()>(c.pel.len()))
            .sum();
        each + vec_bytes(&self.slots)
            + vec_bytes(&self.free)
            + map_bytes::<Box<[u8]>, ConsumerId>(self.consumers.len())
            + map_bytes::<StreamId, Nack>(self.pel.len())
    }
}

/// Whether XDEL removed an entry at or behind `id` while older entries still exist: then the number
/// of entries up to `id` can't be known.
fn has_tombstones_from(log: &StreamLog, id: StreamId) -> bool {
    let deleted = log.max_deleted_id();
    !log.is_empty() && deleted != StreamId::MIN && log.first_id() <= deleted && id <= deleted
}

/// The number of entries with IDs up to `id`, of all that were ever added; `None` if unknown.
pub fn entries_up_to(log: &StreamLog, id: StreamId) -> Option<u64> {
    let added = log.entries_added();
    if added == 0 || (log.is_empty() && id <= log.last_id()) || id == log.last_id() {
        return Some(added);
    }
    let no_gaps = log.max_deleted_id() == StreamId::MIN || log.max_deleted_id() < log.first_id();
    if id > log.last_id() || !no_gaps {
        return None;
    }
    let before_first = added.checked_sub(log.len())?;
    match id.cmp(&log.first_id()) {
        std::cmp::Ordering::Less => Some(before_first),
        std::cmp::Ordering::Equal => Some(before_first + 1),
        std::cmp::Ordering::Greater => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ds::stream::{NewId, NodeLimits, Precision, Trim};
    use proptest::prelude::*;

    const LIMITS: NodeLimits = NodeLimits {
        max_bytes: 4096,
        max_entries: 100,
    };

    fn id(ms: u64) -> StreamId {
        StreamId::new(ms, 0)
    }

    fn log_of(n: u64) -> StreamLog {
        let mut log = StreamLog::new();
        for ms in 1..=n {
            log.append(NewId::Exact(id(ms)), 0, &[b"a", b"1"], LIMITS)
                .unwrap();
        }
        log
    }

    /// The expected figures are those that XINFO GROUPS of Redis 8.2 showed after the same steps.
    #[test]
    fn lag_as_in_redis_8_2() {
        let mut log = log_of(5);
        let group = |last: u64, read: Option<u64>| Group::new(id(last), read);
        let groups = [
            group(0, None),
            group(2, Some(2)),
            group(4, Some(4)),
            group(2, None),
        ];
        let lags = |log: &StreamLog| groups.each_ref().map(|g| g.lag(log));
        log.delete(id(3));
        assert_eq!(lags(&log), [None, None, Some(1), None]);
        log.delete(id(1));
        assert_eq!(lags(&log), [None, None, Some(1), None]);
        log.trim(Trim::MaxLen(2), Precision::Exact);
        assert_eq!(lags(&log), [Some(2), Some(2), Some(1), Some(2)]);
        log.trim(Trim::MaxLen(1), Precision::Exact);
        assert_eq!(lags(&log), [Some(1); 4]);
        assert_eq!(group(6, None).lag(&log), None);
        log.delete(id(5));
        assert_eq!(lags(&log), [Some(0); 4]);
        assert_eq!(group(6, None).lag(&log), Some(0));
        assert_eq!(group(0, None).lag(&StreamLog::new()), Some(0));
    }

    /// Entries are read, then some are deleted and trimmed: from then on `entries_read` is computed
    /// from the group's position in the log.
    #[test]
    fn entries_read_is_counted_on_only_where_nothing_was_lost() {
        let mut log = log_of(7);
        let mut groups = [Some(2), None, None, Some(0), Some(0)]
            .map(|read| Group::new(id(read.unwrap_or(0)), read));
        log.delete(id(3));
        log.trim(Trim::MaxLen(3), Precision::Exact);
        groups[..4].iter_mut().for_each(|g| g.advance(&log, id(5)));
        assert_eq!(
            groups.each_ref().map(|g| g.entries_read),
            [Some(5), Some(5), Some(5), Some(5), Some(0)]
        );
        assert_eq!(
            groups.each_ref().map(|g| g.lag(&log)),
            [Some(2), Some(2), Some(2), Some(2), Some(3)]
        );
        log.delete(id(6));
        groups[..4].iter_mut().for_each(|g| g.advance(&log, id(7)));
        assert_eq!(groups[4].lag(&log), None);
        groups[4].advance(&log, id(5));
        assert_eq!(groups[4].entries_read, None);
        groups[4].advance(&log, id(7));
        assert_eq!(groups.each_ref().map(|g| g.entries_read), [Some(7); 5]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Create(u8),
        Delete(u8),
        Deliver(u64, u8),
        Ack(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0u8..5).prop_map(Step::Create),
            1 => (0u8..5).prop_map(Step::Delete),
            8 => (0u64..30, 0u8..5).prop_map(|(ms, name)| Step::Deliver(ms, name)),
            4 => (0u64..30).prop_map(Step::Ack),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec(step(), 1..120)) {
            let mut group = Group::new(StreamId::MIN, None);
            let mut names = BTreeSet::new();
            let mut twin: BTreeMap<u64, u8> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Create(name) => {
                        assert_eq!(group.create_consumer(&[name], 1).is_some(), names.insert(name));
                    }
                    Step::Delete(name) => {
                        let had = twin.values().filter(|owner| **owner == name).count();
                        assert_eq!(group.delete_consumer(&[name]), names.remove(&name).then_some(had));
                        twin.retain(|_, owner| *owner != name);
                    }
                    Step::Deliver(ms, name) => {
                        if let Some(consumer) = group.find_consumer(&[name]) {
                            group.deliver(id(ms), consumer, 5);
                            twin.insert(ms, name);
                        }
                    }
                    Step::Ack(ms) => assert_eq!(group.ack(id(ms)), twin.remove(&ms).is_some()),
                }
                assert!(group.consumers().map(|(_, c)| c.name()[0]).eq(names.iter().copied()));
                let owned = |(id, nack): (&StreamId, &Nack)| (id.ms, group.consumer(nack.consumer()).name()[0]);
                assert!(group.pending(..).map(owned).eq(twin.iter().map(|(a, b)| (*a, *b))));
                for (_, consumer) in group.consumers() {
                    let ids = consumer.pending(..).map(|id| id.ms);
                    assert!(ids.eq(twin.iter().filter(|(_, n)| **n == consumer.name()[0]).map(|(a, _)| *a)));
                }
            }
        }
    }

    #[test]
    fn a_loaded_group_needs_an_owner_for_each_pending_entry() {
        let mut group = Group::new(StreamId::MIN, None);
        assert!(group.load_pending(id(1), 7, 2));
        assert!(!group.load_pending(id(1), 7, 2));
        assert!(!group.finish_load());
        let consumer = group.create_consumer(b"c", 1).unwrap();
        assert!(!group.load_owner(id(2), consumer));
        assert!(group.load_owner(id(1), consumer));
        assert!(!group.load_owner(id(1), consumer));
        assert!(group.finish_load());
        assert_eq!(group.nack(id(1)).map(|n| n.delivery_count), Some(2));
    }
}
