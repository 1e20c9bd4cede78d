//! The dialogues of a recording with the peers of one socket, by their addresses. Must never hold
//! more of them than its limit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Recorded;
use super::exchange::Exchange;
use super::session::unrecorded;
use crate::net::address::Address;
use crate::net::base::Mutex;
use crate::net::service::{Datagrams, Peer, Reply, SessionError, SessionResult};
use crate::net::services::dialogue::Results;

/// How many peers are remembered.
const MOST_PEERS: usize = 10_000;

/// A recording that is played on one socket of datagrams.
pub(super) struct ReplayDatagrams {
    recorded: Arc<Recorded>,
    results: Arc<Results>,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Peers {
    exchanges: HashMap<Address, Known>,
    /// The addresses, the oldest first.
    order: VecDeque<Address>,
    /// How many dialogues were begun.
    begun: u64,
    is_over: bool,
}

struct Known {
    exchange: Exchange,
    /// The result is kept.
    is_told: bool,
    /// The peer has diverged.
    is_failed: bool,
}

impl Peers {
    fn insert(&mut self, address: &Address, known: Known) {
        if self.exchanges.insert(address.clone(), known).is_none() {
            self.order.push_back(address.clone());
            if self.order.len() > MOST_PEERS {
                let oldest = self.order.pop_front();
                oldest.and_then(|oldest| self.exchanges.remove(&oldest));
            }
        }
    }
}

impl ReplayDatagrams {
    pub(super) fn new(recorded: &Arc<Recorded>, results: &Arc<Results>) -> Self {
        let (recorded, results) = (Arc::clone(recorded), Arc::clone(results));
        Self { recorded, results, peers: Mutex::default() }
    }

    /// The server begins again: there was no dialogue.
    pub(super) fn restart(&self) {
        let mut peers = self.peers.lock();
        *peers = Peers { is_over: peers.is_over, ..Peers::default() };
    }

    /// The server has ended: the dialogues that are not over have no end.
    pub(super) fn end(&self) {
        let mut peers = self.peers.lock();
        if std::mem::replace(&mut peers.is_over, true) {
            return;
        }
        let Peers { exchanges, order, .. } = &mut *peers;
        for known in order.iter().filter_map(|address| exchanges.get(address)) {
            if !known.is_told {
                self.results.push(known.exchange.result(Some(known.exchange.ended())));
            }
        }
    }
}

impl Datagrams for ReplayDatagrams {
    fn on_datagram(&self, data: &[u8], from: &Peer, reply: &mut dyn Reply) -> SessionResult {
        let address = &from.remote.address;
        let mut peers = self.peers.lock();
        let is_next = peers.exchanges.get(address).is_none_or(|known| {
            // A system gives a port again to another client.
            known.exchange.is_done() && !known.exchange.is_again(data)
        });
        if is_next {
            let number = peers.begun + 1;
            match self.recorded.plan(number) {
                Ok(plan) => {
                    peers.begun = number;
                    let exchange = Exchange::new(&plan, &self.recorded.playing, number);
                    peers.insert(address, Known { exchange, is_told: false, is_failed: false });
                }
                // One whose dialogue is over sends more than was recorded.
                Err(_) if peers.exchanges.contains_key(address) => {}
                Err(report) => {
                    peers.begun = number;
                    self.results.push(unrecorded(number, &report));
                    return Err(SessionError(report));
                }
            }
        }
        let Some(known) = peers.exchanges.get_mut(address) else { return Ok(()) };
        if known.is_failed {
            return Ok(());
        }
        match known.exchange.receive(data) {
            Ok(answers) => {
                if known.exchange.is_done() && !known.is_told {
                    known.is_told = true;
                    let torn = known.exchange.torn();
                    self.results.push(known.exchange.result(torn));
                }
                answers.iter().for_each(|answer| reply.send(answer));
                Ok(())
            }
            Err(report) => {
                known.is_failed = true;
                let result = known.exchange.result(Some(report.clone()));
                if std::mem::replace(&mut known.is_told, true) {
                    self.results.replace(result);
                } else {
                    self.results.push(result);
                }
                Err(SessionError(report))
            }
        }
    }
}
