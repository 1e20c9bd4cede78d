//! recvmmsg(2), sendmmsg(2): several datagrams per system call. Must never hold state, decide
//! anything, or know what a server is.

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::net::sys::message::sendmsg;
use crate::net::sys::name::Name;
use crate::net::sys::{check, check_len, is_refused};

/// Datagrams per recvmmsg(2) or sendmmsg(2) call. A larger batch saves nothing measurable.
pub(crate) const BATCH: usize = 64;
/// Bytes of control messages per datagram: its destination (IP_PKTINFO and IPV6_PKTINFO).
pub(crate) const CONTROL: usize = 128;

/// Memory at a fixed address. The kernel keeps pointers to it, so it must not move when its owner
/// does.
pub(crate) struct Pinned<T>(std::ptr::NonNull<[T]>);

impl<T> Pinned<T> {
    fn new(items: Vec<T>) -> Self {
        Self(Box::leak(items.into_boxed_slice()).into())
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.0.len());
        // SAFETY: within the slice.
        unsafe { self.0.as_ptr().cast::<T>().add(index) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: it came from a box and is freed once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Zeroed memory, of which only written pages count as used. Returns ENOMEM if there is not enough,
/// because the allocation is large and its failure must not abort the process.
pub(crate) fn zeroed_bytes(count: usize) -> io::Result<Vec<u8>> {
    let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
    let layout = Layout::array::<u8>(count).map_err(|_| no_memory())?;
    assert!(layout.size() > 0, "zero bytes requested");
    // SAFETY: not of size zero.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        return Err(no_memory());
    }
    // SAFETY: `count` bytes, all zero, from the allocator and with the layout that a Vec frees them
    // with.
    Ok(unsafe { Vec::from_raw_parts(start, count, count) })
}

/// A receive buffer for a batch of datagrams, each with its sender and, if requested, its control
/// messages. Only written pages use memory.
pub(crate) struct Inbound {
    headers: Pinned<libc::mmsghdr>,
    _vectors: Pinned<libc::iovec>,
    names: Pinned<Name>,
    controls: Pinned<[u64; CONTROL / 8]>,
    data: Pinned<u8>,
    /// Largest size of one datagram; `stride` is the distance from one datagram to the next.
    size: usize,
    stride: usize,
    control: usize,
    /// Number of headers that the last call wrote to.
    used: usize,
}

// SAFETY: it owns all memory that its pointers refer to, and shares none of it.
unsafe impl Send for Inbound {}

/// One datagram of a batch.
pub(crate) struct Received<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) from: &'a Name,
    pub(crate) control: &'a [u8],
    /// Whether the datagram was longer than `size` and its end was discarded.
    pub(crate) cut: bool,
}

impl Inbound {
    /// Allocates a batch of datagrams of up to `size` bytes each. `with_destination` adds space for
    /// their destinations. Fails with ENOMEM.
    pub(crate) fn new(size: usize, with_destination: bool) -> io::Result<Self> {
        // Not a power of two, because the datagrams of a batch would then share a few cache lines.
        let stride = size.next_multiple_of(64) + 64;
        // SAFETY: plain old data for which all zeroes is a valid value.
        let zeroed = || unsafe { mem::zeroed::<libc::mmsghdr>() };
        let inbound = Self {
            headers: Pinned::new(std::iter::repeat_with(zeroed).take(BATCH).collect()),
            _vectors: Pinned::new(vec![
                libc::iovec {
                    iov_base: std::ptr::null_mut(),
                    iov_len: size
                };
                BATCH
            ]),
            names: Pinned::new(vec![Name::room(); BATCH]),
            controls: Pinned::new(vec![[0; CONTROL / 8]; if with_destination { BATCH } else { 0 }]),
            data: Pinned::new(zeroed_bytes(stride * BATCH)?),
            size,
            stride,
            control: if with_destination { CONTROL } else { 0 },
            used: BATCH,
        };
        for index in 0..BATCH {
            let vector = inbound._vectors.at(index);
            // SAFETY: within memory that is owned, to which there are no references.
            unsafe {
                (*vector).iov_base = inbound.data.at(index * stride).cast();
                let header = &raw mut (*inbound.headers.at(index)).msg_hdr;
                (*header).msg_name = inbound.names.at(index).cast();
                (*header).msg_iov = vector;
                (*header).msg_iovlen = 1;
                if with_destination {
                    (*header).msg_control = inbound.controls.at(index).cast();
                }
            }
        }
        Ok(inbound)
    }

