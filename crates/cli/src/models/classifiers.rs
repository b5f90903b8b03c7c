//! `layers/…`: backbones with their ImageNet heads, under the names of the projects that trained them.

use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::softmax;
use serde_json::{Value as Json, json};
use zoo_core::{Classification, FrameSize, Image, ModelInfo, Status, Tally, WeightSpec, Weights, labels};
use zoo_hub::{Checkpoint, LoadOptions, resolve};
use zoo_kernels::on_pool;
use zoo_layers::{
    Architecture, Classifier, EfficientNetConfig, EfficientNetNames, MobileNetV2Config, ResNetConfig,
};
use zoo_parity::seeded;
use zoo_vision::{Fit, Normalization, Preprocess, Resize};

use super::{Model, random_weights};
use crate::args::RunArgs;
use crate::commands::bench::{self, BenchArgs};
use crate::exit::Outcome;
use crate::session::{Session, print_timings, still_timings};

/// Guesses that are reported.
const TOP: usize = 5;
/// Caffe's nets take values from 0 to 255 less the mean of each colour.
const CAFFE: Normalization = Normalization::Caffe { mean: [103.939, 116.779, 123.68] };

/// All classifiers.
pub static ALL: [ImageNet; 19] = [
    torchvision(
        "layers/mobilenet-v2",
        "MobileNetV2 1.0",
        Architecture::MobileNetV2(MobileNetV2Config::torchvision()),
        "mobilenet_v2-b0353104.pth",
        (256, 224),
    ),
    torchvision(
        "layers/resnet18",
        "ResNet-18",
        resnet(ResNetConfig::resnet18()),
        "resnet18-f37072fd.pth",
        (256, 224),
    ),
    torchvision(
        "layers/resnet34",
        "ResNet-34",
        resnet(ResNetConfig::resnet34()),
        "resnet34-b627a593.pth",
        (256, 224),
    ),
    torchvision(
        "layers/resnet50",
        "ResNet-50",
        resnet(ResNetConfig::resnet50()),
        "resnet50-0676ba61.pth",
        (256, 224),
    ),
    torchvision(
        "layers/resnet101",
        "ResNet-101",
        resnet(ResNetConfig::resnet101()),
        "resnet101-63fe2227.pth",
        (256, 224),
    ),
    torchvision(
        "layers/resnext50-32x4d",
        "ResNeXt-50 32×4d",
        resnet(ResNetConfig::resnext50_32x4d()),
        "resnext50_32x4d-7cdf4587.pth",
        (256, 224),
    ),
    torchvision(
        "layers/resnext101-64x4d",
        "ResNeXt-101 64×4d",
        resnet(ResNetConfig::resnext101_64x4d()),
        "resnext101_64x4d-173b62eb.pth",
        (232, 224),
    ),
    ImageNet {
        name: "layers/resnet50-caffe",
        title: "ResNet-50 as Caffe has it: stride in the first 1×1, input in BGR",
        architecture: resnet(ResNetConfig { stride_in_1x1: true, bn_eps: 1e-3, ..ResNetConfig::resnet50() }),
        origin: Origin::Converted { script: "resnet50_caffe.py", licence: "MIT" },
        crop: (256, 224),
        normalization: CAFFE,
    },
    torchvision(
        "layers/efficientnet-b0",
        "EfficientNet-B0",
        efficientnet(EfficientNetConfig::b0()),
        "efficientnet_b0_rwightman-7f5810bc.pth",
        (256, 224),
    ),
    torchvision(
        "layers/efficientnet-b1",
        "EfficientNet-B1",
        efficientnet(EfficientNetConfig::b1()),
        "efficientnet_b1_rwightman-bac287d4.pth",
        (256, 240),
    ),
    torchvision(
        "layers/efficientnet-b2",
        "EfficientNet-B2",
        efficientnet(EfficientNetConfig::b2()),
        "efficientnet_b2_rwightman-c35c1473.pth",
        (288, 288),
    ),
    torchvision(
        "layers/efficientnet-b3",
        "EfficientNet-B3",
        efficientnet(EfficientNetConfig::b3()),
        "efficientnet_b3_rwightman-b3899882.pth",
        (320, 300),
    ),
    tensorflow(
        "layers/tf-efficientnet-b0",
        "EfficientNet-B0",
        EfficientNetConfig::b0(),
        "timm/tf_efficientnet_b0.ns_jft_in1k",
        (256, 224),
    ),
    tensorflow(
        "layers/tf-efficientnet-b1",
        "EfficientNet-B1",
        EfficientNetConfig::b1(),
        "timm/tf_efficientnet_b1.ns_jft_in1k",
        (272, 240),
    ),
    tensorflow(
        "layers/tf-efficientnet-b2",
        "EfficientNet-B2",
        EfficientNetConfig::b2(),
        "timm/tf_efficientnet_b2.ns_jft_in1k",
        (292, 260),
    ),
    tensorflow(
        "layers/tf-efficientnet-b3",
        "EfficientNet-B3",
        EfficientNetConfig::b3(),
        "timm/tf_efficientnet_b3.ns_jft_in1k",
        (331, 300),
    ),
    lite("layers/efficientnet-lite0", "EfficientNet-Lite0", EfficientNetConfig::lite0(), (256, 224)),
    lite("layers/efficientnet-lite1", "EfficientNet-Lite1", EfficientNetConfig::lite1(), (272, 240)),
    lite("layers/efficientnet-lite2", "EfficientNet-Lite2", EfficientNetConfig::lite2(), (292, 260)),
];

