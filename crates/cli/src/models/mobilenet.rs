//! `layers/mobilenet-v2`: the backbone with its ImageNet head, under torchvision's names.

use anyhow::{Context, Result};
use candle_core::{D, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::softmax;
use serde_json::{Value as Json, json};
use zoo_core::{Classification, FrameSize, Image, ModelInfo, Status, Tally, WeightSpec, Weights, labels};
use zoo_hub::{Checkpoint, resolve};
use zoo_layers::{Classifier, MobileNetV2Config};
use zoo_vision::Preprocess;

use super::{Model, check_fit, random_weights};
use crate::args::RunArgs;
use crate::exit::Outcome;
use crate::session::{Session, print_timings, still_timings};

const NAME: &str = "layers/mobilenet-v2";
const INPUT: FrameSize = FrameSize::new(224, 224);
/// Guesses that are reported.
const TOP: usize = 5;

pub struct MobileNet;

/// torchvision's weights.
struct ImageNet;

impl Weights for ImageNet {
    fn spec(&self) -> WeightSpec {
        let how = "get torchvision's mobilenet_v2-b0353104.pth, run `zoo convert mobilenet_v2-b0353104.pth --arch \
                   layers/mobilenet-v2 --licence BSD-3-Clause -o mobilenet-v2`, and pass --weights \
                   mobilenet-v2/model.safetensors";
        WeightSpec {
            name: format!("{NAME}/imagenet"),
            file: "mobilenet-v2-imagenet.safetensors".to_owned(),
            status: Status::Convert(how.to_owned()),
            size: None,
            sha256: None,
            license: "BSD-3-Clause".to_owned(),
            trained_on: "ImageNet-1k (images for non-commercial research)".to_owned(),
            metrics: vec![],
        }
    }
}

fn build(vb: VarBuilder) -> candle_core::Result<Classifier> {
    Classifier::new(&MobileNetV2Config::default(), labels::IMAGENET_1K.len(), vb)
}

impl Model for MobileNet {
    fn name(&self) -> &'static str {
        NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn infos(&self) -> Result<Vec<ModelInfo>> {
        let mut tally = Tally::new();
        build(VarBuilder::zeros(candle_core::DType::F32, &Device::Cpu))?.cost(INPUT, &mut tally);
        Ok(vec![ModelInfo {
            name: NAME.to_owned(),
            summary: "MobileNetV2 1.0 with its ImageNet-1k head, torchvision's names".to_owned(),
            task: "classification",
            input: INPUT,
            cost: tally.total(),
            weights: vec![ImageNet.spec()],
        }])
    }

    fn run(&self, _: Option<&str>, args: &RunArgs) -> Result<Outcome> {
        args.patchwork.refuse_for(NAME)?;
        let device = args.compute.start()?;
        let mut net = if args.weights.random {
            build(random_weights(args.weights.seed, &device))?
        } else {
            let options = args.weights.options(&device)?;
            zoo_hub::load(NAME, resolve(&ImageNet, &options)?.open()?, &options, build)?
        };
        net.prepare()?;
        let caveat = args.weights.random.then_some("random weights");
        let mut timings = still_timings();
        let outcome = Session::run(args, caveat, |session, input| {
            session.stills(input, args.batch, &mut timings, |images| classify(&net, images, &device))
        })?;
        if args.output.timings {
            print_timings(&timings);
        }
        Ok(outcome)
    }

    fn fit(&self, _: Option<&str>, checkpoint: Checkpoint) -> Result<Json> {
        check_fit(NAME, checkpoint, build)?;
        Ok(json!({
            "architecture": NAME,
            "config": MobileNetV2Config::default(),
            "classes": labels::IMAGENET_1K.len(),
            "preprocess": Preprocess::IMAGENET,
        }))
    }
}

fn classify(net: &Classifier, images: &[Image], device: &Device) -> Result<Vec<Vec<Classification>>> {
    let inputs: Vec<Tensor> = images
        .iter()
        .map(|image| Ok(Preprocess::IMAGENET.tensor(image, device)?.0))
        .collect::<zoo_vision::Result<_>>()?;
    let scores = net.forward(&Tensor::cat(&inputs, 0)?).context("classifying")?;
    let rows = softmax(&scores, D::Minus1)?.to_vec2::<f32>()?;
    Ok(rows.iter().map(|row| best(row)).collect())
}

fn best(scores: &[f32]) -> Vec<Classification> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let guess =
        |(class_id, score)| Classification { class_id, label: labels::IMAGENET_1K.name(class_id), score };
    ranked.into_iter().take(TOP).map(guess).collect()
}
