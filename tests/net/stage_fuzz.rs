//! Random chains of stages (PROXY protocol, TLS, faults) against a model that fits a few lines: what
//! an application gets is what the other one has sent, up to an end that is told; nothing comes
//! behind an end; what is held is bounded; no stage is due again at once. With bytes alone and a
//! clock of the test's own. Reproducible: `RSOCK_FUZZ_SEED=7 cargo test … stage_fuzz`; longer:
//! `RSOCK_FUZZ_ROUNDS=1000`.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use _rsock::net::ledger::{ClosedBy, Role};
use _rsock::net::stage::faults::{
    Connections, Fault, FaultSet, Params, Scope, Subject, Value, Window,
};
use _rsock::net::stage::tls::{TlsClient, TlsServer, TlsSettings, for_tests, server_name};
use _rsock::net::stage::{Bytewise, Chain, Delayed, Direction, Part, ProxyProtocol, Stage};

use crate::fuzz::{Dice, from_environment};
use crate::support::noise;

const MS: Duration = Duration::from_millis(1);
/// What lies between two sockets.
const PIPE: usize = 20_000;
/// More actions than the longest round has; one that has more goes round in a circle.
const MOST_ACTIONS: usize = 2_000_000;
const PROXY: [&[u8]; 2] = [
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1000 2000\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x7f\0\0\x01\x03\xe8\x07\xd0",
];

/// What a fault may do to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    /// All of them arrive.
    None,
    /// They may end early, or be held for ever; those that arrive are right.
    Ends,
    /// They may be others.
    Garbles,
}

struct Drawn {
    fault: Fault,
    harm: Harm,
    truncates: bool,
    text: String,
}

fn number(value: impl Into<f64>) -> Value {
    Value::Number(value.into())
}

fn draw_fault(dice: &mut Dice, most: Harm) -> Drawn {
    let mut pick = |bound: usize| dice.below(bound) as f64;
    let (name, harm, params): (&str, Harm, Vec<(&str, Value)>) = loop {
        let drawn = match pick(11) as usize {
            0 => (
                "latency",
                Harm::None,
                vec![("seconds", number(pick(50) / 1e3)), ("jitter", number(0.0))],
            ),
            1 => (
                "latency",
                Harm::None,
                vec![("seconds", number(0.02)), ("jitter", number(pick(20) / 1e3))],
            ),
            2 => {
                ("bandwidth", Harm::None, vec![("bytes_per_second", number(1e4 + pick(1_000_000)))])
            }
            3 => {
                let size = 1.0 + pick(2_000);
                (
                    "slice",
                    Harm::None,
                    vec![("size", number(size)), ("delay", number(pick(3) / 1e4))],
                )
            }
            4 => (
                "slowreader",
                Harm::None,
                vec![("bytes_per_second", number(1e4 + pick(1_000_000)))],
            ),
            5 => ("slowclose", Harm::None, vec![("seconds", number(pick(100) / 1e3))]),
            6 => {
                let mut params = vec![("after_seconds", number(pick(100) / 1e3))];
                let lasts = pick(2) > 0.0;
                if lasts {
                    params.push(("for_seconds", number(0.001 + pick(100) / 1e3)));
                }
                ("blackhole", if lasts { Harm::None } else { Harm::Ends }, params)
            }
            7 | 8 => {
                let after = if pick(2) > 0.0 {
                    ("after_bytes", number(pick(40_000)))
                } else {
                    ("after_seconds", number(pick(100) / 1e3))
                };
                (if pick(2) > 0.0 { "reset" } else { "close" }, Harm::Ends, vec![after])
            }
            9 => ("truncate", Harm::Ends, vec![("after_bytes", number(pick(40_000)))]),
            _ => ("corrupt", Harm::Garbles, vec![("rate", number(pick(100) / 1e5))]),
        };
        if drawn.1 <= most {
            break drawn;
        }
    };
    let (up, down) = [(true, false), (false, true), (true, true)][dice.below(3)];
    let window = dice.one_in(5).then(|| {
        let from = dice.below(50) as u32 * MS;
        Window { from, to: dice.one_in(2).then(|| from + dice.below(50) as u32 * MS) }
    });
    let text = format!("{name}{params:?} up={up} down={down} {window:?}");
    let mut all = Params::default();
    params.into_iter().for_each(|(name, value)| all.set(name, value));
    let scope = Scope { up, down, probability: 1.0, connections: Connections::All, window };
    let fault = Fault::new(name, &all, scope, name).unwrap();
    Drawn { fault, harm, truncates: name == "truncate", text }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    End,
    Failure,
}

