//! Network namespaces, made with `ip`.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use anyhow::{Context, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Bytes of a packet at most.
pub(super) const MTU: u16 = 1500;

/// A network namespace; deleted when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn create(name: &str) -> anyhow::Result<Self> {
        ip(&["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it.
    fn ip(&self, arguments: &[&str]) -> anyhow::Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// Sets a kernel parameter of this namespace, such as `net.ipv4.tcp_congestion_control`.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn set(&self, parameter: &str, value: &str) -> anyhow::Result<()> {
        let path = format!("/proc/sys/{}", parameter.replace('.', "/"));
        let value = value.to_owned();
        self.within(move || std::fs::write(&path, value).with_context(|| path))?
    }

    /// Moves the calling thread into it; sockets that it opens from now on, and threads that it starts, are there.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn enter(&self) -> anyhow::Result<()> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| path)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .context("entering a network namespace")
    }

    /// Runs `action` on a thread of this namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or `action` panics.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| action()));
            thread.join().map_err(|_| anyhow::anyhow!("a thread in {} panicked", self.name))?
        })
    }

    /// A point-to-point TUN device with address `own`, at whose other end is `peer`.
    pub(super) fn open_tun(&self, own: &str, peer: &str) -> anyhow::Result<tun::Device> {
        let mut configuration = tun::Configuration::default();
        configuration.tun_name("sotto0").mtu(MTU);
        let device = self.within(|| tun::create(&configuration))??;
        self.ip(&["addr", "add", own, "peer", peer, "dev", "sotto0"])?;
        self.ip(&["link", "set", "sotto0", "mtu", &MTU.to_string(), "txqueuelen", "1000", "up"])?;
        Ok(device)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("network: {error:#}");
        }
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip (of iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
