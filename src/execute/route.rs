//! A cluster node's check of a command: whether its keys belong to this node, or to which node the
//! client must go.
//!
//! ```text
//!   one key at a fixed place ── slot of its hash, from the parse-ahead ─┐
//!   keys found by the row's specs ── all their slots ───────────────────┼─> served here, no key moves: run
//!   EXEC: those of all queued commands ─────────────────────────────────┘   otherwise cluster::route decides
//! ```
//!
//! If each command of a batch has one key, and this node serves all their slots, the batch is
//! checked while its keys are hashed (`networking::prefetch`), and `armed::ROUTE` is off while the
//! batch runs: such commands do not change the owner of a slot. A nested turn may change the owner
//! of a slot, so it sets `armed::ROUTE` again.
//!
//! Commands of the primary and of the AOF are executed without a check of their slots. The slot of
//! a command's keys stays in `Client::hash_slot` while the command runs: the slots of keys that a
//! script did not declare are compared with it ([`check_in_script`]).

use crate::armed;
use crate::client::blocked::BlockKind;
use crate::client::{Client, NO_SLOT, flag};
use crate::cluster::route::{Request, Route, WhenDown};
use crate::cluster::topology::Asker;
use crate::command::keys::{self, KeyRef};
use crate::command::{self, Command, Flags, Role};
use crate::db::kvstore::slot_in;
use crate::db::slot::key_slot;
use crate::error::Error;
use crate::state::Server;

/// The flags of clients that are links to the primary or to other nodes, or the loader of the AOF.
const LINKS: u64 = flag::PRIMARY | flag::AOF_LOADER | flag::SLOT_IMPORT | flag::SLOT_EXPORT;

/// Refuses a command whose keys belong to another node, or to no node. `flags` returns the flags of
/// the command; for EXEC those of the queued commands, for a script those that it declares.
pub fn check(
    server: &mut Server,
    c: &mut Client,
    id: u16,
    argv: &[&[u8]],
    flags: impl FnOnce(&Server, &Client) -> Flags,
) -> Result<(), Error> {
    c.hash_slot = NO_SLOT;
    if c.has(LINKS) && is_decided_by_link(server, c, id, argv)? {
        return Ok(());
    }
    let entry = server.commands.entry(id);
    if entry.has_one_key {
        let key = argv[usize::from(entry.first_key)];
        c.hash_slot = slot_in(server.hash_key(key));
        let member = server.cluster.as_ref();
        if member.is_some_and(|member| member.machine.serves(c.hash_slot)) {
            return Ok(());
        }
    } else if entry.row.keys.is_empty() && !entry.row.is(command::RUNS_QUEUE) {
        return Ok(());
    }
    let flags = flags(server, c);
    check_keys(server, c, id, argv, flags)
}

/// Whether the slots of a batch of commands may be checked when the batch is parsed, because the
/// check does not depend on the client, and no feature reads `Client::hash_slot` while the commands
/// run.
pub fn may_check_ahead(server: &Server, c: &Client) -> bool {
    const SLOT_READERS: u32 = armed::SLOT_STATS | armed::PAUSED | armed::SLOT_IMPORTS;
    server.armed & SLOT_READERS == 0 && !c.has(LINKS)
}

/// For a client that is a link to another server: refuses commands that the link may not send.
/// Returns whether the command needs no other check of its slots.
#[cold]
#[inline(never)]
fn is_decided_by_link(server: &Server, c: &Client, id: u16, argv: &[&[u8]]) -> Result<bool, Error> {
    if c.has(flag::SLOT_EXPORT) {
        check_word(server, id)?;
    }
    if c.replays() {
        return Ok(true);
    }
    if c.has(flag::SLOT_IMPORT) {
        check_import(server, c, id, argv)?;
        return Ok(true);
    }
    Ok(false)
}

/// On the source of a slot move, refuses all commands of the target's connection but CLUSTER
/// SYNCSLOTS, since this connection has all ACL rights.
#[cold]
fn check_word(server: &Server, id: u16) -> Result<(), Error> {
    match server.commands.row(id).role == Role::SyncSlots {
        true => Ok(()),
        false => Err(Error::of("ERR Only CLUSTER SYNCSLOTS is possible here")),
    }
}

