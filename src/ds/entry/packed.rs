//! A small collection inside the entry of its key.
//!
//! A listpack or intset begins with its own length, so an entry contains just the bytes of the
//! collection:
//!
//! ```text
//!  +--------------+------+---------+------+- - - - - -+-----+---------------------+- - - -+
//!  | flags, lru   | kind | key len | code | expire_at | key | listpack or intset  | zeros |
//!  +--------------+------+---------+------+- - - - - -+-----+---------------------+- - - -+
//!   <--------------------- gap ---------------------------> <------ block ------->
//!  code   0 a listpack, 1 an intset                            in all size_class(gap + block)
//! ```
//!
//! # Reading and changing
//!
//! An entry has only the bytes of a packed collection; a value of the collection's type is built
//! when it is needed: [`PackedRef::read`] builds a value of the type that the caller names. The
//! value owns a *lent* block (`ds::thin_buffer`), a pointer into the entry. To change a collection,
//! a [`Loan`] builds a value with a lent block, and puts the block back when the loan is dropped:
//!
//! ```text
//!   block still lent          changed in place, nothing to do
//!   block in a new place      it has a gap: header and key are copied there, and it is the entry
//!   not a block, or too big   a new entry is made, usually one with a payload
//! ```
//!
//! If the block was moved, or the value is no block any more, the entry gets a new address. So the
//! loan knows the slot of the table of keys with this address.
//!
//! **Invariants**
//! - A block in an entry has at most `PACKED_MAX` bytes when the entry is made, and grows at most
//!   to the end of the allocation (`tests::a_collection_is_in_its_entry_while_it_is_small`).
//! - A lent block does not outlive its loan: code that moves a block out of a value calls
//!   `into_owned`.
//! - While a loan lives, its entry's header stays unchanged; only the block's bytes change.
//!
//! Limits: only keys of up to `KEY_MAX` bytes have packed values, because the size of the gap has
//! 15 bits.
//!
//! Rejected: a payload that points to bytes after itself (16 bytes more, and every move must
//! correct the pointer); growth that moves the entry during the loan (a block that becomes a hash
//! table would lose its entry).

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::{ALIGN, Entry, EntryMut, EntryRef, Form, NewValue, Shape, VALUE_LEN};
use crate::ds::hashtable::{Element, Place};
use crate::ds::intset::Intset;
use crate::ds::listpack::Listpack;
use crate::ds::thin_buffer::{GAP_MAX, PACKED_MAX, ThinBytes};

/// The maximum length in bytes of the key of an entry with a packed value. The limit leaves room in
/// the gap for the header and an expiry time.
const KEY_MAX: usize = GAP_MAX - 64;

const LISTPACK: u8 = 0;
const INTSET: u8 = 1;

/// A collection that is one block of bytes: a listpack or an intset.
pub enum Block {
    Listpack(Listpack),
    Intset(Intset),
}

/// A type of an entry's value, the payload as a whole or one type of collection, whose values may
/// be blocks.
pub trait Payload: Sized {
    /// Whether the block in an entry with this kind byte is a value of this type.
    fn has_kind(_kind: u8) -> bool {
        true
    }

    /// Returns the block if the value is a block, otherwise the value itself.
    fn into_block(self) -> Result<Block, Self> {
        Err(self)
    }

    /// Builds the value of an entry with this kind byte from a block, which [`Payload::into_block`]
    /// has returned or an entry contains.
    fn from_block(_kind: u8, _block: Block) -> Self {
        unreachable!("a payload that is never a block")
    }

    /// Whether the value is a block that is still in its entry.
    fn is_in_entry(&self) -> bool {
        false
    }
}

impl Block {
    fn code(&self) -> u8 {
        match self {
            Block::Listpack(_) => LISTPACK,
            Block::Intset(_) => INTSET,
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Block::Listpack(listpack) => listpack.as_bytes(),
            Block::Intset(ints) => ints.as_bytes(),
        }
    }

