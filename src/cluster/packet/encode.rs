//! Encodes packets of the cluster bus: from structs to bytes.

use super::{
    Body, EXTENSION_LEN, Extension, Gossip, HEAD_LEN, Header, LIGHT, Message, Module, PingKind,
    Publish, Purpose, VERSION, extension, kind,
};

impl Message {
    /// Appends the bytes of the packet to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(b"RCmb\0\0\0\0");
        out.extend(VERSION.to_be_bytes());
        match self {
            Message::Full(header, body) => full(header, body, out),
            Message::LightPublish(publish) => {
                light_head(publish_kind(publish), out);
                append_publish(publish, out);
            }
            Message::LightModule(module) => {
                light_head(kind::MODULE, out);
                append_module(module, out);
            }
        }
        let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        out[start + 4..start + 8].copy_from_slice(&len.to_be_bytes());
    }

    /// The type of the packet as an index below [`KINDS`](super::KINDS), for counters of packets.
    pub fn kind_index(&self) -> usize {
        let kind = match self {
            Message::Full(_, body) => body_kind(body).0,
            Message::LightPublish(publish) => publish_kind(publish),
            Message::LightModule(_) => kind::MODULE,
        };
        usize::from(kind)
    }

    /// The purpose of the message, for the counters of the bus.
    pub fn purpose(&self) -> Purpose {
        match self {
            Message::LightPublish(_) | Message::Full(_, Body::Publish(_)) => Purpose::Published,
            Message::LightModule(_) | Message::Full(_, Body::Module(_)) => Purpose::Module,
            Message::Full(..) => Purpose::Cluster,
        }
    }

    /// The number of bytes of the packet.
    pub fn encoded_len(&self) -> usize {
        match self {
            Message::Full(_, body) => HEAD_LEN + body_len(body),
            Message::LightPublish(publish) => 16 + publish_len(publish),
            Message::LightModule(module) => 16 + 13 + module.data.len(),
        }
    }
}

fn body_len(body: &Body) -> usize {
    match body {
        Body::Ping {
            gossip, extensions, ..
        } => {
            let extensions = extensions.iter().map(extension_len);
            gossip.len() * super::GOSSIP_LEN + extensions.sum::<usize>()
        }
        Body::Fail(_) => 40,
        Body::Publish(publish) => publish_len(publish),
        Body::AuthRequest | Body::AuthAck | Body::ManualFailoverStart => 0,
        Body::Update { .. } => 8 + 40 + 2048,
        Body::Module(module) => 13 + module.data.len(),
    }
}

fn publish_len(publish: &Publish) -> usize {
    8 + publish.channel.len() + publish.message.len()
}

fn light_head(kind: u16, out: &mut Vec<u8>) {
    out.extend([0; 2]);
    out.extend((kind | LIGHT).to_be_bytes());
    out.extend([0; 2]);
}

fn publish_kind(publish: &Publish) -> u16 {
    if publish.sharded {
        kind::PUBLISH_SHARD
    } else {
        kind::PUBLISH
    }
}

/// The number of the packet type of a body, and the numbers of its gossip entries and extensions.
fn body_kind(body: &Body) -> (u16, usize, usize) {
    match body {
        Body::Ping {
            kind,
            gossip,
            extensions,
        } => {
            let kind = match kind {
                PingKind::Ping => kind::PING,
                PingKind::Pong => kind::PONG,
                PingKind::Meet => kind::MEET,
            };
            (kind, gossip.len(), extensions.len())
        }
        Body::Fail(_) => (kind::FAIL, 0, 0),
        Body::Publish(publish) => (publish_kind(publish), 0, 0),
        Body::AuthRequest => (kind::AUTH_REQUEST, 0, 0),
        Body::AuthAck => (kind::AUTH_ACK, 0, 0),
        Body::Update { .. } => (kind::UPDATE, 0, 0),
        Body::ManualFailoverStart => (kind::MFSTART, 0, 0),
        Body::Module(_) => (kind::MODULE, 0, 0),
    }
}

