//! The simulated machines, their disks and the network between them.
//!
//! One queue of events in simulated time; everything follows from the seed. Connections keep the
//! order of their packets, as TCP does: a packet into a partition is delivered when the partition
//! ends, if the connection is still open. A machine that is paused gets its events when its pause
//! ends. Packets are passed as structs; one in a hundred is encoded and parsed, and must be the
//! same.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;

use aeris::cluster::Cluster;
use aeris::cluster::config_file::{NodeLine, NodesConf};
use aeris::cluster::event::{Action, Address, Event, LinkId, Now, Replication, Settings, Wire};
use aeris::cluster::name::{Ip, Name};
use aeris::cluster::packet::{Message, flag};
use aeris::util::random::Random;

use super::checks::Checks;
use super::faults::Fault;

const SLOTS: usize = 16_384;
/// The Unix time at the start of the simulation, in milliseconds.
const WALL_START: u64 = 1_700_000_000_000;
/// The time in milliseconds between two steps of a machine's simulated replication.
const REPLICATION_MS: u64 = 200;

/// One in this number of packets is encoded and parsed, as a test of both.
const CODEC_SAMPLE: u64 = 100;

/// A simulated machine: with a node that runs, or with its disk alone while the process is down.
pub struct Machine {
    pub cluster: Option<Cluster>,
    pub name: Name,
    pub ip: Ip,
    /// The number of times that the process was started; events for an earlier process are dropped.
    generation: u32,
    /// The simulated time at which the process began, and at which its own clock started.
    began: u64,
    pub wall_skew: i64,
    pub paused_until: u64,
    inbox: VecDeque<What>,
    /// The nodes.conf that is on the disk; `saving` has those that are still being written.
    pub durable: NodesConf,
    saving: Vec<(u64, NodesConf)>,
    pub disk_ms: u64,
    next_tick: u64,
    offset: u64,
    follows: Option<usize>,
    synced_at: u64,
    holds_writes: bool,
}

struct Connection {
    ends: [(usize, LinkId); 2],
    open: [bool; 2],
    /// For each end of the connection: packets to it that wait for the end of a partition.
    stalled: [VecDeque<Rc<Message>>; 2],
    last: [u64; 2],
    close_stalled: [bool; 2],
}

enum What {
    Tick(u32),
    Deliver(usize, usize, Rc<Message>),
    Up(usize, usize),
    Down(usize, usize),
    Refused(u32, LinkId),
    Saved(u32, u64),
    Replicate(u32),
    Fault(Fault),
}

struct Entry {
    at: u64,
    number: u64,
    machine: usize,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.number == other.number
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The packets and bytes that all nodes have sent since the start of the simulation.
#[derive(Clone, Copy, Default)]
pub struct Sent {
    pub packets: u64,
    pub bytes: u64,
}

pub struct World {
    pub now: u64,
    pub random: Random,
    pub machines: Vec<Machine>,
    pub settings: Settings,
    queue: BinaryHeap<Reverse<Entry>>,
    numbers: u64,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    by_link: HashMap<(usize, LinkId), (usize, usize)>,
    by_ip: HashMap<String, usize>,
    /// For each machine, the side of a network partition on which the machine is.
    pub side: Vec<u8>,
    pub partitioned_at: u64,
    pub latency: (u64, u64),
    pub sent: Sent,
    pub checks: Checks,
    pub trace: bool,
}

pub struct Shape {
    pub primaries: usize,
    pub replicas: usize,
}

impl World {
    /// Creates nodes that do not know each other.
    pub fn alone(seed: u64, count: usize, settings: Settings) -> World {
        let shape = Shape {
            primaries: count,
            replicas: 0,
        };
        World::build(seed, &shape, settings, |conf, at| {
            let mut own = conf.nodes.swap_remove(at);
            own.slots.clear();
            own.config_epoch = 0;
            conf.nodes = vec![own];
            conf.current_epoch = 0;
        })
    }

