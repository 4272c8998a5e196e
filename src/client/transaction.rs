//! A client's part of a transaction: the commands that MULTI queued and the keys that WATCH
//! watches.

use crate::ds::thin_buffer::{size_class, vec_bytes};

/// Commands queued by MULTI, in three pieces of memory however many they are:
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
    /// The flags that at least one of the commands lacks.
    pub lacks: u32,
    /// The database that the last queued SELECT will choose: commands that are queued after it are
    /// checked for this database.
    pub db: Option<u32>,
    ends: Vec<usize>,
    bytes: Vec<u8>,
    /// The figures of the queue while EXEC runs it, as the queue is moved out then; for CLIENT
    /// INFO.
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
    /// The id of the command's row.
    pub id: u16,
    /// The end of the command's arguments in the list of all arguments.
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

    /// The state that stays in the client while EXEC runs its queue.
    pub fn running(queue: &MultiState) -> MultiState {
        MultiState {
            running: Some(queue.figures()),
            ..MultiState::default()
        }
    }

    /// The figures for CLIENT LIST.
    pub fn figures(&self) -> MultiFigures {
        self.running.unwrap_or(MultiFigures {
            commands: self.commands.len(),
            argv_len: self.bytes.len(),
        })
    }

    /// Queues a command.
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

    /// The arguments of all commands, one after the other.
    pub fn slices(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let ranges = starts.zip(&self.ends);
        ranges
            .map(|(&start, &end)| &self.bytes[start..end])
            .collect()
    }

    /// Bytes of all arguments.
    pub fn argv_len(&self) -> usize {
        self.bytes.len()
    }

    /// The heap bytes, this structure included.
    pub fn memory(&self) -> usize {
        size_class(size_of::<MultiState>())
            + vec_bytes(&self.commands)
            + vec_bytes(&self.ends)
            + vec_bytes(&self.bytes)
    }
}

/// A key that a client watches.
pub struct WatchedKey {
    pub db: u32,
    pub key: Box<[u8]>,
}
