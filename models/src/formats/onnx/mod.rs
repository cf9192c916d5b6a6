//! ONNX files whose weights are 4-bit `MatMulNBits` matrices and 8-bit embedding tables, read without an ONNX
//! runtime.
//!
//! Only weights are taken from the graph; the architecture comes from `config.json`. Three kinds of tensor are
//! found:
//!
//! * f32 initializers (biases, norms), under their own name;
//! * `com.microsoft.MatMulNBits` matrices, under the name of the *node* (`/bert/x/y/MatMul_Q4` is `bert.x.y.weight`),
//!   as the initializers' numbers say nothing: `W[n][k] = (code - 8) * scale[n][k / 32]`, `[out, in]`, the low nibble
//!   of a byte first; scales may be negative;
//! * embedding tables under a `DequantizeLinear` with one scale and zero point, which follows the `Gather`:
//!   `E[i][k] = (code - zero_point) * scale`.

pub(crate) mod schema;

use self::schema::{DataType, GraphProto, ModelProto, NodeProto, TensorProto};
use super::WeightSource;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Bytes of an ONNX file: a protobuf message cannot be longer.
const MAX_FILE_BYTES: u64 = (1 << 31) - 1;
/// Weights per scale of a `MatMulNBits` matrix, the only block size in use.
const BLOCK: usize = 32;
/// The code that stands for 0 where no zero points are given (ONNX Runtime's `MatMulNBits`).
const IMPLICIT_ZERO: i32 = 8;

