//! GGUF files: weights in any quantization Candle reads, and metadata.

mod header;
mod tokenizer;

use crate::formats::WeightSource;
use crate::{Error, Result};
use candle_core::quantized::ggml_file;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An opened GGUF file. Tensors are read from disk on request.
pub struct GgufFile {
    path: PathBuf,
    content: Content,
}

impl GgufFile {
    /// Opens a file, reads its header and checks that all its tensors lie within it.
    ///
    /// # Errors
    /// If the file cannot be read, is not GGUF, or is truncated; the error names the field.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
        let length = file.metadata().map_err(|source| Error::io(&path, source))?.len();
        let mut reader = BufReader::new(file);
        header::check(&mut reader, length, &path)?;
        let content =
            Content::read(&mut reader).map_err(|source| Error::malformed_by(&path, "header", source))?;
        let opened = Self { path, content };
        if let Some(parts) = opened.uint("split.count")?.filter(|&parts| parts > 1) {
            return Err(Error::malformed(
                &opened.path,
                "split.count",
                format!("this is one of {parts} parts; join them first with llama-gguf-split --merge"),
            ));
        }
        opened.check_extents(length)?;
        Ok(opened)
    }

    /// Rows of the embedding.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn vocabulary_size(&self) -> Result<usize> {
        const EMBEDDING: &str = "token_embd.weight";
        self.shape(EMBEDDING)
            .and_then(|shape| shape.first().copied())
            .ok_or_else(|| Error::MissingTensor { name: EMBEDDING.to_owned() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata value.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    /// A string of the metadata.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong_type(key, "a string")),
        }
    }

    /// A non-negative integer of the metadata, of any width.
    ///
    /// # Errors
    /// If the value has another type or is negative.
    pub fn uint(&self, key: &str) -> Result<Option<usize>> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => {
                as_uint(value).map(Some).ok_or_else(|| self.wrong_type(key, "a non-negative integer"))
            }
        }
    }

    /// A floating-point number of the metadata.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.value(key) {
            None => Ok(None),
            // Via the shortest decimal, so that 1e-5 stored as f32 is 1e-5 and not 9.999999747e-6.
            Some(Value::F32(value)) => Ok(value.to_string().parse().ok()),
            Some(Value::F64(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong_type(key, "a number")),
        }
    }

    /// A flag of the metadata.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong_type(key, "a boolean")),
        }
    }

    /// An array of the metadata, each element converted.
    ///
    /// # Errors
    /// If the value is no array, or `convert` refuses an element.
    pub fn array<'a, T>(
        &'a self,
        key: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(values)) => values
                .iter()
                .map(convert)
                .collect::<Option<Vec<_>>>()
                .map(Some)
                .ok_or_else(|| self.wrong_type(key, "an array of another element type")),
            Some(_) => Err(self.wrong_type(key, "an array")),
        }
    }

    /// The value of `lookup`, which must be there.
    ///
    /// # Errors
    /// If the key is missing.
    pub fn require<T>(&self, key: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| Error::malformed(&self.path, key, "is missing"))
    }

    fn wrong_type(&self, key: &str, expected: &str) -> Error {
        let got = self.value(key).map(|value| format!("{:?}", value.value_type())).unwrap_or_default();
        Error::malformed(&self.path, key, format!("expected {expected}, got {got}"))
    }

    /// Every tensor's bytes must lie within the file; checked before any of them is read.
    fn check_extents(&self, length: u64) -> Result<()> {
        for (name, info) in &self.content.tensor_infos {
            let bytes = info
                .shape
                .dims()
                .iter()
                .try_fold(1u64, |product, &dim| product.checked_mul(dim as u64))
                .and_then(|elements| {
                    let block = info.ggml_dtype.block_size() as u64;
                    (elements % block == 0).then_some(elements / block)
                })
                .and_then(|blocks| blocks.checked_mul(info.ggml_dtype.type_size() as u64))
                .ok_or_else(|| {
                    Error::malformed(
                        &self.path,
                        name,
                        format!("shape {:?} is not a whole number of blocks", info.shape.dims()),
                    )
                })?;
            let end = self.content.tensor_data_offset.saturating_add(info.offset).saturating_add(bytes);
            if end > length {
                return Err(Error::malformed(
                    &self.path,
                    name,
                    format!(
                        "ends at byte {end} of a file of {length}: the file is truncated, fetch it again"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A non-negative integer of any width.
pub(crate) fn as_uint(value: &Value) -> Option<usize> {
    match *value {
        Value::U8(v) => Some(v.into()),
        Value::U16(v) => Some(v.into()),
        Value::U32(v) => usize::try_from(v).ok(),
        Value::U64(v) => usize::try_from(v).ok(),
        Value::I8(v) => usize::try_from(v).ok(),
        Value::I16(v) => usize::try_from(v).ok(),
        Value::I32(v) => usize::try_from(v).ok(),
        Value::I64(v) => usize::try_from(v).ok(),
        _ => None,
    }
}

impl WeightSource for GgufFile {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.content.tensor_infos.keys().cloned().collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.content.tensor_infos.get(name)?.shape.dims().to_vec())
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        let info = self
            .content
            .tensor_infos
            .get(name)
            .ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        let file = File::open(&self.path).map_err(|source| Error::io(&self.path, source))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        info.read(&mut reader, self.content.tensor_data_offset, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu))
            .map_err(|source| Error::malformed_by(&self.path, name, source))
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let info = self.content.tensor_infos.get(name).ok_or_else(missing)?;
        let dims = info.shape.dims();
        let width: usize = dims.iter().skip(1).product();
        let (block, size) = (info.ggml_dtype.block_size(), info.ggml_dtype.type_size());
        let count = dims.first().copied().unwrap_or(0);
        if rows.end > count || rows.is_empty() || width == 0 || !width.is_multiple_of(block) {
            return Err(Error::malformed(
                &self.path,
                name,
                format!("has no rows {rows:?} of {count} in blocks"),
            ));
        }
        let row_bytes = width / block * size;
        let io = |source| Error::io(&self.path, source);
        let mut file = File::open(&self.path).map_err(io)?;
        let start = self.content.tensor_data_offset + info.offset + (rows.start * row_bytes) as u64;
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        let mut bytes = vec![0; rows.len() * row_bytes];
        file.read_exact(&mut bytes).map_err(io)?;
        let mut shape = dims.to_vec();
        shape[0] = rows.len();
        ggml_file::qtensor_from_ggml(info.ggml_dtype, &bytes, shape, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu))
            .map_err(|source| Error::malformed_by(&self.path, name, source))
    }
}
