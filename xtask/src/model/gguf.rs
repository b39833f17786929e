//! Reads a GGUF file (version 3): metadata at once, tensors one by one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// An open GGUF file.
pub struct Gguf {
    file: File,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
    /// Where tensor offsets count from.
    tensors_start: u64,
}

/// How a tensor's values are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    F32,
    Q4_1,
    Q8_0,
}

/// Place and shape of one tensor; `shape` is outermost first, `[out, in]` for a matrix.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub format: Format,
    offset: u64,
}

/// A metadata value; the kinds that this model does not use are read as [`Value::Other`].
#[derive(Debug)]
enum Value {
    Count(u64),
    Float(f32),
    Text(String),
    Texts(Vec<String>),
    Counts(Vec<u64>),
    Other,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let mut reader = Reader { source: BufReader::new(&file) };
        ensure!(&reader.bytes::<4>()? == b"GGUF", "{} is not a GGUF file", path.display());
        let version = reader.u32()?;
        ensure!(version == 3, "{} is GGUF version {version}, expected 3", path.display());
        let (tensor_count, metadata_count) = (reader.u64()?, reader.u64()?);
        let metadata = (0..metadata_count)
            .map(|_| {
                let key = reader.text()?;
                let kind = reader.u32()?;
                Ok((key, reader.value(kind)?))
            })
            .collect::<Result<_>>()?;
        let tensors = (0..tensor_count).map(|_| reader.tensor()).collect::<Result<_>>()?;
        // Default alignment; the key general.alignment is absent from this model.
        let tensors_start = reader.source.stream_position()?.next_multiple_of(32);
        Ok(Gguf { file, metadata, tensors, tensors_start })
    }

    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("the GGUF has no tensor {name}"))
    }

    /// The stored bytes of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let tensor = self.tensor(name)?;
        let values = tensor.shape.iter().try_fold(1usize, |values, &length| values.checked_mul(length));
        let bytes = values.and_then(|values| tensor.format.bytes(values));
        // Before memory is taken: a shape can say anything.
        let fits = |bytes: &usize| self.file.metadata().is_ok_and(|file| *bytes as u64 <= file.len());
        let mut bytes =
            vec![0; bytes.filter(fits).with_context(|| format!("tensor {name} is larger than the GGUF"))?];
        self.file
            .read_exact_at(&mut bytes, self.tensors_start.saturating_add(tensor.offset))
            .with_context(|| format!("reading tensor {name} of the GGUF"))?;
        Ok(bytes)
    }

    pub fn count(&self, key: &str) -> Result<usize> {
        match self.metadata.get(key) {
            Some(Value::Count(count)) => Ok(usize::try_from(*count)?),
            other => bail!("GGUF key {key} is {other:?}, expected a number"),
        }
    }

    pub fn float(&self, key: &str) -> Result<f32> {
        match self.metadata.get(key) {
            Some(Value::Float(value)) => Ok(*value),
            other => bail!("GGUF key {key} is {other:?}, expected a float"),
        }
    }

    pub fn text(&self, key: &str) -> Result<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Ok(text),
            other => bail!("GGUF key {key} is {other:?}, expected a string"),
        }
    }

    pub fn texts(&self, key: &str) -> Result<&[String]> {
        match self.metadata.get(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            _ => bail!("GGUF key {key} is not a list of strings"),
        }
    }

    pub fn counts(&self, key: &str) -> Result<&[u64]> {
        match self.metadata.get(key) {
            Some(Value::Counts(counts)) => Ok(counts),
            _ => bail!("GGUF key {key} is not a list of numbers"),
        }
    }
}

impl Format {
    fn parse(code: u32) -> Result<Self> {
        match code {
            0 => Ok(Format::F32),
            3 => Ok(Format::Q4_1),
            8 => Ok(Format::Q8_0),
            other => bail!("the GGUF holds a tensor of type {other}, which this recipe does not read"),
        }
    }

    /// Bytes of `values` values, a multiple of 32 for the quantized formats; none if they cannot be counted.
    fn bytes(self, values: usize) -> Option<usize> {
        match self {
            Format::F32 => values.checked_mul(4),
            Format::Q4_1 => (values / 32).checked_mul(20),
            Format::Q8_0 => (values / 32).checked_mul(34),
        }
    }
}

struct Reader<'a> {
    source: BufReader<&'a File>,
}

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).context("the GGUF header is cut short")?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        let mut bytes = Vec::new();
        (&mut self.source).take(length).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 == length, "the GGUF header is cut short");
        String::from_utf8(bytes).context("a string of the GGUF is not UTF-8")
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Count(u8::from_le_bytes(self.bytes()?).into()),
            4 => Value::Count(self.u32()?.into()),
            10 => Value::Count(self.u64()?),
            6 => Value::Float(f32::from_le_bytes(self.bytes()?)),
            8 => Value::Text(self.text()?),
            9 => self.list()?,
            1 | 7 => self.bytes::<1>().map(|_| Value::Other)?,
            2 | 3 => self.bytes::<2>().map(|_| Value::Other)?,
            5 => self.bytes::<4>().map(|_| Value::Other)?,
            11 | 12 => self.bytes::<8>().map(|_| Value::Other)?,
            other => bail!("the GGUF has a metadata value of unknown type {other}"),
        })
    }

    fn list(&mut self) -> Result<Value> {
        let kind = self.u32()?;
        let length = self.u64()?;
        Ok(match kind {
            8 => Value::Texts((0..length).map(|_| self.text()).collect::<Result<_>>()?),
            // Token types are i32 in the file and never negative.
            4 | 5 => Value::Counts((0..length).map(|_| Ok(self.u32()?.into())).collect::<Result<_>>()?),
            // No key of any model has one, and a file of nothing else would exhaust the stack.
            9 => bail!("the GGUF has a list of lists, which is not read"),
            other => {
                for _ in 0..length {
                    self.value(other)?;
                }
                Value::Other
            }
        })
    }

    fn tensor(&mut self) -> Result<(String, Tensor)> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        let mut shape =
            (0..dimensions).map(|_| Ok(usize::try_from(self.u64()?)?)).collect::<Result<Vec<_>>>()?;
        shape.reverse(); // the file lists the innermost first
        let format = Format::parse(self.u32()?)?;
        Ok((name, Tensor { shape, format, offset: self.u64()? }))
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/mod.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::fuzz::{Target, put, run};
    use super::*;

    #[test]
    fn damaged_files_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("source.gguf");
        let target = Target {
            name: "gguf",
            inputs: 20_000,
            json: false,
            words: &["GGUF", "general.architecture", "llama", "a.weight", "b.weight", "tokens"],
            repair: |file| file.splice(..file.len().min(8), *b"GGUF\x03\0\0\0").for_each(drop),
            // Counted in the whole process, where other tests run at the same time.
            memory: |input| (256 << 20) + 200 * input,
        };
        run(&target, |bytes| {
            put(&path, bytes);
            let gguf = match Gguf::open(&path) {
                Ok(gguf) => gguf,
                Err(refused) => return format!("{refused:#}"),
            };
            let read = gguf.tensors.keys().map(|name| gguf.read(name)).collect::<Result<Vec<_>>>();
            read.map_or_else(|refused| format!("{refused:#}"), |_| "read".to_owned())
        });
    }
}
