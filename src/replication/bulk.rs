//! The frame around a snapshot from a primary: its beginning and its end.
//!
//! ```text
//!   \n \n $<length>\r\n        <length bytes>                 from a file
//!   \n $EOF:<40 bytes>\r\n     <bytes> <the same 40 bytes>    from a pipe: the length is not known
//! ```
//!
//! Line feeds before the header are keep-alives, which the primary sends while it creates the
//! snapshot. The 40 bytes at the end (the mark) may be split between several reads, so the last 40
//! bytes that were read are kept back until more bytes arrive.
//!
//! **Invariant:** the snapshot that is extracted does not depend on how the input is split into
//! reads (`tests::cut_anywhere_it_is_the_same`).

/// The length in bytes of the mark that ends a snapshot from a pipe.
const MARK_LEN: usize = 40;
/// The maximum length in bytes of the header line of a snapshot.
const LINE_MAX: usize = 1024;
/// The maximum number of keep-alives before the header. A primary sends one keep-alive each second,
/// so these last for more than a day.
const KEEP_ALIVES_MAX: u32 = 100_000;

/// How the end of a snapshot is found: by its length, or by a mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Length {
    /// The snapshot ends after this number of bytes.
    Known(u64),
    /// The mark that follows the last byte of the snapshot, and is not part of it.
    Mark([u8; MARK_LEN]),
}

/// Why the bytes that the primary sends in place of a snapshot's header are invalid.
#[derive(PartialEq, Eq, Debug)]
pub enum Malformed {
    /// The primary has sent an error; the text is without the dash.
    Error(Vec<u8>),
    /// The primary has sent a line that is no header of a snapshot.
    Header(Vec<u8>),
    /// There were more line feeds before the header than a primary sends in a day.
    KeepAlives,
}

/// Reads the header line of a snapshot from a primary.
#[derive(Default)]
pub struct Header {
    line: Vec<u8>,
    keep_alives: u32,
}

impl Header {
    /// Reads bytes up to the end of the header. Returns `None` until the header is complete; then
    /// the rest of `input` is the snapshot.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Length>, Malformed> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > LINE_MAX {
                    return Err(Malformed::Header(std::mem::take(&mut self.line)));
                }
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if !line.is_empty() {
                return parse_header(&line).map(Some);
            }
            self.keep_alives += 1;
            if self.keep_alives > KEEP_ALIVES_MAX {
                return Err(Malformed::KeepAlives);
            }
        }
        Ok(None)
    }
}

fn parse_header(line: &[u8]) -> Result<Length, Malformed> {
    let malformed = || Malformed::Header(line.to_vec());
    if let Some(error) = line.strip_prefix(b"-") {
        return Err(Malformed::Error(error.to_vec()));
    }
    if let Some(mark) = line.strip_prefix(b"$EOF:") {
        return mark.try_into().map(Length::Mark).map_err(|_| malformed());
    }
    let digits = line.strip_prefix(b"$").ok_or_else(malformed)?;
    let digits = std::str::from_utf8(digits).map_err(|_| malformed())?;
    digits.parse().map(Length::Known).map_err(|_| malformed())
}

/// Separates the bytes of a snapshot from what follows: the mark, or the replication stream.
pub struct Body {
    length: Length,
    /// The number of bytes of the snapshot that were delivered to the caller.
    delivered: u64,
    /// The last bytes that were read, which are kept back since they may be a part of the mark.
    held: Vec<u8>,
}

impl Body {
    /// Creates the reader of a snapshot's bytes, after its header was read.
    pub fn new(length: Length) -> Body {
        Body {
            length,
            delivered: 0,
            held: Vec::new(),
        }
    }

    /// How the end of this snapshot is found.
    pub fn length(&self) -> &Length {
        &self.length
    }

