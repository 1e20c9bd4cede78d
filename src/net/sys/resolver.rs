//! getaddrinfo(3). Must never hold state, decide anything, or know what a server is.

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::net::SocketAddr;

use crate::net::sys::name::Name;

/// The error of getaddrinfo(3).
pub(crate) enum ResolverError {
    /// Its EAI code and text.
    Resolver { code: i32, text: String },
    /// A system call of the resolver failed (EAI_SYSTEM).
    System(io::Error),
}

/// getaddrinfo(3) for stream sockets. A service without a host is looked up for every socket type,
/// streams first: some names, such as tftp, exist for UDP only. Blocks until the system's resolver
/// answers.
pub(crate) fn getaddrinfo(
    host: Option<&str>,
    service: Option<&str>,
    passive: bool,
) -> Result<Vec<SocketAddr>, ResolverError> {
    let nul = |_| ResolverError::Resolver {
        code: libc::EAI_NONAME,
        text: "a name with a NUL byte".to_owned(),
    };
    let host = host.map(CString::new).transpose().map_err(nul)?;
    let service = service.map(CString::new).transpose().map_err(nul)?;
    // SAFETY: addrinfo is plain old data; all zeroes is the documented initial value.
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_socktype = if host.is_some() { libc::SOCK_STREAM } else { 0 };
    hints.ai_flags = if passive { libc::AI_PASSIVE } else { 0 };
    let mut list: *mut libc::addrinfo = std::ptr::null_mut();
    // SAFETY: C strings and hints outlive the call; `list` is only read on success.
    let code = unsafe {
        libc::getaddrinfo(
            host.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            service.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            &raw const hints,
            &raw mut list,
        )
    };
    if code != 0 {
        if code == libc::EAI_SYSTEM {
            return Err(ResolverError::System(io::Error::last_os_error()));
        }
        // SAFETY: gai_strerror returns a static C string for every code.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
        let text = text.to_string_lossy().into_owned();
        return Err(ResolverError::Resolver { code, text });
    }
    let mut found = Vec::new();
    let mut node = list;
    while !node.is_null() {
        // SAFETY: the list is well formed until freeaddrinfo below.
        let info = unsafe { &*node };
        // SAFETY: `ai_addr` is valid for `ai_addrlen` bytes until freeaddrinfo below.
        let bytes =
            unsafe { std::slice::from_raw_parts(info.ai_addr.cast(), info.ai_addrlen as usize) };
        if let Some(addr) = Name::from_bytes(bytes).address() {
            if !found.contains(&addr) {
                found.push(addr);
            }
        }
        node = info.ai_next;
    }
    // SAFETY: the list came from getaddrinfo and is freed once.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}
