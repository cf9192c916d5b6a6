//! Limits on everything a peer can make grow, with where each number comes from.

use std::time::Duration;

/// Model tokens in one body frame. A prefill pass holds at most 256 tokens: longer prompts go in several passes.
pub const MAX_TOKENS_PER_BODY: u32 = 256;

/// Bytes of one incoming gRPC message on the server. The largest honest one is a body frame of 256 tokens: a fused
/// round of a 3B model has 16,384 columns at 5 bytes, 20.9 MB; headers round it up.
pub const MAX_REQUEST_BYTES: usize = 24 << 20;

/// Bytes of one request to the catalogue or of a mask job: keys, lease and wanted ranges.
pub const MAX_UNARY_REQUEST_BYTES: usize = 256 << 10;

/// Bytes of one incoming gRPC message on the client. The largest honest one is a reply to 256 tokens with 32,768 rows
/// at 4 bytes, 33.6 MB.
pub const MAX_REPLY_BYTES: usize = 40 << 20;

/// Bytes of serialized evaluation keys. Key-switch bodies and public key at N = 2048 take 38 KB; twice that leaves
/// room for a later parameter set.
pub const MAX_KEYS_BYTES: usize = 96 << 10;

/// Bytes of a lease; version, identities, counters and signature take 104 bytes.
pub const MAX_LEASE_BYTES: usize = 256;

/// Bytes of a credential: 16 hex digits, a dot and 43 base64 characters.
pub const MAX_CREDENTIAL_BYTES: usize = 96;

/// Mask workers or body replicas that a server may name; each is a machine of its own or nearly so.
pub const MAX_ADDRESSES: usize = 256;

/// Bytes of a name of a model, plan or family that a client takes from a server: a hub id with a file name is below it.
pub const MAX_NAME_BYTES: usize = 256;

/// Bytes of the agent text.
pub const MAX_AGENT_BYTES: usize = 64;

/// Ranges in a resumed mask job. A lost connection leaves one hole per piece at worst.
pub const MAX_WANTED_RANGES: usize = 4096;

/// Bytes of one chunk of the client part; bounds what the server buffers per download.
pub const CLIENT_PART_CHUNK_BYTES: usize = 256 << 10;

/// Bytes of the client part a client accepts: embeddings of a 3B model in f32 plus room.
pub const MAX_CLIENT_PART_BYTES: u64 = 4 << 30;

/// Files of the client part a client accepts; a split writes fewer than ten.
pub const MAX_CLIENT_PART_FILES: u32 = 32;

/// Client parts being sent at once; each holds a thread and a few chunks.
pub const MAX_DOWNLOADS: usize = 32;

/// Open TCP connections, TLS handshakes included.
pub const MAX_CONNECTIONS: usize = 512;

/// Connections whose peer has shown no credential or lease yet. The oldest makes room for a new one, so that strangers can
/// neither hold the places of introduced peers nor keep new ones out.
pub const MAX_STRANGERS: usize = 128;

/// Of them, those of one address (of one /64 in IPv6).
pub const MAX_STRANGERS_PER_ADDRESS: usize = 32;

/// Connections of one address, introduced or not: no one address can take every place.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 384;

/// Calls at once on a connection that has shown no credential or lease: the one that shows it.
pub const STRANGER_CALLS: usize = 1;

/// Bytes that a connection may send before it has shown a credential or lease. The largest honest first call is a mask
/// job: 38 KB of keys with HTTP/2's preface and headers.
pub const STRANGER_BYTES: usize = 64 << 10;

/// How often the blocks of a paid batch are computed at most, all its submissions together. A client that lost its
/// connection names the blocks that it still wants, so eight whole batches cover many losses.
pub const MAX_BATCH_REPEATS: u64 = 8;

/// HTTP/2 streams per introduced connection. A client needs one body stream, a few mask jobs and unary calls.
pub const MAX_STREAMS_PER_CONNECTION: u32 = 32;

/// Body streams per process; each holds at most one frame in flight.
pub const MAX_BODY_STREAMS: usize = 256;

/// Body streams per credential: one per session plus the one that replaces it after a reconnect.
pub const MAX_BODY_STREAMS_PER_CREDENTIAL: usize = 64;

/// Body products that may wait for a core before frames are refused.
pub const MAX_QUEUED_BODIES: usize = 512;

/// Mask jobs waiting or running per process.
pub const MAX_MASK_JOBS: usize = 128;

/// Mask jobs waiting or running per credential.
pub const MAX_MASK_JOBS_PER_CREDENTIAL: usize = 64;

/// Batches that share one pass over the tables; past four the stream no longer bounds the pass.
pub const MAX_BATCHES_PER_PASS: usize = 4;

