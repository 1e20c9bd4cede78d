//! The numbers of connections in a recording. Must never give one twice: a server counts from 1
//! again after its reset.

use std::collections::BTreeSet;

/// The numbers that were given.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// What is added to the number of a record since the last reset.
    base: u64,
    highest: u64,
    /// The numbers of records since the reset: all up to this one, and those of the set.
    all_up_to: u64,
    others: BTreeSet<u64>,
}

impl Numbers {
    /// The number of a connection in the recording, by the number of its record.
    pub(super) fn of(&mut self, record: u64) -> u64 {
        if record <= self.all_up_to || !self.others.insert(record) {
            *self = Self { base: self.highest, highest: self.highest, ..Self::default() };
            self.others.insert(record);
        }
        while self.others.remove(&(self.all_up_to + 1)) {
            self.all_up_to += 1;
        }
        let number = self.base + record;
        self.highest = self.highest.max(number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_twice() {
        let mut numbers = Numbers::default();
        let mut given = |records: &[u64]| -> Vec<u64> {
            records.iter().map(|&record| numbers.of(record)).collect()
        };
        assert_eq!(given(&[1, 3, 2, 5]), [1, 3, 2, 5]);
        assert_eq!(given(&[1, 2, 4]), [6, 7, 9]);
        assert_eq!(given(&[2, 1, 1]), [11, 10, 12]);
    }
}