const fn resnet(cfg: ResNetConfig) -> Architecture {
    Architecture::ResNet(cfg)
}

const fn efficientnet(cfg: EfficientNetConfig) -> Architecture {
    Architecture::EfficientNet(cfg)
}

const fn torchvision(
    name: &'static str,
    title: &'static str,
    architecture: Architecture,
    file: &'static str,
    crop: (usize, usize),
) -> ImageNet {
    ImageNet {
        name,
        title,
        architecture,
        origin: Origin::Torchvision(file),
        crop,
        normalization: Normalization::IMAGENET,
    }
}

const fn tensorflow(
    name: &'static str,
    title: &'static str,
    cfg: EfficientNetConfig,
    repository: &'static str,
    crop: (usize, usize),
) -> ImageNet {
    ImageNet {
        name,
        title,
        architecture: efficientnet(cfg.tensorflow(EfficientNetNames::Timm)),
        origin: Origin::Hub(repository),
        crop,
        normalization: Normalization::IMAGENET,
    }
}

const fn lite(
    name: &'static str,
    title: &'static str,
    cfg: EfficientNetConfig,
    crop: (usize, usize),
) -> ImageNet {
    ImageNet {
        name,
        title,
        architecture: efficientnet(cfg),
        origin: Origin::Package { script: "efficientnet_lite.py", licence: "Apache-2.0" },
        crop,
        normalization: Normalization::HALF,
    }
}

/// A backbone with the head that it was trained with on ImageNet-1k.
pub struct ImageNet {
    name: &'static str,
    title: &'static str,
    architecture: Architecture,
    origin: Origin,
    /// Shorter side after resizing, side of the square cut from the middle.
    crop: (usize, usize),
    normalization: Normalization,
}

