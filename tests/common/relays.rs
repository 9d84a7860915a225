//! A server, and relays that lead to it.

use super::link::{Knobs, Link};
use super::puller::fetch_from;
use super::sender::*;
use super::*;

/// A receiver that passes connections on.
pub struct Relay {
    pub recv: Recv,
    pub root: TempDir,
}

impl Relay {
    /// One that leads to these ports of this machine.
    pub fn to(ports: &[u16], flags: &[&str]) -> Self {
        let targets: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let named = targets.iter().flat_map(|target| ["--relay_to", target]);
        let root = temp_dir();
        Self { recv: Recv::start_with(root.path(), &named.chain(flags.iter().copied()).collect::<Vec<_>>()), root }
    }

    /// As `--via` names it.
    pub fn name(&self) -> String {
        format!("127.0.0.1:{}", self.recv.port)
    }
}

/// A server behind a link, and relays that lead there.
pub struct Ways {
    pub server: Recv,
    pub link: Link,
    pub relays: Vec<Relay>,
    pub root: TempDir,
}

impl Ways {
    /// So many relays; each connection to the server carries so many bytes a second, so that none does it all.
    pub fn new(count: usize, rate: Option<u64>) -> Self {
        Self::with(count, move |_| Knobs { rate, rate_answer: rate, ..Knobs::default() })
    }

    pub fn with(count: usize, choose: impl Fn(usize) -> Knobs + Send + 'static) -> Self {
        let root = temp_dir();
        let server = Recv::start(root.path());
        // What lies in a socket in between would be taken by one route, and be missed by the others.
        let link = Link::narrow(server.port, choose);
        let relays = (0..count).map(|_| Relay::to(&[link.port], &[])).collect();
        Self { server, link, relays, root }
    }

    /// All relays, as `--via` names them.
    pub fn via(&self) -> String {
        self.relays.iter().map(Relay::name).collect::<Vec<_>>().join(",")
    }

    pub fn send(&self, file: &Path, flags: &[&str]) -> Command {
        send_to(self.link.port, file, "in", flags)
    }

    /// A push that goes directly and through all relays.
    pub fn send_by_all(&self, file: &Path, flags: &[&str]) -> Command {
        self.send(file, &[&["--via", &self.via()], flags].concat())
    }

    pub fn fetch(&self, remote: &str, local_dir: &Path, flags: &[&str]) -> Command {
        fetch_from(self.link.port, remote, local_dir, flags)
    }

    /// Nothing is left over anywhere.
    pub fn expect_idle(&mut self) {
        self.server.expect_idle();
        self.relays.iter_mut().for_each(|relay| relay.recv.expect_idle());
    }
}

/// How one route fared, by a run's object.
pub struct Fared {
    pub name: String,
    pub bytes: u64,
    pub connections: u64,
    pub trouble: String,
}

/// How each route fared.
pub fn routes(ended: &Ended) -> Vec<Fared> {
    let fared = |route: &serde_json::Value| Fared {
        name: route["route"].as_str().unwrap().to_owned(),
        bytes: route["bytes"].as_u64().unwrap(),
        connections: route["connections"].as_u64().unwrap(),
        trouble: route["trouble"].as_str().unwrap_or_default().to_owned(),
    };
    ended.json["routes"]
        .as_array()
        .unwrap_or_else(|| panic!("no routes in {}: {}", ended.json, ended.said))
        .iter()
        .map(fared)
        .collect()
}

/// The one with this name.
pub fn route(ended: &Ended, name: &str) -> Fared {
    let mut routes = routes(ended).into_iter().filter(|route| route.name == name);
    routes.next().unwrap_or_else(|| panic!("no route {name} in {}", ended.json))
}

/// A tree with a file that is large enough for several routes.
pub fn large_tree(len: usize) -> TempDir {
    let source = temp_dir();
    make_tree(source.path());
    write(&source.path().join("large"), noise(len, 99));
    source
}
