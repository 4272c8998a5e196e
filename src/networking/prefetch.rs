//! Prefetches the memory that a batch of pipelined commands will read.
//!
//! A random key of a large data set costs two cache misses, for its bucket and its entry, and an
//! element of a large hash, set or sorted set two more: a miss takes about 80 ns, much longer than
//! the command itself. The misses of one command depend on each other, but the misses of different
//! commands do not: prefetched together, the misses of several commands take the time of one.
//!
//! ```text
//!   commands   look up rows    keys: hash, bucket    entry    elements: hash, bucket    element
//!   1 HGET h a     |                 |                 |             |                    |
//!   2 HGET h b     v                 v                 v             v  16 at a time      v     then all run, in order
//!   3 GET k
//! ```
//!
//! Prefetching has no side effects: a wrong guess (options of ZADD taken for members) costs only a
//! useless prefetch.

use crate::client::Client;
use crate::client::resp::ParseTable;
use crate::cluster::slots::Owned;
use crate::command::table::CommandEntry;
use crate::db::kvstore::{Ahead, AnyAhead, slot_in};
use crate::ds::entry::ValueRef;
use crate::ds::siphash::HashSeed;
use crate::execute::route;
use crate::keyspace::hash_memo::HashMemo;
use crate::state::Server;
use crate::types::Value;

/// The number of elements that are prefetched at once: about the number of cache misses that a core
/// can have open. `prefetch-batch-max-size` sets another number, up to [`LARGE_WINDOW`].
const WINDOW: usize = 16;

/// The maximum of `prefetch-batch-max-size`. A window of 16 elements, the default, has code of its
/// own, because each batch of commands clears its window, and clearing a large window takes longer.
const LARGE_WINDOW: usize = 128;

/// Whether the value of `prefetch-batch-max-size` switches prefetching off. The value 1 switches
/// prefetching off, too: a single key can't be prefetched together with another.
fn is_off(setting: u32) -> bool {
    setting <= 1
}

/// Looks up the rows of all commands into `ids`, hashes their keys, and prefetches the memory of
/// keys and elements, unless `prefetch-batch-max-size` switches prefetching off.
///
/// Returns true if this server is a cluster node that serves the slots of the keys of all commands.
/// If it returns false, the slots of each command's keys must be checked when the command runs.
pub(super) fn look_up_and_prefetch(
    server: &mut Server,
    c: &Client,
    table: &ParseTable,
    argvs: &[&[u8]],
    ids: &mut [Option<u16>],
) -> bool {
    let batch = server.config.prefetch_batch_max_size;
    // In a nested turn, the hashes of the batch whose command lets the nested turn run precede the
    // hashes of this batch.
    let from = (server.hashes.entries.len(), server.hashes.counted.len());
    let (elements, has_one_key) = look_up(server, c, table, argvs, ids);
    let fetches = !is_off(batch);
    let may_check = has_one_key && route::may_check_ahead(server, c);
    let (hashes, is_pipeline) = (&mut server.hashes, table.commands.len() > 1);
    let is_served = match server.data.dbs[c.db as usize].keys.ahead(fetches) {
        AnyAhead::One(ahead) => hash_keys(ahead, hashes, from, argvs, is_pipeline, None),
        AnyAhead::BySlot(ahead) => {
            let member = server.cluster.as_ref().filter(|_| may_check);
            let served = member.and_then(|member| member.machine.served());
            hash_keys(ahead, hashes, from, argvs, is_pipeline, served)
        }
    };
    // With only one or two elements hardly any cache misses can overlap.
    if elements > 2 && fetches {
        match batch as usize == WINDOW {
            true => prefetch_elements::<WINDOW>(server, c, table, argvs, ids),
            false => prefetch_elements_in_other_windows(server, c, table, argvs, ids),
        }
    }
    is_served
}

/// Looks up the rows of all commands, and notes the places of their keys among all arguments of the
/// batch. Returns the number of arguments that may be elements of keys, and whether each command
/// has exactly one key.
#[inline(always)]
fn look_up(
    server: &mut Server,
    c: &Client,
    table: &ParseTable,
    argvs: &[&[u8]],
    ids: &mut [Option<u16>],
) -> (usize, bool) {
    let mut last = c.last_cmd;
    let (mut elements, mut has_one_key) = (0, true);
    for (command, found) in table.commands.iter().zip(ids.iter_mut()) {
        let argv = &argvs[command.first..command.first + command.argc];
        *found = server.commands.lookup_from(last, argv[0]);
        let Some(id) = *found else {
            has_one_key = false;
            continue;
        };
        last = *found;
        let entry = server.commands.entry(id);
        if entry.elements.is_some() {
            elements += command.argc - 1;
        }
        let first = entry.first_key as usize;
        if entry.has_one_key && first < argv.len() {
            server.hashes.note(command.first + first, argv[first]);
        } else {
            has_one_key = false;
            note_keys(&mut server.hashes, entry, command.first, argv);
        }
    }
    (elements, has_one_key)
}

