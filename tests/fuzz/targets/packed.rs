//! Packed bytes of RDB files, DUMP payloads and strings that claim to be a HyperLogLog.

use aeris::ds::hll::{self, Registers};
use aeris::ds::intset::{self, Intset};
use aeris::ds::listpack::{self, Element, Listpack};
use aeris::ds::lzf::{self, Lzf};
use aeris::ds::siphash::HashSeed;
use aeris::ds::stream::{Precision, StreamId, StreamLog, Trim};
use aeris::ds::ziplist::Ziplist;
use aeris::ds::zipmap::Zipmap;
use aeris::types::hash::{FieldTtl, Hash, HashLimits};
use aeris::types::set::{Set, SetLimits};
use aeris::types::zset::{Zset, ZsetLimits};

const SEED: HashSeed = HashSeed::new([1, 2]);

fn texts<'a>(elements: impl Iterator<Item = Element<'a>>) -> Vec<Vec<u8>> {
    elements.map(|element| element.to_vec()).collect()
}

/// Corrects the header of a listpack if the first byte is odd, since mutated bytes would seldom be
/// accepted otherwise.
fn with_header(bytes: &[u8], count_at: usize) -> Vec<u8> {
    let Some((&mode, bytes)) = bytes.split_first() else {
        return Vec::new();
    };
    let mut bytes = bytes.to_vec();
    let len = bytes.len() as u32;
    if mode & 1 == 1 && bytes.len() > count_at + 2 {
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes[count_at..count_at + 2].fill(0xFF);
    }
    bytes
}

pub fn listpack(bytes: &[u8]) {
    let bytes = with_header(bytes, 4);
    listpack::validate(&bytes, false);
    let Some(mut listpack) = Listpack::from_bytes(&bytes) else {
        return;
    };
    assert_eq!(listpack.as_bytes(), bytes);
    let there = texts(listpack.iter());
    assert_eq!(there.len(), listpack.len());
    let mut back = texts(listpack.iter_rev_before(listpack.end()));
    back.reverse();
    assert_eq!(there, back);
    values_of(&listpack);
    for (at, text) in there.iter().enumerate().take(64) {
        let pos = listpack.seek(at as i64).expect("an element");
        assert_eq!(listpack.seek(at as i64 - there.len() as i64), Some(pos));
        assert!(listpack.find(pos, text, 0).is_some());
    }
    let mut twin = there;
    while let Some(pos) = listpack.first() {
        listpack.replace(pos, &b"replaced"[..]);
        twin[0] = b"replaced".to_vec();
        listpack.append(&b"-129"[..]);
        assert!(listpack::validate(listpack.as_bytes(), true));
        listpack.delete_range(-1, 1);
        assert_eq!(texts(listpack.iter()), twin);
        let gone = listpack.len().div_ceil(2);
        listpack.delete_n(pos, gone);
        twin.drain(..gone);
    }
    assert!(twin.is_empty());
}

/// An accepted listpack is taken as a value of each type that can be one; the value can then be
/// read and changed.
fn values_of(listpack: &Listpack) {
    let max_value = 64;
    for max_entries in [0, 512] {
        let limits = HashLimits {
            max_entries,
            max_value,
            seed: SEED,
        };
        if let Some(mut hash) = Hash::from_listpack(listpack.clone(), &limits) {
            let mut pairs = Vec::new();
            hash.for_each(|field, value| pairs.push((field.to_vec(), value.to_vec())));
            assert_eq!(pairs.len(), hash.len());
            for (field, value) in pairs {
                assert_eq!(
                    hash.get(&field).map(|element| element.to_vec()),
                    Some(value)
                );
                assert!(!hash.set(&field, b"x", FieldTtl::Keep, &limits) && hash.remove(&field));
            }
            assert!(hash.is_empty());
        }
        let limits = SetLimits {
            max_intset: 512,
            max_listpack: max_entries,
            max_value,
            seed: SEED,
        };
        if let Some(mut set) = Set::from_listpack(listpack.clone(), &limits) {
            for member in texts(listpack.iter()) {
                assert!(!set.add(&member, &limits) && set.remove(&member));
            }
            assert!(set.is_empty());
        }
        let limits = ZsetLimits {
            max_entries,
            max_value,
            seed: SEED,
        };
        if let Some(mut zset) = Zset::from_listpack(listpack.clone(), &limits) {
            let mut members = Vec::new();
            zset.for_each(|member, score| members.push((score, member.to_vec())));
            assert_eq!(members.len(), zset.len());
            assert!(members.is_sorted_by(|a, b| a < b));
            for (rank, (score, member)) in members.iter().enumerate() {
                assert_eq!(zset.rank(member, false), Some((rank, *score)));
            }
            members
                .iter()
                .for_each(|(score, member)| assert_eq!(zset.remove(member), Some(*score)));
        }
    }
}

