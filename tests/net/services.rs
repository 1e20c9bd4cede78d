//! The same services over real sockets: that the engine does what `FakeIo` records.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::control::Limits;
use _rsock::net::ledger::ClosedBy;
use socket2::{Domain, Socket, Type};

use crate::support::{
    PATIENCE, closed, config, dial, echo, has_stages, ip, noise, open, rejection, scaled, serve,
    start, stop, until,
};
use crate::test_services::{
    Board, Burst, Clock, Header, Late, Refuser, Relay, Shout, Speaker, speech,
};

fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn a_long_speech_arrives_whole_though_the_listener_is_slow() {
    let length = scaled(20_000_000);
    let server = serve(Speaker { length });
    let mut client = dial(server.address().unwrap());
    // The outbox reaches high water before the first byte is read.
    until("the kernel's buffers are full", || {
        let records = server.ledger().open_records();
        let before = records.first().map_or(0, |record| record.sent().bytes);
        thread::sleep(Duration::from_millis(20));
        before as usize > scaled(100_000) && before == records[0].sent().bytes
    });
    assert!(read_all(&mut client) == speech(0..length));
    drop(client);
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Service));
    assert_eq!(stop(&server).errors, 0);
}

#[test]
fn a_last_word_survives_a_client_that_floods() {
    // A close with unread input sends a reset, which would destroy what was sent, so it lingers.
    let length = scaled(400_000);
    let server = serve(Speaker { length });
    let mut client = dial(server.address().unwrap());
    let mut flood = client.try_clone().unwrap();
    let flooding = thread::spawn(move || while flood.write_all(&[0; 4096]).is_ok() {});
    assert!(read_all(&mut client) == speech(0..length));
    client.shutdown(Shutdown::Both).unwrap();
    flooding.join().unwrap();
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Service));
    stop(&server);
}

#[test]
fn a_lingering_close_ends_though_the_peer_never_does() {
    let server = serve(Speaker { length: 10 });
    let mut client = dial(server.address().unwrap());
    assert_eq!(read_all(&mut client).len(), 10);
    // The client stays; after two seconds without progress it is left.
    let started = Instant::now();
    let records = closed(&server.ledger(), 1);
    assert!(started.elapsed() > Duration::from_secs(1), "it was given time to finish");
    assert_eq!(records[0].closed_by(), Some(ClosedBy::Service));
    stop(&server);
}

#[test]
fn timers_run_out_in_their_time() {
    let after = Duration::from_millis(30);
    let server = serve(Clock { after });
    let started = Instant::now();
    let mut client = dial(server.address().unwrap());
    assert_eq!(read_all(&mut client), b"ticktick");
    assert!(started.elapsed() >= 2 * after);
    assert_eq!(stop(&server).errors, 0);
}

#[test]
fn a_relay_passes_on_bytes_and_ends_in_both_directions() {
    let target = echo();
    let relay = serve(Relay { target: ip(target.address().unwrap()) });
    let mut client = dial(relay.address().unwrap());
    let data = noise(scaled(5_000_000));
    let sent = data.clone();
    let mut sending = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        sending.write_all(&sent).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    assert!(read_all(&mut client) == data);
    sender.join().unwrap();
    let record = &closed(&relay.ledger(), 1)[0];
    assert_eq!(record.closed_by(), Some(ClosedBy::Peer));
    assert_eq!(
        (record.received().bytes, record.sent().bytes),
        (data.len() as u64, data.len() as u64)
    );
    assert_eq!(closed(&target.ledger(), 1)[0].closed_by(), Some(ClosedBy::Peer));
    stop(&relay);
    stop(&target);
}

#[test]
fn a_relay_to_a_closed_port_resets_its_client() {
    // Bound and not listening: the port is refused, and nothing else is given it.
    let unheard = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    unheard.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let target = unheard.local_addr().unwrap().as_socket().unwrap();
    let server = serve(Relay { target });
    assert_eq!(rejection(server.address().unwrap()), ErrorKind::ConnectionReset);
    let record = &closed(&server.ledger(), 1)[0];
    assert_eq!(record.closed_by(), Some(ClosedBy::Error));
    assert_eq!(record.error(), Some(&*format!("connect failed with errno {}", libc::ECONNREFUSED)));
    assert_eq!(stop(&server).errors, 1);
}

#[test]
fn a_reset_of_the_target_reaches_the_client_as_a_reset() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve(Relay { target: target.local_addr().unwrap() });
    let mut client = dial(server.address().unwrap());
    client.write_all(b"x").unwrap();
    let (mut far, _) = target.accept().unwrap();
    far.read_exact(&mut [0; 1]).unwrap();
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Error));
    stop(&server);
}

