//! The I/O of MIGRATE: sends keys to another server, and deletes the keys that the other server has
//! stored.
//!
//! ```text
//!   MIGRATE ──> requested ──┐
//!                           ├─> before the loop sleeps: go_on ─┬─> SELECT?, RESTORE .. ──> link
//!   link ──> on_action ─────┘                                  └─> all replies are here: DEL, reply
//!            replies are noted, `woken`
//!   running: LinkId -> Migration      idle: connections for later requests, up to 10 s
//! ```
//!
//! While the client of MIGRATE waits, other clients are served. So a key can change during its
//! transfer, which is impossible in Redis, where the whole server waits. A key that was changed
//! during its transfer is sent again with REPLACE; a key that was deleted is deleted at the
//! destination, too. After [`ROUNDS_MAX`] attempts the client gets an error, and both servers have
//! the key; this server has the later value. MIGRATE with COPY sends the value that the key has
//! when it is sent, and no later value.
//!
//! MIGRATE never reads or deletes keys in nested turns, so a script that lets nested turns run sees
//! no changes by MIGRATE. While CLIENT PAUSE forbids writes, MIGRATE does not delete the
//! transferred keys.
//!
//! MIGRATE sends SELECT and AUTH first, and keys only after the replies to SELECT and AUTH. (Redis
//! sends all requests at once: after a refused SELECT, the key is stored in database 0, and the
//! client gets an error.)
//!
//! **Invariant:** each MIGRATE gets one reply, unless its client has disconnected.
//! **Limits:** at most [`WINDOW`] bytes of requests are under way for each MIGRATE, or one key; at
//! most [`IDLE_MAX`] connections are kept idle.

use std::collections::HashMap;
use std::mem::take;

use ae::EventLoop;

use crate::armed;
use crate::client::ClientRef;
use crate::client::blocked::BlockKind;
use crate::commands::generic::migrate::wire::{self, WINDOW, tag};
use crate::connection::connect::source_address;
use crate::error::Error;
use crate::execute::blocked;
use crate::execute::migration::{Destination, Due, Migration, ROUNDS_MAX};
use crate::keyspace::{events, watch};
use crate::link::{Action, Errors, Failure, Plan, Reply, Step, Unasked};
use crate::networking::link::{self, LinkId, Target};
use crate::state::Server;

/// The time in milliseconds after which an idle connection to a destination of MIGRATE is closed.
const IDLE_MS: i64 = 10_000;
/// The maximum number of idle connections to destinations of MIGRATE.
const IDLE_MAX: usize = 64;

/// All MIGRATE requests in progress, and the idle connections for later requests.
#[derive(Default)]
pub struct Migrations {
    /// MIGRATE requests that have no connection yet.
    pub requested: Vec<Migration>,
    running: HashMap<LinkId, Running>,
    /// The connections that have new replies or have failed; a connection may be listed twice.
    woken: Vec<LinkId>,
    idle: Vec<Idle>,
}

/// A MIGRATE that has a connection.
struct Running {
    migration: Migration,
    /// The reason why the connection has failed, if it has failed.
    failure: Option<Failure>,
}

/// An open connection to a destination that no MIGRATE uses.
struct Idle {
    link: LinkId,
    destination: Destination,
    db: i64,
    since_ms: i64,
}

impl Migrations {
    /// The number of idle connections.
    pub fn idle_len(&self) -> usize {
        self.idle.len()
    }

    fn take_idle(&mut self, destination: &Destination) -> Option<Idle> {
        let at = self
            .idle
            .iter()
            .rposition(|idle| idle.destination == *destination)?;
        Some(self.idle.remove(at))
    }
}

/// Starts new MIGRATE requests, and continues the requests whose connections are in `woken`. Does
/// nothing in a nested turn.
pub fn go_on(el: &mut EventLoop<Server>, server: &mut Server) {
    // While a data set is loaded all turns are nested, so MIGRATE waits.
    if server.is_nested() {
        return;
    }
    let oldest = server.migrations.idle.first();
    if oldest.is_some_and(|idle| idle.since_ms + IDLE_MS <= server.clock.now_ms) {
        let idle = server.migrations.idle.remove(0);
        link::close(el, server, idle.link);
    }
    for migration in take(&mut server.migrations.requested) {
        begin(el, server, migration);
    }
    if server.migrations.woken.is_empty() {
        return;
    }
    for id in take(&mut server.migrations.woken) {
        if let Some(running) = server.migrations.running.remove(&id) {
            advance(el, server, id, running);
        }
    }
}

