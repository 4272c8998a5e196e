//! Failure reports: the primaries that report a node as not reachable.
//!
//! A failure report is renewed when gossip repeats it, and expires after two node timeouts. With
//! hundreds of nodes failing at once there are hundreds of thousands of reports, so adding a report
//! is a binary search, and expired reports are removed only when all reports together may be a
//! majority: counting all reports at each new report would cost time that grows with the square of
//! the number of nodes.

use super::nodes::NodeIndex;

/// The failure reports about one node, ordered by the reporting node; each has the time of its last
/// renewal.
#[derive(Clone, Default, Debug)]
pub struct Reports(Vec<(NodeIndex, u64)>);

impl Reports {
    /// Adds or renews the failure report of `reporter`. Returns whether the report is new.
    pub(super) fn add(&mut self, reporter: NodeIndex, now_ms: u64) -> bool {
        let found = self.0.binary_search_by_key(&reporter, |entry| entry.0);
        match found {
            Ok(at) => self.0[at].1 = now_ms,
            Err(at) => self.0.insert(at, (reporter, now_ms)),
        }
        found.is_err()
    }

    /// Removes the failure report of `reporter`, which reaches the node again. Returns whether
    /// `reporter` had reported a failure.
    pub(super) fn remove(&mut self, reporter: NodeIndex) -> bool {
        let found = self.0.binary_search_by_key(&reporter, |entry| entry.0);
        if let Ok(at) = found {
            self.0.remove(at);
        }
        found.is_ok()
    }

    /// Whether there are no failure reports, not even expired ones.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether at least `needed` failure reports are younger than `max_age_ms`.
    pub(super) fn reach(&mut self, needed: usize, now_ms: u64, max_age_ms: u64) -> bool {
        self.0.len() >= needed && self.count(now_ms, max_age_ms) >= needed
    }

    /// The number of failure reports that are younger than `max_age_ms`. Removes older reports.
    pub(super) fn count(&mut self, now_ms: u64, max_age_ms: u64) -> usize {
        self.0
            .retain(|(_, at)| now_ms.saturating_sub(*at) <= max_age_ms);
        self.0.len()
    }

    /// Removes all failure reports about the node.
    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_once_and_expires() {
        let mut reports = Reports::default();
        assert!(reports.add(NodeIndex(3), 100) && reports.add(NodeIndex(1), 150));
        assert!(!reports.add(NodeIndex(3), 120), "renewed");
        assert!(reports.reach(2, 200, 100));
        assert!(!reports.reach(3, 200, 100));
        assert!(!reports.reach(2, 221, 100), "one is 101 ms old");
        assert!(reports.remove(NodeIndex(1)) && !reports.remove(NodeIndex(3)));
        assert!(reports.is_empty());
    }
}