#[test]
fn a_message_of_another_thread_reaches_every_session() {
    let board = Board::default();
    let server = serve(board.clone());
    let mut clients: Vec<_> = (0..20).map(|_| dial(server.address().unwrap())).collect();
    until("all have opened", || board.readers() == 20);
    for word in 0..50_u8 {
        board.say(&[word]);
    }
    for client in &mut clients {
        let mut words = [0; 50];
        client.read_exact(&mut words).unwrap();
        assert_eq!(words.to_vec(), (0..50).collect::<Vec<u8>>());
    }
    clients.pop();
    closed_of(&board, 1);
    board.say(b"to nineteen");
    drop(clients);
    closed_of(&board, 20);
    assert!(board.ends().iter().all(|&end| end == ClosedBy::Peer || end == ClosedBy::Reset));
    stop(&server);
}

fn closed_of(board: &Board, count: usize) {
    until("sessions have heard of their end", || board.ends().len() == count);
}

#[test]
fn the_rest_of_a_line_waits_for_its_end() {
    let server = serve(Shout);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"one\ntw").unwrap();
    let mut line = [0; 4];
    client.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ONE\n");
    client.write_all(b"o\nend").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"TWO\nEND");
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Peer));
    stop(&server);
}

#[test]
fn lines_go_on_when_the_reader_does() {
    // Answers stop at high water; the unused input is offered again when there is room.
    let server = start({
        let mut config = config(Shout);
        config.limits = Limits { write_buffer: 4096, ..Limits::default() };
        config.options.send_buffer = Some(4096);
        config
    });
    let mut client = dial(server.address().unwrap());
    let lines = b"some line of a few bytes\n".repeat(scaled(100_000));
    let expected = lines.to_ascii_uppercase();
    let mut sending = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        sending.write_all(&lines).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    assert!(read_all(&mut client) == expected);
    sender.join().unwrap();
    stop(&server);
}

#[test]
fn a_line_that_never_ends_is_a_limit() {
    let server = serve(Shout);
    let mut client = dial(server.address().unwrap());
    let _ = client.write_all(&[b'x'; 5000]);
    let records = closed(&server.ledger(), 1);
    assert_eq!(records[0].closed_by(), Some(ClosedBy::Limit("line")));
    stop(&server);
}

#[test]
fn each_of_a_hundred_panics_and_an_error_ends_one_connection() {
    let server = serve(Shout);
    let mut bystander = dial(server.address().unwrap());
    for word in std::iter::repeat_n("panic\n", 100).chain(["error\n"]) {
        let mut client = dial(server.address().unwrap());
        client.write_all(word.as_bytes()).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    open(&server.ledger(), 1);
    let records = server.ledger().closed_records();
    let panics = records.iter().filter(|record| record.error() == Some("panic: as asked"));
    let errors = records.iter().filter(|record| record.error() == Some("as asked"));
    // The ledger has the last hundred.
    assert_eq!((panics.count(), errors.count()), (99, 1));
    bystander.write_all(b"still here\n").unwrap();
    let mut line = [0; 11];
    bystander.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"STILL HERE\n");
    drop(bystander);
    assert_eq!(stop(&server).errors, 101);
}

#[test]
fn a_session_ends_in_peace_or_with_a_reset_as_it_likes() {
    let server = serve(Shout);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"last words\nbye\n").unwrap();
    assert_eq!(read_all(&mut client), b"LAST WORDS\n");
    drop(client);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"cut\n").unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let records = closed(&server.ledger(), 2);
    assert!(records.iter().all(|record| record.closed_by() == Some(ClosedBy::Service)));
    assert_eq!(stop(&server).errors, 0);
}

#[test]
fn what_a_timer_writes_beyond_its_turn_follows_by_itself() {
    // The budget of a turn ends before the socket is full: no event announces that there is room.
    let length = scaled(1_000_000);
    let server = serve(Burst { length });
    let mut client = dial(server.address().unwrap());
    assert!(read_all(&mut client) == speech(0..length));
    stop(&server);
}

#[test]
fn a_connect_that_fails_on_the_spot_is_told() {
    let server = serve(Late);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"go").unwrap();
    let errno = format!("{:?}", Err::<(), _>(libc::ENETUNREACH));
    let words = String::from_utf8(read_all(&mut client)).unwrap();
    assert!(words == errno || words == format!("{:?}", Err::<(), _>(libc::EACCES)), "{words}");
    stop(&server);
}

