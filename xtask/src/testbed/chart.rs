//! The chart as text: lint, what a matrix of values renders to, what is refused and in which words, and numbers on their way through Helm.

use std::fs;
use std::path::{Path, PathBuf};

use super::tools::{Helm, Tools};
use crate::steps::{self, command, root};
use crate::{Result, build, chart};

/// The name of the release in everything that is rendered.
pub(super) const RELEASE: &str = "w";

/// The files of values in a folder of tests/chart, in order.
fn files(folder: &str) -> Result<Vec<PathBuf>> {
    let at = root().join("tests/chart").join(folder);
    let entries = fs::read_dir(&at).map_err(|error| format!("{}: {error}", at.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    if files.is_empty() { Err(format!("{} is empty", at.display())) } else { Ok(files) }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Renders the chart; the error is what the user would see.
pub(super) fn render(helm: &Helm, more: &[&str]) -> Result<String> {
    let chart = chart::folder().display().to_string();
    let mut render = helm.command(&["template", RELEASE, &chart, "--namespace", "jobs"]);
    render.args(more);
    steps::output(render)
}

/// `helm lint --strict`, with and without values.
pub(super) fn lint(tools: &Tools) -> Result<()> {
    let chart = chart::folder().display().to_string();
    for helm in &tools.helms {
        steps::output(helm.command(&["lint", "--strict", &chart]))?;
        for case in files("cases")? {
            let case = case.display().to_string();
            steps::output(helm.command(&["lint", "--strict", &chart, "--values", &case]))?;
        }
    }
    Ok(())
}

/// Each case as the helms render it, compared with what was stored. Returns how many.
pub(super) fn snapshots(tools: &Tools, update: bool) -> Result<usize> {
    let cases = files("cases")?;
    for case in &cases {
        let stored = root().join("tests/chart/snapshots").join(format!("{}.yaml", stem(case)));
        for helm in &tools.helms {
            let rendered = plain(&render(helm, &["--values", &case.display().to_string()])?);
            if update && helm.major == 4 {
                fs::write(&stored, &rendered).map_err(|error| format!("{}: {error}", stored.display()))?;
            }
            if read(&stored)? != rendered {
                let fresh = tools.folder.join(format!("{}-helm{}.yaml", stem(case), helm.major));
                fs::write(&fresh, &rendered).map_err(|error| format!("{}: {error}", fresh.display()))?;
                let (stored, fresh) = (stored.display().to_string(), fresh.display().to_string());
                // It is the difference that is wanted, and diff fails when there is one.
                let difference = steps::output(command("diff", &["-u", &stored, &fresh])).unwrap_or_else(|why| why);
                return Err(format!("helm {}: {difference}\nas wanted? cargo xtask testbed --update", helm.major));
            }
        }
    }
    Ok(cases.len())
}

/// Without the blank lines in which Helm 3 and 4 differ.
fn plain(rendered: &str) -> String {
    let lines: Vec<_> = rendered.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join("\n") + "\n"
}

/// Each wrong value is refused in the words that its file says: `# helm: …`, or `# helm 3: …` and `# helm 4: …`. Returns how many.
pub(super) fn refusals(tools: &Tools) -> Result<usize> {
    let cases = files("refused")?;
    for case in &cases {
        let text = read(case)?;
        for helm in &tools.helms {
            let marks = [format!("# helm {}: ", helm.major), "# helm: ".to_owned()];
            let wanted = text.lines().find_map(|line| marks.iter().find_map(|mark| line.strip_prefix(mark.as_str())));
            let wanted = wanted.ok_or_else(|| format!("{} has no `{}`", case.display(), marks[0]))?;
            match render(helm, &["--values", &case.display().to_string()]) {
                Ok(_) => return Err(format!("helm {} takes {}", helm.major, case.display())),
                Err(said) if said.contains(wanted) => {}
                Err(said) => {
                    return Err(format!(
                        "{}: helm {} should say `{wanted}`, and says\n{said}",
                        case.display(),
                        helm.major
                    ));
                }
            }
        }
    }
    Ok(cases.len())
}

/// windlass.yaml out of a rendered ConfigMap.
pub(super) fn configuration(rendered: &str) -> Result<String> {
    let block = rendered.split("\n  windlass.yaml: |\n").nth(1).ok_or("the ConfigMap has no windlass.yaml")?;
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    Ok(lines.map(|line| line.get(4..).unwrap_or_default()).collect::<Vec<_>>().join("\n") + "\n")
}

/// Every number of the configuration comes to the same through Helm as it does without: `windlass check` says so of both.
pub(super) fn numbers(tools: &Tools) -> Result<usize> {
    let values = root().join("tests/chart/numbers.yaml");
    let direct = read(&values)?;
    // What stands under `config` in the values stands at the top of windlass.yaml; the chart adds three keys of its own.
    let mut plain = String::from("pluginsDir: /plugins\ndataDir: /data\n");
    let mut is_config = false;
    for line in direct.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            is_config = line.starts_with("config:");
        }
        match line.strip_prefix("  ") {
            Some(rest) if is_config => plain.push_str(rest),
            _ if is_config => continue,
            _ => plain.push_str(line),
        }
        plain.push('\n');
    }
    let wanted = checked(tools, "numbers-direct.yaml", &plain)?;
    for helm in &tools.helms {
        let through = render(helm, &["--values", &values.display().to_string(), "--set", "resources.limits=null"])?;
        let name = format!("numbers-helm{}.yaml", helm.major);
        let got = checked(tools, &name, &configuration(&through)?)?;
        if got != wanted {
            return Err(format!("through helm {}:\n{got}\nwithout:\n{wanted}", helm.major));
        }
    }
    Ok(wanted.lines().filter(|line| line.contains("(entry)") || line.contains("(defaults)")).count())
}

/// What `windlass check` prints of a configuration, without the problem that no plugin is on this machine.
fn checked(tools: &Tools, name: &str, text: &str) -> Result<String> {
    let file = tools.folder.join(name);
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    let host = build::host_binary().display().to_string();
    let output = command(&host, &["check", "--config", &file.display().to_string()]).output();
    let output = output.map_err(|error| format!("{host}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_known = |line: &str| line.contains("cannot be read");
    if let Some(problem) = said.lines().find(|line| line.contains("problem:") && !is_known(line)) {
        return Err(format!("{}: {problem}", file.display()));
    }
    if !said.contains("\nlargest\n") {
        return Err(format!("{}: {said}{}", file.display(), String::from_utf8_lossy(&output.stderr)));
    }
    Ok(said.lines().filter(|line| !is_known(line)).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn the_configuration_is_cut_out_of_a_config_map() {
        let rendered =
            "kind: ConfigMap\ndata:\n  windlass.yaml: |\n    a: 1\n    b:\n      c: 2\n---\nkind: Deployment\n";
        assert_eq!(configuration(rendered).unwrap(), "a: 1\nb:\n  c: 2\n");
        assert!(configuration("kind: Pod").is_err());
    }

    #[test]
    fn blank_lines_do_not_count() {
        assert_eq!(plain("a: 1\n\n---  \nb: 2"), "a: 1\n---\nb: 2\n");
    }
}
