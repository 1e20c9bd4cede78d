//! A token bucket: a number of events a second, saved up for one second. Must never read a
//! clock.

use std::time::{Duration, Instant};

/// A token bucket that holds the tokens of one second, and at least one.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// The time that one token takes to come.
    each: Duration,
    /// The time that it takes to fill the empty bucket, without the last token.
    depth: Duration,
    /// When the next token comes. Where that time is over, there are more of them, as far back as
    /// `depth`. None where no token was taken yet.
    next: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket of `rate` tokens a second, which is more than 0.
    pub(crate) fn new(rate: f64) -> Self {
        let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let each = seconds(1.0 / rate);
        Self { each, depth: seconds((1.0 - 1.0 / rate).max(0.0)), next: None }
    }

    /// Takes a token, or returns when there will be one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full = now.checked_sub(self.depth).unwrap_or(now);
        let at = self.next.map_or(full, |next| next.max(full));
        if at > now {
            return Err(at);
        }
        // Later than any clock tells: the next token never comes.
        self.next = Some(at.checked_add(self.each).unwrap_or(now + Duration::from_secs(1)));
        Ok(())
    }

    /// Gives back the token that was taken last.
    pub(crate) fn give_back(&mut self) {
        self.next = self.next.and_then(|next| next.checked_sub(self.each));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tokens there are at a moment.
    fn taken(bucket: &mut TokenBucket, now: Instant) -> usize {
        (0..10_000).take_while(|_| bucket.take(now).is_ok()).count()
    }

    #[test]
    fn a_full_bucket_has_the_tokens_of_a_second() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(100.0);
        assert_eq!(taken(&mut bucket, start), 100);
        assert_eq!(bucket.take(start), Err(start + Duration::from_millis(10)));
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(505)), 50);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 100);
    }

    #[test]
    fn a_slow_bucket_has_one_token_at_a_time() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut bucket = TokenBucket::new(0.1);
        assert_eq!(taken(&mut bucket, start), 1);
        assert_eq!(bucket.take(start), Err(start + Duration::from_secs(10)));
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(10)), 1);
    }

    #[test]
    fn a_token_that_was_given_back_is_there_again() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(2.0);
        assert_eq!(taken(&mut bucket, start), 2);
        bucket.give_back();
        assert_eq!(taken(&mut bucket, start), 1);
    }
}
