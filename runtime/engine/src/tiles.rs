//! The table of tiles of a GPU: measured by `coterie bench --tune`, kept as `tiles.json` beside the kernels' machine code, and read
//! when a model is loaded. It changes how long products take, never what comes out.

use crate::load_error::LoadError;
use crate::model::config::Config;
use crate::model::config::plan::{Mixer, Mlp};
use coterie_kernels::cuda::driver::Driver;
use coterie_kernels::cuda::matmul::{Format, Tiles};
use coterie_kernels::cuda::tiles::{self, Choice, Kind, Table};
use coterie_kernels::cuda::timed::Effort;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In the folder of an architecture.
const FILE: &str = "tiles.json";

/// Of the file. One of another form was written by another version of this program.
const FORM: u32 = 1;

/// Values along k that kernels read at once.
const STEP: usize = 32;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    form: u32,
    /// Digest of the machine code that was measured.
    kernels: String,
    /// What the GPU was called.
    gpu: String,
    choices: Vec<Line>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: String,
    pair: bool,
    n: usize,
    k: usize,
    rows: usize,
    tiles: String,
}

/// The table beside the machine code in `cubins` for this architecture; an empty one where there is none. What is damaged, or was
/// measured with other machine code, is refused.
pub fn read(cubins: &Path, architecture: &str) -> Result<Table, LoadError> {
    let folder = cubins.join(architecture);
    let path = folder.join(FILE);
    let refused = |why: String| LoadError::Tiles { path: path.clone(), why };
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Table::default()),
        text => text.map_err(|error| refused(error.to_string()))?,
    };
    let Written { form, kernels, choices, .. } = serde_json::from_slice(&text)
        .map_err(|error| refused(format!("it is no table of this version: {error}")))?;
    if form != FORM {
        return Err(refused(format!("it has the form {form}, this version reads {FORM}")));
    }
    if kernels != digest(&folder).map_err(|error| refused(error.to_string()))? {
        return Err(refused("it was measured with other machine code than lies beside it".to_owned()));
    }
    let choices = choices.into_iter().map(|line| line.choice().map_err(refused));
    Ok(Table::new(choices.collect::<Result<_, _>>()?))
}

impl Line {
    fn new(choice: &Choice) -> Line {
        let Choice { kind: Kind { format, pair, n, k }, rows, tiles } = *choice;
        Line { format: format.name().to_owned(), pair, n, k, rows, tiles: tiles.name().to_owned() }
    }

    fn choice(self) -> Result<Choice, String> {
        let Line { format, pair, n, k, rows, tiles } = self;
        let format = Format::ALL.into_iter().find(|known| known.name() == format);
        let known = Tiles::ALL.into_iter().find(|known| known.name() == tiles);
        match (format, known) {
            (Some(format), Some(tiles)) => Ok(Choice { kind: Kind { format, pair, n, k }, rows, tiles }),
            (None, _) => Err("it has a format that this version does not know".to_owned()),
            (_, None) => Err(format!("it has the tiles {tiles:?}, which this version does not know")),
        }
    }
}

