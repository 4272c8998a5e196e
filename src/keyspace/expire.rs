//! Expiry: an expired key is removed when it is looked up, or by the expiry cycle, soon after its
//! expiry time.
//!
//! Active expiry takes the due keys from the index of expiry times, earliest first, within a budget
//! of time: a short budget in each turn, from `before_sleep`, and a longer one from the cron. The
//! expiry cycle does not sample keys at random: unless the cycle's budget was too small, no expired
//! key holds memory after a cycle.
//!
//! ```text
//!   db 0   due due due due due ..      16 from each database that has some, in turn,
//!   db 1   due                         until nothing is due or the budget is spent;
//!   db 2   -                           the next call goes on where this one stopped
//! ```
//!
//! **Invariant:** in the expiry cycle, no database waits until another one has no due keys left: n
//! batches visit n databases with due keys
//! (`tests::a_burst_in_one_database_does_not_starve_another`).
//!
//! While clients are paused no expired key is removed, as the data set must not change; expired
//! keys are hidden nevertheless.
//!
//! On a replica expired keys are hidden until the primary's DEL or UNLINK deletes them. A replica
//! itself deletes only keys whose expiry time one of its own clients has set (`replica-read-only
//! no`), by the cron, and expired keys that one of its own clients changes.
//!
//! In `import-mode` (Valkey) expired keys stay until the source of the import sends their deletion:
//! the keys are alive for the client that is the source, and hidden from all other clients. In
//! `import-mode`, a command of another client that changes an expired key removes the key first.
//!
//! Fields of hashes expire as keys do. The index of field times has a hash under the expiry time of
//! its earliest field. A look-up of a hash first removes the fields that are due, so that commands
//! see live fields only. A look-up of a hash removes up to [`LOOKUP_FIELDS`] due fields; further
//! due fields are hidden in the hash and left to the expiry cycle, and if no live field remains,
//! the whole hash is deleted and freed in the background. (If each command filtered a hash's fields
//! by time instead, HLEN would count expired fields, as in Redis.)
//!
//! On a replica and during a pause the due fields of a hash stay, and are hidden from all commands
//! except the primary's, as the primary may still extend their lives. As in Redis and Valkey, HLEN
//! on a replica counts hidden fields, and a hash that has no other fields exists.

use std::time::Duration;

use crate::armed;
use crate::config::Teach;
use crate::db::Db;
use crate::db::kvstore::slot_in;
use crate::ds::expires::Expires;
use crate::ds::field::Field;
use crate::keyspace::events;
use crate::observe::trace::event::EventKind;
use crate::state::Server;
use crate::sys::instant::Instant;
use crate::types::hash::Hash;
use crate::types::{KeyRef, next_field_expiry};

/// The share of the cron's period that its expiry cycle may use: a quarter, and more with
/// `active-expire-effort`.
const CRON_SHARE: f64 = 0.25;
/// The time budget of the expiry cycle in each turn of the event loop.
const TURN_BUDGET: Duration = Duration::from_millis(1);
/// The maximum number of keys that the expiry cycle removes between two readings of the clock.
const BATCH: usize = 16;
/// The maximum number of hidden keys, those of slots that are being imported, that one search for a
/// due key skips. If more hidden keys are due, other due keys have to wait.
const HIDDEN_SKIPPED: usize = 1000;
/// The maximum number of fields of a hash that are removed at once, in one HDEL.
const FIELD_BATCH: usize = 64;
/// The maximum number of due fields that a look-up removes from a hash, which takes about 0.2 ms.
const LOOKUP_FIELDS: usize = 16 * FIELD_BATCH;

/// What happens to an expired key or field. Only [`Server::expiry_policy`] chooses the policy for
/// expired keys, from the role, loads and pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpiryPolicy {
    /// An expired key is removed when it is looked up, and the deletion is propagated.
    Delete,
    /// An expired key is hidden from readers and stays: the data set must not change now (CLIENT
    /// PAUSE), or belongs to a primary or to the source of an import, which sends the deletion.
    Hide,
    /// An expired key counts as alive: while a data set is loaded, a later command of the file may
    /// extend its life. For commands of the primary and of the source of an import, an expired key
    /// counts as alive, too.
    Ignore,
}

