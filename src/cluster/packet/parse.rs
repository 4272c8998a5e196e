//! Parses packets of the cluster bus: from bytes to validated structs.

use std::fmt;
use std::rc::Rc;

use super::{
    Body, EXTENSION_LEN, Extension, GOSSIP_LEN, Gossip, HEAD_LEN, Header, LIGHT, LIGHT_LEN,
    Message, Module, PACKET_MAX, PingKind, Publish, VERSION, extension, kind,
};
use crate::cluster::bitmap::{BITMAP_LEN, Bitmap};
use crate::cluster::name::{IP_LEN, Ip, NAME_LEN, Name, is_valid_text};

/// The reason why bytes are not a valid packet of the cluster bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// The first four bytes are not `RCmb`.
    Signature,
    /// The packet has another version of the cluster bus protocol.
    Version(u16),
    /// The total length in the packet's head is too small, too large, or not the length of the
    /// content.
    Length,
    /// The type of the packet is unknown.
    Kind(u16),
    /// The name of a node in the packet is invalid.
    Name,
    /// An IP address in the packet is invalid.
    Address,
    /// An extension in the packet is longer than the packet, or its length is not a multiple of
    /// eight.
    Extension,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Signature => f.write_str("no cluster bus packet"),
            Malformed::Version(version) => write!(f, "unknown protocol version {version}"),
            Malformed::Length => f.write_str("wrong length"),
            Malformed::Kind(kind) => write!(f, "unknown type {kind}"),
            Malformed::Name => f.write_str("invalid node name"),
            Malformed::Address => f.write_str("invalid address"),
            Malformed::Extension => f.write_str("invalid extension"),
        }
    }
}

/// The total length of the packet that begins with `bytes`; `None` if there are less than eight
/// bytes. Lengths below the smallest and above the largest packet are refused, so that a reader
/// does not wait for the rest of an impossible packet.
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let seen = bytes.len().min(4);
    if bytes[..seen] != b"RCmb"[..seen] {
        return Err(Malformed::Signature);
    }
    let Some(len) = bytes.get(4..8).and_then(|len| len.try_into().ok()) else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(len) as usize;
    if (LIGHT_LEN..=PACKET_MAX).contains(&len) {
        Ok(Some(len))
    } else {
        Err(Malformed::Length)
    }
}

/// The bytes of a packet that have not been parsed yet; each method checks that there are enough of
/// them.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|byte| byte[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn name(&mut self) -> Result<Name, Malformed> {
        Name::parse(self.take(NAME_LEN)?).ok_or(Malformed::Name)
    }

    fn optional_name(&mut self) -> Result<Option<Name>, Malformed> {
        let field = self.take(NAME_LEN)?;
        if field[0] == 0 {
            return Ok(None);
        }
        Name::parse(field).map(Some).ok_or(Malformed::Name)
    }

    fn ip(&mut self) -> Result<Ip, Malformed> {
        Ip::from_field(self.array::<IP_LEN>()?).ok_or(Malformed::Address)
    }

    fn slots(&mut self) -> Result<Rc<Bitmap>, Malformed> {
        Ok(Rc::new(Bitmap::from_bytes(self.array::<BITMAP_LEN>()?)))
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Length)
        }
    }
}

impl Message {
    /// Parses one whole packet, whose bytes were delimited with [`frame_len`].
    pub fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
        if frame_len(bytes)? != Some(bytes.len()) {
            return Err(Malformed::Length);
        }
        let mut input = Input(&bytes[8..]);
        let version = input.u16()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let port = input.u16()?;
        let kind = input.u16()?;
        let count = input.u16()?;
        let message = if kind & LIGHT == 0 {
            let (header, extensions) = header(&mut input, port)?;
            let body = body(&mut input, kind, count, extensions)?;
            Message::Full(Box::new(header), body)
        } else {
            light(&mut input, kind & !LIGHT)?
        };
        input.end()?;
        Ok(message)
    }
}

/// Parses the head of a packet behind its first 16 bytes; also returns the number of extensions.
fn header(input: &mut Input, port: u16) -> Result<(Header, u16), Malformed> {
    if input.0.len() < HEAD_LEN - 16 {
        return Err(Malformed::Length);
    }
    let (current_epoch, config_epoch, offset) = (input.u64()?, input.u64()?, input.u64()?);
    let sender = input.name()?;
    let slots = input.slots()?;
    let replica_of = input.optional_name()?;
    let ip = input.ip()?;
    let extensions = input.u16()?;
    input.take(30)?;
    let header = Header {
        sender,
        current_epoch,
        config_epoch,
        offset,
        slots,
        replica_of,
        ip,
        port,
        second_port: input.u16()?,
        bus_port: input.u16()?,
        flags: input.u16()?,
        state: input.u8()?,
        message_flags: *input.array()?,
    };
    Ok((header, extensions))
}

fn body(input: &mut Input, kind: u16, count: u16, extensions: u16) -> Result<Body, Malformed> {
    Ok(match kind {
        kind::PING => ping(input, PingKind::Ping, count, extensions)?,
        kind::PONG => ping(input, PingKind::Pong, count, extensions)?,
        kind::MEET => ping(input, PingKind::Meet, count, extensions)?,
        kind::FAIL => Body::Fail(input.name()?),
        kind::PUBLISH => Body::Publish(publish(input, false)?),
        kind::PUBLISH_SHARD => Body::Publish(publish(input, true)?),
        kind::AUTH_REQUEST => Body::AuthRequest,
        kind::AUTH_ACK => Body::AuthAck,
        kind::MFSTART => Body::ManualFailoverStart,
        kind::UPDATE => Body::Update {
            config_epoch: input.u64()?,
            node: input.name()?,
            slots: input.slots()?,
        },
        kind::MODULE => Body::Module(module(input)?),
        other => return Err(Malformed::Kind(other)),
    })
}

