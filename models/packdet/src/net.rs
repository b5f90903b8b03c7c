//! The whole net on tensors: backbone → pyramid → head.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, DeviceLocation, Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{Backbone as _, Cost, FrameSize, Tally};
use zoo_layers::{Fpn, FpnConfig, FpnNames, MobileNetV2, ResNet, Tap, Trunk, ZeroBorder};

use crate::Probe;
use crate::config::{BackboneConfig, Config, Flavour};
use crate::head::{Frame, Head};
use crate::plane::level_sizes;
use crate::raw::{BoxUnits, RawMaps};

/// Features of MobileNetV2 that the golden files call c2 … c5; the pyramid is built over the last three.
const MOBILENET_TAPS: [usize; 4] = [3, 6, 13, 17];

/// A detector up to its raw outputs.
#[derive(Debug, Clone)]
pub struct PackDetNet {
    config: Config,
    body: Body,
    fpn: Fpn,
    head: Head,
    /// The last input's: one size comes after another rarely.
    last: Arc<Mutex<Last>>,
}

type Key = (FrameSize, DType, DeviceLocation);
type Last = Option<(Key, Arc<Frame>)>;

#[derive(Debug, Clone)]
enum Body {
    ResNet(Box<ResNet>),
    MobileNetV2(Box<MobileNetV2>),
}

impl Body {
    /// c3, c4 and c5. The one before, the largest, is shown and not kept.
    fn forward(&self, xs: &Tensor, probe: Probe) -> Result<Vec<Tensor>> {
        let mut maps = Vec::with_capacity(MOBILENET_TAPS.len() - 1);
        let mut level = 1;
        let mut keep = |ys: &Tensor| {
            level += 1;
            if level > 2 {
                maps.push(ys.clone());
            }
            format!("c{level}")
        };
        match self {
            Self::ResNet(net) => {
                net.forward(xs, &mut |name, ys| match name {
                    "stem" => probe(name, ys),
                    _ => probe(&keep(ys), ys),
                })?;
            }
            Self::MobileNetV2(net) => {
                net.forward(xs, &mut ZeroBorder, &[], &mut |tap, ys| match tap {
                    Tap::Feature(i) if MOBILENET_TAPS.contains(&i) => probe(&keep(ys), ys),
                    _ => Ok(()),
                })?;
            }
        }
        Ok(maps)
    }

    fn prepare(&mut self) -> Result<()> {
        match self {
            Self::ResNet(net) => net.prepare(),
            Self::MobileNetV2(net) => net.prepare(),
        }
    }

    fn cost(&self, input: FrameSize, tally: &mut Tally) {
        match self {
            Self::ResNet(net) => Trunk::cost(&**net, input, tally),
            Self::MobileNetV2(net) => {
                net.cost(input, tally);
            }
        }
    }
}

/// What each part of a net costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct PartCosts {
    /// The backbone.
    pub body: Cost,
    /// Scales and shifts of the backbone's batch norms, which are among its parameters; in ResNets they are frozen.
    pub norms: u64,
    /// The pyramid.
    pub fpn: Cost,
    /// The head.
    pub head: Cost,
}

