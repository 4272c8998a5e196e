//! Writes messages of Protocol Buffers, as far as the binary format of Prometheus needs them.
//!
//! ```text
//!   message   field field field ...
//!   field     tag = number << 3 | kind     value: a varint, 8 bytes, or a length and bytes
//! ```

/// The wire types of Protocol Buffers: how the value of a field is written.
const VARINT: u64 = 0;
const FIXED: u64 = 1;
const BYTES: u64 = 2;

/// A message of Protocol Buffers: the bytes of the fields that were added so far.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    /// Adds a field of type uint64, or of an enum.
    pub fn number(&mut self, field: u64, n: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(n);
    }

    /// Adds a field of type sint32 or sint64 (zigzag: the sign is the lowest bit).
    pub fn signed(&mut self, field: u64, n: i64) {
        self.number(field, zigzag(n));
    }

    /// Adds a field of type double.
    pub fn double(&mut self, field: u64, n: f64) {
        self.varint(field << 3 | FIXED);
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    /// Adds a field of type string or bytes.
    pub fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Adds a field that is a message.
    pub fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }

    /// Adds a packed field of repeated sint64.
    pub fn signed_list(&mut self, field: u64, list: impl IntoIterator<Item = i64>) {
        let mut packed = Message::default();
        for n in list {
            packed.varint(zigzag(n));
        }
        self.message(field, &packed);
    }

    /// Appends the length and the bytes of this message, which is the form of messages that follow
    /// one another.
    pub fn append_delimited(self, out: &mut Vec<u8>) {
        let mut length = Message::default();
        length.varint(self.0.len() as u64);
        out.extend_from_slice(&length.0);
        out.extend_from_slice(&self.0);
    }
}

fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares messages with the examples in the documentation of Protocol Buffers.
    #[test]
    fn fields_are_those_of_the_documentation() {
        let mut message = Message::default();
        message.number(1, 150);
        assert_eq!(message.0, [0x08, 0x96, 0x01]);
        let mut text = Message::default();
        text.bytes(2, b"testing");
        assert_eq!(text.0, [b"\x12\x07".as_slice(), b"testing"].concat());
        let mut outer = Message::default();
        outer.message(3, &message);
        assert_eq!(outer.0, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let signs = [0, -1, 1, -2, 0x7fff_ffff, -0x8000_0000].map(zigzag);
        assert_eq!(signs, [0, 1, 2, 3, 0xffff_fffe, 0xffff_ffff]);
        let mut out = Vec::new();
        outer.append_delimited(&mut out);
        assert_eq!(out[0], 5);
    }
}