impl Server {
    /// Whether the key has expired. An expired key is removed, if the expiry policy allows it. In a
    /// database without volatile keys, `expire_if_needed` costs two comparisons.
    #[inline]
    pub fn expire_if_needed(&mut self, db: u32, hash: u64, key: &[u8]) -> bool {
        if !self.data.dbs[db as usize].field_expires.is_empty() {
            self.expire_fields_if_needed(db, hash, key);
        }
        if self.data.dbs[db as usize].expires.is_empty() {
            return false;
        }
        let found = self.data.dbs[db as usize].find(hash, key);
        let expired = found.is_some_and(|entry| self.is_expired(entry));
        if expired && self.expiry_policy() == ExpiryPolicy::Delete {
            self.delete_expired(db, key);
        }
        expired
    }

    /// Whether an entry has expired. While the data set is loaded, no entry counts as expired: a
    /// later command of the file may extend its life.
    #[inline]
    pub fn is_expired(&self, entry: KeyRef) -> bool {
        entry.expire_at().is_some_and(|at| at < self.clock.now_ms)
            && self.expiry_policy() != ExpiryPolicy::Ignore
    }

    /// The present policy for expired keys and fields.
    #[inline]
    pub fn expiry_policy(&self) -> ExpiryPolicy {
        if self.loading.is_in_place() || self.replication.applying {
            ExpiryPolicy::Ignore
        } else if self.replication.is_replica() || self.is_import() || self.is_paused() {
            ExpiryPolicy::Hide
        } else {
            ExpiryPolicy::Delete
        }
    }

    /// Whether this primary is in `import-mode`.
    fn is_import(&self) -> bool {
        self.armed & armed::IMPORT != 0
    }

    fn is_paused(&self) -> bool {
        self.armed & armed::PAUSED != 0
            && (self.pause.holds_slots() || self.pause.holds_writes(self.clock.now_ms))
    }

    /// If `key` is a hash with due fields, removes, hides or shows these fields, as the expiry
    /// policy says.
    #[cold]
    fn expire_fields_if_needed(&mut self, db: u32, hash: u64, key: &[u8]) {
        let now = self.clock.now_ms;
        let found = self.data.dbs[db as usize].find(hash, key);
        let due = found.and_then(next_field_expiry).is_some_and(|at| at < now);
        if !due {
            return;
        }
        let policy = self.expiry_policy();
        if policy == ExpiryPolicy::Delete {
            let key = key.to_vec();
            let mut batches = 0..LOOKUP_FIELDS / FIELD_BATCH;
            while self.delete_expired_fields(db, hash, &key) {
                if batches.next().is_none() {
                    return self.hide_expired_fields(db, hash, &key);
                }
            }
            return;
        }
        let found = self.data.dbs[db as usize].find_mut(hash, key);
        match found.map(Hash::of_mut) {
            Some(Ok(mut fields)) if policy == ExpiryPolicy::Ignore => fields.show_expired(),
            Some(Ok(mut fields)) => fields.hide_expired(now),
            _ => {}
        }
    }

    /// Hides the due fields of a hash until the expiry cycle has removed them, because the fields
    /// are too many for one look-up. If the hash has no other fields, deletes its key.
    fn hide_expired_fields(&mut self, db: u32, hash: u64, key: &[u8]) {
        let now = self.clock.now_ms;
        let found = self.data.dbs[db as usize].find_mut(hash, key);
        let Some(Ok(mut fields)) = found.map(Hash::of_mut) else {
            return;
        };
        fields.hide_expired(now);
        if !fields.is_empty() {
            return;
        }
        self.stats.expired_fields += fields.hidden_len() as u64;
        drop(fields);
        self.delete_key(db, key, true);
        self.propagate_deletion(db, key, true);
        self.notify(events::HASH, "hexpired", key, db);
        self.notify(events::GENERIC, "del", key, db);
        self.signal_modified(None, db, key);
    }

