//! The process across forks: the creator of each object, the descriptors that a child closes, the
//! locks held. Must never lock or allocate in the child's handler, where only async-signal-safe
//! calls are allowed.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::Relaxed};
use std::sync::{Once, OnceLock};

use crate::net::error::{Error, Result};
use crate::net::sys;

/// Incremented in every forked child, so that it differs from the generation of all inherited
/// objects.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Set in parent and child once a fork has happened.
static FORKED: AtomicBool = AtomicBool::new(false);
/// Enough for the listeners, pollers and event flags of a few thousand servers. A child leaks a
/// descriptor that finds no free slot, which costs the child a number and nothing else.
const TABLE_SIZE: usize = 16_384;
/// Numbers that a child closes, each stored as number + 1; 0 is a free slot.
static TABLE: [AtomicI32; TABLE_SIZE] = [const { AtomicI32::new(0) }; TABLE_SIZE];
/// One past the highest slot ever used, so that a child does not scan the whole table.
static USED: AtomicU32 = AtomicU32::new(0);

/// A lock that must be held across a fork, so that the child does not inherit it locked by a thread
/// that the child does not have.
pub(crate) trait HeldAcrossFork: Sync {
    /// Locks it before the fork, on the thread that forks.
    fn hold(&self);

    /// Unlocks it on the same thread, in the parent and in the child.
    fn release(&self);
}

/// The locks to hold, in the order in which they are taken. One slot for each such lock.
static HOOKS: [OnceLock<&'static dyn HeldAcrossFork>; 4] = [const { OnceLock::new() }; 4];

/// Registers a lock that is held across every later fork. Called at most once for each lock.
pub(crate) fn hold_across(hook: &'static dyn HeldAcrossFork) {
    let stored = HOOKS.iter().any(|slot| slot.set(hook).is_ok());
    debug_assert!(stored, "HOOKS has a slot for each lock");
}

/// Registers the fork handlers, once. Called before the first thread is started.
pub(crate) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| sys::at_fork(prepare, parent, child));
}

extern "C" fn prepare() {
    FORKED.store(true, Relaxed);
    HOOKS.iter().filter_map(OnceLock::get).for_each(|hook| hook.hold());
}

extern "C" fn parent() {
    HOOKS.iter().rev().filter_map(OnceLock::get).for_each(|hook| hook.release());
}

extern "C" fn child() {
    parent();
    GENERATION.fetch_add(1, Relaxed);
    let used = (USED.load(Relaxed) as usize).min(TABLE_SIZE);
    for slot in &TABLE[..used] {
        let number = slot.swap(0, Relaxed);
        if number > 0 {
            sys::close_number(number - 1);
        }
    }
}

/// Whether this process or an ancestor has forked. From then on, closing a descriptor may not end a
/// connection, because the other process may hold it open.
pub(crate) fn has_forked() -> bool {
    FORKED.load(Relaxed)
}

/// A descriptor's slot in the table of numbers that a child closes.
pub(crate) struct Listed(Option<u32>);

impl Listed {
    pub(crate) fn new(fd: &impl AsRawFd) -> Self {
        let number = fd.as_raw_fd() + 1;
        // Descriptor numbers are small and unique, so the slot of that index is most likely free.
        let start = fd.as_raw_fd() as usize % TABLE_SIZE;
        let slot = (start..TABLE_SIZE)
            .chain(0..start)
            .find(|&slot| TABLE[slot].compare_exchange(0, number, Relaxed, Relaxed).is_ok());
        if let Some(slot) = slot {
            USED.fetch_max(slot as u32 + 1, Relaxed);
        }
        Self(slot.map(|slot| slot as u32))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            TABLE[slot as usize].store(0, Relaxed);
        }
    }
}

/// The process that created an object.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    generation: u32,
    pid: u32,
}

impl Origin {
    /// This process.
    #[must_use]
    pub fn here() -> Self {
        Self { generation: GENERATION.load(Relaxed), pid: std::process::id() }
    }

    /// Whether the caller runs in the process that created the object. Costs one load.
    #[must_use]
    pub fn is_here(self) -> bool {
        self.generation == GENERATION.load(Relaxed)
    }

    /// Returns `Error::Forked` in any process but the creator.
    pub fn check(self) -> Result<()> {
        if self.is_here() {
            Ok(())
        } else {
            Err(Error::Forked { creator: self.pid, here: std::process::id() })
        }
    }
}