fn run(server: &mut Server, id: LinkId, migration: Migration, failure: Option<Failure>) {
    let running = Running { migration, failure };
    server.migrations.running.insert(id, running);
}

/// Takes an idle connection to the destination of a MIGRATE, or opens one, and sends the first
/// keys.
fn begin(el: &mut EventLoop<Server>, server: &mut Server, mut migration: Migration) {
    let idle = server.migrations.take_idle(&migration.destination);
    let id = match idle {
        Some(idle) => {
            migration.is_selected = idle.db == migration.to_db;
            migration.may_retry = true;
            // AUTH is sent again on an idle connection, since the password may have changed at the
            // destination.
            if let Some(step) = wire::auth(&migration.destination) {
                let step = step.timeout(migration.timeout_ms);
                link::request(el, server, idle.link, step);
            }
            idle.link
        }
        None => open(el, server, &migration),
    };
    if !migration.is_selected {
        link::request(el, server, id, wire::select(&migration));
    }
    send(el, server, id, &mut migration);
    run(server, id, migration, None);
}

fn open(el: &mut EventLoop<Server>, server: &mut Server, migration: &Migration) -> LinkId {
    let to = &migration.destination;
    let script = wire::auth(to).into_iter().collect();
    let plan = Plan::new(script, Unasked::Refuse, migration.timeout_ms);
    let target = Target {
        host: &to.host,
        port: to.port,
        source: source_address(&server.config),
        tls: server.config.tls_cluster,
    };
    link::open(el, server, &target, plan, on_action)
}

/// Sends keys until [`WINDOW`] bytes of requests have no reply yet, or, under `appendfsync always`,
/// until the next key's last write is not on the disk yet.
fn send(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, migration: &mut Migration) {
    if !migration.is_selected {
        return;
    }
    let mut under_way = migration.bytes_due();
    while under_way < WINDOW
        && let Some(key) = migration.queue.pop_front()
    {
        if !server.is_key_safe(&key) {
            migration.queue.push_front(key);
            // The following turns check again whether the key's write is on the disk.
            server.migrations.woken.push(id);
            return;
        }
        let Some(request) = wire::request_for(server, migration, &key) else {
            continue;
        };
        let is_deletion = request.len() == 2;
        if is_deletion && server.cluster.is_some() {
            link::request(el, server, id, wire::asking(migration));
        }
        let step = Step::new(tag::KEY, &request).errors(Errors::Tolerated);
        let step = step.timeout(migration.timeout_ms);
        let bytes = step.request.len();
        under_way += bytes;
        let is_watched = !migration.copy && !is_deletion;
        if is_watched {
            watch::begin_transfer(server, migration.client, migration.db, &key);
        }
        migration.due.push_back(Due {
            key,
            bytes,
            is_deletion,
            is_watched,
        });
        link::request(el, server, id, step);
    }
}

/// Notes an action of a MIGRATE's link; `go_on` reacts to the action before the loop sleeps.
fn on_action(_: &mut EventLoop<Server>, server: &mut Server, id: LinkId, action: Action) {
    let migrations = &mut server.migrations;
    let Some(running) = migrations.running.get_mut(&id) else {
        migrations.idle.retain(|idle| idle.link != id);
        return;
    };
    let migration = &mut running.migration;
    if migrations.woken.last() != Some(&id) {
        migrations.woken.push(id);
    }
    match action {
        Action::Failed(failure) => running.failure = Some(failure),
        Action::Reply { tag, reply } if tag != tag::AUTH => {
            let error = match reply {
                Reply::Error(error) => Some(error),
                _ => None,
            };
            if tag == tag::KEY {
                let (client, db) = (migration.client, migration.db);
                // A key that the destination has stored stays watched until MIGRATE deletes it on
                // this server, so that a change in between is noticed.
                if let Some(due) = migration.replied(error) {
                    forget(server, client, db, &due);
                }
            } else if let Some(error) = error {
                migration.fail(error);
                migration.queue.clear();
            } else {
                (migration.is_selected, migration.may_retry) = (true, false);
            }
        }
        Action::Reply { .. } | Action::Ready | Action::Message(_) | Action::Closed => {}
    }
}

