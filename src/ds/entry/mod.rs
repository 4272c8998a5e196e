//! The entry of a key: header, expiry, key and value together in one allocation.
//!
//! A key of 16 bytes with a value of 16 bytes is usual in a cache. Three allocations (key, value,
//! entry) cost three size classes, three headers and three cache misses. One allocation for all
//! three costs 7 bytes of header, and a look-up that compares the key has loaded the value at the
//! same time.
//!
//! ```text
//!  0               4      5         6           7
//! +-------+--------+------+---------+-----------+- - - - - -+- - - - - - -+-----+- - -+----------------------+
//! | flags | lru    | kind | key len | value len | expire_at | key len     | key | pad | value                |
//! | 3 bit | 29 bit |      |         |           | i64, ms   | u32 if long |     |     | bytes, i64, or a `V` |
//! +-------+--------+------+---------+-----------+- - - - - -+- - - - - - -+-----+- - -+----------------------+
//! flags   bits 0..2: form of the value (0 string, 1 integer, 2 a `V`, 3 packed)   bit 2: there is an expire_at
//!         Flags and lru are one word, always written as a whole: a load of it need not wait for a part.
//! key len 255: the length is in the u32 instead        pad: only before a `V`, up to a multiple of 8
//! ```
//!
//! A small collection (a listpack or intset) is packed: its bytes are in the entry as those of a
//! short string are, see `packed`.
//!
//! The byte `kind` is for the keyspace (type and encoding, four bits each); this module does not
//! read it. Numbers are little-endian and unaligned; only a `V` is aligned. Sizes are rounded up to
//! jemalloc's classes, so that a value may grow in place within its class and `alloc_size` is the
//! true cost of the key: 40 bytes for a key and a value of 16 bytes each, 32 bytes if the value is
//! an integer, 8 more with an expiry.
//!
//! **Invariants**
//! - Flags, both lengths and the long key length determine the layout; only `Shape` computes the
//!   layout.
//! - The allocated size is `size_class(shape.size())`, before and after every overwrite in place
//!   (`tests::overwrite`).
//! - The key never changes during the life of an allocation: the hash table relies on this.
//!
//! Limits: a key is shorter than 4 GiB; strings up to `INLINE_MAX` are inline, longer ones in a
//! payload; a payload has at most 24 bytes, so that an entry with an object takes about 64 bytes.
//!
//! Rejected: a pointer to the value for short strings (one more cache miss and 8 to 16 bytes), a
//! vtable instead of flags (8 bytes), the expiry in a second hash table (a second probe on each
//! read; the index in `expires` is only touched by writes).
use std::alloc::{self, Layout};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::hashtable::{Element, Place};
use super::thin_buffer::size_class;

mod packed;

pub use packed::{Block, Loan, Open, Packed, PackedRef, Payload};

/// The maximum length in bytes of a string that is stored in its key's entry. If a SET changes the
/// size class, key and value are copied: 24 ns with 16 bytes, 28 ns with 128
/// (`tests::cost_of_a_rewrite_by_length`). A separate string takes 14 ns, and a cache miss on each
/// read. For speed the limit could be higher, but a string in an allocation of its own can grow in
/// place (APPEND, SETRANGE) and be shared with a reply.
pub const INLINE_MAX: usize = 128;
/// The maximum size in bytes of a payload, the object that an entry contains for other values than
/// short strings and integers.
const PAYLOAD_MAX: usize = 24;

/// The offset in the entry of the word that contains the flags and `lru`.
const WORD: usize = 0;
const KIND: usize = 4;
const KEY_LEN: usize = 5;
const VALUE_LEN: usize = 6;
const HEADER: usize = 7;

const FORM_MASK: u8 = 0b011;
const HAS_EXPIRE: u8 = 0b100;
/// The number of flag bits in the entry's first word; the other bits of this word are `lru`.
const FLAG_BITS: u32 = 3;
const FLAGS_MASK: u32 = (1 << FLAG_BITS) - 1;
/// The value of the entry's byte for the key length if the length is stored in a u32 instead.
const LONG_KEY: u8 = 255;
const ALIGN: usize = 8;

