//! SORT and SORT_RO: sort the elements of a list, set or sorted set, possibly by the values of
//! other keys, and reply with the elements or with values of other keys.
//!
//! ```text
//!   SORT ids BY weight_* GET # GET name_*->first
//!        |      |              |     `-- field `first` of the hash name_<element>
//!        |      |              `-------- the element itself
//!        |      `-- string weight_<element>, instead of the element
//!        `-- elements
//! ```
//!
//! Looking up other keys may remove expired ones, so the elements are first copied into one buffer,
//! followed by the texts of BY. For each element there is an item of two ranges of that buffer and
//! a number, and sorting moves items only. With LIMIT, the items up to the last item in the reply
//! are selected, and only these items are sorted.
//!
//! Texts are compared by `locale-collate`, which compares bytes in the C locale; with STORE, texts
//! are always compared by bytes. Equal elements keep their order; in Redis their order is
//! undefined.

use std::cmp::Ordering;
use std::ops::Range;

use crate::acl;
use crate::armed;
use crate::client::flag;
use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::keys;
use crate::command::*;
use crate::commands::list;
use crate::db::slot::{key_slot, pattern_slot};
use crate::error::Error;
use crate::keyspace::events;
use crate::keyspace::list_limits::list_limits;
use crate::sys::locale;
use crate::types::hash::Hash;
use crate::types::list::{End, List};
use crate::types::part::Held;
use crate::types::string::{StrView, type_of};
use crate::types::{KeyRef, Type, Value};
use crate::util::number::{IntBuf, is_c_space, parse_f64};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("sort", sort, -2, WRITE | DENYOOM, SET | SORTEDSET | LIST | DANGEROUS)
        .keys(&[
            key_at(1, RO | ACCESS),
            key(RO | ACCESS, unknown_begin(), unknown_find()).note(
                "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the \
                 content of the key we sort",
            ),
            key(OW | UPDATE, unknown_begin(), unknown_find()).note(
                "For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in \
                 the argument array",
            ),
        ])
        .get_keys(keys::sort),
    cmd("sort_ro", sort_ro, -2, READONLY, SET | SORTEDSET | LIST | DANGEROUS).keys(&[
        key_at(1, RO | ACCESS),
        key(RO | ACCESS, unknown_begin(), unknown_find()).note(
            "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content \
             of the key we sort",
        ),
    ]),
];

/// The parsed options of SORT.
struct SortOptions<'a> {
    desc: bool,
    alpha: bool,
    /// BY with a pattern without `*`: keeps the order of the elements.
    keep_order: bool,
    by: Option<Pattern<'a>>,
    get: Vec<Pattern<'a>>,
    offset: i64,
    /// The number of elements to reply with, from LIMIT; negative for all.
    count: i64,
    store: Option<&'a [u8]>,
}

/// The pattern of BY or GET: the element itself, or a key, possibly with a field, that contains the
/// element.
enum Pattern<'a> {
    Element,
    Key {
        prefix: &'a [u8],
        suffix: &'a [u8],
        field: Option<&'a [u8]>,
    },
    /// A pattern of BY or GET without `*`, which names no key.
    Nothing,
}

/// The index of the `*` in a pattern of BY or GET; a `*` after a NUL byte does not count, as in
/// Redis.
fn star_in(pattern: &[u8]) -> Option<usize> {
    memchr::memchr2(b'*', 0, pattern).filter(|&at| pattern[at] == b'*')
}

