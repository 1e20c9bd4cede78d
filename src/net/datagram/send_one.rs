//! The sending of one datagram for the caller's threads. Owns the limits of what a peer outside the
//! loopback is sent; must never wait.

use std::io::IoSlice;
use std::os::fd::AsFd;

use super::admission::Admission;
use super::amplification::is_loopback;
use super::errors::{Failure, classify};
use super::peer_table::Key;
use super::socket::MOST_DATAGRAM;
use crate::net::address::Address;
use crate::net::stage::Direction;
use crate::net::sys;

/// The largest UDP payload over IPv4: 20 bytes of a packet are its header.
const MOST_OVER_IPV4: usize = 65_507;

/// Why a datagram was not sent. The hint is empty for an error of the system.
pub(super) struct Unsent {
    pub(super) errno: i32,
    pub(super) hint: &'static str,
}

const NO_CREDIT: &str =
    "a peer outside the loopback gets no more than it has sent: its address may be forged";
const NO_ROOM: &str = "Limits.connections has no room for this peer";
const TOO_OFTEN: &str =
    "a source outside the loopback gets a limited number of datagrams per second";

impl Admission {
    /// The index of the peer with this key, or of the one at `remote`, which may be sent `length`
    /// bytes; outside the loopback no more than `most`. Opens its record if there is none.
    pub(super) fn receiver(
        &mut self,
        remote: &Address,
        key: Option<Key>,
        length: usize,
        most: usize,
    ) -> Result<u32, Unsent> {
        let known_index = key
            .as_ref()
            .map_or_else(|| self.peers.find_by_remote(remote), |key| self.peers.index_of(key));
        // The program has joined the group: no forged sender has named it.
        let host = remote.as_ip().map(|remote| remote.ip());
        let is_group = host.is_some_and(|host| self.context.options.is_joined(host));
        let index = match known_index {
            Some(index) => index,
            None => {
                if !remote.as_ip().is_none_or(is_loopback) && !is_group && length > 0 {
                    // The peer has sent nothing, or its record has closed. No record opens for it,
                    // nor does one close to make room.
                    return Err(self.unsent(libc::EPERM, NO_CREDIT));
                }
                let key = key.unwrap_or_else(|| Key { remote: remote.clone(), local: None });
                let admitted = self.admit(key, &mut |_| {});
                admitted.ok_or_else(|| self.unsent(libc::EPERM, NO_ROOM))?
            }
        };
        let entry = self.peers.get(index);
        if !entry.is_loopback {
            if length > most.min(entry.credit) && !is_group {
                return Err(self.unsent(libc::EPERM, NO_CREDIT));
            }
            if !host.is_none_or(|host| self.policy.may_answer(host)) {
                return Err(self.unsent(libc::EPERM, TOO_OFTEN));
            }
        }
        Ok(index)
    }

    /// Sends a datagram through the stages of a peer, which has some.
    pub(super) fn send_through_stages(&mut self, index: u32, data: &[u8]) -> Result<(), Unsent> {
        let most = if self.socket.is_ipv4() { MOST_OVER_IPV4 } else { MOST_DATAGRAM };
        if data.len() > most && !self.socket.is_unix() {
            return Err(self.unsent(libc::EMSGSIZE, ""));
        }
        if self.push_staged(index, Direction::Outbound, data) && self.send_staged(index) {
            self.read_error_queue();
        }
        Ok(())
    }

    /// Sends a datagram to a peer without stages. Returns the number of bytes sent.
    pub(super) fn send_now(
        &mut self,
        index: u32,
        remote: &Address,
        data: &[u8],
    ) -> Result<usize, Unsent> {
        let entry = self.peers.get(index);
        let name = self.socket.name(remote);
        let (mut may_retry, mut error_queued) = (true, false);
        let result = loop {
            let flags = libc::MSG_DONTWAIT;
            let data = [IoSlice::new(data)];
            let sent = sys::sendmsg(self.socket.as_fd(), &data, &entry.route, Some(&name), flags);
            let errno = match sent {
                Ok(sent) => {
                    entry.record.count_sent(&data[0]);
                    self.peers.get_mut(index).take_credit(sent);
                    break Ok(sent);
                }
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            let failure = classify(errno);
            error_queued |= matches!(failure, Failure::Earlier | Failure::ThisOne);
            match failure {
                Failure::Interrupted => {}
                // The error is usually that of an earlier datagram.
                Failure::Earlier if may_retry => may_retry = false,
                _ => break Err(self.unsent(errno, "")),
            }
        };
        if error_queued {
            // No receive will report these errors. What stays in the error queue, such as EMSGSIZE
            // for an oversized answer, takes space from the receive buffer.
            self.read_error_queue();
        }
        result
    }

    /// Counts a datagram as dropped.
    fn unsent(&self, errno: i32, hint: &'static str) -> Unsent {
        self.context.ledger.count_dropped(1);
        Unsent { errno, hint }
    }
}
