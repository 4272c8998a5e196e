use super::decode::Fault;
use super::payload::{self, Checks};
use super::save::{Contents, SaveOptions, write_data_set};
use super::*;
use crate::commands::server::debug::digest::data_set;
use crate::config::Config;
use crate::config::enums::RdbVersion;
use crate::db::Ttl;
use crate::ds::listpack::Listpack;
use crate::ds::stream::{NewId, NodeLimits, StreamId};
use crate::persist::child::Meter;
use crate::persist::loading::{
    Accept, Counts, Live, LoadError, LoadOptions, Loaded, Place, load_stream,
};
use crate::persist::rio::{Reader, checksum};
use crate::replication;
use crate::types::hash::{FieldTtl, Hash};
use crate::types::list::{End, List};
use crate::types::set::Set;
use crate::types::stream::Stream;
use crate::types::string::encode as encode_string;
use crate::types::zset::{AddFlags, Zset};
use crate::types::{New, Value, kind as entry_kind};
use proptest::collection::vec;
use proptest::prelude::*;

const LATER: i64 = 4_000_000_000_000;

fn server() -> Server {
    Server::new(Config::default(), Vec::new())
}

/// The generated value of a key, from which a value of the server is built.
#[derive(Clone, Debug)]
enum Made {
    Str(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(Vec<Vec<u8>>),
    Zset(Vec<(Vec<u8>, f64)>),
    Hash(Vec<(Vec<u8>, Vec<u8>, Option<i64>)>),
    /// A stream: its number of entries, the ID up to which every second entry is deleted, and the
    /// number of entries that a group has read.
    Stream(u64, u64, u64),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        4 => (-70_000i64..70_000).prop_map(|n| n.to_string().into_bytes()),
        6 => vec(any::<u8>(), 0..40),
        2 => (0usize..300, b'a'..b'd').prop_map(|(len, b)| vec![b; len]),
        1 => (8000usize..70_000, any::<u8>()).prop_map(|(len, b)| (0..len).map(|i| (i / 7) as u8 ^ b).collect()),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let score = prop_oneof![
        (-100i64..100).prop_map(|n| n as f64),
        any::<f64>().prop_filter("not a score", |s| !s.is_nan()),
    ];
    let time = prop_oneof![3 => Just(None), 1 => (0i64..1000).prop_map(|n| Some(LATER + n))];
    prop_oneof![
        text().prop_map(Made::Str),
        vec(text(), 1..200).prop_map(Made::List),
        vec(text(), 1..200).prop_map(Made::Set),
        vec(
            (-99_999i64..99_999).prop_map(|n| n.to_string().into_bytes()),
            1..700
        )
        .prop_map(Made::Set),
        vec((text(), score), 1..200).prop_map(Made::Zset),
        vec((text(), text(), Just(None)), 1..200).prop_map(Made::Hash),
        vec((text(), text(), time), 1..20).prop_map(Made::Hash),
        (0u64..250, 0u64..50, 0u64..50).prop_map(|(n, gone, read)| Made::Stream(n, gone, read)),
    ]
}

fn stream(n: u64, gone: u64, read: u64) -> Stream {
    let limits = NodeLimits {
        max_bytes: 4096,
        max_entries: 100,
    };
    let mut stream = Stream::new();
    for ms in 1..=n {
        let fields: [&[u8]; 2] = [b"name", if ms % 3 == 0 { b"7" } else { b"value" }];
        let id = NewId::Exact(StreamId::new(ms, ms % 4));
        stream.log.append(id, 0, &fields, limits).expect("rising");
    }
    for ms in (1..=gone.min(n)).step_by(2) {
        stream.log.delete(StreamId::new(ms, ms % 4));
    }
    let last = StreamId::new(read, read % 4);
    let known = read.is_multiple_of(2).then_some(read);
    let group = stream.create_group(b"readers", last, known).expect("new");
    let one = group.create_consumer(b"one", 5).expect("new");
    group.create_consumer(b"two", 6);
    for ms in 1..=read {
        group.deliver(StreamId::new(ms, ms % 4), one, 1000 + ms as i64);
    }
    stream
}

fn store(server: &mut Server, db: u32, key: &[u8], made: &Made, expire: bool) {
    let limits = Limits::of(server);
    let ttl = if expire { Ttl::At(LATER) } else { Ttl::Clear };
    let value = match made {
        Made::Str(text) => {
            let (kind, value) = encode_string(text, None);
            return server.set_key(db, key, kind, value, ttl);
        }
        Made::List(texts) => {
            let mut list = List::new();
            texts
                .iter()
                .for_each(|t| list.push(End::Tail, t, &limits.list));
            Value::List(list)
        }
        Made::Set(texts) => {
            let mut set = Set::for_members(&texts[0], texts.len(), &limits.set);
            for text in texts {
                set.add(text, &limits.set);
            }
            Value::Set(set)
        }
        Made::Zset(pairs) => {
            let mut zset = Zset::new(0, &limits.zset);
            for (member, score) in pairs {
                zset.add(member, *score, AddFlags::default(), &limits.zset);
            }
            Value::Zset(zset)
        }
        Made::Hash(fields) => {
            let mut hash = Hash::new();
            for (field, value, at) in fields {
                let ttl = at.map_or(FieldTtl::Clear, FieldTtl::At);
                hash.set(field, value, ttl, &limits.hash);
            }
            Value::Hash(hash)
        }
        Made::Stream(n, gone, read) => Value::Stream(Box::new(stream(*n, *gone, *read))),
    };
    let kind = payload::entry_kind_of(&value);
    server.set_key(db, key, kind, New::Obj(value), ttl);
}

fn saved(server: &Server) -> Vec<u8> {
    saved_with(server, &SaveOptions::of(server))
}

fn saved_with(server: &Server, options: &SaveOptions) -> Vec<u8> {
    let mut file = Vec::new();
    write_data_set(server, &mut file, options, Meter::default()).expect("memory");
    file
}

fn load(file: &[u8]) -> (Server, Result<Loaded, LoadError>) {
    let mut server = server();
    let result = load_into(&mut server, file, Place::Server, LoadOptions::default());
    (server, result)
}

fn load_into(
    server: &mut Server,
    file: &[u8],
    place: Place,
    options: LoadOptions,
) -> Result<Loaded, LoadError> {
    let mut live = Live { server, el: None };
    match &place {
        Place::Server => live.begin(file.len() as u64),
        Place::Aside(_) => live.begin_aside(file.len() as u64),
    }
    let mut source = file;
    let mut reader = Reader::new(&mut source, Some(file.len() as u64));
    let result = load_stream(&mut live, &mut reader, place, options);
    live.end();
    result
}

/// The expiry times of all fields of hashes, which the digest of a data set leaves out.
fn field_times(server: &Server) -> Vec<(Vec<u8>, Vec<u8>, i64)> {
    let mut times = Vec::new();
    for entry in server.data.dbs.iter().flat_map(|db| db.keys.iter()) {
        if let Ok(hash) = Hash::of(entry) {
            hash.for_each_volatile(|field, _, at| {
                times.extend(at.map(|at| (entry.key().to_vec(), field.to_vec(), at)));
            });
        }
    }
    times.sort();
    times
}

fn version_of(file: &[u8]) -> u32 {
    let digits: Vec<u8> = file[..9]
        .iter()
        .copied()
        .filter(u8::is_ascii_digit)
        .collect();
    String::from_utf8(digits).unwrap().parse().unwrap()
}

const VERSIONS: [RdbVersion; 4] = [
    RdbVersion::V10,
    RdbVersion::V11,
    RdbVersion::V12,
    RdbVersion::V80,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_saved_loads(
        keys in vec((0u32..3, vec(any::<u8>(), 0..20), made(), any::<bool>()), 0..12),
        version in 0usize..4, compress in any::<bool>(), checksum in any::<bool>(),
    ) {
        let mut server = server();
        server.config.rdb_version = VERSIONS[version];
        server.config.rdbcompression = compress;
        server.config.rdbchecksum = checksum;
        for (db, key, made, expire) in &keys {
            store(&mut server, *db, key, made, *expire);
        }
        let file = saved(&server);
        let times = field_times(&server);
        let wanted = VERSIONS[version].number();
        prop_assert_eq!(version_of(&file), if times.is_empty() { wanted } else { wanted.max(12) });
        let (loaded, result) = load(&file);
        let total: usize = server.data.dbs.iter().map(|db| db.len()).sum();
        prop_assert_eq!(result.unwrap().counts.loaded, total as u64);
        prop_assert_eq!(data_set(&server), data_set(&loaded));
        prop_assert_eq!(times, field_times(&loaded));
        let expires = |server: &Server| server.data.dbs.iter().map(|db| db.expires.len()).sum::<usize>();
        prop_assert_eq!(expires(&server), expires(&loaded));
    }

    /// A damaged payload is refused, or its value is valid and can be dumped and restored again.
    #[test]
    fn damaged_payloads_are_refused(
        made in made(), version in 0usize..4, compress in any::<bool>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(),
    ) {
        let mut server = server();
        store(&mut server, 0, b"k", &made, false);
        let entry = server.lookup_in(0, b"k").unwrap();
        let whole = payload::dump(entry, VERSIONS[version].number(), compress);
        let (version, body) = payload::open(&whole, CHECKS).expect("our own");
        let mut body = body.to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(body.len() - cut.index(body.len()) / 8);
        let limits = Limits::of(&server);
        let restored = payload::restore(version, &body, limits, &mut 0, |kind, value| {
            server.set_key(0, b"again", kind, value, Ttl::Clear);
        });
        if restored.is_ok() {
            let entry = server.lookup_in(0, b"again").unwrap();
            let again = payload::dump(entry, version, compress);
            let (version, body) = payload::open(&again, CHECKS).expect("our own");
            prop_assert!(payload::restore(version, body, limits, &mut 0, |_, _| ()).is_ok());
        }
    }

    #[test]
    fn damaged_files_are_refused(
        keys in vec((made(), any::<bool>()), 1..4), at in any::<prop::sample::Index>(), byte in 1u8..=255,
    ) {
        let mut server = server();
        for (at, (made, expire)) in keys.iter().enumerate() {
            store(&mut server, 0, &[at as u8], made, *expire);
        }
        let mut file = saved(&server);
        let at = at.index(file.len());
        file[at] ^= byte;
        // If the eight bytes of the checksum became zero, the file would have no checksum.
        prop_assume!(file[file.len() - 8..] != [0; 8]);
        prop_assert!(load(&file).1.is_err());
        prop_assert!(load(&file[..at]).1.is_err(), "a file that ends too early");
    }
}

const CHECKS: Checks = Checks {
    any_version: false,
    skip_checksum: false,
};

/// Restores the key `k` from a type byte and the bytes of a value, in the given RDB version.
fn restore(server: &mut Server, version: u32, body: &[u8]) -> decode::Result<()> {
    let limits = Limits::of(server);
    payload::restore(version, body, limits, &mut 0, |kind, value| {
        server.set_key(0, b"k", kind, value, Ttl::Clear);
    })
}

fn digest_of(version: u32, body: &[u8]) -> String {
    let mut server = server();
    restore(&mut server, version, body).expect("a value");
    data_set(&server)
}

fn digest_of_made(made: Made) -> String {
    let mut server = server();
    store(&mut server, 0, b"k", &made, false);
    data_set(&server)
}

#[test]
fn the_first_formats_are_read() {
    let texts = |texts: &[&str]| {
        texts
            .iter()
            .map(|t| t.as_bytes().to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        digest_of(1, b"\x01\x03\x01a\xc0\x05\x02bc"),
        digest_of_made(Made::List(texts(&["a", "5", "bc"])))
    );
    let scores = [("a", 1.5), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY)];
    let pairs = scores.map(|(name, score)| (name.as_bytes().to_vec(), score));
    assert_eq!(
        digest_of(1, b"\x03\x03\x01a\x031.5\x01b\xfe\x01c\xff"),
        digest_of_made(Made::Zset(pairs.to_vec()))
    );
    // The bytes are a zipmap: count, (length, name, length, free, value)*, 255.
    let hash = vec![(b"f1".to_vec(), b"v1".to_vec(), None)];
    assert_eq!(
        digest_of(2, b"\x09\x09\x01\x02f1\x02\x00v1\xff"),
        digest_of_made(Made::Hash(hash.clone()))
    );
    // The bytes are a ziplist: bytes, tail, count, (previous length, head, text)*, 255.
    let ziplist = b"\x13\x00\x00\x00\x0e\x00\x00\x00\x02\x00\x00\x02f1\x04\x02v1\xff";
    let packed = |kind: u8| [&[kind, ziplist.len() as u8], &ziplist[..]].concat();
    assert_eq!(digest_of(6, &packed(13)), digest_of_made(Made::Hash(hash)));
    assert_eq!(
        digest_of(6, &packed(10)),
        digest_of_made(Made::List(texts(&["f1", "v1"])))
    );
    let quicklist = [&[14u8, 1, ziplist.len() as u8], &ziplist[..]].concat();
    assert_eq!(digest_of(7, &quicklist), digest_of(6, &packed(10)));
}

#[test]
fn type_22_is_what_the_version_says() {
    // In Valkey 9, a field of a hash is stored as field, value, time; in Redis 7.4 before its
    // release, as time, field, value.
    let at = LATER.to_le_bytes();
    let valkey = [b"\x16\x01\x01f\x01v", &at[..]].concat();
    let redis = [
        b"\x16\x01\x81",
        &(LATER as u64).to_be_bytes()[..],
        b"\x01f\x01v",
    ]
    .concat();
    for (version, body) in [(80, valkey), (12, redis)] {
        let mut server = server();
        restore(&mut server, version, &body).expect("a hash");
        let times = field_times(&server);
        assert_eq!(times, [(b"k".to_vec(), b"f".to_vec(), LATER)]);
    }
}

#[test]
fn redis_7_4_packs_small_hashes_in_triples() {
    let mut listpack = Listpack::new();
    listpack.append(&b"f"[..]);
    listpack.append(&b"v"[..]);
    listpack.append(LATER);
    listpack.append(&b"g"[..]);
    listpack.append(&b"w"[..]);
    listpack.append(0i64);
    let bytes = listpack.as_bytes();
    let body = [
        &[25u8],
        &LATER.to_le_bytes()[..],
        &[bytes.len() as u8],
        bytes,
    ]
    .concat();
    let mut server = server();
    restore(&mut server, 12, &body).expect("a hash");
    assert_eq!(
        field_times(&server),
        [(b"k".to_vec(), b"f".to_vec(), LATER)]
    );
    let entry = server.lookup_in(0, b"k").unwrap();
    assert_eq!(Hash::of(entry).map(|hash| hash.len()), Ok(2));
}

#[test]
fn faults_are_named() {
    let refused = |body: &[u8]| match restore(&mut server(), 11, body) {
        Err(fault) => fault.to_string(),
        Ok(()) => "accepted".into(),
    };
    assert_eq!(refused(b"\x00\x05abc"), "Unexpected EOF reading RDB file");
    assert_eq!(
        refused(b"\x04\x02\x01a\x01b\x01a\x01d"),
        "Duplicate hash fields detected"
    );
    assert_eq!(
        refused(b"\x02\x02\x01a\x01a"),
        "Duplicate set members detected"
    );
    assert_eq!(refused(b"\x0b\x01x"), "Intset integrity check failed.");
    assert_eq!(
        refused(b"\x12\x01\x01\x00"),
        "Quicklist integrity check failed."
    );
    assert_eq!(refused(b"\x08"), "Unknown RDB encoding type 8");
    assert_eq!(
        refused(b"\x02\x81\xff\xff\xff\xff\xff\xff\xff\xff"),
        "Unexpected EOF reading RDB file"
    );
    assert!(matches!(
        restore(&mut server(), 11, b"\x02\x00"),
        Err(Fault::Empty)
    ));
    let module = b"\x07\x81\x01\x02\x03\x04\x05\x06\x07\x08";
    assert!(refused(module).contains("module data I can't load"));
}

#[test]
fn a_footer_is_version_and_checksum() {
    let mut payload = b"\x00\x03bar\x0b\x00".to_vec();
    payload.extend_from_slice(&checksum(&payload).to_le_bytes());
    assert!(payload::open(&payload, CHECKS).is_some());
    payload[1] ^= 1;
    assert!(payload::open(&payload, CHECKS).is_none());
    let skip = Checks {
        skip_checksum: true,
        ..CHECKS
    };
    assert!(payload::open(&payload, skip).is_some());
    payload[5] = 222;
    assert!(payload::open(&payload, skip).is_none(), "a version to come");
    let any = Checks {
        any_version: true,
        ..skip
    };
    assert!(payload::open(&payload, any).is_some());
    assert!(payload::open(b"short", any).is_none());
}

#[test]
fn keys_past_their_time_are_not_loaded() {
    let mut from = server();
    store(&mut from, 0, b"stays", &Made::Str(b"x".to_vec()), true);
    let (kind, value) = encode_string(b"y", None);
    from.set_key(0, b"gone", kind, value, Ttl::At(1));
    let fields = vec![(b"f".to_vec(), b"v".to_vec(), Some(1))];
    store(&mut from, 0, b"all fields gone", &Made::Hash(fields), false);
    let (loaded, result) = load(&saved(&from));
    let counts = result.unwrap().counts;
    assert_eq!((counts.loaded, counts.expired), (1, 2));
    assert_eq!(loaded.data.dbs[0].len(), 1);
}

#[test]
fn an_unknown_version_or_signature_is_refused() {
    for file in [
        &b"REDIS0987\xff"[..],
        b"REDIS0000\xff",
        b"VALKEY079\xff",
        b"MAGIC0011\xff",
    ] {
        assert!(matches!(load(file).1, Err(LoadError::Refused)));
    }
    assert!(matches!(load(b"REDIS").1, Err(LoadError::Damaged)));
    assert_eq!(
        load(b"REDIS0004\xff").1.unwrap(),
        Loaded {
            counts: Counts::default(),
            position: None
        }
    );
    assert_eq!(entry_kind::type_of(entry_kind::HASH) as u8, kind::HASH);
}

/// Older versions of Redis could write a wrong number of entries after deletions. A file with a
/// wrong number of stream entries loads, and the entries are counted again; a client's payload with
/// a wrong number is refused.
#[test]
fn a_stream_that_lost_count_is_counted_anew_unless_a_client_sent_it() {
    let mut server = server();
    store(&mut server, 0, b"s", &Made::Stream(5, 2, 0), false);
    let right = data_set(&server);
    // The five bytes are the stream's length, its last ID and its first ID: the first of five
    // entries is deleted.
    let (written, wrong) = ([4, 5, 1, 2, 2], [9, 5, 1, 2, 2]);
    let damage = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = bytes
            .windows(5)
            .position(|five| five == written)
            .expect("a length");
        bytes[at..at + 5].copy_from_slice(&wrong);
        bytes
    };
    let mut file = damage(&saved(&server));
    let crc = file.len() - 8;
    file[crc..].fill(0);
    let (loaded, result) = load(&file);
    assert!(result.is_ok());
    assert_eq!(data_set(&loaded), right);