impl<'a> Pattern<'a> {
    fn parse(text: &'a [u8]) -> Pattern<'a> {
        if text == b"#" {
            return Pattern::Element;
        }
        let Some(star) = star_in(text) else {
            return Pattern::Nothing;
        };
        let (prefix, rest) = (&text[..star], &text[star + 1..]);
        match memchr::memmem::find(rest, b"->") {
            Some(arrow) if arrow + 2 < rest.len() => Pattern::Key {
                prefix,
                suffix: &rest[..arrow],
                field: Some(&rest[arrow + 2..]),
            },
            _ => Pattern::Key {
                prefix,
                suffix: rest,
                field: None,
            },
        }
    }

    /// Appends the value of the key that the pattern forms with `element` to `out`. Returns false
    /// if the key does not exist, or its value does not have the right type.
    fn look_up(&self, ctx: &mut Ctx, element: &[u8], out: &mut Vec<u8>) -> bool {
        let (prefix, suffix, field) = match *self {
            Pattern::Element => {
                out.extend_from_slice(element);
                return true;
            }
            Pattern::Nothing => return false,
            Pattern::Key {
                prefix,
                suffix,
                field,
            } => (prefix, suffix, field),
        };
        let key = [prefix, element, suffix].concat();
        let Some(entry) = ctx.server.lookup_read(ctx.client, &key) else {
            return false;
        };
        match field {
            Some(field) => field_text(entry, field, out),
            None => match StrView::of(entry) {
                Ok(text) => {
                    out.extend_from_slice(text.bytes(&mut IntBuf::new()));
                    true
                }
                Err(_) => false,
            },
        }
    }
}

/// Appends a field of a hash; returns false if the key is not a hash, or has no such field.
fn field_text(entry: KeyRef, field: &[u8], out: &mut Vec<u8>) -> bool {
    let hash = Hash::of(entry).ok();
    let value = hash.as_ref().and_then(|hash| hash.get(field));
    if let Some(value) = value {
        out.extend_from_slice(value.text(&mut IntBuf::new()));
    }
    value.is_some()
}

impl<'a> SortOptions<'a> {
    fn parse(ctx: &Ctx<'a>, read_only: bool) -> Result<SortOptions<'a>, Error> {
        let mut options = SortOptions {
            desc: false,
            alpha: false,
            keep_order: false,
            by: None,
            get: Vec::new(),
            offset: 0,
            count: -1,
            store: None,
        };
        let mut at = 2;
        while at < ctx.argv.len() {
            let left = ctx.argv.len() - at - 1;
            at += 1;
            match () {
                () if ctx.is(at - 1, "asc") => options.desc = false,
                () if ctx.is(at - 1, "desc") => options.desc = true,
                () if ctx.is(at - 1, "alpha") => options.alpha = true,
                () if ctx.is(at - 1, "limit") && left >= 2 => {
                    (options.offset, options.count) = (ctx.int(at)?, ctx.int(at + 1)?);
                    at += 2;
                }
                () if ctx.is(at - 1, "store") && left >= 1 && !read_only => {
                    options.store = Some(ctx.argv[at]);
                    at += 1;
                }
                () if ctx.is(at - 1, "by") && left >= 1 => {
                    let external = star_in(ctx.argv[at]).is_some();
                    if external {
                        check_slot_of_pattern(ctx, "BY", ctx.argv[at])?;
                        check_patterns_allowed(ctx, "BY")?;
                    }
                    options.keep_order |= !external;
                    options.by = Some(Pattern::parse(ctx.argv[at]));
                    at += 1;
                }
                () if ctx.is(at - 1, "get") && left >= 1 => {
                    if ctx.argv[at] != b"#" {
                        check_slot_of_pattern(ctx, "GET", ctx.argv[at])?;
                    }
                    check_patterns_allowed(ctx, "GET")?;
                    options.get.push(Pattern::parse(ctx.argv[at]));
                    at += 1;
                }
                () => return Err(Error::SYNTAX),
            }
        }
        Ok(options)
    }

    /// The range that LIMIT selects of `len` sorted elements.
    fn window(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.offset.max(0)).map_or(len, |start| start.min(len));
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        start..start.saturating_add(count).min(len)
    }
}

/// A node of a cluster looks up only keys that are certainly in the slot of the key that SORT
/// sorts: the keys of a pattern with the same hash tag.
fn check_slot_of_pattern(ctx: &Ctx, option: &str, pattern: &[u8]) -> CmdResult {
    if ctx.server.cluster.is_none() || pattern_slot(pattern) == Some(key_slot(ctx.argv[1])) {
        return Ok(());
    }
    Err(Error::new(format!(
        "ERR {option} option of SORT denied in Cluster mode when keys formed by the pattern may be \
         in different slots."
    )))
}

/// BY and GET build key names from stored values, so only a user with the right to read every key
/// may use them.
fn check_patterns_allowed(ctx: &Ctx, option: &str) -> CmdResult {
    if ctx.server.armed & armed::ACL == 0 {
        return Ok(());
    }
    let id = ctx.server.commands.lookup_original(ctx.cmd.name.as_bytes());
    let allowed = id.is_none_or(|id| acl::may_read_all_keys(ctx.server, ctx.client, ctx.argv, id));
    if allowed {
        return Ok(());
    }
    Err(Error::new(format!(
        "ERR {option} option of SORT denied due to insufficient ACL permissions."
    )))
}

/// An element to be sorted; its texts are ranges of `Items::bytes`.
struct Item {
    text: Range<usize>,
    /// With ALPHA and BY: the text by which the element is compared.
    alpha: Option<Range<usize>>,
    /// Without ALPHA: the number by which the element is compared.
    score: f64,
    /// The index that the element had in the list, set or sorted set.
    at: usize,
}

#[derive(Default)]
struct Items {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

impl Items {
    fn push(&mut self, text: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        let text = start..self.bytes.len();
        self.items.push(Item {
            text,
            alpha: None,
            score: 0.0,
            at: self.items.len(),
        });
    }

