//! Ranges of slots, as in the arguments of MIGRATESLOTS and SYNCSLOTS.

use std::fmt;

use crate::cluster::bitmap::Bitmap;
use crate::db::slot::SLOTS;
use crate::util::number::parse_i64;

/// Ranges of slots that do not overlap, both ends included, in the order in which they were given.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Ranges(Vec<(u16, u16)>);

impl Ranges {
    /// Parses the ranges of slots, which are pairs of numbers, at the beginning of the arguments.
    /// The second result is the number of arguments that the ranges take. The list of ranges ends
    /// at a pair that does not begin with a number. `Err` is the text of the error reply, without
    /// `ERR`.
    pub fn parse(args: &[&[u8]]) -> Result<(Ranges, usize), String> {
        let mut ranges = Ranges::default();
        let mut at = 0;
        while let Some(first) = args.get(at).and_then(|text| parse_i64(text)) {
            let last = args.get(at + 1).ok_or("No end slot for final slot range")?;
            let last = parse_i64(last).and_then(slot_of);
            let (Some(first), Some(last)) = (slot_of(first), last) else {
                return Err("Invalid or out of range slot".into());
            };
            ranges.add(first, last)?;
            at += 2;
        }
        match at {
            0 => Err("No slot ranges specified".into()),
            _ => Ok((ranges, at)),
        }
    }

    /// Adds a range of slots; `Err` if the range overlaps with an earlier range or is invalid.
    pub fn add(&mut self, first: u16, last: u16) -> Result<(), String> {
        if first > last {
            return Err(format!(
                "Start slot number {first} is greater than end slot number {last}."
            ));
        }
        let overlaps = |other: &&(u16, u16)| first <= other.1 && other.0 <= last;
        if let Some((a, b)) = self.0.iter().find(overlaps) {
            return Err(format!(
                "Slot range {first}-{last} overlaps with previous range {a}-{b}."
            ));
        }
        self.0.push((first, last));
        Ok(())
    }

    /// The ranges, as pairs of first and last slot.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u16, u16)> {
        self.0.iter().copied()
    }

    /// All slots of the ranges, in the order of the ranges.
    pub fn slots(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The slots of the ranges, as a set.
    pub fn set(&self) -> Bitmap {
        self.slots().collect()
    }

    /// The first slot of these ranges that is also in `other`.
    pub fn shared_slot(&self, other: &Ranges) -> Option<u16> {
        let set = other.set();
        self.slots().find(|slot| set.contains(*slot))
    }
}

fn slot_of(n: i64) -> Option<u16> {
    let slot = u16::try_from(n).ok();
    slot.filter(|slot| usize::from(*slot) < SLOTS)
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            write!(f, "{space}{first}-{last}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, usize), String> {
        let args: Vec<&[u8]> = text.split_whitespace().map(str::as_bytes).collect();
        Ranges::parse(&args).map(|(ranges, used)| (ranges.to_string(), used))
    }

    #[test]
    fn ranges_end_where_no_number_follows() {
        assert_eq!(parse("0 5 7 7 NODE x"), Ok(("0-5 7-7".into(), 4)));
        assert_eq!(parse("16383 16383"), Ok(("16383-16383".into(), 2)));
    }

    /// The errors have the texts of Valkey 9.1.
    #[test]
    fn each_mistake_has_its_text() {
        for (text, error) in [
            ("", "No slot ranges specified"),
            ("a 0", "No slot ranges specified"),
            ("0", "No end slot for final slot range"),
            ("0 a", "Invalid or out of range slot"),
            ("0 5 7 NODE", "Invalid or out of range slot"),
            ("0 16384", "Invalid or out of range slot"),
            ("-1 0", "Invalid or out of range slot"),
            (
                "5 1",
                "Start slot number 5 is greater than end slot number 1.",
            ),
            (
                "0 5 3 6",
                "Slot range 3-6 overlaps with previous range 0-5.",
            ),
            (
                "3 6 0 5",
                "Slot range 0-5 overlaps with previous range 3-6.",
            ),
        ] {
            assert_eq!(parse(text), Err(error.into()), "{text}");
        }
    }

    #[test]
    fn a_shared_slot_is_found() {
        let [a, b, c] = ["0 5 9 9", "6 8", "9 9"].map(|text| {
            let args: Vec<&[u8]> = text.split_whitespace().map(str::as_bytes).collect();
            Ranges::parse(&args).expect("ranges").0
        });
        assert_eq!(a.shared_slot(&b), None);
        assert_eq!(a.shared_slot(&c), Some(9));
    }
}
