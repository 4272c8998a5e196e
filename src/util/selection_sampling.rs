//! Selection sampling: chooses a number of elements from a sequence in one walk and in the order of
//! the sequence. All choices are equally likely.
//!
//! Each element is taken with the probability "still wanted / still to come" (Knuth, The Art of
//! Computer Programming, volume 2, 3.4.2, algorithm S). When all of the remaining elements are
//! wanted, the probability is one, so exactly the wanted number is taken.

/// The state of one walk over a sequence of which some elements are chosen.
pub struct Selection {
    wanted: usize,
    to_come: usize,
}

impl Selection {
    /// Chooses `count` of `total` elements, or all if there are fewer than `count`.
    pub fn of(count: usize, total: usize) -> Selection {
        Selection {
            wanted: count.min(total),
            to_come: total,
        }
    }

    /// Whether all wanted elements have been taken.
    pub fn is_complete(&self) -> bool {
        self.wanted == 0
    }

    /// Whether the next element is taken; false after the last element. `below(n)` returns a
    /// uniformly distributed number in 0..n.
    pub fn takes(&mut self, below: &mut impl FnMut(usize) -> usize) -> bool {
        let takes = self.wanted > 0 && below(self.to_come) < self.wanted;
        self.wanted -= usize::from(takes);
        self.to_come = self.to_come.saturating_sub(1);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_taken_as_were_asked_for_whatever_the_dice_say() {
        for (count, total, taken) in [(0, 5, 0), (2, 5, 2), (5, 5, 5), (9, 5, 5), (3, 0, 0)] {
            for dice in [|_| 0, |n: usize| n - 1, |n: usize| n / 2] {
                let mut selection = Selection::of(count, total);
                let picks = (0..total).filter(|_| selection.takes(&mut { dice }));
                assert_eq!(picks.count(), taken, "{count} of {total}");
                assert!(selection.is_complete());
            }
        }
    }

    #[test]
    fn each_choice_is_as_likely() {
        // The test runs through all sequences of random numbers: below 3 for the first element,
        // below 2 for the second, and 0 for the third.
        let mut times = [0; 3];
        for (first, second) in (0..3).flat_map(|first| (0..2).map(move |second| (first, second))) {
            let mut dice = [first, second, 0].into_iter();
            let mut selection = Selection::of(1, 3);
            for time in &mut times {
                // When the selection is complete, no further random number is drawn.
                let mut below = |_| dice.next().unwrap_or(0);
                *time += i32::from(selection.takes(&mut below));
            }
        }
        assert_eq!(times, [2, 2, 2]);
    }
}
