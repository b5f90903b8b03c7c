//! Tables 4 and 5: MFLOPs of every row, against the reconstruction's numbers.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use patchwork_det::config::PAPER_FRAME;
use patchwork_det::flops::StepCost;
use patchwork_det::{
    DetectorConfig, DetectorNet, Grid, Mode, PolicyKind, SegmenterConfig, SegmenterNet, Start,
};
use zoo_core::FrameSize;

fn detector(cfg: &DetectorConfig) -> DetectorNet {
    DetectorNet::new(cfg, VarBuilder::zeros(DType::F32, &Device::Cpu)).unwrap()
}

fn segmenter(cfg: &SegmenterConfig) -> SegmenterNet {
    SegmenterNet::new(cfg, VarBuilder::zeros(DType::F32, &Device::Cpu)).unwrap()
}

fn windows(m: usize, n: usize, policy: PolicyKind, flip: bool) -> Mode {
    Mode::Windows { grid: Grid::new(m, n).unwrap(), policy, start: Start::Zeros, flip }
}

fn learned(m: usize, n: usize) -> Mode {
    windows(m, n, PolicyKind::Learned, false)
}

/// (max, avg) of a VID row; a net is built for each grid, since the attention's size follows from it.
fn vid(depth: f64, divisor: usize, mode: &Mode) -> (f64, f64) {
    let mut cfg = DetectorConfig::vid(depth);
    cfg.backbone.divisor = divisor;
    if let Mode::Windows { grid, .. } = mode {
        cfg.attention = Some(*grid);
    }
    let flops = detector(&cfg).mflops(PAPER_FRAME, mode).unwrap();
    (flops.max, flops.avg)
}

#[test]
fn vid_rows_equal_the_reconstruction() {
    let interval = |every, delay| Mode::Interval { every, delay };
    let flip = windows(4, 2, PolicyKind::Learned, true);
    for (row, got, max, avg) in [
        ("SF", vid(1.0, 1, &Mode::SingleFrame), 2046.99, 2046.99),
        ("SF depth 0.5", vid(0.5, 1, &Mode::SingleFrame), 602.31, 602.31),
        ("SF depth 0.5, divisor 8", vid(0.5, 8, &Mode::SingleFrame), 649.79, 649.79),
        ("interval=4", vid(1.0, 1, &interval(4, 0)), 2046.99, 511.75),
        ("interval=16", vid(1.0, 1, &interval(16, 0)), 2046.99, 127.94),
        ("interval=4 delay=3", vid(1.0, 1, &interval(4, 3)), 511.75, 511.75),
        ("interval=16 delay=15", vid(1.0, 1, &interval(16, 15)), 127.94, 127.94),
        ("M=4 N=2", vid(1.0, 1, &learned(4, 2)), 542.49, 542.49),
        ("M=4 N=1", vid(1.0, 1, &learned(4, 1)), 163.55, 163.55),
        ("M=2 N=1", vid(1.0, 1, &learned(2, 1)), 542.48, 542.48),
        ("M=4 N=2 depth 1.4", vid(1.4, 1, &learned(4, 2)), 988.36, 988.36),
        ("M=4 N=2 depth 1.4, divisor 8", vid(1.4, 8, &learned(4, 2)), 1018.15, 1018.15),
        ("M=4 N=2 depth 1.4 flip", vid(1.4, 1, &flip), 1976.72, 1976.72),
    ] {
        assert!((got.0 - max).abs() < 0.01, "{row}: max {:.3}, expected {max}", got.0);
        assert!((got.1 - avg).abs() < 0.01, "{row}: avg {:.3}, expected {avg}", got.1);
    }
    let small = DetectorConfig::vid(1.0).with_resolution(0.25);
    let flops = detector(&small).mflops(small.frame, &Mode::SingleFrame).unwrap();
    assert!((flops.max - 512.24).abs() < 0.01, "resolution 0.25: {:.3}", flops.max);
}

#[test]
fn davis_rows_equal_the_reconstruction() {
    let row = |depth: f64, mode: &Mode| {
        let mut cfg = SegmenterConfig::davis(depth);
        if let Mode::Windows { grid, .. } = mode {
            cfg.attention = Some(*grid);
        }
        segmenter(&cfg).mflops(PAPER_FRAME, mode).unwrap().max
    };
    for (name, got, expected) in [
        ("SF", row(1.0, &Mode::SingleFrame), 3313.21),
        ("SF depth 0.5", row(0.5, &Mode::SingleFrame), 1265.04),
        ("M=4 N=2", row(1.0, &learned(4, 2)), 842.25),
        ("M=4 N=1", row(1.0, &learned(4, 1)), 221.03),
    ] {
        assert!((got - expected).abs() < 0.01, "{name}: {got:.3}, expected {expected}");
    }
    let small = SegmenterConfig::davis(1.0).with_resolution(0.25);
    let got = segmenter(&small).mflops(small.frame, &Mode::SingleFrame).unwrap().max;
    assert!((got - 828.30).abs() < 0.01, "resolution 0.25: {got:.3}");
}

#[test]
fn coco_at_several_sizes() {
    let net = detector(&DetectorConfig::coco());
    for (height, width, mode, expected) in [
        (300, 300, Mode::SingleFrame, 1499.59),
        (320, 320, Mode::SingleFrame, 1609.43),
        (384, 384, Mode::SingleFrame, 2315.07),
        (512, 768, Mode::SingleFrame, 6171.54),
        (384, 384, windows(4, 2, PolicyKind::Motion, false), 610.05),
        (384, 384, windows(4, 1, PolicyKind::Motion, false), 183.80),
        (512, 768, windows(4, 2, PolicyKind::Motion, false), 1624.81),
    ] {
        let got = net.mflops(FrameSize::new(height, width), &mode).unwrap().max;
        assert!((got - expected).abs() < 0.01, "{height}×{width} {}: {got:.3}, {expected}", mode.name());
    }
}

#[test]
fn counts_follow_what_was_built() {
    let cost = |cfg: &DetectorConfig| detector(cfg).step_cost(cfg.frame, cfg.frame, false);
    let base = cost(&DetectorConfig::vid(1.0));
    let mut wide = DetectorConfig::vid(1.0);
    wide.backbone.depth = 1.01;
    let wide = cost(&wide);
    assert!(wide.params > base.params && wide.macs > base.macs, "{wide:?} {base:?}");
    assert!(wide.residual_adds > base.residual_adds, "{wide:?} {base:?}");
    let classes = DetectorConfig {
        classes: 91,
        labels: patchwork_det::config::LabelSet::Coco,
        ..DetectorConfig::vid(1.0)
    };
    let classes = cost(&classes);
    assert!(classes.bias_adds > base.bias_adds && classes.params > base.params);
}
