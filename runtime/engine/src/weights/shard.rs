//! The files of a checkpoint: one `model.safetensors`, or the shards that `model.safetensors.index.json` names.

use crate::load_error::LoadError;
use crate::weights::Tensors;
use crate::weights::fp8::{self, BlockScales, Fp8Blocks};
use crate::weights::json::read_json;
use crate::weights::safetensors::{Dtype, Entry, Header};
use crate::weights::unique::Pairs;
use half::bf16;
use memmap2::{Advice, Mmap, MmapMut, UncheckedAdvice};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The only weights file of a small checkpoint.
pub const SINGLE: &str = "model.safetensors";
/// The list of a large checkpoint's shards.
pub const INDEX: &str = "model.safetensors.index.json";

/// One mapped safetensors file whose header was checked.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mmap,
    /// To read from without the map; none where nothing is there.
    file: Option<File>,
    header: Header,
}

impl Shard {
    /// Maps `path` and checks its header.
    pub fn open(path: PathBuf) -> Result<Shard, LoadError> {
        let read = |source| LoadError::Read { path: path.clone(), source };
        // Asked before opening: to open a pipe would wait for its writer.
        let metadata = std::fs::metadata(&path).map_err(|e| LoadError::of_open(&path, e))?;
        if !metadata.is_file() {
            return Err(LoadError::NotAFile { path });
        }
        let file = File::open(&path).map_err(|e| LoadError::of_open(&path, e))?;
        // SAFETY: the map is read-only. Another process that cuts or rewrites a weights file while it is served breaks
        // this program (SIGBUS or wrong tokens), as with any mapped file; model folders are mounted read-only.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let header = Header::parse(&map)
            .map_err(|rule| LoadError::Header { path: path.clone(), rule: Box::new(rule) })?;
        Ok(Shard { path, map, file: Some(file), header })
    }

