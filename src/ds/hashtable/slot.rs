//! The result of one probe of the hash table: the slot of an element, or a vacant slot for a new
//! element.
use super::{Element, HashTable, Home, Position};

/// The result of `HashTable::find_slot`: the slot of the key's element, or a vacant slot.
pub enum Slot<'a, E: Element> {
    Occupied(OccupiedSlot<'a, E>),
    Vacant(VacantSlot<'a, E>),
}

/// The slot of a key that is in the table.
pub struct OccupiedSlot<'a, E: Element> {
    table: &'a mut HashTable<E>,
    home: Home,
    at: Position,
}

/// A vacant slot for a key that is not in the table.
pub struct VacantSlot<'a, E: Element> {
    table: &'a mut HashTable<E>,
    hash: u64,
}

impl<'a, E: Element> OccupiedSlot<'a, E> {
    #[inline(always)]
    pub(super) fn new(table: &'a mut HashTable<E>, home: Home, at: Position) -> Self {
        OccupiedSlot { table, home, at }
    }

    /// The element in the slot.
    #[inline]
    pub fn get(&self) -> E::Ref<'_> {
        // SAFETY: the element lives in the table, which is borrowed.
        unsafe { E::by_ref(self.table.element(self.at)) }
    }

    /// An exclusive view of the element in the slot.
    #[inline]
    pub fn get_mut(&mut self) -> E::Mut<'_> {
        // SAFETY: the element lives in the table, which is borrowed exclusively.
        unsafe { E::by_mut(self.table.element(self.at), self.table.place(self.at)) }
    }

    /// Replaces the slot's element by another element with the same key, and returns the old
    /// element.
    #[inline]
    pub fn replace(&mut self, element: E) -> E {
        // SAFETY: the position was found in this table, which has been borrowed since; the old
        // pointer has left the table.
        unsafe {
            E::from_raw(self.table.tables[self.home.table].replace(self.at, element.into_raw()))
        }
    }

    /// Replaces the slot's element by the result of `f`, which has the same key and is usually in
    /// another allocation.
    #[inline]
    pub fn replace_with(self, f: impl FnOnce(E) -> E) -> E::Mut<'a> {
        let guard = AbortOnUnwind;
        // SAFETY: the slot's pointer is owned by `f` until its result overwrites it; if `f`
        // unwinds, the process aborts.
        let element = f(unsafe { E::from_raw(self.table.element(self.at)) }).into_raw();
        std::mem::forget(guard);
        // SAFETY: the position was found in this table, which has been borrowed since; the old
        // pointer, already consumed, is only copied.
        unsafe {
            self.table.tables[self.home.table].replace(self.at, element);
            E::by_mut(element, self.table.place(self.at))
        }
    }

    /// Removes the slot's element from the table and returns it.
    pub fn remove(self) -> E {
        self.table.remove_at(self.home, self.at)
    }
}

impl<'a, E: Element> VacantSlot<'a, E> {
    #[inline(always)]
    pub(super) fn new(table: &'a mut HashTable<E>, hash: u64) -> Self {
        VacantSlot { table, hash }
    }

    /// Adds an element, whose key must be the key that was looked up.
    #[inline]
    pub fn insert(self, element: E) -> E::Mut<'a> {
        self.table.add(self.hash, element)
    }
}

/// A guard that aborts the process when it is dropped, because a slot whose element has been taken
/// must never be read again.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}
