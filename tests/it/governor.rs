//! The CPU limit: kept without the kernel's help, followed while the host runs, and of no cost where there is none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use windlass_tests::cgroup::CpuGroup;
use windlass_tests::{Group, Host, Launch, PATIENCE, Scene, binary};

const SPINNERS: &str = "plugins:\n  a: { source: file:spins.wasm, continuous: true }\n  b: { source: file:spins.wasm, continuous: true }\n  c: { source: file:spins.wasm, continuous: true }\n";

/// The value of a metric without labels.
fn metric(host: &Host, name: &str) -> Option<f64> {
    let (_, text) = host.get("/metrics");
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn wait_for_metric(host: &Host, name: &str, wanted: Option<f64>) {
    let until = Instant::now() + PATIENCE;
    while metric(host, name) != wanted {
        assert!(Instant::now() < until, "{name} is {:?} and not {wanted:?}", metric(host, name));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every set of cores that one of the host's threads may use; health may use any.
fn cores(host: &Host) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    threads
        .filter_map(|thread| {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).ok()?;
            if status.starts_with("Name:\thealth\n") {
                return None;
            }
            Some(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned())
        })
        .collect()
}

/// The niceness of the host's threads of this name.
fn niceness(host: &Host, name: &str) -> BTreeSet<i32> {
    let threads = fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    threads
        .filter_map(|thread| {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat")).ok()?;
            let (head, tail) = stat.rsplit_once(") ")?;
            // The 19th field, of which the third is the first behind the name.
            head.ends_with(&format!("({name}")).then(|| tail.split(' ').nth(16)?.parse().ok())?
        })
        .collect()
}

/// A folder that looks like version 2 of the control groups, with this limit.
fn fixture(scene: &Scene, cpu_max: &str) -> [String; 2] {
    fs::write(scene.path().join("cpu.max"), cpu_max).unwrap();
    fs::write(scene.path().join("membership"), "0::/\n").unwrap();
    let argument = |name: &str, file: &str| format!("--{name}={}", scene.path().join(file).display());
    [argument("cgroup-root", ""), argument("cgroup-membership", "membership")]
}

fn run_in(scene: Scene, yaml: &str, more: &[String]) -> Host {
    let config = scene.configure(yaml).display().to_string();
    let mut arguments = vec!["run".to_owned(), "--config".to_owned(), config];
    arguments.extend_from_slice(more);
    Host::start(scene, &arguments)
}

#[test]
fn guests_stand_back_as_far_as_they_can_where_nobody_else_is_in_the_control_group() {
    let Some(group) = Group::new("cpu") else { return };
    let alone = Launch { groups: &[&group], ..Launch::default() };
    for (launch, behind) in [(&alone, 19), (&Launch::default(), 10)] {
        let host = Scene::new().guest("spins").launch(SPINNERS, launch);
        let own = niceness(&host, "health");
        let all: Vec<i32> = own.iter().copied().collect();
        let [of_health] = all[..] else { panic!("{own:?}") };
        assert_eq!(niceness(&host, "scheduler"), own);
        for name in ["lane-0", "guest-io", "reaper", "loader-0"] {
            assert_eq!(niceness(&host, name), [(of_health + behind).min(19)].into(), "{name}");
        }
    }
}

#[test]
fn under_half_a_cpu_the_kernel_hardly_ever_throttles_and_health_answers() {
    let Some(group) = CpuGroup::limited(0.5) else { return };
    let scene = Scene::new().guest("spins");
    let config = scene.configure(SPINNERS).display().to_string();
    let arguments = ["run".to_owned(), "--config".to_owned(), config];
    let host = Host::start_as(group.command(&binary()), scene, &arguments, &[]);
    host.wait_until_ready();
    assert_eq!(metric(&host, "windlass_cpu_limit_cores"), Some(0.5));
    assert_eq!(metric(&host, "windlass_lanes"), Some(1.0));
    // It finds its share meanwhile.
    std::thread::sleep(Duration::from_secs(3));
    let before = group.counted();
    let until = Instant::now() + Duration::from_secs(4);
    let mut slowest = Duration::ZERO;
    while Instant::now() < until {
        let began = Instant::now();
        assert_eq!(host.get("/health/live").0, 200);
        slowest = slowest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = group.counted();
    let (periods, throttled) = (after.periods - before.periods, after.throttled - before.throttled);
    // Unpaced it is every one of them. What others do to a busy machine is allowed for.
    assert!(periods >= 30 && throttled * 10 <= periods, "{throttled} of {periods} periods throttled");
    assert!(slowest < Duration::from_secs(1), "a probe took {slowest:?}");
    let told = metric(&host, "windlass_cpu_periods_total").unwrap();
    assert!(told > 0.0 && told <= group.counted().periods as f64);
    assert!(metric(&host, "windlass_paced_seconds_total").is_some());
    let share = metric(&host, "windlass_cpu_share").unwrap();
    assert!((0.5..=0.92).contains(&share), "{share}");
}

#[test]
fn a_limit_that_changes_or_goes_is_followed() {
    let Some(group) = CpuGroup::limited(1.5) else { return };
    let scene = Scene::new().guest("spins");
    let yaml = format!("limits: {{ lanes: 2 }}\n{SPINNERS}");
    let config = scene.configure(&yaml).display().to_string();
    let arguments = ["run".to_owned(), "--config".to_owned(), config];
    let mut host = Host::start_as(group.command(&binary()), scene, &arguments, &[]);
    host.wait_until_ready();
    assert_eq!(metric(&host, "windlass_lanes"), Some(2.0));
    let all = cores(&host);
    assert_eq!(all.len(), 1, "{all:?}");

    group.limit(Some(0.5));
    wait_for_metric(&host, "windlass_lanes", Some(1.0));
    wait_for_metric(&host, "windlass_cpu_limit_cores", Some(0.5));
    let few = cores(&host);
    assert_eq!(few.len(), 1, "every thread is held to the same: {few:?}");
    let is_alone = std::thread::available_parallelism().unwrap().get() == 1;
    assert!(is_alone || few != all, "one core is enough for half a CPU: {few:?}");

    group.limit(None);
    wait_for_metric(&host, "windlass_lanes", Some(2.0));
    wait_for_metric(&host, "windlass_cpu_limit_cores", None);
    assert_eq!(cores(&host), all, "all cores are back");
    let line = host.wait_for_line(|line| line["message"].as_str().is_some_and(|text| text.contains("limit is gone")));
    assert_eq!(line["lanes"], 2);
    assert_eq!(host.get("/health/live").0, 200, "a parked lane is not stuck");
}

#[test]
fn without_a_limit_nothing_is_paced_and_one_that_appears_is_followed() {
    let scene = Scene::new().guest("spins");
    let folder = scene.path().to_owned();
    let groups = fixture(&scene, "max 100000\n");
    let mut host = run_in(scene, SPINNERS, &groups);
    host.wait_until_ready();
    let (_, text) = host.get("/metrics");
    assert!(!text.contains("windlass_cpu_") && !text.contains("windlass_paced"), "no pacing, and no word of it");
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    assert_eq!(metric(&host, "windlass_lanes"), Some(cores));

    fs::write(folder.join("cpu.stat"), "nr_periods 40\nnr_throttled 3\nthrottled_usec 5000\n").unwrap();
    fs::write(folder.join("cpu.max"), "30000 100000\n").unwrap();
    wait_for_metric(&host, "windlass_cpu_limit_cores", Some(0.3));
    wait_for_metric(&host, "windlass_lanes", Some(1.0));
    wait_for_metric(&host, "windlass_cpu_periods_total", Some(40.0));
    wait_for_metric(&host, "windlass_cpu_throttled_periods_total", Some(3.0));
    wait_for_metric(&host, "windlass_cpu_throttled_seconds_total", Some(0.005));
    let used = |host: &Host| metric(host, "process_cpu_seconds_total").unwrap();
    let (began, before) = (Instant::now(), used(&host));
    std::thread::sleep(Duration::from_secs(3));
    let cpus = (used(&host) - before) / began.elapsed().as_secs_f64();
    // Three guests that never end would use every core; a busy machine may give less than the limit.
    assert!(cpus < 0.33, "{cpus} CPUs used where 0.3 are allowed");
    host.wait_for_line(|line| line["message"] == "pacing under the CPU limit" && line["cpu_limit"] == 0.3);
}

#[test]
fn a_killed_run_does_not_wait_for_a_paced_lane() {
    let scene = Scene::new().guest("spins");
    // A hundredth of a CPU: the lane sleeps for a tenth of a second between two slices, and 50 wait for it.
    let groups = fixture(&scene, "1000 100000\n");
    let mut yaml = String::from("plugins:\n");
    for number in 0..50 {
        yaml += &format!(
            "  p{number}: {{ source: file:spins.wasm, activeDeadlineSeconds: 2, once: true, backoffLimit: 0 }}\n"
        );
    }
    let host = run_in(scene, &yaml, &groups);
    let run = host.wait_for_run("p0");
    assert!(run["outcome"].as_str().unwrap_or_default().starts_with("DeadlineExceeded"), "{run:#}");
    // From its first slice to its end, at the deadline of two seconds.
    let waited_s = run["waitedForLaneSeconds"].as_f64().unwrap();
    assert!((1.0..3.0).contains(&waited_s), "{run:#}");
}

#[test]
fn the_cpu_request_counts_where_there_is_no_limit_and_a_bad_one_is_a_usage_error() {
    let scene = Scene::new();
    let groups = fixture(&scene, "max 100000\n");
    let config = scene.configure("plugins: {}\n").display().to_string();
    let check = |request: &str, groups: &[String]| {
        let output = std::process::Command::new(binary())
            .args(["check", "--config", &config])
            .args(groups)
            .env("WINDLASS_CPU_REQUEST", request)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let value =
        |text: &str, key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap().trim().to_owned();
    let (code, text, _) = check("250m", &groups);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!((value(&text, "limits.lanes").as_str(), value(&text, "CPU limit").as_str()), ("1", "none"));
    let (code, _, said) = check("half", &groups);
    assert_eq!(code, Some(2));
    assert!(said.contains("WINDLASS_CPU_REQUEST") && said.contains("250m"), "{said}");
    fs::write(Path::new(scene.path()).join("cpu.max"), "25000 100000\n").unwrap();
    let (_, text, _) = check("", &groups);
    assert_eq!((value(&text, "limits.lanes").as_str(), value(&text, "CPU limit").as_str()), ("1", "0.25 CPUs"));
}
