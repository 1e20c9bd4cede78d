//! The stage of the PROXY protocol: reads the header that a proxy sends before the client's bytes.
//! Owns what has come of it; must never pass on a byte before the header is whole and valid.

use std::mem;

use super::event::{Direction, Inbound};
use super::flow::Flow;
use super::proxy_codec;
use super::stage::{Stage, StageResult};
use crate::net::ledger::ClosedBy;

/// Reads one header at the start of a connection, of either version. A connection without a valid
/// one is reset.
#[derive(Debug, Default)]
pub struct ProxyProtocol {
    /// The part of the header that has come, until it is whole.
    held: Vec<u8>,
    done: bool,
}

impl Stage for ProxyProtocol {
    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        if self.done {
            flow.pass_in(event);
            return Ok(());
        }
        let bytes = match event {
            Inbound::Bytes(bytes) => bytes,
            Inbound::End if !self.held.is_empty() => {
                let text = format!("PROXY header: it ends after {} bytes", self.held.len());
                flow.reset(ClosedBy::Error, Some(text));
                return Ok(());
            }
            // The peer has connected, and left.
            end => {
                flow.pass_in(end);
                return Ok(());
            }
        };
        self.held.extend_from_slice(bytes);
        match proxy_codec::parse(&self.held) {
            Ok(None) => {}
            Ok(Some(header)) => {
                self.done = true;
                let held = mem::take(&mut self.held);
                let rest = &held[header.length..];
                flow.set_proxy(header);
                if !rest.is_empty() {
                    flow.pass_in(Inbound::Bytes(rest));
                }
            }
            Err(why) => flow.reset(ClosedBy::Error, Some(format!("PROXY header: {why}"))),
        }
        Ok(())
    }

    fn held(&self, direction: Direction) -> usize {
        if direction == Direction::Inbound { self.held.len() } else { 0 }
    }

    /// A header may be longer than high water.
    fn capacity(&self, direction: Direction) -> usize {
        self.held(direction)
    }

    /// Nothing is owed to a peer that has not said who it is.
    fn is_owed(&self) -> bool {
        false
    }

    fn is_ready(&self) -> bool {
        self.done
    }
}