#[test]
fn last_words_reach_one_who_reads_late() {
    let length = scaled(1_500_000);
    let server = serve(Speaker { length });
    let mut client = dial(server.address().unwrap());
    // Longer than a close lingers without progress.
    thread::sleep(Duration::from_millis(2500));
    assert!(read_all(&mut client) == speech(0..length));
    stop(&server);
}

#[test]
fn last_words_of_one_who_uses_nothing_more_arrive() {
    let mut config = config(Refuser);
    if has_stages() {
        // Without stages the kernel has room for what it writes at once.
        config.limits.write_buffer = 400_000;
    }
    let server = start(config);
    let mut client = dial(server.address().unwrap());
    client.write_all(&[b'x'; 50_000]).unwrap();
    assert_eq!(read_all(&mut client).len(), 300_000);
    drop(client);
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Service));
    stop(&server);
}

#[test]
fn a_pipe_begins_with_what_was_left_unused() {
    let server = serve(Header);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"header\nfirst").unwrap();
    let mut first = [0; 5];
    client.read_exact(&mut first).unwrap();
    client.write_all(b"second").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!((&first, &*read_all(&mut client)), (b"first", &b"second"[..]));
    stop(&server);
}

#[test]
fn a_stop_does_not_take_back_what_was_sent() {
    let server = echo();
    let mut client = dial(server.address().unwrap());
    let data = noise(scaled(400_000));
    client.write_all(&data).unwrap();
    until("all is echoed into the kernel", || {
        server.ledger().totals().sent.bytes == data.len() as u64
    });
    let stopping = thread::spawn(move || stop(&server));
    // These come when the server has closed, and would reset what it left in the kernel's queue.
    let mut sending = client.try_clone().unwrap();
    until("the stop is seen", || {
        sending.write_all(b"more").is_err() || stopping.is_finished() || {
            let mut peeked = vec![0; 500_000];
            client.peek(&mut peeked).is_ok_and(|count| count > 0)
        }
    });
    let mut back = vec![0; data.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == data);
    drop(client);
    drop(sending);
    stopping.join().unwrap();
}

#[test]
fn a_half_closed_relay_does_not_hold_up_a_stop() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve(Relay { target: target.local_addr().unwrap() });
    let mut client = dial(server.address().unwrap());
    client.write_all(b"q").unwrap();
    let (mut far, _) = target.accept().unwrap();
    far.read_exact(&mut [0; 1]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
    let report = stop(&server);
    assert_eq!((report.drained, report.forced), (1, 0));
    assert!(report.seconds < Duration::from_millis(500), "{report:?}");
}

#[test]
fn a_session_that_holds_may_finish_while_the_server_drains() {
    let length = scaled(10_000_000);
    let mut config = config(Speaker { length });
    config.drain = PATIENCE;
    let server = start(config);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"x").unwrap();
    until("it speaks", || server.ledger().totals().sent.bytes > 0);
    let reading = thread::spawn(move || read_all(&mut client));
    let report = stop(&server);
    assert!(reading.join().unwrap() == speech(0..length));
    assert_eq!((report.drained, report.forced), (1, 0));
}

crate::support::through_stages! {
    a_long_speech_arrives_whole_though_the_listener_is_slow,
    a_last_word_survives_a_client_that_floods,
    a_lingering_close_ends_though_the_peer_never_does,
    timers_run_out_in_their_time,
    a_relay_passes_on_bytes_and_ends_in_both_directions,
    a_relay_to_a_closed_port_resets_its_client,
    a_reset_of_the_target_reaches_the_client_as_a_reset,
    a_message_of_another_thread_reaches_every_session,
    the_rest_of_a_line_waits_for_its_end,
    lines_go_on_when_the_reader_does,
    a_line_that_never_ends_is_a_limit,
    each_of_a_hundred_panics_and_an_error_ends_one_connection,
    a_session_ends_in_peace_or_with_a_reset_as_it_likes,
    what_a_timer_writes_beyond_its_turn_follows_by_itself,
    a_connect_that_fails_on_the_spot_is_told,
    last_words_reach_one_who_reads_late,
    last_words_of_one_who_uses_nothing_more_arrive,
    a_pipe_begins_with_what_was_left_unused,
    a_stop_does_not_take_back_what_was_sent,
    a_half_closed_relay_does_not_hold_up_a_stop,
    a_session_that_holds_may_finish_while_the_server_drains,
}
