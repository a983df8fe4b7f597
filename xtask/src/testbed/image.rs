//! The image: the last stage of the Dockerfile built for real around the binary that was tested, and looked into.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use super::containers::Containers;
use super::registry::Registry;
use super::tools::Tools;
use crate::steps::{self, command};
use crate::{Result, build, chart};

const SIZE_MOST_MIB: u64 = 60;
/// This machine's, as images name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
const ZONES: &str = "/usr/share/zoneinfo";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Builds it twice, which must make the same layers, and once more around another binary, which must not: an upgrade needs two. Pushes them to
/// the registry as `one` and `two`, and returns the image's name there, without a tag.
pub(super) fn make(tools: &Tools, containers: &Containers, registry: &Registry) -> Result<(String, String)> {
    let files = tools.folder.join("image");
    assemble(&files, &build::host_binary())?;
    let name = format!("{}/windlass", registry.host());
    let first = bud(containers, &files, &format!("{name}:one"), ARCHITECTURE)?;
    let again = bud(containers, &files, &format!("{name}:one"), ARCHITECTURE)?;
    if first != again {
        return Err(format!("the same files make different layers: {first} and {again}"));
    }
    let proved = inspect(containers, &files, &format!("{name}:one"))?;
    let other = tools.folder.join("other-image");
    assemble(&other, &build::wedge_binary())?;
    if bud(containers, &other, &format!("{name}:two"), ARCHITECTURE)? == first {
        return Err("two binaries make the same layers".to_owned());
    }
    for tag in ["one", "two"] {
        let (from, to) = (format!("{name}:{tag}"), format!("docker://{name}:{tag}"));
        steps::output(containers.command("buildah", &["push", "--tls-verify=false", &from, &to]))?;
        // The pods pull it like any other.
        containers.podman(&["rmi", "--force", &from])?;
    }
    Ok((name, proved))
}

/// What the Dockerfile's first stage leaves in /files, around a binary: its base image cannot be had everywhere, and a release ships the
/// binary that was tested.
pub(crate) fn assemble(folder: &Path, binary: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    let files = folder.join("files");
    for part in ["usr/bin", "usr/share", "etc/ssl/certs", "plugins"] {
        fs::create_dir_all(files.join(part)).map_err(|error| format!("{}: {error}", files.display()))?;
    }
    let copy =
        |from: &str, to: &str| steps::output(command("cp", &["-r", from, &files.join(to).display().to_string()]));
    copy(&binary.display().to_string(), "usr/bin/windlass")?;
    copy(ZONES, "usr/share/")?;
    copy(CERTIFICATES, "etc/ssl/certs/")?;
    for (file, text) in [("passwd", "windlass:x:65532:65532::/:\n"), ("group", "windlass:x:65532:\n")] {
        fs::write(files.join("etc").join(file), text).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The Dockerfile itself, with its first stage replaced by a folder. Returns the layers' digests.
pub(crate) fn bud(containers: &Containers, files: &Path, tag: &str, architecture: &str) -> Result<String> {
    let (stage, platform) = (format!("build={}", files.display()), format!("linux/{architecture}"));
    let build = [
        "bud",
        "--quiet",
        "--isolation",
        "chroot",
        "--format",
        "docker",
        "--timestamp",
        "0",
        "--no-cache",
        "--platform",
        &platform,
        "--build-context",
        &stage,
        "--tag",
        tag,
        ".",
    ];
    steps::output(containers.command("buildah", &build))?;
    containers.podman(&["image", "inspect", tag, "--format", "{{.RootFS.Layers}}"])
}

/// The image of plugins as the guide for AKS shows it, around one file.
pub(super) fn plugins(tools: &Tools, containers: &Containers) -> Result<String> {
    let text = crate::links::block("docs/aks.md", "an image of plugins")?;
    let folder = tools.folder.join("plugins-image");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    fs::write(folder.join("Dockerfile"), text).map_err(|error| error.to_string())?;
    let heartbeat = build::guests_folder().join("heartbeat.wasm");
    fs::copy(&heartbeat, folder.join("heartbeat.wasm")).map_err(|error| format!("{}: {error}", heartbeat.display()))?;
    let (tag, at) = ("localhost/plugins:test", folder.display().to_string());
    steps::output(containers.command("buildah", &["bud", "--quiet", "--isolation", "chroot", "--tag", tag, &at]))?;
    let container = steps::output(containers.command("buildah", &["from", tag]))?;
    let (container, got) = (container.trim(), folder.join("out.wasm").display().to_string());
    let mount = steps::output(containers.command("buildah", &["mount", container]))?;
    let copied = steps::output(command("cp", &[&format!("{}/heartbeat.wasm", mount.trim()), &got]));
    steps::output(containers.command("buildah", &["rm", container]))?;
    copied?;
    Ok("the guide's image of plugins builds, and holds the plugin".to_owned())
}

/// Size, user, labels, the health check, and that there is nothing in it to get a shell from.
fn inspect(containers: &Containers, files: &Path, tag: &str) -> Result<String> {
    let image: Json =
        serde_json::from_str(&containers.podman(&["image", "inspect", tag])?).map_err(|error| error.to_string())?;
    let image = &image[0];
    let version = chart::version()?;
    let mib = image["Size"].as_u64().ok_or("podman tells no size")?.div_ceil(1 << 20);
    if mib > SIZE_MOST_MIB {
        return Err(format!("the image has {mib} MiB, more than {SIZE_MOST_MIB}"));
    }
    let wanted = [
        ("/Config/User", "65532:65532".to_owned()),
        ("/Config/Labels/org.opencontainers.image.version", version.clone()),
        ("/Config/Labels/org.opencontainers.image.licenses", "Apache-2.0".to_owned()),
        ("/Healthcheck/Test/2", "health".to_owned()),
    ];
    for (path, wanted) in wanted {
        let got =
            image.pointer(path).map_or_else(|| "nothing".to_owned(), |got| got.as_str().unwrap_or_default().to_owned());
        if got != wanted {
            return Err(format!("the image's {path} is {got}, and should be {wanted}: {image:#}"));
        }
    }
    let said = containers.podman(&["run", "--rm", "--read-only", "--network", "none", tag, "--version"])?;
    if said != format!("windlass {version}") {
        return Err(format!("the image says `{said}`"));
    }
    for shell in ["sh", "bash", "busybox", "apt", "apk"] {
        if containers.podman(&["run", "--rm", "--network", "none", "--entrypoint", shell, tag]).is_ok() {
            return Err(format!("the image has a {shell}"));
        }
    }
    // The binary is the only thing in it that can be executed.
    let find = command("find", &[&files.join("files").display().to_string(), "-type", "f", "-perm", "/111"]);
    let programs = steps::output(find)?;
    if programs.lines().count() != 1 || !programs.trim().ends_with("/usr/bin/windlass") {
        return Err(format!("more than the host can be executed in the image:\n{programs}"));
    }
    Ok(format!(
        "image: {mib} MiB (at most {SIZE_MOST_MIB}), uid 65532, one executable, no shell, the same layers when built twice"
    ))
}
