//! The two buffers between the RDB format and the source or the target of its bytes: a file, a
//! child's pipe, a socket, a DUMP payload in memory.
//!
//! ```text
//!   Writer   put, put, put -> | buffer, 256 KB | -> CRC of the whole buffer -> one write
//!   Reader   one read -> | digested | taken, not digested | ahead | -> CRC when the buffer moves on
//! ```
//!
//! Most keys are small, so the cost of reading and writing lies in the number of calls, not of
//! bytes. The checksum is computed over whole buffers, since SIMD pays off from some kilobytes on,
//! and a value that is smaller than the buffer is borrowed from the buffer.
//!
//! **Invariant:** the CRC covers exactly the bytes that were read or written before the call that
//! returns it, however they were buffered (`tests::the_checksum_does_not_depend_on_the_buffering`).
//!
//! **Invariant:** nothing is allocated for a length in a file before its bytes have been read
//! (`tests::a_claimed_length_allocates_nothing`).

use std::io::{self, Read, Write};

use crc_fast::{CrcAlgorithm, Digest};
use lz4_flex::frame::FrameDecoder;

/// The size in bytes of the buffers, and so of the parts over which the checksum is computed at
/// once.
const CHUNK: usize = 256 * 1024;

/// The start of a CRC-64 as Redis computes it (the reflected polynomial of Jones, no initial
/// value).
fn crc64() -> Digest {
    Digest::new(CrcAlgorithm::Crc64Redis)
}

/// The CRC-64 of `bytes`, as in the footer of an RDB.
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Redis, bytes)
}

/// Collects bytes of an RDB in a buffer, and writes them to the file or socket below in large
/// pieces, with a checksum.
pub struct Writer<'a> {
    buf: Vec<u8>,
    /// The file or socket to which full buffers are written; with `None`, all bytes stay in `buf`.
    sink: Option<&'a mut dyn Write>,
    crc: Option<Digest>,
    flushed: u64,
    /// The number of bytes that are collected before they are written to the sink.
    chunk: usize,
}

impl<'a> Writer<'a> {
    /// Creates a writer to a file, a pipe or a socket. `checksum` switches the CRC on.
    pub fn new(sink: &'a mut dyn Write, checksum: bool) -> Writer<'a> {
        Writer {
            buf: Vec::with_capacity(CHUNK),
            sink: Some(sink),
            crc: checksum.then(crc64),
            flushed: 0,
            chunk: CHUNK,
        }
    }

    /// Sets the number of bytes that are collected before they are written. A small number of bytes
    /// suits a replica as the reader, which must not wait long for the next bytes.
    pub fn pieces_of(mut self, bytes: usize) -> Writer<'a> {
        self.chunk = bytes;
        self
    }

    /// Creates a writer that keeps all bytes in memory, for DUMP.
    pub fn in_memory() -> Writer<'a> {
        Writer {
            buf: Vec::new(),
            sink: None,
            crc: None,
            flushed: 0,
            chunk: CHUNK,
        }
    }

    /// Appends bytes to the buffer; a full buffer is written to the sink first.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buf.len() + bytes.len() > self.chunk && self.sink.is_some() {
            self.flush()?;
            if bytes.len() > self.chunk {
                return self.pass_on(bytes);
            }
        }
        self.buf.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends a byte to the buffer; a full buffer is written to the sink first.
    #[inline]
    pub fn put_u8(&mut self, byte: u8) -> io::Result<()> {
        self.put(&[byte])
    }

    /// The number of bytes that were put into the writer so far.
    pub fn written(&self) -> u64 {
        self.flushed + self.buf.len() as u64
    }

    /// Writes all buffered bytes to the sink.
    pub fn flush(&mut self) -> io::Result<()> {
        let buf = std::mem::take(&mut self.buf);
        self.pass_on(&buf)?;
        self.buf = buf;
        self.buf.clear();
        Ok(())
    }

    /// The CRC of all bytes that were put into the writer so far; 0 if the CRC is switched off.
    pub fn checksum(&mut self) -> io::Result<u64> {
        if self.sink.is_some() {
            self.flush()?;
        }
        Ok(self.crc.as_ref().map_or(0, Digest::finalize))
    }

    fn pass_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(sink) = &mut self.sink else {
            return Ok(());
        };
        if let Some(crc) = &mut self.crc {
            crc.update(bytes);
        }
        sink.write_all(bytes)?;
        self.flushed += bytes.len() as u64;
        Ok(())
    }

    /// The bytes of a writer that was created by [`Writer::in_memory`].
    pub fn into_bytes(self) -> Vec<u8> {
        self.buf
    }
}

/// The source of an LZ4 frame's bytes: first the bytes that were already read, then the rest of the
/// file.
struct Frame<'a> {
    bytes: io::Chain<io::Cursor<Vec<u8>>, &'a mut dyn Read>,
    /// The last bytes of the frame that were read so far.
    last: [u8; END_MAX],
}

