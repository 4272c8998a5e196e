//! Bytes after a field with their length: the form in which a member of a big set or sorted set is
//! stored.
//!
//! ```text
//!   | length 1, 5 or 9 bytes | bytes |
//!     < 254: itself    254: u32 follows    255: u64 follows
//! ```
//!
//! The length gives the end of the bytes and the size of the allocation, so a thin pointer
//! suffices.
//! **Invariant:** [`read`] returns the bytes that [`write`] wrote, at every length
//! (`tests::every_form_is_read_back`).

use std::ptr::NonNull;

const LENGTH_IN_U32: u8 = 254;
const LENGTH_IN_U64: u8 = 255;

/// The number of bytes that the length field takes for `len`.
fn length_bytes(len: usize) -> usize {
    match len {
        0..254 => 1,
        254..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The size of `len` bytes with their length field. A slice never exceeds `isize::MAX` bytes, so
/// the sum can't overflow.
pub fn size(len: usize) -> usize {
    length_bytes(len) + len
}

/// # Safety
/// `p` is good for writes of [`size`] bytes.
#[inline]
pub unsafe fn write(p: NonNull<u8>, bytes: &[u8]) {
    let skip = length_bytes(bytes.len());
    // SAFETY: the caller promises room for `size` bytes, which the length and the bytes take
    // together.
    unsafe {
        match skip {
            1 => p.write(bytes.len() as u8),
            5 => {
                p.write(LENGTH_IN_U32);
                p.add(1).cast::<u32>().write_unaligned(bytes.len() as u32);
            }
            _ => {
                p.write(LENGTH_IN_U64);
                p.add(1).cast::<u64>().write_unaligned(bytes.len() as u64);
            }
        }
        p.add(skip)
            .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
    }
}

/// # Safety
/// `p` was passed to [`write`], and the written bytes live and are not changed during `'a`.
#[inline(always)]
pub unsafe fn read<'a>(p: NonNull<u8>) -> &'a [u8] {
    // SAFETY: the caller promises that `write` has stored a length and this number of bytes at `p`.
    unsafe {
        let (len, skip) = match p.read() {
            LENGTH_IN_U32 => (p.add(1).cast::<u32>().read_unaligned() as usize, 5),
            LENGTH_IN_U64 => (p.add(1).cast::<u64>().read_unaligned() as usize, 9),
            short => (usize::from(short), 1),
        };
        NonNull::slice_from_raw_parts(p.add(skip), len).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_back() {
        for len in [0, 1, 253, 254, 255, 256, 70_000] {
            let bytes = crate::ds::numbered(len);
            let mut block = vec![0xee; size(len)];
            let p = NonNull::new(block.as_mut_ptr()).expect("a block");
            // SAFETY: the block has the size that `size` returned, and outlives the bytes that are
            // read.
            let found = unsafe {
                write(p, &bytes);
                read(p)
            };
            assert_eq!(found, bytes);
        }
    }
}
