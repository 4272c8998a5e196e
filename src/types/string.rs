//! Strings: an integer or a short string is in the key's entry; a longer string is a [`RawStr`].

use std::sync::Arc;

use crate::ds::entry::{INLINE_MAX, ValueMut, ValueRef};
use crate::ds::thin_buffer::size_class;
use crate::error::Error;
use crate::types::lengths::KeyWrite;
use crate::types::{KeyRef, New, Type, Value, kind};
use crate::util::number::{IntBuf, parse_i64};

/// The maximum length in bytes of a string that OBJECT ENCODING reports as `embstr`, if a command
/// such as SET stored the whole string.
pub const EMBSTR_MAX: usize = 44;

/// A string that is too long for its key's entry. While a reply or a request buffer holds the
/// string too, it is shared; a change then makes a private copy first.
#[derive(Clone)]
pub enum RawStr {
    Owned(Vec<u8>),
    Shared(Arc<Vec<u8>>),
}

impl RawStr {
    /// The bytes of the string.
    pub fn bytes(&self) -> &[u8] {
        match self {
            RawStr::Owned(bytes) => bytes,
            RawStr::Shared(bytes) => bytes,
        }
    }

    /// Makes the string shared and returns a reference to it.
    pub fn share(&mut self) -> Arc<Vec<u8>> {
        let bytes = match self {
            RawStr::Shared(bytes) => return bytes.clone(),
            RawStr::Owned(bytes) => Arc::new(std::mem::take(bytes)),
        };
        *self = RawStr::Shared(bytes.clone());
        bytes
    }

    /// The bytes of the string, which can be changed in place. A shared string is copied first.
    pub fn make_mut(&mut self) -> &mut Vec<u8> {
        match self {
            RawStr::Owned(bytes) => bytes,
            RawStr::Shared(bytes) => Arc::make_mut(bytes),
        }
    }

    /// The memory of the string in bytes.
    pub fn memory(&self) -> usize {
        match self {
            RawStr::Owned(bytes) => size_class(bytes.capacity()),
            RawStr::Shared(bytes) => size_class(bytes.capacity()) + 40,
        }
    }
}

/// A string value in any of its encodings.
#[derive(Clone, Copy)]
pub enum StrView<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl<'a> StrView<'a> {
    /// The string in an entry; WRONGTYPE for any other type.
    #[inline]
    pub fn of(entry: KeyRef<'a>) -> Result<StrView<'a>, Error> {
        match entry.value() {
            ValueRef::Str(bytes) => Ok(StrView::Bytes(bytes)),
            ValueRef::Int(n) => Ok(StrView::Int(n)),
            ValueRef::Obj(Value::Str(raw)) => Ok(StrView::Bytes(raw.bytes())),
            ValueRef::Obj(_) | ValueRef::Packed(_) => Err(Error::WRONGTYPE),
        }
    }

    /// The bytes of the string; the text of an integer is written to `digits`.
    pub fn bytes<'b>(self, digits: &'b mut IntBuf) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            StrView::Int(n) => digits.format(n),
            StrView::Bytes(bytes) => bytes,
        }
    }

    /// The length in bytes.
    pub fn len(self) -> usize {
        match self {
            StrView::Int(n) => IntBuf::new().format(n).len(),
            StrView::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether the string is empty.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The string as a 64-bit integer; an error if its text is not an integer.
    pub fn integer(self) -> Result<i64, Error> {
        match self {
            StrView::Int(n) => Ok(n),
            StrView::Bytes(bytes) => parse_i64(bytes).ok_or(Error::NOT_INTEGER),
        }
    }

    /// A copy of the bytes.
    pub fn to_vec(self) -> Vec<u8> {
        self.bytes(&mut IntBuf::new()).to_vec()
    }
}

/// The kind byte and the value of a string that is set whole. `shared` is the request's own buffer
/// when the string is a big argument, so that it is not copied.
#[inline]
pub fn encode<'a>(bytes: &'a [u8], shared: Option<&Arc<Vec<u8>>>) -> (u8, New<'a>) {
    if bytes.len() <= 20
        && let Some(n) = parse_i64(bytes)
    {
        return (kind::INT, New::Int(n));
    }
    let tag = if bytes.len() <= EMBSTR_MAX {
        kind::EMBSTR
    } else {
        kind::RAW
    };
    (tag, encode_raw(bytes, shared))
}