pub fn intset(bytes: &[u8]) {
    intset::validate(bytes, false);
    let Some(mut set) = Intset::from_bytes(bytes) else {
        return;
    };
    assert_eq!(set.as_bytes(), bytes);
    let members: Vec<i64> = set.iter().collect();
    assert!(members.is_sorted_by(|a, b| a < b) && members.len() == set.len());
    let mut table = Set::Intset(set.clone());
    table.convert_to_table(SEED, 0);
    assert_eq!(table.len(), members.len());
    for int in [0, i64::from(i32::MIN), i64::MAX] {
        assert_ne!(set.add(int), members.contains(&int));
    }
    for int in members {
        assert!(set.remove(int));
    }
    assert!(set.len() <= 3 && intset::validate(set.as_bytes(), true));
}

pub fn ziplist(bytes: &[u8]) {
    let bytes = with_header(bytes, 8);
    let Some(ziplist) = Ziplist::parse(&bytes) else {
        return;
    };
    let there = texts(ziplist.iter());
    assert_eq!(there.len(), ziplist.len());
    let listpack = ziplist.to_listpack().expect("small enough");
    assert!(listpack::validate(listpack.as_bytes(), true));
    assert_eq!(texts(listpack.iter()), there);
    values_of(&listpack);
}

pub fn zipmap(bytes: &[u8]) {
    let Some(zipmap) = Zipmap::parse(bytes) else {
        return;
    };
    assert_eq!(zipmap.iter().count(), zipmap.len());
    let listpack = zipmap.to_listpack().expect("small enough");
    assert!(listpack::validate(listpack.as_bytes(), true));
    let texts = texts(listpack.iter());
    let pairs = zipmap
        .iter()
        .flat_map(|(field, value)| [field.to_vec(), value.to_vec()]);
    assert!(pairs.eq(texts));
    values_of(&listpack);
}

/// A string with a valid header of a HyperLogLog: the first byte chooses its encoding, the rest are
/// its registers.
pub fn hll(bytes: &[u8]) {
    hll::is_hll(bytes);
    let Some((&mode, registers)) = bytes.split_first() else {
        return;
    };
    let mut value = hll::create();
    value.truncate(16);
    if mode & 1 == 0 {
        value[4] = 0;
        value.extend(registers.iter().cycle().take(12_288));
        value.resize(16 + 12_288, 0);
    } else {
        value.extend(registers);
    }
    assert!(hll::is_hll(&value));
    hll::cached_count(&value);
    hll::decode(&value);
    let sparse_max = usize::from(mode) << 4;
    let count = hll::count(&value);
    let mut scalar = Registers::default();
    assert_eq!(scalar.merge(&value, false).is_ok(), count.is_ok());
    if let Ok(registers) = Registers::read(&value) {
        assert_eq!(registers.values(), scalar.values());
        let mut dense = value.clone();
        hll::to_dense(&mut dense).expect("all registers are there");
        assert_eq!(hll::count(&dense), count);
        let mut merged = hll::create();
        if registers.values().iter().all(|&register| register <= 52) {
            registers
                .store(&mut merged, mode & 2 != 0, sparse_max)
                .expect("a new value");
            assert_eq!(hll::count(&merged), count);
        }
    }
    for element in registers.chunks(3).take(40) {
        let changed = hll::add(&mut value, element, sparse_max);
        if changed.is_ok() {
            assert_eq!(hll::add(&mut value, element, sparse_max), Ok(false));
        }
    }
    assert!(hll::is_hll(&value));
}