    let entry = server.lookup_in(0, b"s").expect("a stream");
    let payload = payload::dump(entry, VERSIONS[0].number(), false);
    let (version, body) = payload::open(&payload, CHECKS).expect("our own");
    let of_client = Limits {
        sanitize: true,
        ..Limits::of(&server)
    };
    let body = damage(body);
    let restored = |limits| payload::restore(version, &body, limits, &mut 0, |_, _| ());
    let refused = restored(of_client);
    assert!(matches!(refused, Err(decode::Fault::Corrupt(_))));
    // Without `sanitize`, as for a RESTORE in the server's own AOF, the payload is accepted.
    assert!(restored(Limits::of(&server)).is_ok());
}

/// A server with a string, a hash with a field that has a time to live, and a function.
fn server_with_everything() -> Server {
    let mut server = server();
    store(&mut server, 3, b"key", &Made::Str(b"value".to_vec()), false);
    let fields = vec![(b"f".to_vec(), b"v".to_vec(), Some(LATER))];
    store(&mut server, 0, b"hash", &Made::Hash(fields), false);
    let source = b"#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    server.load_library(source, false).expect("a library");
    server
}

#[test]
fn parts_of_a_data_set_are_saved_alone() {
    let server = server_with_everything();
    for (keys, functions) in [(true, true), (true, false), (false, true), (false, false)] {
        let options = SaveOptions {
            contents: Contents { keys, functions },
            ..SaveOptions::of(&server)
        };
        let file = saved_with(&server, &options);
        // Without the hash, the file has no field with a time to live, so the file needs no higher
        // version.
        assert_eq!(version_of(&file), if keys { 12 } else { 11 });
        let (loaded, counts) = load(&file);
        assert_eq!(counts.expect("whole").counts.loaded, 2 * u64::from(keys));
        let functions_found = loaded.function_sources().count();
        assert_eq!(functions_found, usize::from(functions));
    }
}