impl PackDetNet {
    /// `vb` holds `backbone` and `rpn`, or `backbone` and `head` as torchvision has them, whose older names serve as well.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a tensor is missing or has another shape.
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        config.validate().map_err(candle_core::Error::wrap)?;
        let (vb_body, vb_fpn) = (vb.pp("backbone").pp("body"), vb.pp("backbone").pp("fpn"));
        let (body, info) = match &config.backbone {
            BackboneConfig::Resnet(cfg) => {
                let net = ResNet::new(cfg, vb_body)?;
                let info = net.info().to_vec();
                (Body::ResNet(Box::new(net)), info)
            }
            BackboneConfig::MobilenetV2(cfg) => {
                let net = MobileNetV2::without_last(cfg, vb_body)?;
                let info = net.info().to_vec();
                (Body::MobileNetV2(Box::new(net)), info)
            }
        };
        let mut fpn = config.fpn();
        if config.flavour == Flavour::Torchvision {
            let names = FpnNames::of(&vb_fpn).unwrap_or(fpn.names);
            fpn = FpnConfig { names, ..fpn };
        }
        let maps = info.get(1..).unwrap_or_default();
        Ok(Self {
            config: *config,
            body,
            fpn: Fpn::new(&fpn, maps, vb_fpn)?,
            head: Head::new(config, vb)?,
            last: Arc::default(),
        })
    }

    /// What was built.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Folds norms and packs weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.body.prepare()?;
        self.fpn.prepare()?;
        self.head.prepare()
    }

    /// `xs`: `[B, 3, H, W]`, normalised, both sides multiples of 32 and, where maps are packed, at least 64.
    ///
    /// Of a packed net each image's outputs depend on the size that it is padded to, whatever lies in the padding: norms
    /// and borders go over the whole plane.
    ///
    /// # Errors
    /// If the input's size does not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<RawMaps> {
        self.forward_probed(xs, BoxUnits::Pixels, &mut |_, _| Ok(()))
    }

    /// The same with distances in other units, for what is trained, and showing maps on the way: `stem`, `c2` … `c5`, `p3` …
    /// `p7`, `extra_p5` …, `fe_reduction`, `fe_block0` …, `fe`, `cls_tower`, `bbox_tower`, `bbox_pred_raw`, `logits`,
    /// `bbox_reg` and `centerness`; maps that are not packed with their number behind the name.
    ///
    /// # Errors
    /// If the input's size does not fit, and what `probe` returns.
    pub fn forward_probed(&self, xs: &Tensor, units: BoxUnits, probe: Probe) -> Result<RawMaps> {
        let (_, _, h, w) = xs.dims4()?;
        let frame = self.frame((FrameSize::new(h, w), xs.dtype(), xs.device().location()), xs)?;
        let maps = self.body.forward(xs, probe)?;
        let levels = self.fpn.forward(&maps)?;
        drop(maps);
        for (i, level) in levels.iter().enumerate() {
            probe(&format!("p{}", i + 3), level)?;
        }
        self.head.forward(levels, &frame, units, probe)
    }

    fn frame(&self, key: Key, xs: &Tensor) -> Result<Arc<Frame>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, frame)) = &*last
            && *known == key
        {
            return Ok(frame.clone());
        }
        let places = self.config.places(key.0).map_err(candle_core::Error::wrap)?;
        let frame = Arc::new(Frame::new(places, key.1, xs.device())?);
        *last = Some((key, frame.clone()));
        Ok(frame)
    }

    /// Parameters and operations of each part for an input of `input`.
    ///
    /// # Errors
    /// If the net does not take such inputs.
    pub fn part_costs(&self, input: FrameSize) -> crate::Result<PartCosts> {
        let [body, fpn, head] = self.tallies(input)?;
        let norms = body.layers().iter().map(|layer| layer.norm_params).sum();
        Ok(PartCosts { body: body.total(), norms, fpn: fpn.total(), head: head.total() })
    }

    /// Parameters and operations for an input of `input`.
    ///
    /// # Errors
    /// If the net does not take such inputs.
    pub fn cost(&self, input: FrameSize) -> crate::Result<Cost> {
        Ok(self.tallies(input)?.iter().map(Tally::total).sum())
    }

    /// The layers of a pass over an input of `input`.
    ///
    /// # Errors
    /// If the net does not take such inputs.
    pub fn tally(&self, input: FrameSize) -> crate::Result<Tally> {
        let mut tally = Tally::new();
        self.tallies(input)?.into_iter().for_each(|part| tally.append(part));
        Ok(tally)
    }

    fn tallies(&self, input: FrameSize) -> crate::Result<[Tally; 3]> {
        let places = self.config.places(input)?;
        let mut tallies = [const { Tally::new() }; 3];
        let [body, fpn, head] = &mut tallies;
        self.body.cost(input, body);
        let [p3, p4, p5, _, _] = level_sizes(input);
        self.fpn.cost(&[p3, p4, p5], fpn);
        self.head.cost(input, &places, head);
        Ok(tallies)
    }
}
