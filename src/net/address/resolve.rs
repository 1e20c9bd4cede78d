//! Name resolution by the system's resolver. Must never block a caller who can be interrupted: the
//! resolver runs on a thread of its own that owns nothing but its result.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::endpoint::Address;
use super::target::Target;
use crate::net::base::{EventFd, Mutex, Waiter};
use crate::net::error::{Error, Result};
use crate::net::sys::{self, PollFd, ResolverError};

struct Question {
    answer: Mutex<Option<Result<Vec<Address>>>>,
    done: EventFd,
}

/// All addresses of a target, in the resolver's order. An IP address or the name of a Unix socket
/// is returned without a query.
///
/// Blocks until the resolver answers, the deadline passes (`TimedOut`) or the waiter is
/// interrupted. A query that is no longer waited for ends by itself.
pub(crate) fn addresses(
    target: &Target,
    passive: bool,
    deadline: Option<Instant>,
    waiter: &mut dyn Waiter,
) -> Result<Vec<Address>> {
    if let Some(address) = target.known() {
        return Ok(vec![address]);
    }
    let failed = |error: std::io::Error| Error::os("resolve", target.host(), &error);
    let question =
        Arc::new(Question { answer: Mutex::new(None), done: EventFd::new().map_err(failed)? });
    let asked = Arc::clone(&question);
    ask(target, passive, move |answer| {
        *asked.answer.lock() = Some(answer);
        asked.done.set();
    })
    .map_err(failed)?;
    if !waiter.wait(&mut [PollFd::readable(question.done.as_fd())], deadline)? {
        return Err(Error::TimedOut { step: "resolve", target: target.host().to_owned() });
    }
    let answer = question.answer.lock().take();
    answer.unwrap_or_else(|| Err(no_address(target.host())))
}

/// Queries all addresses of a target and calls `then` with the result, on a thread of its own that
/// is never joined. Never blocks. Fails if the thread cannot be started.
pub(crate) fn ask(
    target: &Target,
    passive: bool,
    then: impl FnOnce(Result<Vec<Address>>) + Send + 'static,
) -> io::Result<()> {
    let (host, port) = (target.host().to_owned(), target.port());
    let spawn = || {
        thread::Builder::new().name("rsock-resolve".to_owned()).spawn(move || {
            then(match sys::getaddrinfo(Some(&host), None, passive) {
                Ok(found) if found.is_empty() => Err(no_address(&host)),
                Ok(found) => Ok(found
                    .into_iter()
                    .map(|mut address| {
                        address.set_port(port);
                        Address::Ip(address).canonical()
                    })
                    .collect()),
                Err(ResolverError { code, text }) => Err(Error::Resolve { host, code, text }),
            });
        })
    };
    sys::with_signals_blocked(spawn).map(drop)
}

fn no_address(host: &str) -> Error {
    Error::Resolve {
        host: host.to_owned(),
        code: libc::EAI_NONAME,
        text: "no address of a stream socket".to_owned(),
    }
}
