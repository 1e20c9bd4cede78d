//! Names to addresses, by the system's resolver. Must never block a caller who can be interrupted:
//! the resolver runs on a thread of its own that owns nothing but its result.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use super::endpoint::{Target, canonical};
use super::error::{Error, Result};
use super::sys::{self, PollFd, ResolverError};
use super::wake::{EventFd, Waiter};

type Answer = std::result::Result<Vec<SocketAddr>, ResolverError>;

struct Question {
    answer: Mutex<Option<Answer>>,
    done: EventFd,
}

/// All addresses of a target, in the resolver's order. A number is its own address and asks nobody.
///
/// Blocks until the resolver answers, the deadline passes (`TimedOut`) or the waiter is interrupted;
/// a resolver that is given up on ends by itself.
pub(crate) fn addresses(
    target: &Target,
    passive: bool,
    deadline: Option<Instant>,
    waiter: &mut dyn Waiter,
) -> Result<Vec<SocketAddr>> {
    if let Some(address) = target.numeric() {
        return Ok(vec![address]);
    }
    let step = "resolve";
    let done = EventFd::new().map_err(|error| Error::os(step, target.host(), &error))?;
    let question = Arc::new(Question { answer: Mutex::new(None), done });
    let (asked, host, port) = (Arc::clone(&question), target.host().to_owned(), target.port());
    let spawn = || {
        thread::Builder::new().name("rsock-resolve".to_owned()).spawn(move || {
            let mut answer = sys::getaddrinfo(Some(&host), None, passive);
            if let Ok(found) = &mut answer {
                for address in found {
                    address.set_port(port);
                    *address = canonical(*address);
                }
            }
            *asked.answer.lock() = Some(answer);
            asked.done.set();
        })
    };
    sys::with_signals_blocked(spawn).map_err(|error| Error::os(step, target.host(), &error))?;
    if !waiter.wait(&mut [PollFd::readable(question.done.as_fd())], deadline)? {
        return Err(Error::TimedOut { step, target: target.host().to_owned() });
    }
    match question.answer.lock().take() {
        Some(Ok(found)) if !found.is_empty() => Ok(found),
        Some(Err(ResolverError { code, text })) => {
            Err(Error::Resolve { host: target.host().to_owned(), code, text })
        }
        _ => Err(Error::Resolve {
            host: target.host().to_owned(),
            code: libc::EAI_NONAME,
            text: "no address of a stream socket".to_owned(),
        }),
    }
}