    #[inline]
    fn buffer(&self) -> &ThinBytes {
        match self {
            Block::Listpack(listpack) => listpack.buffer(),
            Block::Intset(ints) => ints.buffer(),
        }
    }

    /// # Safety
    /// The conditions of `ThinBytes::lent` hold; the bytes at `p` are a block with this code.
    #[inline]
    unsafe fn lent(code: u8, p: NonNull<u8>, gap: usize) -> Block {
        // SAFETY: the caller promises the conditions of `ThinBytes::lent`.
        unsafe {
            match code {
                LISTPACK => Block::Listpack(Listpack::lent(p, gap)),
                _ => Block::Intset(Intset::lent(p, gap)),
            }
        }
    }

    /// A copy of the block, without a gap.
    fn to_owned(&self) -> Block {
        match self {
            Block::Listpack(listpack) => Block::Listpack(listpack.clone()),
            Block::Intset(ints) => Block::Intset(ints.clone()),
        }
    }
}

/// The packed value of an entry, of which no value has been built yet.
pub struct PackedRef<'a, V>(EntryRef<'a, V>);

impl<V> Clone for PackedRef<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for PackedRef<'_, V> {}

impl<V> PartialEq for PackedRef<'_, V> {
    fn eq(&self, other: &Self) -> bool {
        self.code() == other.code() && self.bytes() == other.bytes()
    }
}

impl<V> Eq for PackedRef<'_, V> {}

impl<V> fmt::Debug for PackedRef<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().escape_ascii().fmt(f)
    }
}

impl<'a, V> PackedRef<'a, V> {
    pub(super) fn new(entry: EntryRef<'a, V>) -> Self {
        PackedRef(entry)
    }

    #[inline]
    pub(super) fn code(self) -> u8 {
        self.0.bytes::<1>(VALUE_LEN)[0]
    }

    /// The bytes of the packed listpack or intset.
    #[inline]
    pub(super) fn bytes(self) -> &'a [u8] {
        let shape = self.0.shape();
        self.0.slice(shape.value_at(), shape.value_len)
    }

    /// Builds the packed value as a `T`, which must be the type for the entry's kind byte.
    /// References from the value live as long as the value.
    #[inline]
    pub fn read<T: Payload>(self) -> Packed<'a, T> {
        let at = self.0.packed_at();
        // SAFETY: the flags say that there is a block with this code; it is not changed during 'a,
        // and the value is only read.
        let block = unsafe { Block::lent(self.code(), self.0.p.add(at), at) };
        Packed {
            value: ManuallyDrop::new(T::from_block(self.0.kind(), block)),
            _borrows: PhantomData,
        }
    }

    /// The kind byte of the entry.
    #[inline]
    pub fn kind(self) -> u8 {
        self.0.kind()
    }
}

/// A value that was built from an entry's packed bytes, for reading.
pub struct Packed<'a, T> {
    value: ManuallyDrop<T>,
    _borrows: PhantomData<&'a T>,
}

impl<T> Deref for Packed<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

/// The value of an entry during a change: a payload `V`, or a packed value of the type `T`, one of
/// the payload's types.
pub enum Open<'a, V: Payload, T: Payload + Into<V>> {
    There(&'a mut V),
    Packed(Loan<'a, V, T>),
}

/// A packed value (a listpack or intset inside its key's entry) while its collection is changed.
/// When the loan is dropped, the value is written back to the entry.
///
/// The loan has the type that the caller asked for, not the payload's. So neither the uses nor the
/// end of a loan test the value's type again.
pub struct Loan<'a, V: Payload, T: Payload + Into<V>> {
    value: ManuallyDrop<T>,
    entry: NonNull<u8>,
    place: Option<Place>,
    /// The offset of the block in the entry, which is the size of the gap before the block.
    at: u32,
    /// The offset in the entry of the block's end before any change.
    end: u32,
    _borrows: PhantomData<&'a mut V>,
}