/// Notes the places of a command's keys among all arguments of the batch. `at` is the place of the
/// command's name.
#[inline(never)]
fn note_keys(hashes: &mut HashMemo, entry: &CommandEntry, at: usize, argv: &[&[u8]]) {
    let first = entry.first_key as usize;
    if first == 0 || first >= argv.len() {
        if entry.count_at != 0 {
            note_counted_keys(hashes, entry.count_at as usize, at, argv);
        }
        return;
    }
    let last = match entry.last_key {
        last if last < 0 => argv.len().saturating_sub(last.unsigned_abs() as usize),
        last => (last as usize).min(argv.len() - 1),
    };
    let step = entry.key_step.max(1) as usize;
    for place in (first..=last.max(first)).step_by(step) {
        hashes.note(at + place, argv[place]);
    }
}

/// Notes the places of the keys of a command with a `numkeys` argument of one digit, such as EVAL
/// or ZUNION.
fn note_counted_keys(hashes: &mut HashMemo, count_at: usize, at: usize, argv: &[&[u8]]) {
    let Some(&[digit @ b'1'..=b'9']) = argv.get(count_at) else {
        return;
    };
    let first = count_at + 1;
    let end = argv.len().min(first + usize::from(digit - b'0'));
    let places = (first..end).map(|place| (at + place) as u64);
    hashes.counted.extend(places);
}

/// Replaces the noted places, from the indexes `from` on, by the hashes of the keys. Prefetches the
/// buckets and, in a pipeline, the entries. Returns whether all keys are in slots that this cluster
/// node serves (`served`).
#[inline(always)]
fn hash_keys<A: Ahead>(
    ahead: A,
    hashes: &mut HashMemo,
    from: (usize, usize),
    argvs: &[&[u8]],
    is_pipeline: bool,
    served: Option<Owned<'_>>,
) -> bool {
    let entries = &mut hashes.entries[from.0..];
    let counted = &mut hashes.counted[from.1..];
    for (.., hash) in entries.iter_mut() {
        *hash = ahead.hash(argvs[*hash as usize]);
        ahead.prefetch_bucket(*hash);
    }
    for hash in counted.iter_mut() {
        *hash = ahead.hash(argvs[*hash as usize]);
        ahead.prefetch_bucket(*hash);
    }
    if is_pipeline {
        counted.iter().for_each(|hash| ahead.prefetch_entry(*hash));
    }
    // The slot of a key is also needed to prefetch its entry, so one loop prefetches the entries
    // and checks the slots.
    match served {
        Some(served) if A::BY_SLOT => entries.iter().fold(true, |all, (.., hash)| {
            if is_pipeline {
                ahead.prefetch_entry(*hash);
            }
            all & served.has(slot_in(*hash))
        }),
        _ => {
            if is_pipeline {
                let hashes = entries.iter().map(|(.., hash)| *hash);
                hashes.for_each(|hash| ahead.prefetch_entry(hash));
            }
            false
        }
    }
}

/// Prefetches elements in windows of another size than the default. The function is not inlined, so
/// that the code for the default window is compiled by itself.
#[cold]
#[inline(never)]
fn prefetch_elements_in_other_windows(
    server: &Server,
    c: &Client,
    table: &ParseTable,
    argvs: &[&[u8]],
    ids: &[Option<u16>],
) {
    prefetch_elements::<LARGE_WINDOW>(server, c, table, argvs, ids);
}