fn light(input: &mut Input, kind: u16) -> Result<Message, Malformed> {
    Ok(match kind {
        kind::PUBLISH => Message::LightPublish(publish(input, false)?),
        kind::PUBLISH_SHARD => Message::LightPublish(publish(input, true)?),
        kind::MODULE => Message::LightModule(module(input)?),
        other => return Err(Malformed::Kind(other | LIGHT)),
    })
}

fn ping(input: &mut Input, kind: PingKind, count: u16, extensions: u16) -> Result<Body, Malformed> {
    // The counts of gossip and extensions are checked against the length of the packet, so that a
    // false count can't make a large allocation.
    if input.0.len() < usize::from(count) * GOSSIP_LEN + usize::from(extensions) * EXTENSION_LEN {
        return Err(Malformed::Length);
    }
    let gossip = (0..count)
        .map(|_| gossip(input))
        .collect::<Result<_, _>>()?;
    let extensions = (0..extensions)
        .map(|_| extension(input))
        .collect::<Result<_, _>>()?;
    Ok(Body::Ping {
        kind,
        gossip,
        extensions,
    })
}

fn gossip(input: &mut Input) -> Result<Gossip, Malformed> {
    let gossip = Gossip {
        name: input.name()?,
        ping_sent_s: input.u32()?,
        pong_received_s: input.u32()?,
        ip: input.ip()?,
        port: input.u16()?,
        bus_port: input.u16()?,
        flags: input.u16()?,
        second_port: input.u16()?,
    };
    input.take(2)?;
    Ok(gossip)
}

fn extension(input: &mut Input) -> Result<Extension, Malformed> {
    let len = input.u32()? as usize;
    let kind = input.u16()?;
    input.take(2)?;
    if len < EXTENSION_LEN || !len.is_multiple_of(8) || len - EXTENSION_LEN > input.0.len() {
        return Err(Malformed::Extension);
    }
    let data = input.take(len - EXTENSION_LEN)?;
    Ok(
        known_extension(kind, data).unwrap_or_else(|| Extension::Other {
            kind,
            data: data.into(),
        }),
    )
}

/// Parses the data of an extension; `None` if its type `kind` is unknown or its data is invalid.
fn known_extension(kind: u16, data: &[u8]) -> Option<Extension> {
    Some(match kind {
        extension::HOST_NAME => Extension::HostName(text(data)?),
        extension::HUMAN_NAME => Extension::HumanName(text(data)?),
        extension::FORGOTTEN => {
            let (node, ttl) = data.split_at_checked(NAME_LEN)?;
            Extension::Forgotten {
                node: Name::parse(node)?,
                ttl_s: u64::from_be_bytes(ttl.try_into().ok()?),
            }
        }
        extension::SHARD_ID => Extension::ShardId(Name::parse(data)?),
        extension::CLIENT_IPV4 if data.len() == 40 => {
            Extension::InternalSecret(data.try_into().ok()?)
        }
        extension::CLIENT_IPV4 => Extension::ClientIpv4(address(data)?),
        extension::CLIENT_IPV6 => Extension::ClientIpv6(address(data)?),
        extension::CLIENT_PORT => Extension::ClientPort(port(data)?),
        extension::CLIENT_TLS_PORT => Extension::ClientTlsPort(port(data)?),
        extension::ZONE => Extension::Zone(text(data)?),
        _ => return None,
    })
}

/// Parses the text of an extension, which ends with a NUL and is padded with zeros to a multiple of
/// eight bytes.
fn text(data: &[u8]) -> Option<Box<[u8]>> {
    padded(data)
        .filter(|text| is_valid_text(text))
        .map(Box::from)
}

fn address(data: &[u8]) -> Option<Box<[u8]>> {
    let text = padded(data).filter(|text| !text.is_empty())?;
    Ip::parse(text).map(|_| text.into())
}

fn padded(data: &[u8]) -> Option<&[u8]> {
    let len = data.iter().position(|byte| *byte == 0)?;
    let is_exact = data.len() == (len + 1).next_multiple_of(8);
    (is_exact && data[len..].iter().all(|byte| *byte == 0)).then_some(&data[..len])
}

fn port(data: &[u8]) -> Option<u16> {
    let (port, padding) = data.split_first_chunk()?;
    (padding == [0; 6]).then_some(u16::from_be_bytes(*port))
}

fn publish(input: &mut Input, sharded: bool) -> Result<Publish, Malformed> {
    let (channel_len, message_len) = (input.u32()? as usize, input.u32()? as usize);
    Ok(Publish {
        sharded,
        channel: input.take(channel_len)?.into(),
        message: input.take(message_len)?.into(),
    })
}

fn module(input: &mut Input) -> Result<Module, Malformed> {
    let module = input.u64()?;
    let len = input.u32()? as usize;
    Ok(Module {
        module,
        kind: input.u8()?,
        data: input.take(len)?.into(),
    })
}
