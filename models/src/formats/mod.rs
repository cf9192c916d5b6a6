//! Where weights come from: GGUF, safetensors, ONNX, or memory.

pub mod gguf;
pub mod onnx;
pub mod safetensors;

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Named tensors of one model.
pub trait WeightSource: Send + Sync {
    /// All names, sorted.
    fn names(&self) -> Vec<String>;

    /// Shape of a tensor, without reading it; `None` if there is none of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Reads a tensor as f32 on the CPU, dequantized if need be; row-major, linear layers `[out, in]` unless the
    /// source's format says otherwise.
    ///
    /// # Errors
    /// If there is none of that name, or its data is damaged.
    fn get(&self, name: &str) -> Result<Tensor>;

    /// Reads some rows of a tensor, as [`get`](Self::get); sources of large files read no others.
    ///
    /// # Errors
    /// As [`get`](Self::get), and if there are no such rows.
    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        Ok(self.get(name)?.narrow(0, rows.start, rows.len())?.contiguous()?)
    }

    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// Reads a tensor and checks its shape.
    ///
    /// # Errors
    /// As [`get`](Self::get), and if the shape differs.
    fn get_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor> {
        match self.shape(name) {
            None => return Err(Error::MissingTensor { name: name.to_owned() }),
            Some(got) if got != expected => {
                return Err(Error::TensorShape { name: name.to_owned(), expected: expected.to_vec(), got });
            }
            Some(_) => {}
        }
        self.get(name)
    }
}

/// Weights in memory, for tests and generated models.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    tensors: BTreeMap<String, Tensor>,
}

impl MemorySource {
    /// A source of these tensors.
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }
}

impl WeightSource for MemorySource {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.dims().to_vec())
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?)
    }
}

/// Files of a directory with this extension, sorted.
pub(crate) fn with_extension(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let io = |source| Error::io(directory, source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|got| got == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