/// The value of a string that stays a string even if its text is that of an integer, such as the
/// result of INCRBYFLOAT.
pub fn encode_raw<'a>(bytes: &'a [u8], shared: Option<&Arc<Vec<u8>>>) -> New<'a> {
    match shared {
        Some(shared) => New::Obj(Value::Str(RawStr::Shared(shared.clone()))),
        None if bytes.len() <= INLINE_MAX => New::Str(bytes),
        None => New::Obj(Value::Str(RawStr::Owned(bytes.to_vec()))),
    }
}

/// The type of an entry.
pub fn type_of(entry: KeyRef) -> Type {
    kind::type_of(entry.kind())
}

/// Extends a string with zeros to at least `len` bytes, and returns its bytes, which can be changed
/// in place. The encoding becomes `raw`. `None` for an integer, or if the entry has no room: the
/// caller then stores a [`Grown`] string.
pub fn bytes_mut<'a>(entry: &'a mut KeyWrite, len: usize) -> Option<&'a mut [u8]> {
    match entry.as_ref().value() {
        ValueRef::Str(bytes) if len <= bytes.len() => {}
        ValueRef::Obj(Value::Str(_)) => {}
        _ => return None,
    }
    entry.set_kind(kind::RAW);
    let (entry, lengths) = entry.parts();
    match entry.into_value_mut() {
        ValueMut::Str(bytes) => Some(bytes),
        ValueMut::Obj(Value::Str(raw)) => {
            let bytes = raw.make_mut();
            if bytes.len() < len {
                if let Some(lengths) = lengths {
                    lengths.change(Type::String, bytes.len(), len);
                }
                bytes.resize(len, 0);
            }
            Some(bytes)
        }
        _ => None,
    }
}

/// A string that is built to replace the string of a key. Up to `INLINE_MAX` bytes are on the
/// stack.
pub struct Grown {
    short: [u8; INLINE_MAX],
    long: Vec<u8>,
    len: usize,
}

impl Grown {
    /// A string of `len` zero bytes.
    pub fn zeros(len: usize) -> Grown {
        let long = if len > INLINE_MAX {
            vec![0; len]
        } else {
            Vec::new()
        };
        Grown {
            short: [0; INLINE_MAX],
            long,
            len,
        }
    }

    /// A copy of the string in `entry`, extended with zeros to at least `len`. The caller has
    /// checked the type.
    pub fn copy(entry: KeyRef, len: usize) -> Grown {
        let mut digits = IntBuf::new();
        let old = match entry.value() {
            ValueRef::Int(n) => digits.format(n),
            ValueRef::Str(bytes) => bytes,
            ValueRef::Obj(Value::Str(raw)) => raw.bytes(),
            ValueRef::Obj(_) | ValueRef::Packed(_) => &[],
        };
        let mut grown = Grown::zeros(len.max(old.len()));
        grown.bytes_mut()[..old.len()].copy_from_slice(old);
        grown
    }

    /// The bytes of the string, which can be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.len > INLINE_MAX {
            &mut self.long
        } else {
            &mut self.short[..self.len]
        }
    }

    /// The value to be stored, with the kind `kind::RAW`. A string above `INLINE_MAX` is moved out
    /// of `self`.
    pub fn value(&mut self) -> New<'_> {
        if self.len > INLINE_MAX {
            New::Obj(Value::Str(RawStr::Owned(std::mem::take(&mut self.long))))
        } else {
            New::Str(&self.short[..self.len])
        }
    }
}
