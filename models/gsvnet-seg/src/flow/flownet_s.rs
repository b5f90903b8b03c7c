//! FlowNetS as FlowNet2 has it: Ilg et al., "FlowNet 2.0", CVPR 2017.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Pool, TransposedOptions, avg_pool2d, concat_channels};
use zoo_layers::{ConvNormAct, ConvSpec, TransposedConv};

const ACT: Activation = Activation::LeakyRelu(0.1);
/// Name, channels in and out, filter and stride of the encoder's layers.
const ENCODER: [(&str, usize, usize, usize, usize); 10] = [
    ("conv1", 6, 64, 7, 2),
    ("conv2", 64, 128, 5, 2),
    ("conv3", 128, 256, 5, 2),
    ("conv3_1", 256, 256, 3, 1),
    ("conv4", 256, 512, 3, 2),
    ("conv4_1", 512, 512, 3, 1),
    ("conv5", 512, 512, 3, 2),
    ("conv5_1", 512, 512, 3, 1),
    ("conv6", 512, 1024, 3, 2),
    ("conv6_1", 1024, 1024, 3, 1),
];
/// Number, the encoder's layer beside it (of [`ENCODER`]) and channels of the decoder's levels.
const LEVELS: [(usize, usize, usize); 4] = [(5, 7, 512), (4, 5, 256), (3, 3, 128), (2, 1, 64)];
const DOUBLED: TransposedOptions = TransposedOptions { stride: 2, padding: 0, output_padding: 0 };
/// Before the last prediction, so that the flow ends at an eighth of the input.
const HALVED: Pool = Pool::square(2, 2, 0);

/// An encoder, and a decoder that refines the flow level by level.
#[derive(Debug, Clone)]
pub struct FlowNetS {
    encoder: Vec<ConvNormAct>,
    /// The flow of the encoder's last map.
    coarsest: ConvNormAct,
    levels: Vec<Level>,
}

/// One level of the decoder.
#[derive(Debug, Clone)]
struct Level {
    number: usize,
    /// Of [`ENCODER`].
    beside: usize,
    upsampled_flow: TransposedConv,
    deconv: TransposedConv,
    predict_flow: ConvNormAct,
}

fn predict(number: usize, channels: usize, vb: &VarBuilder) -> Result<ConvNormAct> {
    let spec = ConvSpec::dense3(channels, 2, 1, 0.0, Activation::None);
    ConvNormAct::biased(spec, vb.pp(format!("predict_flow{number}")))
}

impl FlowNetS {
    pub(super) fn new(vb: VarBuilder) -> Result<Self> {
        let encoder = ENCODER.iter().map(|&(name, inputs, outputs, kernel, stride)| {
            let spec = ConvSpec::dense(inputs, outputs, kernel, stride, 0.0, ACT);
            ConvNormAct::biased(spec, vb.pp(name).pp(0))
        });
        let mut channels = ENCODER[ENCODER.len() - 1].2;
        let mut levels = Vec::with_capacity(LEVELS.len());
        let coarsest = predict(6, channels, &vb)?;
        for (number, beside, outputs) in LEVELS {
            let name = format!("upsampled_flow{}_to_{number}", number + 1);
            let deconv = vb.pp(format!("deconv{number}")).pp(0);
            let upsampled_flow = TransposedConv::new((2, 2), 4, DOUBLED, Activation::None, vb.pp(name))?;
            let deconv = TransposedConv::new((channels, outputs), 4, DOUBLED, ACT, deconv)?;
            channels = ENCODER[beside].2 + outputs + 2;
            let predict_flow = predict(number, channels, &vb)?;
            levels.push(Level { number, beside, upsampled_flow, deconv, predict_flow });
        }
        Ok(Self { encoder: encoder.collect::<Result<_>>()?, coarsest, levels })
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.encoder.iter_mut().chain([&mut self.coarsest]).try_for_each(ConvNormAct::prepare)?;
        self.levels.iter_mut().try_for_each(|level| {
            level.upsampled_flow.prepare()?;
            level.deconv.prepare()?;
            level.predict_flow.prepare()
        })
    }

    /// `[B, 6, h, w]`, the frame's predecessor first. Result: `[B, 2, h/8, w/8]`.
    pub(super) fn forward(&self, frames: &Tensor) -> Result<Tensor> {
        self.forward_probed(frames, &mut |_, _| Ok(()))
    }

    /// [`FlowNetS::forward`], showing the encoder's maps by their layers' names, `upsampled_flow{n+1}_to_{n}` and
    /// `deconv{n}` before they are cropped, and `predict_flow{n}`.
    pub(crate) fn forward_probed(&self, frames: &Tensor, probe: crate::Probe) -> Result<Tensor> {
        let mut encoded: Vec<Tensor> = Vec::with_capacity(self.encoder.len());
        for (layer, (name, ..)) in self.encoder.iter().zip(ENCODER) {
            let ys = layer.forward(encoded.last().unwrap_or(frames))?;
            probe(name, &ys)?;
            encoded.push(ys);
        }
        let mut xs = encoded[encoded.len() - 1].clone();
        let mut flow = self.coarsest.forward(&xs)?;
        probe("predict_flow6", &flow)?;
        for level in &self.levels {
            let beside = &encoded[level.beside];
            let (_, _, h, w) = beside.dims4()?;
            // Transposed without padding, maps are two pixels larger than twice: their top left part counts.
            let cropped = |map: &Tensor| map.narrow(2, 0, h)?.narrow(3, 0, w);
            let upsampled = level.upsampled_flow.forward(&flow)?;
            probe(&format!("upsampled_flow{}_to_{}", level.number + 1, level.number), &upsampled)?;
            let decoded = level.deconv.forward(&xs)?;
            probe(&format!("deconv{}", level.number), &decoded)?;
            xs = concat_channels(&[beside, &cropped(&decoded)?, &cropped(&upsampled)?])?;
            if level.number == 2 {
                flow = level.predict_flow.forward(&avg_pool2d(&xs, HALVED, true)?)?;
            } else {
                flow = level.predict_flow.forward(&xs)?;
                probe(&format!("predict_flow{}", level.number), &flow)?;
            }
        }
        Ok(flow)
    }

    pub(super) fn cost(&self, low: FrameSize, tally: &mut Tally) {
        let mut sizes: Vec<FrameSize> = Vec::with_capacity(self.encoder.len());
        for layer in &self.encoder {
            let size = layer.cost(sizes.last().copied().unwrap_or(low), tally);
            sizes.push(size);
        }
        let mut size = sizes[sizes.len() - 1];
        self.coarsest.cost(size, tally);
        for level in &self.levels {
            level.upsampled_flow.cost(size, tally);
            level.deconv.cost(size, tally);
            size = sizes[level.beside];
            let halved = FrameSize::new(size.height / 2, size.width / 2);
            level.predict_flow.cost(if level.number == 2 { halved } else { size }, tally);
        }
    }
}
