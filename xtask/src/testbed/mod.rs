//! `cargo xtask testbed`: as much of `helm install` on Kubernetes as a machine without a cluster can prove. It prints what it proved, what
//! it could not for want of a tool, and what only a cluster can.

mod change;
mod chart;
mod containers;
pub(crate) mod image;
mod kubelet;
mod registry;
mod scenarios;
mod schemas;
mod tools;

use std::process::ExitCode;

use crate::release::Release;
use crate::steps::{self, Steps, command};
use crate::{Result, build, prepare};
pub(crate) use containers::Containers;
use registry::Registry;
pub(crate) use registry::package as package_chart;
use scenarios::Stage;
pub(crate) use tools::Tools;

/// What a cluster proves and this does not.
const CLUSTER: &str = "\
only a cluster proves: admission, scheduling, an image volume, disks and Azure Files as volumes, fsGroup, workload identity, NetworkPolicy, PodMonitor,
that the real kubelet does what the bed's own does, and that it brings a ConfigMap's change into the pod's folder; and, here, the Dockerfile's first
stage, whose base image comes from a registry";

/// How long the thousand spin, and the forty compile.
const SPIN_S: u64 = 75;

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let is_update = match arguments {
        [] => false,
        [flag] if flag == "--update" => true,
        _ => return Err("testbed takes nothing but --update".to_owned()),
    };
    let mut steps = Steps::new(10);
    let target = prepare::run(&mut steps)?;
    build::wedge(&mut steps, &target)?;
    build::host(&mut steps, &target)?;
    build::guests(&mut steps)?;
    let outcome = all(&mut steps, &target, is_update);
    steps.table();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// All of it. An error is something that was disproved; what could not be tried is printed at the end.
pub(crate) fn all(steps: &mut Steps, target: &str, is_update: bool) -> Result<()> {
    let tools = steps.step("tools for the test bed", "about a minute the first time", Tools::gather)?;
    let mut proved = Vec::new();
    steps.step("the chart: lint, snapshots, refusals, numbers", "", || chart_alone(&tools, is_update, &mut proved))?;
    steps.step("the guides' scripts, the Dockerfile, the workflows", "", || {
        scripts(&tools, &mut proved)?;
        lints(&tools, &mut proved)
    })?;
    if tools.has_registry && !tools.helms.is_empty() {
        let registry = Registry::start(&tools)?;
        let version = crate::chart::version()?;
        steps.step("the chart through a registry", "", || registry::round_trip(&tools, &registry, &version))?;
        proved.push("package, push to and pull from an OCI registry, dry-run installation with its notes".to_owned());
        if tools.has_containers {
            pods(steps, &tools, &registry, &mut proved)?;
        }
    }
    proved.extend(Release::of_shipped(target)?.rehearse(steps, &tools)?);
    eprintln!("\nproved");
    proved.iter().for_each(|one| eprintln!("  {one}"));
    tools.missing.iter().for_each(|one| eprintln!("!! NOT PROVED, for want of a tool: {one}"));
    eprintln!("{CLUSTER}");
    Ok(())
}

fn chart_alone(tools: &Tools, is_update: bool, proved: &mut Vec<String>) -> Result<()> {
    crate::chart::check()?;
    if tools.helms.is_empty() {
        return Ok(());
    }
    let helms: Vec<_> = tools.helms.iter().map(|helm| format!("helm {}", helm.major)).collect();
    chart::lint(tools)?;
    let cases = chart::snapshots(tools, is_update)?;
    let refused = chart::refusals(tools)?;
    let numbers = chart::numbers(tools)?;
    proved.push(format!(
        "{}: lint --strict, {cases} snapshots, {refused} wrong values refused in their words",
        helms.join(" and ")
    ));
    proved.push(format!("{numbers} values of the configuration mean the same with and without Helm"));
    if let Some(python) = &tools.validator {
        let objects = schemas::check(tools, python)?;
        proved.push(format!("{objects} objects valid, strictly, for Kubernetes {}", schemas::VERSIONS.join(", ")));
    }
    Ok(())
}

fn scripts(tools: &Tools, proved: &mut Vec<String>) -> Result<()> {
    if !tools.has_shellcheck {
        return Ok(());
    }
    let listed = steps::output(command("git", &["ls-files", "docs/aks/*.sh"]))?;
    let files: Vec<&str> = listed.lines().collect();
    if files.is_empty() {
        return Err("there are no scripts in docs/aks".to_owned());
    }
    let mut check = command("shellcheck", &["--severity=style", "--external-sources", "--source-path=SCRIPTDIR"]);
    check.args(&files);
    steps::output(check)?;
    proved.push(format!("shellcheck: {} scripts of docs/aks", files.len()));
    Ok(())
}

fn lints(tools: &Tools, proved: &mut Vec<String>) -> Result<()> {
    if let Some(hadolint) = &tools.hadolint {
        steps::output(command(&hadolint.display().to_string(), &["--failure-threshold", "style", "Dockerfile"]))?;
        proved.push("hadolint: the Dockerfile".to_owned());
    }
    if let Some(zizmor) = &tools.zizmor {
        let workflows = ["--offline", "--quiet", "--no-progress", ".github/workflows"];
        steps::output(command(&zizmor.display().to_string(), &workflows))?;
        proved.push("zizmor: the workflows have no known weakness".to_owned());
    }
    Ok(())
}

fn pods(steps: &mut Steps, tools: &Tools, registry: &Registry, proved: &mut Vec<String>) -> Result<()> {
    let containers = Containers::new(tools)?;
    let (image, said) = steps.step("the image", "", || image::make(tools, &containers, registry))?;
    proved.extend([said, image::plugins(tools, &containers)?]);
    let helm = tools.helms.first().ok_or("no helm")?;
    let version = crate::chart::version()?;
    let stage = Stage { tools, containers: &containers, helm, chart: registry.chart(), version, image };
    let _plugins = stage.plugins()?;
    steps.step("the pod, upgrades and drains", "about half a minute", || {
        for scenario in [scenarios::as_rendered, change::of_the_config_map, scenarios::upgrade, scenarios::drain] {
            proved.push(scenario(&stage)?);
        }
        Ok(())
    })?;
    steps.step("the pod under its probes", "about two and a half minutes", || {
        let stage = &stage;
        // Side by side: none of them may use more than half a CPU.
        let scenarios: [&(dyn Fn() -> Result<String> + Sync); 4] = [
            &|| scenarios::spinning(stage, SPIN_S),
            &|| scenarios::escalating(stage),
            &|| scenarios::cold_start(stage, SPIN_S),
            &|| scenarios::wedged(stage),
        ];
        let outcomes: Vec<Result<String>> = std::thread::scope(|scope| {
            let running: Vec<_> = scenarios.map(|scenario| scope.spawn(scenario)).into_iter().collect();
            let joined =
                running.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("a scenario panicked".to_owned())));
            joined.collect()
        });
        for outcome in outcomes {
            proved.push(outcome?);
        }
        Ok(())
    })
}
