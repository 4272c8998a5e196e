//! Lends a value to code further down the call stack that can't get the value as an argument. The
//! server lends the event loop to the few commands that let the loop turn while they run.
//!
//! **Invariants**
//! - The lent value can be reached only while [`Lent::lend`] runs, whose caller can't use it
//!   meanwhile.
//! - The reference is taken out of `Lent` while it is in use, so there is never a second reference.

use std::cell::Cell;
use std::ptr::NonNull;

/// Holds the reference to a `T` while the `T` is lent, and nothing otherwise.
pub struct Lent<T> {
    place: Cell<Option<NonNull<T>>>,
}

impl<T> Default for Lent<T> {
    fn default() -> Lent<T> {
        Lent {
            place: Cell::new(None),
        }
    }
}

impl<T> Lent<T> {
    /// Lends `value` while `during` runs.
    pub fn lend<R>(&self, value: &mut T, during: impl FnOnce() -> R) -> R {
        let before = self.place.replace(Some(NonNull::from(value)));
        let result = during();
        self.place.set(before);
        result
    }

    /// Calls `then` with the lent value. `None` if nothing is lent, or if the lent value is already
    /// in use.
    pub fn borrow<R>(&self, then: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.place.take()?;
        // SAFETY: `lend` holds the only reference and does not use it; no other code gets the
        // reference while it is taken out.
        let result = then(unsafe { value.as_mut() });
        self.place.set(Some(value));
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_to_one_at_a_time_and_not_for_longer() {
        let (lent, mut value) = (Lent::default(), 1);
        assert_eq!(lent.borrow(|_: &mut i32| ()), None);
        let seen = lent.lend(&mut value, || {
            lent.borrow(|v| {
                *v += 1;
                assert_eq!(lent.borrow(|_| ()), None, "it is in use");
                *v
            })
        });
        assert_eq!((seen, value), (Some(2), 2));
        assert_eq!(lent.borrow(|_| ()), None);
    }
}
