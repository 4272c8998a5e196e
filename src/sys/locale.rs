//! The order of texts in the user's language: `locale-collate`, SORT ALPHA.
//!
//! In the C locale, and in locales that sort by code point, bytes are compared. In other locales
//! each comparison is a `strcoll` of two copies, since C strings end with a NUL.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether the locale has an order other than that of bytes.
static COLLATES: AtomicBool = AtomicBool::new(false);

/// Sets the locale by name; the empty name stands for the locale of the environment. Returns false,
/// and keeps the old locale, if there is no such locale.
pub fn set_collate(name: &[u8]) -> bool {
    let Ok(name) = CString::new(name) else {
        return false;
    };
    // SAFETY: the name is a C string. Only the main thread sets locales and compares by them.
    let chosen = unsafe { libc::setlocale(libc::LC_COLLATE, name.as_ptr()) };
    if chosen.is_null() {
        return false;
    }
    // SAFETY: the pointer is not null, so it is a C string, which stays until the next call.
    let chosen = unsafe { CStr::from_ptr(chosen) }.to_bytes();
    let plain =
        chosen.is_empty() || chosen == b"POSIX" || chosen == b"C" || chosen.starts_with(b"C.");
    COLLATES.store(!plain, Relaxed);
    true
}

thread_local! {
    static COPIES: RefCell<[Vec<u8>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Compares two texts in the order of the locale. In a locale with its own order, a text ends at
/// its first NUL, as in C.
pub fn collate(a: &[u8], b: &[u8]) -> Ordering {
    if !COLLATES.load(Relaxed) {
        return a.cmp(b);
    }
    COPIES.with_borrow_mut(|copies| {
        for (copy, text) in copies.iter_mut().zip([a, b]) {
            copy.clear();
            copy.extend_from_slice(text);
            copy.push(0);
        }
        // SAFETY: both copies end with a NUL and live until the call returns.
        unsafe { libc::strcoll(copies[0].as_ptr().cast(), copies[1].as_ptr().cast()) }.cmp(&0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_that_does_not_exist_is_refused_and_the_old_one_stays() {
        assert!(set_collate(b"C"));
        assert!(!set_collate(b"xx_XX.nothing"));
        assert!(!set_collate(b"C\0"));
        assert_eq!(collate(b"B", b"a"), Ordering::Less, "bytes decide");
    }
}
