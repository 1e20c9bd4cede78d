//! What the connections of one worker share while they are served: its poller, timers, limits,
//! pipes and spare buffers. Must never keep anything for one connection, except its timers.

#![allow(
    clippy::box_collection,
    clippy::vec_box,
    reason = "an idle leg holds a null pointer, where an empty collection takes three words"
)]

use std::collections::VecDeque;
use std::sync::Arc;

use mio::Poll;

use super::outbox::Outbox;
use crate::net::base::Timers;
use crate::net::control::{Limits, ServerContext};
use crate::net::service::Notifier;
use crate::net::socket::{Pipes, SocketOptions};
use crate::net::stage::faults::FaultSet;

/// Bytes of empty write buffers that a worker keeps for the next legs that need one.
const POOLED: usize = 1024 * 1024;

/// What the worker's connections share while they are served.
pub(crate) struct WorkerResources {
    pub(super) context: Arc<ServerContext>,
    pub(crate) poll: Poll,
    pub(crate) timers: Timers,
    pub(crate) notifier: Arc<dyn Notifier>,
    /// High water of an outbox; low water is a quarter of it.
    pub(super) high_water: usize,
    pub(super) limits: Limits,
    /// Set on upstream legs. Accepted sockets have inherited them.
    pub(super) options: SocketOptions,
    /// Bytes that the connection being served may still move in this turn.
    pub(crate) budget: usize,
    pub(super) pipes: Pipes,
    /// The faults of the server.
    pub(super) faults: Arc<FaultSet>,
    pool: Vec<Box<Outbox>>,
}

impl WorkerResources {
    pub(crate) fn new(
        context: &Arc<ServerContext>,
        poll: Poll,
        notifier: Arc<dyn Notifier>,
    ) -> Self {
        let limits = context.limits.clone();
        Self {
            context: Arc::clone(context),
            poll,
            timers: Timers::default(),
            notifier,
            high_water: limits.write_buffer,
            limits,
            options: context.options.clone(),
            budget: 0,
            pipes: Pipes::new(Arc::clone(&context.pipes)),
            faults: Arc::clone(&context.faults),
            pool: Vec::new(),
        }
    }

    pub(super) fn low_water(&self) -> usize {
        self.high_water / 4
    }

    pub(super) fn take_buffer(&mut self) -> Box<Outbox> {
        // At its full size from the start, which it never exceeds; a very large one grows with use.
        let ring = || Outbox::Ring(VecDeque::with_capacity(self.high_water.min(POOLED)));
        self.pool.pop().unwrap_or_else(|| Box::new(ring()))
    }

    /// Takes back an outbox, with or without bytes in it.
    pub(super) fn give_buffer(&mut self, mut outbox: Box<Outbox>) {
        if let Outbox::Staged { ring, .. } = &mut *outbox {
            *outbox = Outbox::Ring(std::mem::take(ring));
        }
        if let Outbox::Ring(ring) = &mut *outbox {
            ring.clear();
            if (self.pool.len() + 1) * self.high_water <= POOLED {
                self.pool.push(outbox);
            }
        } else if let Outbox::Pipe(pipe) = *outbox {
            self.pipes.give(pipe);
        }
    }
}
