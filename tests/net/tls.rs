//! TLS as a stage: two chains against each other, with bytes alone and a clock of the test's own.

use std::time::Instant;

use _rsock::net::stage::tls::{TlsClient, TlsServer, TlsSettings, for_tests, server_name};
use _rsock::net::stage::{Chain, Inbound, Outbound};

/// A server and a client that are connected by nothing but this test.
struct Ends {
    now: Instant,
    server: Chain,
    client: Chain,
}

fn ends() -> Ends {
    let made = for_tests(&["localhost".to_owned()]).unwrap();
    let settings =
        TlsSettings { identity: Some(made.identity), ca: Some(made.ca), ..TlsSettings::default() };
    let server = TlsServer::new(&settings).unwrap();
    let client = TlsClient::new(&settings, || unreachable!("the authority is given")).unwrap();
    let name = server_name("localhost").unwrap();
    let now = Instant::now();
    let mut ends = Ends {
        now,
        server: Chain::new(vec![server.stage()]),
        client: Chain::new(vec![client.stage(name)]),
    };
    ends.server.open(now, None).unwrap();
    ends.client.open(now, None).unwrap();
    ends
}

/// Passes on what leaves one chain for its socket, `most` bytes at a time. Returns whether there
/// was anything.
fn pass(now: Instant, from: &mut Chain, to: &mut Chain, most: usize) -> bool {
    let mut passed = false;
    loop {
        let piece = match from.next_outbound() {
            Some(Outbound::Bytes(bytes)) => bytes[..bytes.len().min(most)].to_vec(),
            Some(Outbound::End) => {
                from.consume_outbound(0);
                to.inbound(now, Inbound::End).unwrap();
                passed = true;
                continue;
            }
            Some(Outbound::Reset) | None => return passed,
        };
        from.consume_outbound(piece.len());
        to.inbound(now, Inbound::Bytes(&piece)).unwrap();
        passed = true;
    }
}

impl Ends {
    fn settle(&mut self, most: usize) {
        loop {
            let up = pass(self.now, &mut self.client, &mut self.server, most);
            let down = pass(self.now, &mut self.server, &mut self.client, most);
            if !up && !down {
                return;
            }
        }
    }
}

/// What a chain has for its session: the bytes, and whether an end is behind them.
fn received(chain: &mut Chain) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        let count = match chain.next_inbound() {
            Some(Inbound::Bytes(bytes)) => {
                all.extend_from_slice(bytes);
                bytes.len()
            }
            Some(Inbound::End) => return (all, true),
            Some(Inbound::Error(_)) | None => return (all, false),
        };
        chain.consume_inbound(count);
    }
}

#[test]
fn records_may_be_cut_at_every_byte() {
    for most in [1, 2, 3, 5, 7, 1000, usize::MAX] {
        let mut ends = ends();
        assert!(!ends.server.is_ready() && !ends.client.is_ready());
        ends.settle(most);
        assert!(ends.server.is_ready() && ends.client.is_ready());
        let sent: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
        ends.client.outbound(ends.now, Outbound::Bytes(&sent)).unwrap();
        ends.client.outbound(ends.now, Outbound::End).unwrap();
        ends.settle(most);
        assert_eq!(received(&mut ends.server), (sent.clone(), true), "{most}");
        // The other direction stays open.
        ends.server.outbound(ends.now, Outbound::Bytes(&sent)).unwrap();
        ends.settle(most);
        assert_eq!(received(&mut ends.client), (sent, false), "{most}");
    }
}

#[test]
fn a_fin_without_close_notify_is_a_cut_behind_what_came() {
    let mut ends = ends();
    ends.settle(usize::MAX);
    ends.client.outbound(ends.now, Outbound::Bytes(b"hello")).unwrap();
    ends.settle(usize::MAX);
    ends.server.inbound(ends.now, Inbound::End).unwrap();
    assert_eq!(received(&mut ends.server), (b"hello".to_vec(), false));
    let end = ends.server.take_end().unwrap();
    assert!(end.reset && end.delivered && end.cut);
    assert!(end.error.unwrap().contains("without close_notify"));
}

#[test]
fn a_part_of_a_record_is_owed_and_a_handshake_is_not() {
    let mut ends = ends();
    ends.server.inbound(ends.now, Inbound::Bytes(&[22, 3])).unwrap();
    assert!(!ends.server.is_owed());
    let mut ends = self::ends();
    ends.settle(usize::MAX);
    assert!(ends.server.owes_end());
    ends.server.inbound(ends.now, Inbound::Bytes(&[23, 3, 3, 0])).unwrap();
    assert!(ends.server.is_owed());
    ends.server.outbound(ends.now, Outbound::End).unwrap();
    assert!(!ends.server.owes_end());
}

#[test]
fn noise_gets_an_alert_and_ends_the_connection() {
    let mut ends = ends();
    let _ = ends.server.inbound(ends.now, Inbound::Bytes(b"GET / HTTP/1.1\r\n\r\n"));
    let Some(Outbound::Bytes(alert)) = ends.server.next_outbound() else { panic!("no alert") };
    assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert");
    let end = ends.server.take_end().unwrap();
    assert!(!end.reset);
    assert!(end.error.unwrap().starts_with("TLS: "));
}