/// On the target of a slot move, refuses commands of the source on keys of other slots than those
/// that move. Commands without keys are allowed: a source sends no writing command without keys
/// (`propagate::exports`).
#[cold]
fn check_import(server: &Server, c: &Client, id: u16, argv: &[&[u8]]) -> Result<(), Error> {
    let cmd = server.commands.row(id);
    let member = server.cluster.as_ref();
    let job = member.and_then(|member| member.transfers.of_link(c.id));
    let mut found = Vec::new();
    if cmd.keys.is_empty() || keys::get_keys(cmd, argv, &mut found).is_err() {
        return Ok(());
    }
    let arrives = |key: &KeyRef| {
        let slot = key_slot(argv[key.pos as usize]);
        job.is_some_and(|job| job.slots.contains(slot))
    };
    match found.iter().all(arrives) {
        true => Ok(()),
        false => Err(Error::of("ERR The key is in none of the slots that arrive")),
    }
}

#[inline(never)]
fn check_keys(
    server: &mut Server,
    c: &mut Client,
    id: u16,
    argv: &[&[u8]],
    flags: Flags,
) -> Result<(), Error> {
    let ahead = server.hashes.cursor;
    let mut keys = Keys::new(ahead);
    let cmd = server.commands.row(id);
    match c.multi.take_if(|_| cmd.is(command::RUNS_QUEUE)) {
        Some(queue) => {
            let args = queue.slices();
            let mut start = 0;
            for queued in &queue.commands {
                let argv = &args[start..queued.args_end];
                start = queued.args_end;
                keys.add(server, c, server.commands.row(queued.id), argv);
            }
            c.multi = Some(queue);
        }
        None => keys.add(server, c, cmd, argv),
    }
    let route = keys.route(server, c, cmd, flags);
    if route == Route::Here {
        return Ok(());
    }
    // A refused command does not look up its keys, so the cursor skips their hashes for the next
    // command.
    server.hashes.cursor = keys.ahead;
    Err(error_of(server, c, c.hash_slot, route))
}

/// Refuses a command that a script calls if its keys belong to another node, or to another slot
/// than the script's keys (unless `may_cross`). `caller` is the client that runs the script,
/// `client` the internal client as which the script's commands run.
pub fn check_in_script(
    server: &mut Server,
    caller: &mut Client,
    client: &mut Client,
    (id, argv): (u16, &[&[u8]]),
    may_cross: bool,
) -> Result<(), Error> {
    let cmd = server.commands.row(id);
    if caller.replays() || cmd.keys.is_empty() {
        return Ok(());
    }
    let mut keys = Keys::new(server.hashes.cursor);
    keys.add(server, client, cmd, argv);
    let name = &server.commands.entry(id).fullname;
    let text = match keys.route(server, client, cmd, cmd.flags) {
        Route::Here => String::new(),
        Route::Moved(_) | Route::Ask(_) => {
            "Script attempted to access a non local key in a cluster node".into()
        }
        Route::CrossSlot => format!(
            "Command '{name}' in script attempted to access keys that don't hash to the same slot"
        ),
        Route::TryAgain => format!(
            "Unable to execute command '{name}' in script because undeclared keys were accessed \
             during rehashing of the slot"
        ),
        Route::Unserved => "Script attempted to access a slot not served".into(),
        Route::Down => "Script attempted to execute a command while the cluster is down".into(),
        Route::DownForWrites => {
            "Script attempted to execute a write command while the cluster is down and readonly"
                .into()
        }
    };
    if !text.is_empty() {
        return Err(Error::new(format!("ERR {text}")));
    }
    let slot = client.hash_slot;
    let writes = cmd.flags & command::WRITE != 0;
    if writes && slot != NO_SLOT && server.pause.holds_slot(slot) {
        return Err(Error::of(
            "TRYAGAIN Script attempted to write to a slot that is being handed over to another node",
        ));
    }
    if caller.hash_slot == NO_SLOT {
        caller.hash_slot = slot;
    }
    match may_cross || slot == NO_SLOT || slot == caller.hash_slot {
        true => Ok(()),
        false => Err(Error::of(
            "ERR Script attempted to access keys that do not hash to the same slot",
        )),
    }
}

/// The facts about the keys of one or several commands that decide on their route.
struct Keys {
    request: Option<Request>,
    first: Vec<u8>,
    /// The index of the last key's hash among the hashes that were computed when the requests were
    /// parsed.
    ahead: usize,
}

impl Keys {
    fn new(ahead: usize) -> Keys {
        Keys {
            request: None,
            first: Vec::new(),
            ahead,
        }
    }