    /// Creates a cluster in which all nodes know each other, as after a restart of all nodes.
    pub fn new(seed: u64, shape: &Shape, settings: Settings) -> World {
        World::build(seed, shape, settings, |_, _| {})
    }

    fn build(
        seed: u64,
        shape: &Shape,
        settings: Settings,
        change: impl Fn(&mut NodesConf, usize),
    ) -> World {
        let mut random = Random::from_seed(seed);
        let count = shape.primaries + shape.replicas;
        let names: Vec<Name> = (0..count).map(|_| Name::random(&mut random)).collect();
        let shards: Vec<Name> = (0..count).map(|_| Name::random(&mut random)).collect();
        let lines: Vec<NodeLine> = (0..count)
            .map(|at| line(at, shape, &names, &shards))
            .collect();
        let mut world = World {
            now: 1000,
            random,
            machines: Vec::new(),
            settings,
            queue: BinaryHeap::new(),
            numbers: 0,
            connections: Vec::new(),
            free: Vec::new(),
            by_link: HashMap::new(),
            by_ip: HashMap::new(),
            side: vec![0; count],
            partitioned_at: 0,
            latency: (1, 3),
            sent: Sent::default(),
            checks: Checks::default(),
            trace: std::env::var("SIMULATE_TRACE").is_ok(),
        };
        for (at, name) in names.iter().copied().enumerate() {
            let mut conf = NodesConf {
                nodes: lines.clone(),
                current_epoch: shape.primaries as u64,
                last_vote_epoch: 0,
            };
            conf.nodes[at].flags |= flag::MYSELF;
            change(&mut conf, at);
            let follows = (at >= shape.primaries).then(|| at % shape.primaries);
            world.by_ip.insert(ip(at).as_str().to_string(), at);
            world.machines.push(Machine {
                cluster: None,
                name,
                ip: ip(at),
                generation: 0,
                began: 0,
                wall_skew: 0,
                paused_until: 0,
                inbox: VecDeque::new(),
                durable: conf,
                saving: Vec::new(),
                disk_ms: 2,
                next_tick: 0,
                offset: 0,
                follows,
                synced_at: 0,
                holds_writes: false,
            });
        }
        (0..count).for_each(|at| world.start(at));
        world
    }

    fn push(&mut self, at: u64, machine: usize, what: What) {
        self.numbers += 1;
        self.queue.push(Reverse(Entry {
            at: at.max(self.now),
            number: self.numbers,
            machine,
            what,
        }));
    }

    pub fn schedule(&mut self, at: u64, fault: Fault) {
        self.push(at, 0, What::Fault(fault));
    }

    /// The monotonic clock and the wall clock of a machine.
    pub fn clock(&self, at: usize) -> Now {
        let machine = &self.machines[at];
        let wall = (WALL_START + self.now) as i64 + machine.wall_skew;
        Now {
            ms: self.now - machine.began + 1,
            wall_ms: wall as u64,
        }
    }

    /// Starts the process of a machine, with the nodes.conf of its disk.
    pub fn start(&mut self, at: usize) {
        if self.machines[at].cluster.is_some() {
            return;
        }
        let random = self.random.split();
        let mut settings = self.settings.clone();
        let machine = &mut self.machines[at];
        machine.began = self.now - self.random.below(1000).min(self.now);
        machine.generation += 1;
        machine.saving.clear();
        machine.inbox.clear();
        machine.paused_until = 0;
        machine.holds_writes = false;
        settings.announced.tcp_port = 7000;
        settings.announced.bus_port = 17_000;
        let conf = machine.durable.clone();
        let now = self.clock(at);
        let machine = &mut self.machines[at];
        let cluster = Cluster::load(now, settings, random, &conf);
        let primary = cluster.myself().replica_of;
        let primary = primary.map(|primary| cluster.nodes()[primary].address.ip);
        machine.follows = primary.and_then(|ip| self.by_ip.get(ip.as_str()).copied());
        machine.cluster = Some(cluster);
        let generation = machine.generation;
        machine.next_tick = self.now;
        let delay = self.random.below(100);
        self.push(self.now + delay, at, What::Tick(generation));
        let delay = self.random.below(REPLICATION_MS);
        self.push(self.now + delay, at, What::Replicate(generation));
    }

