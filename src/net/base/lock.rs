//! The locks of the engine. Owns their behaviour on a panic, which poisons nothing, and across a
//! fork, which leaves no lock in doubt; must never record waiting threads outside of the lock.
//!
//! This rules out `parking_lot`. It keeps waiting threads in a table of the process, as pointers
//! into those threads. A forked child inherits the table but not the threads, and its own threads
//! reuse their memory: a lock of the child that reads the table finds overwritten entries. (14 of
//! 40 children with a server of their own ended in a segmentation fault, on one CPU and depending
//! on the memory layout.) The standard library's locks wait in the kernel, and keep all their state
//! in the lock itself.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::{self, PoisonError, TryLockError};
use std::thread::LocalKey;
use std::time::Instant;

/// The guard of a `Mutex`.
pub type MutexGuard<'a, T> = sync::MutexGuard<'a, T>;

/// `std::sync::Mutex` without poisoning: the guarded value is valid at each step, so a panic of the
/// holder does no harm.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// An unlocked mutex.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Locks it. Blocks while another thread holds it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks it; None if it is already locked. Never blocks.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The guarded value, without locking: the exclusive borrow excludes other holders.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a thread wait until another thread changes what a `Mutex` guards.
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    /// Wakes one waiting thread.
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Unlocks the mutex and waits, until the deadline if there is one, then locks it again. May
    /// return without a notification.
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

/// The guard of a lock that the forking thread holds across a fork, so that no child inherits it
/// locked by a thread that the child does not have. Thread exit never drops a guard, because
/// `release` always takes it first.
pub(crate) type Held<T> = Cell<Option<ManuallyDrop<MutexGuard<'static, T>>>>;

/// Locks `mutex` before the fork.
pub(crate) fn hold<T>(held: &'static LocalKey<Held<T>>, mutex: &'static Mutex<T>) {
    held.set(Some(ManuallyDrop::new(mutex.lock())));
}

/// Unlocks it after the fork, in the parent and in the child.
pub(crate) fn release<T>(held: &'static LocalKey<Held<T>>) {
    drop(held.take().map(ManuallyDrop::into_inner));
}
