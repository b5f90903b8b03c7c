//! Groups of arguments that several commands share.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use candle_core::Device;
use clap::Args;
use zoo_core::FrameSize;
use zoo_hub::LoadOptions;

use crate::exit::{Usage, note};
use crate::models::{gsvnet, packdet, patchwork};
use crate::view_args::{SegmentArgs, ViewArgs};

/// Where and how to compute.
#[derive(Debug, Args)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArgs {
    /// cpu, cuda, cuda:N, or auto (CUDA if this build and machine have it)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceChoice,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
}

impl ComputeArgs {
    /// Sets the number of threads and opens the device. Has to come before any computation.
    pub fn start(&self) -> Result<Device> {
        zoo_kernels::keep_freed_memory();
        if let Some(threads) = self.threads {
            // candle's convolutions and matrix products, our kernels and all else run on this pool.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build_global().context("setting the number of threads")?;
        }
        self.device.open()
    }
}

/// What `--device` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceChoice {
    Cpu,
    Cuda(usize),
    Auto,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || "expected cpu, cuda, cuda:N or auto".to_owned();
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            None if text == "auto" => Ok(Self::Auto),
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl DeviceChoice {
    fn open(self) -> Result<Device> {
        let built_in = cfg!(feature = "cuda");
        match self {
            Self::Cuda(_) if !built_in => Err(Usage::error(
                "this build has no CUDA support: build with `--features cuda`, or use --device cpu",
            )),
            Self::Cuda(number) => {
                Device::new_cuda(number).with_context(|| format!("opening CUDA device {number}"))
            }
            Self::Auto if built_in => Ok(Device::new_cuda(0).unwrap_or_else(|error| {
                note(format_args!("no CUDA device ({error}): computing on the CPU"));
                Device::Cpu
            })),
            Self::Auto | Self::Cpu => Ok(Device::Cpu),
        }
    }
}

/// Which weights.
#[derive(Debug, Args)]
#[command(next_help_heading = "Weights")]
pub struct WeightArgs {
    /// A safetensors file to use instead of the published weights
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Random weights, for models that nobody has trained; results say so and mean nothing
    #[arg(long, conflicts_with = "weights")]
    pub random: bool,
    /// Of the random weights, and of policy `random`
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

impl WeightArgs {
    /// As the loaders take it.
    pub fn options(&self, device: &Device) -> Result<LoadOptions> {
        let options = LoadOptions::default().with_device(device.clone());
        match &self.weights {
            Some(path) => {
                refuse_pickle(path)?;
                Ok(options.with_weights(path))
            }
            None => Ok(options),
        }
    }
}

/// A PyTorch checkpoint is a program; it is read as data by `zoo convert`, once, and never at run time.
fn refuse_pickle(path: &Path) -> Result<()> {
    let name = path.display();
    let mut start = [0; 4];
    let mut file =
        File::open(path).with_context(|| format!("cannot open the weights {name}: check the path"))?;
    let read = file.read(&mut start).with_context(|| format!("cannot read the weights {name}"))?;
    let is_zip = start == *b"PK\x03\x04";
    let is_pickle = read > 1 && start[0] == 0x80 && (2..=5).contains(&start[1]);
    if is_zip || is_pickle {
        return Err(Usage::error(format_args!(
            "{name} is a PyTorch checkpoint, which is never read at run time: make a safetensors file of it \
             with `zoo convert {name} -o DIR`, then pass --weights DIR/model.safetensors"
        )));
    }
    Ok(())
}

/// The inputs themselves stand among the arguments of the command's help, their options under this.
const INPUT: &str = "Input";

/// What to look at.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// Pictures, folders, patterns ('*.jpg'), clips (Y4M, GIF, APNG; other video with feature ffmpeg), - for
    /// standard input
    #[arg(value_name = "INPUT", required_unless_present = "selftest")]
    pub inputs: Vec<String>,
    /// Pictures or frames of each input, from its start
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = INPUT)]
    pub limit: Option<usize>,
    /// Take every frame as a picture of its own, folders and clips included
    #[arg(long, help_heading = INPUT)]
    pub stills: bool,
}

/// What to do with results.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Folder for pictures and masks [default: out; with --json none are written unless this is given]
    #[arg(short = 'o', long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write no pictures
    #[arg(long, conflicts_with = "out")]
    no_draw: bool,
    /// Leave out objects below this score
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = share)]
    pub score: f32,
    /// Print one JSON object a picture or frame
    #[arg(long)]
    pub json: bool,
    /// Write boxes as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write boxes in COCO's results format; image ids are the files' names where these are numbers, else
    /// they count from 0
    #[arg(long, value_name = "FILE")]
    pub coco: Option<PathBuf>,
    /// Write masks in the numbers of the data set's own files, as its benchmark takes them (Cityscapes: label
    /// ids), instead of class indices
    #[arg(long)]
    pub ids: bool,
    /// Add the time of each result, and a table of times after single pictures and after each clip
    #[arg(long)]
    pub timings: bool,
}

impl OutputArgs {
    /// The folder for pictures, if any are wanted.
    pub fn pictures(&self) -> Option<&Path> {
        let unasked = (!self.no_draw && !self.json).then_some(Path::new("out"));
        self.out.as_deref().or(unasked)
    }
}

/// Everything that running a model takes, in the order of its help: what goes in and comes out, then the model's, then
/// how it is computed. Options that only one model has are a group of that model's
/// module, those of several models are groups in `view_args`; the others refuse them.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub view: ViewArgs,
    #[command(flatten)]
    pub segment: SegmentArgs,
    #[command(flatten)]
    pub patchwork: patchwork::StreamArgs,
    #[command(flatten)]
    pub gsvnet: gsvnet::GsvArgs,
    #[command(flatten)]
    pub packdet: packdet::PlaneArgs,
    #[command(flatten)]
    pub weights: WeightArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Pictures to process at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one, help_heading = "Computing")]
    pub batch: usize,
}

/// A count of 1 or more.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number of at least 1".to_owned())
}

fn share(text: &str) -> Result<f32, String> {
    let score = text.parse().ok().filter(|score| (0.0..=1.0).contains(score));
    score.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// `ROWSxCOLUMNS`, or one number for both.
pub fn frame_size(text: &str) -> Result<FrameSize, String> {
    let (height, width) = text.split_once(['x', '×']).unwrap_or((text, text));
    match (at_least_one(height), at_least_one(width)) {
        (Ok(height), Ok(width)) => Ok(FrameSize::new(height, width)),
        _ => Err("expected ROWSxCOLUMNS, such as 384x512".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_sizes_parse_or_say_what_is_expected() {
        for (text, device) in
            [("cpu", DeviceChoice::Cpu), ("cuda:1", DeviceChoice::Cuda(1)), ("auto", DeviceChoice::Auto)]
        {
            assert_eq!(text.parse(), Ok(device), "{text}");
        }
        for text in ["gpu", "cuda:", "cuda:x", "cpu:0", ""] {
            assert!(text.parse::<DeviceChoice>().is_err_and(|e| e.contains("cuda:N")), "{text}");
        }
        assert_eq!(frame_size("384x512"), Ok(FrameSize::new(384, 512)));
        assert_eq!(frame_size("300"), Ok(FrameSize::new(300, 300)));
        let printed = FrameSize::new(384, 512).to_string();
        assert_eq!(frame_size(&printed), Ok(FrameSize::new(384, 512)), "what is printed can be typed");
        for text in ["", "x", "0x3", "3x", "a"] {
            assert!(frame_size(text).is_err_and(|e| e.contains("384x512")), "{text}");
        }
    }
}
