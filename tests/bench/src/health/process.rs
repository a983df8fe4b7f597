//! Processes that are measured: stopped while another one's turn is on, and gone when the benchmark is, however that ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use windlass_tests::Group;

/// A process that is stopped, save while it is measured. Goes on when this is dropped.
pub(super) struct Held(Pid);

impl Held {
    /// Stops a process, which must outlive this.
    pub(super) fn stop(process: u32) -> Held {
        let held = Held(Pid::from_raw(process.cast_signed()).expect("a child's id is no zero"));
        held.hold();
        held
    }

    /// Stops it again.
    pub(super) fn hold(&self) {
        kill_process(self.0, Signal::STOP).expect("stopping a child");
    }

    /// Lets it go on.
    pub(super) fn go_on(&self) {
        kill_process(self.0, Signal::CONT).expect("letting a child go on");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended by now.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Another shape's process: this same binary in the mode `rival`. Killed when it is dropped, and by the kernel if the benchmark dies.
pub(super) struct Rival {
    child: Child,
    address: String,
}

impl Rival {
    /// Starts it, waits until it says that it listens, and puts it in a group.
    pub(super) fn start(shape: &str, guests: u32, group: Option<&Group>) -> Rival {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["rival", shape, &guests.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut rival = Rival { child, address: String::new() };
        let said = rival.child.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut rival.address).unwrap();
        rival.address.truncate(rival.address.trim_end().len());
        assert!(!rival.address.is_empty(), "{shape} did not start");
        if let Some(group) = group {
            group.set("cgroup.procs", &rival.pid().to_string());
        }
        rival
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
