//! The steps of a server's socket: create, bind, listen. Owns what each does and undoes; must never
//! start a thread.

use std::time::{Duration, Instant};

use super::inner::Steps;
use super::lifecycle::State;
use super::server::Server;
use crate::net::address::{Address, Target, Transport, resolve};
use crate::net::base::Waiter;
use crate::net::control::{Cause, Registered, registry};
use crate::net::datagram::amplification;
use crate::net::error::{Error, Result};
use crate::net::service::Shape;
use crate::net::socket::{Listener, clear_way};

/// How long `bind` waits for a server of this process that is just ending.
const PREDECESSOR: Duration = Duration::from_secs(1);

impl Server {
    pub(super) fn do_create(
        &self,
        steps: &mut Steps,
        to: Option<&Target>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let options = &self.config.options;
        let listener = if let Some(fd) = self.config.fd {
            let listener = Listener::adopt(fd, self.config.transport, options)?;
            if listener.is_bound() {
                self.check_external(&listener.address()?)?;
            }
            listener
        } else {
            let candidates = self.candidates(to.unwrap_or(&self.config.target), waiter)?;
            let first = candidates.last().expect("a target has an address");
            let listener = Listener::create(self.config.transport, first, options)?;
            steps.candidates = candidates;
            listener
        };
        steps.note_socket(&listener);
        steps.listener = Some(listener);
        steps.state = State::Created;
        Ok(())
    }

    pub(super) fn do_bind(
        &self,
        steps: &mut Steps,
        to: Option<&Target>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let mut listener = steps.listener.take().expect("created");
        if let Some(to) = to {
            if listener.is_bound() {
                return Err(Error::Value(format!(
                    "bind {to}: the socket given by fd= has an address already"
                )));
            }
            steps.candidates = self.candidates(to, waiter)?;
        }
        if !listener.is_bound() {
            self.bind_to_one(&mut listener, &mut steps.candidates, waiter)?;
        }
        let bound = listener.address()?;
        self.check_hearing(&bound)?;
        listener.join_groups(&bound, &self.config.options)?;
        steps.note_socket(&listener);
        steps.bound = Some(bound.clone());
        *self.inner.file.lock() = listener.file();
        *self.inner.address.lock() = Some(bound);
        registry::add(self.registered());
        if self.config.transport == Transport::Udp {
            amplification::note_server();
        }
        steps.state = if listener.is_listening() {
            self.inner.context.listening.take_listening(&listener)?;
            State::Listening
        } else {
            State::Bound
        };
        steps.listener = Some(listener);
        Ok(())
    }

    /// The addresses of a target, in the order of `Steps::candidates`.
    fn candidates(&self, to: &Target, waiter: &mut dyn Waiter) -> Result<Vec<Address>> {
        let mut candidates = resolve::addresses(to, true, None, waiter)?;
        for candidate in &candidates {
            self.check_external(candidate)?;
        }
        candidates.reverse();
        Ok(candidates)
    }