    /// Removes up to [`FIELD_BATCH`] due fields of a hash, and the key when no field is left;
    /// propagates HDEL, counts and notifies. Returns whether more fields are due.
    fn delete_expired_fields(&mut self, db: u32, hash: u64, key: &[u8]) -> bool {
        let now = self.clock.now_ms;
        let Some(entry) = self.data.dbs[db as usize].find_mut(hash, key) else {
            return false;
        };
        let Ok(mut fields) = Hash::of_mut(entry) else {
            return false;
        };
        let was = fields.next_expiry();
        let batch = std::iter::from_fn(|| fields.pop_expired(now));
        let gone: Vec<Field> = batch.take(FIELD_BATCH).collect();
        let (at, empty) = (fields.next_expiry(), fields.is_empty());
        drop(fields);
        if gone.is_empty() {
            return false;
        }
        self.data.dbs[db as usize].fields_moved(hash, was, at);
        if empty {
            self.delete_key(db, key, false);
        }
        self.stats.expired_fields += gone.len() as u64;
        if self.propagation.wanted() {
            let mut request: Vec<&[u8]> = vec![b"HDEL", key];
            request.extend(gone.iter().map(|field| field.as_ref().field()));
            self.propagation.also(db, &request);
        }
        self.notify(events::HASH, "hexpired", key, db);
        if empty {
            self.notify(events::GENERIC, "del", key, db);
        }
        self.signal_modified(None, db, key);
        at.is_some_and(|at| at < now)
    }

    /// Removes an expired key; propagates DEL or UNLINK, counts and notifies.
    fn delete_expired(&mut self, db: u32, key: &[u8]) {
        let lazy = self.config.lazyfree_lazy_expire;
        let began = self.latency.begin();
        let deleted = self.delete_key(db, key, lazy);
        let now_s = self.clock.now_s();
        self.latency.end("expire-del", began, now_s);
        if deleted {
            self.notify_expired(db, key);
        }
    }

    /// Removes an expired key that is about to be changed on a writable replica or in
    /// `import-mode`: otherwise the command would change the key and leave its old time to live.
    #[cold]
    pub fn expire_for_writer(&mut self, db: u32, key: &[u8]) {
        let own = self.may_expire_own() && !self.config.replica_read_only;
        let import = self.is_import() && self.expiry_policy() == ExpiryPolicy::Hide;
        if own || import && !self.is_paused() {
            self.delete_expired(db, key);
        }
    }

    /// Notes that a command has given a key an expiry time. If a client of a writable replica sent
    /// the command, the replica must delete the key itself when it expires.
    pub fn note_expiry(&mut self, db: u32, key: &[u8], at: i64) {
        if self.armed & armed::REPLICA != 0 && self.expiry_policy() == ExpiryPolicy::Hide {
            let hash = self.hash_key(key);
            self.replication.own_expiries.note(db, hash, at);
        }
    }

    fn may_expire_own(&self) -> bool {
        self.replication.is_replica()
            && self.expiry_policy() == ExpiryPolicy::Hide
            && !self.is_paused()
    }

    /// Counts and propagates the expiry of a key, and notifies subscribers.
    pub fn notify_expired(&mut self, db: u32, key: &[u8]) {
        self.stats.expired_keys += 1;
        self.propagate_deletion(db, key, self.config.lazyfree_lazy_expire);
        self.notify(events::EXPIRED, "expired", key, db);
        self.signal_modified(None, db, key);
    }
}

/// Expires due keys and fields of all databases until `budget` is spent. Returns whether due keys
/// or fields may be left.
fn active_expire(server: &mut Server, budget: Duration) -> bool {
    let databases = server.data.dbs.len() as u32;
    let gone = server.stats.expired_keys + server.stats.expired_fields;
    let mut start = None;
    let mut idle = 0;
    while idle < databases {
        let db = server.expire_next_db % databases;
        server.expire_next_db = (db + 1) % databases;
        if !expire_batch(server, db, &mut start) {
            idle += 1;
            continue;
        }
        idle = 0;
        if start.is_some_and(|start: Instant| start.elapsed() >= budget) {
            server.stats.expire_time_cap_reached += 1;
            break;
        }
    }
    if let Some(start) = start {
        let spent = start.elapsed();
        server.stats.expire_cycle_us += spent.as_micros() as u64;
        let now_s = server.clock.now_s();
        server
            .latency
            .add_if_needed("expire-cycle", spent.as_millis() as u64, now_s);
        if server.armed & armed::TRACE != 0 {
            let gone = server.stats.expired_keys + server.stats.expired_fields - gone;
            server.trace.since_mark(EventKind::Expire, 0, gone);
        }
    }
    idle < databases
}

