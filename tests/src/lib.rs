//! The harness: starts the real binary on files of a test's own, talks to its health port, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop here")]

pub mod cgroup;
mod groups;
mod mount;
pub mod schedule;
pub mod telling;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub use groups::Group;
pub use mount::Mount;

/// How long anything that should happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The project's root.
pub fn root() -> PathBuf {
    match std::env::var_os("WINDLASS_ROOT") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned(),
    }
}

/// The binary that is tested, which is the one that ships. `cargo xtask test` says where it is.
pub fn binary() -> PathBuf {
    let binary = match std::env::var_os("WINDLASS_BIN") {
        Some(binary) => PathBuf::from(binary),
        None => root().join("target/x86_64-unknown-linux-musl/release/windlass"),
    };
    assert!(binary.exists(), "{} is missing: run `cargo xtask test`, which builds it", binary.display());
    binary
}

/// The same binary with the feature `wedge`.
pub fn wedge_binary() -> PathBuf {
    let binary = std::env::var_os("WINDLASS_WEDGE_BIN")
        .map_or_else(|| root().join("target/shipped/windlass-wedge"), PathBuf::from);
    assert!(binary.exists(), "{} is missing: run `cargo xtask test`, which builds it", binary.display());
    binary
}

/// Whether the long forms of tests are wanted, which take minutes: `WINDLASS_LONG=1`.
pub fn is_long() -> bool {
    std::env::var_os("WINDLASS_LONG").is_some()
}