/// The maximum size in bytes of an LZ4 frame's end: four zeros, and a checksum of four bytes.
const END_MAX: usize = 8;

impl Read for Frame<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buf)?;
        let new = &buf[read.saturating_sub(END_MAX)..read];
        self.last.copy_within(new.len().., 0);
        self.last[END_MAX - new.len()..].copy_from_slice(new);
        Ok(read)
    }
}

/// The source of a reader's bytes: plain, or an LZ4 frame.
enum Source<'a> {
    Plain(&'a mut dyn Read),
    /// An LZ4 frame, whose first bytes may have been read ahead.
    Lz4(Box<FrameDecoder<Frame<'a>>>),
    /// No source, while a plain source is turned into an LZ4 frame.
    None,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(source) => source.read(buf),
            Source::Lz4(frame) => frame.read(buf),
            Source::None => Ok(0),
        }
    }
}

/// Reads the bytes of an RDB from a file, a socket or memory through a buffer, with a checksum.
pub struct Reader<'a> {
    source: Source<'a>,
    buf: Vec<u8>,
    /// The position in `buf` of the next byte that the caller gets.
    pos: usize,
    /// The position in `buf` up to which the checksum covers the bytes.
    digested: usize,
    crc: Option<Digest>,
    /// The position in the source of the first byte of `buf`.
    base: u64,
    /// The number of bytes left in the source; `None` if it is not known.
    left: Option<u64>,
}

impl<'a> Reader<'a> {
    /// The maximum number of bytes that can be borrowed from the buffer at once.
    pub const BORROW_MAX: usize = CHUNK;

    /// Creates a reader; `len` is the number of bytes of the source, or `None` if it is not known.
    pub fn new(source: &'a mut dyn Read, len: Option<u64>) -> Reader<'a> {
        Reader {
            source: Source::Plain(source),
            buf: Vec::new(),
            pos: 0,
            digested: 0,
            crc: Some(crc64()),
            base: 0,
            left: len,
        }
    }

    /// The number of bytes that the caller has taken so far: the position in the RDB.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.base + self.pos as u64
    }