/// Expires a few due keys and fields of one database; sets `start` to the present time when the
/// first due key is found. Returns false if no key or field was due.
fn expire_batch(server: &mut Server, db: u32, start: &mut Option<Instant>) -> bool {
    let now = server.clock.now_ms;
    let mut done = 0;
    let skipped = server.data.dbs[db as usize].keys.has_hidden();
    while let Some((at, hash)) = first_due(&server.data.dbs[db as usize], skipped) {
        if done == BATCH || at >= now {
            break;
        }
        start.get_or_insert_with(Instant::now);
        expire_one(server, db, at, hash);
        done += 1;
    }
    let db_ref = &server.data.dbs[db as usize];
    match first_shown(&db_ref.field_expires, db_ref, skipped) {
        Some((at, hash)) if at < now => {
            start.get_or_insert_with(Instant::now);
            expire_fields_of_one(server, db, at, hash);
            true
        }
        _ => done > 0,
    }
}

/// The expiry time and the hash of the key that expires first. With `skips`, keys of slots that are
/// being imported are passed over, since the source of the slot expires them.
fn first_due(db: &Db, skips: bool) -> Option<(i64, u64)> {
    first_shown(&db.expires, db, skips)
}

fn first_shown(index: &Expires, db: &Db, skips: bool) -> Option<(i64, u64)> {
    match skips {
        false => index.first(),
        true => index
            .iter()
            .take(HIDDEN_SKIPPED)
            .find(|(_, hash)| !db.keys.is_hidden(slot_in(*hash))),
    }
}

/// Expires a batch of fields of one hash: the key that the index of field times lists under `at`
/// and `hash`, the hash of its name.
fn expire_fields_of_one(server: &mut Server, db: u32, at: i64, hash: u64) {
    let keys = &server.data.dbs[db as usize].keys;
    let found = keys.find_by(hash, |entry| next_field_expiry(entry) == Some(at));
    match found.map(|entry| entry.key().to_vec()) {
        Some(key) => {
            server.delete_expired_fields(db, hash, &key);
            server.end_unit();
        }
        None => {
            debug_assert!(false, "the index names a hash that is not there");
            server.data.dbs[db as usize].field_expires.remove(at, hash);
        }
    }
}

/// Expires the key that the index of expiry times lists under `at` and the key's hash.
fn expire_one(server: &mut Server, db: u32, at: i64, hash: u64) {
    let keys = &server.data.dbs[db as usize].keys;
    let found = keys.find_by(hash, |entry| entry.expire_at() == Some(at));
    match found.map(|entry| entry.key().to_vec()) {
        Some(key) => {
            server.delete_expired(db, &key);
            server.end_unit();
        }
        None => {
            debug_assert!(false, "the index names a key that is not there");
            server.data.dbs[db as usize].expires.remove(at, hash);
        }
    }
}

/// On a replica, expires due keys whose times its own clients have set, until the budget of a turn
/// is spent.
fn expire_own(server: &mut Server) {
    if server.debug.no_active_expire || !server.may_expire_own() {
        return;
    }
    let start = Instant::now();
    let now = server.clock.now_ms;
    while let Some((db, hash, at)) = server.replication.own_expiries.pop_due(now) {
        let keys = server.data.dbs.get(db as usize).map(|db| &db.keys);
        let found = keys.and_then(|keys| keys.find_by(hash, |entry| entry.expire_at() == Some(at)));
        if let Some(key) = found.map(|entry| entry.key().to_vec()) {
            server.delete_expired(db, &key);
            server.end_unit();
        }
        if start.elapsed() >= TURN_BUDGET {
            break;
        }
    }
}

/// The expiry cycle of each turn, before the loop sleeps.
pub fn fast_cycle(server: &mut Server) {
    if active_expire_allowed(server) {
        active_expire(server, TURN_BUDGET);
    }
}

/// The expiry cycle of the cron, `hz` times a second.
pub fn cron_cycle(server: &mut Server) {
    if server.config.teach == Teach::SampledExpiry {
        return sampled_cycle(server);
    }
    if !active_expire_allowed(server) {
        return expire_own(server);
    }
    let effort = server.config.active_expire_effort.clamp(1, 10) as f64 - 1.0;
    let share = CRON_SHARE + 0.02 * effort;
    let period = 1.0 / server.config.hz.max(1) as f64;
    active_expire(server, Duration::from_secs_f64(period * share));
    for db in &mut server.data.dbs {
        update_avg_ttl(db, server.clock.now_ms);
    }
}

