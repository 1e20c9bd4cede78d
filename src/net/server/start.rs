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
use crate::net::control::{Alive, Registered, ShutdownListener};
use crate::net::datagram;
use crate::net::error::{Error, Result};
use crate::net::handoff::{MixedSink, OuterWorkers, PoolSink};
use crate::net::service::Shape;
use crate::net::socket::{Algorithm, Listener, hops};
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
        let (legs, pipes) = match &shape {
            Shape::Stream(service) => (service.legs(), service.pipes()),
            Shape::Mixed(service, _) => {
                (service.legs().max(if context.hands_out_inner() { 3 } else { 1 }), service.pipes())
            }
            Shape::Datagram(service) => (service.onward().map_or(0, |_| 1), false),
            // An inner socket has two ends.
            Shape::Handler | Shape::Accept => {
                (if context.hands_out_inner() { 3 } else { 1 }, false)
            }
        };
        let room = context.limits.room(self.config.transport, legs, pipes);
        context.admission.set_limit(room.connections, context.limits.connections.is_none());
        context.pipes.set(room.pipes);
        let listener = steps.listener.take().expect("listening");
        if legs > 1 && self.config.transport == Transport::Tcp {
            hops::keep_first_packets(&listener);
        }
        if let Ok(algorithm) = Algorithm::of(listener.as_fd().as_raw_fd()) {
            // Already set if an earlier start failed.
            let _ = context.algorithm.set(algorithm);
        }
        let mut workers = Vec::new();
        let result = self.start_threads(&shape, listener, &bound, notifier, &mut workers);
        if let Err(error) = result {
            // The listener is closed by now. The workers that have started end, so that the caller
            // may start again.
            self.inner.on_demand.close();
            self.inner.sockets.end();
            context.clear_notifier();
            for worker in workers {
                worker.send(Message::Quit);
            }
            drop(alive);
            while let Some(done) = context.shutdown.done() {
                waiter.wait(&mut [done.polled()], None)?;
            }
            return Err(failed(error));
        }
        steps.state = State::Serving;
        drop(alive);
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

    /// Starts the workers, the accept thread, or both.
    fn start_threads(
        &self,
        shape: &Shape,
        listener: Listener,
        bound: &Address,
        notifier: Arc<EventFd>,
        workers: &mut Vec<Arc<Inbox>>,
    ) -> io::Result<()> {
        let (context, local) = (&self.inner.context, bound.clone());
        if self.config.transport.is_datagram() {
            let workers = self.config.workers.unwrap_or(1);
            let (sockets, pool) = (&self.inner.sockets, Some(&self.inner.pool));
            let handoff =
                datagram::start(context, sockets, pool, shape, workers, listener, bound, notifier)?;
            *self.inner.datagrams.lock() = handoff;
            return Ok(());
        }
        match shape {
            Shape::Datagram(_) => unreachable!("a server of streams has no datagram shape"),
            Shape::Accept => {
                let outer = self.outer_workers(workers)?;
                self.inner.on_demand.open(listener, bound, outer)?;
                let on_demand = Arc::clone(&self.inner.on_demand);
                context.spawn(ACCEPT.to_owned(), move || on_demand.run(&notifier))
            }
            Shape::Handler => {
                let outer = self.outer_workers(workers)?;
                let sink = PoolSink::new(&self.inner.pool, bound.domain(), outer);
                self.start_accepting(Acceptor::new(context, listener, local, notifier, sink))
            }
            Shape::Mixed(service, by) => {
                let outer = self.outer_workers(workers)?;
                let sink = PoolSink::new(&self.inner.pool, bound.domain(), outer);
                let mut pool = WorkerPool::new(context, service, self.inner.most_workers);
                workers.push(pool.add()?);
                let sink = MixedSink::new(sink, pool, by);
                self.start_accepting(Acceptor::new(context, listener, local, notifier, sink))
            }
            // With one worker, a separate accept thread would only add a handover.
            Shape::Stream(service) if self.inner.most_workers == 1 => {
                start_accepting_worker(context, service, listener, local, notifier)
            }
            Shape::Stream(service) => {
                let mut pool = WorkerPool::new(context, service, self.inner.most_workers);
                for _ in 0..self.config.workers.unwrap_or(1) {
                    workers.push(pool.add()?);
                }
                self.start_accepting(Acceptor::new(context, listener, local, notifier, pool))
            }
        }
    }

    /// With stages: the workers of the connections whose inner sockets are handed out.
    fn outer_workers(
        &self,
        started: &mut Vec<Arc<Inbox>>,
    ) -> io::Result<Option<Arc<OuterWorkers>>> {
        if !self.inner.context.hands_out_inner() {
            return Ok(None);
        }
        let most = self.inner.most_workers;
        OuterWorkers::start(&self.inner.context, most, started).map(|outer| Some(Arc::new(outer)))
    }

    fn start_accepting<S: Sink + 'static>(&self, acceptor: Acceptor<S>) -> io::Result<()> {
        self.inner.context.spawn(ACCEPT.to_owned(), move || acceptor.run())
    }
}

/// The name of the accept thread.
const ACCEPT: &str = "rsock-accept";
