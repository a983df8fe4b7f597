//! Images and pods with podman and buildah, in a store of the bed's own. Whatever is started is removed when it is dropped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::kubelet::Answer;
use super::tools::Tools;
use crate::Result;
use crate::steps::{self, command, minutes};

/// runc and cgroupfs work with hybrid control groups too; more descriptors than the machine's own limit cannot be asked for.
const ENGINE: &str = "\
[containers]
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
[network]
network_backend = \"netavark\"
";

/// The store.
pub(crate) struct Containers {
    folder: PathBuf,
}

impl Containers {
    /// A store in the bed's folder; what an earlier bed left there is kept.
    pub(crate) fn new(tools: &Tools) -> Result<Containers> {
        let folder = tools.folder.join("containers");
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(&folder).map_err(failed)?;
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/graph\"\nrunroot = \"{0}/run\"\n",
            folder.display()
        );
        fs::write(folder.join("storage.conf"), storage).map_err(failed)?;
        fs::write(folder.join("containers.conf"), ENGINE).map_err(failed)?;
        Ok(Containers { folder })
    }

    /// A command on this store.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = command(program, arguments);
        command.env("CONTAINERS_CONF", self.folder.join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.folder.join("storage.conf"));
        command
    }

    /// Runs podman and returns what it printed.
    pub(crate) fn podman(&self, arguments: &[&str]) -> Result<String> {
        steps::output(self.command("podman", arguments)).map(|said| said.trim().to_owned())
    }

    /// A volume with these files in it, that belongs to the host's user: what `fsGroup` does in a cluster.
    pub(super) fn volume(&self, name: &str, files: &[(String, Vec<u8>)]) -> Result<Volume<'_>> {
        // Left behind by a bed that was killed.
        let _ = self.podman(&["volume", "rm", "--force", name]);
        self.podman(&["volume", "create", name])?;
        let at = PathBuf::from(self.podman(&["volume", "inspect", name, "--format", "{{.Mountpoint}}"])?);
        for (file, bytes) in files {
            fs::write(at.join(file), bytes).map_err(|error| format!("{}: {error}", at.display()))?;
        }
        steps::output(command("chown", &["-R", "65532:65532", &at.display().to_string()]))?;
        Ok(Volume { containers: self, name: name.to_owned() })
    }
}

/// A volume, removed when it is dropped.
pub(super) struct Volume<'a> {
    containers: &'a Containers,
    name: String,
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        let _ = self.containers.podman(&["volume", "rm", "--force", &self.name]);
    }
}

/// The pod of a rendered chart. Removed, with what runs in it, when it is dropped.
pub(super) struct Pod<'a> {
    containers: &'a Containers,
    release: String,
    file: PathBuf,
    /// The container as the Deployment has it, probes included.
    pub(super) container: Json,
    pub(super) port: u16,
    pub(super) grace: Duration,
}

impl<'a> Pod<'a> {
    /// Starts what the chart rendered. podman can do all of it but the probes, which need systemd there, and a restart's back-off: both
    /// are the bed's.
    pub(super) fn play(containers: &'a Containers, tools: &Tools, release: &str, rendered: &str) -> Result<Pod<'a>> {
        let yaml = tools.folder.join(format!("{release}.yaml"));
        fs::write(&yaml, rendered).map_err(|error| format!("{}: {error}", yaml.display()))?;
        let kubectl = tools.kubectl.as_ref().ok_or("kubectl is missing")?.display().to_string();
        // Reads the YAML for us, and adds a label that does no harm.
        let mut read =
            command(&kubectl, &["label", "--local", "-f", &yaml.display().to_string(), "testbed=yes", "-o", "json"]);
        read.env("KUBECONFIG", "/dev/null");
        let objects = steps::output(read)?;
        let objects = serde_json::Deserializer::from_str(&objects).into_iter::<Json>();
        let mut objects: Vec<Json> =
            objects.collect::<std::result::Result<_, _>>().map_err(|error| error.to_string())?;
        let port = free_port()?;
        let deployment = objects.iter_mut().find(|object| object["kind"] == "Deployment").ok_or("no Deployment")?;
        let spec = &mut deployment["spec"]["template"]["spec"];
        let grace = Duration::from_secs(spec["terminationGracePeriodSeconds"].as_u64().ok_or("no grace period")?);
        spec["restartPolicy"] = json!("Never");
        let container = spec["containers"][0].clone();
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            spec["containers"][0].as_object_mut().and_then(|container| container.remove(probe));
        }
        spec["containers"][0]["ports"][0]["hostPort"] = json!(port);
        part_empty_folders(spec, release);
        let file = tools.folder.join(format!("{release}.pod.yaml"));
        let text: Vec<_> = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        fs::write(&file, text.concat()).map_err(|error| format!("{}: {error}", file.display()))?;
        let pod = Pod { containers, release: release.to_owned(), file, container, port, grace };
        pod.remove();
        containers.podman(&["kube", "play", "--quiet", "--tls-verify=false", &pod.file.display().to_string()])?;
        Ok(pod)
    }

    /// The container's name.
    pub(super) fn name(&self) -> String {
        format!("{}-windlass-pod-0-windlass", self.release)
    }

    /// One field of what podman knows of the container.
    pub(super) fn inspect(&self, format: &str) -> Result<String> {
        self.containers.podman(&["inspect", &self.name(), "--format", format])
    }

