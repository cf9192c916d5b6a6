//! Bodies of the fuzz targets in `fuzz/`: what a decoder accepts must encode to the bytes it came from.
//!
//! On the stable toolchain the property tests drive the same functions. Inputs are shaped: a
//! decoder that starts with a length check would otherwise see nothing but wrong lengths. The first byte chooses between the
//! raw input and one that is cut or repeated to the length that the layout asks for.

use fhe_layers::params::sets::n2048_q50_tau;
use fhe_layers::{
    Body, ClientSession, EvaluationKeys, ExpandedKeys, Instance, MaskBlock, MaskWords, MatrixSpec,
    ModelDigest, Params, PreparedModel, Reply, RoundSpec, SessionSeed, TableForm, Widths, WireForm, WordBody,
    WordReply,
};
use std::sync::{Arc, OnceLock};

/// A layer of one block and one row.
fn instance() -> &'static Arc<Instance> {
    static INSTANCE: OnceLock<Arc<Instance>> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let rounds = vec![RoundSpec { d_in: 3, matrices: vec![MatrixSpec { rows: 1, columns: 0..3 }] }];
        let params = n2048_q50_tau(256).expect("a named set");
        Arc::new(Instance::new(params, rounds, ModelDigest([0; 32]), "fuzz").expect("a small layer"))
    })
}

fn params() -> &'static Params {
    instance().params()
}

/// `bytes` over and over, up to `len`; zeros when there are none.
fn repeated(bytes: &[u8], len: usize) -> Vec<u8> {
    if bytes.is_empty() { vec![0; len] } else { bytes.iter().copied().cycle().take(len).collect() }
}

/// The first byte and the rest.
fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(&first, rest)| (first, rest))
}

/// A batch's keys, from a client: raw, or a well-formed header with the input as its words.
pub fn keys(bytes: &[u8]) {
    let (shape, rest) = choice(bytes);
    let input = match shape % 4 {
        0 => rest.to_vec(),
        _ => {
            let id = params().id().as_bytes();
            let mut input = b"SKY1\x02\x00".to_vec();
            input.extend_from_slice(&(id.len() as u16).to_le_bytes());
            input.extend_from_slice(id);
            let len = EvaluationKeys::byte_len(params()) - input.len() + usize::from(shape % 4 == 3);
            input.extend(repeated(rest, len));
            input
        }
    };
    if let Ok(keys) = EvaluationKeys::from_bytes(params(), &input) {
        assert_eq!(keys.to_bytes(params()), input);
        drop(ExpandedKeys::new(instance(), &keys));
    }
}

/// Mask blocks of the full form, from a server.
pub fn masks(bytes: &[u8]) {
    let (shape, rest) = choice(bytes);
    let blocks = usize::from(shape % 4);
    let input =
        if blocks == 0 { rest.to_vec() } else { repeated(rest, blocks * MaskBlock::byte_len(params())) };
    if let Ok(blocks) = MaskBlock::read_all(params(), &input) {
        let mut again = Vec::new();
        blocks.iter().for_each(|block| again.extend_from_slice(&block.bytes()));
        assert_eq!(again, input);
    }
}

/// A body of the full form, from a client; its first byte says how many features are expected.
pub fn body(bytes: &[u8]) {
    let (d_in, rest) = choice(bytes);
    for input in [rest.to_vec(), repeated(rest, 5 * usize::from(d_in))] {
        if let Ok(body) = Body::from_bytes(d_in.into(), &input) {
            assert_eq!(body.to_bytes(), input);
            assert!(body.words().iter().all(|word| word >> 40 == 0));
        }
    }
}

/// A reply of the full form, from a server; its first byte says how many rows are expected.
pub fn reply(bytes: &[u8]) {
    let (rows, rest) = choice(bytes);
    for input in [rest.to_vec(), repeated(rest, 4 * usize::from(rows))] {
        if let Ok(reply) = Reply::from_bytes(rows.into(), &input) {
            assert_eq!(reply.to_bytes(), input);
        }
    }
}

/// Bodies, replies, mask bodies and shared masks of the session forms. The first four bytes choose widths and count.
pub fn session_words(bytes: &[u8]) {
    let Some((&[body, reply, shared, count], rest)) = bytes.split_first_chunk() else { return };
    let widths =
        Widths::new(24 + u32::from(body % 9), 14 + u32::from(reply % 9), 20 + u32::from(shared % 13));
    let (widths, count) = (widths.expect("within the ranges"), usize::from(count));
    let form = WireForm::Stateless(widths);
    for input in [rest.to_vec(), repeated(rest, form.body_bytes(count))] {
        if let Ok(body) = WordBody::from_bytes(widths, count, &input) {
            assert_eq!(body.to_bytes(), input);
            assert!(WordBody::from_words(body.words().to_vec(), widths).is_ok_and(|again| again == body));
        }
    }
    for input in [rest.to_vec(), repeated(rest, form.reply_bytes(count))] {
        if let Ok(reply) = WordReply::from_bytes(widths, count, &input) {
            assert_eq!(reply.to_bytes(), input);
        }
    }
    let blocks = repeated(rest, count % 3 * form.batch_block_bytes(params()));
    for input in [rest.to_vec(), blocks] {
        if let Ok(blocks) = MaskWords::read_all(params(), form, &input) {
            let mut again = Vec::new();
            blocks.iter().for_each(|block| block.write(&mut again));
            assert_eq!(again, input);
        }
    }
    let masks = repeated(rest, ClientSession::mask_bytes(instance(), form));
    let session = ClientSession::from_masks(
        Arc::clone(instance()),
        form,
        SessionSeed::from_bytes([0; 32]),
        masks,
        None,
    );
    assert!(session.is_ok(), "any bytes of the right length are shared masks");
}

/// A wire form as text, from a peer or a command line.
pub fn form(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(form) = text.parse::<WireForm>() {
        assert_eq!(form.to_string().parse(), Ok(form));
    }
}

/// Tables, from a disk.
pub fn saved_tables(bytes: &[u8]) {
    let shared = Arc::new(bytes.to_vec());
    if let Ok(tables) = PreparedModel::load(Arc::clone(instance()), shared, TableForm::Compact) {
        let mut again = Vec::new();
        tables.save_compact(&mut again).expect("a vector takes bytes");
        assert_eq!(again, bytes);
    }
}
