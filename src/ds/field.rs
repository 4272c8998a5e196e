//! A field of a big hash with its value: one allocation that the hash's table owns.
//!
//! ```text
//! Field --> | field len | ttl, value len | expire_at  | field len   | value len    | field | value |
//!             u8          1 + 7 bits       i64, if ttl  u64 if long   u64 if long
//!             255: long   127: long
//! ```
//!
//! Two bytes of header suffice for fields below 255 bytes with values below 127 bytes, as nearly
//! all fields are: a field of 12 bytes with a value of 16 bytes takes 30 bytes, in the allocator's
//! size class of 32 bytes. Numbers are little-endian and unaligned. Sizes are rounded up to the
//! allocator's size classes, so that a value may grow in place within its class.
//!
//! **Invariants**
//! - The header determines the layout; only `Shape` computes the layout.
//! - The allocated size is `size_class(shape.size())`, before and after a change in place
//!   (`tests::histories`).
//! - The field's bytes never move or change in an allocation's life: the hash table relies on this.
//!   So a value that needs a longer header goes into a new allocation.
//!
//! Rejected: the value in an allocation of its own (one more pointer and cache miss for each field,
//! though large values would be overwritten faster); expiry times in a second table (a second probe
//! for each read of a volatile field).

use super::hashtable::{Element, Place};
use crate::ds::thin_buffer::size_class;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

const HEADER: usize = 2;
const LONG_FIELD: usize = 255;
const LONG_VALUE: usize = 127;
const HAS_EXPIRE: u8 = 0x80;

/// The owning pointer of a field with its value. Dropping the pointer frees the allocation.
#[repr(transparent)]
pub struct Field(NonNull<u8>);

/// A shared view of a field.
#[derive(Clone, Copy)]
pub struct FieldRef<'a> {
    p: NonNull<u8>,
    _borrows: PhantomData<&'a Field>,
}

/// The exclusive view of a field.
pub struct FieldMut<'a> {
    p: NonNull<u8>,
    _borrows: PhantomData<&'a mut Field>,
}

// SAFETY: a Field owns plain bytes, and shares nothing with other code.
unsafe impl Send for Field {}
// SAFETY: a shared reference to a field only reads.
unsafe impl Sync for Field {}

const _: () = assert!(size_of::<Option<Field>>() == 8);

/// The facts that determine the layout of a field's allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    has_expire: bool,
    field_len: usize,
    value_len: usize,
}

impl Shape {
    fn expire_bytes(self) -> usize {
        if self.has_expire { 8 } else { 0 }
    }

    fn field_len_bytes(self) -> usize {
        if self.field_len < LONG_FIELD { 0 } else { 8 }
    }

    fn value_len_bytes(self) -> usize {
        if self.value_len < LONG_VALUE { 0 } else { 8 }
    }

    fn field_at(self) -> usize {
        HEADER + self.expire_bytes() + self.field_len_bytes() + self.value_len_bytes()
    }

    fn value_at(self) -> usize {
        self.field_at() + self.field_len
    }

    fn alloc_size(self) -> usize {
        size_class(self.value_at() + self.value_len)
    }

    fn layout(self) -> Layout {
        // Slices never exceed isize::MAX bytes, so the sum can't wrap; a sum beyond the address
        // space fails here, before memory is allocated.
        Layout::from_size_align(self.alloc_size(), 1)
            .expect("a field larger than the address space")
    }

    /// Whether a field of this shape can get the shape `other` in place: its name stays where it is
    /// and its allocation keeps its size.
    fn turns_into(self, other: Shape) -> bool {
        self.field_at() == other.field_at() && self.alloc_size() == other.alloc_size()
    }
}

impl<'a> FieldRef<'a> {
    #[inline(always)]
    fn byte(self, at: usize) -> u8 {
        // SAFETY: callers stay inside the layout that the header declares; the field lives during
        // 'a.
        unsafe { self.p.add(at).read() }
    }

    #[inline(always)]
    fn word(self, at: usize) -> u64 {
        // SAFETY: callers stay inside the layout that the header declares; the field lives during
        // 'a.
        u64::from_le_bytes(unsafe { self.p.add(at).cast::<[u8; 8]>().read() })
    }

