//! The kernel floor of UDP: the cheapest possible echo server of datagrams with one thread.
//!
//! `udp --batch 64` receives and sends up to 64 with one recvmmsg and one sendmmsg; `--batch 1`
//! does it with recvfrom and sendto. Prints its port and echoes until its standard input ends.
//! Must never do anything more: no counting, no rules about which peers to answer, no handling of
//! failed sends, because figures are read as multiples of this.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::exit;
use std::thread;

use peers::windows::option;
use peers::{Batch, recv_from, send_to};

/// Room for the largest datagram.
const SIZE: usize = 65_535;

fn main() -> io::Result<()> {
    let batch: usize = option("batch", Some(64))?;
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    println!("{}", socket.local_addr()?.port());
    // This thread sleeps until the end and then ends the process; the other one serves.
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        exit(0);
    });
    let socket = socket.as_raw_fd();
    if batch == 1 {
        let mut buffer = vec![0; SIZE];
        loop {
            let (count, from) = recv_from(socket, &mut buffer)?;
            send_to(socket, &buffer[..count], &from)?;
        }
    }
    let mut batch = Batch::new(batch, SIZE);
    loop {
        let count = batch.receive(socket)?;
        batch.send_back(socket, count)?;
    }
}
