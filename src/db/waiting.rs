//! The clients that are blocked on one key: an entry of the database's table of blocking keys.

use std::collections::VecDeque;
use std::ops::Range;

use crate::client::ClientRef;
use crate::ds::registry::Registered;
use crate::ds::thin_buffer::heap_bytes;

/// The clients that are blocked on one key.
#[derive(Default)]
pub struct Waiting {
    /// The clients, sorted by ticket, the number that a client gets when it is blocked, so in order
    /// of arrival. A client whose command ran again and found nothing keeps its ticket.
    clients: VecDeque<(u64, ClientRef)>,
    /// The number of clients blocked on the key whose command also runs again when the key is
    /// deleted (XREADGROUP).
    pub on_nokey: usize,
}

impl Waiting {
    /// Adds a blocked client. Returns false if the client's ticket is in the list already.
    pub fn join(&mut self, ticket: u64, client: ClientRef) -> bool {
        let Err(place) = self.place_of(ticket) else {
            return false;
        };
        if self.clients.is_empty() {
            // Most keys have at most one blocked client, so the list begins with room for one.
            self.clients.reserve_exact(1);
        }
        self.clients.insert(place, (ticket, client));
        true
    }

    /// Removes the blocked client with this ticket.
    pub fn leave(&mut self, ticket: u64) {
        if let Ok(place) = self.place_of(ticket) {
            self.clients.remove(place);
        }
    }

    /// The blocked client with the lowest ticket in this range, and its ticket.
    pub fn next(&self, tickets: Range<u64>) -> Option<(u64, ClientRef)> {
        let place = self.place_of(tickets.start).unwrap_or_else(|place| place);
        let found = self.clients.get(place).copied();
        found.filter(|(ticket, _)| tickets.contains(ticket))
    }

    /// The blocked clients in the order of their tickets.
    pub fn iter(&self) -> impl Iterator<Item = &(u64, ClientRef)> {
        self.clients.iter()
    }

    fn place_of(&self, ticket: u64) -> Result<usize, usize> {
        self.clients
            .binary_search_by_key(&ticket, |&(ticket, _)| ticket)
    }
}

impl Registered for Waiting {
    fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        heap_bytes(self.clients.capacity() * size_of::<(u64, ClientRef)>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_stand_in_the_order_of_their_tickets() {
        let client = |id| ClientRef { slot: 0, id };
        let mut waiting = Waiting::default();
        for ticket in [3, 7, 5] {
            assert!(waiting.join(ticket, client(ticket)));
        }
        assert!(!waiting.join(5, client(9)), "the same ticket twice");
        let tickets = |waiting: &Waiting| waiting.iter().map(|w| w.0).collect::<Vec<_>>();
        assert_eq!(tickets(&waiting), [3, 5, 7]);
        assert_eq!(waiting.next(0..8), Some((3, client(3))));
        assert_eq!(waiting.next(4..8), Some((5, client(5))));
        assert_eq!(waiting.next(6..7), None);
        assert_eq!(waiting.next(8..9), None);
        waiting.leave(5);
        waiting.leave(6);
        assert_eq!(tickets(&waiting), [3, 7]);
        waiting.leave(3);
        waiting.leave(7);
        assert!(waiting.is_empty());
    }
}
