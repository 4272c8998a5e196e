//! Files and payloads: snapshots, DUMP, the append only file and its manifest.

use aeris::ds::quicklist::ListLimits;
use aeris::ds::siphash::HashSeed;
use aeris::persist::aof::manifest::Manifest;
use aeris::persist::aof::reader::{AofReader, Item};
use aeris::persist::rdb::decode::{Fault, Result};
use aeris::persist::rdb::load::{Meta, Sink, read, read_version};
use aeris::persist::rdb::payload::{Checks, dump, open, restore};
use aeris::persist::rdb::{Limits, VERSION_REDIS_MAX};
use aeris::persist::rio::Reader;
use aeris::types::hash::HashLimits;
use aeris::types::set::SetLimits;
use aeris::types::zset::ZsetLimits;
use aeris::types::{Key, New, free_effort, memory_bytes, next_field_expiry};

/// Limits of encodings that are so small that inputs lead to both packed values and tables.
fn limits() -> Limits {
    let (max_entries, max_value, seed) = (4, 64, HashSeed::new([1, 2]));
    Limits {
        hash: HashLimits {
            max_entries,
            max_value,
            seed,
        },
        list: ListLimits {
            fill: 4,
            compress_depth: 1,
            packed_threshold: 0,
        },
        set: SetLimits {
            max_intset: 4,
            max_listpack: 4,
            max_value,
            seed,
        },
        zset: ZsetLimits {
            max_entries,
            max_value,
            seed,
        },
        sanitize: false,
    }
}

const CHECKS: Checks = Checks {
    any_version: false,
    skip_checksum: false,
};

/// Checks that an accepted value is complete: its memory can be computed, and its DUMP is accepted
/// by RESTORE.
fn use_value(kind: u8, value: New) {
    let key = Key::new(b"key", kind, 0, None, value);
    let bytes = dump(key.as_ref(), VERSION_REDIS_MAX, true);
    let (version, body) = open(&bytes, CHECKS).expect("our own footer");
    let again = restore(version, body, limits(), &mut 0, |kind, value| {
        Key::new(b"key", kind, 0, None, value)
    });
    let again = match again {
        Ok(again) => again,
        Err(fault) => panic!("what was written is refused: {fault}"),
    };
    assert_eq!(again.as_ref().kind() & 0x0f, kind & 0x0f);
    assert_eq!(
        next_field_expiry(again.as_ref()),
        next_field_expiry(key.as_ref())
    );
    assert!(memory_bytes(again.as_ref(), 0) > 0);
    free_effort(again.as_ref());
    assert_eq!(
        dump(again.as_ref(), VERSION_REDIS_MAX, false).len(),
        dump(key.as_ref(), VERSION_REDIS_MAX, false).len()
    );
}

/// Reads a payload of RESTORE, without its footer and with it.
pub fn payload(bytes: &[u8]) {
    // Formatting the fault of a refused payload must not panic, either.
    if let Err(fault) = restore(VERSION_REDIS_MAX, bytes, limits(), &mut 0, use_value) {
        assert!(!fault.to_string().is_empty());
    }
    let _ = open(bytes, CHECKS)
        .map(|(version, body)| restore(version, body, limits(), &mut 0, use_value));
}

/// Receives the parts of a whole RDB file, and checks the offsets that the reader reports.
struct Witness {
    len: u64,
}

impl Sink for Witness {
    fn first_tick(&self) -> u64 {
        0
    }

    fn tick(&mut self, offset: u64) -> u64 {
        assert!(offset <= self.len);
        offset + 10
    }

    fn aux(&mut self, _name: &[u8], _value: &[u8]) {}

    fn select_db(&mut self, _db: u64) -> Result<()> {
        Ok(())
    }

    fn resize_db(&mut self, _keys: u64, _expires: u64, plausible: u64) {
        assert!(plausible <= self.len);
    }

    fn function(&mut self, _source: &[u8]) -> Result<()> {
        Ok(())
    }

    fn key(&mut self, name: &[u8], _: Meta, kind: u8, value: New) -> Result<()> {
        assert!(name.len() as u64 <= self.len * 88);
        use_value(kind, value);
        Ok(())
    }

    fn empty_key(&mut self, _name: &[u8]) {}

    fn skip_module(&mut self, _name: &str) -> bool {
        true
    }

    fn skip_foreign(&mut self, _name: &[u8], _what: &str) -> bool {
        true
    }

    fn footer(&mut self, _found: u64, _computed: u64) -> Result<()> {
        Ok(())
    }
}

/// Reads a whole RDB file.
pub fn rdb(bytes: &[u8]) {
    let len = bytes.len() as u64;
    let mut source = bytes;
    let mut reader = Reader::new(&mut source, Some(len));
    let Ok(version) = read_version(&mut reader, true) else {
        return;
    };
    match read(&mut reader, version, limits(), &mut Witness { len }) {
        Ok(()) => assert!(reader.offset() <= len),
        Err(Fault::Read(_)) => {}
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

/// Reads a file of the AOF. Each command lies within the file, and reading ends at the end of the
/// file or at an error.
pub fn aof(bytes: &[u8]) {
    let len = bytes.len() as u64;
    let mut log = AofReader::new(bytes, 0, len);
    let mut before = 0;
    loop {
        let item = log.next_item();
        assert!(log.offset() <= len && log.offset() >= before);
        match item {
            Ok(Item::End) => return assert_eq!(log.offset(), len),
            Ok(Item::Command) => {
                let taken: usize = log.argv().iter().map(|arg| arg.len()).sum();
                assert!(!log.argv().is_empty() && taken as u64 <= log.offset() - before);
            }
            Ok(Item::Stamp(_) | Item::Position(_) | Item::Comment) => {}
            Err(_) => return,
        }
        assert!(log.offset() > before);
        before = log.offset();
    }
}

/// A manifest of the AOF that is written and read again is the same, and new files can be added to
/// it.
pub fn manifest(bytes: &[u8]) {
    let Ok(mut manifest) = Manifest::parse(bytes) else {
        return;
    };
    let longest = manifest
        .loaded()
        .chain(&manifest.history)
        .map(|part| part.name.len())
        .max();
    // The length of a manifest's line and the numbers of AOF files are limited.
    let Some(0..=200) = longest.filter(|_| manifest.incr_seq < i64::MAX) else {
        return;
    };
    assert_eq!(Manifest::parse(&manifest.render()).as_ref(), Ok(&manifest));
    manifest.new_incr(b"appendonly.aof");
    manifest.new_base(b"appendonly.aof", true);
    assert!(Manifest::parse(&manifest.render()).is_ok());
}
