//! The packets of the cluster bus, nodes.conf, and the messages of CLUSTER SYNCSLOTS.

use aeris::cluster::Cluster;
use aeris::cluster::config_file::NodesConf;
use aeris::cluster::event::{Now, Settings};
use aeris::cluster::name::Name;
use aeris::cluster::packet::{Message, frame_len};
use aeris::cluster::transfer::ranges::Ranges;
use aeris::cluster::transfer::request::Sync;
use aeris::cluster::transfer::{Action, Side, Transfers};
use aeris::util::random::Random;

/// An accepted packet has the encoded length of its message, which is encoded and parsed without a
/// change.
pub fn bus(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else {
        return;
    };
    assert_eq!(frame_len(bytes), Ok(Some(bytes.len())));
    assert_eq!(message.encoded_len(), bytes.len());
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(again.len(), bytes.len());
    assert_eq!(Message::parse(&again), Ok(message));
}

/// An accepted nodes.conf is the same after it was written and read; without its last line end the
/// file is refused.
pub fn nodes_conf(bytes: &[u8]) {
    let Ok(conf) = NodesConf::parse(bytes) else {
        return;
    };
    let text = conf.render();
    assert_eq!(NodesConf::parse(text.as_bytes()), Ok(conf));
    let cut = text.trim_end().len();
    assert!(NodesConf::parse(&text.as_bytes()[..cut]).is_err());
}

/// A dialogue of CLUSTER SYNCSLOTS about slots that move, a message or an event in each line:
///
/// ```text
///   1 ACK ..       SYNCSLOTS of client 1, 0: the primary's stream     + 2   client 2 is the link of the youngest job
///   ! 0 5 7 7      MIGRATESLOTS of these slots                        - 2   it is lost
///   ( ) f 3 t x    snapshot begins, ends, slot 3 is flushed, topology, cancel      . 9   9 seconds pass
/// ```
///
/// The state of the moves must stay consistent, in whatever order messages and events come.
pub fn sync_slots(bytes: &[u8]) {
    let other = Name::parse(&[b'a'; 40]).expect("a name");
    let mut random = Random::from_seed(1);
    let mut now = Now { ms: 1, wall_ms: 1 };
    let mut cluster = Cluster::new(now, Settings::default(), Random::from_seed(2));
    let mut out = Vec::new();
    let own: Vec<u16> = (0..10).collect();
    cluster.add_slots(now, &own, &mut out).expect("free slots");
    let mut transfers = Transfers::default();
    for line in bytes.split(|byte| *byte == b'\n').take(200) {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let number = |at: usize| {
            let text = words
                .get(at)
                .and_then(|word| std::str::from_utf8(word).ok());
            text.and_then(|text| text.parse::<u16>().ok()).unwrap_or(0)
        };
        let youngest = transfers.jobs().next().map(|job| job.name);
        match (words[0], youngest) {
            (b"!", _) => {
                if let Ok((ranges, _)) = Ranges::parse(&words[1..])
                    && transfers.check_ranges(&cluster, &ranges).is_ok()
                    && transfers.check_idle(&ranges).is_ok()
                {
                    let wishes = vec![(ranges, other)];
                    transfers.export(now, &cluster, wishes, &mut random);
                }
            }
            (b"+", Some(job)) => transfers.connected(now, &job, number(1).into()),
            (b"-", _) => transfers.link_lost(now, number(1).into()),
            (b"(", Some(job)) => transfers.snapshot_begun(now, &job),
            (b")", Some(job)) => transfers.snapshot_ended(now, &job, number(1) == 0, 1),
            (b"f", _) => transfers.flushed(now, words.get(1).map(|_| number(1))),
            (b"t", _) => transfers.topology_changed(now, &cluster),
            (b"x", _) => drop(transfers.cancel(now)),
            (b".", _) => {
                now.ms += u64::from(number(1)) * 1000 + 1;
                transfers.tick(now, &cluster, |_| 0);
            }
            _ => say(&mut transfers, &cluster, now, number(0).into(), &words[1..]),
        }
        check_moves(&mut transfers, now);
    }
}

fn say(transfers: &mut Transfers, cluster: &Cluster, now: Now, client: u64, words: &[&[u8]]) {
    let Ok(sentence) = Sync::parse(words) else {
        return;
    };
    match sentence {
        Sync::Establish(request) => {
            let argv = request.command();
            let args: Vec<&[u8]> = argv[2..].iter().map(Vec::as_slice).collect();
            assert_eq!(Sync::parse(&args), Ok(Sync::Establish(request.clone())));
            match client {
                0 => transfers.follow(now, &request),
                _ => drop(transfers.establish(now, cluster, &request, client)),
            }
        }
        Sync::Finish(finish) => drop(transfers.finish(now, &finish)),
        Sync::Word(word) => drop(transfers.hear(now, client, word)),
        Sync::Capabilities => {}
    }
}

fn check_moves(transfers: &mut Transfers, now: Now) {
    let (waiting, refused) = transfers.held(now);
    let hidden = transfers.hidden();
    let holds = transfers
        .active(Side::Export)
        .any(|job| job.state.holds_writers());
    assert_eq!(!waiting.is_empty() || !refused.is_empty(), holds);
    assert_eq!(!hidden.is_empty(), transfers.imports().next().is_some());
    for action in transfers.take_actions() {
        if let Action::Claim(name) = action {
            let job = transfers.job(&name).expect("a job that is known");
            assert_eq!(job.side, Side::Import);
        }
    }
}
