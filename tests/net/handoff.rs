//! Connections in the hands of the caller's threads: who gets them, who ends, and the end of all.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use _rsock::net::base::Plain;
use _rsock::net::control::{Cause, Config, Limits, Overflow};
use _rsock::net::error::Error;
use _rsock::net::handoff::{Job, Pool};
use _rsock::net::ledger::ClosedBy;
use _rsock::net::server::Server;
use _rsock::net::service::Shape;
use _rsock::net::stream::Stream;

use crate::support::{PATIENCE, closed, config_of, dial, ip, rejection, start, stop, until};

fn pooled() -> Config {
    config_of(Shape::Handler)
}

fn asked() -> Config {
    config_of(Shape::Accept)
}

fn serve(config: Config) -> Arc<Server> {
    Arc::new(start(config))
}

/// Threads that serve each connection with `handler`, one more whenever the pool wants one.
struct Threads {
    pool: Arc<Pool>,
    live: Arc<AtomicUsize>,
    started: Arc<AtomicUsize>,
}

impl Threads {
    fn of(server: &Server, handler: impl Fn(&Stream) + Send + Sync + 'static) -> Self {
        let threads =
            Self { pool: Arc::new(server.pool()), live: Arc::default(), started: Arc::default() };
        assert!(threads.pool.wants_thread(), "the first one");
        threads.one_more(Arc::new(handler));
        threads
    }

    fn one_more(&self, handler: Arc<dyn Fn(&Stream) + Send + Sync>) {
        let Self { pool, live, started } = self;
        let this =
            Self { pool: Arc::clone(pool), live: Arc::clone(live), started: Arc::clone(started) };
        live.fetch_add(1, SeqCst);
        started.fetch_add(1, SeqCst);
        thread::spawn(move || {
            let _member = this.pool.enter();
            while let Some(Job::Stream(stream)) = this.pool.next() {
                if this.pool.wants_thread() {
                    this.one_more(Arc::clone(&handler));
                }
                handler(&stream);
                stream.close();
            }
            this.live.fetch_sub(1, SeqCst);
            this.pool.thread_ends();
        });
    }

    fn live(&self) -> usize {
        self.live.load(SeqCst)
    }
}

/// Echoes until the end.
fn echo(stream: &Stream) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.recv("recv", &mut buffer, 0, &mut Plain) {
        stream.sendall(&buffer[..count], 0, &mut 0, &mut Plain).unwrap();
    }
}

