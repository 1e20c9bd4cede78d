//! The process with its threads: getrlimit(2), prctl(2), pthread_sigmask(3), pthread_atfork(3),
//! flock(2). Must never hold state, decide anything, or know what a server is.

use std::ffi::CString;
use std::io;
use std::mem;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::os::unix::thread::RawPthread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit};

use crate::net::sys::check;

/// An exclusive flock(2), without waiting: EWOULDBLOCK if another process holds the lock. Held
/// until the last copy of the descriptor is closed.
pub(crate) fn try_lock(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive)?)
}

/// prctl(PR_SET_NAME): the calling thread's name in debuggers and /proc, at most 15 bytes.
pub(crate) fn name_thread(name: &str) {
    if let Ok(name) = CString::new(name) {
        // The kernel takes the first 15 bytes.
        let _ = rustix::thread::set_name(&name);
    }
}

/// prctl(PR_SET_TIMERSLACK): how much longer than requested a sleep of the calling thread may take.
/// The default of 50 µs is as long as the engine's only sleep.
pub(crate) fn set_timer_slack(slack: Duration) {
    let nanos = u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX);
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(nanos));
}

/// getrlimit(RLIMIT_NOFILE): soft and hard limit of open descriptors.
///
/// By the C library: `rustix` expects that this call cannot fail, but a filter may refuse it.
pub(crate) fn fd_limits() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is valid for writes.
    check(unsafe { libc::getrlimit64(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// setrlimit(RLIMIT_NOFILE): a new soft limit under the same hard one.
pub(crate) fn set_fd_soft_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = Rlimit { current: Some(soft), maximum: Some(hard) };
    Ok(rustix::process::setrlimit(Resource::Nofile, limit)?)
}

/// The signal of `interrupt`. Programs do not use it otherwise, and its default action is to ignore
/// it.
const INTERRUPT: libc::c_int = libc::SIGURG;

/// pthread_kill(3): makes the blocking call of a thread that `with_signals_blocked` has spawned
/// return EINTR. Installs a handler that does nothing if the program has none for the signal.
pub(crate) fn interrupt(thread: RawPthread) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: sigaction is plain old data.
    let mut found: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: reads the current action into a valid struct.
    let asked = unsafe { libc::sigaction(INTERRUPT, std::ptr::null(), &raw mut found) };
    if asked == 0 && matches!(found.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
        // SAFETY: as above. Without SA_RESTART, so that the call returns.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        // SAFETY: a valid action whose handler does nothing.
        unsafe { libc::sigaction(INTERRUPT, &raw const action, std::ptr::null_mut()) };
    }
    // SAFETY: the caller has not joined the thread, so that the handle is valid.
    unsafe { libc::pthread_kill(thread as libc::pthread_t, INTERRUPT) };
}

/// Runs `f` with SIGPIPE and every asynchronous signal but that of `interrupt` blocked. A thread
/// that `f` spawns inherits the mask: signals of the process are for Python's threads.
pub(crate) fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: sigset_t is plain old data; sigfillset sets every bit of it before use.
    let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: as above, for the mask that was in force.
    let mut before: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: both sets are valid. The synchronous signals stay deliverable, because a fault would
    // otherwise kill the process without a report.
    unsafe {
        libc::sigfillset(&raw mut mask);
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGSYS,
            INTERRUPT,
        ] {
            libc::sigdelset(&raw mut mask, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, &raw mut before);
    }
    let result = f();
    // SAFETY: restores the set that was read above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    result
}

/// pthread_atfork(3). Ignores ENOMEM, its only error: the library then works as long as the process
/// does not fork.
pub(crate) fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    unsafe extern "C" {
        // Not in the `libc` crate for this target.
        fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> libc::c_int;
    }
    // SAFETY: three functions that live as long as the process.
    unsafe { pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}
