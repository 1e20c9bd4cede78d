//! The names of a certificate's owner (RFC 5280). Owns the little of DER that this takes; must
//! never judge whether a certificate is valid.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
/// The extensions of a certificate.
const EXTENSIONS: u8 = 0xa3;
/// Kinds of names in subjectAltName.
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

/// id-ce-subjectAltName, 2.5.29.17.
const ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The attributes of a name that RFC 4514 abbreviates, with those that OpenSSL does besides.
const ATTRIBUTES: [(&[u8], &str); 9] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x55, 0x04, 0x05], "serialNumber"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01], "emailAddress"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
];

/// What a certificate says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The subject, as in "CN=example.org, O=Example".
    pub subject: String,
    /// The names of subjectAltName: hosts, addresses, e-mail addresses and URIs.
    pub names: Vec<String>,
}

impl Certificate {
    /// Reads a certificate in DER; what cannot be read is left out.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let mut found = Self::default();
        let _ = found.read(der);
        found
    }

    fn read(&mut self, der: &[u8]) -> Option<()> {
        let mut body = body_of(der)?;
        // Serial number, algorithm, issuer, validity.
        for _ in 0..4 {
            body.next()?;
        }
        self.subject = subject(body.expect(SEQUENCE)?);
        // The public key.
        body.next()?;
        while let Some((tag, content)) = body.next() {
            if tag == EXTENSIONS {
                self.names = names(content);
            }
        }
        Some(())
    }
}

/// What is signed of a certificate in DER, behind its version.
fn body_of(der: &[u8]) -> Option<Reader<'_>> {
    let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
    let mut body = Reader(certificate.expect(SEQUENCE)?);
    // The version is explicit where it is not 1.
    if body.peek() == Some(0xa0) {
        body.next()?;
    }
    Some(body)
}

/// From when, and until when, a certificate in DER is valid, in seconds since 1970.
pub(super) fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let mut body = body_of(der)?;
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        body.next()?;
    }
    let mut times = Reader(body.expect(SEQUENCE)?);
    Some((seconds(times.next()?)?, seconds(times.next()?)?))
}

/// A time of a certificate, "YYMMDDHHMMSSZ" or with four digits of the year (RFC 5280, 4.1.2.5).
fn seconds((tag, text): (u8, &[u8])) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        _ => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
    };
    let mut parts = [0_i64; 5];
    for (at, part) in parts.iter_mut().enumerate() {
        *part = rest.get(2 * at..2 * at + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    // Days since 1970, with years that begin in March: a leap day is the last one of its year.
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1;
    let at = ((days - 719_468) * 24 + hour) * 3_600 + minute * 60 + second;
    Some(u64::try_from(at).unwrap_or(0))
}

fn subject(content: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut sets = Reader(content);
    while let Some((SET, set)) = sets.next() {
        let mut set = Reader(set);
        while let Some((SEQUENCE, pair)) = set.next() {
            let mut pair = Reader(pair);
            let (Some(oid), Some((_, value))) = (pair.expect(OID), pair.next()) else { continue };
            let known = ATTRIBUTES.iter().find(|(known, _)| *known == oid);
            let name = known.map_or_else(|| dotted(oid), |(_, name)| (*name).to_owned());
            parts.push(format!("{name}={}", escaped(&String::from_utf8_lossy(value))));
        }
    }
    parts.join(", ")
}

/// A value as RFC 4514 writes it, so that it does not look like another attribute.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for letter in value.chars() {
        if matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

/// An object identifier as numbers.
fn dotted(oid: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in oid {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.extend([first, number - first * 40]);
            } else {
                numbers.push(number);
            }
            number = 0;
        }
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

fn names(extensions: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut list = Reader(Reader(extensions).expect(SEQUENCE).unwrap_or_default());
    while let Some((SEQUENCE, extension)) = list.next() {
        let mut extension = Reader(extension);
        if extension.expect(OID) != Some(ALT_NAME) {
            continue;
        }
        // Whether it is critical may stand before it.
        let value = loop {
            match extension.next() {
                Some((OCTETS, value)) => break value,
                Some(_) => {}
                None => break &[],
            }
        };
        let mut names = Reader(Reader(value).expect(SEQUENCE).unwrap_or_default());
        while let Some((tag, name)) = names.next() {
            match tag {
                EMAIL | DNS | URI => found.push(String::from_utf8_lossy(name).into_owned()),
                ADDRESS => found.extend(address(name)),
                _ => {}
            }
        }
    }
    found
}

fn address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        _ => None,
    }
}

/// The rest of a value of DER.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value, with its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            let (digits, rest) = rest.split_at_checked(count).filter(|_| count <= 4)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_rfc_5280() {
        assert_eq!(seconds((UTC_TIME, b"700101000000Z")), Some(0));
        assert_eq!(seconds((UTC_TIME, b"491231235959Z")), Some(2_524_607_999));
        assert_eq!(seconds((0x18, b"20240229120000Z")), Some(1_709_208_000));
        assert_eq!(seconds((0x18, b"20240301000000Z")), Some(1_709_251_200));
        assert_eq!(seconds((UTC_TIME, b"5001")), None);
    }

    #[test]
    fn what_is_cut_or_not_a_certificate_has_no_names() {
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x80", b"hello"] {
            assert_eq!(Certificate::of(bytes), Certificate::default());
            assert_eq!(validity(bytes), None);
        }
    }
}