/// Sends more keys of a MIGRATE or, when all replies have arrived, deletes the keys and replies to
/// the client.
fn advance(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, running: Running) {
    let Running {
        mut migration,
        failure,
    } = running;
    let broken = matches!(failure, Some(Failure::Closed | Failure::Broken(_)));
    if broken && migration.may_retry {
        forget_due(server, &migration);
        migration.begin_again();
        return begin(el, server, migration);
    }
    if failure.is_none() {
        send(el, server, id, &mut migration);
    }
    let is_over = migration.due.is_empty() && migration.queue.is_empty();
    if failure.is_none() && !is_over {
        return run(server, id, migration, None);
    }
    let held = || server.pause.holds_slots() || server.pause.holds_writes(server.clock.now_ms);
    if server.armed & armed::PAUSED != 0 && held() {
        // The connection stays in `woken`, so that each turn checks whether the pause is over.
        server.migrations.woken.push(id);
        return run(server, id, migration, failure);
    }
    forget_due(server, &migration);
    let changed = delete_restored(server, &mut migration);
    if failure.is_none() && !changed.is_empty() && migration.round + 1 < ROUNDS_MAX {
        migration.round += 1;
        migration.queue = changed.into();
        send(el, server, id, &mut migration);
        return run(server, id, migration, None);
    }
    reply(server, &migration, failure.as_ref(), !changed.is_empty());
    if failure.is_none() {
        keep(el, server, id, migration);
    }
}

/// Ends the noting of changes for the keys whose RESTORE or DEL has no reply yet.
fn forget_due(server: &mut Server, migration: &Migration) {
    for due in &migration.due {
        forget(server, migration.client, migration.db, due);
    }
}

fn forget(server: &mut Server, client: ClientRef, db: u32, due: &Due) {
    if due.is_watched {
        watch::end_transfer(server, client, db, &due.key);
    }
}

/// Deletes the keys that the destination has stored, and propagates the deletions. Returns the keys
/// that have changed since they were sent.
fn delete_restored(server: &mut Server, migration: &mut Migration) -> Vec<Box<[u8]>> {
    let restored = take(&mut migration.restored);
    if migration.copy || restored.is_empty() {
        return Vec::new();
    }
    let (db, lazy) = (migration.db, server.config.lazyfree_lazy_server_del);
    let mut changed = Vec::new();
    let mut deleted: Vec<&[u8]> = vec![b"DEL"];
    for key in &restored {
        let same = watch::end_transfer(server, migration.client, db, key);
        // If this server has become a replica during the MIGRATE, it must not delete keys by
        // itself.
        let may = !server.replication.is_replica();
        if !same && may {
            changed.push(key.clone());
        } else if may && server.delete_key(db, key, lazy) {
            server.signal_modified(None, db, key);
            server.notify(events::GENERIC, "del", key, db);
            server.dirty += 1;
            deleted.push(key);
        }
    }
    if deleted.len() > 1 {
        server.propagation.also(db, &deleted);
        server.end_unit();
    }
    changed
}

/// Replies to the client of a MIGRATE, if the client still waits.
fn reply(server: &mut Server, migration: &Migration, failure: Option<&Failure>, changed: bool) {
    let error = match wire::error_of(migration, failure) {
        None if changed => Some(Error::of(
            "ERR A key was changed again and again during its transfer: it is on both instances, the latest value here",
        )),
        error => error,
    };
    blocked::answer(server, migration.client, BlockKind::Migrate, error);
}

/// Keeps the connection of a finished MIGRATE for later requests.
fn keep(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, migration: Migration) {
    if !migration.is_selected {
        return link::close(el, server, id);
    }
    if server.migrations.idle.len() >= IDLE_MAX {
        let oldest = server.migrations.idle.remove(0);
        link::close(el, server, oldest.link);
    }
    let since_ms = server.clock.now_ms;
    server.migrations.idle.push(Idle {
        link: id,
        destination: migration.destination,
        db: migration.to_db,
        since_ms,
    });
}
