//! The result of one probe: a slot to read, replace or empty, or the place for a new element.
use super::{Element, HashTable, Home, Position};

/// What `HashTable::find_slot` found.
pub enum Slot<'a, E: Element> {
    Occupied(OccupiedSlot<'a, E>),
    Vacant(VacantSlot<'a, E>),
}

/// The slot of an element that is there.
pub struct OccupiedSlot<'a, E: Element> {
    table: &'a mut HashTable<E>,
    home: Home,
    at: Position,
}

/// A key that is not there.
pub struct VacantSlot<'a, E: Element> {
    table: &'a mut HashTable<E>,
    hash: u64,
}

impl<'a, E: Element> OccupiedSlot<'a, E> {
    #[inline(always)]
    pub(super) fn new(table: &'a mut HashTable<E>, home: Home, at: Position) -> Self {
        OccupiedSlot { table, home, at }
    }

    #[inline]
    pub fn get(&self) -> E::Ref<'_> {
        // SAFETY: the element lives in the table, which is borrowed.
        unsafe { E::by_ref(self.table.element(self.at)) }
    }

    #[inline]
    pub fn get_mut(&mut self) -> E::Mut<'_> {
        // SAFETY: the element lives in the table, which is borrowed exclusively.
        unsafe { E::by_mut(self.table.element(self.at)) }
    }

    #[inline]
    pub fn into_mut(self) -> E::Mut<'a> {
        // SAFETY: as `get_mut`, for as long as the table is borrowed.
        unsafe { E::by_mut(self.table.element(self.at)) }
    }

    /// Puts another element of the same key here and returns the old one.
    #[inline]
    pub fn replace(&mut self, element: E) -> E {
        // SAFETY: the position was found in this table, borrowed since; the old pointer left it.
        unsafe {
            E::from_raw(self.table.tables[self.home.table].replace(self.at, element.into_raw()))
        }
    }

    /// Puts here what `f` makes of the element: the same key, usually another allocation.
    #[inline]
    pub fn replace_with(self, f: impl FnOnce(E) -> E) -> E::Mut<'a> {
        let guard = AbortOnUnwind;
        // SAFETY: the slot's pointer is owned by `f` until its result overwrites it; if `f`
        // unwinds, the process aborts.
        let element = f(unsafe { E::from_raw(self.table.element(self.at)) }).into_raw();
        std::mem::forget(guard);
        // SAFETY: the position was found in this table, borrowed since; the old pointer, already
        // consumed, is only copied.
        unsafe {
            self.table.tables[self.home.table].replace(self.at, element);
            E::by_mut(element)
        }
    }

    /// Takes the element out of the table.
    pub fn remove(self) -> E {
        self.table.remove_at(self.home, self.at)
    }
}

impl<'a, E: Element> VacantSlot<'a, E> {
    #[inline(always)]
    pub(super) fn new(table: &'a mut HashTable<E>, hash: u64) -> Self {
        VacantSlot { table, hash }
    }

    /// Adds the element of the key that was looked for.
    #[inline]
    pub fn insert(self, element: E) -> E::Mut<'a> {
        self.table.add(self.hash, element)
    }
}

/// Ends the process when dropped: a slot whose element has been taken must never be seen again.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}