/// Elements whose memory is prefetched together: the value (hash, set or sorted set) and the hash
/// of each element.
struct Window<'a, const N: usize> {
    elements: [Option<(&'a Value, u64)>; N],
    len: usize,
    /// The number of elements at which the window is full.
    limit: usize,
}

impl<'a, const N: usize> Window<'a, N> {
    fn new(setting: u32) -> Self {
        Window {
            elements: [None; N],
            len: 0,
            limit: N.min(setting as usize).max(1),
        }
    }

    fn push(&mut self, value: &'a Value, hash: u64) {
        value.prefetch_bucket(hash);
        self.elements[self.len] = Some((value, hash));
        self.len += 1;
        if self.is_full() {
            self.fetch();
        }
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        // For the default window the number of elements is compared with a constant, which is
        // faster than with `limit`.
        self.len == if N == WINDOW { WINDOW } else { self.limit }
    }

    /// Prefetches the elements whose buckets were prefetched before. `fetch` is called once for
    /// each window, so it is not inlined into the walk over the elements.
    #[inline(never)]
    fn fetch(&mut self) {
        for (value, hash) in self.elements[..self.len].iter().flatten() {
            value.prefetch_element(*hash);
        }
        self.len = 0;
    }
}

/// Prefetches the elements that commands will look up in their first key.
fn prefetch_elements<const N: usize>(
    server: &Server,
    c: &Client,
    table: &ParseTable,
    argvs: &[&[u8]],
    ids: &[Option<u16>],
) {
    let keys = &server.data.dbs[c.db as usize].keys;
    let seed: &HashSeed = &server.seed;
    let mut window = Window::<N>::new(server.config.prefetch_batch_max_size);
    let mut hashes = server.hashes.entries.iter();
    // The commands of a pipeline often use the same key, so the last key's value is remembered.
    let mut last: Option<(u64, Option<&Value>)> = None;
    for (command, id) in table.commands.iter().zip(ids) {
        let Some((first, step)) = id.and_then(|id| server.commands.entry(id).elements) else {
            continue;
        };
        let argv = &argvs[command.first..command.first + command.argc];
        let (first, step) = (first as usize, step as usize);
        if first >= argv.len() {
            continue;
        }
        let key = argv[1];
        let Some(&(_, _, hash)) = hashes.find(|(at, ..)| *at == key.as_ptr() as usize) else {
            return;
        };
        let value = match last {
            Some((known, value)) if known == hash => value,
            _ => keys.find(hash, key).and_then(|entry| match entry.value() {
                ValueRef::Obj(value) => Some(value),
                _ => None,
            }),
        };
        last = Some((hash, value));
        let Some(value) = value.filter(|value| value.is_hashed()) else {
            continue;
        };
        for element in argv[first..].iter().step_by(step).take(N) {
            window.push(value, seed.hash(element));
        }
    }
    window.fetch();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{say, server_with};

    #[test]
    fn sizes_0_and_1_switch_the_prefetch_off() {
        let off: Vec<u32> = (0..=128).filter(|&setting| is_off(setting)).collect();
        assert_eq!(off, [0, 1]);
    }

    #[test]
    fn a_window_is_as_large_as_the_setting_up_to_128() {
        let value = Value::List(Default::default());
        for setting in [2, 3, 16, 17, 100, 128] {
            let mut window = Window::<LARGE_WINDOW>::new(setting);
            (1..setting).for_each(|hash| window.push(&value, hash.into()));
            assert_eq!(window.len, setting as usize - 1);
            window.push(&value, 0);
            assert_eq!(window.len, 0, "{setting} are fetched together");
        }
        let mut usual = Window::<WINDOW>::new(WINDOW as u32);
        (0..WINDOW as u64).for_each(|hash| usual.push(&value, hash));
        assert_eq!(usual.len, 0, "the usual window is full");
    }

    #[test]
    fn a_batch_of_a_nested_turn_leaves_the_hashes_of_the_outer_one() {
        let mut server = server_with(1);
        server.hashes.entries.push((1, 2, u64::MAX));
        server.hashes.counted.push(u64::MAX);
        let lines = ["set a 1", "mget a b", "eval \"return KEYS[1]\" 1 a"];
        let replies = say(&mut server, 0, &lines);
        assert_eq!(replies, "+OK\r\n*2\r\n$1\r\n1\r\n$-1\r\n$1\r\na\r\n");
    }

    /// A pipeline is run with several values of `prefetch-batch-max-size`, which must not change
    /// its replies.
    #[test]
    fn a_pipeline_has_the_same_replies_with_any_size() {
        let many = |command: &str| {
            let words: Vec<String> = (0..300).map(|n| format!("{n}")).collect();
            format!("{command} {}", words.join(" "))
        };
        let lines = [
            &*many("hset h"),
            &many("sadd s"),
            &many("zadd z"),
            &many("hmget h"),
            &many("zmscore z"),
            &many("smismember s"),
            "mget a h b",
            "set a 1",
            "eval \"return redis.call('get', KEYS[1])\" 2 a b",
            "hget h 298",
            "zscore z 299",
            "sismember s 5",
            "sinter s s",
        ];
        let replies = |setting: u32| {
            let mut server = server_with(1);
            server.config.prefetch_batch_max_size = setting;
            say(&mut server, 0, &lines)
        };
        let expected = replies(16);
        assert!(expected.contains(":150\r\n:300\r\n:150\r\n"), "{expected}");
        for setting in [0, 1, 2, 17, 128] {
            assert!(replies(setting) == expected, "{setting}");
        }
    }
}