/// `teach sampled-expiry`: looks at a few random keys of each database, and goes on while more than
/// a quarter of the sample has expired, as Redis does. Expired keys that are not sampled stay.
fn sampled_cycle(server: &mut Server) {
    const SAMPLE: usize = 20;
    let gone = server.stats.expired_keys;
    for db in 0..server.data.dbs.len() as u32 {
        loop {
            let keys = &server.data.dbs[db as usize].keys;
            let sample = (0..SAMPLE).filter_map(|_| keys.random(server.rng.raw()));
            let mut due: Vec<Vec<u8>> = sample
                .filter(|entry| entry.expire_at().is_some_and(|at| at < server.clock.now_ms))
                .map(|entry| entry.key().to_vec())
                .collect();
            let hits = due.len();
            due.sort_unstable();
            due.dedup();
            for key in &due {
                server.delete_expired(db, key);
                server.end_unit();
            }
            if hits * 4 <= SAMPLE {
                break;
            }
        }
    }
    let gone = server.stats.expired_keys - gone;
    if gone > 0 && server.armed & armed::TRACE != 0 {
        server.trace.since_mark(EventKind::Expire, 0, gone);
    }
}

fn active_expire_allowed(server: &Server) -> bool {
    !server.debug.no_active_expire && server.expiry_policy() == ExpiryPolicy::Delete
}

