//! Single parts of the net.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;
use zoo_kernels::{Activation, Patchwise, patchwise_conv2d};
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use crate::config::{LevelShape, MapShape, Version, divide_channels};
use crate::net::context_head::{FullWidthHead, NestedHead};
use crate::net::decoder::{Level, LevelInput, position_map};
use crate::net::weight_map::WeightMap;

#[derive(Deserialize)]
struct LayersConfig {
    cases: Vec<LayerCase>,
}

#[derive(Deserialize)]
struct LayerCase {
    name: String,
    #[serde(flatten)]
    op: Op,
}

#[derive(Deserialize)]
#[serde(tag = "op", content = "config", rename_all = "snake_case")]
enum Op {
    PatchConv(PatchConv),
    MetaBlockV1(Block),
    MetaBlockV0_1(Block),
    LevelK1(Block),
    ContextHeadV1(Head),
    #[serde(rename = "weight_mapper_v0_1")]
    WeightMapper(Mapper),
    Coords {
        h: usize,
        w: usize,
    },
}

#[derive(Deserialize)]
struct PatchConv {
    out: usize,
    k: usize,
    groups: usize,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "in")]
    inputs: usize,
    out: usize,
    #[serde(default)]
    expand: Option<usize>,
    #[serde(default)]
    signal_channels: usize,
    #[serde(default)]
    signal_index: usize,
    #[serde(default)]
    groups: Option<usize>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "in")]
    channels: usize,
    levels: usize,
}

#[derive(Deserialize)]
struct Mapper {
    #[serde(rename = "in")]
    channels: usize,
    levels: usize,
    out: Vec<usize>,
    groups: usize,
    min_unit: usize,
}

pub(super) fn case(prepared: bool) -> Case {
    Case::new(["hyperseg-layers"], Tolerance::Approx, move |golden, device| {
        let LayersConfig { cases } = golden.config()?;
        let weights = golden.var_builder(DType::F32, device)?;
        let mut outputs = Outputs::new();
        for LayerCase { name, op } in &cases {
            let run = Run { golden, device, name, vb: weights.pp(name), prepared };
            run.push(op, &mut outputs)?;
        }
        Ok(outputs)
    })
}

/// One case.
struct Run<'a> {
    golden: &'a Golden,
    device: &'a Device,
    name: &'a str,
    vb: VarBuilder<'static>,
    prepared: bool,
}

impl Run<'_> {
    fn input(&self, name: &str) -> Result<Tensor, BoxError> {
        Ok(self.golden.input(&format!("{}.{name}", self.name), self.device)?)
    }

    fn push(self, op: &Op, outputs: &mut Outputs) -> Result<(), BoxError> {
        let ys = match op {
            Op::PatchConv(conv) => {
                let shape =
                    Patchwise { kernel: conv.k, groups: conv.groups, ..Patchwise::pointwise(conv.out) };
                patchwise_conv2d(&self.input("x")?, &self.input("w")?, shape, None, Activation::None)?
            }
            Op::MetaBlockV1(block) => self.level(Version::V1_0, block)?,
            Op::MetaBlockV0_1(block) => self.level(Version::V0_1, block)?,
            Op::LevelK1(block) => self.level(Version::V1_0, block)?,
            Op::ContextHeadV1(head) => {
                let mut net = NestedHead::new(head.channels, head.levels, self.vb.clone())?;
                if self.prepared {
                    net.prepare(false)?;
                }
                net.forward(&self.input("x")?)?
            }
            Op::WeightMapper(mapper) => return self.weight_mapper(mapper, outputs),
            &Op::Coords { h, w } => position_map(h, w, DType::F32, self.device)?,
        };
        Ok(outputs.push(format!("{}.out", self.name), &ys)?)
    }

    /// A level; where its weights come from a signal, folding passes through the mapping.
    fn level(&self, version: Version, block: &Block) -> Result<Tensor, BoxError> {
        let shape = LevelShape {
            feature: block.inputs,
            inputs: block.inputs,
            hidden: block.expand.map(|expand| block.inputs * expand),
            outputs: block.out,
            kernel: if block.expand.is_some() { 3 } else { 1 },
            widens: true,
        };
        let mut level = Level::new(version, &shape, self.vb.clone())?;
        let scales = if self.prepared { Some(level.fold()?) } else { None };
        let weights = match block.groups {
            Some(groups) => {
                let shape = MapShape {
                    levels: 0..1,
                    params: shape.params(),
                    groups,
                    split: block.signal_channels,
                    offset: block.signal_index,
                };
                let mut map = WeightMap::new(&shape, self.vb.pp("signal2weights"))?;
                if let Some(scales) = &scales {
                    map.prepare(scales)?;
                }
                map.forward(&self.input("s")?)?
            }
            None => match &scales {
                Some(scales) => self.input("w")?.broadcast_mul(&scales.reshape((1, (), 1, 1))?)?,
                None => self.input("w")?,
            },
        };
        Ok(level.forward(&LevelInput::single(&self.input("x")?), &weights)?)
    }

    /// The oldest version's context head, and the mappings inside it.
    fn weight_mapper(&self, mapper: &Mapper, outputs: &mut Outputs) -> Result<(), BoxError> {
        let &Mapper { channels, levels, groups, min_unit, .. } = mapper;
        let mut head = FullWidthHead::new(channels, levels, self.vb.clone())?;
        if self.prepared {
            head.prepare()?;
        }
        let signal = head.forward(&self.input("x")?)?;
        let rows: Vec<usize> = mapper.out.iter().map(|out| out.next_multiple_of(groups)).collect();
        let splits = divide_channels(Version::V0_1, channels, min_unit.max(groups), &rows)?;
        let mut offset = 0;
        for (k, (&params, split)) in mapper.out.iter().zip(splits).enumerate() {
            let shape = MapShape { levels: k..k + 1, params, groups, split, offset };
            let mut map = WeightMap::new(&shape, self.vb.pp("out_conv").pp(format!("conv_{k}")))?;
            if self.prepared {
                map.prepare(&Tensor::ones(params, DType::F32, self.device)?)?;
            }
            outputs.push(format!("{}.out.{k}", self.name), &map.forward(&signal)?)?;
            offset += split;
        }
        Ok(())
    }
}