    /// Binds the socket to the first candidate for which that succeeds. Raises the error of the
    /// first one otherwise.
    fn bind_to_one(
        &self,
        listener: &mut Listener,
        candidates: &mut Vec<Address>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let mut first: Option<Error> = None;
        while let Some(address) = candidates.pop() {
            let options = &self.config.options;
            // A name may resolve to addresses of both families, and the socket may have been
            // created for another address than this one.
            let result = if first.is_none() && listener.fits(&address, options) {
                Ok(())
            } else {
                let new = Listener::create(self.config.transport, &address, options);
                new.map(|new| *listener = new)
            };
            match result.and_then(|()| self.bind_to(listener, &address, waiter)) {
                Ok(()) => return Ok(()),
                Err(error @ Error::Interrupted) => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        let unbound =
            || Error::Value("bind: the socket given by fd= has no address; give one".to_owned());
        Err(first.unwrap_or_else(unbound))
    }

    /// Binds the socket. If a server of this process holds the address, waits for one that is
    /// ending, and names one that is not in the error. Replaces a Unix socket's stale file.
    fn bind_to(
        &self,
        listener: &Listener,
        address: &Address,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        if self.config.replace {
            self.replace_holders(address, waiter)?;
        }
        let deadline = Instant::now() + PREDECESSOR;
        let mut may_retry = true;
        loop {
            let error = match listener.bind(address, &self.config.options) {
                Err(error) if error.raw() == Some(libc::EADDRINUSE) => error,
                result => return result,
            };
            match registry::holder(address, &*self.inner) {
                Some(holder)
                    if holder.context().shutdown.has_begun() && Instant::now() < deadline =>
                {
                    holder.wait(Some(deadline), waiter)?;
                }
                None if Instant::now() < deadline && address.as_unix().is_some() => {
                    let name = address.as_unix().expect("the guard has checked it");
                    clear_way(name, deadline, waiter)?;
                    waiter.breathe()?;
                }
                None => match registry::ownerless(address, &self.inner.context) {
                    Some(context) if Instant::now() < deadline => {
                        context.wait(Some(deadline), waiter)?;
                    }
                    // The server that held the address may have ended between the two calls.
                    None if may_retry => may_retry = false,
                    _ => return Err(name_holder(error, None)),
                },
                holder => return Err(name_holder(error, holder.as_deref())),
            }
        }
    }

    /// Stops the servers of this process that hold the address, and waits for their ends, each of
    /// which its own drain time bounds.
    fn replace_holders(&self, address: &Address, waiter: &mut dyn Waiter) -> Result<()> {
        while let Some(holder) = registry::holder(address, &*self.inner) {
            // A handler may replace the server that it runs on.
            holder.exempt_caller();
            holder.signal_stop(Cause::Stop, holder.context().drain);
            holder.wait(None, waiter)?;
        }
        Ok(())
    }

    pub(super) fn do_listen(&self, steps: &mut Steps, backlog: Option<u32>) -> Result<()> {
        let listener = steps.listener.as_ref().expect("bound");
        let backlog = backlog.or(self.config.options.backlog);
        self.inner.context.listening.listen(listener, backlog).map_err(|error| {
            let taken = error.raw() == Some(libc::EADDRINUSE);
            let bound = steps.bound.as_ref().filter(|_| taken);
            let holder = bound.and_then(|bound| registry::holder(bound, &*self.inner));
            name_holder(error, holder.as_deref())
        })?;
        steps.state = State::Listening;
        Ok(())
    }

    /// The senders of datagrams from outside the loopback may be forged, so a UDP server answers
    /// them only with `allow_external`.
    fn check_external(&self, address: &Address) -> Result<()> {
        let is_external = |address| !amplification::is_loopback(address);
        let reachable =
            self.config.transport == Transport::Udp && address.as_ip().is_some_and(is_external);
        if reachable && !self.config.allow_external {
            return Err(Error::Value(format!(
                "bind {address}: a UDP server outside the loopback may answer forged senders; \
                 pass allow_external=True to allow that"
            )));
        }
        Ok(())
    }
}

impl Server {
    /// No service in Rust hears what is sent to many hosts, so a server with one that listens on
    /// such an address only would be silent.
    fn check_hearing(&self, bound: &Address) -> Result<()> {
        let Some(ip) = bound.as_ip().map(|address| address.ip()) else { return Ok(()) };
        let is_udp = matches!(self.config.shape, Shape::Datagram(_));
        if is_udp && (ip.is_multicast() || amplification::is_broadcast(ip)) {
            return Err(Error::Value(format!(
                "bind {bound}: a datagram to a broadcast or multicast address is never answered by \
                 a service in Rust; give a function of (data, address), or Accept()"
            )));
        }
        Ok(())
    }
}

/// Adds to an error for a taken address the server of this process that holds it.
fn name_holder(mut error: Error, holder: Option<&dyn Registered>) -> Error {
    if let (Error::Os { hint, .. }, Some(holder)) = (&mut error, holder) {
        *hint = format!(
            "held by the Server {:?} of this process; its stop(), \
             or rsock.stop_all(), frees the address",
            holder.context().name
        );
    }
    error
}