/// A guest by its name: a `.wat` of the fixtures, or what `cargo xtask build` gathered.
pub fn guest(name: &str) -> Vec<u8> {
    let text = root().join(format!("tests/fixtures/wat/{name}.wat"));
    if text.exists() {
        return wat::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", text.display()));
    }
    let folder = std::env::var_os("WINDLASS_GUESTS").map_or_else(|| root().join("target/guests"), PathBuf::from);
    let built = folder.join(format!("{name}.wasm"));
    fs::read(&built)
        .unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask test`, which builds it", built.display()))
}

/// The same artifact with other bytes, and so another digest: a custom section at its end.
pub fn marked(mut wasm: Vec<u8>, mark: u32) -> Vec<u8> {
    wasm.extend([0, 6, 1, b'm']);
    wasm.extend(mark.to_le_bytes());
    wasm
}

/// A module that is small, valid and very long in compiling: one function of 100,000 branches over 200 variables that all live on.
pub fn compile_bomb() -> Vec<u8> {
    const VARIABLES: usize = 200;
    const BRANCHES: usize = 100_000;
    let leb = |mut number: usize| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let section = |id: u8, body: &[u8]| [&[id], leb(body.len()).as_slice(), body].concat();
    let mut body = [&[1_u8], leb(VARIABLES).as_slice(), &[0x7f]].concat();
    for branch in 0..BRANCHES {
        let (a, b) = (branch % VARIABLES, (branch * 7 + 3) % VARIABLES);
        // if (a) { c = b + a }
        let parts = [&[0x20][..], &leb(a), &[0x04, 0x40, 0x20], &leb(b), &[0x20], &leb(a), &[0x6a, 0x21]];
        body.extend(parts.concat());
        body.extend(leb((a + b) % VARIABLES));
        body.push(0x0b);
    }
    body.push(0x0b);
    let code = [&[1_u8][..], &leb(body.len()), &body].concat();
    let sections = [
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[1, 0]),
        section(5, &[1, 0, 1]),
        section(7, b"\x02\x06_start\x00\x00\x06memory\x02\x00"),
        section(10, &code),
    ];
    [b"\0asm\x01\0\0\0".as_slice(), &sections.concat()].concat()
}

/// A folder that is gone when this is dropped.
pub fn temporary_folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A folder with guests, and a configuration.
pub struct Scene {
    folder: TempDir,
}

impl Default for Scene {
    fn default() -> Scene {
        Scene::new()
    }
}

impl Scene {
    /// An empty one.
    pub fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("plugins")).unwrap();
        Scene { folder }
    }

    /// Adds a guest under its own name.
    #[must_use]
    pub fn guest(self, name: &str) -> Scene {
        self.file(&format!("{name}.wasm"), &guest(name))
    }

    /// Adds a file to the folder of plugins.
    #[must_use]
    pub fn file(self, name: &str, bytes: &[u8]) -> Scene {
        fs::write(self.plugins().join(name), bytes).unwrap();
        self
    }

    /// The folder of plugins.
    pub fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    /// The folder that holds everything.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the configuration: `yaml` with a port of its own put before it.
    pub fn configure(&self, yaml: &str) -> PathBuf {
        let path = self.folder.path().join("windlass.yaml");
        let health = if yaml.contains("health: { listen") { "" } else { "health: { listen: \"127.0.0.1:0\" }\n" };
        // Hosts of other tests are on this machine, too.
        let admin = if yaml.contains("admin:") { "" } else { "admin: { listen: \"127.0.0.1:0\" }\n" };
        fs::write(&path, format!("pluginsDir: plugins\n{health}{admin}{yaml}")).unwrap();
        path
    }

    /// Starts the host with this configuration.
    pub fn run(self, yaml: &str) -> Host {
        let config = self.configure(yaml);
        let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
        Host::start(self, &arguments)
    }

    /// Starts the host with this configuration, in another way than the usual one.
    pub fn launch(self, yaml: &str, launch: &Launch<'_>) -> Host {
        let config = self.configure(yaml);
        let log = self.termination_log();
        fs::write(&log, "").unwrap();
        let config =
            ["run", "--config", &config.display().to_string(), "--termination-log", &log.display().to_string()]
                .map(str::to_owned);
        Host::launch(self, &config, launch)
    }

    /// Where [`Scene::launch`] has the reason written when liveness turns red.
    pub fn termination_log(&self) -> PathBuf {
        self.folder.path().join("termination-log")
    }

    /// Runs a command to its end in this folder.
    pub fn windlass(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("WINDLASS_LOG")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

/// Runs `windlass once` on a guest; returns its exit code, stdout and stderr.
pub fn once(name: &str, arguments: &[&str]) -> (i32, String, String) {
    let scene = Scene::new().guest(name);
    let file = format!("plugins/{name}.wasm");
    let mut all = vec!["once", file.as_str()];
    all.extend(arguments);
    let output = scene.windlass(&all);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Names what the binary of [`wedge_binary`] does to itself: `host/src/wedge.rs` says how.
pub const WEDGE: &str = "WINDLASS_WEDGE";

/// How a host is started, where that is not the usual way.
#[derive(Default)]
pub struct Launch<'a> {
    /// What is done to it from inside; it is then [`wedge_binary`] that is started.
    pub wedge: Option<&'a str>,
    /// More environment variables.
    pub environment: &'a [(&'a str, &'a str)],
    /// The control groups that it runs in.
    pub groups: &'a [&'a Group],
}

/// A host that runs. Killed when it is dropped.
pub struct Host {
    child: Child,
    address: String,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    scene: Scene,
}

impl Host {
    /// Starts the binary, and waits until its health port listens.
    pub fn start(scene: Scene, arguments: &[String]) -> Host {
        Host::start_with(scene, arguments, &[])
    }

    /// The same with environment variables.
    pub fn start_with(scene: Scene, arguments: &[String], environment: &[(&str, &str)]) -> Host {
        Host::launch(scene, arguments, &Launch { environment, ..Launch::default() })
    }

    /// The same in any way.
    pub fn launch(scene: Scene, arguments: &[String], launch: &Launch<'_>) -> Host {
        let binary = if launch.wedge.is_some() { wedge_binary() } else { binary() };
        let mut command = match launch.groups {
            [] => Command::new(binary),
            groups => {
                let mut command = Command::new("sh");
                let enter: String =
                    groups.iter().map(|group| format!("echo $$ > '{}' && ", group.members().display())).collect();
                command.arg("-c").arg(enter + "exec \"$0\" \"$@\"").arg(binary);
                command
            }
        };
        command.envs(launch.wedge.map(|wedge| (WEDGE, wedge)));
        Host::start_as(command, scene, arguments, launch.environment)
    }

    /// The same by a command of the caller's, which becomes the binary.
    pub fn start_as(mut command: Command, scene: Scene, arguments: &[String], environment: &[(&str, &str)]) -> Host {
        let mut child = command
            .args(arguments)
            .current_dir(scene.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { return };
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut host = Host { child, address: String::new(), lines, seen: Vec::new(), scene };
        let line = host.wait_for_line(|line| line["message"] == "health port listening");
        host.address = line["address"].as_str().unwrap().to_owned();
        let until = Instant::now() + PATIENCE;
        while host.get("/health/startup").0 != 200 {
            assert!(Instant::now() < until, "the host did not start up: {:#?}", host.lines());
            std::thread::sleep(Duration::from_millis(5));
        }
        host
    }

    /// The files that it runs on.
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Where its health port is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where its admin port is.
    pub fn admin(&mut self) -> String {
        let line = self.wait_for_line(|line| line["message"] == "admin port listening");
        line["address"].as_str().unwrap().to_owned()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line, also among those that came before.
    pub fn wait_for_line(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(line) = self.seen.iter().find(|line| is_it(line)) {
            return line.clone();
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if is_it(&line) {
                        return line;
                    }
                }
                Err(_) => panic!("the line did not come; what came: {:#?}", self.seen),
            }
        }
    }

    /// All log lines so far.
    pub fn lines(&mut self) -> &[Value] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// All log lines of a host that has ended.
    pub fn all_lines(&mut self) -> &[Value] {
        // Until the other end is closed.
        self.seen.extend(self.lines.iter());
        &self.seen
    }

    /// Asks the health port.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(&self.address, path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Asks for JSON.
    pub fn json(&self, path: &str) -> Value {
        let (_, body) = self.get(path);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// One plugin in full.
    pub fn plugin(&self, name: &str) -> Value {
        self.json(&format!("/health/plugins/{name}"))
    }

    /// Waits until a plugin is as wanted, and returns it.
    pub fn wait_for(&self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_within(name, PATIENCE, is_it)
    }

    /// The same with another patience than the usual one.
    pub fn wait_for_within(&self, name: &str, patience: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + patience;
        loop {
            let plugin = self.plugin(name);
            if is_it(&plugin) {
                return plugin;
            }
            assert!(Instant::now() < until, "{name} did not come to be as wanted: {plugin:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a plugin's last run ended, and returns that run.
    pub fn wait_for_run(&self, name: &str) -> Value {
        self.wait_for(name, |plugin| plugin["lastRuns"][0].is_object())["lastRuns"][0].clone()
    }

    /// Waits until everything is loaded or refused.
    pub fn wait_until_ready(&self) {
        self.wait_until_ready_within(PATIENCE);
    }

    /// The same with another patience.
    pub fn wait_until_ready_within(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.get("/health/ready").0 != 200 {
            assert!(Instant::now() < until, "not ready: {:?}", self.get("/health/ready"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal by its name.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has ended.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the host did not end: {:#?}", self.lines());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and its exit code.
    pub fn stop(&mut self) -> i32 {
        self.signal("TERM");
        self.wait_for_end().code().unwrap_or(-1)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Most have ended by now; whoever has not is not left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own.
pub fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((code, body.to_owned()))
}