    /// Adds the keys of a command. A command whose keys can't be determined will refuse its
    /// arguments itself.
    fn add(&mut self, server: &mut Server, c: &Client, cmd: &Command, argv: &[&[u8]]) {
        let mut found = std::mem::take(&mut server.hashes.keys);
        found.clear();
        if keys::get_keys(cmd, argv, &mut found).is_ok() {
            for key in &found {
                self.add_key(server, c, cmd, (*key, argv[key.pos as usize]));
            }
        }
        server.hashes.keys = found;
    }

    fn add_key(
        &mut self,
        server: &mut Server,
        c: &Client,
        cmd: &Command,
        (key_ref, key): (KeyRef, &[u8]),
    ) {
        let slot = slot_in(server.hash_ahead(&mut self.ahead, key));
        let request = match &mut self.request {
            Some(request) => {
                request.is_cross_slot |= slot != request.slot;
                request.has_several |= key != self.first;
                request
            }
            None => {
                self.first.extend_from_slice(key);
                self.request.insert(Request {
                    slot,
                    ..Request::default()
                })
            }
        };
        let member = server.cluster.as_ref();
        if !key_ref.is_key() {
            // An argument that determines the slot but is no key is a shard channel, or the cursor
            // of CLUSTERSCAN; of these commands only CLUSTERSCAN is read-only.
            request.has_channels = !cmd.is(command::READONLY);
        } else if member.is_some_and(|member| member.machine.moves(slot)) {
            let exists = server.lookup_no_touch(c, key).is_some();
            request.is_present |= exists;
            request.is_missing |= !exists;
        }
    }

    /// Where a command with these keys must be sent. Stores the slot of the keys in
    /// `Client::hash_slot`.
    fn route(&self, server: &Server, c: &mut Client, cmd: &Command, flags: Flags) -> Route {
        let (Some(request), Some(member)) = (self.request, &server.cluster) else {
            c.hash_slot = NO_SLOT;
            return Route::Here;
        };
        c.hash_slot = request.slot;
        let request = Request {
            writes: flags & command::WRITE != 0,
            is_migrate: cmd.role == Role::Migrate,
            asking: c.has(flag::ASKING) || flags & command::ASKING != 0,
            readonly: c.has(flag::READONLY),
            ..request
        };
        let when_down = WhenDown {
            reads: server.config.cluster_allow_reads_when_down,
            channels: server.config.cluster_allow_pubsubshard_when_down,
        };
        member.machine.route(&request, when_down)
    }
}

/// The properties of a client that decide which form of a node's address the client gets: with or
/// without TLS, IPv6, a host name.
pub fn asker(server: &Server, c: &Client) -> Asker {
    Asker {
        tls: c
            .conn
            .as_ref()
            .map_or(server.config.tls_cluster, |conn| conn.is_tls()),
        ipv6: c.peer.starts_with('['),
        preferred: server.config.cluster_preferred_endpoint_type,
        words: server.config.words(),
    }
}

/// The error reply (MOVED, ASK, ...) for a route other than [`Route::Here`].
pub fn error_of(server: &Server, c: &Client, slot: u16, route: Route) -> Error {
    let (word, node) = match (route, &server.cluster) {
        (Route::Moved(node), Some(member)) => ("MOVED", &member.machine.nodes()[node]),
        (Route::Ask(node), Some(member)) => ("ASK", &member.machine.nodes()[node]),
        _ => return Error::of(route.text().unwrap_or("CLUSTERDOWN Hash slot not served")),
    };
    let address = asker(server, c).address(node);
    Error::new(format!("{word} {slot} {address}"))
}

/// The error for a blocked client if a key for which it waits belongs to another node now; `None`
/// if the client can go on waiting.
pub fn error_of_waiting(server: &Server, c: &Client) -> Option<Error> {
    let (blocked, member) = (c.blocked.as_ref()?, server.cluster.as_ref()?);
    if !matches!(
        blocked.kind,
        BlockKind::List | BlockKind::Zset | BlockKind::Stream
    ) {
        return None;
    }
    let cmd = c.shown_cmd.map(|id| server.commands.row(id));
    let reads = c.has(flag::READONLY) && cmd.is_some_and(|cmd| cmd.is(command::READONLY));
    blocked.keys.iter().find_map(|key| {
        let slot = key_slot(key);
        match member.machine.route_of_waiting(slot, reads) {
            Route::Here => None,
            route => Some(error_of(server, c, slot, route)),
        }
    })
}
