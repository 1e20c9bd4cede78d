//! The decoder of PROXY headers against headers that are whole, changed and random, in pieces: no
//! panic, no more memory than a header, and the same result however the bytes are cut. Reproducible:
//! `RSOCK_FUZZ_SEED=7 cargo test … proxy`; longer: `RSOCK_FUZZ_ROUNDS=1000000`.

use std::time::Instant;

use _rsock::net::ledger::ProxyHeader;
use _rsock::net::stage::{Chain, Direction, Inbound, ProxyProtocol};

use crate::fuzz::{Dice, from_environment};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header: a length of 16 bits behind the first 16 bytes.
const LONGEST: usize = 16 + 65_535;

/// What has come of a connection: its header, with what follows it; None where it was reset.
type Outcome = Option<(ProxyHeader, Vec<u8>)>;

/// Feeds a connection whose bytes are cut by `cut`, which is told how many are left.
fn fed(bytes: &[u8], mut cut: impl FnMut(usize) -> usize) -> Outcome {
    let now = Instant::now();
    let mut chain = Chain::new(vec![Box::new(ProxyProtocol::default())]);
    chain.open(now, None).unwrap();
    let (mut rest, mut passed) = (bytes, Vec::new());
    while !rest.is_empty() && !chain.has_end() {
        let (piece, behind) = rest.split_at(cut(rest.len()));
        chain.inbound(now, Inbound::Bytes(piece)).unwrap();
        assert!(chain.held(Direction::Inbound) <= LONGEST + piece.len());
        while let Some(Inbound::Bytes(chunk)) = chain.next_inbound() {
            passed.extend_from_slice(chunk);
            let count = chunk.len();
            chain.consume_inbound(count);
        }
        rest = behind;
    }
    if !chain.has_end() {
        chain.inbound(now, Inbound::End).unwrap();
    }
    let header = chain.take_proxy();
    assert_eq!(header.is_some(), chain.is_ready());
    if header.is_none() {
        assert!(passed.is_empty(), "bytes passed without a header");
    }
    header.map(|header| (*header, passed))
}

fn random(dice: &mut Dice, most: usize) -> Vec<u8> {
    (0..dice.below(most)).map(|_| dice.below(256) as u8).collect()
}

/// A header of version 1 or 2, most of them valid, with what may follow it.
fn header(dice: &mut Dice) -> Vec<u8> {
    const HOSTS: &[&str] = &["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.9", "1.2.3", "::", ""];
    let mut bytes = if dice.one_in(2) {
        let family = ["TCP4", "TCP6", "UNKNOWN", "UDP4"][dice.below(4)];
        let [from, to] = [0; 2].map(|_| HOSTS[dice.below(HOSTS.len())]);
        let [source, destination] = [0; 2].map(|_| dice.below(70_000));
        format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
    } else {
        let family = [0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32][dice.below(7)];
        let addresses = [0, 12, 36, 216][family >> 4];
        let mut payload = vec![0; addresses];
        payload.iter_mut().for_each(|byte| *byte = dice.below(4) as u8 * b'0');
        for _ in 0..dice.below(3) {
            let most = if dice.one_in(50) { 20_000 } else { 30 };
            let value = random(dice, most);
            payload.push([1, 2, 3, 4, 5, 0x20, 0x30][dice.below(7)]);
            payload.extend((value.len() as u16).to_be_bytes());
            payload.extend(value);
        }
        let length = (payload.len() as u16).to_be_bytes();
        let head = [0x20 + dice.below(2) as u8, family as u8, length[0], length[1]];
        [SIGNATURE, &head, &payload].concat()
    };
    bytes.extend(random(dice, 40));
    bytes
}

#[test]
fn a_header_is_the_same_however_it_is_cut_and_none_ends_the_decoder() {
    let seed: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 20_000);
    let mut valid = 0;
    for round in seed..seed + rounds {
        let mut dice = Dice::new(round);
        let mut bytes = header(&mut dice);
        for _ in 0..dice.below(3) {
            let at = dice.below(bytes.len());
            match dice.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => drop(bytes.remove(at)),
                2 => bytes[at] = dice.below(256) as u8,
                _ => bytes.insert(at, b"\r\n \0P3"[dice.below(6)]),
            }
            if bytes.is_empty() {
                bytes.push(b'P');
            }
        }
        let whole = fed(&bytes, |left| left);
        let pieces = fed(&bytes, |left| 1 + dice.below(left.min(60)));
        assert_eq!(pieces, whole, "seed {round}: {bytes:?}");
        let Some((header, rest)) = whole else { continue };
        valid += 1;
        // Nothing is lost, and nothing of the header is passed on.
        assert_eq!(rest, bytes[header.length..], "seed {round}: {bytes:?}");
        let values: usize = header.tlvs.iter().map(|(_, value)| 3 + value.len()).sum();
        assert!(header.length <= LONGEST && values <= header.length, "seed {round}: {header:?}");
        let untold = header.version == 1 && !header.tlvs.is_empty();
        assert!(!untold && header.source.is_some() == header.destination.is_some());
    }
    assert!(valid > rounds / 10, "{valid} of {rounds} headers are valid");
}
