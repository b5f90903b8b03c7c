//! A net on variables.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use gsvnet_seg::{FrameSize, GsvNet, PropagationConfig, Schedule, ScoreNet};
use zoo_core::Tally;
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec};

use crate::support::{seed, values};

pub const CLASSES: usize = 4;

/// A net for key frames that could learn, if it were asked to.
#[derive(Debug, Clone)]
pub struct Keyframe(ConvNormAct);

impl ScoreNet for Keyframe {
    fn classes(&self) -> usize {
        CLASSES
    }

    fn check_input(&self, size: FrameSize) -> Result<()> {
        if !size.width.is_multiple_of(4) {
            candle_core::bail!("keyframe: a width of {} is no multiple of 4", size.width)
        }
        Ok(())
    }

    fn scores(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }

    fn tally(&self, _: FrameSize, _: &mut Tally) {}
}

/// A net on variables, all with their seeded values.
pub struct Model {
    pub vars: VarMap,
    pub net: GsvNet<Keyframe>,
}

impl Model {
    pub fn new() -> Self {
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let spec = ConvSpec::dense(3, CLASSES, 4, 4, 1e-5, Activation::None);
        let segnet = vb.pp("segnet");
        let keyframe = Keyframe(ConvNormAct::new(spec, segnet.pp("conv"), segnet.pp("bn")).unwrap());
        let net = GsvNet::around(keyframe, &PropagationConfig::default(), Schedule::default(), vb).unwrap();
        seed(&vars);
        Self { vars, net }
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.vars.data().lock().unwrap().keys().cloned().collect();
        names.sort();
        names
    }

    pub fn value(&self, name: &str) -> Vec<f32> {
        values(&self.vars.data().lock().unwrap()[name].as_detached_tensor())
    }

    /// The gradient's largest value; `None` where there is no gradient.
    pub fn gradient(&self, gradients: &GradStore, name: &str) -> Option<f32> {
        let data = self.vars.data().lock().unwrap();
        let gradient = gradients.get(data[name].as_tensor())?;
        Some(values(gradient).into_iter().fold(0.0, |largest, g| largest.max(g.abs())))
    }
}
