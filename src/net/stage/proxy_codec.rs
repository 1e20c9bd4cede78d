//! Headers of the PROXY protocol as bytes, of version 1 or 2. Owns their syntax; must never
//! read beyond a header, nor wait for more bytes than the longest one has.
//!
//! The specification is `doc/proxy-protocol.txt` of HAProxy. The crate `ppp` is not used: it
//! verifies no checksum, and depends on a second version of `syn`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::address::{Address, UnixName, canonical};
use crate::net::base::quoted;
use crate::net::ledger::ProxyHeader;

/// What a header of version 1 begins with.
const TEXT: &[u8] = b"PROXY ";
/// The longest header of version 1, its ending included.
const LONGEST_TEXT: usize = 107;
/// What a header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part of version 2 that has a fixed length.
const FIXED: usize = 16;
/// PP2_TYPE_CRC32C.
const CHECKSUM: u8 = 0x03;
/// PP2_TYPE_NOOP.
const PADDING: u8 = 0x04;
/// Bytes of a Unix socket's name in a header.
const UNIX_NAME: usize = 108;
/// How much of something that is no header is shown.
const SHOWN: usize = 24;

/// Whether a TLV says something about the connection, and not about the header that it is in.
pub(crate) fn is_passed_on(kind: u8) -> bool {
    kind != CHECKSUM && kind != PADDING
}

/// Reads the header at the start of `bytes`: None where more bytes must come first. The error says
/// why it is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, String> {
    let begins = |with: &[u8]| {
        let shared = with.len().min(bytes.len());
        bytes[..shared] == with[..shared]
    };
    if begins(SIGNATURE) {
        parse_binary(bytes)
    } else if begins(TEXT) {
        parse_text(bytes)
    } else {
        Err(format!("it begins with {}", quoted(&bytes[..bytes.len().min(SHOWN)], '"')))
    }
}

fn parse_text(bytes: &[u8]) -> Result<Option<ProxyHeader>, String> {
    let window = &bytes[..bytes.len().min(LONGEST_TEXT)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        if window.len() == LONGEST_TEXT {
            return Err(format!("no end of the line within {LONGEST_TEXT} bytes"));
        }
        return Ok(None);
    };
    let line = window[..end].strip_suffix(b"\r");
    let line = line.ok_or("its line ends without a carriage return")?;
    let wrong = || format!("not a line of version 1: {}", quoted(line, '"'));
    let line = std::str::from_utf8(line).map_err(|_| wrong())?;
    let mut words = line.split(' ').skip(1);
    let protocol = words.next().unwrap_or_default();
    let addresses = match protocol {
        // What follows is ignored.
        "UNKNOWN" => None,
        "TCP4" | "TCP6" => {
            let mut host = || {
                let text = words.next()?;
                match protocol {
                    "TCP4" => text.parse().ok().map(IpAddr::V4),
                    _ => text.parse().ok().map(IpAddr::V6),
                }
            };
            let (from, to) = (host().ok_or_else(wrong)?, host().ok_or_else(wrong)?);
            let mut port = || words.next().and_then(decimal).ok_or_else(wrong);
            let (from, to) = (SocketAddr::new(from, port()?), SocketAddr::new(to, port()?));
            if words.next().is_some() {
                return Err(wrong());
            }
            Some((Address::Ip(canonical(from)), Address::Ip(canonical(to))))
        }
        _ => return Err(wrong()),
    };
    let (source, destination) = addresses.unzip();
    Ok(Some(ProxyHeader { version: 1, source, destination, tlvs: Vec::new(), length: end + 1 }))
}

/// A port as version 1 writes it, without leading zeros.
fn decimal(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if plain && !padded { text.parse().ok() } else { None }
}

