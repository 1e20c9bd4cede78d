//! The step of a connect that sends a header of the PROXY protocol. Owns when that is; must never send
//! it behind another byte.

use std::os::fd::AsFd;

use super::preface::Preface;
use super::stream::Stream;
use crate::net::address::Address;
use crate::net::error::{Error, Result};
use crate::net::ledger::ProxyHeader;
use crate::net::stage::proxy_codec;
use crate::net::sys;

impl Stream {
    /// Has the connections of a client that is not connected begin with a header.
    pub fn set_preface(&mut self, preface: Preface) {
        if let Some(connecting) = &mut self.connecting {
            connecting.preface = Some(preface);
        }
    }

    /// Whether the connection begins with a header.
    pub(super) fn has_preface(&self) -> bool {
        self.connecting.as_ref().is_some_and(|connecting| connecting.preface.is_some())
    }

    /// Sends the header on a connection that has just been made, which takes it at once.
    pub(super) fn send_preface(&self, address: &Address) -> Result<()> {
        let preface = self.connecting.as_ref().and_then(|connecting| connecting.preface.as_ref());
        let bytes = match preface {
            None => return Ok(()),
            Some(Preface::Given(bytes)) => bytes.clone(),
            Some(Preface::Own(version)) => {
                let header = ProxyHeader {
                    version: *version,
                    source: Some(self.local_address()?.canonical()),
                    destination: Some(address.clone().canonical()),
                    tlvs: Vec::new(),
                    length: 0,
                };
                let too_long = |why| Error::Value(format!("proxy_protocol: {why}"));
                proxy_codec::encode(&header).map_err(too_long)?
            }
        };
        let socket = self.hold("connect")?;
        let failed = |error| Error::os("send the PROXY header to", address, &error);
        let sent = sys::send(socket.as_fd(), &bytes, libc::MSG_DONTWAIT).map_err(failed)?;
        if sent < bytes.len() {
            // Longer than an empty send buffer: half of it is none.
            socket.reset();
            return Err(Error::errno("send the PROXY header to", address, libc::EMSGSIZE));
        }
        Ok(())
    }
}