impl<V: Payload, T: Payload + Into<V>> Deref for Loan<'_, V, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<V: Payload, T: Payload + Into<V>> DerefMut for Loan<'_, V, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<V: Payload, T: Payload + Into<V>> Drop for Loan<'_, V, T> {
    #[inline]
    fn drop(&mut self) {
        // A value whose block is in the entry owns nothing, so it need not be dropped.
        if !self.value.is_in_entry() {
            self.write_back();
        }
    }
}

impl<V: Payload, T: Payload + Into<V>> Loan<'_, V, T> {
    /// Makes an entry for a changed value that is no longer in its old entry. Called once, at the
    /// end of the loan.
    #[inline(never)]
    fn write_back(&mut self) {
        let old: EntryRef<'_, V> = EntryRef {
            p: self.entry,
            _borrows: PhantomData,
        };
        let (key, kind, lru, expire_at) = (old.key(), old.kind(), old.lru(), old.expire_at());
        // SAFETY: the loan is being dropped, so its value is not used again.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        let p = match value.into_block() {
            Ok(block) if block.buffer().gap() == self.at as usize => self.adopt(block),
            Ok(block) => {
                let value = NewValue::Obj(V::from_block(kind, block));
                Entry::new(key, kind, lru, expire_at, value).into_raw()
            }
            Err(value) => {
                let value = NewValue::Obj(value.into());
                Entry::new(key, kind, lru, expire_at, value).into_raw()
            }
        };
        let place = self.place.expect("an entry that is changed is in a table");
        let layout = Shape::layout_of(self.end as usize);
        // SAFETY: the loan borrows the entry and thereby its table exclusively, and `p` is the
        // entry with the same key; the old allocation, of this layout, is not used again.
        unsafe {
            place.set(p);
            std::alloc::dealloc(self.entry.as_ptr(), layout);
        }
    }

    /// Turns the allocation of a block, which has a gap before the block, into the entry: copies
    /// header and key into the gap.
    fn adopt(&self, block: Block) -> NonNull<u8> {
        let code = block.code();
        let base = block.buffer().base();
        std::mem::forget(block);
        // SAFETY: the gap has the size of all that precedes the block in an entry; the allocation
        // is owned here, and has the size and alignment of an entry with this block.
        unsafe {
            base.copy_from_nonoverlapping(self.entry.as_ptr(), self.at as usize);
            base.add(VALUE_LEN).write(code);
            NonNull::new_unchecked(base)
        }
    }
}

impl<V> EntryRef<'_, V> {
    /// The offset of the packed block in the entry.
    #[inline]
    fn packed_at(self) -> usize {
        let key = self.key();
        key.as_ptr().addr() - self.p.addr().get() + key.len()
    }

    /// The length of the packed block in bytes.
    #[inline]
    pub(super) fn packed_len(self) -> usize {
        let at = self.packed_at();
        let word = |at: usize| u32::from_le_bytes(self.bytes(at)) as usize;
        match self.bytes::<1>(VALUE_LEN)[0] {
            LISTPACK => word(at),
            _ => 8 + word(at) * word(at + 4),
        }
    }
}

impl<'a, V: Payload> EntryMut<'a, V> {
    /// Opens the entry's payload, or its packed value as a `T`, for changes. Returns `None` for a
    /// string, an integer, or a packed value of another type.
    #[inline(always)]
    pub fn open<T: Payload + Into<V>>(self) -> Option<Open<'a, V, T>> {
        let look = self.as_ref();
        let end_of_key = look.packed_at();
        match look.form() {
            Form::Obj => {
                let at = end_of_key.next_multiple_of(ALIGN);
                // SAFETY: the flags say that there is a V; it is borrowed exclusively during 'a.
                let value = unsafe { self.p.add(at).cast::<V>().as_mut() };
                Some(Open::There(value))
            }
            Form::Packed if T::has_kind(look.kind()) => Some(Open::Packed(self.lend(end_of_key))),
            Form::Str | Form::Int | Form::Packed => None,
        }
    }

    /// Lends the packed block at offset `at` to a value of the type `T`.
    #[inline(always)]
    fn lend<T: Payload + Into<V>>(self, at: usize) -> Loan<'a, V, T> {
        let look = self.as_ref();
        // SAFETY: the flags say that there is a block with this code; it is borrowed exclusively
        // during 'a.
        let block = unsafe { Block::lent(PackedRef(look).code(), self.p.add(at), at) };
        Loan {
            value: ManuallyDrop::new(T::from_block(look.kind(), block)),
            entry: self.p,
            place: self.place,
            at: at as u32,
            end: (at + look.packed_len()) as u32,
            _borrows: PhantomData,
        }
    }
}