fn parse_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, String> {
    let byte = |at: usize| bytes.get(at).copied();
    // Each byte is checked as it comes.
    if byte(12).is_some_and(|byte| byte >> 4 != 2) {
        return Err(format!("version {} in a header of version 2", bytes[12] >> 4));
    }
    let is_local = match byte(12).map(|byte| byte & 15) {
        Some(0) => true,
        Some(1) | None => false,
        Some(other) => return Err(format!("unknown command {other}")),
    };
    let family = byte(13);
    if let Some(family) = family.filter(|family| family >> 4 > 3 || family & 15 > 2) {
        return Err(format!("unknown address family 0x{family:02x}"));
    }
    let (Some(family), Some(&[high, low])) = (family, bytes.get(14..FIXED).map(as_pair)) else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    let needed = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 2 * UNIX_NAME,
        _ => 0,
    };
    if !is_local && length < FIXED + needed {
        let found = length - FIXED;
        return Err(format!("{found} bytes for addresses of {needed} bytes"));
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let rest = &header[FIXED..];
    // Both parts of the family tell whether there are addresses.
    let is_told = !is_local && family >> 4 != 0 && family & 15 != 0;
    let (source, destination) = is_told.then(|| addresses(family >> 4, rest)).unzip();
    // The addresses of a LOCAL header are skipped, where it has any.
    let tlvs = parse_tlvs(rest.get(needed..).unwrap_or_default());
    let tlvs = if is_local { tlvs.unwrap_or_default() } else { tlvs? };
    check(header, needed, &tlvs)?;
    Ok(Some(ProxyHeader { version: 2, source, destination, tlvs, length }))
}

fn as_pair(bytes: &[u8]) -> &[u8; 2] {
    bytes.try_into().expect("two bytes")
}

/// The addresses of a family, which `bytes` begin with.
fn addresses(family: u8, bytes: &[u8]) -> (Address, Address) {
    let port = |at: usize| u16::from_be_bytes(*as_pair(&bytes[at..at + 2]));
    let ip = |host: IpAddr, port| Address::Ip(canonical(SocketAddr::new(host, port)));
    match family {
        1 => {
            let host = |at: usize| {
                let octets: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
                IpAddr::from(octets)
            };
            (ip(host(0), port(8)), ip(host(4), port(10)))
        }
        2 => {
            let host = |at: usize| {
                let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
                IpAddr::from(octets)
            };
            (ip(host(0), port(32)), ip(host(16), port(34)))
        }
        _ => {
            let name = |at: usize| {
                let name = &bytes[at..at + UNIX_NAME];
                // An abstract name begins with a NUL, and ends at the last other byte.
                let end = match name[0] {
                    0 => name.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1),
                    _ => name.iter().position(|&byte| byte == 0).unwrap_or(UNIX_NAME),
                };
                let name = UnixName::new(&name[..end]);
                Address::Unix(name.unwrap_or_else(|_| UnixName::unnamed()))
            };
            (name(0), name(UNIX_NAME))
        }
    }
}

fn parse_tlvs(mut bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let value = bytes.get(1..3).map(as_pair).and_then(|length| {
            let end = 3 + usize::from(u16::from_be_bytes(*length));
            bytes.get(3..end)
        });
        let Some(value) = value else {
            return Err(format!("field 0x{:02x} reaches beyond its end", bytes[0]));
        };
        found.push((bytes[0], value.to_vec()));
        bytes = &bytes[3 + value.len()..];
    }
    Ok(found)
}

/// Checks the checksum of a header that has one.
fn check(header: &[u8], addresses: usize, tlvs: &[(u8, Vec<u8>)]) -> Result<(), String> {
    let mut at = FIXED + addresses;
    for (kind, value) in tlvs {
        if *kind == CHECKSUM {
            let found: [u8; 4] = value
                .as_slice()
                .try_into()
                .map_err(|_| format!("a checksum of {} bytes", value.len()))?;
            // It is computed over the header with zeros where it stands.
            let mut zeroed = header.to_vec();
            zeroed[at + 3..at + 7].fill(0);
            if crc32c(&zeroed) != u32::from_be_bytes(found) {
                return Err("its checksum is wrong".to_owned());
            }
        }
        at += 3 + value.len();
    }
    Ok(())
}