/// Puts a table beside the machine code that it was measured with; returns where.
fn write(cubins: &Path, architecture: &str, gpu: String, table: &Table) -> Result<PathBuf, LoadError> {
    let folder = cubins.join(architecture);
    let path = folder.join(FILE);
    let failed = |source: std::io::Error| LoadError::Tiles { path: path.clone(), why: source.to_string() };
    let choices = table.choices().iter().map(Line::new).collect();
    let written = Written { form: FORM, kernels: digest(&folder).map_err(failed)?, gpu, choices };
    let text = serde_json::to_vec_pretty(&written).map_err(|error| failed(error.into()))?;
    // Whoever reads meanwhile finds the old table or the new one.
    let new = path.with_extension("new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(failed)?;
    Ok(path)
}

/// Of all machine code of a folder.
fn digest(folder: &Path) -> std::io::Result<String> {
    let mut files = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| path.as_ref().map_or(true, |path| path.extension().is_some_and(|e| e == "cubin")))
        .collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.sort();
    let mut sha = Sha256::new();
    for path in files {
        let bytes = fs::read(&path)?;
        sha.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    }
    Ok(sha.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// The file.
    pub path: PathBuf,
    /// What the GPU is called.
    pub gpu: String,
    /// Its architecture.
    pub architecture: &'static str,
    /// Products that were measured.
    pub products: usize,
    /// Lines of the table.
    pub choices: usize,
}

/// Measures the products of the model in `dir` (its config.json is all that is read) in every format on this machine's first GPU,
/// and keeps the table beside the machine code in `cubins`. `tell` hears each line of the table when it is known.
pub fn tune(dir: &Path, cubins: &Path, tell: &mut dyn FnMut(&Choice)) -> Result<Tuned, LoadError> {
    let products = products(&Config::read(dir)?);
    let driver = Arc::new(Driver::open(cubins)?);
    let gpu = driver.about()?.name;
    let table = tiles::measure(&driver, Effort::FULL, &products, tell)?;
    let architecture = driver.architecture();
    let path = write(cubins, architecture, gpu.clone(), &table)?;
    Ok(Tuned { path, gpu, architecture, products: products.len(), choices: table.choices().len() })
}

/// The products that a model spends its time with, in every format: kinds, and how many matrices a launch has.
fn products(config: &Config) -> Vec<(Kind, usize)> {
    let mut sizes: Vec<(bool, usize, usize, usize)> = Vec::new();
    let hidden = config.hidden;
    for layer in &config.layers {
        if let Mixer::Attention(attention) = &layer.mixer {
            let shape = &attention.shape;
            let [q, kv] = [shape.heads, shape.kv_heads].map(|heads| heads * shape.head_dim);
            sizes.extend([(false, q, hidden, 1), (false, kv, hidden, 1), (false, hidden, q, 1)]);
        }
        match &layer.mlp {
            Mlp::Dense { intermediate } => {
                sizes.extend([(false, *intermediate, hidden, 1), (false, hidden, *intermediate, 1)]);
            }
            Mlp::Moe(moe) => sizes.extend([
                (true, moe.intermediate, hidden, moe.experts),
                (false, hidden, moe.intermediate, moe.experts),
            ]),
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    let of = |format, (pair, n, k, matrices): (bool, usize, usize, usize)| {
        (Kind { format, pair, n, k: k.next_multiple_of(STEP) }, matrices)
    };
    Format::ALL.iter().flat_map(|format| sizes.iter().map(move |size| of(*format, *size))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHITECTURE: &str = "sm_90a";

    /// A folder of machine code with a table of two lines.
    fn folder() -> (tempfile::TempDir, Table) {
        let cubins = tempfile::tempdir().unwrap();
        let folder = cubins.path().join(ARCHITECTURE);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("matmul.cubin"), "code").unwrap();
        let kind = Kind { format: Format::Int4, pair: true, n: 768, k: 2048 };
        let line = |rows, tiles| Choice { kind, rows, tiles };
        let table = Table::new(vec![line(1, Tiles::Narrow), line(32, Tiles::Large)]);
        write(cubins.path(), ARCHITECTURE, "Made Up 1".to_owned(), &table).unwrap();
        (cubins, table)
    }

    fn refusal(cubins: &Path) -> String {
        let error = read(cubins, ARCHITECTURE).unwrap_err().to_string();
        assert!(error.contains("tiles.json") && error.contains("coterie bench --tune"), "{error}");
        error
    }

    #[test]
    fn a_table_that_was_written_is_read() {
        let (cubins, table) = folder();
        assert_eq!(read(cubins.path(), ARCHITECTURE).unwrap(), table);
        assert_eq!(read(cubins.path(), "sm_80").unwrap(), Table::default(), "another has none");
    }

    #[test]
    fn a_table_of_other_machine_code_is_refused() {
        let (cubins, _) = folder();
        fs::write(cubins.path().join(ARCHITECTURE).join("matmul.cubin"), "newer code").unwrap();
        assert!(refusal(cubins.path()).contains("other machine code"));
    }

    #[test]
    fn a_damaged_or_unknown_table_is_refused() {
        for (from, to, said) in [
            ("\"form\": 1", "\"form\": 2", "the form 2, this version reads 1"),
            ("int4", "int3", "a format that this version does not know"),
            ("large", "huge", "the tiles \"huge\""),
            ("\"gpu\"", "\"cpu\"", "unknown field `cpu`"),
            ("{", "", "no table of this version"),
        ] {
            let (cubins, _) = folder();
            let path = cubins.path().join(ARCHITECTURE).join(FILE);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            assert!(refusal(cubins.path()).contains(said), "{said}: {}", refusal(cubins.path()));
        }
    }

    #[test]
    fn experts_and_attention_of_a_model_are_measured_in_every_format() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/mixtral/plain");
        let config = Config::read(&golden).unwrap();
        let products = products(&config);
        let Mlp::Moe(moe) = &config.layers[0].mlp else { panic!("Mixtral has experts") };
        for format in Format::ALL {
            let up = Kind { format, pair: true, n: moe.intermediate, k: config.hidden.next_multiple_of(32) };
            assert!(products.contains(&(up, moe.experts)), "{up:?} in {products:?}");
        }
        let mut once = products.clone();
        once.dedup();
        assert_eq!(once, products, "layers are alike");
    }
}
