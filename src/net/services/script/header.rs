//! The header of a frame: the length of what follows it. Must never keep input.

use super::verdict::Verdict;

/// The header of a frame: an unsigned number, with other bytes before and behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// Bytes of the whole header.
    pub(super) bytes: usize,
    first: usize,
    end: usize,
    is_little: bool,
    /// Is added to the number, which may count the header as well.
    adjust: i64,
}

/// The most bytes of a header.
const MOST_HEADER: usize = 255;

impl Header {
    /// By its format in Python's `struct`: ">I", "<H", "B", ">xI"; "T" is a number of three bytes.
    pub(super) fn of(format: &str) -> Option<Self> {
        let (is_little, codes) = match format.strip_prefix(['>', '!']) {
            Some(codes) => (false, codes),
            None => format.strip_prefix('<').map_or((false, format), |codes| (true, codes)),
        };
        let (mut bytes, mut number, mut repeated) = (0_usize, None, String::new());
        for code in codes.chars() {
            let width = match code {
                '0'..='9' => {
                    repeated.push(code);
                    continue;
                }
                'x' => {
                    let count = if repeated.is_empty() { 1 } else { repeated.parse().ok()? };
                    bytes = bytes.checked_add(count).filter(|&bytes| bytes <= MOST_HEADER)?;
                    repeated.clear();
                    continue;
                }
                'B' => 1,
                'H' => 2,
                'T' => 3,
                'I' | 'L' => 4,
                'Q' => 8,
                _ => return None,
            };
            if number.is_some() || !repeated.is_empty() {
                return None;
            }
            number = Some((bytes, bytes + width));
            bytes += width;
        }
        let (first, end) = number.filter(|_| repeated.is_empty())?;
        Some(Self { bytes, first, end, is_little, adjust: 0 })
    }

    /// The same, where `adjust` is added to the number.
    pub(super) fn adjusted(self, adjust: i64) -> Self {
        Self { adjust, ..self }
    }

    /// Judges input that begins with a header and what it announces, which is captured if it has a
    /// name.
    pub(super) fn judge(self, input: &[u8], limit: usize, name: Option<&str>) -> Verdict {
        let Some(head) = input.get(..self.bytes) else { return Verdict::Open };
        let length = self.length(head);
        match usize::try_from(length).ok().filter(|&length| length <= limit) {
            None if length < 0 => Verdict::Failed(format!(
                "the header announces {} bytes, too few for adjust={}",
                length - i128::from(self.adjust),
                self.adjust
            )),
            None => Verdict::Failed(format!(
                "the header announces {length} bytes, over the limit of {limit}"
            )),
            Some(length) => match input.get(self.bytes..self.bytes + length) {
                Some(body) => Verdict::named(self.bytes + length, name, body),
                None => Verdict::Open,
            },
        }
    }

    /// How many bytes follow a header.
    fn length(self, header: &[u8]) -> i128 {
        let number = &header[self.first..self.end];
        let digit = |length: u64, &byte: &u8| length << 8 | u64::from(byte);
        let number = if self.is_little {
            number.iter().rev().fold(0, digit)
        } else {
            number.iter().fold(0, digit)
        };
        i128::from(number) + i128::from(self.adjust)
    }
}

#[cfg(test)]
mod tests {
    use super::super::expectation::Expectation;
    use super::*;

    #[test]
    fn a_frame_has_the_length_of_its_header() {
        for (format, input) in [(">H", &b"\0\x02abc"[..]), ("<H", b"\x02\0abc"), ("B", b"\x02abc")]
        {
            let header = Header::of(format).unwrap();
            let frame = Expectation::Frame { header, limit: 10, name: None };
            let all = header.bytes + 2;
            assert_eq!(frame.judge(input, false, 0).used(), Some(all), "{format}");
            for cut in 0..all {
                assert_eq!(frame.judge(&input[..cut], false, 0), Verdict::Open, "{format} {cut}");
            }
        }
        let header = Header::of(">Q").unwrap();
        let frame = Expectation::Frame { header, limit: 10, name: None };
        assert!(matches!(frame.judge(&[255; 8], false, 0), Verdict::Failed(_)));
        for wrong in [">i", "", "x", "HH", "2H", ">", "H3", "256xH", "99999999999999999999xH"] {
            assert!(Header::of(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_header_may_have_other_bytes_and_count_itself() {
        let frame = |format, adjust, input: &[u8]| {
            let header = Header::of(format).unwrap().adjusted(adjust);
            let name = Some("body".into());
            Expectation::Frame { header, limit: 10, name }.judge(input, false, 0)
        };
        let body = |verdict: Verdict| {
            let Verdict::Met { used, captures } = verdict else { panic!("{verdict:?}") };
            (used, captures[0].1.clone())
        };
        assert_eq!(body(frame(">xI", -4, b"Q\0\0\0\x06ab")), (7, b"ab".to_vec()));
        assert_eq!(body(frame("<Tx", 0, b"\x02\0\0\x07ab")), (6, b"ab".to_vec()));
        assert_eq!(body(frame("2xH3x", 0, b"..\0\x01...a")), (8, b"a".to_vec()));
        assert_eq!(frame(">xI", -4, b"Q\0\0\0"), Verdict::Open);
        assert!(
            matches!(frame(">xI", -4, b"Q\0\0\0\x03"), Verdict::Failed(why) if why.contains("3 bytes"))
        );
    }
}
