//! The locks of the engine. Owns that a panic poisons nothing, and that a fork breaks nothing; must never
//! keep account of who waits.
//!
//! Which is why they are not `parking_lot`'s. It keeps those who wait in a table of the process, as pointers
//! into their threads. A forked child inherits the table but not the threads, and its own threads are given
//! the memory of those: a lock of the child's that looks into the table finds there what has long been
//! overwritten. (14 of 40 children with a server of their own ended in a segmentation fault, on one CPU and
//! as chance had laid out the memory.) The standard library's wait in the kernel, and leave no trace but in
//! the lock itself.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::{self, PoisonError, TryLockError};
use std::thread::LocalKey;
use std::time::Instant;

/// What a `Mutex` gives out.
pub type MutexGuard<'a, T> = sync::MutexGuard<'a, T>;

/// `std::sync::Mutex`, for which a panic of who held it is nothing: what it guards is valid at each step.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Waits until nobody else holds it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None where somebody holds it. Never blocks.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What it guards: nobody else can hold it.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a thread waits for another to change what a `Mutex` guards.
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    /// Wakes one who waits.
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Gives the lock up and waits, until the deadline if there is one; sometimes returns for no reason.
    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, T> {
        let Some(deadline) = deadline else {
            return self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The guard of a lock that is held across a fork by the thread that forks, so that no child inherits it
/// locked by a thread that it does not have. Never dropped with the thread, for it is always taken before.
pub(crate) type Held<T> = Cell<Option<ManuallyDrop<MutexGuard<'static, T>>>>;

/// Before the fork.
pub(crate) fn hold<T>(held: &'static LocalKey<Held<T>>, mutex: &'static Mutex<T>) {
    held.set(Some(ManuallyDrop::new(mutex.lock())));
}

/// After it, in the parent and in the child.
pub(crate) fn release<T>(held: &'static LocalKey<Held<T>>) {
    drop(held.take().map(ManuallyDrop::into_inner));
}
