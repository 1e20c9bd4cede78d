//! The datagram side of a server: its sockets, the workers that serve them, and who is answered at all.
//! Owns what UDP servers do not share with others; must never block on a send, nor let one stranger have more
//! of it than his share.
//!
//! `port` is a socket and its end; `worker` serves one by a service in Rust, `relay` passes its datagrams on,
//! `handoff` serves it by threads of the caller's; `peers` are the accounts of those heard from, `admission` how
//! they are opened and closed; `strangers` says who gets no answer.

use std::io;
use std::sync::Arc;

use super::handoff;
use super::handoff::Handoff;
use super::socket::{DatagramSocket, DatagramSockets};
use super::{amplification, relay, worker};
use crate::net::address::{Address, Transport};
use crate::net::base::EventFd;
use crate::net::control::ServerContext;
use crate::net::error::Error;
use crate::net::handoff::ThreadPool;
use crate::net::service::Shape;
use crate::net::socket::Listener;

/// Starts what serves the datagrams of a server that is bound: `workers` threads of a service in Rust, each with
/// a socket of its own, or one for the threads of the caller's. The notifier wakes the latter.
#[allow(clippy::too_many_arguments, reason = "what a server has, a part at a time")]
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
    let local = bound.as_ip().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    if context.options.reuse_port && amplification::is_served(local) {
        // SO_REUSEPORT lets two servers of one user have the same port, each with a share of the peers
        // that nobody meant.
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    let service = match shape {
        Shape::Handler => {
            let pool = pool.expect("a server with handlers has a pool");
            let port = DatagramSocket::new(listener, local)?;
            return handoff::start_pool(context, sockets, port, notifier, pool).map(Some);
        }
        Shape::Accept => {
            let port = DatagramSocket::new(listener, local)?;
            return handoff::start_on_demand(context, sockets, port, notifier).map(Some);
        }
        Shape::Datagram(service) => service,
        Shape::Stream(_) => unreachable!("a service is asked for its datagram form before"),
    };
    let failed = |error: Error| io::Error::from_raw_os_error(error.raw().unwrap_or(libc::EIO));
    let mut listeners = vec![listener];
    let most = context.admission.limit();
    let workers = workers.min(most).max(1);
    for _ in 1..workers {
        let another = Listener::create(Transport::Udp, bound, &context.options).map_err(failed)?;
        another.bind(bound, &context.options).map_err(failed)?;
        listeners.push(another);
    }
    for (number, listener) in listeners.into_iter().enumerate() {
        let port = DatagramSocket::new(listener, local)?;
        let share = most / workers + usize::from(number < most % workers);
        match service.onward() {
            Some(onward) => relay::start(context, sockets, onward, port, number, share)?,
            None => worker::start(context, sockets, service, port, number, share)?,
        }
    }
    Ok(None)
}