/// What has left one chain and has not come to the next one.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    finish: Option<Finish>,
    given: bool,
}

impl Pipe {
    fn finish(&mut self, finish: Finish) {
        (self.finish, self.given) = (Some(finish), false);
    }

    /// Takes what leaves a chain. Returns whether there was anything.
    fn take(&mut self, node: &mut Node, direction: Direction, mut most: usize) -> bool {
        let mut acted = false;
        // A stage that ends the connection may say so behind an end: what then comes is thrown away.
        let (chain, told) = (&mut node.chain, node.told.is_some() || node.truncates);
        while let Some(part) = leaving(chain, direction) {
            let is_over = told && self.finish.is_some();
            let count = match part {
                Part::Bytes(bytes) if is_over => bytes.len(),
                Part::End if is_over => 0,
                Part::Bytes(bytes) => {
                    let count = bytes.len().min(most).min(PIPE - self.bytes.len());
                    if count == 0 {
                        break;
                    }
                    assert_eq!(self.finish, None, "bytes behind an end");
                    self.bytes.extend_from_slice(&bytes[..count]);
                    most -= count;
                    count
                }
                Part::End => {
                    assert_eq!(self.finish, None, "an end behind an end");
                    self.finish(Finish::End);
                    0
                }
                Part::Failure(_) => {
                    if self.finish != Some(Finish::Failure) {
                        self.finish(Finish::Failure);
                    }
                    0
                }
            };
            acted = true;
            consume(chain, direction, count);
        }
        acted
    }
}

fn leaving(chain: &Chain, direction: Direction) -> Option<Part<'_>> {
    match direction {
        Direction::Inbound => chain.next_inbound().map(Part::from),
        Direction::Outbound => chain.next_outbound().map(Part::from),
    }
}

fn consume(chain: &mut Chain, direction: Direction, count: usize) {
    match direction {
        Direction::Inbound => chain.consume_inbound(count),
        Direction::Outbound => chain.consume_outbound(count),
    }
}

/// A chain, with how it was ended by one of its stages.
struct Node {
    chain: Chain,
    high_water: usize,
    told: Option<String>,
    by: Option<ClosedBy>,
    /// A fault makes an end of its own. Once it is removed, the rest comes, and is thrown away.
    truncates: bool,
}

impl Node {
    fn new(chain: Chain, high_water: usize) -> Self {
        Self { chain, high_water, told: None, by: None, truncates: false }
    }

    fn check(&mut self, result: Result<(), String>) {
        if let Some(end) = self.chain.take_end() {
            self.told = Some(end.error.expect("an end says why"));
            self.by = Some(end.by);
        }
        if let Err(error) = result {
            self.told.get_or_insert(error);
        }
        // Latency may let go at once what it was allowed to hold.
        let most = 2 * self.high_water + 70_000 + 1024 * 1024;
        assert!(self.counted(Direction::Inbound) <= most, "too much is held for the session");
        // TLS makes a record of each chunk, and a chunk may be one byte.
        assert!(self.counted(Direction::Outbound) <= 23 * most, "too much is held for the socket");
    }

    fn counted(&self, direction: Direction) -> usize {
        self.chain.held(direction).saturating_sub(self.chain.capacity(direction))
    }

    fn push(&mut self, now: Instant, direction: Direction, part: Part<'_>) {
        let result = match direction {
            Direction::Inbound => self.chain.inbound(now, part.into()),
            Direction::Outbound => self.chain.outbound(now, part.into()),
        };
        self.check(result.map_err(|error| error.0));
    }

    /// Gives it what has come through a pipe. Returns whether there was anything.
    fn receive(
        &mut self,
        now: Instant,
        direction: Direction,
        pipe: &mut Pipe,
        most: usize,
    ) -> bool {
        if self.told.is_some() {
            // What comes is thrown away.
            let acted = !pipe.bytes.is_empty();
            pipe.bytes.clear();
            return acted;
        }
        let room = self.high_water.saturating_sub(self.counted(direction));
        let room = if direction == Direction::Inbound { room.min(self.chain.room()) } else { room };
        if pipe.bytes.is_empty() {
            let Some(finish) = pipe.finish.filter(|_| !pipe.given) else { return false };
            pipe.given = true;
            let part = match finish {
                Finish::End => Part::End,
                Finish::Failure => Part::Failure(libc::ECONNRESET),
            };
            self.push(now, direction, part);
            return true;
        }
        let count = pipe.bytes.len().min(most).min(room);
        if count == 0 {
            return false;
        }
        let bytes: Vec<u8> = pipe.bytes.drain(..count).collect();
        self.push(now, direction, Part::Bytes(&bytes));
        true
    }