fn full(header: &Header, body: &Body, out: &mut Vec<u8>) {
    let (kind, count, extensions) = body_kind(body);
    out.extend(header.port.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((count as u16).to_be_bytes());
    append_header(header, extensions as u16, out);
    match body {
        Body::Ping {
            gossip, extensions, ..
        } => {
            gossip.iter().for_each(|entry| append_gossip(entry, out));
            extensions
                .iter()
                .for_each(|entry| append_extension(entry, out));
        }
        Body::Fail(node) => out.extend(node.as_bytes()),
        Body::Publish(publish) => append_publish(publish, out),
        Body::Update {
            config_epoch,
            node,
            slots,
        } => {
            out.extend(config_epoch.to_be_bytes());
            out.extend(node.as_bytes());
            slots.append_to(out);
        }
        Body::Module(module) => append_module(module, out),
        Body::AuthRequest | Body::AuthAck | Body::ManualFailoverStart => {}
    }
}

fn append_header(header: &Header, extensions: u16, out: &mut Vec<u8>) {
    out.extend(header.current_epoch.to_be_bytes());
    out.extend(header.config_epoch.to_be_bytes());
    out.extend(header.offset.to_be_bytes());
    out.extend(header.sender.as_bytes());
    header.slots.append_to(out);
    match &header.replica_of {
        Some(primary) => out.extend(primary.as_bytes()),
        None => out.extend([0; 40]),
    }
    out.extend(header.ip.as_field());
    out.extend(extensions.to_be_bytes());
    out.extend([0; 30]);
    out.extend(header.second_port.to_be_bytes());
    out.extend(header.bus_port.to_be_bytes());
    out.extend(header.flags.to_be_bytes());
    out.push(header.state);
    out.extend(header.message_flags);
}

fn append_gossip(entry: &Gossip, out: &mut Vec<u8>) {
    out.extend(entry.name.as_bytes());
    out.extend(entry.ping_sent_s.to_be_bytes());
    out.extend(entry.pong_received_s.to_be_bytes());
    out.extend(entry.ip.as_field());
    out.extend(entry.port.to_be_bytes());
    out.extend(entry.bus_port.to_be_bytes());
    out.extend(entry.flags.to_be_bytes());
    out.extend(entry.second_port.to_be_bytes());
    out.extend([0; 2]);
}

fn extension_len(entry: &Extension) -> usize {
    EXTENSION_LEN
        + match entry {
            Extension::HostName(text)
            | Extension::HumanName(text)
            | Extension::ClientIpv4(text)
            | Extension::ClientIpv6(text)
            | Extension::Zone(text) => (text.len() + 1).next_multiple_of(8),
            Extension::Forgotten { .. } => 48,
            Extension::ShardId(_) | Extension::InternalSecret(_) => 40,
            Extension::ClientPort(_) | Extension::ClientTlsPort(_) => 8,
            Extension::Other { data, .. } => data.len(),
        }
}

fn append_extension(entry: &Extension, out: &mut Vec<u8>) {
    let kind = match entry {
        Extension::HostName(_) => extension::HOST_NAME,
        Extension::HumanName(_) => extension::HUMAN_NAME,
        Extension::Forgotten { .. } => extension::FORGOTTEN,
        Extension::ShardId(_) => extension::SHARD_ID,
        Extension::InternalSecret(_) | Extension::ClientIpv4(_) => extension::CLIENT_IPV4,
        Extension::ClientIpv6(_) => extension::CLIENT_IPV6,
        Extension::ClientPort(_) => extension::CLIENT_PORT,
        Extension::ClientTlsPort(_) => extension::CLIENT_TLS_PORT,
        Extension::Zone(_) => extension::ZONE,
        Extension::Other { kind, .. } => *kind,
    };
    let end = out.len() + extension_len(entry);
    out.extend((extension_len(entry) as u32).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend([0; 2]);
    match entry {
        Extension::HostName(text)
        | Extension::HumanName(text)
        | Extension::ClientIpv4(text)
        | Extension::ClientIpv6(text)
        | Extension::Zone(text) => out.extend(text.iter()),
        Extension::Forgotten { node, ttl_s } => {
            out.extend(node.as_bytes());
            out.extend(ttl_s.to_be_bytes());
        }
        Extension::ShardId(shard) => out.extend(shard.as_bytes()),
        Extension::InternalSecret(secret) => out.extend(secret),
        Extension::ClientPort(port) | Extension::ClientTlsPort(port) => {
            out.extend(port.to_be_bytes());
        }
        Extension::Other { data, .. } => out.extend(data.iter()),
    }
    out.resize(end, 0);
}

fn append_publish(publish: &Publish, out: &mut Vec<u8>) {
    out.extend((publish.channel.len() as u32).to_be_bytes());
    out.extend((publish.message.len() as u32).to_be_bytes());
    out.extend(publish.channel.iter());
    out.extend(publish.message.iter());
}

fn append_module(module: &Module, out: &mut Vec<u8>) {
    out.extend(module.module.to_be_bytes());
    out.extend((module.data.len() as u32).to_be_bytes());
    out.push(module.kind);
    out.extend(module.data.iter());
}