const _: () = assert!(HEADER + 16 + 16 <= 40 && HEADER + 16 + 8 <= 32);
const _: () = assert!(INLINE_MAX <= u8::MAX as usize);

/// The form of an entry's value, as the entry's flags store it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Str = 0,
    Int = 1,
    Obj = 2,
    /// A collection that is one block of bytes (a listpack or intset); the entry contains the block
    /// itself.
    Packed = 3,
}

/// A value to be stored in an entry.
#[derive(Debug)]
pub enum NewValue<'a, V> {
    Int(i64),
    /// A string of at most `INLINE_MAX` bytes.
    Str(&'a [u8]),
    Obj(V),
}

/// A shared view of an entry's value.
#[derive(Debug, PartialEq, Eq)]
pub enum ValueRef<'a, V> {
    Int(i64),
    Str(&'a [u8]),
    Obj(&'a V),
    Packed(PackedRef<'a, V>),
}

/// The exclusive view of an entry's value.
pub enum ValueMut<'a, V> {
    Int(IntMut<'a>),
    Str(&'a mut [u8]),
    Obj(&'a mut V),
    /// A packed value, which [`EntryMut::open`] opens.
    Packed,
}

/// A value that was moved out of its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue<V> {
    Int(i64),
    Str(Box<[u8]>),
    Obj(V),
}

/// The integer of an entry, for changes; in the entry it is not aligned.
pub struct IntMut<'a>(&'a mut [u8; 8]);

impl IntMut<'_> {
    /// The present value of the integer in the entry.
    pub fn get(&self) -> i64 {
        i64::from_le_bytes(*self.0)
    }

    /// Sets the integer in the entry.
    pub fn set(&mut self, value: i64) {
        *self.0 = value.to_le_bytes();
    }
}

/// The owning pointer of an entry: a key with its value and expiry time in one allocation.
pub struct Entry<V> {
    p: NonNull<u8>,
    _owns: PhantomData<V>,
}

/// A shared view of an entry.
pub struct EntryRef<'a, V> {
    p: NonNull<u8>,
    _borrows: PhantomData<&'a V>,
}

/// The exclusive view of an entry.
pub struct EntryMut<'a, V> {
    p: NonNull<u8>,
    /// The slot of the hash table that has the address of the entry; `None` if the entry is in no
    /// table.
    place: Option<Place>,
    _borrows: PhantomData<&'a mut V>,
}

// SAFETY: an entry owns its bytes and its V, and shares them with nothing.
unsafe impl<V: Send> Send for Entry<V> {}
// SAFETY: a shared reference to an entry only reads.
unsafe impl<V: Sync> Sync for Entry<V> {}
// SAFETY: an EntryRef gives the access that a &V gives.
unsafe impl<V: Sync> Send for EntryRef<'_, V> {}
// SAFETY: an EntryRef gives the access that a &V gives.
unsafe impl<V: Sync> Sync for EntryRef<'_, V> {}
// SAFETY: an EntryMut gives the access that a &mut V gives.
unsafe impl<V: Send> Send for EntryMut<'_, V> {}
// SAFETY: an EntryMut gives the access that a &mut V gives.
unsafe impl<V: Sync> Sync for EntryMut<'_, V> {}

impl<V> Clone for EntryRef<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for EntryRef<'_, V> {}

/// The exclusive view of an entry in a hash table, by its slot there. This view is as small as a
/// reference, so a look-up returns it together with another pointer in registers.
pub struct EntryAt<'a, V> {
    place: Place,
    _borrows: PhantomData<&'a mut V>,
}

impl<'a, V> EntryAt<'a, V> {
    /// # Panics
    /// When the entry is in no table.
    #[inline(always)]
    pub fn of(entry: EntryMut<'a, V>) -> EntryAt<'a, V> {
        EntryAt {
            place: entry.place.expect("an entry that is changed is in a table"),
            _borrows: PhantomData,
        }
    }

    /// The view of the entry by its address, for the lifetime of this view.
    #[inline(always)]
    pub fn into_mut(self) -> EntryMut<'a, V> {
        EntryMut {
            // SAFETY: the table is borrowed exclusively during 'a.
            p: unsafe { self.place.get() },
            place: Some(self.place),
            _borrows: PhantomData,
        }
    }

