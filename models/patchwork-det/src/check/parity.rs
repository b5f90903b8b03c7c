//! The golden cases that `zoo parity` runs for this crate: nets, cell, post-processing, measures.

use candle_core::{DType, Device, Result as CandleResult, Tensor};
use serde::Deserialize;
use zoo_core::FrameSize;
use zoo_layers::{MobileNetV2Config, SamePadding, Surroundings, ZeroBorder};
use zoo_metrics::average_precision;
use zoo_metrics::davis::{Mask, boundary_measure, region_similarity};
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance, seeded};

use crate::anchors::{Anchor, AnchorConfig, anchors};
use crate::config::{DetectorConfig, SegmenterConfig};
use crate::postprocess::{Candidates, PostProcess};
use crate::{DetectorNet, Grid, Memories, SegmenterNet, Window, WindowedNet};

/// Whole nets: random deep nets amplify rounding; the references themselves sit up to 8e-5 from an
/// f64 run.
const NET: Tolerance = Tolerance::Golden { max_rel_absmax: 1e-3, mean_rel_absmax: 1e-4 };

/// The cases of this crate. Nets run as the loaders leave them, batch norm folded, if `prepared`;
/// otherwise as they are built.
pub fn cases(prepared: bool) -> Vec<Case> {
    let detector = Case::new(["patchwork_detector"], NET, move |golden, device| {
        let cfg: NetConfig = golden.config()?;
        match cfg.grid()? {
            Some(grid) => detector_stream(golden, device, &cfg, grid, prepared),
            None => detector_frame(golden, device, &cfg, prepared),
        }
    })
    .with_exceptions(|_, name| match name {
        "anchors" => Some(Tolerance::Close),
        name if name.ends_with(".seen") => Some(Tolerance::Exact),
        _ => None,
    });
    let segmenter = Case::new(["patchwork_segmenter"], NET, move |golden, device| {
        segmenter_stream(golden, device, prepared)
    })
    .with_exceptions(|_, name| name.ends_with(".seen").then_some(Tolerance::Exact));
    let cell = Case::new(["patchwork_cell"], Tolerance::Close, cell_steps);
    let post = Case::new(["patchwork_postprocess"], Tolerance::Close, post_process)
        .with_exceptions(|_, name| matches!(name, "det.class" | "det.anchor").then_some(Tolerance::Exact));
    let metrics = Case::new(["patchwork_metrics"], Tolerance::Close, measures)
        .with_exceptions(|_, name| (name == "boundary.0").then_some(Tolerance::Exact));
    vec![detector, segmenter, cell, post, metrics]
}

/// The configuration of a net's golden file.
#[derive(Deserialize)]
struct NetConfig {
    depth: f64,
    divisor: usize,
    pad: SamePadding,
    bn_eps: f64,
    frame: (usize, usize),
    #[serde(default)]
    classes: usize,
    #[serde(default)]
    width: usize,
    #[serde(default)]
    out: usize,
    #[serde(rename = "M")]
    m: Option<usize>,
    #[serde(rename = "N")]
    n: Option<usize>,
    #[serde(default)]
    actions: Vec<usize>,
    #[serde(default)]
    steps: Vec<String>,
}

impl NetConfig {
    fn grid(&self) -> crate::Result<Option<Grid>> {
        self.m.zip(self.n).map(|(m, n)| Grid::new(m, n)).transpose()
    }

    fn frame(&self) -> FrameSize {
        FrameSize::new(self.frame.0, self.frame.1)
    }

    fn backbone(&self) -> MobileNetV2Config {
        let &Self { depth, divisor, bn_eps, pad: padding, .. } = self;
        MobileNetV2Config { depth, divisor, bn_eps, padding, ..Default::default() }
    }

    fn detector(
        &self,
        golden: &Golden,
        device: &Device,
        grid: Option<Grid>,
        prepared: bool,
    ) -> Result<DetectorNet, BoxError> {
        let cfg = DetectorConfig {
            backbone: self.backbone(),
            classes: self.classes,
            frame: self.frame(),
            attention: grid,
            ..DetectorConfig::vid(self.depth)
        };
        let mut net = DetectorNet::new(&cfg, golden.var_builder(DType::F32, device)?)?;
        if prepared {
            net.prepare()?;
        }
        Ok(net)
    }