/// Reads a node of a stream: the bytes of its listpack, or, if the first byte is odd, one element
/// for each byte.
pub fn stream(bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else {
        return;
    };
    let node = match mode & 1 {
        0 => Listpack::from_bytes(&with_header(bytes, 4)),
        _ => {
            let mut node = Listpack::new();
            node.append_all(rest.iter().map(|&byte| match byte {
                0xFE => Element::Int(i64::MAX),
                0xFF => Element::Int(i64::MIN),
                b'a'..=b'z' => Element::Str(std::slice::from_ref(&rest[0])),
                _ => Element::Int(i64::from(byte as i8)),
            }));
            Some(node)
        }
    };
    let id = StreamId::new(u64::from(mode >> 1) << 58, u64::from(mode >> 4));
    let mut log = StreamLog::new();
    let Some(node) = node.filter(|node| log.insert_node(id, node.clone())) else {
        return;
    };
    let ids = |log: &StreamLog| -> Vec<StreamId> {
        let entries = log.range(StreamId::MIN, StreamId::MAX);
        entries
            .inspect(|entry| assert_eq!(entry.fields().count(), entry.len()))
            .map(|e| e.id)
            .collect()
    };
    let there = ids(&log);
    assert!(there.is_sorted_by(|a, b| a < b));
    assert_eq!(there.len() as u64, log.len());
    let back: Vec<StreamId> = log
        .rev_range(StreamId::MIN, StreamId::MAX)
        .map(|entry| entry.id)
        .collect();
    assert!(back.iter().rev().eq(&there));
    assert!(!log.insert_node(id, node));
    let last = there.last().copied().unwrap_or(id);
    assert!(log.finish_load(there.len() as u64, last, StreamId::MIN, 0));
    let mut trimmed = log.clone();
    let half = there.len() as u64 / 2;
    assert_eq!(
        trimmed.trim(Trim::MaxLen(half), Precision::Exact),
        there.len() as u64 - half
    );
    assert_eq!(ids(&trimmed), there[there.len() - half as usize..]);
    for id in there {
        assert!(log.delete(id) && !log.delete(id));
    }
    assert_eq!((log.len(), log.first_id()), (0, StreamId::MIN));
}

/// The first two bytes claim a length for the rest, which is decompressed; then the rest is
/// compressed, and decompressing must give it back.
pub fn lzf(bytes: &[u8]) {
    let Some((&[high, low], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let claimed = usize::from(u16::from_be_bytes([high, low]));
    let unpacked = lzf::decompress(rest, claimed);
    assert!(unpacked.as_ref().is_none_or(|out| out.len() == claimed));
    assert_eq!(unpacked, naive_lzf(rest).filter(|out| out.len() == claimed));
    let mut packed = Vec::new();
    if let Some(len) = <Lzf<4096>>::new().compress(rest, &mut packed) {
        assert!(len == packed.len() && len < rest.len());
        assert_eq!(lzf::decompress(&packed, rest.len()).as_deref(), Some(rest));
    }
}

/// Decompresses LZF as the format is described, a byte at a time, for comparison.
fn naive_lzf(mut input: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((&control, rest)) = input.split_first() {
        input = rest;
        if control < 32 {
            let (literals, rest) = input.split_at_checked(usize::from(control) + 1)?;
            out.extend(literals);
            input = rest;
            continue;
        }
        let mut len = usize::from(control >> 5) + 2;
        if control >> 5 == 7 {
            let (&more, rest) = input.split_first()?;
            len += usize::from(more);
            input = rest;
        }
        let (&low, rest) = input.split_first()?;
        input = rest;
        let from = out
            .len()
            .checked_sub((usize::from(control & 31) << 8 | usize::from(low)) + 1)?;
        (from..from + len).for_each(|at| out.push(out[at]));
    }
    Some(out)
}
