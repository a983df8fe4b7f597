//! The operating system's priority of a thread: guests' threads stand back behind everything else of the process.

use anyhow::{Context, Result, ensure};

/// What a thread is for, and so how nice it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Health, scheduler, servers: the niceness that the process was started with.
    Host,
    /// Lanes, guests' blocking calls, compilers, the reaper: nicer by ten.
    Guest,
}

/// How much nicer guests' threads are. Measured on two busy cores: health's median was 2.7 ms at equal niceness, 0.2 ms at 10. More
/// shortens the tail and starves jobs outside of a container: ADR 10.
const GUEST_NICER_BY: i32 = 10;

/// The niceness of the thread that calls; inherited by the threads it spawns.
pub fn niceness() -> Result<i32> {
    rustix::process::getpriority_process(None).context("reading the thread's niceness")
}

/// Makes the calling thread as nice as `role` demands, given the process's own niceness, and makes sure that it is.
///
/// # Errors
/// If the system refuses, which it does to no one who asks to be nicer.
pub fn take(role: Role, process_niceness: i32) -> Result<()> {
    let wanted = expected(role, process_niceness);
    if niceness()? != wanted {
        rustix::process::setpriority_process(None, wanted)
            .with_context(|| format!("setting the thread's niceness to {wanted}"))?;
    }
    verify(role, process_niceness)
}

/// Fails unless the calling thread is exactly as nice as `role` demands.
pub fn verify(role: Role, process_niceness: i32) -> Result<()> {
    let (wanted, found) = (expected(role, process_niceness), niceness()?);
    ensure!(found == wanted, "a thread for {role:?} has niceness {found} where {wanted} was set");
    Ok(())
}

/// The niceness that `role` demands, given the process's own.
pub fn expected(role: Role, process_niceness: i32) -> i32 {
    match role {
        Role::Host => process_niceness,
        Role::Guest => (process_niceness + GUEST_NICER_BY).min(19),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn a_guest_thread_is_nicer_and_its_children_inherit_that() {
        let own = niceness().unwrap();
        let child = std::thread::spawn(move || {
            take(Role::Guest, own).unwrap();
            std::thread::spawn(move || verify(Role::Guest, own).and(niceness())).join().unwrap().unwrap()
        });
        assert_eq!(child.join().unwrap(), (own + GUEST_NICER_BY).min(19));
        assert!(verify(Role::Host, own).is_ok());
    }
}