    fn turn(&mut self, now: Instant) {
        // What the turn of one stage passes on may be due at once in another, once for each.
        for _ in 0..10 {
            let result = self.chain.turn(now).map_err(|error| error.0);
            self.check(result);
            if self.chain.next_call().is_none_or(|at| at > now) {
                return;
            }
        }
        panic!("due again at once");
    }
}

/// What one application sends and gets.
struct App {
    data: Vec<u8>,
    sent: usize,
    /// After how many bytes it resets the connection.
    resets_at: Option<usize>,
    has_finished: bool,
    has_reset: bool,
    got: usize,
    seen: Option<Finish>,
}

impl App {
    fn new(dice: &mut Dice, harm: Harm) -> Self {
        let most = [0, 1, 300, 20_000, 60_000][dice.below(5)];
        let data = noise(dice.below(most + 1));
        let resets_at = (harm > Harm::None && dice.one_in(8)).then(|| dice.below(data.len() + 1));
        Self { data, sent: 0, resets_at, has_finished: false, has_reset: false, got: 0, seen: None }
    }

    fn write(&mut self, now: Instant, node: &mut Node, direction: Direction, most: usize) -> bool {
        let is_over = node.told.is_some() || self.seen == Some(Finish::Failure);
        if self.has_finished || is_over || !node.chain.is_ready() {
            return false;
        }
        if self.resets_at.is_some_and(|at| self.sent >= at) {
            (self.has_finished, self.has_reset) = (true, true);
            node.push(now, direction, Part::Failure(0));
        } else if self.sent == self.data.len() {
            self.has_finished = true;
            node.push(now, direction, Part::End);
        } else {
            let room = node.high_water.saturating_sub(node.counted(direction));
            let count = (self.data.len() - self.sent).min(most).min(room);
            if count == 0 {
                return false;
            }
            node.push(now, direction, Part::Bytes(&self.data[self.sent..self.sent + count]));
            self.sent += count;
        }
        true
    }

    /// Takes what has come from the other application, whose data is `expected`.
    fn read(
        &mut self,
        node: &mut Node,
        direction: Direction,
        most: usize,
        expected: Option<&[u8]>,
    ) -> bool {
        let count = match leaving(&node.chain, direction) {
            None => return false,
            Some(Part::Bytes(bytes)) if node.truncates && self.seen.is_some() => bytes.len(),
            Some(Part::End) if node.truncates && self.seen.is_some() => 0,
            Some(Part::Bytes(bytes)) => {
                assert_eq!(self.seen, None, "bytes behind an end");
                assert!(node.chain.is_ready(), "bytes before the stages are ready");
                let count = bytes.len().min(most);
                if let Some(expected) = expected {
                    let expected = expected.get(self.got..self.got + count);
                    assert!(expected == Some(&bytes[..count]), "not what was sent");
                }
                self.got += count;
                count
            }
            Some(Part::End) => {
                assert_eq!(self.seen, None, "an end behind an end");
                self.seen = Some(Finish::End);
                0
            }
            Some(Part::Failure(_)) => {
                assert_ne!(self.seen, Some(Finish::Failure), "a failure behind a failure");
                self.seen = Some(Finish::Failure);
                0
            }
        };
        consume(&mut node.chain, direction, count);
        true
    }

    fn is_complete(&self, other: &Self) -> bool {
        self.got == other.data.len() && self.seen == Some(Finish::End)
    }
}

/// Two applications; the chain of a client, faults on the way, the chain of a server.
struct World {
    now: Instant,
    dice: Dice,
    harm: Harm,
    faults: FaultSet,
    subject: Subject,
    client: Node,
    wire: Node,
    server: Node,
    /// From the client to the server, before the wire and behind it; then back.
    up: [Pipe; 2],
    down: [Pipe; 2],
    near: App,
    far: App,
    tls: bool,
    /// How often the faults at the server still change.
    changes: usize,
    garbles: bool,
    /// Faults above TLS that may end or change anything.
    harms_above: bool,
    story: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let story = self.story.join("\n");
            let _ = writeln!(
                io::stderr(),
                "RSOCK_FUZZ_SEED={} RSOCK_FUZZ_ROUNDS=0\n{story}",
                self.faults.seed()
            );
        }
    }
}

