//! `zoo run | eval | bench hyperseg`.

use anyhow::Result;
use candle_core::{Device, Tensor};
use hyperseg::weights::{HyperSegWeights, config_of};
use hyperseg::{
    HyperSeg, HyperSegNet, MergeViews, ModelConfig, PartCosts, Preset, Pretrained as _, Segmenter as _, Views,
};
use zoo_core::Tally;
use zoo_kernels::on_pool;
use zoo_metrics::segment::IouRule;
use zoo_parity::seeded;

use super::{NAME, usage};
use crate::args::{RunArgs, WeightArgs};
use crate::commands::bench::{self, BenchArgs};
use crate::commands::eval::EvalArgs;
use crate::exit::{Outcome, note};
use crate::models::{random_weights, segmentation, without_weights};
use crate::session::{Session, print_timings, still_timings};
use crate::view_args::{Merge, SegmentArgs, ViewArgs};

/// Runs all inputs, clips frame by frame.
pub fn run(preset: Option<Preset>, args: &RunArgs) -> Result<Outcome> {
    args.patchwork.refuse_for(NAME)?;
    args.gsvnet.refuse_for(NAME)?;
    args.packdet.refuse_for(NAME)?;
    let device = args.compute.start()?;
    let model = loaded(preset, &args.weights, &device)?;
    let model = looking(model, &args.view, &args.segment)?;
    if !args.output.json {
        let (size, windows) = (model.pictures().size()?, model.views().windows.is_some());
        let how = if windows { "windows slide over pictures, of" } else { "pictures are fitted to" };
        note(format_args!("{how} {size:#}; --size takes another"));
    }
    let caveat = args.weights.random.then_some("random weights");
    let mut timings = still_timings();
    let outcome = Session::run(args, caveat, |session, input| {
        session.stills(input, args.batch, &mut timings, |images| Ok(model.segment(images)?))
    })?;
    if args.output.timings {
        print_timings(&timings);
    }
    Ok(outcome)
}

/// IoU on a labelled data set.
pub fn eval(preset: Option<Preset>, args: &EvalArgs) -> Result<()> {
    args.refuse_all_but_labelled_data(NAME)?;
    args.refuse_videos(NAME)?;
    let device = args.compute.start()?;
    let model = loaded(preset, &args.weights, &device)?;
    let model = looking(model, &args.view, &args.segment)?;
    let legend = &model.pictures().labels;
    segmentation::eval(legend, IouRule::HYPERSEG, args, |images| Ok(model.segment(images)?))
}

/// The net's pass at the paper's size.
pub fn bench(preset: Preset, args: &BenchArgs) -> Result<()> {
    let device = args.compute.start()?;
    let input = args.size.unwrap_or(preset.size());
    // Random weights: the time does not depend on them.
    let mut net = HyperSegNet::new(&preset.config(), random_weights(0, &device))?;
    net.prepare()?;
    net.check_size(input).map_err(usage)?;
    let PartCosts { backbone, head, maps, decoder } = net.costs(input);
    let mut tally = Tally::new();
    [backbone, head, maps, decoder].into_iter().for_each(|part| tally.append(part));
    let shape = [1, 3, input.height, input.width];
    let xs = Tensor::from_vec(seeded::input("xs", &shape)?, &shape, &device)?;
    bench::net(&format!("{NAME}/{}", preset.name()), input, &tally, args, || {
        on_pool(|| net.forward(&xs))?;
        Ok(device.synchronize()?)
    })
}

/// The model with the weights that were asked for, prepared.
fn loaded(preset: Option<Preset>, weights: &WeightArgs, device: &Device) -> Result<HyperSeg> {
    let options = weights.options(device)?;
    if weights.random {
        let config = ModelConfig::from(preset.unwrap_or_default());
        let mut model = HyperSeg::new(&config, random_weights(weights.seed, device)).map_err(usage)?;
        model.prepare()?;
        return Ok(model);
    }
    if let Some(path) = &weights.weights {
        let config = config_of(path, preset).map_err(usage)?;
        if let Some(preset) = preset.filter(|preset| preset.config() != config.net) {
            note(format_args!(
                "the config.json beside {} is of another net than {NAME}/{}: it decides",
                path.display(),
                preset.name()
            ));
        }
        return Ok(HyperSeg::from_file(&config, path, &options)?);
    }
    let preset = preset.unwrap_or_default();
    HyperSeg::from_pretrained(HyperSegWeights(preset), &options)
        .map_err(|error| without_weights(error, &format!("{NAME}/{}", preset.name())))
}

/// The model with what the command line says of pictures.
fn looking(model: HyperSeg, view: &ViewArgs, segment: &SegmentArgs) -> Result<HyperSeg> {
    let mut views = Views { mirrored: view.flip, windows: segment.slide, ..Views::default() };
    if !segment.scales.is_empty() {
        views.scales.clone_from(&segment.scales);
    }
    if segment.merge == Some(Merge::Max) {
        views.merge = MergeViews::Max;
    }
    let model = model.with_views(views).map_err(usage)?;
    match view.size {
        Some(size) => model.with_size(size).map_err(usage),
        None => Ok(model),
    }
}