    #[inline(always)]
    fn slice(self, at: usize, len: usize) -> &'a [u8] {
        // SAFETY: callers stay inside the layout that the header declares; the field lives, and no
        // code writes to these bytes, during 'a.
        unsafe { std::slice::from_raw_parts(self.p.add(at).as_ptr(), len) }
    }

    #[inline(always)]
    fn has_expire(self) -> bool {
        self.byte(1) & HAS_EXPIRE != 0
    }

    #[inline(always)]
    fn shape(self) -> Shape {
        let mut shape = Shape {
            has_expire: self.has_expire(),
            field_len: usize::from(self.byte(0)),
            value_len: usize::from(self.byte(1) & !HAS_EXPIRE),
        };
        let mut at = HEADER + shape.expire_bytes();
        let long_value = shape.value_len == LONG_VALUE;
        if shape.field_len == LONG_FIELD {
            shape.field_len = self.word(at) as usize;
            at += 8;
        }
        if long_value {
            shape.value_len = self.word(at) as usize;
        }
        shape
    }

    /// The field's name.
    #[inline]
    pub fn field(self) -> &'a [u8] {
        let shape = self.shape();
        self.slice(shape.field_at(), shape.field_len)
    }

    /// The field's value.
    #[inline]
    pub fn value(self) -> &'a [u8] {
        let shape = self.shape();
        self.slice(shape.value_at(), shape.value_len)
    }

    /// The field's expiry time in Unix milliseconds; `None` if the field has no time to live.
    #[inline]
    pub fn expire_at(self) -> Option<i64> {
        self.has_expire().then(|| self.word(HEADER) as i64)
    }

    /// The number of bytes of the field's allocation.
    pub fn alloc_size(self) -> usize {
        self.shape().alloc_size()
    }
}

impl<'a> FieldMut<'a> {
    /// A shared view of the field.
    #[inline]
    pub fn as_ref(&self) -> FieldRef<'_> {
        FieldRef {
            p: self.p,
            _borrows: PhantomData,
        }
    }

    #[inline(always)]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: callers stay inside the allocation, which no other code accesses; `bytes` is not
        // part of it.
        unsafe {
            self.p
                .add(at)
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        }
    }

    fn write_header(&mut self, shape: Shape) {
        let expire = if shape.has_expire { HAS_EXPIRE } else { 0 };
        let field_len = shape.field_len.min(LONG_FIELD) as u8;
        let value_len = shape.value_len.min(LONG_VALUE) as u8;
        self.write(0, &[field_len, value_len | expire]);
        let mut at = HEADER + shape.expire_bytes();
        if shape.field_len >= LONG_FIELD {
            self.write(at, &(shape.field_len as u64).to_le_bytes());
            at += 8;
        }
        if shape.value_len >= LONG_VALUE {
            self.write(at, &(shape.value_len as u64).to_le_bytes());
        }
    }

    /// Overwrites the field's value if the allocation keeps its size. Returns false if the value
    /// was not overwritten.
    #[inline]
    pub fn try_set_value(&mut self, value: &[u8]) -> bool {
        let old = self.as_ref().shape();
        let new = Shape {
            value_len: value.len(),
            ..old
        };
        let fits = old.turns_into(new);
        if fits {
            self.write_header(new);
            self.write(new.value_at(), value);
        }
        fits
    }

    /// Changes the expiry time of a field that has one. Returns false for a field without an expiry
    /// time.
    pub fn set_expire_at(&mut self, at_ms: i64) -> bool {
        let room = self.as_ref().has_expire();
        if room {
            self.write(HEADER, &at_ms.to_le_bytes());
        }
        room
    }
}

impl Field {
    /// Allocates a field with its value and expiry time.
    pub fn new(field: &[u8], value: &[u8], expire_at: Option<i64>) -> Field {
        let shape = Shape {
            has_expire: expire_at.is_some(),
            field_len: field.len(),
            value_len: value.len(),
        };
        let layout = shape.layout();
        // SAFETY: the header alone makes the layout non-empty.
        let Some(p) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let mut look = FieldMut {
            p,
            _borrows: PhantomData,
        };
        look.write_header(shape);
        if let Some(at) = expire_at {
            look.write(HEADER, &at.to_le_bytes());
        }
        look.write(shape.field_at(), field);
        look.write(shape.value_at(), value);
        Field(p)
    }