struct Certificates {
    server: TlsServer,
    client: TlsClient,
}

impl World {
    fn new(seed: u64, certificates: &Certificates) -> Self {
        let mut dice = Dice::new(seed);
        let now = Instant::now();
        let harm = [Harm::None, Harm::Ends, Harm::Garbles][dice.below(3)];
        let high_water = 1024 << dice.below(7);
        let (tls, proxy) = (dice.one_in(2), dice.one_in(2));
        let mut story = vec![format!("{harm:?} high={high_water} tls={tls} proxy={proxy}")];
        let mut up = Pipe::default();
        let mut below: Vec<Box<dyn Stage>> = Vec::new();
        if proxy {
            up.bytes.extend_from_slice(PROXY[dice.below(2)]);
            below.push(Box::new(ProxyProtocol::default()));
        }
        let mut own: Vec<Box<dyn Stage>> = Vec::new();
        if tls {
            below.push(certificates.server.stage());
            own.push(certificates.client.stage(server_name("localhost").unwrap()));
        }
        for stages in [&mut below, &mut own] {
            if dice.one_in(5) {
                stages.push(Box::new(Bytewise));
            }
            if dice.one_in(5) {
                stages.push(Box::new(Delayed::new(dice.below(20) as u32 * MS)));
            }
        }
        let subject = Subject {
            connection: 1,
            role: Role::Server,
            opened: now,
            datagrams: false,
            high_water,
        };
        let mut world = Self {
            now,
            harm,
            faults: FaultSet::new(seed, high_water),
            subject,
            client: Node::new(Chain::new(own), high_water),
            wire: Node::new(Chain::new(Vec::new()), high_water),
            server: Node::new(Chain::new(below), high_water),
            up: [up, Pipe::default()],
            down: Default::default(),
            near: App::new(&mut dice, harm),
            far: App::new(&mut dice, harm),
            tls,
            changes: dice.below(8),
            garbles: false,
            harms_above: false,
            story: Vec::new(),
            dice,
        };
        let on_the_way = FaultSet::new(seed + 1, high_water);
        for _ in 0..world.dice.below(3) {
            let drawn = draw_fault(&mut world.dice, harm);
            story.push(format!("on the way: {}", drawn.text));
            world.garbles |= drawn.harm == Harm::Garbles && !tls;
            world.wire.truncates |= drawn.truncates;
            on_the_way.add(drawn.fault, 0);
        }
        world.story = story;
        on_the_way.update_of(&mut world.wire.chain, &subject, now).unwrap();
        for _ in 0..world.dice.below(4) {
            world.add_fault();
        }
        for node in [&mut world.client, &mut world.wire, &mut world.server] {
            let result = node.chain.open(now, None).map_err(|error| error.0);
            node.check(result);
        }
        world
    }

    fn add_fault(&mut self) {
        let drawn = draw_fault(&mut self.dice, self.harm);
        self.story.push(format!("at the server: {}", drawn.text));
        self.garbles |= drawn.harm == Harm::Garbles;
        self.server.truncates |= drawn.truncates;
        self.harms_above |= drawn.harm > Harm::None;
        self.faults.add(drawn.fault, 0);
        self.update();
    }

    fn update(&mut self) {
        let chain = &mut self.server.chain;
        let result = self.faults.update_of(chain, &self.subject, self.now);
        self.server.check(result.map_err(|error| error.0));
    }

    /// Adds or removes a fault at the server.
    fn change_faults(&mut self) {
        let list = self.faults.list();
        if list.len() < 4 && self.dice.one_in(2) {
            self.add_fault();
        } else if !list.is_empty() {
            let id = list[self.dice.below(list.len())].id;
            self.story.push(format!("removed: {id}"));
            self.faults.remove(id);
            self.update();
        }
    }

