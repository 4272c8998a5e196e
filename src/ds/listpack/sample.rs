//! Draws random elements of a listpack in one walk, for SRANDMEMBER, HRANDFIELD and ZRANDMEMBER.
//!
//! A *record* of a listpack is `stride` entries: 1 in a set, 2 in a hash or a sorted set. The
//! closure `below(n)` draws a random number below `n`.

use super::{Listpack, Pos};
use crate::util::selection_sampling::Selection;

impl Listpack {
    fn records(&self, stride: usize) -> usize {
        self.len() / stride
    }

    /// The position of a random record of the listpack; all records are equally likely.
    pub fn random(&self, stride: usize, below: &mut impl FnMut(usize) -> usize) -> Option<Pos> {
        let total = self.records(stride);
        if total == 0 {
            return None;
        }
        self.seek((below(total) * stride) as i64)
    }

    /// Passes the positions of `count` random records to `visit`, in the order in which they are
    /// drawn. The draws are independent, so a record may be drawn again.
    pub fn sample(
        &self,
        stride: usize,
        count: usize,
        below: &mut impl FnMut(usize) -> usize,
        mut visit: impl FnMut(Pos),
    ) {
        let total = self.records(stride);
        if total == 0 {
            return;
        }
        let mut picks: Vec<(usize, usize)> = (0..count).map(|turn| (below(total), turn)).collect();
        picks.sort_unstable();
        let mut drawn = vec![0; count];
        let mut at = (0, self.first());
        for (record, turn) in picks {
            at = (record, self.skip(at.1, (record - at.0) * stride));
            drawn[turn] = at.1.expect("a record below the total");
        }
        drawn.into_iter().for_each(&mut visit);
    }

    /// Passes the positions of `count` different random records, or of all records if there are
    /// fewer, to `visit`, in the order of the listpack.
    pub fn sample_unique(
        &self,
        stride: usize,
        count: usize,
        below: &mut impl FnMut(usize) -> usize,
        mut visit: impl FnMut(Pos),
    ) {
        let mut selection = Selection::of(count, self.records(stride));
        let mut pos = self.first();
        while let Some(here) = pos.filter(|_| !selection.is_complete()) {
            if selection.takes(below) {
                visit(here);
            }
            pos = self.skip(pos, stride);
        }
    }

    fn skip(&self, from: Option<Pos>, entries: usize) -> Option<Pos> {
        (0..entries).try_fold(from?, |pos, _| self.next(pos))
    }
}