#[test]
fn a_file_says_where_it_stands_in_the_history() {
    let mut server = server_with_everything();
    let (_, loaded) = load(&saved(&server));
    assert_eq!(loaded.expect("whole").position, None, "there is no backlog");
    replication::ensure_backlog(&mut server);
    server
        .replication
        .stream
        .command(3, b"*1\r\n$4\r\nPING\r\n");
    let position = Position::of(&server).expect("a backlog");
    assert_eq!(
        (position.db, position.offset),
        (3, server.replication.stream.end())
    );
    let file = saved(&server);
    let (_, loaded) = load(&file);
    assert_eq!(loaded.expect("whole").position, Some(position));
    server.nesting = 1;
    assert_eq!(Position::of(&server), None, "half of a transaction");
}

#[test]
fn a_checksum_that_is_not_wanted_is_zero() {
    let server = server_with_everything();
    let options = SaveOptions {
        checksum: false,
        ..SaveOptions::of(&server)
    };
    let file = saved_with(&server, &options);
    assert!(file.ends_with(&[0; 8]));
    assert!(load(&file).1.is_ok());
    assert!(!saved(&server).ends_with(&[0; 8]));
}

#[test]
fn a_data_set_loads_aside_while_the_old_one_serves() {
    let file = saved(&server_with_everything());
    let mut server = server();
    store(&mut server, 0, b"old", &Made::Str(b"value".to_vec()), false);
    let mut data = server.new_data_set();
    let place = Place::Aside(&mut data);
    let loaded = load_into(&mut server, &file, place, LoadOptions::default());
    assert_eq!(loaded.expect("whole").counts.loaded, 2);
    assert!(!server.is_loading());
    assert_eq!(
        (server.data.len(), server.function_sources().count()),
        (1, 0)
    );
    assert_eq!((data.len(), data.functions.sources().count()), (2, 1));
    let top = server.top_level().expect("no turn within a turn");
    server.install_data_set(&top, data);
    assert_eq!(data_set(&server), data_set(&server_with_everything()));
    assert_eq!(server.function_sources().count(), 1);
}