    /// Kills the process of a machine. State that is not on its disk is lost; a nodes.conf that is
    /// cut off must be refused.
    pub fn kill(&mut self, at: usize) {
        if self.machines[at].cluster.take().is_none() {
            return;
        }
        let text = self.machines[at].durable.render();
        let cut = self.random.below(text.len() as u64) as usize;
        assert!(NodesConf::parse(&text.as_bytes()[..cut]).is_err());
        let conf = NodesConf::parse(text.as_bytes()).expect("a file that was written");
        assert_eq!(conf, self.machines[at].durable);
        self.machines[at].generation += 1;
        self.machines[at].inbox.clear();
        for connection in 0..self.connections.len() {
            let Some(found) = &mut self.connections[connection] else {
                continue;
            };
            if let Some(end) = found.ends.iter().position(|end| end.0 == at) {
                found.open[end] = false;
                self.close_other_end(connection, end);
            }
        }
    }

    /// Runs a command on a machine's node; `None` if the node is down or paused.
    pub fn command<T>(
        &mut self,
        at: usize,
        command: impl FnOnce(&mut Cluster, Now, &mut Vec<Action>) -> T,
    ) -> Option<T> {
        let now = self.clock(at);
        if self.machines[at].paused_until > self.now {
            return None;
        }
        let cluster = self.machines[at].cluster.as_mut()?;
        let mut actions = Vec::new();
        let outcome = command(cluster, now, &mut actions);
        self.perform(at, actions);
        Some(outcome)
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.side[a] != self.side[b]
    }

    /// Ends all partitions of the network and delivers the packets that waited.
    pub fn heal(&mut self) {
        self.side.fill(0);
        for connection in 0..self.connections.len() {
            for end in 0..2 {
                let Some(found) = &mut self.connections[connection] else {
                    continue;
                };
                let machine = found.ends[end].0;
                let stalled = std::mem::take(&mut found.stalled[end]);
                let closes = std::mem::take(&mut found.close_stalled[end]);
                let delay = self.random.below(200);
                let at = self.now + delay;
                for message in stalled {
                    self.push(at, machine, What::Deliver(connection, end, message));
                }
                if closes {
                    self.push(at, machine, What::Down(connection, end));
                }
                if let Some(found) = &mut self.connections[connection] {
                    found.last[end] = at;
                }
            }
        }
    }

    /// Breaks a random connection of the cluster bus.
    pub fn cut_a_link(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let at = self.random.below(self.connections.len() as u64) as usize;
        if let Some(found) = &self.connections[at] {
            let machines = [found.ends[0].0, found.ends[1].0];
            for (end, machine) in machines.into_iter().enumerate() {
                self.push(self.now, machine, What::Down(at, end));
            }
        }
    }

    /// Handles all events up to the simulated time `end`.
    pub fn run_until(&mut self, end: u64) {
        while let Some(Reverse(entry)) = self.queue.peek() {
            if entry.at > end {
                break;
            }
            let Some(Reverse(entry)) = self.queue.pop() else {
                break;
            };
            self.now = entry.at;
            self.handle(entry);
        }
        self.now = end;
    }

    fn handle(&mut self, entry: Entry) {
        let Entry { machine, what, .. } = entry;
        if let What::Fault(fault) = what {
            return fault.happen(self);
        }
        let paused_until = self.machines[machine].paused_until;
        if paused_until > self.now {
            match what {
                // When a pause ends, one tick is enough for all ticks that were missed.
                What::Tick(generation) => {
                    self.push(paused_until + 1, machine, What::Tick(generation));
                }
                other => self.machines[machine].inbox.push_back(other),
            }
            return;
        }
        while let Some(earlier) = self.machines[machine].inbox.pop_front() {
            self.happen(machine, earlier);
        }
        self.happen(machine, what);
    }