/// CRC-32C (RFC 4960, appendix B). Few headers have one, so that a table is not worth its memory.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// The bytes of a header. Version 1 has no TLVs, and says UNKNOWN where it cannot write an address.
/// Two addresses of different families are both written as IPv6. The error says what does not fit.
pub(crate) fn encode(header: &ProxyHeader) -> Result<Vec<u8>, String> {
    let ends = header.source.as_ref().zip(header.destination.as_ref());
    if header.version == 1 {
        return Ok(match ends.and_then(|(from, to)| as_ips(from, to)) {
            Some((from, to)) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                let (source, destination) = (from.port(), to.port());
                format!("PROXY {family} {} {} {source} {destination}\r\n", from.ip(), to.ip())
                    .into_bytes()
            }
            None => b"PROXY UNKNOWN\r\n".to_vec(),
        });
    }
    let mut rest = Vec::new();
    let family = match ends {
        None => 0x00,
        Some((Address::Unix(from), Address::Unix(to))) => {
            for name in [from, to] {
                let mut padded = name.bytes().to_vec();
                padded.resize(UNIX_NAME, 0);
                rest.extend(padded);
            }
            0x31
        }
        Some((from, to)) => match as_ips(from, to) {
            None => 0x00,
            Some((from, to)) => {
                for address in [from, to] {
                    match address.ip() {
                        IpAddr::V4(v4) => rest.extend(v4.octets()),
                        IpAddr::V6(v6) => rest.extend(v6.octets()),
                    }
                }
                rest.extend(from.port().to_be_bytes());
                rest.extend(to.port().to_be_bytes());
                if from.is_ipv4() { 0x11 } else { 0x21 }
            }
        },
    };
    for (kind, value) in &header.tlvs {
        let length = u16::try_from(value.len())
            .map_err(|_| format!("field 0x{kind:02x} has {} bytes, above 65535", value.len()))?;
        rest.push(*kind);
        rest.extend(length.to_be_bytes());
        rest.extend(value);
    }
    let length = u16::try_from(rest.len())
        .map_err(|_| format!("{} bytes behind the first {FIXED}, above 65535", rest.len()))?;
    // LOCAL where there is nothing to tell.
    let command = if ends.is_some() { 0x21 } else { 0x20 };
    let mut bytes = [SIGNATURE, &[command, family], &length.to_be_bytes()].concat();
    bytes.extend(rest);
    Ok(bytes)
}