    /// One action of twelve. Returns whether it has done anything.
    fn act(&mut self, action: usize, most: usize) -> bool {
        use Direction::{Inbound as In, Outbound as Out};
        let now = self.now;
        let Self { client, wire, server, near, far, .. } = self;
        let [up, up_behind] = &mut self.up;
        let [down, down_behind] = &mut self.down;
        let expected = |app: &App| (!self.garbles).then(|| app.data.clone());
        match action {
            0 => near.write(now, client, Out, most),
            1 => up.take(client, Out, most),
            2 => wire.receive(now, In, up, most),
            3 => up_behind.take(wire, In, most),
            4 => server.receive(now, In, up_behind, most),
            5 => far.read(server, In, most, expected(near).as_deref()),
            6 => far.write(now, server, Out, most),
            7 => down.take(server, Out, most),
            8 => wire.receive(now, Out, down, most),
            9 => down_behind.take(wire, Out, most),
            10 => client.receive(now, In, down_behind, most),
            _ => near.read(client, In, most, expected(far).as_deref()),
        }
    }

    /// A fault on the way has ended the connection: the server's side hears of it as well.
    fn heed_wire(&mut self) {
        if self.wire.told.is_some() && self.up[1].finish.is_none() {
            self.up[1].take(&mut self.wire, Direction::Inbound, usize::MAX);
            if self.up[1].finish.is_none() {
                self.up[1].finish(Finish::Failure);
            }
        }
    }

    fn next_call(&self) -> Option<Instant> {
        let nodes = [&self.client, &self.wire, &self.server];
        nodes.into_iter().filter_map(|node| node.chain.next_call()).min()
    }

    fn run(&mut self) {
        for count in 0.. {
            assert!(count < MOST_ACTIONS, "it goes round in a circle");
            let size = [1, 10, 1_000, 70_000][self.dice.below(4)];
            let most = 1 + self.dice.below(size);
            let action = self.dice.below(12);
            let mut acted = self.act(action, most);
            self.heed_wire();
            if !acted {
                acted = (0..12).any(|action| self.act(action, most));
                self.heed_wire();
            }
            if self.changes > 0 && self.dice.one_in(300) {
                self.changes -= 1;
                self.change_faults();
                acted = true;
            }
            if acted && !self.dice.one_in(5) {
                continue;
            }
            match self.next_call() {
                // Not always as soon as it is due.
                Some(at) if !acted => self.now = self.now.max(at),
                Some(_) => self.now += self.dice.below(300) as u32 * MS / 100,
                None if acted => self.now += MS / 10,
                None => return,
            }
            for node in [&mut self.client, &mut self.wire, &mut self.server] {
                node.turn(self.now);
            }
        }
    }

    fn check(&self) {
        let Self { client, wire, server, near, far, .. } = self;
        let told = [client, wire, server].into_iter().find_map(|node| node.told.as_ref());
        let complete = far.is_complete(near) && near.is_complete(far);
        if self.harm == Harm::None {
            assert_eq!(told, None, "nothing has happened");
            assert!(complete, "all has to arrive: {} and {}", far.got, near.got);
            return;
        }
        let failed = [near, far].into_iter().any(|app| app.seen == Some(Finish::Failure));
        let reset = near.has_reset || far.has_reset;
        let stuck = [client, wire, server].into_iter().any(|node| {
            let is_stuck = |direction| node.chain.is_stuck(direction);
            is_stuck(Direction::Inbound) || is_stuck(Direction::Outbound) || !node.chain.is_ready()
        });
        let excused = told.is_some()
            || failed
            || reset
            || stuck
            || wire.truncates
            || server.truncates
            || self.garbles;
        assert!(complete || excused, "lost, and nothing says so: {} {}", far.got, near.got);
        if self.tls && !self.harms_above {
            // What happens below TLS never looks like an end.
            for (app, other) in [(far, near), (near, far)] {
                let ended = app.seen == Some(Finish::End);
                assert!(!ended || app.got == other.data.len(), "cut, and read as an end");
            }
        }
        for node in [client, server] {
            let is_tls = node.told.as_ref().is_some_and(|text| text.starts_with("TLS: "));
            assert!(!is_tls || self.tls);
        }
    }
}

fn certificates() -> Certificates {
    let made = for_tests(&["localhost".to_owned()]).unwrap();
    let settings =
        TlsSettings { identity: Some(made.identity), ca: Some(made.ca), ..TlsSettings::default() };
    Certificates {
        server: TlsServer::new(&settings).unwrap(),
        client: TlsClient::new(&settings, || unreachable!("the authority is given")).unwrap(),
    }
}

#[test]
fn fuzz_chains() {
    let certificates = certificates();
    let first: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 1);
    // With none, that one alone.
    for seed in first..first + (30 * rounds).max(1) {
        let mut world = World::new(seed, &certificates);
        world.run();
        world.check();
    }
}