#[test]
fn a_damaged_stream_is_an_error_and_leaves_the_old_data_set() {
    let file = saved(&server_with_everything());
    let mut server = server();
    store(&mut server, 0, b"old", &Made::Str(b"value".to_vec()), false);
    for end in 0..file.len() {
        let mut data = server.new_data_set();
        let place = Place::Aside(&mut data);
        let result = load_into(&mut server, &file[..end], place, LoadOptions::default());
        assert!(matches!(result, Err(LoadError::Damaged)), "cut at {end}");
        assert_eq!((server.data.len(), server.is_loading()), (1, false));
    }
}

#[test]
fn keys_past_their_time_are_kept_for_a_replica() {
    let mut from = server();
    let (kind, value) = encode_string(b"y", None);
    from.set_key(0, b"gone", kind, value, Ttl::At(1));
    let mut replica = server();
    let options = LoadOptions {
        keep_expired: true,
        ..LoadOptions::default()
    };
    let loaded = load_into(&mut replica, &saved(&from), Place::Server, options);
    assert_eq!(loaded.expect("whole").counts.expired, 0);
    assert_eq!(replica.data.len(), 1);
}

#[test]
fn a_stream_without_keys_can_be_refused_before_anything_is_replaced() {
    /// A replica with data refuses an empty data set of its primary.
    fn only_with_keys(server: &mut Server, any: bool) -> Accept {
        match any || server.data.is_empty() {
            true => Accept::Continue,
            false => Accept::Refuse,
        }
    }
    let options = LoadOptions {
        accept: Some(only_with_keys),
        ..LoadOptions::default()
    };
    let mut without_keys = server_with_everything();
    let top = without_keys.top_level().expect("no turn within a turn");
    without_keys.flush(&top, None, None, false);
    for (from, has_keys) in [(server_with_everything(), true), (without_keys, false)] {
        for holds_keys in [true, false] {
            let mut server = server();
            if holds_keys {
                store(&mut server, 0, b"old", &Made::Str(b"value".to_vec()), false);
            }
            let mut data = server.new_data_set();
            let place = Place::Aside(&mut data);
            let result = load_into(&mut server, &saved(&from), place, options);
            match (has_keys, holds_keys) {
                (false, true) => assert!(matches!(result, Err(LoadError::Unwanted))),
                _ => assert!(result.is_ok(), "{result:?}"),
            }
        }
    }
}