    /// The digest of the binary that runs in it.
    pub(super) fn binary(&self) -> Result<String> {
        let running = format!("/proc/{}/exe", self.inspect("{{.State.Pid}}")?);
        let said = steps::output(command("sha256sum", &[&running]))?;
        Ok(said.split(' ').next().unwrap_or_default().to_owned())
    }

    /// The folder on this machine that is mounted as the ConfigMap.
    pub(super) fn config_map(&self) -> Result<PathBuf> {
        let volume = format!("{}-windlass", self.release);
        self.containers.podman(&["volume", "inspect", &volume, "--format", "{{.Mountpoint}}"]).map(PathBuf::from)
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: &str) -> Result<()> {
        self.containers.podman(&["kill", "--signal", signal, &self.name()]).map(|_| ())
    }

    /// Whether its process is there. podman that cannot say so is not taken for a container that ended.
    pub(super) fn is_running(&self) -> bool {
        self.inspect("{{.State.Status}}").map_or(true, |status| status != "exited" && status != "stopped")
    }

    /// How it ended, and what it said last.
    pub(super) fn last_words(&self) -> String {
        let code = self.inspect("{{.State.ExitCode}} oom={{.State.OOMKilled}}").unwrap_or_else(|why| why);
        let output = self.containers.command("podman", &["logs", "--tail", "2", &self.name()]).output();
        let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        format!("exit code {code}: {}", String::from_utf8_lossy(&said).trim())
    }

    /// Ends it as a kubelet does: SIGTERM, and SIGKILL when the grace period is over. Returns the exit code.
    pub(super) fn stop(&self) -> Result<i32> {
        self.signal("TERM")?;
        let until = Instant::now() + self.grace;
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
        if self.is_running() {
            self.signal("KILL")?;
            self.containers.podman(&["wait", &self.name()])?;
        }
        self.inspect("{{.State.ExitCode}}")?.parse().map_err(|_| "podman tells no exit code".to_owned())
    }

    /// Starts the container again, in the same pod. podman ends the pod's own container a little after its last one, and refuses as long as
    /// that lasts.
    pub(super) fn start(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match self.containers.podman(&["start", &self.name()]) {
                Ok(_) => return Ok(()),
                Err(why) if Instant::now() > until => return Err(why),
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Its log so far, over all restarts.
    pub(super) fn log(&self) -> Result<Vec<Json>> {
        let output = self.containers.command("podman", &["logs", &self.name()]).output();
        let output = output.map_err(|error| format!("podman logs: {error}"))?;
        // The host logs to standard error.
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Asks the health port from outside, as a kubelet does.
    pub(super) fn ask(&self, path: &str, timeout: Duration) -> (Answer, String) {
        match get(self.port, path, timeout) {
            Ok((code, body)) => (Answer::Status(code), body),
            Err(why) => {
                (Answer::Nothing(format!("Get \"http://127.0.0.1:{}{path}\": {why}", self.port)), String::new())
            }
        }
    }

    /// Waits until it is ready.
    pub(super) fn wait_until_ready(&self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        loop {
            let (answer, body) = self.ask("/health/ready", Duration::from_secs(2));
            if answer == Answer::Status(200) {
                return Ok(());
            }
            if Instant::now() > until {
                let log = self.log()?.iter().rev().take(5).map(Json::to_string).collect::<Vec<_>>().join("\n");
                return Err(format!(
                    "{} is not ready after {}: {answer:?} {body}\n{log}",
                    self.name(),
                    minutes(patience)
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Removes the pod, and the volumes that podman makes of its empty folder and its ConfigMap. Nothing to remove is the usual case.
    fn remove(&self) {
        let pod = format!("{}-windlass-pod-0", self.release);
        let _ = self.containers.podman(&["pod", "rm", "--force", "--time", "0", &pod]);
        for volume in ["data", "windlass"] {
            let _ = self.containers.podman(&["volume", "rm", "--force", &format!("{}-{volume}", self.release)]);
        }
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

/// podman makes a volume of each emptyDir, and pods whose folders have the same name share one: names of their own keep them apart.
fn part_empty_folders(spec: &mut Json, release: &str) {
    let mut renamed = Vec::new();
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if volume.get("emptyDir").is_some() {
            let name = volume["name"].clone();
            volume["name"] = json!(format!("{release}-{}", name.as_str().unwrap_or_default()));
            renamed.push((name, volume["name"].clone()));
        }
    }
    for mount in spec["containers"][0]["volumeMounts"].as_array_mut().into_iter().flatten() {
        if let Some((_, new)) = renamed.iter().find(|(old, _)| *old == mount["name"]) {
            mount["name"] = new.clone();
        }
    }
}

/// A port that nobody listens on.
pub(super) fn free_port() -> Result<u16> {
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(|error| format!("no port is free: {error}"))
}

/// One request on a connection of its own, with one timeout for all of it.
pub(super) fn get(port: u16, path: &str, timeout: Duration) -> std::io::Result<(u16, String)> {
    let until = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), timeout)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: kube-probe/1.37\r\nconnection: close\r\n\r\n"
    )?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "context deadline exceeded"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    match (code, body) {
        (Some(code), Some(body)) => Ok((code, body)),
        _ => Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "EOF")),
    }
}