    fn happen(&mut self, at: usize, what: What) {
        let generation = self.machines[at].generation;
        match what {
            What::Tick(of) if of == generation => self.tick(at),
            What::Replicate(of) if of == generation => self.replicate(at),
            What::Saved(of, token) if of == generation => self.saved(at, token),
            What::Refused(of, link) if of == generation => self.step(at, Event::Closed(link)),
            What::Deliver(connection, end, message) => self.deliver(at, connection, end, message),
            What::Up(connection, end) => self.connection_up(at, connection, end),
            What::Down(connection, end) => self.connection_down(at, connection, end),
            _ => {}
        }
    }

    fn tick(&mut self, at: usize) {
        // The queue may have several ticks for a machine: one that comes before `next_tick` is
        // ignored.
        if self.now < self.machines[at].next_tick {
            return;
        }
        self.step(at, Event::Tick);
        self.checks.tick(self.now, at, &self.machines[at]);
        self.schedule_tick(at);
    }

    fn schedule_tick(&mut self, at: usize) {
        let machine = &self.machines[at];
        let Some(cluster) = &machine.cluster else {
            return;
        };
        let due = (cluster.deadline() + machine.began)
            .saturating_sub(1)
            .max(self.now + 1);
        let generation = machine.generation;
        let old = machine.next_tick;
        if old <= self.now || due < old {
            self.machines[at].next_tick = due;
            self.push(due, at, What::Tick(generation));
        }
    }

    fn step(&mut self, at: usize, event: Event) {
        let now = self.clock(at);
        let Some(cluster) = &mut self.machines[at].cluster else {
            return;
        };
        let mut actions = Vec::new();
        cluster.step(now, event, &mut actions);
        self.perform(at, actions);
        self.schedule_tick(at);
    }

    fn perform(&mut self, at: usize, actions: Vec<Action>) {
        self.checks
            .after_step(self.now, at, &self.machines[at], &actions);
        for action in actions {
            match action {
                Action::Wire(Wire::Connect { link, ip, port }) => self.connect(at, link, &ip, port),
                Action::Wire(Wire::Send { link, message }) => self.send(at, link, message),
                Action::Wire(Wire::Close(link)) => self.close(at, link),
                Action::Save { token, durable } => self.save(at, token, durable),
                Action::Follow {
                    address,
                    keeps_data,
                    ..
                } => {
                    let primary = self.by_ip.get(address.ip.as_str()).copied();
                    let machine = &mut self.machines[at];
                    if machine.follows != primary {
                        machine.follows = primary;
                        // A simulated full resync takes 500 ms.
                        machine.synced_at = self.now + 500;
                        if !keeps_data {
                            machine.offset = 0;
                        }
                    }
                }
                Action::Promote => self.machines[at].follows = None,
                Action::Pause { .. } => self.machines[at].holds_writes = true,
                Action::Resume => self.machines[at].holds_writes = false,
                Action::Log(_, text) if self.trace => {
                    println!("{:>8} {at:>3} {text}", self.now);
                }
                _ => {}
            }
        }
    }

    fn save(&mut self, at: usize, token: u64, durable: bool) {
        // A nodes.conf that is saved without an fsync reaches the disk in one of eight cases.
        let now = self.clock(at);
        if (durable || self.random.below(8) == 0)
            && let Some(cluster) = &self.machines[at].cluster
        {
            let conf = cluster.conf(now);
            self.machines[at].saving.push((token, conf));
        }
        let (generation, disk) = (self.machines[at].generation, self.machines[at].disk_ms);
        let delay = 1 + self.random.below(disk.max(1));
        // The disk writes in order: when a save is done, all earlier ones are done (see `saved`).
        self.push(self.now + delay, at, What::Saved(generation, token));
    }

    fn saved(&mut self, at: usize, token: u64) {
        let machine = &mut self.machines[at];
        if let Some(found) = machine.saving.iter().rposition(|(of, _)| *of <= token) {
            machine.durable = machine.saving.drain(..=found).next_back().expect("one").1;
        }
        self.step(at, Event::Saved(token));
    }