#[test]
fn a_primary_continues_its_history_under_a_new_id_and_deletes_what_has_expired() {
    let mut from = server();
    replication::ensure_backlog(&mut from);
    from.replication.stream.append(&[b'x'; 1000]);
    from.replication.stream.set_selected_db(3);
    for (key, at) in [(b"dead", 1), (b"live", i64::MAX / 2)] {
        let (kind, value) = encode_string(b"y", None);
        from.set_key(0, key, kind, value, Ttl::At(at));
    }
    let file = saved(&from);
    let options = LoadOptions {
        resume: true,
        ..LoadOptions::default()
    };
    let mut primary = server();
    let id = primary.replication.id.clone();
    load_into(&mut primary, &file, Place::Server, options).expect("whole");
    let replication = &primary.replication;
    assert!(![&id, &from.replication.id].contains(&&replication.id));
    assert_eq!(replication.second_id, from.replication.id);
    assert_eq!(replication.second_offset, 1001);
    let select = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n".len();
    let del = "*2\r\n$3\r\nDEL\r\n$4\r\ndead\r\n".len();
    assert_eq!(replication.stream.first_byte_offset(), 1001);
    assert_eq!(replication.stream.histlen(), (select + del) as u64);
    assert_eq!(primary.data.len(), 1);

    let mut replica = server();
    replica.replication.set_upstream("127.0.0.1", 1);
    load_into(&mut replica, &file, Place::Server, options).expect("whole");
    let replication = &replica.replication;
    assert_eq!(replication.id, from.replication.id);
    assert_eq!(replication.stream.end(), 1000);
    let upstream = replication.upstream.as_ref().expect("a replica");
    assert_eq!((upstream.can_continue, upstream.db), (true, 3));
    assert_eq!(
        replica.data.len(),
        2,
        "its primary deletes what has expired"
    );
    assert_eq!(Position::of(&replica), Position::of(&from));
}