    /// (step, window, input) in order.
    fn steps<'a>(
        &'a self,
        golden: &'a Golden,
        device: &'a Device,
        grid: Grid,
    ) -> impl Iterator<Item = Result<(usize, Window, Tensor), BoxError>> + 'a {
        self.actions.iter().zip(&self.steps).enumerate().map(move |(t, (&action, name))| {
            let window = grid.window(action, self.frame())?;
            let frame = golden.input(name, device)?;
            Ok((t, window, crop(&frame, window)?))
        })
    }
}

fn crop(frame: &Tensor, window: Window) -> CandleResult<Tensor> {
    frame.narrow(2, window.top, window.height)?.narrow(3, window.left, window.width)?.contiguous()
}

/// Runs `net` with a probe that keeps what the file stores; `rename` maps the net's names to the file's.
fn probed<R>(
    outputs: &mut Outputs,
    golden: &Golden,
    rename: impl Fn(&str) -> String,
    run: impl FnOnce(&mut dyn FnMut(&str, &Tensor) -> CandleResult<()>) -> CandleResult<R>,
) -> Result<R, BoxError> {
    outputs.push_probed(golden, |probe| run(&mut |name, tensor| probe(&rename(name), tensor)))
}

fn detector_frame(
    golden: &Golden,
    device: &Device,
    cfg: &NetConfig,
    prepared: bool,
) -> Result<Outputs, BoxError> {
    let net = cfg.detector(golden, device, None, prepared)?;
    let mut outputs = Outputs::new();
    let xs = golden.input("input", device)?;
    let name = |name: &str| {
        let backbone = name == "c4" || name.starts_with('f');
        if backbone { format!("backbone.{name}") } else { name.to_owned() }
    };
    let raw = probed(&mut outputs, golden, name, |probe| net.forward(&xs, &mut ZeroBorder, false, probe))?;
    outputs.push("logits", &raw.logits)?;
    outputs.push("boxes", &raw.boxes)?;
    let priors = anchors(&raw.levels, cfg.frame(), &AnchorConfig::default(), cfg.pad);
    push_anchors(&mut outputs, &priors)?;
    let codes = raw.boxes.flatten_all()?.to_vec1::<f32>()?;
    push_decoded(&mut outputs, &priors, codes.as_chunks().0)?;
    Ok(outputs)
}

fn push_anchors(outputs: &mut Outputs, priors: &[Anchor]) -> zoo_parity::Result<()> {
    let values = priors.iter().flat_map(|a| [a.cx, a.cy, a.w, a.h]);
    outputs.push_values("anchors", &[priors.len(), 4], values)
}

fn push_decoded(outputs: &mut Outputs, priors: &[Anchor], codes: &[[f32; 4]]) -> zoo_parity::Result<()> {
    let decoded = priors.iter().zip(codes).flat_map(|(prior, &code)| prior.decode(code));
    outputs.push_values("decoded", &[priors.len(), 4], decoded)
}

