//! Recordings: whatever the file holds, it is entries, an end, or an error.

use aeris::sys::tape::format::{Codec, Reader, TapeEntry};

/// A file of a recording. What is read is written and read again as the same.
pub fn tape(bytes: &[u8]) {
    let mut again = Again::default();
    if let Ok(mut reader) = Reader::new(bytes) {
        while let Ok(Some(entry)) = reader.next_entry() {
            again.check(&entry);
        }
    }
    // A block without its checksum, which few mutations hit.
    let (mut codec, mut rest, mut again) = (Codec::default(), bytes, Again::default());
    while let Some(entry) = codec.decode(&mut rest) {
        again.check(&entry);
    }
}

#[derive(Default)]
struct Again {
    writes: Codec,
    reads: Codec,
}

impl Again {
    fn check(&mut self, entry: &TapeEntry) {
        let mut written = Vec::new();
        self.writes.encode(entry, &mut written);
        let mut rest = &written[..];
        assert_eq!(self.reads.decode(&mut rest).as_ref(), Some(entry));
        assert!(rest.is_empty());
    }
}