/// Weights of an ONNX file, dequantized on request.
pub struct OnnxFile {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

/// A tensor as the file holds it. Lengths are checked against the shape when it is built.
enum Stored {
    Float { shape: Vec<usize>, bytes: Vec<u8> },
    Nibbles { rows: usize, columns: usize, codes: Vec<u8>, scales: Vec<f32> },
    Affine { shape: Vec<usize>, codes: Vec<u8>, scale: f32, zero: i32 },
}

impl OnnxFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is too large, or is not an ONNX model with the kinds of weights named above.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let length = std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
        if length > MAX_FILE_BYTES {
            return Err(Error::Limit { what: "bytes of an ONNX file", got: length, limit: MAX_FILE_BYTES });
        }
        let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        Self::from_bytes(path, &bytes)
    }

    /// Parses a file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self> {
        let path = path.into();
        let model =
            ModelProto::decode(bytes).map_err(|source| Error::malformed_by(&path, "protobuf", source))?;
        let graph = model.graph.ok_or_else(|| Error::malformed(&path, "graph", "missing"))?;
        let tensors = Reader::new(&path, graph)?.read()?;
        Ok(Self { path, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl WeightSource for OnnxFile {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|stored| match stored {
            Stored::Float { shape, .. } | Stored::Affine { shape, .. } => shape.clone(),
            Stored::Nibbles { rows, columns, .. } => vec![*rows, *columns],
        })
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        let stored = self.tensors.get(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        let (values, shape) = match stored {
            Stored::Float { shape, bytes } => (floats(bytes), shape.clone()),
            Stored::Nibbles { rows, columns, codes, scales } => {
                (dequantize_nibbles(codes, scales), vec![*rows, *columns])
            }
            Stored::Affine { shape, codes, scale, zero } => {
                let values = codes.iter().map(|&code| (i32::from(code) - zero) as f32 * scale).collect();
                (values, shape.clone())
            }
        };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

/// `codes`: 16 bytes per block; `scales`: one per block. Returns 32 weights per block.
fn dequantize_nibbles(codes: &[u8], scales: &[f32]) -> Vec<f32> {
    let mut values = Vec::with_capacity(codes.len() * 2);
    for (block, &scale) in codes.chunks_exact(BLOCK / 2).zip(scales) {
        for &byte in block {
            for code in [byte & 0x0f, byte >> 4] {
                values.push((i32::from(code) - IMPLICIT_ZERO) as f32 * scale);
            }
        }
    }
    values
}

/// Little-endian f32 values; the length is a multiple of 4.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

/// Collects a graph's weights, taking each initializer out of the map when it is used.
struct Reader<'a> {
    path: &'a Path,
    nodes: Vec<NodeProto>,
    initializers: HashMap<String, TensorProto>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, graph: GraphProto) -> Result<Self> {
        let mut initializers = HashMap::with_capacity(graph.initializer.len());
        for tensor in graph.initializer {
            if tensor.data_location != 0 {
                return Err(Error::malformed(path, tensor.name, "external data is not supported"));
            }
            if let Some(twice) = initializers.insert(tensor.name.clone(), tensor) {
                return Err(Error::malformed(path, twice.name, "occurs twice"));
            }
        }
        Ok(Self { path, nodes: graph.node, initializers })
    }

    fn read(mut self) -> Result<BTreeMap<String, Stored>> {
        let mut tensors = BTreeMap::new();
        let nodes = std::mem::take(&mut self.nodes);
        let gathered: HashMap<&str, &str> = nodes
            .iter()
            .filter(|node| node.op_type == "Gather" && !node.input.is_empty() && !node.output.is_empty())
            .map(|node| (node.output[0].as_str(), node.input[0].as_str()))
            .collect();
        for node in &nodes {
            let (name, stored) = match node.op_type.as_str() {
                "MatMulNBits" => self.matrix(node)?,
                "DequantizeLinear" => self.table(node, &gathered)?,
                _ => continue,
            };
            if tensors.insert(name.clone(), stored).is_some() {
                return Err(self.malformed(&name, "two nodes give this tensor"));
            }
        }
        for (name, tensor) in std::mem::take(&mut self.initializers) {
            if DataType::of(&tensor) == Some(DataType::Float) {
                let shape = self.checked_shape(&tensor, size_of::<f32>())?;
                tensors.insert(name, Stored::Float { shape, bytes: tensor.raw_data });
            }
        }
        Ok(tensors)
    }

    fn matrix(&mut self, node: &NodeProto) -> Result<(String, Stored)> {
        let name = matrix_name(&node.name);
        if node.input.len() != 3 {
            return Err(self.malformed(&name, format!("expected 3 inputs, got {}", node.input.len())));
        }
        let attribute = |wanted: &str| {
            node.attribute.iter().find(|attribute| attribute.name == wanted).map(|attribute| attribute.i)
        };
        if attribute("bits") != Some(4) || attribute("block_size") != Some(BLOCK as i64) {
            return Err(self.malformed(&name, "expected 4 bits in blocks of 32"));
        }
        let size = |wanted: &'static str| {
            attribute(wanted)
                .and_then(|value| usize::try_from(value).ok())
                .filter(|&value| value > 0 && value <= crate::limits::MAX_VOCABULARY)
                .ok_or_else(|| {
                    Error::malformed(self.path, &name, format!("{wanted} is missing or out of range"))
                })
        };
        let (rows, columns) = (size("N")?, size("K")?);
        if columns % BLOCK != 0 {
            return Err(self.malformed(&name, "K is not a multiple of 32"));
        }
        let blocks = rows * (columns / BLOCK);
        let codes = self.take(&node.input[1], DataType::Uint8)?.raw_data;
        let scales = floats(&self.take(&node.input[2], DataType::Float)?.raw_data);
        if codes.len() != blocks * BLOCK / 2 || scales.len() != blocks {
            return Err(self.malformed(
                &name,
                format!("{} bytes of codes and {} scales for {blocks} blocks", codes.len(), scales.len()),
            ));
        }
        Ok((format!("{name}.weight"), Stored::Nibbles { rows, columns, codes, scales }))
    }

    fn table(&mut self, node: &NodeProto, gathered: &HashMap<&str, &str>) -> Result<(String, Stored)> {
        let [codes, scale, zero] = node.input.as_slice() else {
            return Err(self.malformed(&node.name, format!("expected 3 inputs, got {}", node.input.len())));
        };
        let codes = gathered.get(codes.as_str()).copied().unwrap_or(codes);
        let name = codes.strip_suffix("_quantized").unwrap_or(codes).to_owned();
        let codes = self.take(codes, DataType::Uint8)?;
        let shape = self.checked_shape(&codes, 1)?;
        let scale = self.take(scale, DataType::Float)?;
        let zero = self.take(zero, DataType::Uint8)?;
        // Scalars are in the typed fields, not in the raw bytes; other exporters do the opposite.
        let scale = match (scale.float_data.as_slice(), floats(&scale.raw_data).as_slice()) {
            (&[value], []) | ([], &[value]) if value.is_finite() => value,
            _ => return Err(self.malformed(&name, "the scale is not one finite number")),
        };
        let zero = match (zero.int32_data.as_slice(), zero.raw_data.as_slice()) {
            (&[value], []) if (0..=255).contains(&value) => value,
            ([], &[value]) => i32::from(value),
            _ => return Err(self.malformed(&name, "the zero point is not one byte")),
        };
        Ok((name, Stored::Affine { shape, codes: codes.raw_data, scale, zero }))
    }

    /// Takes an initializer of the given type, whose raw data is whole elements.
    fn take(&mut self, name: &str, expected: DataType) -> Result<TensorProto> {
        let tensor =
            self.initializers.remove(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        if DataType::of(&tensor) != Some(expected) || tensor.raw_data.len() % expected.size() != 0 {
            return Err(self.malformed(name, format!("expected {expected:?} data")));
        }
        Ok(tensor)
    }

    /// The shape of a tensor with raw data, checked against its length.
    fn checked_shape(&self, tensor: &TensorProto, element: usize) -> Result<Vec<usize>> {
        let mut shape = Vec::with_capacity(tensor.dims.len().min(8));
        let mut bytes = element;
        for &dim in &tensor.dims {
            let dim = usize::try_from(dim).map_err(|_| self.malformed(&tensor.name, "negative dimension"))?;
            bytes = bytes
                .checked_mul(dim)
                .ok_or_else(|| self.malformed(&tensor.name, "shape exceeds the address space"))?;
            shape.push(dim);
        }
        if bytes != tensor.raw_data.len() {
            return Err(self.malformed(
                &tensor.name,
                format!("shape {shape:?} needs {bytes} bytes, got {}", tensor.raw_data.len()),
            ));
        }
        Ok(shape)
    }

    fn malformed(&self, field: &str, reason: impl std::fmt::Display) -> Error {
        Error::malformed(self.path, field, reason)
    }
}

/// `/bert/encoder/layer.0/output/dense/MatMul_Q4` to `bert.encoder.layer.0.output.dense`.
fn matrix_name(node: &str) -> String {
    let path = node.strip_prefix('/').unwrap_or(node);
    let path = path.rsplit_once('/').map_or(path, |(module, _operation)| module);
    path.replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::onnx::schema::AttributeProto;
    use proptest::prelude::*;

    fn tensor(name: &str, data_type: i32, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
        TensorProto { name: name.into(), data_type, dims: dims.to_vec(), raw_data, ..Default::default() }
    }

    /// A model with one 1 x 32 matrix and one 2 x 2 table.
    fn small() -> ModelProto {
        let attributes = [("K", 32), ("N", 1), ("bits", 4), ("block_size", 32)];
        let matrix = NodeProto {
            name: "/m/dense/MatMul_Q4".into(),
            op_type: "MatMulNBits".into(),
            input: vec!["x".into(), "q".into(), "s".into()],
            attribute: attributes
                .map(|(name, i)| AttributeProto { name: name.into(), i, ..Default::default() })
                .into(),
            ..Default::default()
        };
        let gather = NodeProto {
            op_type: "Gather".into(),
            input: vec!["t.weight_quantized".into(), "ids".into()],
            output: vec!["g".into()],
            ..Default::default()
        };
        let table = NodeProto {
            op_type: "DequantizeLinear".into(),
            input: vec!["g".into(), "t.scale".into(), "t.zero".into()],
            ..Default::default()
        };
        let scale =
            TensorProto { name: "t.scale".into(), data_type: 1, float_data: vec![0.5], ..Default::default() };
        let zero =
            TensorProto { name: "t.zero".into(), data_type: 2, int32_data: vec![3], ..Default::default() };
        let initializer = vec![
            tensor("q", 2, &[1, 1, 16], (0..16).map(|i| i << 4 | 0x0f).collect()),
            tensor("s", 1, &[1, 1], (-2f32).to_le_bytes().to_vec()),
            tensor("t.weight_quantized", 2, &[2, 2], vec![0, 3, 4, 255]),
            scale,
            zero,
            tensor("b", 1, &[1], 7f32.to_le_bytes().to_vec()),
        ];
        ModelProto {
            graph: Some(GraphProto { node: vec![matrix, gather, table], initializer, ..Default::default() }),
        }
    }

    #[test]
    fn all_three_kinds_of_tensor_are_dequantized() {
        let file = OnnxFile::from_bytes("small.onnx", &small().encode_to_vec()).unwrap();
        assert_eq!(file.names(), ["b", "m.dense.weight", "t.weight"]);
        let matrix: Vec<f32> = file.get("m.dense.weight").unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(matrix[..4], [-14.0, 16.0, -14.0, 14.0]);
        assert_eq!(matrix.len(), 32);
        let table: Vec<f32> = file.get("t.weight").unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(table, [-1.5, 0.0, 0.5, 126.0]);
        assert_eq!(file.get("b").unwrap().to_vec1::<f32>().unwrap(), [7.0]);
        assert!(matches!(file.get("q"), Err(Error::MissingTensor { .. })));
    }

    #[test]
    fn contradictions_are_refused() {
        let broken: [fn(&mut GraphProto); 7] = [
            |graph| graph.initializer[0].raw_data.truncate(15),
            |graph| graph.initializer[1].data_type = 2,
            |graph| graph.initializer[2].dims = vec![i64::MAX, i64::MAX],
            |graph| graph.initializer[3].float_data.clear(),
            |graph| graph.initializer[4].int32_data = vec![256],
            |graph| graph.initializer[5].data_location = 1,
            |graph| graph.node[0].attribute[0].i = 31,
        ];
        for (i, breaking) in broken.into_iter().enumerate() {
            let mut model = small();
            breaking(model.graph.as_mut().unwrap());
            assert!(OnnxFile::from_bytes("broken.onnx", &model.encode_to_vec()).is_err(), "case {i}");
        }
        assert!(OnnxFile::from_bytes("empty.onnx", &[]).is_err());
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0usize..400, to: u8, cut in 0usize..600) {
            let mut bytes = small().encode_to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            bytes.truncate(cut);
            if let Ok(file) = OnnxFile::from_bytes("damaged.onnx", &bytes) {
                for name in file.names() {
                    let _ = file.get(&name);
                }
            }
        }
    }
}
