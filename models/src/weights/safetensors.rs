//! safetensors files: one, or several with an index.

use crate::limits::{MAX_HEADER_BYTES, MAX_JSON_BYTES};
use crate::tokenizer::read_limited;
use crate::weights::{WeightSource, with_extension};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub use safetensors::Dtype;

/// Bytes of the header's length field.
const LENGTH_BYTES: u64 = 8;

/// An opened safetensors file. Tensors are read from disk when asked for.
pub struct SafetensorsFile {
    path: PathBuf,
    metadata: Metadata,
    data_start: u64,
}

impl SafetensorsFile {
    /// Opens a file, reads its header and checks that all its tensors lie within it.
    ///
    /// # Errors
    /// If the file cannot be read, is not safetensors, or is truncated.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let io = |source| Error::io(&path, source);
        let mut file = File::open(&path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < LENGTH_BYTES {
            return Err(Error::malformed(&path, "header length", format!("the file has {length} bytes")));
        }
        let mut field = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut field).map_err(io)?;
        let header = u64::from_le_bytes(field);
        if header > MAX_HEADER_BYTES.min(length - LENGTH_BYTES) {
            return Err(Error::malformed(
                &path,
                "header length",
                format!("{header} bytes do not fit a file of {length} and the limit {MAX_HEADER_BYTES}"),
            ));
        }
        let mut json = vec![0; header as usize];
        file.read_exact(&mut json).map_err(io)?;
        let metadata: Metadata =
            serde_json::from_slice(&json).map_err(|source| Error::malformed(&path, "header", source))?;
        let data_start = LENGTH_BYTES + header;
        let expected = data_start + metadata.data_len() as u64;
        if expected != length {
            return Err(Error::malformed(
                &path,
                "tensor data",
                format!("ends at byte {expected} of a file of {length}"),
            ));
        }
        Ok(Self { path, metadata, data_start })
    }

    /// Type of a tensor's elements.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        Some(self.metadata.info(name)?.dtype)
    }

    /// The bytes of a tensor, little-endian, row-major.
    ///
    /// # Errors
    /// If there is none of that name or the file cannot be read.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let (start, end) = self.info(name)?.data_offsets;
        let io = |source| Error::io(&self.path, source);
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(io)?;
        let mut bytes = vec![0; end - start];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })
    }
}

impl WeightSource for SafetensorsFile {
    fn names(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.metadata.info(name)?.shape.clone())
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        let info = self.info(name)?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            Dtype::U8 => DType::U8,
            Dtype::U32 => DType::U32,
            Dtype::I64 => DType::I64,
            other => {
                return Err(Error::malformed(&self.path, name, format!("type {other:?} is not supported")));
            }
        };
        let tensor = Tensor::from_raw_buffer(&self.bytes(name)?, dtype, &info.shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(DType::F32)?)
    }
}

/// Writes tensors to a file, which appears whole or not at all, readable by whom its directory is readable by.
///
/// # Errors
/// If it cannot be written; a full disk stays recognizable as one.
pub(crate) fn write_file<S, V>(path: &Path, tensors: impl IntoIterator<Item = (S, V)>) -> Result<()>
where
    S: AsRef<str> + Ord + std::fmt::Display,
    V: safetensors::View,
{
    safetensors::serialize_to_file(tensors, None, path).map_err(|source| match source {
        SafeTensorError::IoError(source) => Error::io(path, source),
        other => Error::io(path, std::io::Error::other(other)),
    })?;
    // The library writes through a temporary file that only its owner may read.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let io = |source| Error::io(path, source);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mode = std::fs::metadata(directory.unwrap_or(Path::new("."))).map_err(io)?.permissions().mode();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o666)).map_err(io)?;
    }
    Ok(())
}

/// The safetensors of a model directory: the files of `model.safetensors.index.json`, or the only file.
pub struct SafetensorsDirectory {
    files: Vec<SafetensorsFile>,
    /// Tensor name to index in `files`.
    index: BTreeMap<String, usize>,
}

impl SafetensorsDirectory {
    /// Opens the files of a directory.
    ///
    /// # Errors
    /// If there are none, the index is damaged or names files outside the directory, or a file is damaged.
    pub fn open(directory: &Path) -> Result<Self> {
        let index = directory.join("model.safetensors.index.json");
        let paths = if index.is_file() {
            indexed_files(&index)?.iter().map(|name| directory.join(name)).collect()
        } else {
            vec![only_file(directory)?]
        };
        let files = paths.iter().map(SafetensorsFile::open).collect::<Result<Vec<_>>>()?;
        let index = files
            .iter()
            .enumerate()
            .flat_map(|(at, file)| file.names().into_iter().map(move |name| (name, at)))
            .collect();
        Ok(Self { files, index })
    }

    fn file(&self, name: &str) -> Option<&SafetensorsFile> {
        self.files.get(*self.index.get(name)?)
    }
}

impl WeightSource for SafetensorsDirectory {
    fn names(&self) -> Vec<String> {
        self.index.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file(name)?.shape(name)
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        self.file(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?.get(name)
    }
}

/// `model.safetensors`, or the one file that a directory without an index has.
fn only_file(directory: &Path) -> Result<PathBuf> {
    let usual = directory.join("model.safetensors");
    if usual.is_file() {
        return Ok(usual);
    }
    match with_extension(directory, "safetensors")?.as_slice() {
        [file] => Ok(file.clone()),
        files => Err(Error::malformed(
            directory,
            "weights",
            format!("found {} .safetensors files and no model.safetensors.index.json", files.len()),
        )),
    }
}

/// File names of an index, each once; they must be plain names, so that an index cannot reach outside its directory.
fn indexed_files(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let json = read_limited(index, MAX_JSON_BYTES)?;
    let Index { weight_map } =
        serde_json::from_slice(&json).map_err(|source| Error::malformed(index, "weight_map", source))?;
    let mut names: Vec<String> = weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if let Some(bad) = names.iter().find(|name| name.contains(['/', '\\']) || name.as_str() == "..") {
        return Err(Error::malformed(index, "weight_map", format!("{bad:?} is not a plain file name")));
    }
    Ok(names)
}