    /// recvmmsg(2) of up to `most` datagrams, which replace those of the last call. Returns their
    /// number. Where recvmmsg(2) is not available, recvmsg(2) receives one.
    pub(crate) fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        most: usize,
        flags: i32,
    ) -> io::Result<usize> {
        for index in 0..mem::take(&mut self.used) {
            // SAFETY: within memory that is owned, to which there are no references while `self` is
            // borrowed mutably.
            unsafe {
                let header = &raw mut (*self.headers.at(index)).msg_hdr;
                (*header).msg_namelen = Name::ROOM;
                (*header).msg_controllen = self.control as _;
                (*header).msg_flags = 0;
            }
        }
        // SAFETY: the headers lead to memory that is valid for writes of the lengths they give.
        let received = check(unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.at(0),
                most.min(BATCH) as _,
                flags as _,
                std::ptr::null_mut(),
            )
        });
        let received = match received {
            Err(error) if is_refused(&error) => self.receive_one(fd, flags),
            received => received,
        };
        // A failed call may have written to one header as well.
        self.used = received.as_ref().map_or(1, |&count| (count as usize + 1).min(BATCH));
        Ok(received? as usize)
    }

    /// recvmsg(2) into the first place. Returns the number of datagrams, which is 1.
    fn receive_one(&mut self, fd: BorrowedFd<'_>, flags: i32) -> io::Result<libc::c_int> {
        // A flag of recvmmsg alone: recvmsg waits for its one datagram without it.
        let flags = flags & !libc::MSG_WAITFORONE;
        // SAFETY: the header leads to memory that is valid for writes of the lengths it gives.
        let length = check_len(unsafe {
            libc::recvmsg(fd.as_raw_fd(), &raw mut (*self.headers.at(0)).msg_hdr, flags)
        })?;
        // SAFETY: within memory that is owned, to which there are no references while `self` is
        // borrowed mutably.
        unsafe { (*self.headers.at(0)).msg_len = length as libc::c_uint };
        Ok(1)
    }

    /// The datagram at `index` among those that the last call received.
    pub(crate) fn get(&self, index: usize) -> Received<'_> {
        // SAFETY: within memory that is owned and that only `receive` writes to, which borrows
        // `self` mutably. The kernel has written no more than the sizes it was given.
        unsafe {
            let header = &*self.headers.at(index);
            let length = (header.msg_len as usize).min(self.size);
            let control: usize = header.msg_hdr.msg_controllen as _;
            let control = control.min(self.control);
            let name = self.names.at(index);
            (*name).length = header.msg_hdr.msg_namelen.min(Name::ROOM);
            Received {
                data: std::slice::from_raw_parts(self.data.at(index * self.stride), length),
                from: &*name,
                control: match control {
                    0 => &[],
                    _ => std::slice::from_raw_parts(self.controls.at(index).cast(), control),
                },
                cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            }
        }
    }
}

/// One datagram to send.
pub(crate) struct Outgoing<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) to: &'a Name,
    pub(crate) control: &'a [u8],
}

/// sendmmsg(2) of up to `BATCH` of `count` datagrams, which `message` returns by index. Returns the
/// number sent; an error refers to the first datagram. Where sendmmsg(2) is not available,
/// sendmsg(2) sends the first one.
pub(crate) fn send_many<'a>(
    fd: BorrowedFd<'_>,
    count: usize,
    flags: i32,
    mut message: impl FnMut(usize) -> Outgoing<'a>,
) -> io::Result<usize> {
    let count = count.min(BATCH);
    let mut vectors = [const { mem::MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut headers = [const { mem::MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    for index in 0..count {
        let Outgoing { data, to, control } = message(index);
        let vector = vectors[index]
            .write(libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() });
        // SAFETY: plain old data for which all zeroes is a valid value.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        // sendmmsg only reads what these point to.
        header.msg_hdr.msg_name = (&raw const to.raw).cast_mut().cast();
        header.msg_hdr.msg_namelen = to.length;
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        if !control.is_empty() {
            header.msg_hdr.msg_control = control.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_controllen = control.len() as _;
        }
        headers[index].write(header);
    }
    // SAFETY: `count` headers were written. What they point to lives for 'a, and the vectors live
    // until the end of this function.
    let sent = check(unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count as _,
            (flags | libc::MSG_NOSIGNAL) as _,
        )
    });
    match sent {
        Err(error) if is_refused(&error) && count > 0 => {
            let Outgoing { data, to, control } = message(0);
            sendmsg(fd, &[io::IoSlice::new(data)], control, Some(to), flags).map(|_| 1)
        }
        sent => sent.map(|sent| sent as usize),
    }
}