/// Most rows per scheduling step of the mask half: more make no step cheaper.
pub const MASK_ROWS_PER_STEP: usize = 2048;

/// Fewest rows per step: below, handing out work costs more than it gains.
pub const MIN_MASK_ROWS_PER_STEP: usize = 128;

/// What a step of the mask half should take: a cancelled or urgent job waits for one at most.
pub const MASK_STEP_TIME: Duration = Duration::from_millis(20);

/// Mask blocks per step and message, whatever their rows: 16 KB each, so 2 MB.
pub const MAX_MASK_BLOCKS_PER_PIECE: usize = 128;

/// Bytes of the name of a wire form with its widths.
pub const MAX_FORM_BYTES: usize = 32;

/// Ranges of slots in a frame: every token from another batch at worst.
pub const MAX_SLOT_RANGES: usize = MAX_TOKENS_PER_BODY as usize;

/// Shared masks of a session that a client accepts: 28 bits for each of 2 million rows at tau 256 is 1.8 GB.
pub const MAX_SESSION_BYTES: u64 = 2 << 30;

/// Sessions being computed or sent at once. A request of 100 bytes costs 37 MB of answer for SmolLM2-135M.
pub const MAX_SESSION_DOWNLOADS: usize = 16;

/// The same per credential: one, and the one that replaces it after a reconnect.
pub const MAX_SESSION_DOWNLOADS_PER_CREDENTIAL: usize = 2;

/// Hashes of shared masks that a server remembers, so that a client that comes back is answered without work.
pub const MAX_SESSION_HASHES: usize = 4096;

/// Share of the memory that is free at start that lean batches may take in all: the tables expand into the rest.
pub const KEPT_WORDS_MEMORY_SHARE: u64 = 8;

/// Least memory for lean batches, whatever is free: four batches of SmolLM2-135M.
pub const MIN_KEPT_WORDS_BYTES: u64 = 128 << 20;

/// Share of that memory for one credential, while others want theirs.
pub const KEPT_WORDS_CREDENTIAL_SHARE: u64 = 2;

/// A lean batch that no frame and no job used for this long may be dropped for another one.
pub const KEPT_WORDS_IDLE: Duration = Duration::from_secs(2);

/// A lean batch that was not used for this long is dropped: a client drops slots that it did not use for
/// 15 minutes, so no frame will name them.
pub const KEPT_WORDS_MAX_IDLE: Duration = Duration::from_secs(20 * 60);

/// Finished pieces that may wait for a slow reader before its job is passed over.
pub const MASK_PIECES_BUFFERED: usize = 3;

/// A TLS handshake takes a few milliseconds plus round trips; a peer that needs longer is stalled.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A body stream without frames is closed after this; an interactive session may idle for long, so it is generous
/// and the client reconnects by itself.
pub const BODY_STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A body stream must show a lease within this; before that nobody pays for it.
pub const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// A reader of a download or of masks that takes nothing for this long loses it and may ask again.
pub const STALLED_READER_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection on which nobody showed a credential or a lease that holds is ended after this: a client shows one with
/// its first call.
pub const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(30);

/// HTTP/2 keep-alive pings find dead peers.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Time a peer has to answer a keep-alive ping.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Life of a lease. A revoked credential stops working on separate replicas after this.
pub const LEASE_LIFETIME: Duration = Duration::from_secs(3600);

/// A lease that no stream or job holds, and that nobody came with for this long, is ended where its use is seen: a client
/// that is still there reconnects within seconds and opens another if need be, and one that crashed does not keep its
/// credential waiting for [`LEASE_LIFETIME`].
pub const LEASE_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Difference between the clocks of catalogue and replica that a lease survives.
pub const LEASE_CLOCK_LEEWAY: Duration = Duration::from_secs(60);

/// Body tokens of one lease: what a crash of the server costs a credential at most, and how often the store is synced.
pub const MAX_LEASE_BODY_TOKENS: u64 = 4096;

/// Mask slots of one lease.
pub const MAX_LEASE_MASK_SLOTS: u64 = 4096;

/// Open leases per credential.
pub const MAX_LEASES_PER_CREDENTIAL: usize = 256;

/// Time that running work gets after SIGTERM.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that idle connections get after SIGTERM to notice.
pub const DRAIN_GRACE: Duration = Duration::from_millis(300);

/// HTTP/2 window of one stream: a whole prefill frame must not wait for window updates.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// HTTP/2 window of one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// HTTP/2 frame size: a one-token reply of 16 KB and more fits one frame.
pub const HTTP2_FRAME_BYTES: u32 = 256 << 10;
