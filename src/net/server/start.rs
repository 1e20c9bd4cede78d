//! The start of a server's threads, by the shape of its service. Owns what is undone if a thread
//! cannot start; must never serve a byte itself.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Weak};

use super::inner::Steps;
use super::lifecycle::State;
use super::server::Server;
use crate::net::address::{Address, Transport};
use crate::net::base::{EventFd, Waiter};
use crate::net::control::{Alive, OpenRecordings, Registered, ShutdownListener};
use crate::net::datagram;
use crate::net::error::{Error, Result};
use crate::net::handoff::{MixedSink, OUTER_LEGS, PoolSink};
use crate::net::service::Shape;
use crate::net::socket::{Algorithm, Listener, close_resets, hops};
use crate::net::worker::{Acceptor, Inbox, Message, Sink, WorkerPool, start_accepting_worker};

impl Server {
    pub(super) fn do_start(&self, steps: &mut Steps, waiter: &mut dyn Waiter) -> Result<()> {
        let context = &self.inner.context;
        let bound = steps.bound.clone().expect("listening");
        let failed = |error: io::Error| Error::os("start", &bound, &error);
        let shape = self.prepare(waiter).inspect_err(|_| {
            // Whatever the error, the caller starts again from the first step.
            self.inner.forget_address();
            if let Some(listener) = steps.listener.take() {
                listener.close();
            }
        })?;
        context.shutdown.open_flag().map_err(failed)?;
        // From here to the end of this step a stop waits for the step.
        let alive = Alive::new(context);
        context.ledger.open_flag().map_err(failed)?;
        if context.shutdown.has_begun() {
            return Err(self.wrong("start", State::Stopped.hint()));
        }
        let notifier = Arc::new(EventFd::new().map_err(failed)?);
        self.set_notifier(&shape, &notifier);
        let mut start = Start::new(self, shape, &bound, notifier);
        start.set_room();
        let listener = steps.listener.take().expect("listening");
        start.prepare_listener(&listener);
        if let Err(error) = start.run(listener) {
            start.undo();
            drop(alive);
            self.wait_for_threads(waiter)?;
            return Err(failed(error));
        }
        steps.state = State::Serving;
        Ok(())
    }

    /// Waits for the threads of a start that has failed.
    fn wait_for_threads(&self, waiter: &mut dyn Waiter) -> Result<()> {
        while let Some(done) = self.inner.context.shutdown.done() {
            waiter.wait(&mut [done.polled()], None)?;
        }
        Ok(())
    }

    /// Registers the threads to wake at a stop: those that wait for datagrams, then the accept
    /// thread.
    fn set_notifier(&self, shape: &Shape, notifier: &Arc<EventFd>) {
        let context = &self.inner.context;
        let sockets: Weak<dyn ShutdownListener> = {
            let sockets = Arc::clone(&self.inner.sockets);
            Arc::downgrade(&(sockets as Arc<dyn ShutdownListener>))
        };
        context.shutdown.register(sockets);
        if !matches!(shape, Shape::Datagram(_)) {
            let flag = Arc::clone(notifier) as Arc<dyn ShutdownListener>;
            context.shutdown.register(Arc::downgrade(&flag));
            context.notifier.set(notifier);
            context.admission.set_room_flag(Some(Arc::clone(notifier)));
        }
    }

    /// What serves each connection: the service itself, or the one that it prepares for the address
    /// of the listener. May block.
    fn prepare(&self, waiter: &mut dyn Waiter) -> Result<Shape> {
        let site = self.inner.site().expect("listening");
        let own = match &self.config.shape {
            Shape::Stream(service) => service.prepare(&site, waiter)?.map(Shape::Stream),
            Shape::Datagram(service) => service.prepare(&site, waiter)?.map(Shape::Datagram),
            Shape::Mixed(service, by) => {
                service.prepare(&site, waiter)?.map(|own| Shape::Mixed(own, Arc::clone(by)))
            }
            Shape::Handler | Shape::Accept => None,
        };
        let shape = own.unwrap_or_else(|| self.config.shape.clone());
        *self.inner.shape.lock() = Some(shape.clone());
        Ok(shape)
    }

    /// Whether callers get connections, which stay with workers where they have stages.
    pub(super) fn hands_out_streams(&self) -> bool {
        !self.config.transport.is_datagram()
            && matches!(self.config.shape, Shape::Handler | Shape::Accept | Shape::Mixed(..))
    }

    fn start_accepting<S: Sink + 'static>(&self, acceptor: Acceptor<S>) -> io::Result<()> {
        self.inner.context.spawn(ACCEPT.to_owned(), move || acceptor.run())
    }
}

/// A start in progress, after `prepare`.
struct Start<'a> {
    server: &'a Server,
    shape: Shape,
    bound: &'a Address,
    notifier: Arc<EventFd>,
    /// Asked once: a fault may be added meanwhile.
    hands_out_inner: bool,
    /// The most descriptors of a connection.
    legs: usize,
    /// Whether its service uses pipes.
    pipes: bool,
    /// Those that have started.
    workers: Vec<Arc<Inbox>>,
}

