//! The start of a server's datagram side. Owns the choice between a Rust service, a relay, and the
//! caller's threads; must never receive or send a datagram.

use std::io;
use std::sync::Arc;

use super::handoff::Handoff;
use super::socket::{DatagramSocket, DatagramSockets};
use super::{amplification, filler, on_demand, relay, worker};
use crate::net::address::{Address, Transport};
use crate::net::base::EventFd;
use crate::net::control::ServerContext;
use crate::net::error::Error;
use crate::net::handoff::ThreadPool;
use crate::net::service::Shape;
use crate::net::socket::Listener;

/// Starts the threads of a server that is bound: `workers` threads for a service in Rust, each with
/// a socket of its own, or one thread that feeds the caller's threads, which `notifier` wakes.
#[allow(clippy::too_many_arguments, reason = "the parts of a server")]
pub(crate) fn start(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    pool: Option<&Arc<ThreadPool>>,
    shape: &Shape,
    workers: usize,
    listener: Listener,
    bound: &Address,
    notifier: Arc<EventFd>,
) -> io::Result<Option<Arc<Handoff>>> {
    if context.options.reuse_port && bound.as_ip().is_some_and(amplification::is_served) {
        // SO_REUSEPORT lets two servers of one user bind the same port. The kernel would split the
        // peers between them.
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    let service = match shape {
        Shape::Handler => {
            let pool = pool.expect("a server with handlers has a pool");
            let socket = DatagramSocket::new(listener, bound, sockets)?;
            return filler::start(context, sockets, socket, notifier, pool).map(Some);
        }
        Shape::Accept => {
            let socket = DatagramSocket::new(listener, bound, sockets)?;
            return on_demand::start(context, sockets, socket, notifier).map(Some);
        }
        Shape::Datagram(service) => service,
        Shape::Stream(_) | Shape::Mixed(..) => {
            unreachable!("a UDP server gets the datagram form of its service")
        }
    };
    let failed = |error: Error| io::Error::from_raw_os_error(error.raw().unwrap_or(libc::EIO));
    let mut listeners = vec![listener];
    let most = context.admission.limit();
    // A Unix socket is bound once.
    let workers = if bound.as_unix().is_some() { 1 } else { workers.min(most).max(1) };
    for _ in 1..workers {
        let another = Listener::create(Transport::Udp, bound, &context.options).map_err(failed)?;
        another.bind(bound, &context.options).map_err(failed)?;
        listeners.push(another);
    }
    for (number, listener) in listeners.into_iter().enumerate() {
        let socket = DatagramSocket::new(listener, bound, sockets)?;
        let share = most / workers + usize::from(number < most % workers);
        match service.onward() {
            Some(onward) => relay::start(context, sockets, onward, socket, number, share)?,
            None => worker::start(context, sockets, service, socket, number, share)?,
        }
    }
    Ok(None)
}
