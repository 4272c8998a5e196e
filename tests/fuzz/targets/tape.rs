//! Recordings of `--trace-record`: any file is read as entries and an end, or with an error.

use aeris::sys::tape::format::{Codec, Reader, TapeEntry};

/// Reads a file of a recording. Each entry that is read, when written and read again, is the same.
pub fn tape(bytes: &[u8]) {
    let mut again = Again::default();
    if let Ok(mut reader) = Reader::new(bytes) {
        while let Ok(Some(entry)) = reader.next_entry() {
            again.check(&entry);
        }
    }
    // Reads the input as a block of entries without its checksum, which few mutations would match.
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