fn says_back(peer: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    peer.write_all(b"hello").is_ok() && peer.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

#[test]
fn one_thread_serves_connections_that_come_one_after_the_other() {
    let server = serve(pooled());
    let threads = Threads::of(&server, echo);
    for number in 0..20 {
        let mut peer = dial(server.address().unwrap());
        assert!(says_back(&mut peer));
        drop(peer);
        closed(&server.ledger(), number + 1);
    }
    // One at work and one that waits for the next; another where one was late to come back.
    assert!((2..=4).contains(&threads.started.load(SeqCst)), "{:?}", threads.started);
    assert_eq!(stop(&server).forced, 0);
    assert_eq!(threads.live(), 0);
    let ends = server.ledger().totals().closed_by;
    assert_eq!(ends.iter().sum::<u64>(), ends[0], "the peer finished first, each time");
}

#[test]
fn connections_beyond_the_threads_wait_and_are_counted() {
    let limits = Limits { handler_threads: 2, ..Limits::default() };
    let server = serve(Config { limits, ..pooled() });
    let threads = Threads::of(&server, echo);
    let address = ip(server.address().unwrap());
    let mut served: Vec<_> = (0..2).map(|_| dial(address)).collect();
    assert!(served.iter_mut().all(says_back));
    let mut waiting = dial(address);
    until("the third waits", || server.ledger().totals().waited == 1);
    assert_eq!(threads.live(), 2);
    assert!(threads.pool.should_warn() && !threads.pool.should_warn(), "told once");
    served.pop();
    assert!(says_back(&mut waiting));
    drop((served, waiting));
    closed(&server.ledger(), 3);
    stop(&server);
}

#[test]
fn idle_threads_end_but_for_one() {
    let server = serve(pooled());
    let threads = Threads::of(&server, echo);
    let mut peers: Vec<_> = (0..8).map(|_| dial(server.address().unwrap())).collect();
    assert!(peers.iter_mut().all(says_back));
    until("there is one to spare", || threads.live() == 9);
    drop(peers);
    closed(&server.ledger(), 8);
    until("one is left", || threads.live() == 1);
    assert!(says_back(&mut dial(server.address().unwrap())));
    stop(&server);
    assert_eq!(threads.live(), 0);
}

#[test]
fn a_stop_gives_waiting_reads_the_end_and_waits_for_the_first_byte() {
    let server = serve(pooled());
    let threads = Threads::of(&server, echo);
    let mut heard: Vec<_> = (0..8).map(|_| dial(server.address().unwrap())).collect();
    assert!(heard.iter_mut().all(says_back));
    let begun = Instant::now();
    let report = stop(&server);
    assert!(begun.elapsed() < Duration::from_millis(240), "at once: {:?}", begun.elapsed());
    assert_eq!((report.drained, report.forced, report.abandoned), (8, 0, 0));
    assert_eq!(threads.live(), 0);
    assert!(heard.iter_mut().all(|peer| peer.read(&mut [0; 1]).unwrap() == 0));

    let server = serve(pooled());
    let _threads = Threads::of(&server, echo);
    let mut late = dial(server.address().unwrap());
    until("it is accepted", || server.ledger().totals().open == 1);
    let stopping = stopping(&server);
    until("the stop has begun", || server.state().name() == "draining");
    assert!(says_back(&mut late), "within the quarter second");
    assert_eq!(stopping.join().unwrap().forced, 0);
    let records = server.ledger().closed_records();
    assert_eq!(records[0].closed_by(), Some(ClosedBy::Stop));
}

fn stopping(server: &Arc<Server>) -> JoinHandle<_rsock::net::control::StopReport> {
    let server = Arc::clone(server);
    thread::spawn(move || server.stop(None, Cause::Stop, &mut Plain).unwrap())
}

#[test]
fn what_a_handler_was_sent_is_read_in_a_draining_server() {
    let server = serve(pooled());
    let go = Arc::new(AtomicBool::new(false));
    let (gate, read) = (Arc::clone(&go), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&read);
    let _threads = Threads::of(&server, move |stream| {
        until("it may read", || gate.load(SeqCst));
        let mut buffer = [0; 100];
        while let Ok(got @ 1..) = stream.recv("recv", &mut buffer, 0, &mut Plain) {
            count.fetch_add(got, SeqCst);
        }
    });
    let mut peer = dial(server.address().unwrap());
    peer.write_all(&[7; 1000]).unwrap();
    until("it is accepted", || server.ledger().totals().open == 1);
    let stopping = stopping(&server);
    until("the stop has begun", || server.state().name() == "draining");
    go.store(true, SeqCst);
    assert_eq!(stopping.join().unwrap().drained, 1);
    assert_eq!(read.load(SeqCst), 1000);
}

#[test]
fn a_handler_that_does_not_return_is_reset_and_left_behind() {
    let server = serve(pooled());
    let go = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&go);
    let threads = Threads::of(&server, move |_| until("it is let go", || gate.load(SeqCst)));
    let mut peer = dial(server.address().unwrap());
    peer.write_all(b"x").unwrap();
    until("it is at work", || threads.live() == 2);
    let report = server.stop(Some(Duration::from_millis(50)), Cause::Stop, &mut Plain).unwrap();
    assert_eq!((report.forced, report.abandoned), (1, 1));
    assert!(report.seconds < Duration::from_secs(1), "{:?}", report.seconds);
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let totals = server.ledger().totals();
    assert_eq!((totals.accepted, totals.open, totals.closed), (1, 0, 1));
    go.store(true, SeqCst);
    until("it has ended all the same", || threads.live() == 0);
}

#[test]
fn connections_that_wait_for_a_thread_are_served_before_the_end() {
    let limits = Limits { handler_threads: 1, ..Limits::default() };
    let server = serve(Config { limits, ..pooled() });
    let _threads = Threads::of(&server, echo);
    let address = ip(server.address().unwrap());
    let mut first = dial(address);
    assert!(says_back(&mut first));
    let mut waiting: Vec<_> = (0..4).map(|_| dial(address)).collect();
    for peer in &mut waiting {
        peer.write_all(b"hello").unwrap();
    }
    until("all wait", || server.ledger().totals().waited == 4);
    let report = stop(&server);
    assert_eq!((report.drained, report.forced), (5, 0));
    for mut peer in waiting {
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"hello");
    }
}

