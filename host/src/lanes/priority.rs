//! The operating system's priority of a thread: guests' threads stand back behind everything else of the process.

use anyhow::{Context, Result, ensure};

use super::cgroup;

/// What a thread is for, and so how nice it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Health, scheduler, servers: the niceness that the process was started with.
    Host,
    /// Lanes, guests' blocking calls, compilers, the reaper: nicer.
    Guest,
}

/// How much nicer guests' threads are where others share the CPU with the process by niceness. Measured on two busy cores: health's
/// median was 2.7 ms at equal niceness, 0.2 ms at 10. More would starve jobs beside an ordinary busy process.
const NICER_AMONG_OTHERS: i32 = 10;

/// The nicest that there is: for guests' threads where nobody but the process itself stands to gain. Health's p99 beside lanes that
/// never sleep falls from 0.9 to 0.2 ms: ADR 10.
const NICEST: i32 = 19;

/// How nice the threads of this process are, by role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Niceness {
    host: i32,
    guests: i32,
}

impl Niceness {
    /// The calling thread's for the host, ten more for guests.
    ///
    /// # Errors
    /// If the system does not say how nice the thread is.
    pub fn among_others() -> Result<Niceness> {
        let host = of_this_thread()?;
        Ok(Niceness { host, guests: (host + NICER_AMONG_OTHERS).min(NICEST) })
    }

    /// The same, but guests as nice as can be where the process has its control group to itself, as in a container: niceness counts
    /// within a group only.
    ///
    /// # Errors
    /// As [`Niceness::among_others`].
    pub fn by_surroundings(roots: &cgroup::Roots) -> Result<Niceness> {
        let among_others = Niceness::among_others()?;
        Ok(if cgroup::is_own(roots) { Niceness { guests: NICEST, ..among_others } } else { among_others })
    }

    /// What threads of this role have.
    pub fn of(self, role: Role) -> i32 {
        match role {
            Role::Host => self.host,
            Role::Guest => self.guests,
        }
    }

    /// Makes the calling thread as nice as `role` demands, and makes sure that it is. Threads that it spawns inherit that.
    ///
    /// # Errors
    /// If the system refuses, which it does to no one who asks to be nicer.
    pub fn take(self, role: Role) -> Result<()> {
        let wanted = self.of(role);
        if of_this_thread()? != wanted {
            rustix::process::setpriority_process(None, wanted)
                .with_context(|| format!("setting the thread's niceness to {wanted}"))?;
        }
        self.verify(role)
    }

    /// Fails unless the calling thread is exactly as nice as `role` demands.
    ///
    /// # Errors
    /// As said, or if the system does not say how nice the thread is.
    pub fn verify(self, role: Role) -> Result<()> {
        let (wanted, found) = (self.of(role), of_this_thread()?);
        ensure!(found == wanted, "a thread for {role:?} has niceness {found} where {wanted} was set");
        Ok(())
    }
}

/// The niceness of the thread that calls.
///
/// # Errors
/// If the system does not say.
pub fn of_this_thread() -> Result<i32> {
    rustix::process::getpriority_process(None).context("reading the thread's niceness")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn a_guest_thread_is_nicer_and_its_children_inherit_that() {
        let nice = Niceness::among_others().unwrap();
        let own = of_this_thread().unwrap();
        let child = std::thread::spawn(move || {
            nice.take(Role::Guest).unwrap();
            std::thread::spawn(move || nice.verify(Role::Guest).and(of_this_thread())).join().unwrap().unwrap()
        });
        assert_eq!(child.join().unwrap(), (own + 10).min(19));
        assert!(nice.verify(Role::Host).is_ok());
    }
}