    /// The view of the entry by its address, for as long as this view is borrowed.
    #[inline(always)]
    pub fn as_mut(&mut self) -> EntryMut<'_, V> {
        EntryAt {
            place: self.place,
            _borrows: PhantomData,
        }
        .into_mut()
    }

    /// A shared view of the entry.
    #[inline(always)]
    pub fn as_ref(&self) -> EntryRef<'_, V> {
        EntryRef {
            // SAFETY: the table is borrowed exclusively during 'a; the entry is only read.
            p: unsafe { self.place.get() },
            _borrows: PhantomData,
        }
    }
}

/// The facts that determine the layout of an entry.
#[derive(Clone, Copy)]
struct Shape {
    form: Form,
    has_expire: bool,
    key_len: usize,
    /// The length of the value in bytes.
    value_len: usize,
}

impl Shape {
    fn new<V>(key_len: usize, has_expire: bool, value: &NewValue<'_, V>) -> Self {
        let (form, value_len) = match value {
            NewValue::Int(_) => (Form::Int, size_of::<i64>()),
            NewValue::Str(s) => (Form::Str, s.len()),
            NewValue::Obj(_) => (Form::Obj, size_of::<V>()),
        };
        assert!(key_len <= u32::MAX as usize && (form != Form::Str || value_len <= INLINE_MAX));
        Shape {
            form,
            has_expire,
            key_len,
            value_len,
        }
    }

    const fn expire_at(has_expire: bool) -> usize {
        if has_expire { size_of::<i64>() } else { 0 }
    }

    fn key_at(self) -> usize {
        let long = if self.key_len >= LONG_KEY as usize {
            size_of::<u32>()
        } else {
            0
        };
        HEADER + Self::expire_at(self.has_expire) + long
    }

    fn value_at(self) -> usize {
        let end = self.key_at() + self.key_len;
        if self.form == Form::Obj {
            end.next_multiple_of(ALIGN)
        } else {
            end
        }
    }

    fn size(self) -> usize {
        self.value_at() + self.value_len
    }

    fn alloc_size(self) -> usize {
        size_class(self.size())
    }

    fn layout(self) -> Layout {
        Self::layout_of(self.size())
    }

    /// The memory layout of an entry whose value ends at `size`.
    fn layout_of(size: usize) -> Layout {
        Layout::from_size_align(size_class(size), ALIGN)
            .expect("an entry larger than the address space")
    }
}

