//! A TCP proxy: passes bytes on, keeps a copy, cuts or stalls when told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// The proxy; ends when dropped.
pub(crate) struct Link {
    /// Where clients connect.
    pub(crate) address: String,
    state: Arc<State>,
    runtime: Option<Runtime>,
}

struct State {
    target: Mutex<String>,
    /// Raised by one to cut every connection.
    epoch: watch::Sender<u64>,
    /// While true nothing passes, and nothing is closed either.
    stalled: watch::Sender<bool>,
    /// Copy of all bytes, if wanted.
    record: AtomicBool,
    recorded: Mutex<Vec<u8>>,
    /// Pause before each chunk from the server.
    pause: Mutex<Duration>,
    connections: AtomicUsize,
}

impl Link {
    /// A proxy in front of `target`.
    pub(crate) fn start(target: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(State {
            target: Mutex::new(target.to_owned()),
            epoch: watch::Sender::new(0),
            stalled: watch::Sender::new(false),
            record: AtomicBool::new(false),
            recorded: Mutex::default(),
            pause: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let listener = runtime.block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(Arc::clone(&accepting), stream));
            }
        });
        Self { address, state, runtime: Some(runtime) }
    }

    /// New connections go to `target`.
    pub(crate) fn retarget(&self, target: &str) {
        target.clone_into(&mut self.state.target.lock().unwrap());
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.state.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// A handle that cuts from elsewhere.
    pub(crate) fn cutter(&self) -> impl Fn() + Send + Sync + Clone + use<> {
        let state = Arc::clone(&self.state);
        move || state.epoch.send_modify(|epoch| *epoch += 1)
    }

    /// A handle that stops the flow for good: nothing passes, nothing is closed.
    pub(crate) fn staller(&self) -> impl Fn() + Send + use<> {
        let state = Arc::clone(&self.state);
        move || state.stalled.send_modify(|stalled| *stalled = true)
    }

    /// Waits this long before each chunk from the server.
    pub(crate) fn slow(&self, pause: Duration) {
        *self.state.pause.lock().unwrap() = pause;
    }

    /// Keeps a copy of everything from now on.
    pub(crate) fn record(&self) {
        self.state.record.store(true, Ordering::Relaxed);
    }

    /// The copy.
    pub(crate) fn recorded(&self) -> Vec<u8> {
        self.state.recorded.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn pass(state: Arc<State>, client: TcpStream) {
    state.connections.fetch_add(1, Ordering::Relaxed);
    let mut epoch = state.epoch.subscribe();
    epoch.mark_unchanged();
    let target = state.target.lock().unwrap().clone();
    let Ok(server) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(&state, from_client, to_server, false) => {}
        () = pump(&state, from_server, to_client, true) => {}
        _ = epoch.changed() => {}
    }
}

async fn pump(
    state: &State,
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    slow: bool,
) {
    let mut buffer = vec![0; CHUNK];
    let mut stalled = state.stalled.subscribe();
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if state.record.load(Ordering::Relaxed) {
            state.recorded.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
        if stalled.wait_for(|stalled| !*stalled).await.is_err() {
            return;
        }
        let pause = *state.pause.lock().unwrap();
        if slow && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
