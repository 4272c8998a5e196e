//! Expiry: a key past its time is gone for whoever looks, and is removed soon after even if nobody does.
//!
//! Active expiry takes the due keys from the index, earliest first, within a budget of time: from
//! `before_sleep` a short one in each turn, from the cron a longer one. Nothing is sampled, so the number
//! of expired keys that still hold memory is zero whenever there was time.

use std::time::{Duration, Instant};

use crate::db::notify;
use crate::state::Server;

/// The cron's share: a quarter of its period, scaled by `active-expire-effort`.
const CRON_SHARE: f64 = 0.25;
/// A turn's share.
const TURN_BUDGET: Duration = Duration::from_millis(1);
/// Keys between two looks at the clock.
const BATCH: usize = 16;

impl Server {
    /// Remove the key if its time has come. One branch in a database without volatile keys.
    #[inline]
    pub fn expire_if_needed(&mut self, db: u32, hash: u64, key: &[u8]) -> bool {
        if self.dbs[db as usize].expires.is_empty() {
            return false;
        }
        let now = self.clock.now_ms;
        let due = |at: i64| at < now;
        match self.dbs[db as usize]
            .find(hash, key)
            .and_then(|e| e.expire_at())
        {
            Some(at) if due(at) => self.delete_expired(db, key),
            _ => return false,
        }
        true
    }

    /// Remove a key whose time has come: propagated as DEL (UNLINK), counted, told.
    pub fn delete_expired(&mut self, db: u32, key: &[u8]) {
        let lazy = self.config.lazyfree_lazy_expire;
        let key = key.to_vec();
        if !self.delete_key(db, &key, lazy) {
            return;
        }
        self.stats.expired_keys += 1;
        self.propagate_deletion(db, &key, lazy);
        self.notify(notify::EXPIRED, "expired", &key, db);
        self.signal_modified(None, db, &key);
    }
}

/// Expire what is due, in all databases, until `budget` is spent. Returns whether something due is left.
fn active_expire(server: &mut Server, budget: Duration) -> bool {
    let start = Instant::now();
    let now = server.clock.now_ms;
    let mut left = false;
    for db in 0..server.dbs.len() as u32 {
        while let Some((at, hash)) = server.dbs[db as usize].expires.first() {
            if at >= now {
                break;
            }
            expire_one(server, db, at, hash);
            let done = server.stats.expired_keys as usize;
            if done.is_multiple_of(BATCH) && start.elapsed() > budget {
                server.stats.expire_time_cap_reached += 1;
                left = true;
                break;
            }
        }
    }
    server.stats.expire_cycle_us += start.elapsed().as_micros() as u64;
    left
}

/// Expire the key that the index names.
fn expire_one(server: &mut Server, db: u32, at: i64, hash: u64) {
    let keys = &server.dbs[db as usize].keys;
    let found = keys.find_by(hash, |entry| entry.expire_at() == Some(at));
    match found.map(|entry| entry.key().to_vec()) {
        Some(key) => server.delete_expired(db, &key),
        None => {
            debug_assert!(false, "the index names a key that is not there");
            server.dbs[db as usize].expires.remove(at, hash);
        }
    }
}

/// In each turn, before the loop sleeps.
pub fn fast_cycle(server: &mut Server) {
    if active_expire_allowed(server) {
        active_expire(server, TURN_BUDGET);
    }
}

/// From the cron, `hz` times a second.
pub fn cron_cycle(server: &mut Server) {
    if !active_expire_allowed(server) {
        return;
    }
    let effort = server.config.active_expire_effort.clamp(1, 10) as f64 - 1.0;
    let share = CRON_SHARE + 0.02 * effort;
    let period = 1.0 / server.config.hz.max(1) as f64;
    active_expire(server, Duration::from_secs_f64(period * share));
    for db in &mut server.dbs {
        update_avg_ttl(db, server.clock.now_ms);
    }
}

fn active_expire_allowed(server: &Server) -> bool {
    !server.debug.no_active_expire
        && !server.loading
        && !server.pause.holds_writes(server.clock.now_ms)
}

/// The average time to live, estimated from the earliest keys and smoothed, for INFO.
fn update_avg_ttl(db: &mut crate::db::Db, now_ms: i64) {
    let (sum, n) = db
        .expires
        .iter()
        .take(20)
        .fold((0, 0), |(sum, n), (at, _)| {
            (sum + (at - now_ms).max(0), n + 1)
        });
    db.avg_ttl_ms = match (n, db.avg_ttl_ms) {
        (0, _) => 0,
        (n, 0) => sum / n,
        (n, old) => old / 50 * 49 + sum / n / 50,
    };
}
