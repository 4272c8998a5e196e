//! Hash slots: the 16,384 parts of a cluster's keyspace.
//!
//! Source: the Redis Cluster specification, "Key distribution model". The slot of a key is its
//! CRC-16/XMODEM modulo 16,384; if the key has a hash tag (`{user1000}.following`), only the tag
//! counts.

/// The number of slots of a cluster.
pub const SLOTS: usize = 16_384;

/// The generator polynomial of CRC-16/XMODEM, without its highest term.
const POLYNOMIAL: u16 = 0x1021;
/// The number of bytes that one step of the CRC processes.
const WORD: usize = 8;

/// `TABLES[n][byte]` is the CRC of a byte that is followed by `n` zeros. The CRC of a word is the
/// XOR of the entries of its bytes, which are read independently of each other.
static TABLES: [[u16; 256]; WORD] = tables();

const fn tables() -> [[u16; 256]; WORD] {
    let mut tables = [[0; 256]; WORD];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut zeros = 0;
        while zeros < WORD {
            let mut bit = 0;
            while bit < 8 {
                let carry = crc & 0x8000 != 0;
                crc <<= 1;
                if carry {
                    crc ^= POLYNOMIAL;
                }
                bit += 1;
            }
            tables[zeros][byte] = crc;
            zeros += 1;
        }
        byte += 1;
    }
    tables
}

/// The slot of a key, below [`SLOTS`].
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
    let hashed = match has_brace(key) {
        true => hash_tag(key),
        false => key,
    };
    crc16(hashed) % SLOTS as u16
}

/// The CRC-16/XMODEM of `bytes`. The CRC begins with 0, so leading zeros do not change it: the
/// bytes before the whole words are padded with zeros to a word.
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let (head, words) = bytes.as_rchunks::<WORD>();
    let first = match head {
        [] => 0,
        _ => add_word(0, padded(head, bytes)),
    };
    let add = |crc, word: &[u8; WORD]| add_word(crc, u64::from_be_bytes(*word));
    words.iter().fold(first, add)
}

/// The CRC of some bytes and a word behind them, from the CRC of the bytes.
#[inline]
fn add_word(crc: u16, word: u64) -> u16 {
    let word = word ^ u64::from(crc) << 48;
    let bytes = word.to_le_bytes();
    let entry = |zeros: usize| TABLES[zeros][usize::from(bytes[zeros])];
    entry(0) ^ entry(1) ^ entry(2) ^ entry(3) ^ entry(4) ^ entry(5) ^ entry(6) ^ entry(7)
}

/// The bytes of `head` as a big-endian number. `head` is the beginning of `bytes`, and shorter than
/// a word.
#[inline]
fn padded(head: &[u8], bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<WORD>() {
        // Without bytes, the shift would be by 64, which is not allowed.
        Some(_) if head.is_empty() => 0,
        Some(word) => u64::from_be_bytes(*word) >> (8 * (WORD - head.len())),
        None => head
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    }
}

/// Whether the key has a `{`. Most keys are so short that a general search would cost more.
#[inline]
fn has_brace(key: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; WORD]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; WORD]);
    const BRACES: u64 = u64::from_ne_bytes([b'{'; WORD]);
    let (head, words) = key.as_rchunks::<WORD>();
    // A byte of `word ^ BRACES` is 0 where the key has a brace.
    let find = |word: u64| {
        let others = word ^ BRACES;
        others.wrapping_sub(ONES) & !others & TOPS
    };
    let found = words
        .iter()
        .fold(0, |found, word| found | find(u64::from_ne_bytes(*word)));
    found | find(padded(head, key)) != 0
}

/// The slot of all keys that match a glob pattern; `None` if they may be in several slots.
pub fn pattern_slot(pattern: &[u8]) -> Option<u16> {
    let is_special = |byte: &u8| b"*?[\\".contains(byte);
    let literal = pattern.iter().position(is_special);
    let literal = &pattern[..literal.unwrap_or(pattern.len())];
    let has_tag = hash_tag(literal).len() < literal.len();
    (has_tag || literal.len() == pattern.len()).then(|| key_slot(literal))
}

/// The part of a key between its first `{` and the next `}`, if that part is not empty; otherwise
/// the whole key.
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else {
        return key;
    };
    let tag = &key[open + 1..];
    match memchr::memchr(b'}', tag) {
        None | Some(0) => key,
        Some(close) => &tag[..close],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_cluster_keyslot() {
        // The slot that CLUSTER KEYSLOT of a real server gives.
        assert_eq!(key_slot(b"123456789"), 12_739);
        assert_eq!(key_slot(b"foo"), 12_182);
        assert_eq!(key_slot(b""), 0);
    }

    #[test]
    fn bytes_of_all_lengths_have_the_crc_of_the_oracle() {
        let bytes: Vec<u8> = (0..300u32).map(|at| (at * 167 + 13) as u8).collect();
        for len in 0..40 {
            for start in 0..256 {
                let part = &bytes[start..start + len];
                let oracle = crc16::State::<crc16::XMODEM>::calculate(part);
                assert_eq!(crc16(part), oracle, "{part:?}");
                assert_eq!(has_brace(part), part.contains(&b'{'), "{part:?}");
            }
        }
    }

    #[test]
    fn a_pattern_with_a_literal_tag_is_of_one_slot() {
        for pattern in ["{tag}*", "a{tag}[bc]", "{tag}", "{tag}\\*{other}"] {
            assert_eq!(
                pattern_slot(pattern.as_bytes()),
                Some(key_slot(b"tag")),
                "{pattern}"
            );
        }
        assert_eq!(pattern_slot(b"plain"), Some(key_slot(b"plain")));
        for pattern in ["*{tag}", "{t*}", "{}*", "a*", "{tag*", "?", "\\{tag}*"] {
            assert_eq!(pattern_slot(pattern.as_bytes()), None, "{pattern}");
        }
    }

    #[test]
    fn only_a_hash_tag_that_is_not_empty_counts() {
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"user1000"));
        assert_eq!(key_slot(b"a{b}{c}"), key_slot(b"b"));
        assert_eq!(key_slot(b"x{{bar}}"), key_slot(b"{bar"));
        for whole in [&b"foo{}{bar}"[..], b"foo{bar", b"foo}bar{"] {
            assert_eq!(hash_tag(whole), whole);
        }
    }
}
