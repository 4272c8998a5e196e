//! The size limits of a list's listpacks: `list-max-listpack-size` and `list-compress-depth`.

/// The bytes that a listpack entry is assumed to take besides its text when a node is checked for
/// room.
const ENTRY_OVERHEAD: usize = 8;
/// The maximum size in bytes of a quicklist node if `list-max-listpack-size` limits its number of
/// elements.
const COUNTED_NODE_BYTES: usize = 8192;
/// The maximum sizes in bytes of a quicklist node for `list-max-listpack-size` -1 .. -5.
const NODE_BYTES: [usize; 5] = [4096, 8192, 16_384, 32_768, 65_536];

/// The size limits of a list's nodes, from the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLimits {
    /// `list-max-listpack-size`: the number of elements of a node if positive (0 counts as 1), a
    /// size class from -1 to -5 if negative.
    pub fill: i32,
    /// `list-compress-depth`: the number of nodes at either end that are never compressed; 0
    /// compresses none.
    pub compress_depth: u32,
    /// The size in bytes from which on an element gets a node of its own; with 0, this size follows
    /// from `fill`. Only DEBUG QUICKLIST-PACKED-THRESHOLD sets another value than 0.
    pub packed_threshold: usize,
}

impl Default for ListLimits {
    fn default() -> Self {
        Self {
            fill: -2,
            compress_depth: 0,
            packed_threshold: 0,
        }
    }
}

impl ListLimits {
    /// The maximum size in bytes of a node that a negative `fill` selects; `None` if `fill` is a
    /// number of elements.
    fn node_bytes(&self) -> Option<usize> {
        let class = usize::try_from(self.fill.checked_neg()?).ok()?;
        let class = class.checked_sub(1)?.min(NODE_BYTES.len() - 1);
        Some(NODE_BYTES[class])
    }

    fn node_count(&self) -> usize {
        usize::try_from(self.fill).unwrap_or(0).max(1)
    }

    /// Whether a listpack of `bytes` bytes and `count` elements is too big for one node.
    #[inline]
    pub fn exceeded_by(&self, bytes: usize, count: usize) -> bool {
        match self.node_bytes() {
            Some(limit) => bytes > limit,
            None => bytes > COUNTED_NODE_BYTES || count > self.node_count(),
        }
    }

    /// Whether a node of `bytes` bytes and `count` elements has room for a text of `len` bytes
    /// more.
    #[inline]
    pub(super) fn admits(&self, bytes: usize, count: usize, len: usize) -> bool {
        !self.exceeded_by(bytes + len + ENTRY_OVERHEAD, count + 1)
    }

    /// Whether a text of `len` bytes needs a node of its own.
    #[inline]
    pub fn is_large(&self, len: usize) -> bool {
        match self.packed_threshold {
            0 => len > self.node_bytes().unwrap_or(COUNTED_NODE_BYTES),
            threshold => len >= threshold,
        }
    }

    /// Whether a quicklist of one node is small enough to become a listpack. After a removal the
    /// quicklist's node must be at most half of the limit, so that a list whose size is near the
    /// limit is not converted back and forth.
    pub fn fits_listpack(&self, bytes: usize, count: usize, after_removal: bool) -> bool {
        let divisor = 1 + usize::from(after_removal);
        match self.node_bytes() {
            Some(limit) => bytes <= limit / divisor,
            None => count <= self.node_count() / divisor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(fill: i32) -> ListLimits {
        ListLimits {
            fill,
            ..ListLimits::default()
        }
    }

    #[test]
    fn a_negative_fill_is_a_size() {
        for (fill, bytes) in [
            (-1, 4096),
            (-2, 8192),
            (-5, 65_536),
            (-6, 65_536),
            (i32::MIN + 1, 65_536),
        ] {
            assert!(!limits(fill).exceeded_by(bytes, 1_000_000));
            assert!(limits(fill).exceeded_by(bytes + 1, 1));
            assert!(limits(fill).is_large(bytes + 1) && !limits(fill).is_large(bytes));
            assert!(limits(fill).fits_listpack(bytes / 2, 99, true));
            assert!(!limits(fill).fits_listpack(bytes / 2 + 1, 1, true));
            assert!(limits(fill).fits_listpack(bytes, 1, false));
        }
    }

    #[test]
    fn a_positive_fill_is_a_count_and_a_safe_size() {
        assert!(!limits(3).exceeded_by(8192, 3));
        assert!(limits(3).exceeded_by(10, 4) && limits(3).exceeded_by(8193, 1));
        assert!(!limits(0).exceeded_by(10, 1) && limits(0).exceeded_by(10, 2));
        assert!(limits(3).fits_listpack(1 << 20, 1, true) && !limits(3).fits_listpack(1, 2, true));
        assert!(limits(3).is_large(8193) && !limits(3).is_large(8192));
    }

    #[test]
    fn a_threshold_overrides_the_fill() {
        let limits = ListLimits {
            packed_threshold: 5,
            ..limits(-2)
        };
        assert!(limits.is_large(5) && !limits.is_large(4));
    }
}