impl<'a, V> EntryRef<'a, V> {
    #[inline(always)]
    fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        // SAFETY: callers stay inside the layout that the header declares; the entry lives during
        // 'a.
        unsafe { self.p.add(at).cast::<[u8; N]>().read() }
    }

    #[inline(always)]
    fn slice(self, at: usize, len: usize) -> &'a [u8] {
        // SAFETY: callers stay inside the layout that the header declares; the entry lives, and no
        // reference to these bytes is exclusive, during 'a.
        unsafe { std::slice::from_raw_parts(self.p.add(at).as_ptr(), len) }
    }

    #[inline(always)]
    fn flags(self) -> u8 {
        self.bytes::<1>(WORD)[0]
    }

    #[inline(always)]
    fn form(self) -> Form {
        match self.flags() & FORM_MASK {
            0 => Form::Str,
            1 => Form::Int,
            2 => Form::Obj,
            _ => Form::Packed,
        }
    }

    #[inline(always)]
    fn shape(self) -> Shape {
        let form = self.form();
        let value_len = match form {
            Form::Str => usize::from(self.bytes::<1>(VALUE_LEN)[0]),
            Form::Int => size_of::<i64>(),
            Form::Obj => size_of::<V>(),
            Form::Packed => self.packed_len(),
        };
        Shape {
            form,
            has_expire: self.has_expire(),
            key_len: self.key().len(),
            value_len,
        }
    }

    /// The entry's key.
    #[inline(always)]
    pub fn key(self) -> &'a [u8] {
        let at = HEADER + Shape::expire_at(self.has_expire());
        match self.bytes::<1>(KEY_LEN)[0] {
            LONG_KEY => self.slice(at + 4, u32::from_le_bytes(self.bytes(at)) as usize),
            short => self.slice(at, usize::from(short)),
        }
    }

    /// The entry's kind byte (type and encoding), whose meaning the caller defines.
    #[inline]
    pub fn kind(self) -> u8 {
        self.bytes::<1>(KIND)[0]
    }

    #[inline(always)]
    fn word(self) -> u32 {
        u32::from_le_bytes(self.bytes(WORD))
    }

    /// The entry's 29 bits of LRU clock or LFU counter.
    #[inline]
    pub fn lru(self) -> u32 {
        self.word() >> FLAG_BITS
    }

    /// The length of the entry's value if it is a string that is stored in the entry; `None` for
    /// any other value.
    #[inline(always)]
    pub fn short_len(self) -> Option<usize> {
        (self.form() == Form::Str).then(|| usize::from(self.bytes::<1>(VALUE_LEN)[0]))
    }

    /// Whether the key has an expiry time.
    #[inline(always)]
    pub fn has_expire(self) -> bool {
        self.flags() & HAS_EXPIRE != 0
    }

    /// The key's expiry time in Unix milliseconds.
    #[inline(always)]
    pub fn expire_at(self) -> Option<i64> {
        self.has_expire()
            .then(|| i64::from_le_bytes(self.bytes(HEADER)))
    }

    /// The entry's value.
    #[inline(always)]
    pub fn value(self) -> ValueRef<'a, V> {
        let shape = self.shape();
        let at = shape.value_at();
        match shape.form {
            Form::Str => ValueRef::Str(self.slice(at, shape.value_len)),
            Form::Int => ValueRef::Int(i64::from_le_bytes(self.bytes(at))),
            // SAFETY: the flags say that there is a V; it is aligned and lives during 'a.
            Form::Obj => ValueRef::Obj(unsafe { self.p.add(at).cast::<V>().as_ref() }),
            Form::Packed => ValueRef::Packed(PackedRef::new(self)),
        }
    }

    /// The address of the entry's allocation, which identifies the entry while it lives.
    pub fn addr(self) -> usize {
        self.p.addr().get()
    }

    /// The size of the entry's allocation in bytes.
    pub fn alloc_size(self) -> usize {
        self.shape().alloc_size()
    }
}

impl<V: fmt::Debug> fmt::Debug for EntryRef<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key().escape_ascii().to_string())
            .field("kind", &self.kind())
            .field("expire_at", &self.expire_at())
            .field("value", &self.value())
            .finish()
    }
}

