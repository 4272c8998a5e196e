//! DEBUG DIGEST: a hash of the data set, which is equal on servers with equal data.
//!
//! ```text
//!   add(d, bytes)   d ^= SHA1(bytes)           what comes in any order: keys, members of a set, fields
//!   mix(d, bytes)   d = SHA1(d ^ SHA1(bytes))  what has an order: elements of a list, a field and its value
//! ```
//!
//! The digests are those of Redis 7.2 and Valkey, so that data sets can be compared between them.
//! Redis 7.0 has other digests for sorted sets with scores such as 0.1, which it prints with
//! seventeen digits (`0.10000000000000001`); later versions print the shortest digits that read
//! back as the same score. Redis 8 marks fields with a time to live, Valkey does not:
//! `extended-redis-compatibility` decides.

use sha1::{Digest as _, Sha1};

use crate::command::ctx::{CmdResult, Ctx};
use crate::ds::entry::ValueRef;
use crate::ds::stream::StreamId;
use crate::state::Server;
use crate::types::hash::Hash;
use crate::types::list::End;
use crate::types::stream::Stream;
use crate::types::string::{StrView, type_of};
use crate::types::{KeyRef, Value};
use crate::util::number::{DoubleBuf, IntBuf};

#[derive(Clone, Copy, Default)]
struct Digest([u8; 20]);

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        for (own, other) in self.0.iter_mut().zip(Sha1::digest(bytes)) {
            *own ^= other;
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// DEBUG DIGEST
pub fn digest(ctx: &mut Ctx) -> CmdResult {
    let digest = data_set(ctx.server);
    ctx.client.reply.status(&digest);
    Ok(())
}

/// The digest of all databases in hexadecimal digits.
pub fn data_set(server: &Server) -> String {
    let mut all = Digest::default();
    for db in server.data.dbs.iter().filter(|db| !db.is_empty()) {
        all.mix(&db.index.to_be_bytes());
        for entry in db.keys.iter() {
            let mut one = Digest::default();
            one.mix(entry.key());
            mix_value(&mut one, entry, marks_fields(server));
            all.add(&one.0);
        }
    }
    all.hex()
}

/// DEBUG DIGEST-VALUE [key ...]
pub fn digest_value(ctx: &mut Ctx) -> CmdResult {
    let marks = marks_fields(ctx.server);
    ctx.client.reply.array(ctx.argv.len() - 2);
    for &key in &ctx.argv[2..] {
        let mut one = Digest::default();
        if let Some(entry) = ctx.server.lookup_in(ctx.client.db, key) {
            mix_value(&mut one, entry, marks);
        }
        ctx.client.reply.status(&one.hex());
    }
    Ok(())
}

/// Whether a field's digest shows that it has a time to live.
fn marks_fields(server: &Server) -> bool {
    server.config.extended_redis_compatibility
}

/// Mixes the type, the value, and whether the key has an expiry time, into a digest; the expiry
/// time itself does not count.
fn mix_value(digest: &mut Digest, entry: KeyRef, marks_fields: bool) {
    digest.mix(&(type_of(entry) as u32).to_be_bytes());
    match entry.value() {
        ValueRef::Int(n) => digest.mix(IntBuf::new().format(n)),
        ValueRef::Str(bytes) => digest.mix(bytes),
        ValueRef::Obj(value) => mix_object(digest, value, marks_fields),
        ValueRef::Packed(packed) => mix_object(digest, &packed.read::<Value>(), marks_fields),
    }
    if entry.has_expire() {
        digest.add(b"!!expire!!");
    }
}

fn mix_object(digest: &mut Digest, value: &Value, marks_fields: bool) {
    match value {
        Value::Str(raw) => digest.mix(StrView::Bytes(raw.bytes()).bytes(&mut IntBuf::new())),
        Value::List(list) => list.range(0, list.len(), End::Head, |element| {
            digest.mix(element.text(&mut IntBuf::new()));
        }),
        Value::Set(set) => set.for_each(|member| {
            digest.add(member.text(&mut IntBuf::new()));
        }),
        Value::Hash(hash) => mix_hash(digest, hash, marks_fields),
        Value::Zset(zset) => zset.for_each(|member, score| {
            let mut text = DoubleBuf::new();
            add_pair(digest, member, text.format_shortest(score), false);
        }),
        Value::Stream(stream) => mix_stream(digest, stream),
    }
}

fn mix_hash(digest: &mut Digest, hash: &Hash, marks_fields: bool) {
    match hash {
        Hash::Listpack(_) => hash.for_each(|field, value| {
            let (mut field_text, mut value_text) = (IntBuf::new(), IntBuf::new());
            let (field, value) = (field.text(&mut field_text), value.text(&mut value_text));
            add_pair(digest, field, value, false);
        }),
        Hash::Table(_) => hash.for_each_volatile(|field, value, expire_at| {
            add_pair(digest, field, value, marks_fields && expire_at.is_some());
        }),
    }
}

/// Adds a field with its value, or a member with its score, to a digest. The order of the two
/// within their pair matters, the order of the pairs does not.
fn add_pair(digest: &mut Digest, first: &[u8], second: &[u8], expires: bool) {
    let mut pair = Digest::default();
    pair.mix(first);
    pair.mix(second);
    if expires {
        pair.add(b"!!hexpire!!");
    }
    digest.add(&pair.0);
}

fn mix_stream(digest: &mut Digest, stream: &Stream) {
    for entry in stream.log.range(StreamId::MIN, StreamId::MAX) {
        digest.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
        for (name, value) in entry.fields() {
            digest.mix(name.text(&mut IntBuf::new()));
            digest.mix(value.text(&mut IntBuf::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Enable;
    use crate::testing::{say, server_with};

    /// The digest of Redis after `SET foo bar`.
    #[test]
    fn a_string_has_the_digest_of_redis() {
        let mut server = crate::state::Server::new(crate::config::Config::default(), Vec::new());
        let (kind, value) = crate::types::string::encode(b"bar", None);
        server.set_key(0, b"foo", kind, value, crate::db::Ttl::Clear);
        let entry = server.lookup_in(0, b"foo").expect("it was just set");
        let mut value = Digest::default();
        mix_value(&mut value, entry, true);
        assert_eq!(value.hex(), "68467c70ae30376e7ce005bcc8827f5ba7fd67dc");
    }

    /// The digests of Redis 8.2 and Valkey 9.1 after `HPEXPIREAT h 4000000000000 FIELDS 1 f`.
    #[test]
    fn a_field_with_a_time_to_live_has_the_digest_of_either_server() {
        let mut server = server_with(1);
        server.config.enable_debug_command = Enable::Yes;
        let lines = ["HSET h f v", "HPEXPIREAT h 4000000000000 FIELDS 1 f"];
        say(&mut server, 0, &lines);
        let mut digest = |compatible| {
            server.config.extended_redis_compatibility = compatible;
            say(&mut server, 0, &["DEBUG DIGEST-VALUE h"])
        };
        assert_eq!(
            digest(true),
            "*1\r\n+74b891d3701022bf67574b56900ce11f3e5270b3\r\n"
        );
        assert_eq!(
            digest(false),
            "*1\r\n+90c76e9e9f4c62d642a34fc97c7dad503b51f906\r\n"
        );
    }
}