    /// The number of bytes of the snapshot that were delivered to the caller.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Reads bytes from `input` and appends the bytes of the snapshot to `out`. Returns whether the
    /// snapshot is complete; the rest of `input` is then the replication stream.
    pub fn read(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> bool {
        match self.length {
            Length::Known(length) => {
                let wanted = usize::try_from(length - self.delivered).unwrap_or(usize::MAX);
                let (bytes, rest) = input.split_at(wanted.min(input.len()));
                out.extend_from_slice(bytes);
                self.delivered += bytes.len() as u64;
                *input = rest;
                self.delivered == length
            }
            Length::Mark(mark) => {
                let deliver = (self.held.len() + input.len()).saturating_sub(MARK_LEN);
                let old = deliver.min(self.held.len());
                let new = deliver - old;
                out.reserve(deliver);
                out.extend(self.held.drain(..old));
                out.extend_from_slice(&input[..new]);
                self.held.extend_from_slice(&input[new..]);
                self.delivered += deliver as u64;
                *input = &[];
                let done = self.held == mark;
                if done {
                    self.held.clear();
                }
                done
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "0123456789012345678901234567890123456789";

    /// Reads a snapshot that arrives in `pieces`. Returns the snapshot, the bytes behind it, and
    /// whether it is complete.
    fn receive(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), Malformed> {
        let (mut header, mut body) = (Header::default(), None);
        let (mut out, mut rest, mut done) = (Vec::new(), Vec::new(), false);
        for piece in pieces {
            let mut input = *piece;
            if body.is_none() {
                body = header.read(&mut input)?.map(Body::new);
            }
            if let Some(body) = &mut body
                && !done
            {
                done = body.read(&mut input, &mut out);
            }
            rest.extend_from_slice(input);
        }
        Ok((out, rest, done))
    }

    #[test]
    fn cut_anywhere_it_is_the_same() {
        let known = b"\n\n$5\r\nhello*1\r\n".to_vec();
        let marked = format!("\n$EOF:{MARK}\r\nhe{}llo{MARK}", &MARK[..30]).into_bytes();
        let expected: [(&[u8], &[u8]); 2] = [(b"hello", b"*1\r\n"), (b"", b"")];
        for at in 0..=known.len() {
            let (first, second) = known.split_at(at);
            let (out, rest, done) = receive(&[first, second]).expect("a frame");
            assert_eq!(
                (&out[..], &rest[..], done),
                (expected[0].0, expected[0].1, true)
            );
        }
        let snapshot = format!("he{}llo", &MARK[..30]);
        for at in 0..=marked.len() {
            let (first, second) = marked.split_at(at);
            let (out, rest, done) = receive(&[first, second]).expect("a frame");
            assert_eq!((&out[..], rest.len(), done), (snapshot.as_bytes(), 0, true));
        }
        let bytes: Vec<&[u8]> = marked.chunks(1).collect();
        assert_eq!(receive(&bytes).expect("a frame").0, snapshot.as_bytes());
    }

    #[test]
    fn an_empty_snapshot_is_complete_at_once() {
        assert_eq!(receive(&[b"$0\r\n", b""]), Ok((vec![], vec![], true)));
        let text = format!("$EOF:{MARK}\r\n{MARK}");
        assert_eq!(receive(&[text.as_bytes()]), Ok((vec![], vec![], true)));
    }

    #[test]
    fn a_primary_that_talks_nonsense_is_refused() {
        let refused = |text: &[u8]| receive(&[text]).expect_err("no frame");
        assert_eq!(
            refused(b"-ERR no\r\n"),
            Malformed::Error(b"ERR no".to_vec())
        );
        for text in [
            "$-1\r\n",
            "$EOF:short\r\n",
            "+OK\r\n",
            "$18446744073709551616\r\n",
            "$\r\n",
        ] {
            let line = text.trim_end().as_bytes().to_vec();
            assert_eq!(refused(text.as_bytes()), Malformed::Header(line));
        }
        let endless = [b'x'; 2000];
        assert!(matches!(refused(&endless), Malformed::Header(_)));
        assert_eq!(refused(&[b'\n'; 200_000]), Malformed::KeepAlives);
    }
}
