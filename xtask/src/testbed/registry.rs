//! A real OCI registry on a loopback port: the chart is packaged, pushed, pulled and installed (dry) from it, and so is the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::chart::RELEASE;
use super::containers::{free_port, get};
use super::tools::{Helm, Tools};
use crate::steps::{self, command, root, target_folder};
use crate::{Result, chart};

const GUIDE: &str = "docs/from-dotnet-worker.md";

/// The registry. Ended when it is dropped.
pub(super) struct Registry {
    process: Child,
    pub(super) port: u16,
}

impl Registry {
    /// Starts one with an empty store.
    pub(super) fn start(tools: &Tools) -> Result<Registry> {
        let port = free_port()?;
        let folder = tools.folder.join("registry");
        // Yesterday's chart would be pushed over by today's of the same version.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let file = tools.folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\nhttp: {{ addr: \"127.0.0.1:{port}\" }}\n",
            folder.display()
        );
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        let log = fs::File::create(tools.folder.join("registry.log")).map_err(|error| error.to_string())?;
        let mut serve = command("docker-registry", &["serve", &file.display().to_string()]);
        serve.stdout(Stdio::null()).stderr(log);
        let process = serve.spawn().map_err(|error| format!("docker-registry: {error}"))?;
        let registry = Registry { process, port };
        let until = Instant::now() + Duration::from_secs(20);
        while get(port, "/v2/", Duration::from_secs(1)).is_err() {
            if Instant::now() > until {
                return Err("docker-registry does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    /// Where it is.
    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The chart's place in it.
    pub(super) fn chart(&self) -> String {
        format!("oci://{}/charts/windlass", self.host())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Either it runs, or it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Packages the chart, pushes it, pulls it back and installs it without a cluster, with each helm.
pub(super) fn round_trip(tools: &Tools, registry: &Registry, version: &str) -> Result<()> {
    for helm in &tools.helms {
        let folder = tools.folder.join(format!("packages-{}", helm.major));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let package = package(helm, &folder)?;
        let repository = format!("oci://{}/charts", registry.host());
        steps::output(helm.command(&["push", &package.display().to_string(), &repository, "--plain-http"]))?;
        let pulled = folder.join("pulled").display().to_string();
        fs::create_dir_all(&pulled).map_err(|error| format!("{pulled}: {error}"))?;
        let pull = ["pull", &registry.chart(), "--version", version, "--plain-http", "--destination", &pulled];
        steps::output(helm.command(&pull))?;
        let back =
            fs::read(format!("{pulled}/windlass-{version}.tgz")).map_err(|error| format!("{pulled}: {error}"))?;
        if Ok(back) != fs::read(&package).map_err(|error| error.to_string()) {
            return Err("what was pulled is not what was pushed".to_owned());
        }
        install(helm, registry, version)?;
    }
    Ok(())
}

/// Packages the chart into a folder, and looks at what is in it.
pub(crate) fn package(helm: &Helm, folder: &Path) -> Result<PathBuf> {
    let into = folder.display().to_string();
    steps::output(helm.command(&["package", &chart::folder().display().to_string(), "--destination", &into]))?;
    let package = folder.join(format!("windlass-{}.tgz", chart::version()?));
    let listing = steps::output(command("tar", &["-tzf", &package.display().to_string()]))?;
    if listing.contains("values.schema.in.json") || !listing.contains("values.schema.json") {
        return Err(format!("the package holds the wrong files:\n{listing}"));
    }
    Ok(package)
}

/// The look before the installation, as the guide has it, with the values that the other guide begins with.
fn as_the_guide_looks(helm: &Helm) -> Result<()> {
    let guide = fs::read_to_string(root().join(GUIDE)).map_err(|error| format!("{GUIDE}: {error}"))?;
    let shown = "install windlass charts/windlass --values values.yaml --dry-run=client --debug";
    if !guide.contains(&format!("`helm {shown}`")) {
        return Err(format!("{GUIDE} does not look before it installs: helm {shown}"));
    }
    let values = target_folder().join("testbed/values.yaml");
    let text = crate::links::block("docs/aks.md", "the least values")?;
    fs::write(&values, text).map_err(|error| format!("{}: {error}", values.display()))?;
    let shown = shown.replace("values.yaml", &values.display().to_string());
    let said = steps::output(helm.command(&shown.split(' ').collect::<Vec<_>>()))?;
    for wanted in
        ["source: file:heartbeat.wasm", "configMap: { name: plugins }", "port-forward deploy/windlass 8080:8080"]
    {
        if !said.contains(wanted) {
            return Err(format!("what helm {shown} shows has no `{wanted}`:\n{said}"));
        }
    }
    Ok(())
}

/// A dry installation with the notes that the user gets. Helm 3 asks a cluster even then, so that it only renders.
fn install(helm: &Helm, registry: &Registry, version: &str) -> Result<()> {
    if helm.major == 3 {
        let template = ["template", RELEASE, &registry.chart(), "--version", version, "--plain-http"];
        return steps::output(helm.command(&template)).map(|_| ());
    }
    as_the_guide_looks(helm)?;
    let plugins = "plugins={\"heartbeat\":{\"source\":\"file:heartbeat.wasm\",\"every\":\"5s\"}}";
    let chart = registry.chart();
    let install =
        ["install", RELEASE, &chart, "--version", version, "--plain-http", "--dry-run=client", "--set-json", plugins];
    let said = steps::output(helm.command(&install))?;
    for wanted in [
        "kubectl --namespace default port-forward deploy/w-windlass 8080:8080",
        "http://localhost:8080/health",
        "history and missed starts do not outlive the pod",
        "Nothing is mounted at /plugins",
    ] {
        if !said.contains(wanted) {
            return Err(format!("helm {}: the notes do not say `{wanted}`:\n{said}", helm.major));
        }
    }
    Ok(())
}