/// Who has the weights.
enum Origin {
    /// A `.pth` file of torchvision.
    Torchvision(&'static str),
    /// A repository on the Hugging Face Hub whose revision is not pinned here.
    Hub(&'static str),
    /// A `.pth` file in a package that a script under `scripts/weights` fetches.
    Package { script: &'static str, licence: &'static str },
    /// A package that a script there fetches and converts.
    Converted { script: &'static str, licence: &'static str },
}

impl Weights for ImageNet {
    fn spec(&self) -> WeightSpec {
        let short = self.short_name();
        let convert = |file: &str, licence: &str| {
            format!(
                "run `zoo convert {file} --arch {} --licence {licence} -o {short}`, and pass --weights \
                 {short}/model.safetensors",
                self.name
            )
        };
        let (how, license) = match self.origin {
            Origin::Torchvision(file) => {
                let licence = "BSD-3-Clause";
                (format!("get torchvision's {file}, {}", convert(file, licence)), licence)
            }
            Origin::Hub(repository) => (
                format!(
                    "run `zoo fetch {repository}@main model.safetensors`, and pass the file's path as --weights"
                ),
                "Apache-2.0",
            ),
            Origin::Package { script, licence } => {
                (format!("get FILE with scripts/weights/{script}, {}", convert("FILE", licence)), licence)
            }
            Origin::Converted { script, licence } => {
                (format!("run scripts/weights/{script} FILE, and pass --weights FILE"), licence)
            }
        };
        WeightSpec {
            name: format!("{}/imagenet", self.name),
            file: format!("{short}-imagenet.safetensors"),
            status: Status::Convert(how),
            size: None,
            sha256: None,
            license: license.to_owned(),
            trained_on: "ImageNet-1k (images for non-commercial research)".to_owned(),
            metrics: vec![],
        }
    }
}

impl ImageNet {
    fn short_name(&self) -> &'static str {
        self.name.rsplit_once('/').map_or(self.name, |(_, short)| short)
    }

    fn input(&self) -> FrameSize {
        FrameSize::new(self.crop.1, self.crop.1)
    }

    fn preprocess(&self) -> Preprocess {
        let fit = Fit::CenterCrop { shorter: self.crop.0, size: self.input() };
        Preprocess { fit, resize: Resize::Pil, normalization: self.normalization }
    }

    /// The architecture, under the names that `vb` has.
    fn architecture(&self, vb: &VarBuilder) -> Architecture {
        match (self.architecture, EfficientNetNames::of(vb)) {
            (Architecture::EfficientNet(cfg), Some(names)) => efficientnet(cfg.with_names(names)),
            (architecture, _) => architecture,
        }
    }

    fn build(&self, vb: VarBuilder) -> candle_core::Result<Classifier> {
        Classifier::new(self.architecture(&vb), labels::IMAGENET_1K.len(), vb)
    }

    /// `[B, 3, H, W]`, as the net was trained on.
    fn inputs(&self, images: &[Image], device: &Device) -> Result<Tensor> {
        let preprocess = self.preprocess();
        let inputs: Vec<Tensor> = images
            .iter()
            .map(|image| Ok(preprocess.tensor(image, device)?.0))
            .collect::<zoo_vision::Result<_>>()?;
        Ok(Tensor::cat(&inputs, 0)?)
    }

    fn classify(
        &self,
        net: &Classifier,
        images: &[Image],
        device: &Device,
    ) -> Result<Vec<Vec<Classification>>> {
        let scores = net.forward(&self.inputs(images, device)?).context("classifying")?;
        let rows = softmax(&scores, D::Minus1)?.to_vec2::<f32>()?;
        Ok(rows.iter().map(|row| best(row)).collect())
    }
}

impl Model for ImageNet {
    fn name(&self) -> &'static str {
        self.name
    }

    fn presets(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn infos(&self) -> Result<Vec<ModelInfo>> {
        let mut tally = Tally::new();
        self.build(VarBuilder::zeros(DType::F32, &Device::Cpu))?.cost(self.input(), &mut tally);
        Ok(vec![ModelInfo {
            name: self.name.to_owned(),
            summary: format!("{} with its ImageNet-1k head", self.title),
            task: "classification",
            input: self.input(),
            cost: tally.total(),
            weights: vec![self.spec()],
        }])
    }

    fn run(&self, _: Option<&str>, args: &RunArgs) -> Result<Outcome> {
        args.patchwork.refuse_for(self.name)?;
        args.gsvnet.refuse_for(self.name)?;
        args.packdet.refuse_for(self.name)?;
        args.view.refuse_for(self.name)?;
        args.segment.refuse_for(self.name)?;
        let device = args.compute.start()?;
        let mut net = if args.weights.random {
            self.build(random_weights(args.weights.seed, &device))?
        } else {
            let options = args.weights.options(&device)?;
            zoo_hub::load(self.name, resolve(self, &options)?.open()?, &options, |vb| self.build(vb))?
        };
        net.prepare()?;
        let caveat = args.weights.random.then_some("random weights");
        let mut timings = still_timings();
        let outcome = Session::run(args, caveat, |session, input| {
            session.stills(input, args.batch, &mut timings, |images| self.classify(&net, images, &device))
        })?;
        if args.output.timings {
            print_timings(&timings);
        }
        Ok(outcome)
    }

    fn bench(&self, _: Option<&str>, args: &BenchArgs) -> Result<()> {
        let device = args.compute.start()?;
        let input = args.size.unwrap_or(self.input());
        // Random weights: the time does not depend on them.
        let mut net = self.build(random_weights(0, &device))?;
        net.prepare()?;
        let mut tally = Tally::new();
        net.cost(input, &mut tally);
        let shape = [1, 3, input.height, input.width];
        let xs = Tensor::from_vec(seeded::input("xs", &shape)?, &shape, &device)?;
        bench::net(self.name, input, &tally, args, || {
            on_pool(|| net.forward(&xs))?;
            Ok(device.synchronize()?)
        })
    }

    fn fit(&self, _: Option<&str>, checkpoint: Checkpoint) -> Result<Json> {
        let config = zoo_hub::load(self.name, checkpoint, &LoadOptions::default(), |vb| {
            let architecture = self.architecture(&vb);
            self.build(vb)?;
            Ok(architecture)
        })?;
        Ok(json!({
            "architecture": self.name,
            "config": config,
            "classes": labels::IMAGENET_1K.len(),
            "preprocess": self.preprocess(),
        }))
    }
}

fn best(scores: &[f32]) -> Vec<Classification> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let guess =
        |(class_id, score)| Classification { class_id, label: labels::IMAGENET_1K.name(class_id), score };
    ranked.into_iter().take(TOP).map(guess).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use zoo_layers::EfficientNet;