    /// Switches the checksum off: the checksum of a DUMP payload is checked separately, and files
    /// may have none.
    pub fn without_checksum(mut self) -> Reader<'a> {
        self.crc = None;
        self
    }

    /// Begins an LZ4 frame, which is the rest of the source: the next bytes are read from the
    /// decompressed frame, whose length is not known.
    pub fn begin_frame(&mut self) {
        let ahead = self.buf.split_off(self.pos);
        if let Source::Plain(source) = std::mem::replace(&mut self.source, Source::None) {
            let frame = Frame {
                bytes: io::Cursor::new(ahead).chain(source),
                last: [1; END_MAX],
            };
            self.source = Source::Lz4(Box::new(FrameDecoder::new(frame)));
        }
        self.buf.clear();
        (self.pos, self.digested, self.base) = (0, 0, 0);
        self.crc = self.crc.as_ref().map(|_| crc64());
        self.left = None;
    }

    /// Called after the last byte of a compressed RDB: reads the LZ4 frame to its end, where its
    /// checksum is. The LZ4 decoder alone would accept a frame that stops between two blocks, or
    /// within its end.
    pub fn end_frame(&mut self) -> io::Result<()> {
        let Source::Lz4(frame) = &mut self.source else {
            return Ok(());
        };
        io::copy(frame, &mut io::sink())?;
        let last = frame.get_ref().last;
        match last.starts_with(&[0; 4]) || last.ends_with(&[0; 4]) {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The CRC of all bytes that the caller has taken so far; 0 if the CRC is switched off.
    pub fn checksum(&mut self) -> u64 {
        self.digest();
        self.crc.as_ref().map_or(0, Digest::finalize)
    }

    fn digest(&mut self) {
        if let Some(crc) = &mut self.crc {
            crc.update(&self.buf[self.digested..self.pos]);
        }
        self.digested = self.pos;
    }

    /// Whether the source may have `n` more bytes. A length that the file states is wrong if the
    /// source does not have that many bytes.
    #[inline]
    pub fn may_have(&self, n: u64) -> bool {
        self.bytes_left().is_none_or(|left| n <= left)
    }

    /// The number of bytes that the caller has not taken yet; `None` if the length of the source is
    /// not known.
    pub fn bytes_left(&self) -> Option<u64> {
        let ahead = (self.buf.len() - self.pos) as u64;
        self.left.map(|left| left.saturating_add(ahead))
    }

    /// The bytes that were read from the source but not taken by the caller; they follow the RDB.
    pub fn into_ahead(mut self) -> Vec<u8> {
        self.buf.drain(..self.pos);
        self.buf
    }

    /// Whether the number of bytes of the source is known.
    pub fn knows_its_length(&self) -> bool {
        self.left.is_some()
    }

    /// Reads from the source until the buffer has `n` bytes that the caller has not taken; `n` is
    /// at most the buffer's size.
    #[cold]
    fn fill(&mut self, n: usize) -> io::Result<()> {
        self.digest();
        self.buf.drain(..self.pos);
        self.base += self.pos as u64;
        (self.pos, self.digested) = (0, 0);
        let room = self
            .left
            .map_or(CHUNK, |left| left.min(CHUNK as u64) as usize);
        while self.buf.len() < n {
            let before = self.buf.len();
            self.read_more(room.max(n - before).min(CHUNK))?;
            if self.buf.len() == before {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Reads once from the source, and appends the bytes, at most `max`, to the buffer.
    fn read_more(&mut self, max: usize) -> io::Result<()> {
        let before = self.buf.len();
        self.buf.resize(before + max, 0);
        let got = loop {
            match self.source.read(&mut self.buf[before..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buf.truncate(before + *got.as_ref().unwrap_or(&0));
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(got? as u64);
        } else {
            got?;
        }
        Ok(())
    }

    /// Takes the next `n` bytes of the RDB; `n` must not exceed the buffer's size.
    #[inline]
    fn take(&mut self, n: usize) -> io::Result<&[u8]> {
        debug_assert!(n <= CHUNK);
        if self.buf.len() - self.pos < n {
            self.fill(n)?;
        }
        let from = self.pos;
        self.pos += n;
        Ok(&self.buf[from..self.pos])
    }

    /// Takes the next byte of the RDB.
    #[inline]
    pub fn get_u8(&mut self) -> io::Result<u8> {
        if let Some(&byte) = self.buf.get(self.pos) {
            self.pos += 1;
            return Ok(byte);
        }
        Ok(self.take(1)?[0])
    }

    /// Takes the next `N` bytes of the RDB.
    #[inline]
    pub fn get<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(*bytes.first_chunk().expect("as many as were asked for"))
    }

    /// Takes the next `n` bytes of the RDB, borrowed from the buffer; `None` if they do not fit
    /// into the buffer.
    #[inline]
    pub fn borrow(&mut self, n: usize) -> io::Result<Option<&[u8]>> {
        if n > CHUNK {
            return Ok(None);
        }
        if !self.may_have(n as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.take(n).map(Some)
    }

    /// Takes the next `n` bytes of the RDB, which may be more than the buffer's size, and appends
    /// them to `out` as they are read.
    pub fn get_into(&mut self, mut n: u64, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.may_have(n) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Ok(all) = usize::try_from(n)
            && self.left.is_some()
        {
            // The source is known to have `n` bytes, so memory for all of them is allocated at
            // once.
            out.try_reserve_exact(all)
                .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        }
        while n > 0 {
            let piece = n.min(CHUNK as u64) as usize;
            out.extend_from_slice(self.take(piece)?);
            n -= piece as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A source that returns at most a given number of bytes for each read.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buf.len());
            let (now, rest) = self.0.split_at(n);
            buf[..n].copy_from_slice(now);
            self.0 = rest;
            Ok(n)
        }
    }

    proptest! {
        #[test]
        fn the_checksum_does_not_depend_on_the_buffering(
            pieces in proptest::collection::vec(0usize..700_000, 0..6), step in 1usize..300_000,
        ) {
            let mut file = Vec::new();
            let mut writer = Writer::new(&mut file, true);
            for (at, len) in pieces.iter().enumerate() {
                writer.put(&vec![at as u8; *len]).unwrap();
            }
            let crc = writer.checksum().unwrap();
            let total: usize = pieces.iter().sum();
            prop_assert_eq!(writer.written(), total as u64);
            prop_assert_eq!(crc, checksum(&file));
            let mut source = Trickle(&file, step);
            let mut reader = Reader::new(&mut source, Some(total as u64));
            for (at, len) in pieces.iter().enumerate() {
                let mut bytes = Vec::new();
                reader.get_into(*len as u64, &mut bytes).unwrap();
                prop_assert!(bytes.len() == *len && bytes.iter().all(|b| *b == at as u8));
            }
            prop_assert_eq!((reader.checksum(), reader.offset()), (crc, total as u64));
            prop_assert!(reader.get_u8().is_err());
        }
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut out = Vec::new();
        let mut source: &[u8] = b"abc";
        let mut reader = Reader::new(&mut source, Some(3));
        assert!(reader.get_into(u64::MAX, &mut out).is_err());
        assert_eq!(out.capacity(), 0);
        let mut source: &[u8] = b"abc";
        let mut reader = Reader::new(&mut source, None);
        assert!(reader.get_into(u64::MAX, &mut out).is_err());
        assert!(out.capacity() < 2 * CHUNK);
    }
}