impl<'a> Start<'a> {
    fn new(server: &'a Server, shape: Shape, bound: &'a Address, notifier: Arc<EventFd>) -> Self {
        let hands_out_inner = server.inner.context.hands_out_inner();
        let handed_out = if hands_out_inner { OUTER_LEGS } else { 1 };
        let (legs, pipes) = match &shape {
            Shape::Stream(service) => (service.legs(), service.pipes()),
            Shape::Mixed(service, _) => (service.legs().max(handed_out), service.pipes()),
            Shape::Datagram(service) => (service.onward().map_or(0, |_| 1), false),
            Shape::Handler | Shape::Accept => (handed_out, false),
        };
        Self { server, shape, bound, notifier, hands_out_inner, legs, pipes, workers: Vec::new() }
    }

    /// Sets the limits that depend on the descriptors that are free now.
    fn set_room(&self) {
        let context = &self.server.inner.context;
        let room = context.limits.room(self.server.config.transport, self.legs, self.pipes);
        context.admission.set_limit(room.connections, context.limits.connections.is_none());
        context.pipes.set(room.pipes);
    }

    /// Sets the option of the listener that a forwarder needs, and notes those that connections
    /// inherit.
    fn prepare_listener(&self, listener: &Listener) {
        let context = &self.server.inner.context;
        if self.legs > 1 && self.server.config.transport == Transport::Tcp {
            hops::keep_first_packets(listener);
        }
        if let Ok(algorithm) = Algorithm::of(listener.as_fd().as_raw_fd()) {
            // Already set if an earlier start failed.
            let _ = context.algorithm.set(algorithm);
        }
        if close_resets(listener) {
            let _ = context.may_reset.set(());
        }
    }

    /// Starts all threads. After an error, `undo` ends those that have started.
    fn run(&mut self, listener: Listener) -> io::Result<()> {
        let _recordings = self.start_recorders()?;
        if self.server.hands_out_streams() && !self.hands_out_inner {
            self.server.inner.outer.allow(self.pipes);
        }
        self.start_threads(listener)
    }

    /// Ends the workers that have started, so that the caller may start again. The listener is
    /// closed by now.
    fn undo(self) {
        let inner = &self.server.inner;
        inner.on_demand.close();
        inner.sockets.end();
        inner.outer.forget();
        inner.context.clear_notifier();
        for worker in self.workers {
            worker.send(Message::Quit);
        }
    }

    /// Starts the threads that record the connections.
    fn start_recorders(&self) -> io::Result<Option<Arc<OpenRecordings>>> {
        let recorders = match &self.shape {
            Shape::Stream(service) | Shape::Mixed(service, _) => service.recorders(),
            Shape::Datagram(service) => {
                service.onward().and_then(|onward| onward.recorder()).into_iter().collect()
            }
            Shape::Handler | Shape::Accept => Vec::new(),
        };
        self.server.inner.context.start_recorders(recorders)
    }

    /// Starts the workers, the accept thread, or both.
    fn start_threads(&mut self, listener: Listener) -> io::Result<()> {
        let Self { server, shape, bound, notifier, workers, hands_out_inner, .. } = self;
        let Server { config, inner } = server;
        let (context, hands_out_inner) = (&inner.context, *hands_out_inner);
        let (notifier, local) = (Arc::clone(notifier), bound.clone());
        if config.transport.is_datagram() {
            let workers = config.workers.unwrap_or(1);
            let (sockets, pool) = (&inner.sockets, Some(&inner.pool));
            let handoff =
                datagram::start(context, sockets, pool, shape, workers, listener, bound, notifier)?;
            *inner.datagrams.lock() = handoff;
            return Ok(());
        }
        let outer = &inner.outer;
        if hands_out_inner && server.hands_out_streams() {
            outer.start(workers)?;
        }
        let sink = || PoolSink::new(&inner.pool, bound.domain(), outer, hands_out_inner);
        match shape {
            Shape::Datagram(_) => unreachable!("a server of streams has no datagram shape"),
            Shape::Accept => {
                inner.on_demand.open(listener, bound, outer, hands_out_inner)?;
                let on_demand = Arc::clone(&inner.on_demand);
                context.spawn(ACCEPT.to_owned(), move || on_demand.run(&notifier))
            }
            Shape::Handler => {
                server.start_accepting(Acceptor::new(context, listener, local, notifier, sink()))
            }
            Shape::Mixed(service, by) => {
                let mut pool = WorkerPool::new(context, service, inner.most_workers);
                workers.push(pool.add()?);
                let sink = MixedSink::new(sink(), pool, by);
                server.start_accepting(Acceptor::new(context, listener, local, notifier, sink))
            }
            // With one worker, a separate accept thread would only add a handover.
            Shape::Stream(service) if inner.most_workers == 1 => {
                start_accepting_worker(context, service, listener, local, notifier)
            }
            Shape::Stream(service) => {
                let mut pool = WorkerPool::new(context, service, inner.most_workers);
                for _ in 0..config.workers.unwrap_or(1) {
                    workers.push(pool.add()?);
                }
                server.start_accepting(Acceptor::new(context, listener, local, notifier, pool))
            }
        }
    }
}

/// The name of the accept thread.
const ACCEPT: &str = "rsock-accept";
