//! safetensors files: one, or several with an index.
//!
//! A tensor `X` beside a tensor `X_scale` is quantized: `I8` is a code per weight, `U8` two codes of 4 bits per byte, the
//! low one first, each minus 8. The scales are `[rows, blocks]`; a weight is its code times the scale of its block.

use crate::formats::{WeightSource, with_extension};
use crate::limits::{MAX_HEADER_BYTES, MAX_JSON_BYTES};
use crate::tokenizer::read_limited;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use safetensors::Dtype;

/// Bytes of the header's length field.
const LENGTH_BYTES: u64 = 8;
/// What the name of a quantized tensor's scales ends in.
const SCALE: &str = "_scale";

/// An opened safetensors file. Tensors are read from disk on request.
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
            serde_json::from_slice(&json).map_err(|source| Error::malformed_by(&path, "header", source))?;
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
        self.read(start, end - start)
    }

    fn read(&self, start: usize, length: usize) -> Result<Vec<u8>> {
        let io = |source| Error::io(&self.path, source);
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(io)?;
        let mut bytes = vec![0; length];
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
        names.retain(|name| name.strip_suffix(SCALE).is_none_or(|of| self.scale(of).is_none()));
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let info = self.metadata.info(name)?;
        let mut shape = info.shape.clone();
        if self.scale(name).is_some() && info.dtype == Dtype::U8 {
            *shape.last_mut()? *= 2;
        }
        Some(shape)
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        if self.scale(name).is_some() {
            return self.rows(name, 0..self.info(name)?.shape.first().copied().unwrap_or(0));
        }
        let shape = self.info(name)?.shape.clone();
        self.tensor(name, &self.bytes(name)?, &shape)
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        let info = self.info(name)?;
        let (start, end) = info.data_offsets;
        let count = info.shape.first().copied().unwrap_or(0);
        if rows.end > count || rows.is_empty() {
            return Err(Error::malformed(&self.path, name, format!("has no rows {rows:?} of {count}")));
        }
        let row_bytes = (end - start) / count;
        let bytes = self.read(start + rows.start * row_bytes, rows.len() * row_bytes)?;
        if let Some(scale) = self.scale(name) {
            let scales = self.rows(&scale, rows.clone())?;
            return self.dequantized(name, info, &bytes, &scales);
        }
        let mut shape = info.shape.clone();
        shape[0] = rows.len();
        self.tensor(name, &bytes, &shape)
    }
}

impl SafetensorsFile {
    /// The name of a quantized tensor's scales.
    fn scale(&self, name: &str) -> Option<String> {
        let quantized = matches!(self.metadata.info(name)?.dtype, Dtype::I8 | Dtype::U8);
        let scale = format!("{name}{SCALE}");
        (quantized && self.metadata.info(&scale).is_some()).then_some(scale)
    }

    /// Some rows of a quantized matrix, from their codes and `[rows, blocks]` scales.
    fn dequantized(&self, name: &str, info: &TensorInfo, bytes: &[u8], scales: &Tensor) -> Result<Tensor> {
        let codes: Vec<f32> = if info.dtype == Dtype::I8 {
            bytes.iter().map(|&code| f32::from(code.cast_signed())).collect()
        } else {
            bytes.iter().flat_map(|pair| [pair & 15, pair >> 4]).map(|code| f32::from(code) - 8.0).collect()
        };
        let rows = scales.dim(0)?;
        let blocks = scales.elem_count() / rows.max(1);
        let columns = codes.len() / rows.max(1);
        if info.shape.len() != 2 || blocks == 0 || !columns.is_multiple_of(blocks) {
            let shape = &info.shape;
            return Err(Error::malformed(
                &self.path,
                name,
                format!("scales {:?} do not fit {shape:?}", scales.dims()),
            ));
        }
        let scales = scales.reshape((rows, blocks, 1))?;
        let weights = Tensor::from_vec(codes, (rows, blocks, columns / blocks), &Device::Cpu)?;
        Ok(weights.broadcast_mul(&scales)?.reshape((rows, columns))?)
    }

    fn tensor(&self, name: &str, bytes: &[u8], shape: &[usize]) -> Result<Tensor> {
        let dtype = match self.info(name)?.dtype {
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
        let tensor = Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(DType::F32)?)
    }
}

/// Writes a safetensors file tensor by tensor, so that no more than one of them need be in memory.
///
/// The file appears whole or not at all, readable by whom its directory is readable by.
pub(crate) struct SafetensorsWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    /// Where each tensor's data is, and how much of it was written.
    places: BTreeMap<String, Place>,
}

struct Place {
    start: u64,
    length: u64,
    written: u64,
}

