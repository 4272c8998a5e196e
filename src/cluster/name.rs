//! Names of nodes and shards, and the texts of addresses, as packets of the cluster bus have them.

use std::fmt;

use crate::util::random::Random;

/// The length of the name of a node or of a shard, in characters.
pub const NAME_LEN: usize = 40;

/// The name of a node or of a shard: 40 characters of `0-9a-z`, chosen at random when the node or
/// shard is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name([u8; NAME_LEN]);

impl Name {
    /// Makes a random name of hexadecimal digits.
    pub fn random(random: &mut Random) -> Name {
        let mut name = [0; NAME_LEN];
        name.copy_from_slice(random.hex(NAME_LEN).as_bytes());
        Name(name)
    }

    /// Parses a name; `None` for a text of another length or with other characters than `0-9a-z`.
    pub fn parse(text: &[u8]) -> Option<Name> {
        let name: [u8; NAME_LEN] = text.try_into().ok()?;
        let is_valid = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        name.iter().all(is_valid).then_some(Name(name))
    }

    /// The characters of the name.
    pub fn as_bytes(&self) -> &[u8; NAME_LEN] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or(""))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:.8}")
    }
}

/// The size in bytes of the field of an address in packets: the longest IPv6 text and a NUL.
pub const IP_LEN: usize = 46;

/// The text of an IP address or of an announced host, at most 45 characters; may be empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ip([u8; IP_LEN]);

impl Default for Ip {
    fn default() -> Ip {
        Ip([0; IP_LEN])
    }
}

impl Ip {
    /// Parses an address; `None` if the text is too long or has characters that nodes.conf can't
    /// contain.
    pub fn parse(text: &[u8]) -> Option<Ip> {
        let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || b".:-_%".contains(byte);
        if text.len() >= IP_LEN || !text.iter().all(is_valid) {
            return None;
        }
        let mut ip = Ip::default();
        ip.0[..text.len()].copy_from_slice(text);
        Some(ip)
    }

    /// Parses the address field of a packet: the text up to the first NUL.
    pub(super) fn from_field(field: &[u8; IP_LEN]) -> Option<Ip> {
        let end = field.iter().position(|byte| *byte == 0)?;
        Ip::parse(&field[..end])
    }

    /// The address as the field of a packet, padded with zeros.
    pub(super) fn as_field(&self) -> &[u8; IP_LEN] {
        &self.0
    }

    /// The address as a text; empty if the address is not known.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0);
        std::str::from_utf8(&self.0[..end.unwrap_or(0)]).unwrap_or("")
    }

    /// Whether the text of the IP address is empty, as the address is not known.
    pub fn is_empty(&self) -> bool {
        self.0[0] == 0
    }
}

impl fmt::Debug for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The maximum length in bytes of a host name, a human name or a zone.
pub const TEXT_MAX: usize = 255;

/// Whether a host name, human name or zone can be written to nodes.conf: it must be not empty, at
/// most [`TEXT_MAX`] bytes, printable, without the characters that separate fields.
pub fn is_valid_text(text: &[u8]) -> bool {
    let is_valid =
        |byte: &u8| byte.is_ascii_graphic() && !b",=@\"'\\[]<>!#$%&()*/:;?^`{|}~+".contains(byte);
    !text.is_empty() && text.len() <= TEXT_MAX && text.iter().all(is_valid)
}