    /// One without any bytes, for tensors that are listed in `path` and not there.
    pub(super) fn none(path: PathBuf) -> Result<Shard, LoadError> {
        let map = MmapMut::map_anon(1).and_then(MmapMut::make_read_only);
        let map = map.map_err(|source| LoadError::Read { path: path.clone(), source })?;
        Ok(Shard { path, map, file: None, header: Header::default() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length and JSON: everything before the data.
    pub fn header_bytes(&self) -> &[u8] {
        &self.map[..self.header.bytes]
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// One tensor, or some rows of it, in its mapped file.
#[derive(Clone, Debug)]
pub struct TensorView {
    shard: Arc<Shard>,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
    /// Of a matrix in fp8, and only of one.
    scales: Option<BlockScales>,
    /// Of a tensor that no file has, and only of one.
    made: Option<Made>,
}

/// How the values of a tensor that no file has are made, see [`random::value`](coterie_kernels::cpu::random::value).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Made {
    pub(crate) seed: u64,
    pub(crate) scale: f32,
}

impl TensorView {
    /// A tensor whose bytes are not there, in a [shard without any](Shard::none). It can be counted, not read.
    pub(super) fn unread(shard: &Arc<Shard>, name: &str, dtype: Dtype, shape: &[usize]) -> TensorView {
        let bytes = 0..shape.iter().product::<usize>() * dtype.bits() as usize / 8;
        let (shard, name) = (shard.clone(), name.to_owned());
        TensorView { shard, name, dtype, shape: shape.to_vec(), bytes, scales: None, made: None }
    }

    /// A tensor in bf16 whose values are made when they are needed.
    pub(super) fn made(shard: &Arc<Shard>, name: &str, shape: &[usize], made: Made) -> TensorView {
        TensorView { made: Some(made), ..TensorView::unread(shard, name, Dtype::Bf16, shape) }
    }

    /// How its values are made and the number of the first, if no file has them.
    pub(crate) fn how_made(&self) -> Option<(Made, u64)> {
        Some((self.made?, self.bytes.start as u64 / size_of::<bf16>() as u64))
    }

    /// The same, in fp8 with these scales.
    pub(super) fn scaled(self, scales: BlockScales) -> TensorView {
        TensorView { scales: Some(scales), ..self }
    }

    /// Its name in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its values are written; [`Dtype::Other`] only if they are packed.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many values it has.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many bytes they take in the file.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Its values as they lie in the file, little-endian, not necessarily aligned; none where the file is not there.
    pub fn bytes(&self) -> &[u8] {
        self.shard.map.get(self.bytes.clone()).unwrap_or(&[])
    }

    /// Copies the bytes from number `at` on out of the file, past the map: a page that is only read once need not be
    /// mapped, and a file that was cut short meanwhile is an error.
    pub(crate) fn read_at(&self, at: usize, to: &mut [u8]) -> Result<(), LoadError> {
        let path = &self.shard.path;
        let Some(file) = &self.shard.file else { return Err(LoadError::MissingFile { path: path.clone() }) };
        let read = file.read_exact_at(to, (self.bytes.start + at) as u64);
        read.map_err(|source| LoadError::Read { path: path.clone(), source })
    }

    /// The scales of its values, if it is in fp8.
    pub(super) fn scales(&self) -> Option<&BlockScales> {
        self.scales.as_ref()
    }

    /// Its scales, if it is in fp8 and begins where a block of them begins.
    pub(crate) fn fp8_blocks(&self) -> Option<Fp8Blocks> {
        self.scales.as_ref()?.blocks(self.shape[0])
    }

    /// Can the bytes be used in place as values of their format?
    pub fn is_aligned(&self) -> bool {
        self.made.is_none() && self.bytes().as_ptr().addr().is_multiple_of(self.dtype.bits() as usize / 8)
    }

    /// Rows `rows` of the outermost dimension, with `shape` as the new shape: the same number of values.
    pub fn rows(&self, rows: Range<usize>, shape: &[usize]) -> TensorView {
        let row = self.bytes.len() / self.shape[0];
        let bytes = self.bytes.start + rows.start * row..self.bytes.start + rows.end * row;
        assert_eq!(
            shape.iter().product::<usize>(),
            rows.len() * self.values() / self.shape[0],
            "a view has the values of its rows"
        );
        let scales = self.scales.clone().map(|scales| scales.behind(rows.start));
        TensorView { bytes, shape: shape.to_vec(), scales, ..self.clone() }
    }

    fn wrong_dtype(&self, expected: &'static str) -> LoadError {
        let (path, tensor) = (self.shard.path.clone(), self.name.clone());
        LoadError::WrongDtype { path, tensor, found: self.dtype.to_string(), expected }
    }

    /// Reads the bytes into memory now, in order, instead of page by page when they are first used.
    pub fn read_pages(&self) {
        // An old kernel refuses, a full memory may: both only cost time later.
        let _ = self.shard.map.advise_range(Advice::PopulateRead, self.bytes.start, self.bytes.len());
    }

    /// Tells the system that the mapped pages are not needed any more: they leave this process's memory and are read
    /// again from the file if touched.
    pub fn forget_pages(&self) {
        // SAFETY: the map is shared and read-only, so DONTNEED loses nothing, not even of the neighbours that share
        // the first and last page: a later read faults the file's bytes in again.
        let _ = unsafe {
            let (start, length) = (self.bytes.start, self.bytes.len());
            self.shard.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, length)
        };
    }
}

/// Every tensor of a model folder.
#[derive(Debug)]
pub struct Checkpoint {
    shards: Vec<Arc<Shard>>,
    /// Tensor name -> index into `shards`.
    tensors: HashMap<String, usize>,
    /// The file that lists the tensors, for messages.
    listing: PathBuf,
    /// Rows and columns that share a scale, if config.json tells and something is in fp8.
    fp8_block: Option<[usize; 2]>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
pub(super) struct Index {
    /// The file of each tensor.
    pub(super) weight_map: Pairs<String>,
    /// Whatever else was written; `total_size` is the bytes of all tensors.
    #[serde(default)]
    pub(super) metadata: serde_json::Value,
}

impl Checkpoint {
    /// Opens the weights of model folder `dir` and checks every header.
    pub fn open(dir: &Path) -> Result<Checkpoint, LoadError> {
        // A folder may hold both, the index being left over: the reference takes the single file.
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        let mut checkpoint = match index.exists() && !single.exists() {
            true => Self::open_index(dir, index)?,
            false => Self::open_single(single)?,
        };
        let entries = checkpoint.shards.iter().flat_map(|shard| shard.header.tensors.values());
        if entries.into_iter().any(|entry| entry.dtype == Dtype::Fp8) {
            checkpoint.fp8_block = fp8::block_size(dir)?;
        }
        Ok(checkpoint)
    }

    fn open_single(path: PathBuf) -> Result<Checkpoint, LoadError> {
        let shard = Arc::new(Shard::open(path.clone())?);
        let tensors = shard.header.tensors.keys().map(|name| (name.clone(), 0)).collect();
        Ok(Checkpoint { shards: vec![shard], tensors, listing: path, fp8_block: None })
    }

    fn open_index(dir: &Path, path: PathBuf) -> Result<Checkpoint, LoadError> {
        let Index { weight_map: Pairs(pairs), .. } = read_json(&path)?;
        let mut shards = Vec::new();
        let mut by_file = HashMap::new();
        let mut tensors = HashMap::with_capacity(pairs.len());
        for (tensor, file) in pairs {
            let number = match by_file.get(&file) {
                Some(&number) => number,
                None => {
                    shards.push(Arc::new(open_shard(dir, &path, &file, &tensor)?));
                    by_file.insert(file, shards.len() - 1);
                    shards.len() - 1
                }
            };
            let shard: &Shard = &shards[number];
            if !shard.header.tensors.contains_key(&tensor) {
                return Err(LoadError::NotInShard { path: shard.path.clone(), tensor });
            }
            if tensors.insert(tensor.clone(), number).is_some() {
                return Err(LoadError::ListedTwice { path, tensor });
            }
        }
        Ok(Checkpoint { shards, tensors, listing: path, fp8_block: None })
    }

    /// The mapped files.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The tensor `name` by itself.
    fn find(
        &self,
        name: &str,
        shape: &[usize],
        may_be: impl Fn(Dtype) -> bool,
        expected: &'static str,
    ) -> Result<TensorView, LoadError> {
        let Some(&number) = self.tensors.get(name) else {
            return Err(LoadError::MissingTensor { path: self.listing.clone(), tensor: name.to_owned() });
        };
        let shard = self.shards[number].clone();
        let Entry { dtype, shape: found, bytes } = shard.header.tensors[name].clone();
        let view =
            TensorView { shard, name: name.to_owned(), dtype, shape: found, bytes, scales: None, made: None };
        if !may_be(dtype) {
            return Err(view.wrong_dtype(expected));
        }
        if view.shape != shape {
            let (path, tensor) = (view.shard.path.clone(), view.name);
            return Err(LoadError::WrongShape { path, tensor, expected: shape.to_vec(), found: view.shape });
        }
        Ok(view)
    }
}

impl Tensors for Checkpoint {
    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.bytes().len() - shard.header_bytes().len()).sum()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError> {
        let view =
            self.find(name, shape, |dtype| !matches!(dtype, Dtype::Other(..)), "BF16, F16, F32 or F8_E4M3")?;
        if view.dtype != Dtype::Fp8 {
            return Ok(view);
        }
        let &[rows, columns] = shape else { return Err(view.wrong_dtype("BF16, F16 or F32")) };
        let (path, tensor) = (|| view.shard.path.clone(), || name.to_owned());
        let block =
            self.fp8_block.ok_or_else(|| LoadError::NoFp8Blocks { path: path(), tensor: tensor() })?;
        let expected = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
        let wide = |dtype| !matches!(dtype, Dtype::Other(..) | Dtype::Fp8);
        let scales = self.find(&format!("{name}_scale_inv"), &expected, wide, "BF16, F16 or F32")?;
        Ok(view.scaled(BlockScales::new(scales, block, columns)))
    }

    fn packed(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError> {
        self.find(name, shape, |dtype| matches!(dtype, Dtype::Other("U8", _)), "U8")
    }
}

/// Where `file` of the index lies. Shards lie beside it: anything but a plain file name could reach outside the folder.
pub(super) fn shard_path(dir: &Path, index: &Path, file: &str, tensor: &str) -> Result<PathBuf, LoadError> {
    let mut parts = Path::new(file).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file);
    match plain && !file.contains('\0') {
        true => Ok(dir.join(file)),
        false => {
            let (path, shard, tensor) = (index.to_owned(), file.to_owned(), tensor.to_owned());
            Err(LoadError::ShardOutside { path, shard, tensor })
        }
    }
}

fn open_shard(dir: &Path, index: &Path, file: &str, tensor: &str) -> Result<Shard, LoadError> {
    match Shard::open(shard_path(dir, index, file, tensor)?) {
        Err(LoadError::MissingFile { .. }) => {
            let (path, shard, tensor) = (index.to_owned(), file.to_owned(), tensor.to_owned());
            Err(LoadError::ShardMissing { path, shard, tensor })
        }
        opened => opened,
    }
}
