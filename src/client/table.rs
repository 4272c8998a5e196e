//! The table of connected clients, and the rest of the server's network state: listeners, lists of
//! clients to be served, shared buffers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ae::FILE_BYTES;

use crate::client::resp::ParseTable;
use crate::client::{Client, ClientRef, flag};
use crate::config::{Config, Text};
use crate::connection::listener::{Listener, ListenerKind};
use crate::ds::btree_memory;
use crate::ds::thin_buffer::{heap_bytes, vec_bytes};
use crate::util::rate_limit::RateLimit;

/// The connected clients; a slot is an index into the table. While a client's command runs, the
/// client is moved out of its slot (a `Box`, so only a pointer moves), so that the command can
/// borrow the client and the server at the same time.
#[derive(Default)]
pub struct Clients {
    slots: Vec<Option<Box<Client>>>,
    free: Vec<u32>,
    /// The slots of all clients by id, which is their order of connection. `by_id` also contains
    /// clients that are moved out of their slot.
    by_id: BTreeMap<u64, u32>,
    next_id: u64,
}

impl Clients {
    /// Returns an id that no client has had.
    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The number of connected clients.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no client is connected.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Adds a client and returns its slot.
    pub fn insert(&mut self, mut client: Box<Client>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        client.slot = slot;
        self.by_id.insert(client.id, slot);
        self.slots[slot as usize] = Some(client);
        slot
    }

    /// Moves a client out of its slot while its command runs; [`Clients::put`] moves it back.
    #[inline]
    pub fn take(&mut self, slot: u32) -> Option<Box<Client>> {
        self.slots.get_mut(slot as usize)?.take()
    }

    /// Moves the client that `r` names out of its slot; `None` if it was closed.
    pub fn take_ref(&mut self, r: ClientRef) -> Option<Box<Client>> {
        self.resolve(r)?;
        self.take(r.slot)
    }

    /// Moves a client back to its slot.
    #[inline]
    pub fn put(&mut self, client: Box<Client>) {
        let slot = client.slot as usize;
        debug_assert!(self.slots[slot].is_none());
        self.slots[slot] = Some(client);
    }

    /// Removes a client that is being freed and was moved out of its slot before.
    pub fn forget(&mut self, client: &Client) {
        self.by_id.remove(&client.id);
        self.free.push(client.slot);
    }

    /// The client in a slot; `None` while its command runs, as it is moved out of the slot.
    pub fn get(&self, slot: u32) -> Option<&Client> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// The client in a slot, as [`Clients::get`] returns it, mutable.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Client> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The client that a reference names; `None` if the client was closed or its command runs.
    #[inline]
    pub fn resolve(&mut self, r: ClientRef) -> Option<&mut Client> {
        self.get_mut(r.slot).filter(|c| c.id == r.id)
    }

    /// The slot of the client with this id, even if the client's command runs.
    pub fn slot_of(&self, id: u64) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// A reference to the client with this id, even if the client's command runs.
    pub fn reference_of(&self, id: u64) -> Option<ClientRef> {
        self.slot_of(id).map(|slot| ClientRef { slot, id })
    }

    /// All clients in order of connection, without the client whose command runs.
    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.by_id.values().filter_map(|&slot| self.get(slot))
    }

    /// References to all clients in order of connection, with the client whose command runs.
    pub fn refs(&self) -> Vec<ClientRef> {
        self.by_id
            .iter()
            .map(|(&id, &slot)| ClientRef { slot, id })
            .collect()
    }

    /// The heap bytes of the table, without the clients, and of the event loop's table of files,
    /// which grows with the number of clients.
    pub fn table_memory(&self) -> usize {
        vec_bytes(&self.slots)
            + vec_bytes(&self.free)
            + heap_bytes(self.slots.capacity() * FILE_BYTES)
            + btree_memory::map_bytes::<u64, u32>(self.by_id.len())
    }

    /// The client that connected next after the client `id`, so that a walk over all clients can be
    /// done in steps.
    pub fn after(&self, id: u64) -> Option<ClientRef> {
        self.by_id
            .range(id + 1..)
            .next()
            .map(|(&id, &slot)| ClientRef { slot, id })
    }
}

/// The network's part of the server's state: listeners, clients and shared buffers.
pub struct Net {
    pub clients: Clients,
    /// The listening sockets: TCP, TLS, unix sockets, cluster bus and others. Replaced listeners
    /// stay in the list until the loop has stopped watching them.
    pub listeners: Vec<Listener>,
    /// The TCP sockets of a socket unit that settings named at start, as descriptors of their own,
    /// so that CONFIG SET can name them again for the same kind of connections.
    pub unit_sockets: Vec<(ListenerKind, OwnedFd)>,
    /// The slots of the clients with unsent replies, which have the flag PENDING_WRITE.
    pub pending_write: Vec<u32>,
    /// Clients that are not read, because too many of their writes wait for the AOF's disk.
    pub unread: Vec<u32>,
    /// Clients that are closed at the end of the turn.
    pub close_asap: Vec<ClientRef>,
    /// Messages for clients whose own command runs at the moment: they are sent after the reply,
    /// see [`send_later`]. The messages are encoded for RESP3.
    pub later: Vec<(ClientRef, Arc<Vec<u8>>)>,
    /// Clients that run MONITOR.
    pub monitors: Vec<ClientRef>,
    /// The buffer into which all sockets of clients are read.
    pub read_buffer: Vec<u8>,
    pub parsed: ParseTable,
    /// The heap bytes of `parsed`, which is moved out while commands run.
    pub parsed_memory: usize,
    /// Reply buffers that no client uses at the moment.
    pub spare_replies: Vec<Vec<u8>>,
    /// Whether listeners changed: the loop must watch the new listeners and stop watching the old
    /// ones.
    pub relisten: bool,
    /// Whether a timer is set to accept again, after an accept failed because a resource was
    /// missing.
    pub accept_retry: bool,
    /// Limits the warnings about failed accepts.
    pub accept_warning: RateLimit,
    /// Whether `maxclients` changed, so that the event loop's table must be resized.
    pub resize: bool,
    /// The id of the client that the cron's walk over clients visited last.
    pub cron_cursor: u64,
    /// Limits the warnings about HTTP requests, see `execute::cross_protocol`.
    pub http_warning: RateLimit,
    /// Sums of the memory of all clients, see `clients::memory`.
    pub memory: ClientMemory,
}