    /// Simulates replication of a machine: a primary's offset grows, and a replica's offset
    /// follows.
    fn replicate(&mut self, at: usize) {
        let machine = &self.machines[at];
        let generation = machine.generation;
        let Some(cluster) = &machine.cluster else {
            return;
        };
        let replication = match machine.follows {
            None => {
                let writes = cluster.is_up() && cluster.myself().slot_count > 0;
                let more = if writes && !machine.holds_writes {
                    self.random.below(1000)
                } else {
                    0
                };
                let machine = &mut self.machines[at];
                machine.offset += more;
                Replication {
                    offset: machine.offset,
                    connected: false,
                    heard_ms: 0,
                }
            }
            Some(primary) => {
                let source = &self.machines[primary];
                let serves = source.cluster.is_some()
                    && source.follows.is_none()
                    && source.paused_until <= self.now
                    && !self.is_cut(at, primary)
                    && self.now >= machine.synced_at;
                let offset = source.offset;
                let machine = &mut self.machines[at];
                if serves {
                    machine.offset = offset;
                    machine.synced_at = self.now;
                }
                Replication {
                    offset: machine.offset,
                    connected: serves,
                    heard_ms: (machine.synced_at + 1).saturating_sub(machine.began).max(1),
                }
            }
        };
        self.step(at, Event::Replication(replication));
        self.push(self.now + REPLICATION_MS, at, What::Replicate(generation));
    }
}

/// Methods of the simulated network.
impl World {
    fn latency(&mut self) -> u64 {
        let (least, spread) = self.latency;
        least + self.random.below(spread + 1)
    }

