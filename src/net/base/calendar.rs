//! The Gregorian calendar in UTC, with its text form of RFC 3339. Must never depend on the time zone
//! of the process, which any thread may change.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_OF_DAY: u64 = 86_400;

/// A day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: u64,
    /// From 1.
    pub(crate) month: u8,
    /// From 1.
    pub(crate) day: u8,
}

impl Date {
    /// Days since 1970, if there is such a day, and not before 1970.
    fn days(self) -> Option<u64> {
        let Self { year, month, day } = self;
        let valid = (1970..=9999).contains(&year) && (1..=12).contains(&month);
        if !valid || day == 0 || u64::from(day) > length_of(year, month) {
            return None;
        }
        let before = year - 1;
        let leap_days = before / 4 - before / 100 + before / 400;
        let years = before * 365 + leap_days - 719_162;
        let months: u64 = (1..month).map(|month| length_of(year, month)).sum();
        Some(years + months + u64::from(day) - 1)
    }
}

/// The day that comes this number of days after 1 January 1970.
pub(crate) fn date_of(mut days: u64) -> Date {
    // The calendar repeats every 400 years; skipping whole cycles bounds the loop for any clock.
    const CYCLE: u64 = 146_097;
    let mut year = 1970 + 400 * (days / CYCLE);
    days %= CYCLE;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while days >= length_of(year, month) {
        days -= length_of(year, month);
        month += 1;
    }
    Date { year, month, day: days as u8 + 1 }
}

fn is_leap(year: u64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn length_of(year: u64, month: u8) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A time as `2026-11-28T09:05:00.000001Z`, to the microsecond.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    // A clock before 1970 was never set: use 1970.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let Date { year, month, day } = date_of(seconds / SECONDS_OF_DAY);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The time of a text that `rfc3339` has written.
pub(crate) fn time_of_rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let (time, micros) = time.split_once('.')?;
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    let [micros] = fields(micros, '.', [6])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let date = Date { year: year.into(), month: month as u8, day: day as u8 };
    let seconds = date.days()? * SECONDS_OF_DAY + u64::from(hour * 3600 + minute * 60 + second);
    Some(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros.into()))
}

/// Numbers of these widths.
fn fields<const N: usize>(text: &str, between: char, widths: [usize; N]) -> Option<[u32; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(between);
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_a_cycle_is_read_as_it_was_written() {
        for days in (0..146_097 + 800).chain([2_932_896]) {
            assert_eq!(date_of(days).days(), Some(days));
        }
        assert_eq!(date_of(2_932_896), Date { year: 9999, month: 12, day: 31 });
    }

    #[test]
    fn times_are_texts_of_rfc_3339() {
        let time = UNIX_EPOCH + Duration::new(951_827_696, 7_000);
        assert_eq!(rfc3339(time), "2000-02-29T12:34:56.000007Z");
        assert_eq!(time_of_rfc3339(&rfc3339(time)), Some(time));
        for wrong in [
            "",
            "Z",
            "2000-02-29T12:34:56Z",
            "2000-02-29T12:34:56.000007",
            "2000-02-30T12:34:56.000007Z",
            "2001-02-29T12:34:56.000007Z",
            "2000-13-01T12:34:56.000007Z",
            "2000-12-01T24:34:56.000007Z",
            "1969-12-01T12:34:56.000007Z",
            "2000-2-001T12:34:56.000007Z",
            "2000-+2-01T12:34:56.000007Z",
        ] {
            assert_eq!(time_of_rfc3339(wrong), None, "{wrong}");
        }
    }
}
