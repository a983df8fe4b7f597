//! A child that computes as a compiler does, beside lanes that have work, under half a CPU: what it costs to leave it to the kernel's
//! priorities, and to hold it to a duty cycle.

use std::future::Future;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use windlass::lanes::governor::{self, Gauges, Governor, LanePlan, Pacer};
use windlass::lanes::{self, End, Lanes, Meter, Remains, Unobserved, Watcher, cgroup, clock, priority};
use windlass_tests::cgroup::CpuGroup;

use crate::report::{Report, percentile};

const CPUS: f64 = 0.5;
const TIMER: Duration = Duration::from_millis(10);

/// How the child is held back, and what starts it.
const WAYS: [(&str, &[&str]); 3] =
    [("paced", &["nice", "-n", "10"]), ("nice_19", &["nice", "-n", "19"]), ("sched_idle", &["chrt", "-i", "0"])];

/// Adds the figures, where groups are writable.
pub(crate) fn run(report: &mut Report, length: Duration) {
    for (way, _) in WAYS {
        let Some(group) = CpuGroup::limited(CPUS) else { return };
        let mut command = group.command(&std::env::current_exe().unwrap());
        let warm_up = length / 2;
        let child = command
            .args(["quota-child", way, &warm_up.as_millis().to_string(), &length.as_millis().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(warm_up);
        let before = group.counted();
        std::thread::sleep(length);
        let after = group.counted();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let periods = (after.periods - before.periods).max(1);
        report.figure(
            format!("child_{way}_throttled_share"),
            (after.throttled - before.throttled) as f64 / periods as f64,
        );
        for line in text.lines() {
            if let Some((name, value)) = line.split_once(' ') {
                report.figure(format!("child_{way}_{name}"), value.parse().unwrap_or(f64::NAN));
            }
        }
    }
}

/// The process in the group: lanes, a governor, a child, and a timer in the place of health.
pub(crate) fn inside(arguments: &[String]) {
    let [_, way, warm_up_ms, length_ms] = arguments else { return };
    let millis = |text: &str| Duration::from_millis(text.parse().unwrap_or(0));
    let (warm_up, length) = (millis(warm_up_ms), millis(length_ms));
    let nice = priority::Niceness::among_others().unwrap();
    let runtime = lanes::guest_runtime(nice).unwrap();
    let pacer = Pacer::new();
    let options = lanes::Options { lanes: 1, runtime: runtime.handle().clone(), pacer: pacer.clone(), niceness: nice };
    let lanes = Lanes::start(&options, Arc::new(Unobserved)).unwrap();
    let governor = Governor::start(governor::Options {
        roots: cgroup::Roots::default(),
        plan: LanePlan { configured: Some(1), request_milli: None, cores: 1 },
        lanes: lanes.count(),
        pacer,
        gauges: Arc::new(Gauges::default()),
        niceness: nice,
    })
    .unwrap();
    let group = lanes.group(100);
    let task = lanes.spawn(&group, Box::pin(Spins), Arc::new(Nobody), None);
    let Some((_, prefix)) = WAYS.iter().find(|(name, _)| name == way) else { return };
    let child = Compiler::start(prefix);
    let pid = Pid::from_child(&child.0);
    let adopted = (*way == "paced").then(|| governor.adopt(pid));
    std::thread::sleep(warm_up);
    let child_ns = || clock::child_cpu_ns(pid).unwrap_or(0);
    let (began, child_before_ns, lane_before) = (Instant::now(), child_ns(), task.meter().cpu());
    let mut late_ms = Vec::new();
    while began.elapsed() < length {
        let due = Instant::now() + TIMER;
        std::thread::sleep(TIMER);
        late_ms.push(due.elapsed().as_secs_f64() * 1e3);
    }
    let quota_ns = CPUS * began.elapsed().as_nanos() as f64;
    late_ms.sort_by(f64::total_cmp);
    println!("share {}", (child_ns() - child_before_ns) as f64 / quota_ns);
    println!("lane_share {}", (task.meter().cpu() - lane_before).as_nanos() as f64 / quota_ns);
    println!("timer_p99_ms {}", percentile(&late_ms, 0.99));
    drop(adopted);
    task.kill();
}

/// Killed when it is dropped.
struct Compiler(Child);

impl Compiler {
    fn start(prefix: &[&str]) -> Compiler {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).args(["sh", "-c", "while :; do :; done"]);
        Compiler(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // It has computed all the while; there is nothing to lose.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guest that never ends, in slices of 65 µs.
struct Spins;

impl Future for Spins {
    type Output = Remains;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Remains> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(65) {
            std::hint::spin_loop();
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

struct Nobody;

impl Watcher for Nobody {
    fn started(&self, _: &Meter) {}
    fn ended(&self, _: End, _: &Meter) {}
}