impl<'a, V> EntryMut<'a, V> {
    /// A shared view of the entry, which borrows this exclusive view.
    #[inline(always)]
    pub fn as_ref(&self) -> EntryRef<'_, V> {
        EntryRef {
            p: self.p,
            _borrows: PhantomData,
        }
    }

    /// Turns this exclusive view of the entry into a shared view.
    #[inline(always)]
    pub fn into_ref(self) -> EntryRef<'a, V> {
        EntryRef {
            p: self.p,
            _borrows: PhantomData,
        }
    }

    /// An exclusive view of the same entry, for as long as this view is borrowed.
    #[inline(always)]
    fn reborrow(&mut self) -> EntryMut<'_, V> {
        EntryMut {
            p: self.p,
            place: self.place,
            _borrows: PhantomData,
        }
    }

    /// The entry's key.
    pub fn key(&self) -> &[u8] {
        self.as_ref().key()
    }

    /// The entry's kind byte (type and encoding), whose meaning the caller defines.
    pub fn kind(&self) -> u8 {
        self.as_ref().kind()
    }

    /// The entry's 29 bits of LRU clock or LFU counter.
    pub fn lru(&self) -> u32 {
        self.as_ref().lru()
    }

    /// Whether the key has an expiry time.
    pub fn has_expire(&self) -> bool {
        self.as_ref().has_expire()
    }

    /// The key's expiry time in Unix milliseconds.
    pub fn expire_at(&self) -> Option<i64> {
        self.as_ref().expire_at()
    }

    /// The entry's value.
    pub fn value(&self) -> ValueRef<'_, V> {
        self.as_ref().value()
    }

    /// The address of the entry's allocation.
    pub fn addr(&self) -> usize {
        self.as_ref().addr()
    }

    /// The size of the entry's allocation in bytes.
    pub fn alloc_size(&self) -> usize {
        self.as_ref().alloc_size()
    }

    #[inline(always)]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: callers stay inside the allocation; no other code accesses it during 'a, and
        // `bytes` is not part of it.
        unsafe {
            self.p
                .add(at)
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len())
        }
    }

    /// Sets the LRU clock or the LFU counter to the lower 29 bits of `lru`.
    #[inline]
    pub fn set_lru(&mut self, lru: u32) {
        let word = self.as_ref().word() & FLAGS_MASK | lru << FLAG_BITS;
        self.write(WORD, &word.to_le_bytes());
    }

    /// Sets the entry's flags for a value of this shape.
    #[inline(always)]
    fn set_flags(&mut self, shape: &Shape) {
        let expire = if shape.has_expire { HAS_EXPIRE } else { 0 };
        let flags = u32::from(shape.form as u8 | expire);
        let word = self.as_ref().word() & !FLAGS_MASK | flags;
        self.write(WORD, &word.to_le_bytes());
    }

    /// Sets the entry's kind byte.
    #[inline]
    pub fn set_kind(&mut self, kind: u8) {
        self.write(KIND, &[kind]);
    }

    /// Changes the expiry time of an entry that has one. Returns false for an entry without an
    /// expiry time, since only `Entry::with_expire` makes room for one.
    #[inline]
    pub fn set_expire_at(&mut self, at_ms: i64) -> bool {
        let room = self.has_expire();
        if room {
            self.write(HEADER, &at_ms.to_le_bytes());
        }
        room
    }

    /// The entry's value, for changes in place.
    pub fn value_mut(&mut self) -> ValueMut<'_, V> {
        self.reborrow().into_value_mut()
    }

    /// The entry's value, for changes in place during the lifetime of this view.
    #[inline]
    pub fn into_value_mut(self) -> ValueMut<'a, V> {
        let shape = self.as_ref().shape();
        // SAFETY: the shape says which value is at this place; it is borrowed exclusively during
        // 'a.
        unsafe {
            let value = self.p.add(shape.value_at());
            match shape.form {
                Form::Str => ValueMut::Str(std::slice::from_raw_parts_mut(
                    value.as_ptr(),
                    shape.value_len,
                )),
                Form::Int => ValueMut::Int(IntMut(value.cast().as_mut())),
                Form::Obj => ValueMut::Obj(value.cast().as_mut()),
                Form::Packed => ValueMut::Packed,
            }
        }
    }

    /// Overwrites an entry's value in place, if the old and the new value are a string or an
    /// integer and the allocation keeps its size. Returns false if the value was not overwritten.
    /// The caller sets the entry's kind byte.
    #[inline]
    pub fn try_overwrite(&mut self, value: &NewValue<'_, V>) -> bool {
        let old = self.as_ref().shape();
        let fits_inline = !matches!(value, NewValue::Str(s) if s.len() > INLINE_MAX);
        if old.form as u8 >= Form::Obj as u8 || matches!(value, NewValue::Obj(_)) || !fits_inline {
            return false;
        }
        let new = Shape::new(old.key_len, old.has_expire, value);
        if new.alloc_size() != old.alloc_size() {
            return false;
        }
        self.write_value(new, value);
        true
    }

    /// Writes a string or integer into the entry, and the header bytes that describe the value.
    #[inline(always)]
    fn write_value(&mut self, shape: Shape, value: &NewValue<'_, V>) {
        self.set_flags(&shape);
        match value {
            NewValue::Str(s) => {
                self.write(VALUE_LEN, &[s.len() as u8]);
                self.write(shape.value_at(), s);
            }
            NewValue::Int(n) => self.write(shape.value_at(), &n.to_le_bytes()),
            NewValue::Obj(_) => {}
        }
    }
}

