//! Real copies of the process: a fork, and a clone into another PID namespace that has the same process id.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "fork, unshare and wait have no safe form")]

mod layer_support;

use fhe_layers::kernels::Isa;
use fhe_layers::*;
use layer_support::Model;

/// Exit code of a child that could not make a namespace.
const NO_NAMESPACE: i32 = 77;

/// Runs `child` in a fork and returns its exit code.
fn in_a_fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls what `child` calls, which takes no lock that another thread may hold, and _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let code = child();
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid);
    assert!(libc::WIFEXITED(status), "the child ended with status {status:#x}");
    libc::WEXITSTATUS(status)
}

#[test]
fn a_fork_encrypts_nothing() {
    let model = Model::new(64, Isa::detect(), vec![(5, vec![(3, 0..5)])], 127);
    let tables = model.prepare(TableForm::Compact);
    let (mut slots, _) = model.session_slots(&tables, WireForm::lean(model.instance.params()));
    let mut rng = NoiseRng::from_os().unwrap();
    let mut slot = slots.remove(0);
    let guard = ForkGuard::new().unwrap();
    let code = in_a_fork(|| {
        let held = guard.holds();
        let refused = matches!(slot.encrypt_words(0, &[1.0; 5], 300.0, &mut rng), Err(Error::Forked));
        // The child can make a new guard.
        let fresh = ForkGuard::new().is_ok_and(|guard| guard.holds());
        i32::from(held) | i32::from(!refused) << 1 | i32::from(!fresh) << 2
    });
    assert_eq!(code, 0, "bits: guard held, slot encrypted, no new guard");
    assert!(guard.holds(), "the parent continues");
    assert!(slot.encrypt_words(0, &[1.0; 5], 300.0, &mut rng).is_ok());
}

/// Enters a new PID namespace for the children of this process, which must have one thread.
fn leave_pid_namespace() -> bool {
    // SAFETY: changes which namespace the next children are in; memory is untouched.
    let alone = unsafe { libc::unshare(libc::CLONE_NEWPID) };
    // SAFETY: as above; an unprivileged process needs a user namespace as well.
    alone == 0 || unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) } == 0
}

#[test]
fn a_clone_with_the_same_process_id_is_noticed() {
    // The page of this process must exist before it is inherited.
    assert!(ForkGuard::new().unwrap().holds());
    let code = in_a_fork(|| {
        if !leave_pid_namespace() {
            return NO_NAMESPACE;
        }
        // Process 1 of its namespace, with a guard.
        in_a_fork(|| {
            let Ok(guard) = ForkGuard::new() else { return 1 };
            if std::process::id() != 1 || !guard.holds() {
                return 2;
            }
            if !leave_pid_namespace() {
                return NO_NAMESPACE;
            }
            // Process 1 of another: the ids are equal, only the wiped page tells.
            in_a_fork(|| match (std::process::id(), guard.holds()) {
                (1, false) => 0,
                (1, true) => 3,
                _ => 4,
            })
        })
    });
    if code == NO_NAMESPACE {
        eprintln!("skipped: this system allows no PID namespaces");
        return;
    }
    assert_eq!(code, 0);
}
