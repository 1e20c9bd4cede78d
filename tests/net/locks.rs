//! What a fork of a busy process leaves of locks. Owns one experiment: children that take only new
//! locks of their own, after a fork of a parent whose threads contend for theirs. Must never share
//! a lock between parent and child.
//!
//! A test binary of its own, because a fork changes how the whole process closes its sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::base::Mutex;

const CHILDREN: usize = 40;
/// Threads on each side that contend for one lock.
const THREADS: usize = 8;
/// How often each thread of a child takes the lock.
const TURNS: usize = 50;
/// No child takes longer, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Holds a lock for a moment, so that the others have to wait for it.
fn take(lock: &Mutex<usize>) {
    let mut count = lock.lock();
    *count += 1;
    thread::sleep(Duration::from_micros(1));
}

/// The work of a child: as many threads as the parent has, and a lock that is new.
fn contend() -> bool {
    let lock = Arc::new(Mutex::new(0));
    let threads = [(); THREADS].map(|()| {
        let lock = Arc::clone(&lock);
        thread::spawn(move || (0..TURNS).for_each(|_| take(&lock)))
    });
    let joined = threads.map(|thread| thread.join().is_ok());
    joined == [true; THREADS] && *lock.lock() == THREADS * TURNS
}

/// Whether a forked child does its work and exits.
fn child_comes_through() -> bool {
    // SAFETY: the child runs code of this file, and leaves by _exit, which runs nothing of the
    // parent's.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let code = i32::from(!contend());
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(code) };
    }
    let deadline = Instant::now() + PATIENCE;
    let mut status = 0;
    loop {
        // SAFETY: waits for a child of our own, into a variable of our own.
        let ended = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if ended == pid {
            return libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        }
        if Instant::now() >= deadline {
            // SAFETY: signals a child of our own, then waits for its end.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, &raw mut status, 0);
            }
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn children_of_a_busy_parent_can_use_new_locks() {
    let over = Arc::new(AtomicBool::new(false));
    let lock = Arc::new(Mutex::new(0));
    let threads = [(); THREADS].map(|()| {
        let (lock, over) = (Arc::clone(&lock), Arc::clone(&over));
        thread::spawn(move || {
            while !over.load(Relaxed) {
                take(&lock);
            }
        })
    });
    let came_through = (0..CHILDREN).filter(|_| child_comes_through()).count();
    over.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(came_through, CHILDREN);
}