impl<V: Payload> Entry<V> {
    /// Creates an entry with a payload, or with a packed value if the payload is a small block.
    pub(super) fn with_payload(
        key: &[u8],
        kind: u8,
        lru: u32,
        expire_at: Option<i64>,
        v: V,
    ) -> Self {
        let v = match v.into_block() {
            Ok(block) => {
                let bytes = block.as_bytes();
                if bytes.len() <= PACKED_MAX && key.len() <= KEY_MAX {
                    return Self::packed(key, kind, lru, expire_at, block.code(), bytes);
                }
                let has_gap = block.buffer().gap() > 0;
                V::from_block(kind, if has_gap { block.to_owned() } else { block })
            }
            Err(v) => v,
        };
        Self::plain(key, kind, lru, expire_at, NewValue::Obj(v))
    }

    /// Creates an entry with a packed value: the bytes of a listpack or intset.
    pub(super) fn packed(
        key: &[u8],
        kind: u8,
        lru: u32,
        expire_at: Option<i64>,
        code: u8,
        bytes: &[u8],
    ) -> Self {
        let shape = Shape {
            form: Form::Packed,
            has_expire: expire_at.is_some(),
            key_len: key.len(),
            value_len: bytes.len(),
        };
        let mut entry: EntryMut<'_, V> = EntryMut::begin(key, kind, lru, expire_at, shape);
        entry.set_flags(&shape);
        entry.write(VALUE_LEN, &[code]);
        let (size, alloc_size) = (shape.size(), shape.alloc_size());
        match alloc_size - size {
            0 => {}
            // The spare bytes are zeroed by one word, whose beginning overlaps the block, which is
            // written next.
            1..=7 => entry.write(alloc_size - 8, &[0; 8]),
            // SAFETY: these bytes lie between the block and the end of the allocation.
            spare => unsafe { entry.p.add(size).write_bytes(0, spare) },
        }
        entry.write(shape.value_at(), bytes);
        Entry {
            p: entry.p,
            _owns: PhantomData,
        }
    }

