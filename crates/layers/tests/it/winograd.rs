//! Winograd's filtering, where it runs and where it does not.

use candle_core::{D, Tensor};
use zoo_kernels::without_winograd;
use zoo_layers::{Architecture, Classifier, EfficientNetConfig, MobileNetV2Config, ResNetConfig};

use crate::support::{input, relative_difference, weights};

/// Logits with it and without it.
fn logits(architecture: Architecture) -> [Tensor; 2] {
    let xs = input([2, 3, 120, 136]);
    let logits = || {
        let mut net = Classifier::new(architecture, 1000, weights()).unwrap();
        net.prepare().unwrap();
        net.forward(&xs).unwrap()
    };
    [logits(), without_winograd(logits)]
}

#[test]
fn resnets_logits_change_by_rounding_only() {
    for cfg in [ResNetConfig::resnet18(), ResNetConfig::resnet50()] {
        let [with, without] = logits(Architecture::ResNet(cfg));
        let difference = relative_difference(&with, &without);
        assert!(difference > 0.0, "{:?}: no layer uses it", cfg.block);
        assert!(difference < 1e-4, "{:?}: {difference:.1e} of the largest logit", cfg.block);
        let best = |logits: &Tensor| {
            let order = logits.arg_sort_last_dim(false).unwrap();
            order.narrow(D::Minus1, 0, 5).unwrap().to_vec2::<u32>().unwrap()
        };
        assert_eq!(best(&with), best(&without), "{:?}: the five best classes", cfg.block);
    }
}

#[test]
fn nets_without_dense_3x3_filters_of_stride_1_never_use_it() {
    for architecture in [
        Architecture::MobileNetV2(MobileNetV2Config::default()),
        Architecture::EfficientNet(EfficientNetConfig::b0()),
        Architecture::EfficientNet(EfficientNetConfig::lite0()),
    ] {
        let [with, without] = logits(architecture);
        assert_eq!(relative_difference(&with, &without), 0.0, "{architecture:?}");
    }
}