impl SafetensorsWriter {
    /// Begins a file of these tensors: name, type, shape.
    ///
    /// # Errors
    /// If the file cannot be written; a full disk stays recognizable as one.
    pub(crate) fn create(path: &Path, tensors: &[(String, Dtype, Vec<usize>)]) -> Result<Self> {
        let mut header = serde_json::Map::new();
        let mut places = BTreeMap::new();
        let mut end = 0u64;
        for (name, dtype, shape) in tensors {
            let elements: usize = shape.iter().product();
            let length = (elements * dtype.bitsize() / 8) as u64;
            let info =
                serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [end, end + length]});
            if header.insert(name.clone(), info).is_some() {
                return Err(Error::malformed(path, name, "is to be written twice"));
            }
            places.insert(name.clone(), Place { start: end, length, written: 0 });
            end += length;
        }
        let mut json = serde_json::Value::Object(header).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let temporary = path.with_extension(format!("partial-{}", std::process::id()));
        let io = |source| Error::io(path, source);
        let mut file = File::create(&temporary).map_err(io)?;
        file.write_all(&(json.len() as u64).to_le_bytes()).map_err(io)?;
        file.write_all(&json).map_err(io)?;
        let data_start = LENGTH_BYTES + json.len() as u64;
        for place in places.values_mut() {
            place.start += data_start;
        }
        Ok(Self { path: path.to_owned(), temporary, file, places })
    }

    /// Appends to the data of a tensor.
    ///
    /// # Errors
    /// If the file has no such tensor or no room for more of it, or cannot be written.
    pub(crate) fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let place = self.places.get_mut(name).ok_or_else(missing)?;
        let length = bytes.len() as u64;
        if length > place.length - place.written {
            return Err(Error::malformed(&self.path, name, "is longer than announced"));
        }
        let io = |source| Error::io(&self.path, source);
        self.file.seek(SeekFrom::Start(place.start + place.written)).map_err(io)?;
        self.file.write_all(bytes).map_err(io)?;
        place.written += length;
        Ok(())
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// If a tensor was not written whole, or the file cannot be written.
    pub(crate) fn finish(self) -> Result<()> {
        if let Some((name, _)) = self.places.iter().find(|(_, place)| place.written < place.length) {
            return Err(Error::malformed(&self.path, name, "was not written whole"));
        }
        let io = |source| Error::io(&self.path, source);
        self.file.sync_all().map_err(io)?;
        std::fs::rename(&self.temporary, &self.path).map_err(io)?;
        // A umask may be stricter than the directory, which one user writes and another reads.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let metadata = std::fs::metadata(directory.unwrap_or(Path::new("."))).map_err(io)?;
            let mode = std::fs::Permissions::from_mode(metadata.permissions().mode() & 0o666);
            std::fs::set_permissions(&self.path, mode).map_err(io)?;
        }
        Ok(())
    }
}

impl Drop for SafetensorsWriter {
    fn drop(&mut self) {
        // After `finish` there is none; a leftover is only litter.
        let _ = std::fs::remove_file(&self.temporary);
    }
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

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        self.file(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?.rows(name, rows)
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
        serde_json::from_slice(&json).map_err(|source| Error::malformed_by(index, "weight_map", source))?;
    let mut names: Vec<String> = weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if let Some(bad) = names.iter().find(|name| name.contains(['/', '\\']) || name.as_str() == "..") {
        return Err(Error::malformed(index, "weight_map", format!("{bad:?} is not a plain file name")));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> (tempfile::TempDir, SafetensorsFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let heads = tensors.iter().map(|(name, kind, shape, _)| ((*name).to_owned(), *kind, shape.clone()));
        let mut writer = SafetensorsWriter::create(&path, &heads.collect::<Vec<_>>()).unwrap();
        for (name, .., bytes) in tensors {
            writer.append(name, bytes).unwrap();
        }
        writer.finish().unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        (directory, file)
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn quantized_tensors_are_read_with_their_scales() {
        let (_directory, file) = written(&[
            ("a.weight", Dtype::I8, vec![2, 2], vec![1, 0xff, 127, 0x80]),
            ("a.weight_scale", Dtype::F32, vec![2, 1], floats(&[0.5, 2.0])),
            ("b.weight", Dtype::U8, vec![1, 2], vec![0x08, 0xf9]),
            ("b.weight_scale", Dtype::F32, vec![1, 2], floats(&[1.0, 10.0])),
        ]);
        assert_eq!(file.names(), ["a.weight", "b.weight"]);
        assert_eq!(file.shape("b.weight"), Some(vec![1, 4]));
        assert_eq!(file.get("a.weight").unwrap().to_vec2::<f32>().unwrap(), [[0.5, -0.5], [254.0, -256.0]]);
        assert_eq!(file.rows("a.weight", 1..2).unwrap().to_vec2::<f32>().unwrap(), [[254.0, -256.0]]);
        assert_eq!(file.get("b.weight").unwrap().to_vec2::<f32>().unwrap(), [[0.0, -8.0, 10.0, 70.0]]);
    }

    #[test]
    fn scales_that_do_not_fit_are_refused() {
        let (_directory, file) = written(&[
            ("a.weight", Dtype::I8, vec![1, 4], vec![1, 2, 3, 4]),
            ("a.weight_scale", Dtype::F32, vec![1, 3], floats(&[1.0, 1.0, 1.0])),
        ]);
        let error = file.get("a.weight").unwrap_err().to_string();
        assert!(error.contains("do not fit"), "{error}");
    }
}