#[test]
fn a_file_without_a_history_begins_one() {
    let options = LoadOptions {
        resume: true,
        ..LoadOptions::default()
    };
    let mut primary = server();
    let id = primary.replication.id.clone();
    load_into(&mut primary, &saved(&server()), Place::Server, options).expect("whole");
    assert_eq!(primary.replication.id, id);
    assert_eq!(primary.replication.second_offset, -1);
    assert!(!primary.replication.stream.is_open());
}

#[test]
fn fields_that_name_no_history_are_ignored() {
    let mut server = server();
    replication::ensure_backlog(&mut server);
    let position = Position::of(&server).expect("a backlog");
    let ids = ["", "0123", "Z123456789012345678901234567890123456789"];
    for id in ids {
        let options = SaveOptions {
            position: Some(Position {
                id: id.into(),
                ..position.clone()
            }),
            ..SaveOptions::of(&server)
        };
        let (_, loaded) = load(&saved_with(&server, &options));
        assert_eq!(loaded.expect("whole").position, None, "{id}");
    }
}

#[test]
fn what_follows_in_a_stream_is_left_to_its_owner() {
    let file = saved(&server_with_everything());
    let bytes = [&file[..], b"mark, and commands"].concat();
    let mut server = server();
    let mut live = Live {
        server: &mut server,
        el: None,
    };
    let mut source = &bytes[..];
    let mut reader = Reader::new(&mut source, None);
    let loaded = load_stream(
        &mut live,
        &mut reader,
        Place::Server,
        LoadOptions::default(),
    );
    assert!(loaded.is_ok());
    assert_eq!(&reader.get::<4>().expect("the mark"), b"mark");
    assert_eq!(reader.into_ahead(), b", and commands");
}
