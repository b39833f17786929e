//! The command line of `coterie bench gpu`.

use super::{Output, device, threads};
use clap::Args;
use coterie_api::launch::{Device, Quantization};
use std::path::PathBuf;

/// `coterie bench gpu`.
#[derive(Clone, Debug, Args)]
pub struct BenchGpuArgs {
    /// Folder with the model's config.json; weights are random, and none is read
    #[arg(long, value_name = "DIR")]
    pub config: PathBuf,
    /// How the weights are held: none, int8 or int4
    #[arg(long, default_value = Quantization::None.flag())]
    pub quantization: Quantization,
    /// Requests that decode at once, one figure each
    #[arg(long, value_name = "REQUESTS", value_delimiter = ',', default_values_t = [1, 16, 64], value_parser = number)]
    pub batch: Vec<usize>,
    /// Tokens of each prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = number)]
    pub context: usize,
    /// Steps in which all requests decode; the median is reported
    #[arg(long, value_name = "STEPS", default_value_t = 32, value_parser = number)]
    pub steps: usize,
    /// Rows of one step at most, as in serve
    #[arg(long, value_name = "TOKENS", default_value_t = 2048, value_parser = number)]
    pub step_tokens: usize,
    /// Bytes that the GPU's memory moves in a second, in GB; measured unless given
    #[arg(long, value_name = "GB/S", value_parser = rate)]
    pub bandwidth: Option<f64>,
    /// Folder of a model to load as well, and to time that. Where it has no weights, random ones are written there first
    #[arg(long, value_name = "DIR")]
    pub load: Option<PathBuf>,
    /// Layers of the model that is written there
    #[arg(long, value_name = "LAYERS", default_value_t = 4, value_parser = number)]
    pub load_layers: usize,
    /// What to compute on; cpu is for trying out the command itself
    #[arg(long, default_value = Device::Gpu.flag(), value_parser = device)]
    pub device: Device,
    /// Folder of the kernels' machine code for GPUs, which has a folder for each architecture
    /// [default: share/coterie/cubins beside the folder of this program]
    #[arg(long, value_name = "DIR", env = "COTERIE_CUBINS")]
    pub cubins: Option<PathBuf>,
    /// Start every kernel of a step by itself: no step is recorded and repeated as a CUDA graph
    #[arg(long)]
    pub no_cuda_graphs: bool,
    /// Threads of this process to compute with; 0 takes all cores
    #[arg(long, default_value_t = 0, value_parser = threads)]
    pub threads: usize,
    /// Form of the answer on stdout
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// More of anything than a GPU could have.
const MOST: usize = 1 << 24;

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MOST) => Ok(number),
        Ok(_) => Err(format!("must be between 1 and {MOST}")),
        Err(error) => Err(format!("{error}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate < f64::INFINITY => Ok(rate),
        Ok(_) => Err("must be more than 0".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_sizes_and_rates_are_refused() {
        for text in ["0", "-1", "18446744073709551615", "16777217", "x", ""] {
            assert!(number(text).is_err(), "{text}");
        }
        assert_eq!(number("16777216"), Ok(MOST));
        for text in ["0", "-3", "inf", "nan", "NaN", "fast"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(rate("3350.5"), Ok(3350.5));
    }
}