impl<V> Entry<V> {
    const PAYLOAD_FITS: () = assert!(align_of::<V>() <= ALIGN && size_of::<V>() <= PAYLOAD_MAX);

    /// Creates an entry whose value is not packed.
    #[inline]
    fn plain(
        key: &[u8],
        kind: u8,
        lru: u32,
        expire_at: Option<i64>,
        value: NewValue<'_, V>,
    ) -> Self {
        const { Self::PAYLOAD_FITS };
        let shape = Shape::new(key.len(), expire_at.is_some(), &value);
        let mut entry = EntryMut::begin(key, kind, lru, expire_at, shape);
        entry.write_value(shape, &value);
        let p = entry.p;
        if let NewValue::Obj(v) = value {
            // SAFETY: the shape reserves aligned room for a V at this offset.
            unsafe { p.add(shape.value_at()).cast::<V>().write(v) };
        }
        Entry {
            p,
            _owns: PhantomData,
        }
    }
}

impl<V> EntryMut<'_, V> {
    /// Allocates an entry and writes all of it but the value and the header bytes that describe the
    /// value.
    #[inline(always)]
    fn begin(key: &[u8], kind: u8, lru: u32, expire_at: Option<i64>, shape: Shape) -> Self {
        let layout = shape.layout();
        // SAFETY: the header alone makes the layout non-empty.
        let Some(p) = NonNull::new(unsafe { alloc::alloc(layout) }) else {
            alloc::handle_alloc_error(layout)
        };
        let mut entry = EntryMut {
            p,
            place: None,
            _borrows: PhantomData,
        };
        entry.write(WORD, &(lru << FLAG_BITS).to_le_bytes());
        entry.set_kind(kind);
        if let Some(at) = expire_at {
            entry.write(HEADER, &at.to_le_bytes());
        }
        if key.len() < usize::from(LONG_KEY) {
            entry.write(KEY_LEN, &[key.len() as u8]);
        } else {
            entry.write(KEY_LEN, &[LONG_KEY]);
            entry.write(shape.key_at() - 4, &(key.len() as u32).to_le_bytes());
        }
        entry.write(shape.key_at(), key);
        entry
    }
}

impl<V: Payload> Entry<V> {
    /// # Panics
    /// When a string is longer than `INLINE_MAX` or a key than `u32::MAX`.
    pub fn new(
        key: &[u8],
        kind: u8,
        lru: u32,
        expire_at: Option<i64>,
        value: NewValue<'_, V>,
    ) -> Self {
        match value {
            NewValue::Obj(v) => Self::with_payload(key, kind, lru, expire_at, v),
            value => Self::plain(key, kind, lru, expire_at, value),
        }
    }
}

impl<V> Entry<V> {
    /// A shared view of the entry.
    #[inline]
    pub fn as_ref(&self) -> EntryRef<'_, V> {
        EntryRef {
            p: self.p,
            _borrows: PhantomData,
        }
    }

    /// The exclusive view of the entry. The view has no slot of a table, so a packed value can't be
    /// opened through it.
    #[inline]
    pub fn as_mut(&mut self) -> EntryMut<'_, V> {
        EntryMut {
            p: self.p,
            place: None,
            _borrows: PhantomData,
        }
    }

    /// Frees the entry's allocation without dropping a payload, which the caller has moved out.
    fn free(self) {
        let (p, layout) = (self.p, self.as_ref().shape().layout());
        std::mem::forget(self);
        // SAFETY: `self` owned the allocation, which has this layout.
        unsafe { alloc::dealloc(p.as_ptr(), layout) }
    }
}

