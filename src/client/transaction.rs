//! A client's share of a transaction: the commands that MULTI queued and the keys that WATCH
//! watches.

/// Commands queued by MULTI, in three pieces of memory however many they are:
///
/// ```text
///   commands: [set, 3 arguments] [get, 5]      both end where they say
///   ends:     3 4 9  12 13
///   bytes:    setkvaluegetk
/// ```
#[derive(Default)]
pub struct MultiState {
    pub commands: Vec<Queued>,
    /// The union of the flags of all queued commands.
    pub flags: u32,
    /// Flags that at least one of them has not.
    pub lacks: u32,
    /// The database that the last queued SELECT will choose: what is queued behind it is checked
    /// against this one.
    pub db: Option<u32>,
    ends: Vec<usize>,
    bytes: Vec<u8>,
    /// While EXEC runs the queue, which is elsewhere then: its figures, for CLIENT INFO.
    running: Option<MultiFigures>,
}

/// What CLIENT LIST shows of a transaction.
#[derive(Clone, Copy)]
pub struct MultiFigures {
    /// Queued commands, and the bytes of their arguments.
    pub commands: usize,
    pub argv_len: usize,
}

#[derive(Clone, Copy)]
pub struct Queued {
    pub id: u16,
    /// Its arguments end with this one of all.
    pub args_end: usize,
}

impl MultiState {
    /// Room for a transaction as most are.
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

    /// What is left in a client whose queue is taken out to be run.
    pub fn running(queue: &MultiState) -> MultiState {
        MultiState {
            running: Some(queue.figures()),
            ..MultiState::default()
        }
    }

    pub fn figures(&self) -> MultiFigures {
        self.running.unwrap_or(MultiFigures {
            commands: self.commands.len(),
            argv_len: self.bytes.len(),
        })
    }

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

    pub fn memory(&self) -> usize {
        self.commands.capacity() * size_of::<Queued>()
            + self.ends.capacity() * size_of::<usize>()
            + self.bytes.capacity()
    }
}

/// A key that a client watches.
pub struct WatchedKey {
    pub db: u32,
    pub key: Box<[u8]>,
}
