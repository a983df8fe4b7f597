//! `cargo xtask release`: what a release is made of, stage by stage as the workflow calls them, or all of it with `--dry-run`, which does
//! everything but the upload and signs with a key that it throws away.

mod cross;
mod elf;
mod files;
mod plan;
mod sbom;
mod versions;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::steps::{self, Steps, command, target_folder};
use crate::testbed::{Containers, Tools, image, package_chart};
use crate::{Result, build, prepare};

const USAGE: &str = "release takes a stage or --dry-run, and --target TRIPLE or --tag vVERSION";

/// What is released, and where it is gathered.
pub(crate) struct Release {
    version: String,
    target: String,
    /// This machine's target.
    own: String,
    /// As images name the architecture.
    architecture: &'static str,
    binary: PathBuf,
    dist: PathBuf,
}

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (mut stage, mut target, mut tag) = (None, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--target" => target = Some(rest.next().ok_or(USAGE)?.clone()),
            "--tag" => tag = Some(rest.next().ok_or(USAGE)?.clone()),
            name if stage.is_none() => stage = Some(name.to_owned()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let stage = stage.ok_or(USAGE)?;
    let mut steps = Steps::new(1);
    let own = prepare::run(&mut steps)?;
    let release = Release::new(target.as_deref().unwrap_or(&own), &own, tag.as_deref())?;
    if stage == "--dry-run" {
        let tools = steps.step("tools for the test bed", "about a minute the first time", Tools::gather)?;
        let done = release.rehearse(&mut steps, &tools)?;
        done.iter().for_each(|line| eprintln!("{line}"));
        steps.table();
    } else {
        let said = release.stage(&stage, &mut steps, None)?;
        eprintln!("{stage}: {said}");
    }
    Ok(ExitCode::SUCCESS)
}

impl Release {
    fn new(target: &str, own: &str, tag: Option<&str>) -> Result<Release> {
        let known = plan::TARGETS.into_iter().find(|(name, _)| *name == target);
        let (_, architecture) =
            known.ok_or_else(|| format!("{target} is not released: {:?}", plan::TARGETS.map(|(name, _)| name)))?;
        let binary = if target == own { build::host_binary() } else { build::binaries(target).join("windlass") };
        Ok(Release {
            version: versions::check(tag)?,
            target: target.to_owned(),
            own: own.to_owned(),
            architecture,
            binary,
            dist: target_folder().join("dist"),
        })
    }

    /// The host that was built and tested already, for the test bed.
    pub(crate) fn of_shipped(own: &str) -> Result<Release> {
        Release::new(own, own, None)
    }

    /// One stage. Returns what was done. The chart's package needs tools, which are looked for where none are given.
    fn stage(&self, name: &str, steps: &mut Steps, tools: Option<&Tools>) -> Result<String> {
        fs::create_dir_all(&self.dist).map_err(|error| format!("{}: {error}", self.dist.display()))?;
        match name {
            "versions" => Ok(format!("version {} everywhere", self.version)),
            "binary" => {
                if self.target == self.own {
                    build::host(steps, &self.own)?;
                } else {
                    cross::build(steps, &self.target)?;
                }
                cross::inspect(&self.binary, &self.target, &self.version)
            }
            "sbom" => {
                let tool = prepare::cargo_tool(steps, "cargo-cyclonedx", sbom::VERSION)?;
                sbom::make(&tool, &self.target, &self.version, &self.sbom_file())
            }
            "archive" => files::archive(&self.dist, &self.stem(), &self.binary, &self.sbom_file()),
            "image" => image::assemble(&self.image_folder(), &self.binary).map(|()| "files of the image".to_owned()),
            "chart" => {
                let gathered = if tools.is_none() { Some(Tools::gather()?) } else { None };
                let helms = tools.or(gathered.as_ref()).map(|tools| tools.helms.as_slice()).unwrap_or_default();
                let helm = helms.first().ok_or("the chart is not packaged, for want of helm")?;
                Ok(format!("chart: {}", file_name(&package_chart(helm, &self.dist)?)))
            }
            "sums" => files::sums(&self.dist),
            "publish" => self.publish(),
            other => Err(format!("there is no stage `{other}`: {:?}", plan::STAGES.map(|(name, _)| name))),
        }
    }

    fn stem(&self) -> String {
        format!("windlass-{}-{}", self.version, self.target)
    }

    fn sbom_file(&self) -> PathBuf {
        self.dist.join(format!("{}.cdx.json", self.stem()))
    }

    /// Where the Dockerfile's last stage finds what it copies: its first stage's `/files`.
    fn image_folder(&self) -> PathBuf {
        self.dist.join(format!("image-{}", self.architecture))
    }

    /// The text of the release's page, and the list.
    fn publish(&self) -> Result<String> {
        let notes = self.dist.join("NOTES.md");
        fs::write(&notes, versions::notes(&self.version)?).map_err(|error| format!("{}: {error}", notes.display()))?;
        let mut list = String::from("to be uploaded");
        for upload in &plan::UPLOADS {
            let to = upload.to.replace("VERSION", &self.version);
            list.push_str(&format!("\n  {:<44} {to}\n  {:<44} ({})", upload.what, "", upload.by));
        }
        Ok(list)
    }

    /// All stages; and what the workflow does between them with other tools: the image is built, the sums are signed. Nothing is
    /// uploaded. Returns what was done.
    pub(crate) fn rehearse(&self, steps: &mut Steps, tools: &Tools) -> Result<Vec<String>> {
        let _ = fs::remove_dir_all(&self.dist);
        let mut done = Vec::new();
        for (name, _) in plan::STAGES {
            if name == "chart" && tools.helms.is_empty() {
                continue;
            }
            done.push(format!("release, {name}: {}", self.stage(name, steps, Some(tools))?));
            match name {
                "image" if tools.has_containers => done.push(self.image(tools)?),
                "sums" => done.push(files::sign_and_throw_away(&self.dist)?),
                _ => {}
            }
        }
        Ok(done)
    }

    /// The image by the code of the test bed.
    fn image(&self, tools: &Tools) -> Result<String> {
        let folder = self.image_folder();
        image::assemble(&folder, &self.binary)?;
        let containers = Containers::new(tools)?;
        let tag = format!("localhost/windlass:{}-{}", self.version, self.architecture);
        image::bud(&containers, &folder, &tag, self.architecture)?;
        let built = containers.podman(&["image", "inspect", &tag, "--format", "{{.Architecture}}"])?;
        containers.podman(&["rmi", "--force", &tag])?;
        if built == self.architecture {
            Ok(format!("image for {built}"))
        } else {
            Err(format!("the image is for {built}, not for {}", self.architecture))
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// When the last commit was made, in seconds since 1970: the time that everything in a release has.
fn commit_time() -> Result<String> {
    steps::output(command("git", &["log", "-1", "--format=%ct"])).map(|time| time.trim().to_owned())
}