impl<V: Payload> Entry<V> {
    /// Returns the entry with another expiry time, in a new allocation unless the present one has
    /// room for an expiry time.
    pub fn with_expire(mut self, expire_at: Option<i64>) -> Self {
        match expire_at {
            None if !self.as_ref().has_expire() => return self,
            Some(at) if self.as_mut().set_expire_at(at) => return self,
            _ => {}
        }
        let look = self.as_ref();
        let (key, kind, lru) = (look.key(), look.kind(), look.lru());
        match look.value() {
            ValueRef::Int(n) => Entry::new(key, kind, lru, expire_at, NewValue::Int(n)),
            ValueRef::Str(s) => Entry::new(key, kind, lru, expire_at, NewValue::Str(s)),
            ValueRef::Packed(block) => {
                Entry::packed(key, kind, lru, expire_at, block.code(), block.bytes())
            }
            ValueRef::Obj(v) => {
                // SAFETY: the old allocation is freed below without dropping its V, of which this
                // copy is now the owner.
                let v = unsafe { std::ptr::read(v) };
                let entry = Entry::plain(key, kind, lru, expire_at, NewValue::Obj(v));
                self.free();
                entry
            }
        }
    }

    /// Returns the entry with another value, which is overwritten in place if it fits the present
    /// allocation.
    pub fn with_value(mut self, kind: u8, value: NewValue<'_, V>) -> Self {
        if self.as_mut().try_overwrite(&value) {
            self.as_mut().set_kind(kind);
            return self;
        }
        let look = self.as_ref();
        Entry::new(look.key(), kind, look.lru(), look.expire_at(), value)
    }

    /// Returns the entry's value and frees the entry's allocation.
    pub fn into_value(self) -> OwnedValue<V> {
        let v = match self.as_ref().value() {
            ValueRef::Int(n) => return OwnedValue::Int(n),
            ValueRef::Str(s) => return OwnedValue::Str(s.into()),
            ValueRef::Packed(block) => return OwnedValue::Obj(Self::unpack(block)),
            // SAFETY: the allocation is freed below without dropping its V, of which this copy is
            // now the owner.
            ValueRef::Obj(v) => unsafe { std::ptr::read(v) },
        };
        self.free();
        OwnedValue::Obj(v)
    }
}

impl<V> Drop for Entry<V> {
    fn drop(&mut self) {
        let shape = self.as_ref().shape();
        // SAFETY: the entry owns its allocation, and the V in it if the shape says so; neither is
        // used again.
        unsafe {
            if shape.form == Form::Obj {
                self.p.add(shape.value_at()).cast::<V>().drop_in_place();
            }
            alloc::dealloc(self.p.as_ptr(), shape.layout());
        }
    }
}

impl<V: fmt::Debug> fmt::Debug for Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

// SAFETY: the pointer is the global allocator's; the key is written once, in `new`, and no method
// of EntryMut reaches it.
unsafe impl<V> Element for Entry<V> {
    type Ref<'a>
        = EntryRef<'a, V>
    where
        V: 'a;
    type Mut<'a>
        = EntryMut<'a, V>
    where
        V: 'a;

    unsafe fn layout(p: NonNull<u8>) -> Layout {
        // SAFETY: the caller promises that `p` is an entry, as `by_ref` demands.
        unsafe { Self::by_ref(p) }.shape().layout()
    }

    #[inline(always)]
    fn into_raw(self) -> NonNull<u8> {
        let p = self.p;
        std::mem::forget(self);
        p
    }

    #[inline(always)]
    unsafe fn from_raw(p: NonNull<u8>) -> Self {
        Entry {
            p,
            _owns: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn key<'a>(p: NonNull<u8>) -> &'a [u8]
    where
        V: 'a,
    {
        EntryRef::<V> {
            p,
            _borrows: PhantomData,
        }
        .key()
    }

    #[inline(always)]
    unsafe fn by_ref<'a>(p: NonNull<u8>) -> EntryRef<'a, V>
    where
        V: 'a,
    {
        EntryRef {
            p,
            _borrows: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn by_mut<'a>(p: NonNull<u8>, place: Option<Place>) -> EntryMut<'a, V>
    where
        V: 'a,
    {
        EntryMut {
            p,
            place,
            _borrows: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests;