    fn text(&self, at: usize) -> &[u8] {
        &self.bytes[self.items[at].text.clone()]
    }

    /// Finds the text or number by which each element is compared.
    fn weigh(&mut self, ctx: &mut Ctx, options: &SortOptions) -> CmdResult {
        let mut said = Vec::new();
        for at in 0..self.items.len() {
            said.clear();
            let found = match &options.by {
                Some(by) => by.look_up(ctx, &self.bytes[self.items[at].text.clone()], &mut said),
                None => {
                    !options.alpha && {
                        said.extend_from_slice(self.text(at));
                        true
                    }
                }
            };
            if !found {
                continue;
            }
            if options.alpha {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(&said);
                self.items[at].alpha = Some(start..self.bytes.len());
            } else {
                self.items[at].score = score(&said).ok_or(Error::of(
                    "ERR One or more scores can't be converted into double",
                ))?;
            }
        }
        Ok(())
    }

    /// Sorts the elements; those after the end of `window`, which the reply does not need, may stay
    /// unsorted.
    fn sort(&mut self, options: &SortOptions, window: &Range<usize>) {
        let bytes = &self.bytes;
        let text = |range: &Range<usize>| &bytes[range.clone()];
        let by_alpha = options.by.is_some();
        // The result of SORT with STORE must not depend on the locale.
        let compare: fn(&[u8], &[u8]) -> Ordering = match options.store {
            Some(_) => |a, b| a.cmp(b),
            None => locale::collate,
        };
        let order = |a: &Item, b: &Item| {
            let order = match (options.alpha, by_alpha) {
                (true, true) => match (&a.alpha, &b.alpha) {
                    (Some(a), Some(b)) => compare(text(a), text(b)),
                    (a, b) => a.is_some().cmp(&b.is_some()),
                },
                (true, false) => compare(text(&a.text), text(&b.text)),
                (false, _) => by_score(a, b).then_with(|| text(&a.text).cmp(text(&b.text))),
            };
            let order = if options.desc { order.reverse() } else { order };
            order.then(a.at.cmp(&b.at))
        };
        if window.end < self.items.len() {
            self.items.select_nth_unstable_by(window.end, order);
        }
        self.items[..window.end].sort_unstable_by(order);
    }
}

/// Compares the numbers of two elements, which are never NaN; 0 and -0 are equal.
fn by_score(a: &Item, b: &Item) -> Ordering {
    a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal)
}

/// Parses the number of an element as C's `strtod` does, from a string that ends at its first NUL:
/// leading space is allowed, an empty text is 0, and a value that is too large or too small for a
/// double is an error.
fn score(text: &[u8]) -> Option<f64> {
    let text = text.split(|&b| b == 0).next().unwrap_or(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let start = text.iter().position(|&b| !is_c_space(b))?;
    parse_f64(&text[start..]).filter(|score| !score.is_subnormal())
}

/// SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA] [STORE
/// destination]
fn sort(ctx: &mut Ctx) -> CmdResult {
    sort_generic(ctx, false)
}

/// SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA]
fn sort_ro(ctx: &mut Ctx) -> CmdResult {
    sort_generic(ctx, true)
}

fn sort_generic(ctx: &mut Ctx, read_only: bool) -> CmdResult {
    let mut options = SortOptions::parse(ctx, read_only)?;
    let (items, window) = collect_sorted(ctx, &mut options)?;
    match options.store {
        None => reply_items(ctx, &items, window, &options.get),
        Some(destination) => store_items(ctx, &items, window, &options.get, destination),
    }
    Ok(())
}

/// The elements of the key, sorted, and the range of them that LIMIT selects.
fn collect_sorted(
    ctx: &mut Ctx,
    options: &mut SortOptions,
) -> Result<(Items, Range<usize>), Error> {
    let mut items = Items::default();
    if let Some(entry) = ctx.server.lookup_read(ctx.client, ctx.argv[1]) {
        // A set has no order of its own, so BY without `*` sorts it all the same if the result is
        // stored or used by a script: the result must be the same on a replica.
        let lasting = options.store.is_some() || ctx.client.has(flag::SCRIPT);
        if options.keep_order && lasting && type_of(entry) == Type::Set {
            (options.keep_order, options.alpha, options.by) = (false, true, None);
        }
        collect(entry, &mut items, options)?;
    }
    let window = options.window(items.items.len());
    if !options.keep_order {
        items.weigh(ctx, options)?;
        items.sort(options, &window);
    }
    Ok((items, window))
}

/// Copies the elements in the order of the list, set or sorted set; DESC reverses the elements of a
/// list or sorted set that is not to be sorted.
fn collect(entry: KeyRef, items: &mut Items, options: &SortOptions) -> CmdResult {
    match Held::of(entry).as_deref() {
        Some(Value::List(list)) => {
            let backwards = options.keep_order && options.desc;
            let (start, from) = if backwards {
                (list.len() - 1, End::Tail)
            } else {
                (0, End::Head)
            };
            list.range(start, list.len(), from, |element| {
                items.push(element.text(&mut IntBuf::new()))
            });
        }
        Some(Value::Zset(zset)) => {
            let backwards = options.keep_order && options.desc;
            zset.walk(0..zset.len(), backwards, |member, _| items.push(member));
        }
        Some(Value::Set(set)) => {
            set.for_each(|member| items.push(member.text(&mut IntBuf::new())));
        }
        _ => return Err(Error::WRONGTYPE),
    }
    Ok(())
}

/// Replies with the values of GET for an element, in the order of the patterns; without GET, the
/// element.
fn show(
    ctx: &mut Ctx,
    element: &[u8],
    get: &[Pattern],
    mut to: impl FnMut(&mut Ctx, Option<&[u8]>),
) {
    if get.is_empty() {
        return to(ctx, Some(element));
    }
    let mut said = Vec::new();
    for pattern in get {
        said.clear();
        let found = pattern.look_up(ctx, element, &mut said);
        to(ctx, found.then_some(&said));
    }
}

fn reply_items(ctx: &mut Ctx, items: &Items, window: Range<usize>, get: &[Pattern]) {
    ctx.client.reply.array(window.len() * get.len().max(1));
    for at in window {
        show(ctx, items.text(at), get, |ctx, text| {
            reply_text(&mut ctx.client.reply, text)
        });
    }
}

fn reply_text(reply: &mut ReplyBuf, text: Option<&[u8]>) {
    match text {
        Some(text) => reply.bulk(text),
        None => reply.null(),
    }
}

/// STORE: stores the elements, or the values of GET, as a list; a missing value becomes the empty
/// string.
fn store_items(ctx: &mut Ctx, items: &Items, window: Range<usize>, get: &[Pattern], key: &[u8]) {
    let limits = list_limits(ctx.server);
    let len = window.len() * get.len().max(1);
    let db = ctx.client.db;
    if len > 0 {
        let mut list = List::new();
        for at in window {
            show(ctx, items.text(at), get, |_, text| {
                list.push(End::Tail, text.unwrap_or_default(), &limits)
            });
        }
        list::add_list(ctx, key, list);
        ctx.dirty(len as u64);
        ctx.changed(key, events::LIST, "sortstore");
    } else if ctx.server.delete_key(db, key, false) {
        ctx.dirty(1);
        ctx.changed(key, events::GENERIC, "del");
    }
    ctx.client.reply.integer(len as i64);
}