/// Sums of the memory of all clients, each with the size at which it was last counted.
#[derive(Default, Clone, Copy)]
pub struct ClientMemory {
    /// The bytes of the clients of each class: normal, replica, pubsub.
    pub by_class: [usize; 3],
    /// The bytes of the clients that may be closed to free memory (`maxmemory-clients`).
    pub evictable: usize,
    /// Whether `maxmemory-clients` is set: then a client's memory is counted after each time that
    /// it was served.
    pub limited: bool,
}

impl Net {
    /// The network's state at the start: no listeners and no clients.
    pub fn new() -> Net {
        Net {
            clients: Clients::default(),
            http_warning: RateLimit::default(),
            listeners: Vec::new(),
            unit_sockets: Vec::new(),
            pending_write: Vec::new(),
            unread: Vec::new(),
            close_asap: Vec::new(),
            later: Vec::new(),
            monitors: Vec::new(),
            read_buffer: Vec::new(),
            parsed: ParseTable::default(),
            parsed_memory: 0,
            accept_retry: false,
            accept_warning: RateLimit::default(),
            spare_replies: Vec::new(),
            relisten: false,
            resize: false,
            cron_cursor: 0,
            memory: ClientMemory::default(),
        }
    }

    /// The bytes of the buffers that all clients share, without the read buffer, which is moved out
    /// while a command runs.
    pub fn buffers_memory(&self) -> usize {
        let spare: usize = self.spare_replies.iter().map(Vec::capacity).sum();
        self.parsed_memory + spare
    }

    /// Whether the server listens on a port or socket of the kind `kind`.
    pub fn listens(&self, kind: ListenerKind) -> bool {
        self.listeners.iter().any(|l| l.kind == kind && !l.retired)
    }

    /// The paths of the unix sockets that this server created. The files of those of a socket unit
    /// belong to the supervisor.
    pub fn made_unix_sockets<'a>(&self, config: &'a Config) -> Vec<&'a Text> {
        let made = self.listeners.iter().filter(|l| !l.of_unit);
        let path = made.filter_map(|l| match l.kind {
            ListenerKind::Unix => Some(&config.unixsocket),
            ListenerKind::Admin => Some(&config.admin_unixsocket),
            _ => None,
        });
        path.collect()
    }

    /// Adds a client to the list of clients with unsent replies, which `before_sleep` sends.
    #[inline]
    pub fn mark_pending(pending: &mut Vec<u32>, client: &mut Client) {
        if !client.has(flag::PENDING_WRITE) && client.conn.is_some() {
            client.set(flag::PENDING_WRITE);
            pending.push(client.slot);
        }
    }

    /// Marks a client to be closed at the end of the turn.
    pub fn close_asap(close: &mut Vec<ClientRef>, client: &mut Client) {
        if !client.has(flag::CLOSE_ASAP) {
            client.set(flag::CLOSE_ASAP);
            close.push(ClientRef {
                slot: client.slot,
                id: client.id,
            });
        }
    }
}

impl Default for Net {
    fn default() -> Net {
        Net::new()
    }
}

/// Called when a client's command is over: sends, after the reply, the messages that other code
/// queued for the client while its command ran.
///
/// A client that is closed after its reply gets no messages, and neither does a primary that
/// subscribes in its stream, as a primary expects acknowledgements only.
///
/// A push of RESP3 and an array of RESP2 differ in their first byte only, so one encoding serves
/// both protocols.
#[cold]
///
/// The messages are sent only when the AOF is safe up to `offset`, since a message may report
/// changes that other clients made meanwhile.
pub fn send_later(net: &mut Net, c: &mut Client, offset: u64) {
    if net.later.iter().any(|(r, _)| r.id == c.id) {
        c.aof_offset = c.aof_offset.max(offset);
    }
    net.later.retain(|(r, message)| {
        let mine = r.id == c.id;
        match message.first() {
            _ if c.has(flag::CLOSE_AFTER_REPLY | flag::PRIMARY) => {}
            Some(b'>') if mine && !c.reply.resp3 => {
                c.reply.raw(b"*");
                c.reply.raw(&message[1..]);
            }
            _ if mine => c.reply.raw_shared(message),
            _ => {}
        }
        !mine
    });
}
