//! Name resolution by the system's resolver. Must never block a caller who can be interrupted: the
//! resolver runs on a thread of its own that owns nothing but its result.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::endpoint::Address;
use super::target::Target;
use crate::net::base::{EventFd, Mutex, Origin, Waiter};
use crate::net::error::{Error, Result};
use crate::net::sys::{self, ResolverError};

/// How long an address has to answer before the next one is tried as well (RFC 8305, section 5).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

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
    let origin = Origin::here();
    let question =
        Arc::new(Question { answer: Mutex::new(None), done: EventFd::new().map_err(failed)? });
    let asked = Arc::clone(&question);
    ask(target, passive, move |answer| {
        *asked.answer.lock() = Some(answer);
        asked.done.set();
    })
    .map_err(failed)?;
    let answered = waiter.wait(&mut [question.done.polled()], deadline)?;
    if !origin.is_here() {
        // A signal handler has forked. The child has no thread that would answer; it asks again.
        std::mem::forget(question);
        return addresses(target, passive, deadline, waiter);
    }
    if !answered {
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
                Err(ResolverError::Resolver { code, text }) => {
                    Err(Error::Resolve { host, code, text })
                }
                Err(ResolverError::System(error)) => Err(Error::os("resolve", host, &error)),
            });
        })
    };
    sys::with_signals_blocked(spawn).map(drop)
}

/// The order in which addresses are tried: the resolver's, but with the two families in turn, so
/// that one that does not work here delays no more than one attempt (RFC 8305, section 4).
/// Duplicates are removed.
pub(crate) fn interleaved(addresses: &[Address]) -> Vec<Address> {
    let mut unique = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(address) {
            unique.push(address.clone());
        }
    }
    let first = unique.first().map(Address::domain);
    let (mut same, mut other): (Vec<_>, Vec<_>) =
        unique.into_iter().rev().partition(|address| Some(address.domain()) == first);
    let mut ordered = Vec::with_capacity(same.len() + other.len());
    while !same.is_empty() || !other.is_empty() {
        ordered.extend(same.pop());
        ordered.extend(other.pop());
    }
    ordered
}

fn no_address(host: &str) -> Error {
    Error::Resolve {
        host: host.to_owned(),
        code: libc::EAI_NONAME,
        text: "no address of a stream socket".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_of_a_name_alternate_from_the_preferred_one_on() {
        let of = |texts: &[&str]| -> Vec<Address> {
            texts.iter().map(|text| Address::Ip(text.parse().unwrap())).collect()
        };
        let found = of(&["[::1]:1", "[::2]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let wanted = of(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleaved(&found), wanted);
        let four = of(&["1.1.1.1:1", "2.2.2.2:1"]);
        assert_eq!(interleaved(&four), four);
        assert_eq!(interleaved(&[]), []);
    }
}