    use super::*;

    fn model(name: &str) -> &'static ImageNet {
        ALL.iter().find(|model| model.name == name).unwrap()
    }

    #[test]
    fn every_classifier_has_a_name_of_its_own_and_takes_images_of_its_size() {
        for (i, model) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.name != model.name), "{}", model.name);
            assert!(model.crop.0 >= model.crop.1, "{}: cannot crop {:?}", model.name, model.crop);
            if let Architecture::EfficientNet(cfg) = model.architecture {
                // torchvision trained B2 on larger images than the paper.
                let expected = if model.name == "layers/efficientnet-b2" { 288 } else { cfg.image_size };
                assert_eq!(model.crop.1, expected, "{}", model.name);
            }
        }
    }

    #[test]
    fn colours_come_as_the_net_was_trained_on_them() {
        let size = FrameSize::new(300, 300);
        let red = Image::new(size, [255, 0, 0].repeat(size.area())).unwrap();
        for (name, expected) in [
            ("layers/resnet50", [(1.0 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]),
            ("layers/resnet50-caffe", [-103.939, -116.779, 255.0 - 123.68]),
            ("layers/efficientnet-lite0", [1.0, -1.0, -1.0]),
        ] {
            let input = model(name).inputs(std::slice::from_ref(&red), &Device::Cpu).unwrap();
            assert_eq!(input.dims(), [1, 3, 224, 224], "{name}");
            let means = input.mean((0, 2, 3)).unwrap().to_vec1::<f32>().unwrap();
            for (got, want) in means.iter().zip(expected) {
                assert!((got - want).abs() < 1e-3 * want.abs().max(1.0), "{name}: {means:?}");
            }
        }
    }

    #[test]
    fn a_checkpoint_may_have_any_projects_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        for (names, config) in [
            (EfficientNetNames::Torchvision, json!({"names": "torchvision", "bn_eps": 1e-5})),
            (EfficientNetNames::Timm, json!({"names": "timm", "bn_eps": 1e-5})),
            (
                EfficientNetNames::EfficientNetPytorch,
                json!({"names": "efficientnet-pytorch", "bn_eps": 1e-3}),
            ),
        ] {
            let map = candle_nn::VarMap::new();
            let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
            let architecture = efficientnet(EfficientNetConfig::b0().with_names(names));
            Classifier::new(architecture, labels::IMAGENET_1K.len(), vb).unwrap();
            map.save(&path).unwrap();
            let model = model("layers/efficientnet-b0");
            let fitted = model.fit(None, Checkpoint::open(&path).unwrap()).unwrap();
            for (key, value) in config.as_object().unwrap() {
                assert_eq!(&fitted["config"][key], value, "{names:?}: {fitted}");
            }
        }
        // A body without its head is told from a whole file.
        let map = candle_nn::VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        EfficientNet::new(&EfficientNetConfig::b0(), vb).unwrap();
        map.save(&path).unwrap();
        let error = model("layers/efficientnet-b0").fit(None, Checkpoint::open(&path).unwrap()).unwrap_err();
        assert!(error.to_string().contains("2 missing"), "{error}");
    }

    #[test]
    fn what_to_do_for_weights_names_the_file_and_the_model() {
        let specs: HashMap<_, _> = ALL.iter().map(|model| (model.name, model.spec())).collect();
        for (name, parts) in [
            ("layers/resnet18", ["resnet18-f37072fd.pth", "--arch layers/resnet18 --licence BSD-3-Clause"]),
            (
                "layers/tf-efficientnet-b1",
                ["zoo fetch timm/tf_efficientnet_b1.ns_jft_in1k@main", "--weights"],
            ),
            ("layers/efficientnet-lite0", ["efficientnet_lite.py", "--arch layers/efficientnet-lite0"]),
        ] {
            let Status::Convert(how) = &specs[name].status else {
                panic!("{name}: {:?}", specs[name].status)
            };
            assert!(parts.iter().all(|part| how.contains(part)), "{name}: {how}");
        }
    }
}
