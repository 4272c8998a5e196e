//! The state of a client's transaction: the commands that MULTI queued and the keys that WATCH
//! watches.

use crate::ds::thin_buffer::{size_class, vec_bytes};

/// The commands that MULTI queued, in three vectors however many commands there are:
///
/// ```text
///   commands: [set, 3 arguments] [get, 5]      each with the end of its arguments in `ends`
///   ends:     3 4 9  12 13
///   bytes:    setkvaluegetk
/// ```
#[derive(Default)]
pub struct MultiState {
    pub commands: Vec<Queued>,
    /// The union of the flags of all queued commands.
    pub flags: u32,
    /// The flags that at least one of the queued commands lacks.
    pub lacks: u32,
    /// The database that the last queued SELECT will choose: commands that are queued after it are
    /// checked for this database.
    pub db: Option<u32>,
    ends: Vec<usize>,
    bytes: Vec<u8>,
    /// The figures of the queue for CLIENT INFO while EXEC runs the queue, which is then moved out
    /// of the client.
    running: Option<MultiFigures>,
}

/// The figures of a transaction in CLIENT LIST.
#[derive(Clone, Copy)]
pub struct MultiFigures {
    /// The number of queued commands.
    pub commands: usize,
    pub argv_len: usize,
}

/// A queued command.
#[derive(Clone, Copy)]
pub struct Queued {
    /// The id of the queued command in the command table.
    pub id: u16,
    /// The end of the command's arguments in the list of the arguments of all queued commands.
    pub args_end: usize,
}

impl MultiState {
    /// An empty queue with room for a transaction of usual size.
    pub fn new() -> MultiState {
        MultiState {
            commands: Vec::with_capacity(16),
            flags: 0,
            lacks: 0,
            db: None,
            ends: Vec::with_capacity(48),
            bytes: Vec::with_capacity(512),
            running: None,
        }
    }

    /// The state that stays in the client while EXEC runs the queue of commands.
    pub fn running(queue: &MultiState) -> MultiState {
        MultiState {
            running: Some(queue.figures()),
            ..MultiState::default()
        }
    }

    /// The figures of the transaction for CLIENT LIST.
    pub fn figures(&self) -> MultiFigures {
        self.running.unwrap_or(MultiFigures {
            commands: self.commands.len(),
            argv_len: self.bytes.len(),
        })
    }

    /// Queues a command with its arguments and the flags of its row.
    pub fn push(&mut self, id: u16, flags: u32, argv: &[&[u8]]) {
        self.flags |= flags;
        self.lacks |= !flags;
        for arg in argv {
            self.bytes.extend_from_slice(arg);
            self.ends.push(self.bytes.len());
        }
        let args_end = self.ends.len();
        self.commands.push(Queued { id, args_end });
    }

    /// The arguments of all queued commands, one after the other.
    pub fn slices(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let ranges = starts.zip(&self.ends);
        ranges
            .map(|(&start, &end)| &self.bytes[start..end])
            .collect()
    }

    /// The bytes of the arguments of all queued commands.
    pub fn argv_len(&self) -> usize {
        self.bytes.len()
    }

    /// The heap bytes of the transaction's queue, the structure `MultiState` included.
    pub fn memory(&self) -> usize {
        size_class(size_of::<MultiState>())
            + vec_bytes(&self.commands)
            + vec_bytes(&self.ends)
            + vec_bytes(&self.bytes)
    }
}

/// A key that a client watches with WATCH.
pub struct WatchedKey {
    pub db: u32,
    pub key: Box<[u8]>,
}