/// Updates the average time to live of a database's keys (INFO's avg_ttl), estimated from the 20
/// keys that expire first and smoothed.
fn update_avg_ttl(db: &mut Db, now_ms: i64) {
    let earliest = db.expires.iter().take(20);
    let left = |at: i64| at.saturating_sub(now_ms).max(0);
    let (sum, n) = earliest.fold((0, 0), |(sum, n), (at, _)| {
        (left(at).saturating_add(sum), n + 1)
    });
    db.avg_ttl_ms = match (n, db.avg_ttl_ms) {
        (0, _) => 0,
        (n, 0) => sum / n,
        (n, old) => old / 50 * 49 + sum / n / 50,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Ttl;
    use crate::types::hash::{FieldTtl, HashLimits};
    use crate::types::string::encode;
    use crate::types::{New, Value, kind};

    fn server_with(keys: impl IntoIterator<Item = (u32, String, i64)>) -> Server {
        let mut server = Server::new(crate::config::Config::default(), Vec::new());
        server.clock.now_ms = 1_000_000;
        for (db, key, at) in keys {
            let (kind, value) = encode(b"value", None);
            server.set_key(db, key.as_bytes(), kind, value, Ttl::At(at));
        }
        server
    }

    #[test]
    fn what_is_due_goes_and_nothing_else() {
        let now = 1_000_000;
        let keys = (0..500).map(|i| (i % 3, format!("k{i}"), now - 250 + i as i64));
        let mut server = server_with(keys);
        assert!(!active_expire(&mut server, Duration::MAX));
        let left: usize = server.data.dbs.iter().map(|db| db.len()).sum();
        // A key is alive during the millisecond of its expiry time.
        assert_eq!((left, server.stats.expired_keys), (250, 250));
        for db in &server.data.dbs {
            assert_eq!(db.len(), db.expires.len());
            assert!(db.keys.iter().all(|entry| entry.expire_at() >= Some(now)));
        }
    }

    #[test]
    fn a_burst_in_one_database_does_not_starve_another() {
        let burst = (0..2000).map(|i| (0, format!("burst{i}"), 10 + i));
        let few = (0..8).map(|i| (5, format!("few{i}"), 999_000 + i));
        let mut server = server_with(burst.chain(few));
        // A budget of zero ends each expiry cycle after one batch of keys.
        assert!(active_expire(&mut server, Duration::ZERO));
        assert!(active_expire(&mut server, Duration::ZERO));
        assert_eq!(server.data.dbs[5].len(), 0);
        assert_eq!(server.data.dbs[0].len(), 2000 - BATCH);
        let earliest = server.data.dbs[0].expires.first().map(|(at, _)| at);
        assert_eq!(earliest, Some(10 + BATCH as i64), "the earliest go first");
    }

    #[test]
    fn a_pause_hides_what_it_keeps() {
        let mut server = server_with([(0, "k".to_string(), 999_999)]);
        server.pause.set(
            crate::execute::pause::PausePurpose::Client,
            1_000_500,
            false,
        );
        server.update_armed();
        assert!(server.lookup_in(0, b"k").is_none());
        assert!(!active_expire_allowed(&server));
        assert_eq!(server.data.dbs[0].len(), 1);
        server.clock.now_ms = 1_000_501;
        assert!(server.lookup_in(0, b"k").is_none());
        assert_eq!(server.data.dbs[0].len(), 0);
    }

    #[test]
    fn the_average_time_to_live_survives_times_at_the_end_of_time() {
        let mut server = server_with((0..3).map(|i| (0, format!("k{i}"), i64::MAX - i)));
        cron_cycle(&mut server);
        assert!(server.data.dbs[0].avg_ttl_ms > 0);
    }

    /// A server with a hash `h` of `due` expired fields and `live` other fields.
    fn server_with_hash(due: usize, live: usize) -> Server {
        let mut server = server_with([]);
        let limits = HashLimits::of(&server);
        let mut hash = Hash::new();
        for n in 0..due + live {
            let at = if n < due { 1_000 } else { 2_000_000 };
            hash.set(format!("f{n}").as_bytes(), b"v", FieldTtl::At(at), &limits);
        }
        let value = New::Obj(Value::Hash(hash));
        server.set_key(0, b"h", kind::HASH, value, Ttl::Clear);
        server
    }

    fn seen(server: &mut Server) -> Option<(usize, usize)> {
        let entry = server.lookup_in(0, b"h")?;
        let fields = Hash::of(entry).unwrap_or_else(|_| unreachable!("a hash"));
        Some((fields.len(), fields.hidden_len()))
    }

    #[test]
    fn a_look_up_has_a_budget_for_fields() {
        let mut server = server_with_hash(5 * LOOKUP_FIELDS, 3);
        let (len, hidden) = seen(&mut server).expect("the live ones");
        assert_eq!(len, 3);
        assert!((1..5 * LOOKUP_FIELDS).contains(&hidden));
        active_expire(&mut server, Duration::MAX);
        assert_eq!(seen(&mut server), Some((3, 0)));
        assert_eq!(server.stats.expired_fields, 5 * LOOKUP_FIELDS as u64);

        let mut server = server_with_hash(5 * LOOKUP_FIELDS, 0);
        assert_eq!(seen(&mut server), None);
        assert_eq!(server.data.dbs[0].len(), 0);
        assert!(server.data.dbs[0].field_expires.is_empty());
        assert_eq!(server.stats.expired_fields, 5 * LOOKUP_FIELDS as u64);
    }

    #[test]
    fn a_replica_hides_due_fields_from_all_but_its_primary() {
        let mut server = server_with_hash(2, 1);
        server.replication.set_upstream("127.0.0.1", 6379);
        assert_eq!(seen(&mut server), Some((1, 2)));
        server.replication.applying = true;
        assert_eq!(seen(&mut server), Some((3, 0)));
        server.replication.applying = false;
        assert_eq!(seen(&mut server), Some((1, 2)));
        assert!(!active_expire_allowed(&server));
        assert_eq!(server.stats.expired_fields, 0);

        server.replication.upstream = None;
        assert_eq!(seen(&mut server), Some((1, 0)), "a primary removes them");
        assert_eq!(server.stats.expired_fields, 2);
    }

    #[test]
    fn a_hash_of_due_fields_exists_on_a_replica_and_hlen_counts_them() {
        let mut server = server_with_hash(2, 0);
        let id = server.net.clients.next_id();
        let client = crate::client::Client::detached(id, 1_000_000);
        let slot = server.net.clients.insert(Box::new(client));
        server.replication.set_upstream("127.0.0.1", 6379);
        let asked = [
            "HLEN h",
            "HGETALL h",
            "EXISTS h",
            "HRANDFIELD h",
            "HTTL h FIELDS 1 f0",
        ];
        let replies = crate::testing::say(&mut server, slot, &asked);
        assert_eq!(replies, ":2\r\n*0\r\n:1\r\n$-1\r\n*1\r\n:-2\r\n");
        server.replication.upstream = None;
        let replies = crate::testing::say(&mut server, slot, &["HLEN h", "EXISTS h"]);
        assert_eq!(replies, ":0\r\n:0\r\n");
    }
}
