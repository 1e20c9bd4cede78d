//! What several test modules need: a server of a service, clients with deadlines, a condition to
//! wait for. Must never assert anything of its own about the engine.

use std::cell::RefCell;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use _rsock::net::address::{Address, Target, Transport};
use _rsock::net::base::Plain;
use _rsock::net::control::{Access, Cause, Config, Limits, StopReport};
use _rsock::net::ledger::{Ledger, Record};
use _rsock::net::server::Server;
use _rsock::net::service::{Service, Shape};
use _rsock::net::services::Echo;
use _rsock::net::socket::SocketOptions;
use _rsock::net::stage::{Bytewise, Delayed, StageFactory, each};
use socket2::SockRef;

/// No condition of these tests takes longer, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the servers of this thread have between their sockets and their sessions.
#[derive(Default)]
struct Through {
    factory: Option<Arc<dyn StageFactory>>,
    /// Divides lengths of tests that would take too long.
    divisor: usize,
    /// Of sockets, so that the kernel holds less; None leaves that to the system.
    buffers: Option<usize>,
}

thread_local! {
    static THROUGH: RefCell<Through> = const { RefCell::new(Through { factory: None, divisor: 1, buffers: None }) };
}

/// How long the stage `Delayed` of these tests delays, in each direction.
pub const DELAY: Duration = Duration::from_millis(3);

/// Runs a test with a stage that passes on byte by byte. Lengths are smaller: each byte is a call.
pub fn bytewise(test: impl FnOnce()) {
    let factory = Some(each(|| Bytewise));
    through(Through { factory, divisor: 50, buffers: Some(16 * 1024) }, test);
}

/// Runs a test with a stage that delays everything, ends included.
pub fn delayed(test: impl FnOnce()) {
    let factory = Some(each(|| Delayed::new(DELAY)));
    through(Through { factory, divisor: 10, buffers: None }, test);
}

fn through(through: Through, test: impl FnOnce()) {
    THROUGH.set(through);
    test();
}

/// Whether the servers of this thread have stages.
pub fn has_stages() -> bool {
    THROUGH.with_borrow(|through| through.factory.is_some())
}

/// A length of a test, less of it through stages.
pub fn scaled(length: usize) -> usize {
    length / THROUGH.with_borrow(|through| through.divisor)
}

/// Runs tests of a module again through each of the two stages.
macro_rules! through_stages {
    ($($test:ident),* $(,)?) => {
        mod bytewise {
            $(#[test] fn $test() { crate::support::bytewise(super::$test) })*
        }
        mod delayed {
            $(#[test] fn $test() { crate::support::delayed(super::$test) })*
        }
    };
}
pub(crate) use through_stages;

/// A configuration on a free port of the loopback.
pub fn config(service: impl Service + 'static) -> Config {
    config_of(Shape::Stream(Arc::new(service)))
}

/// The same of any shape.
pub fn config_of(shape: Shape) -> Config {
    let buffers = THROUGH.with_borrow(|through| through.buffers);
    Config {
        ordered: true,
        transport: Transport::Tcp,
        allow_external: false,
        target: Target::new("127.0.0.1", 0).unwrap(),
        fd: None,
        replace: false,
        access: Access::default(),
        proxies: Vec::new(),
        shape,
        tls: None,
        faults: None,
        seed: None,
        stages: THROUGH.with_borrow(|through| through.factory.clone()),
        workers: Some(1),
        options: SocketOptions {
            send_buffer: buffers,
            receive_buffer: buffers,
            ..SocketOptions::default()
        },
        limits: Limits::default(),
        history: 100,
        trace: None,
        drain: Duration::from_secs(1),
        name: "test".to_owned(),
    }
}

pub fn start(config: Config) -> Server {
    let server = Server::new(config);
    server.start(&mut Plain).unwrap();
    server
}

pub fn serve(service: impl Service + 'static) -> Server {
    start(config(service))
}

pub fn echo() -> Server {
    serve(Echo)
}

/// An address of TCP, as the standard library has it.
pub fn ip(address: impl Into<Address>) -> SocketAddr {
    address.into().as_ip().expect("an address of TCP")
}

/// A connection whose reads and writes fail, rather than hang, after `PATIENCE`.
pub fn dial(address: impl Into<Address>) -> TcpStream {
    let address = ip(address);
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    if let Some(size) = THROUGH.with_borrow(|through| through.buffers) {
        let socket = SockRef::from(&stream);
        socket.set_send_buffer_size(size).unwrap();
        socket.set_recv_buffer_size(size).unwrap();
    }
    stream
}

/// How a server ends a connection that it does not want, whether that is seen while connecting (the
/// reset may be that fast) or at the first read.
pub fn rejection(address: impl Into<Address>) -> ErrorKind {
    let address = ip(address);
    let read = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read(&mut [0; 1])
    };
    TcpStream::connect_timeout(&address, PATIENCE).and_then(read).unwrap_err().kind()
}

pub fn stop(server: &Server) -> StopReport {
    server.stop(None, Cause::Stop, &mut Plain).unwrap()
}

/// Waits for `closed` ends and returns all records.
pub fn closed(ledger: &Ledger, closed: u64) -> Vec<Arc<Record>> {
    ledger.wait(Some(0), Some(closed), Some(Instant::now() + PATIENCE), &mut Plain).unwrap()
}

/// Waits until `open` connections are open.
pub fn open(ledger: &Ledger, open: u64) {
    ledger.wait(Some(open), None, Some(Instant::now() + PATIENCE), &mut Plain).unwrap();
}

/// Waits for a condition that no event announces.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Bytes that repeat nowhere soon, so that a lost or doubled one is seen.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}
