//! The clients that are sent the stream. They are few, so the table is a vector that is searched
//! from its beginning.

use crate::client::ClientRef;
use crate::propagate::stream::Cursor;

/// A client that is sent the stream.
pub struct Replica {
    pub client: ClientRef,
    /// What the socket has not taken yet begins here.
    pub cursor: Cursor,
    /// The first byte has been sent: no reply may come between.
    pub began: bool,
}

#[derive(Default)]
pub struct Replicas {
    all: Vec<Replica>,
}

impl Replicas {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The client in this place, from 0 on without gap.
    pub fn client(&self, at: usize) -> Option<ClientRef> {
        self.all.get(at).map(|replica| replica.client)
    }

    pub fn get(&self, client: ClientRef) -> Option<&Replica> {
        self.all.iter().find(|replica| replica.client == client)
    }

    pub fn get_mut(&mut self, client: ClientRef) -> Option<&mut Replica> {
        self.all.iter_mut().find(|replica| replica.client == client)
    }

    pub(super) fn insert(&mut self, replica: Replica) {
        self.all.push(replica);
    }

    pub(super) fn remove(&mut self, client: ClientRef) -> Option<Replica> {
        let at = self
            .all
            .iter()
            .position(|replica| replica.client == client)?;
        Some(self.all.swap_remove(at))
    }
}