#[test]
fn nothing_is_accepted_before_a_call_of_accept() {
    let server = serve(asked());
    let address = ip(server.address().unwrap());
    let mut peers: Vec<_> = (0..3).map(|_| dial(address)).collect();
    assert_eq!(server.ledger().totals().accepted, 0);
    let soon = Some(Instant::now() + PATIENCE);
    let first = server.accept(soon, &mut Plain).unwrap();
    assert_eq!(server.ledger().totals().accepted, 1);
    assert_eq!(
        first.record().unwrap().remote().address.as_ip(),
        Some(peers[0].local_addr().unwrap())
    );
    peers[0].write_all(b"hello").unwrap();
    let mut buffer = [0; 100];
    assert_eq!(first.recv_exactly(5, &mut Plain).unwrap(), b"hello");
    first.close();
    assert_eq!(peers[0].read(&mut buffer).unwrap(), 0);
    let records = closed(&server.ledger(), 1);
    assert_eq!(records[0].closed_by(), Some(ClosedBy::Local));
    // Two wait in the queue, and are reset.
    let report = stop(&server);
    assert_eq!((report.drained, report.forced), (0, 2));
    assert_eq!(peers[1].read(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_waiting_accept_times_out_and_ends_with_the_server() {
    let server = serve(asked());
    let soon = Some(Instant::now() + Duration::from_millis(20));
    assert!(matches!(server.accept(soon, &mut Plain), Err(Error::TimedOut { step: "accept", .. })));
    let waiting = Arc::clone(&server);
    let accepting = thread::spawn(move || waiting.accept(None, &mut Plain).map(|_| ()));
    stop(&server);
    assert!(matches!(accepting.join().unwrap(), Err(Error::State { asked: "accept", .. })));
    assert!(matches!(server.accept(None, &mut Plain), Err(Error::State { asked: "accept", .. })));
}

#[test]
fn the_limit_holds_for_several_who_ask() {
    let limits = Limits { connections: Some(2), ..Limits::default() };
    let server = serve(Config { limits, ..asked() });
    let address = ip(server.address().unwrap());
    let most = Arc::new(AtomicUsize::new(0));
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let (server, most) = (Arc::clone(&server), Arc::clone(&most));
            thread::spawn(move || {
                while let Ok(stream) = server.accept(None, &mut Plain) {
                    most.fetch_max(server.ledger().totals().open as usize, SeqCst);
                    echo(&stream);
                    stream.close();
                }
            })
        })
        .collect();
    let peers: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || (0..10).all(|_| says_back(&mut dial(address)))))
        .collect();
    assert!(peers.into_iter().all(|peer| peer.join().unwrap()));
    closed(&server.ledger(), 80);
    assert!(most.load(SeqCst) <= 2, "{most:?} were open at a time");
    stop(&server);
    for asker in askers {
        asker.join().unwrap();
    }
}

#[test]
fn who_asks_at_the_limit_refuses_the_excess_where_told_to() {
    let limits = Limits { connections: Some(1), overflow: Overflow::Refuse, ..Limits::default() };
    let server = serve(Config { limits, ..asked() });
    let address = ip(server.address().unwrap());
    let mut first = dial(address);
    let held = server.accept(Some(Instant::now() + PATIENCE), &mut Plain).unwrap();
    let waiting = Arc::clone(&server);
    let asking = thread::spawn(move || waiting.accept(None, &mut Plain).map(|_| ()));
    assert_eq!(rejection(address), ErrorKind::ConnectionReset);
    assert_eq!(server.ledger().totals().refused, 1);
    held.close();
    assert_eq!(first.read(&mut [0; 1]).unwrap(), 0);
    stop(&server);
    assert!(asking.join().unwrap().is_err());
}

#[test]
fn what_was_handed_out_is_closed_unless_a_call_is_under_way() {
    let server = serve(asked());
    let address = ip(server.address().unwrap());
    let soon = || Some(Instant::now() + PATIENCE);
    let mut peers: Vec<_> = (0..3).map(|_| dial(address)).collect();
    let mut streams =
        (0..3).map(|_| server.accept(soon(), &mut Plain).unwrap()).collect::<Vec<_>>();
    let reading = streams.pop().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        reading.recv("recv", &mut [0; 10], 0, &mut Plain).unwrap()
    });
    let stat = std::path::Path::new("/proc").join(told.recv().unwrap()).join("stat");
    until("it sleeps in its call", || {
        std::fs::read_to_string(&stat).unwrap().rsplit(") ").next().unwrap().starts_with('S')
    });
    // Unread input: a close would reset, and does.
    peers[1].write_all(b"x").unwrap();
    until("it has come", || streams[1].tcp_info().unwrap().raw.bytes_received == 1);
    let report = stop(&server);
    assert_eq!(reader.join().unwrap(), 0, "the end, not an error");
    assert_eq!((report.drained, report.forced), (2, 1));
    assert!(streams.iter().all(|stream| stream.is_closed()));
    assert!(matches!(
        streams[0].recv("recv", &mut [0; 10], 0, &mut Plain),
        Err(Error::Os { errno: libc::EBADF, .. })
    ));
    assert_eq!(peers[0].read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(peers[1].read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.ledger().totals().open, 0);
}

crate::support::through_stages! {
    one_thread_serves_connections_that_come_one_after_the_other,
    connections_beyond_the_threads_wait_and_are_counted,
    idle_threads_end_but_for_one,
    a_stop_gives_waiting_reads_the_end_and_waits_for_the_first_byte,
    what_a_handler_was_sent_is_read_in_a_draining_server,
    a_handler_that_does_not_return_is_reset_and_left_behind,
    connections_that_wait_for_a_thread_are_served_before_the_end,
    nothing_is_accepted_before_a_call_of_accept,
    a_waiting_accept_times_out_and_ends_with_the_server,
    the_limit_holds_for_several_who_ask,
    who_asks_at_the_limit_refuses_the_excess_where_told_to,
    what_was_handed_out_is_closed_unless_a_call_is_under_way,
}