/// Two addresses of one family; None if one of them is a Unix socket's.
fn as_ips(from: &Address, to: &Address) -> Option<(SocketAddr, SocketAddr)> {
    let (from, to) = (canonical(from.as_ip()?), canonical(to.as_ip()?));
    if from.is_ipv4() == to.is_ipv4() {
        return Some((from, to));
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(Ipv4Addr::to_ipv6_mapped(&v4).into(), address.port()),
        IpAddr::V6(v6) => SocketAddr::new(Ipv6Addr::from_bits(v6.to_bits()).into(), address.port()),
    };
    Some((mapped(from), mapped(to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<Address> {
        Some(Address::Ip(text.parse().unwrap()))
    }

    /// A header in both directions, and cut at every byte.
    fn round_trip(header: &ProxyHeader) -> Vec<u8> {
        let bytes = encode(header).unwrap();
        let parsed = parse(&bytes).unwrap().unwrap();
        assert_eq!(parsed, ProxyHeader { length: bytes.len(), ..header.clone() });
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(parse(&[&bytes, &b"PROXY more"[..]].concat()).unwrap().unwrap(), parsed);
        bytes
    }

    #[test]
    fn headers_are_read_as_they_are_written() {
        let mut header = ProxyHeader {
            version: 1,
            source: ip("192.0.2.1:56324"),
            destination: ip("192.0.2.2:443"),
            tlvs: Vec::new(),
            length: 0,
        };
        assert_eq!(round_trip(&header), b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n");
        header.version = 2;
        assert_eq!(round_trip(&header).len(), 28);
        header.tlvs = vec![(1, b"h2".to_vec()), (2, b"example.org".to_vec()), (4, Vec::new())];
        round_trip(&header);
        header.source = ip("[2001:db8::1]:1");
        header.destination = ip("[2001:db8::2]:65535");
        round_trip(&header);
        (header.version, header.tlvs) = (1, Vec::new());
        assert_eq!(round_trip(&header), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n");
        (header.source, header.destination) = (None, None);
        assert_eq!(round_trip(&header), b"PROXY UNKNOWN\r\n");
        header.version = 2;
        assert_eq!(round_trip(&header).len(), 16);
        for name in [&b"/run/x.sock"[..], b"\0abstract", b""] {
            let name = UnixName::new(name).unwrap_or_else(|_| UnixName::unnamed());
            header.source = Some(Address::Unix(name));
            header.destination = header.source.clone();
            round_trip(&header);
        }
    }

    #[test]
    fn addresses_of_two_families_are_written_as_ipv6() {
        let header = ProxyHeader {
            version: 2,
            source: ip("192.0.2.1:1"),
            destination: ip("[2001:db8::2]:2"),
            tlvs: Vec::new(),
            length: 52,
        };
        assert_eq!(parse(&encode(&header).unwrap()), Ok(Some(header)));
    }

    #[test]
    fn unknown_and_local_headers_tell_no_address() {
        let known = parse(b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\nrest").unwrap().unwrap();
        assert_eq!((known.source, known.length), (None, 43));
        let mut bytes = [SIGNATURE, b"\x20\x11\x00\x0c", &[7; 12]].concat();
        let header = parse(&bytes).unwrap().unwrap();
        assert_eq!((header.source, header.length), (None, 28));
        // PROXY, of an unspecified family.
        bytes[12..14].copy_from_slice(b"\x21\x00");
        bytes[15] = 0;
        assert_eq!(parse(&bytes).unwrap().unwrap().source, None);
    }

    #[test]
    fn the_checksum_of_a_header_is_verified() {
        // "123456789" is the check value of the algorithm.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut header = ProxyHeader {
            version: 2,
            source: ip("192.0.2.1:1"),
            destination: ip("192.0.2.2:2"),
            tlvs: vec![(CHECKSUM, vec![0; 4]), (5, b"id".to_vec())],
            length: 0,
        };
        let sum = crc32c(&encode(&header).unwrap());
        header.tlvs[0].1 = sum.to_be_bytes().to_vec();
        let mut bytes = round_trip(&header);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&bytes), Err("its checksum is wrong".to_owned()));
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_it_shows() {
        let wrong = |bytes: &[u8], why: &str| {
            let error = parse(bytes).expect_err(why);
            assert!(error.contains(why), "{error}");
        };
        wrong(b"GET / HTTP/1.1\r\n", "it begins with b\"GET / HTTP/1.1\\r\\n\"");
        wrong(b"PROXx", "it begins with");
        wrong(b"PROXY \n", "carriage return");
        wrong(&[b"PROXY ", &[b' '; 101][..]].concat(), "within 107 bytes");
        for line in [
            "TCP4 1.2.3.4 5.6.7.8 1",
            "TCP4 1.2.3.4 5.6.7.8 01 2",
            "TCP4 1.2.3.4 5.6.7.8 1 65536",
            "TCP4 1.2.3.4 5.6.7.8 1 2 3",
            "TCP4 1.2.3.4  5.6.7.8 1 2",
            "TCP4 ::1 ::2 1 2",
            "TCP6 1.2.3.4 5.6.7.8 1 2",
            "TCP4 1.2.3.4 5.6.7.8 +1 2",
            "UDP4 1.2.3.4 5.6.7.8 1 2",
            "",
        ] {
            wrong(format!("PROXY {line}\r\n").as_bytes(), "not a line of version 1");
        }
        let binary = |rest: &[u8]| [SIGNATURE, rest].concat();
        wrong(&binary(b"\x11"), "version 1 in a header");
        wrong(&binary(b"\x22"), "unknown command 2");
        wrong(&binary(b"\x21\x41"), "unknown address family 0x41");
        wrong(&binary(b"\x21\x13"), "unknown address family 0x13");
        wrong(&binary(b"\x21\x11\x00\x0b"), "11 bytes for addresses of 12 bytes");
        let tlv = [&b"\x21\x11\x00\x10"[..], &[0; 12], b"\x01\x00\x02x"].concat();
        wrong(&binary(&tlv), "field 0x01 reaches beyond its end");
    }
}