    fn connect(&mut self, from: usize, link: LinkId, ip: &Ip, port: u16) {
        let Some(&to) = self.by_ip.get(ip.as_str()).filter(|_| port == 17_000) else {
            return self.refuse(from, link);
        };
        // A connection attempt into a partition gets no answer, until the node gives it up.
        if self.is_cut(from, to) {
            return;
        }
        let Some(target) = &mut self.machines[to].cluster else {
            return self.refuse(from, link);
        };
        let other = target.new_link();
        let connection = Connection {
            ends: [(from, link), (to, other)],
            open: [true; 2],
            stalled: Default::default(),
            last: [0; 2],
            close_stalled: [false; 2],
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connections[at] = Some(connection);
        self.by_link.insert((from, link), (at, 0));
        self.by_link.insert((to, other), (at, 1));
        let delay = self.latency();
        self.push(self.now + delay, to, What::Up(at, 1));
        self.push(self.now + 2 * delay, from, What::Up(at, 0));
    }

    fn refuse(&mut self, from: usize, link: LinkId) {
        let (delay, generation) = (self.latency(), self.machines[from].generation);
        self.push(self.now + delay, from, What::Refused(generation, link));
    }

    fn connection_up(&mut self, at: usize, connection: usize, end: usize) {
        let Some(found) = &self.connections[connection] else {
            return;
        };
        let (machine, link) = found.ends[end];
        if machine != at || !found.open[end] {
            return;
        }
        self.step(
            at,
            match end {
                0 => Event::Connected(link),
                _ => Event::Accepted(link),
            },
        );
    }

    fn connection_down(&mut self, at: usize, connection: usize, end: usize) {
        let Some(found) = &mut self.connections[connection] else {
            return;
        };
        if found.ends[end].0 != at || !found.open[end] {
            return;
        }
        let link = found.ends[end].1;
        found.open[end] = false;
        self.step(at, Event::Closed(link));
        self.remove_if_closed(connection);
    }

    fn close(&mut self, at: usize, link: LinkId) {
        let Some(&(connection, end)) = self.by_link.get(&(at, link)) else {
            return;
        };
        if let Some(found) = &mut self.connections[connection] {
            found.open[end] = false;
        }
        self.close_other_end(connection, end);
        self.remove_if_closed(connection);
    }

    fn close_other_end(&mut self, connection: usize, end: usize) {
        let delay = self.latency();
        let Some(found) = &self.connections[connection] else {
            return;
        };
        let (here, there) = (found.ends[end].0, found.ends[1 - end].0);
        let cut = self.is_cut(here, there);
        let Some(found) = &mut self.connections[connection] else {
            return;
        };
        if cut {
            found.close_stalled[1 - end] = true;
            return;
        }
        let at = (self.now + delay).max(found.last[1 - end]);
        self.push(at, there, What::Down(connection, 1 - end));
    }

    fn remove_if_closed(&mut self, connection: usize) {
        let Some(found) = &self.connections[connection] else {
            return;
        };
        // The number of a closed connection is never used again: events for it may be in the queue.
        if found.open == [false; 2] {
            for end in found.ends {
                self.by_link.remove(&end);
            }
            self.connections[connection] = None;
        }
    }

    fn send(&mut self, from: usize, link: LinkId, message: Rc<Message>) {
        self.sent.packets += 1;
        self.sent.bytes += message.encoded_len() as u64;
        let Some(&(connection, end)) = self.by_link.get(&(from, link)) else {
            return;
        };
        let delay = self.latency();
        let Some(found) = &self.connections[connection] else {
            return;
        };
        let (to, other) = (found.ends[1 - end].0, 1 - end);
        let cut = self.is_cut(from, to);
        self.checks.sent(from, &self.machines[from], to, &message);
        let Some(found) = &mut self.connections[connection] else {
            return;
        };
        if cut || !found.stalled[other].is_empty() {
            if found.stalled[other].len() < 1000 {
                found.stalled[other].push_back(message);
            }
            return;
        }
        let at = (self.now + delay).max(found.last[other]);
        found.last[other] = at;
        self.push(at, to, What::Deliver(connection, other, message));
    }

    fn deliver(&mut self, at: usize, connection: usize, end: usize, message: Rc<Message>) {
        let Some(found) = &self.connections[connection] else {
            return;
        };
        let ((machine, link), from) = (found.ends[end], found.ends[1 - end].0);
        if machine != at || !found.open[end] {
            return;
        }
        if self.numbers.is_multiple_of(CODEC_SAMPLE) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes.len(), message.encoded_len());
            assert_eq!(Message::parse(&bytes).as_ref(), Ok(&*message));
        }
        let (peer, local) = (self.machines[from].ip, self.machines[at].ip);
        self.step(
            at,
            Event::Packet {
                link,
                peer,
                local,
                message: &message,
            },
        );
    }
}

fn ip(at: usize) -> Ip {
    Ip::parse(format!("10.0.{}.{}", at / 250, at % 250 + 1).as_bytes()).expect("an address")
}

/// The address and the ports of a machine.
pub fn address(at: usize) -> Address {
    Address {
        ip: ip(at),
        tcp_port: 7000,
        tls_port: 0,
        bus_port: 17_000,
    }
}

/// The line of a node in the first nodes.conf: primaries have equal ranges of slots, and replicas
/// are dealt out to the primaries one after another.
fn line(at: usize, shape: &Shape, names: &[Name], shards: &[Name]) -> NodeLine {
    let primary = at % shape.primaries;
    let is_primary = at < shape.primaries;
    let first = |at: usize| (at * SLOTS / shape.primaries) as u16;
    NodeLine {
        name: names[at],
        ip: ip(at),
        port: 7000,
        bus_port: 17_000,
        host_name: None,
        fields: vec![("shard-id".into(), shards[primary].to_string().into())],
        flags: if is_primary {
            flag::PRIMARY
        } else {
            flag::REPLICA
        },
        primary: (!is_primary).then(|| names[primary]),
        ping_sent_ms: 0,
        pong_received_ms: 0,
        config_epoch: primary as u64 + 1,
        connected: false,
        slots: if is_primary {
            vec![(first(at), first(at + 1) - 1)]
        } else {
            Vec::new()
        },
        open: Vec::new(),
    }
}
