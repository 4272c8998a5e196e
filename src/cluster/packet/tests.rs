use super::*;

/// Recorded packets between nodes of Redis 7.0 and 8.2, and Valkey 8.0 and 9.1, one after another.
const GOLDEN: [(&str, &[u8]); 4] = [
    ("redis 7.0", include_bytes!("../golden/redis-7.0.packets")),
    ("redis 8.2", include_bytes!("../golden/redis-8.2.packets")),
    ("valkey 8.0", include_bytes!("../golden/valkey-8.0.packets")),
    ("valkey 9.1", include_bytes!("../golden/valkey-9.1.packets")),
];

fn packets(mut stream: &'static [u8]) -> Vec<&'static [u8]> {
    let mut out = Vec::new();
    while !stream.is_empty() {
        let len = frame_len(stream).expect("a packet").expect("a whole head");
        let (packet, rest) = stream.split_at(len);
        out.push(packet);
        stream = rest;
    }
    out
}

fn body(message: &Message) -> Option<&Body> {
    match message {
        Message::Full(_, body) => Some(body),
        _ => None,
    }
}

#[test]
fn packets_of_real_servers_encode_to_themselves() {
    let mut kinds = std::collections::HashSet::new();
    for (server, stream) in GOLDEN {
        for packet in packets(stream) {
            let message = Message::parse(packet).unwrap_or_else(|e| panic!("{server}: {e}"));
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes, packet, "{server}: {message:?}");
            assert_eq!(message.encoded_len(), packet.len(), "{server}: {message:?}");
            kinds.insert(packet[12..14].to_vec());
        }
    }
    // The recorded files have packets of all types except MODULE and PUBLISHSHARD, which another
    // test covers.
    assert_eq!(kinds.len(), 10, "{kinds:?}");
}

#[test]
fn what_real_servers_say_is_understood() {
    let messages: Vec<Message> = GOLDEN
        .iter()
        .flat_map(|(_, stream)| packets(stream))
        .map(|packet| Message::parse(packet).expect("a packet"))
        .collect();
    let bodies: Vec<&Body> = messages.iter().filter_map(body).collect();
    let extensions = bodies.iter().flat_map(|body| match body {
        Body::Ping { extensions, .. } => extensions.as_slice(),
        _ => &[],
    });
    let extensions: Vec<&Extension> = extensions.collect();
    let text = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    for expected in [
        Extension::HostName(text("host-one.example.org")),
        Extension::HumanName(text("node-one")),
        Extension::ClientIpv4(text("192.0.2.7")),
        Extension::ClientIpv6(text("2001:db8::7")),
        Extension::ClientPort(7777),
        Extension::ClientTlsPort(7778),
        Extension::Zone(text("zone-a")),
        // A human name with a space is not accepted, as it would break the line of nodes.conf.
        Extension::Other {
            kind: extension::HUMAN_NAME,
            data: text("node one\0\0\0\0\0\0\0\0"),
        },
    ] {
        assert!(extensions.contains(&&expected), "{expected:?}");
    }
    let secret = |e: &&&Extension| matches!(e, Extension::InternalSecret(_));
    let forgotten = |e: &&&Extension| matches!(e, Extension::Forgotten { ttl_s: 1..=60, .. });
    assert!(extensions.iter().find(secret).is_some());
    assert!(extensions.iter().find(forgotten).is_some());
    let published = Publish {
        sharded: false,
        channel: text("chan"),
        message: text("message"),
    };
    assert!(messages.contains(&Message::LightPublish(published.clone())));
    assert!(bodies.contains(&&Body::Publish(published)));
    let update = |body: &&&Body| matches!(body, Body::Update { slots, .. } if slots.len() > 5000);
    assert!(bodies.iter().find(update).is_some());
}

fn head() -> Header {
    Header {
        sender: Name::parse(&[b'a'; 40]).expect("a name"),
        current_epoch: 7,
        config_epoch: 6,
        offset: 5,
        slots: Rc::new((100..200).collect()),
        replica_of: None,
        ip: Ip::default(),
        port: 7000,
        second_port: 0,
        bus_port: 17_000,
        flags: flag::PRIMARY,
        state: 0,
        message_flags: [0; 3],
    }
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert_eq!(bytes.len(), message.encoded_len());
    bytes
}

#[test]
fn modules_and_shard_channels_are_carried_by_both_heads() {
    let publish = Publish {
        sharded: true,
        channel: Box::from(&b"c"[..]),
        message: Box::from(&b""[..]),
    };
    let module = Module {
        module: 9,
        kind: 255,
        data: Box::from(&b"data"[..]),
    };
    for message in [
        Message::Full(Box::new(head()), Body::Publish(publish.clone())),
        Message::Full(Box::new(head()), Body::Module(module.clone())),
        Message::LightPublish(publish),
        Message::LightModule(module),
    ] {
        assert_eq!(Message::parse(&encoded(&message)), Ok(message));
    }
}

#[test]
fn a_packet_that_is_cut_or_longer_is_refused() {
    let sample = packets(GOLDEN[3].1);
    for packet in sample {
        for len in (0..packet.len()).step_by(7) {
            assert_eq!(
                Message::parse(&packet[..len]),
                Err(Malformed::Length),
                "{len}"
            );
            // The packet is cut, and the length in its head is set to that of the cut packet.
            if len >= 16 {
                let mut cut = packet[..len].to_vec();
                cut[4..8].copy_from_slice(&(len as u32).to_be_bytes());
                assert!(
                    Message::parse(&cut).is_err(),
                    "{len} bytes of {}",
                    packet.len()
                );
            }
        }
        let mut longer = packet.to_vec();
        longer.push(0);
        let len = longer.len() as u32;
        longer[4..8].copy_from_slice(&len.to_be_bytes());
        assert!(Message::parse(&longer).is_err());
    }
}

#[test]
fn counts_are_bounded_by_the_bytes_that_are_here() {
    let ping = Body::Ping {
        kind: PingKind::Ping,
        gossip: Vec::new(),
        extensions: vec![Extension::ShardId(head().sender)],
    };
    let packet = encoded(&Message::Full(Box::new(head()), ping));
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = packet.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        Message::parse(&changed)
    };
    assert_eq!(with(14, &[0xFF, 0xFF]), Err(Malformed::Length));
    assert_eq!(with(2214, &[0xFF, 0xFF]), Err(Malformed::Length));
    assert_eq!(with(2256, &[0xFF; 4]), Err(Malformed::Extension));
    assert_eq!(with(2256, &[0, 0, 0, 7]), Err(Malformed::Extension));
    assert_eq!(with(4, &[0xFF; 4]), Err(Malformed::Length));
    assert_eq!(with(0, b"X"), Err(Malformed::Signature));
    assert_eq!(with(8, &[0, 2]), Err(Malformed::Version(2)));
    assert_eq!(with(12, &[0, 11]), Err(Malformed::Kind(11)));
    assert_eq!(with(40, b"A"), Err(Malformed::Name));
    assert_eq!(with(2168, b"1 2"), Err(Malformed::Address));
}