/// Runs a stream's steps and keeps what the file stores of each; `finish` adds a step's predictions.
fn stream<N: WindowedNet>(
    net: &N,
    golden: &Golden,
    device: &Device,
    cfg: &NetConfig,
    grid: Grid,
    finish: impl Fn(&N::Raw) -> Vec<(&'static str, Tensor)>,
) -> Result<Outputs, BoxError> {
    let mut outputs = Outputs::new();
    let mut memories = Memories::new();
    for step in cfg.steps(golden, device, grid) {
        let (t, window, xs) = step?;
        let mut around = memories.at(cfg.frame(), window);
        let raw = probed(
            &mut outputs,
            golden,
            |name| format!("step{t}.{name}"),
            |probe| net.forward(&xs, &mut around, true, probe),
        )?;
        for (name, tensor) in finish(&raw) {
            outputs.push(format!("step{t}.{name}"), &tensor)?;
        }
        if let Some(q) = N::q_values(&raw) {
            outputs.push(format!("step{t}.q"), q)?;
        }
    }
    push_memories(&mut outputs, golden, &memories)?;
    Ok(outputs)
}

fn detector_stream(
    golden: &Golden,
    device: &Device,
    cfg: &NetConfig,
    grid: Grid,
    prepared: bool,
) -> Result<Outputs, BoxError> {
    let net = cfg.detector(golden, device, Some(grid), prepared)?;
    stream(&net, golden, device, cfg, grid, |raw| {
        vec![("logits", raw.logits.clone()), ("boxes", raw.boxes.clone()), ("seen", raw.seen.clone())]
    })
}

fn push_memories(outputs: &mut Outputs, golden: &Golden, memories: &Memories) -> Result<(), BoxError> {
    for name in golden.meta().output_shapes.keys() {
        if let Some(memory) = name.strip_prefix("mem.").and_then(|cell| memories.get(cell)) {
            outputs.push(name.clone(), memory)?;
        }
    }
    Ok(())
}

fn segmenter_stream(golden: &Golden, device: &Device, prepared: bool) -> Result<Outputs, BoxError> {
    let cfg: NetConfig = golden.config()?;
    let grid = cfg.grid()?.ok_or("the configuration has no M and N")?;
    let net_cfg = SegmenterConfig {
        backbone: cfg.backbone(),
        width: cfg.width,
        outputs: cfg.out,
        frame: cfg.frame(),
        attention: Some(grid),
        ..SegmenterConfig::davis(cfg.depth)
    };
    let mut net = SegmenterNet::new(&net_cfg, golden.var_builder(DType::F32, device)?)?;
    if prepared {
        net.prepare()?;
    }
    stream(&net, golden, device, &cfg, grid, |raw| {
        vec![("logits", raw.logits.clone()), ("seen", raw.seen.clone())]
    })
}

/// One convolution behind one cell, for each stride, over windows and at last the whole frame.
fn cell_steps(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    #[derive(Deserialize)]
    struct Config {
        frame: (usize, usize),
        kernel: usize,
        strides: Vec<usize>,
        pad: SamePadding,
        windows_yxhw: Vec<[usize; 4]>,
        steps: Vec<String>,
    }
    let cfg: Config = golden.config()?;
    let frame = FrameSize::new(cfg.frame.0, cfg.frame.1);
    let weights = golden.var_builder(DType::F32, device)?;
    let mut outputs = Outputs::new();
    for &stride in &cfg.strides {
        let vb = weights.pp(format!("s{stride}"));
        let weight = vb.get_unchecked("weight")?;
        let bias = vb.get_unchecked("bias")?.reshape((1, (), 1, 1))?;
        let conv = |xs: &Tensor| xs.conv2d(&weight, 0, stride, 1, 1)?.broadcast_add(&bias);
        let mut memories = Memories::new();
        let mut last = None;
        for (t, (&[top, left, height, width], name)) in cfg.windows_yxhw.iter().zip(&cfg.steps).enumerate() {
            let window = Window { top, left, height, width };
            let xs = golden.input(name, device)?;
            let region = memories.at(frame, window).place("cell", &crop(&xs, window)?)?;
            let bordered = region.bordered(cfg.pad.pads(window.size(), cfg.kernel, stride))?;
            outputs.push(format!("s{stride}.step{t}.bordered"), &bordered)?;
            outputs.push(format!("s{stride}.step{t}.out"), &conv(&bordered)?)?;
            last = Some(xs);
        }
        if let Some(memory) = memories.get("cell") {
            outputs.push(format!("s{stride}.memory"), memory)?;
        }
        if let Some(xs) = last {
            let whole = ZeroBorder.place("cell", &xs)?;
            let bordered = whole.bordered(cfg.pad.pads(frame, cfg.kernel, stride))?;
            outputs.push(format!("s{stride}.full_same"), &conv(&bordered)?)?;
        }
    }
    Ok(outputs)
}

/// Decoding and suppression of drawn predictions.
fn post_process(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    #[derive(Deserialize)]
    struct Config {
        sizes: Vec<(usize, usize)>,
        gain: f64,
        score_thr: f32,
        nms_iou: f32,
        per_class: usize,
        total: usize,
    }
    let cfg: Config = golden.config()?;
    let levels: Vec<FrameSize> = cfg.sizes.iter().map(|&(h, w)| FrameSize::new(h, w)).collect();
    let priors = anchors(&levels, FrameSize::new(1, 1), &AnchorConfig::default(), SamePadding::default());
    // The notes' formulas: logits = gain·x − 0.6·gain, codes = 2x, seen where x > −0.5.
    let logits = golden.input("post.logits", device)?.affine(cfg.gain, -0.6 * cfg.gain)?.to_vec2::<f32>()?;
    let codes = golden.input("post.boxes", device)?.affine(2.0, 0.0)?.flatten_all()?.to_vec1::<f32>()?;
    let codes = codes.as_chunks().0;
    let seen: Vec<f32> = golden
        .input("post.seen", device)?
        .to_vec1::<f32>()?
        .iter()
        .map(|&x| if x > -0.5 { 1.0 } else { 0.0 })
        .collect();
    let mut outputs = Outputs::new();
    push_anchors(&mut outputs, &priors)?;
    push_decoded(&mut outputs, &priors, codes)?;
    let post = PostProcess {
        score_threshold: cfg.score_thr,
        iou_threshold: cfg.nms_iou,
        max_per_class: cfg.per_class,
        max_total: cfg.total,
        ..PostProcess::default()
    };
    let found = Candidates::from_rows(&logits, codes, &seen, &priors, &post).suppress(&post);
    let n = found.len();
    outputs.push_values("det.class", &[n], found.iter().map(|c| c.class as f64))?;
    outputs.push_values("det.score", &[n], found.iter().map(|c| c.score))?;
    outputs.push_values("det.box", &[n, 4], found.iter().flat_map(|c| c.bbox))?;
    outputs.push_values("det.anchor", &[n], found.iter().map(|c| c.anchor as f64))?;
    Ok(outputs)
}

/// J, F and AP of drawn masks and scores.
fn measures(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    #[derive(Deserialize)]
    struct Config {
        shape: [usize; 2],
        up: usize,
        prefix: String,
        npos: Vec<usize>,
    }
    let cfg: Config = golden.config()?;
    let [rows, columns] = cfg.shape;
    let size = FrameSize::new(rows * cfg.up, columns * cfg.up);
    // The notes' masks: cells above a threshold, each repeated up × up.
    let drawn = |name: String, threshold: f32| -> Result<Mask, BoxError> {
        let cells = seeded::input(&name, &cfg.shape)?;
        let at = |i: usize| (i / size.width / cfg.up) * columns + i % size.width / cfg.up;
        let pixels = (0..size.area()).map(|i| cells.get(at(i)).is_some_and(|&v| v > threshold)).collect();
        Ok(Mask::new(size, pixels)?)
    };
    // Moved down and right, what leaves coming back on the other side.
    let rolled = |mask: &Mask, down: usize, right: usize| -> Result<Mask, BoxError> {
        let source = |i: usize| {
            let (y, x) = (i / size.width + size.height - down, i % size.width + size.width - right);
            y % size.height * size.width + x % size.width
        };
        let pixels = (0..size.area()).map(|i| mask.pixels().get(source(i)) == Some(&true)).collect();
        Ok(Mask::new(size, pixels)?)
    };
    let mut pairs = Vec::new();
    for i in 0..5usize {
        let truth = drawn(format!("{}.gt.{i}", cfg.prefix), 0.2)?;
        let k = 2 * i + 1;
        let predicted = match i {
            0..3 => rolled(&truth, k % 4, k / 2)?,
            _ => drawn(format!("{}.m.{i}", cfg.prefix), 0.1 + 0.1 * i as f32)?,
        };
        pairs.push((predicted, truth));
    }
    let empty = Mask::new(size, vec![false; size.area()])?;
    let (first, truth) = pairs.first().cloned().ok_or("no masks")?;
    pairs.extend([(empty.clone(), empty.clone()), (first, empty.clone()), (empty, truth)]);

    let mut outputs = Outputs::new();
    let (mut j, mut f) = (Vec::new(), Vec::new());
    for (predicted, truth) in &pairs {
        j.push(region_similarity(predicted, truth)?);
        f.push(boundary_measure(predicted, truth)?);
    }
    outputs.push_values("J", &[j.len()], j)?;
    outputs.push_values("F", &[f.len()], f)?;
    let boundary = pairs.first().map(|(_, truth)| truth.boundary()).ok_or("no masks")?;
    let pixels = boundary.pixels().iter().map(|&b| f64::from(u8::from(b)));
    outputs.push_values("boundary.0", &[size.height, size.width], pixels)?;

    let scores = golden.input(&format!("{}.scores", cfg.prefix), device)?.to_vec1::<f32>()?;
    let hits = golden.input(&format!("{}.tp", cfg.prefix), device)?.to_vec1::<f32>()?;
    let hits: Vec<bool> = hits.iter().map(|&v| v > 0.0).collect();
    let mut ap = Vec::new();
    for (i, &positives) in cfg.npos.iter().enumerate() {
        // The third list has the first detection only.
        let n = if i == 2 { 1 } else { scores.len() };
        let (scores, hits) = (scores.get(..n).unwrap_or(&scores), hits.get(..n).unwrap_or(&hits));
        ap.push(average_precision(scores, hits, positives)?);
    }
    outputs.push_values("AP", &[ap.len()], ap)?;
    Ok(outputs)
}