    /// A shared view of the field with its value.
    #[inline]
    pub fn as_ref(&self) -> FieldRef<'_> {
        FieldRef {
            p: self.0,
            _borrows: PhantomData,
        }
    }

    /// The exclusive view of the field with its value.
    #[inline]
    pub fn as_mut(&mut self) -> FieldMut<'_> {
        FieldMut {
            p: self.0,
            _borrows: PhantomData,
        }
    }

    /// Returns the field with another value, in the present allocation if the value fits.
    pub fn with_value(mut self, value: &[u8]) -> Field {
        if self.as_mut().try_set_value(value) {
            return self;
        }
        let old = self.as_ref();
        Field::new(old.field(), value, old.expire_at())
    }

    /// Returns the field with another expiry time, or without one.
    pub fn with_expire(mut self, expire_at: Option<i64>) -> Field {
        match expire_at {
            None if !self.as_ref().has_expire() => self,
            Some(at) if self.as_mut().set_expire_at(at) => self,
            _ => Field::new(self.as_ref().field(), self.as_ref().value(), expire_at),
        }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        let layout = self.as_ref().shape().layout();
        // SAFETY: allocated with the layout that the header declares, which changes in place keep.
        unsafe { dealloc(self.0.as_ptr(), layout) }
    }
}

// SAFETY: the pointer is the global allocator's; the field's bytes are written once, in `new`, and
// no method of FieldMut moves or changes them.
unsafe impl Element for Field {
    type Ref<'a> = FieldRef<'a>;
    type Mut<'a> = FieldMut<'a>;

    #[inline(always)]
    fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).0
    }

    #[inline(always)]
    unsafe fn from_raw(p: NonNull<u8>) -> Field {
        Field(p)
    }

    #[inline]
    unsafe fn layout(p: NonNull<u8>) -> Layout {
        // SAFETY: the caller promises that `p` is a field, as `by_ref` demands.
        unsafe { Self::by_ref(p) }.shape().layout()
    }

    #[inline(always)]
    unsafe fn key<'a>(p: NonNull<u8>) -> &'a [u8]
    where
        Self: 'a,
    {
        FieldRef {
            p,
            _borrows: PhantomData,
        }
        .field()
    }

    #[inline(always)]
    unsafe fn by_ref<'a>(p: NonNull<u8>) -> FieldRef<'a>
    where
        Self: 'a,
    {
        FieldRef {
            p,
            _borrows: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn by_mut<'a>(p: NonNull<u8>, _: Option<Place>) -> FieldMut<'a>
    where
        Self: 'a,
    {
        FieldMut {
            p,
            _borrows: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let len = prop_oneof![0..40usize, 120..135usize, 250..260usize, 0..3000usize];
        (len, any::<u8>()).prop_map(|(len, byte)| vec![byte; len])
    }

    #[derive(Clone, Debug)]
    enum Change {
        Value(Vec<u8>),
        Expire(Option<i64>),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            bytes().prop_map(Change::Value),
            any::<Option<i64>>().prop_map(Change::Expire)
        ]
    }

    proptest! {
        #![proptest_config(crate::ds::cases(128))]
        #[test]
        fn histories(name in bytes(), first in bytes(), changes in prop::collection::vec(change(), 0..12)) {
            let mut field = Field::new(&name, &first, None);
            let (mut value, mut expire) = (first, None);
            for change in changes {
                match change {
                    Change::Value(new) => {
                        field = field.with_value(&new);
                        value = new;
                    }
                    Change::Expire(at) => {
                        field = field.with_expire(at);
                        expire = at;
                    }
                }
                let look = field.as_ref();
                prop_assert_eq!(look.field(), &name[..]);
                prop_assert_eq!(look.value(), &value[..]);
                prop_assert_eq!(look.expire_at(), expire);
            }
        }
    }

    #[test]
    fn a_small_field_costs_two_bytes_more_than_itself() {
        let field = Field::new(b"field:000001", b"0123456789abcdef", None);
        assert_eq!(field.as_ref().alloc_size(), 32);
        assert_eq!(field.with_expire(Some(1)).as_ref().alloc_size(), 40);
    }
}