    /// A copy of the packed value in allocations of its own.
    pub(super) fn unpack(packed: PackedRef<'_, V>) -> V {
        let entry = packed.0;
        let at = entry.packed_at();
        // SAFETY: the flags say that there is a block with this code; the block is only read, to
        // copy it.
        let block = unsafe { Block::lent(packed.code(), entry.p.add(at), at) };
        V::from_block(entry.kind(), block.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::ds::entry::{OwnedValue, ValueRef};
    use crate::ds::hashtable::HashTable;
    use crate::ds::scaled;
    use crate::ds::siphash::HashSeed;
    use crate::ds::thin_buffer::size_class;

    const LISTS: u8 = 1;
    const INTS: u8 = 2;

    /// A payload for tests: a listpack, an intset, or a table that counts its owners.
    #[derive(Clone, Debug)]
    enum Pack {
        List(Listpack),
        Ints(Intset),
        Table(Rc<Vec<i64>>),
    }

    impl Payload for Pack {
        fn is_in_entry(&self) -> bool {
            match self {
                Pack::List(listpack) => listpack.is_in_entry(),
                Pack::Ints(ints) => ints.is_in_entry(),
                Pack::Table(_) => false,
            }
        }

        fn into_block(self) -> Result<Block, Self> {
            match self {
                Pack::List(listpack) => Ok(Block::Listpack(listpack)),
                Pack::Ints(ints) => Ok(Block::Intset(ints)),
                table => Err(table),
            }
        }

        fn from_block(kind: u8, block: Block) -> Self {
            match block {
                Block::Listpack(listpack) => {
                    assert_eq!(kind, LISTS);
                    Pack::List(listpack)
                }
                Block::Intset(ints) => {
                    assert_eq!(kind, INTS);
                    Pack::Ints(ints)
                }
            }
        }
    }

    impl Pack {
        fn numbers(&self) -> Vec<i64> {
            match self {
                Pack::List(listpack) => listpack.iter().filter_map(|e| e.as_int()).collect(),
                Pack::Ints(ints) => ints.iter().collect(),
                Pack::Table(table) => table.to_vec(),
            }
        }

        fn push(&mut self, n: i64) {
            match self {
                Pack::List(listpack) => listpack.append(n),
                Pack::Ints(ints) => {
                    ints.add(n);
                }
                Pack::Table(table) => Rc::make_mut(table).push(n),
            }
        }

        fn pop(&mut self) {
            match self {
                Pack::List(listpack) => {
                    if let Some(last) = listpack.last() {
                        listpack.delete(last);
                    }
                }
                Pack::Ints(ints) => {
                    if !ints.is_empty() {
                        ints.remove_at(ints.len() - 1);
                    }
                }
                Pack::Table(table) => {
                    Rc::make_mut(table).pop();
                }
            }
        }
    }

    struct Store {
        table: HashTable<Entry<Pack>>,
        key: Vec<u8>,
    }

    impl Store {
        fn new(key_len: usize, kind: u8, expire_at: Option<i64>) -> Store {
            let mut store = Store {
                table: HashTable::new(HashSeed::new([1, 2])),
                key: crate::ds::numbered(key_len),
            };
            let pack = match kind {
                LISTS => Pack::List(Listpack::new()),
                _ => Pack::Ints(Intset::new()),
            };
            let entry = Entry::new(&store.key, kind, 7, expire_at, NewValue::Obj(pack));
            store.table.insert(store.hash(), entry);
            store
        }

        fn hash(&self) -> u64 {
            self.table.hash(&self.key)
        }

        fn entry(&self) -> EntryRef<'_, Pack> {
            self.table.find(self.hash(), &self.key).expect("the key")
        }

        fn is_packed(&self) -> bool {
            matches!(self.entry().value(), ValueRef::Packed(_))
        }

        fn numbers(&self) -> Vec<i64> {
            match self.entry().value() {
                ValueRef::Packed(packed) => packed.read::<Pack>().numbers(),
                ValueRef::Obj(pack) => pack.numbers(),
                other => panic!("{other:?}"),
            }
        }

        fn change(&mut self, change: impl FnOnce(&mut Pack)) {
            let hash = self.hash();
            let entry = self.table.find_mut(hash, &self.key).expect("the key");
            match entry.open::<Pack>() {
                Some(Open::There(pack)) => change(pack),
                Some(Open::Packed(mut loan)) => change(&mut loan),
                None => panic!("a payload"),
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push(Vec<i64>),
        Pop(usize),
        Expire(Option<i64>),
        ToTable,
        /// An integer is pushed, and the value then becomes a table during the same loan.
        PushToTable(i64),
        /// The value becomes an empty listpack or intset with an allocation of its own.
        Clear,
        Own,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let number = prop_oneof![-200..200i64, any::<i64>()];
        let op = prop_oneof![
            12 => vec(number.clone(), 1..12).prop_map(Op::Push),
            6 => (1..20usize).prop_map(Op::Pop),
            2 => proptest::option::of(any::<i64>()).prop_map(Op::Expire),
            1 => Just(Op::ToTable),
            1 => number.prop_map(Op::PushToTable),
            2 => Just(Op::Clear),
            1 => Just(Op::Own),
        ];
        vec(op, 1..scaled(60, 12))
    }

    proptest! {
        #![proptest_config(crate::ds::cases(256))]

        #[test]
        fn histories_match_a_vector(
            ops in ops(),
            key_len in prop_oneof![0..40usize, 250..260usize],
            kind in LISTS..=INTS,
        ) {
            let mut store = Store::new(key_len, kind, None);
            let (mut twin, mut expires): (Vec<i64>, Option<i64>) = (Vec::new(), None);
            for op in ops {
                match op {
                    Op::Push(numbers) => {
                        for n in numbers {
                            if kind == LISTS || !twin.contains(&n) {
                                twin.push(n);
                                store.change(|pack| if !pack.numbers().contains(&n) || kind == LISTS { pack.push(n) });
                            }
                        }
                    }
                    Op::Pop(n) => store.change(|pack| {
                        for _ in 0..n {
                            pack.pop();
                        }
                        twin = pack.numbers();
                    }),
                    Op::Expire(at) => {
                        expires = at;
                        let (hash, key) = (store.hash(), store.key.clone());
                        store.table.replace_with(hash, &key, |entry| entry.with_expire(at));
                    }
                    Op::ToTable => store.change(|pack| *pack = Pack::Table(Rc::new(pack.numbers()))),
                    Op::PushToTable(n) => {
                        if !twin.contains(&n) {
                            twin.push(n);
                            store.change(|pack| {
                                pack.push(n);
                                *pack = Pack::Table(Rc::new(pack.numbers()));
                            });
                        }
                    }
                    Op::Clear => {
                        twin.clear();
                        store.change(|pack| *pack = match kind {
                            LISTS => Pack::List(Listpack::new()),
                            _ => Pack::Ints(Intset::new()),
                        });
                    }
                    Op::Own => {
                        let hash = store.hash();
                        let entry = store.table.remove(hash, &store.key).expect("the key");
                        let OwnedValue::Obj(pack) = entry.into_value() else { panic!("a payload") };
                        let entry = Entry::new(&store.key, kind, 7, expires, NewValue::Obj(pack));
                        store.table.insert(hash, entry);
                    }
                }
                let (mut found, mut wanted) = (store.numbers(), twin.clone());
                found.sort_unstable();
                wanted.sort_unstable();
                prop_assert_eq!(found, wanted);
                let entry = store.entry();
                prop_assert_eq!((entry.kind(), entry.lru(), entry.expire_at()), (kind, 7, expires));
                prop_assert_eq!(entry.key(), &store.key[..]);
            }
        }
    }

    #[test]
    fn a_collection_is_in_its_entry_while_it_is_small() {
        let mut store = Store::new(16, LISTS, None);
        assert_eq!(store.entry().alloc_size(), size_class(7 + 16 + 7));
        let largest = size_class(7 + 16 + PACKED_MAX);
        let mut bytes = 7;
        while store.is_packed() {
            assert_eq!(store.entry().alloc_size(), size_class(7 + 16 + bytes));
            assert!(7 + 16 + bytes <= largest, "{bytes} bytes");
            store.change(|pack| pack.push(i64::MAX));
            bytes += 10;
        }
        assert!(7 + 16 + bytes > largest, "{bytes} bytes");
        while bytes > 7 {
            store.change(Pack::pop);
            bytes -= 10;
        }
        assert!(!store.is_packed(), "it moves out once");
    }

    #[test]
    fn a_long_key_keeps_its_collection_outside() {
        for (key_len, packed) in [(KEY_MAX, true), (KEY_MAX + 1, false)] {
            let mut store = Store::new(key_len, INTS, Some(i64::MAX));
            assert_eq!(store.is_packed(), packed, "{key_len}");
            store.change(|pack| pack.push(5));
            assert_eq!((store.is_packed(), store.numbers()), (packed, vec![5]));
        }
    }

    #[test]
    fn a_string_or_an_integer_is_not_opened() {
        let mut entry: Entry<Pack> = Entry::new(b"k", 0, 0, None, NewValue::Int(5));
        assert!(entry.as_mut().open::<Pack>().is_none());
    }
}
