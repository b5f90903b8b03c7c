//! Attention and what belongs to it against timm, prepared and not. `scripts/goldens/modules.py` makes the
//! fixture.

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::{VarBuilder, VarMap};
use zoo_core::Tally;
use zoo_layers::{LayerNorm, Mlp, SelfAttention, TransformerBlock, TransformerConfig, Windows};

use crate::support::{
    Golden, check_gradients, input, named_input, recorded, relative_difference, seed, weights,
};

/// Multiply–adds of the two products of one sequence, which the fixture's counts leave out.
fn products(tokens: usize, channels: usize) -> u64 {
    2 * (tokens * tokens * channels) as u64
}

#[test]
fn the_block_is_timms() {
    let golden = Golden::of("transformer block");
    let (asked, vb) = recorded(DType::F32);
    let mut block = TransformerBlock::new(&TransformerConfig::vit(48, 3), vb).unwrap();
    assert_eq!(asked.lines(), golden.tensors());
    let mut tally = Tally::new();
    block.cost(1, 13, &mut tally);
    let total = tally.total();
    assert_eq!((total.params, total.macs), (golden.params, golden.macs + products(13, 48)));
    assert_eq!(total.residual_adds, 2 * 13 * 48);

    let xs = named_input("input.0", &[2, 13, 48]);
    let plain = block.forward(&xs, &[]).unwrap();
    golden.outputs[0].check("block", &plain);
    block.prepare().unwrap();
    let difference = relative_difference(&block.forward(&xs, &[]).unwrap(), &plain);
    assert!(difference < 1e-5, "prepared: {difference:.1e}");
}

/// timm's bias of relative positions, `[heads, side², side²]`, from its table.
fn relative_positions(side: usize, heads: usize, vb: &VarBuilder) -> Tensor {
    let span = 2 * side - 1;
    let table = vb.get((span * span, heads), "relative_position_bias_table").unwrap();
    let tokens = side * side;
    let index: Vec<u32> = (0..tokens * tokens)
        .map(|pair| {
            let (i, j) = (pair / tokens, pair % tokens);
            let (down, across) = (i / side + side - 1 - j / side, i % side + side - 1 - j % side);
            (down * span + across) as u32
        })
        .collect();
    let index = Tensor::from_vec(index, tokens * tokens, &Device::Cpu).unwrap();
    table.index_select(&index, 0).unwrap().t().unwrap().reshape((heads, tokens, tokens)).unwrap()
}

#[test]
fn attention_in_windows_is_timms() {
    let golden = Golden::of("window attention");
    let (asked, vb) = recorded(DType::F32);
    let mut attention = SelfAttention::new(24, 3, vb.pp("qkv"), vb.pp("proj")).unwrap();
    let positions = relative_positions(4, 3, &vb);
    assert_eq!(asked.lines(), golden.tensors());
    let mut tally = Tally::new();
    attention.cost(1, 16, &mut tally);
    let table = 7 * 7 * 3;
    assert_eq!(tally.total().params + table, golden.params);
    assert_eq!(tally.total().macs, golden.macs + products(16, 24));

    // As if the second window of an image held two parts that do not belong together.
    let mask = |i: usize| {
        let part = |token: usize| token % 4 / 2;
        let (window, query, key) = (i / 256, i / 16 % 16, i % 16);
        if window == 0 || part(query) == part(key) { 0.0 } else { -100f32 }
    };
    let mask = Tensor::from_vec((0..512).map(mask).collect(), (2, 1, 16, 16), &Device::Cpu).unwrap();
    let xs = named_input("input.0", &[4, 16, 24]);
    for state in ["plain", "prepared"] {
        let ys = attention.forward(&xs, &[&positions, &mask]).unwrap();
        golden.outputs[0].check(state, &ys);
        let alone = attention.forward(&xs.i(2..3).unwrap(), &[&positions]).unwrap();
        let difference = relative_difference(&alone, &ys.i(2..3).unwrap());
        assert!(difference < 1e-6, "{state}: {difference:.1e}");
        attention.prepare().unwrap();
    }
}

#[test]
fn windows_hold_the_maps_pixels_in_order_and_give_them_back() {
    for (height, width, side) in [(8, 12, 4), (7, 5, 3), (2, 3, 7), (1, 1, 1)] {
        let xs = input([2, 5, height, width]);
        let windows = Windows::of(&xs, side).unwrap();
        let (down, across) = windows.grid();
        assert_eq!((down, across), (height.div_ceil(side), width.div_ceil(side)));
        let split = windows.split(&xs).unwrap();
        assert_eq!(split.dims(), [2 * down * across, side * side, 5]);
        let tokens = split.to_vec3::<f32>().unwrap();
        let pixels = xs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        for image in 0..2 {
            let pixels = pixels.get(image).unwrap().to_vec3::<f32>().unwrap();
            for (y, x) in (0..down * side).flat_map(|y| (0..across * side).map(move |x| (y, x))) {
                let window = (image * down + y / side) * across + x / side;
                let got = &tokens[window][y % side * side + x % side];
                let want = pixels.get(y).and_then(|row| row.get(x)).cloned().unwrap_or(vec![0.0; 5]);
                assert_eq!(*got, want, "{height}×{width} by {side}: image {image}, pixel {y}, {x}");
            }
        }
        let joined = windows.join(&split).unwrap();
        assert_eq!(relative_difference(&joined, &xs), 0.0, "{height}×{width} by {side}");
    }
}

#[test]
fn layer_norm_of_a_map_is_that_of_its_pixels() {
    let mut norm = LayerNorm::new(24, 1e-6, weights().pp("norm")).unwrap();
    let xs = input([2, 24, 5, 3]);
    let last = xs.permute((0, 2, 3, 1)).unwrap();
    for _ in ["plain", "prepared"] {
        let want = norm.forward(&last).unwrap().permute((0, 3, 1, 2)).unwrap();
        assert_eq!(relative_difference(&norm.forward_map(&xs).unwrap(), &want), 0.0);
        norm.prepare();
    }
    let mut tally = Tally::new();
    norm.cost(&mut tally);
    assert_eq!((tally.total().params, tally.total().macs), (48, 0));
}

#[test]
fn the_mlp_takes_tokens_of_any_rank() {
    let mut mlp = Mlp::new(24, 40, weights().pp("mlp")).unwrap();
    let xs = named_input("tokens", &[2, 3, 5, 24]);
    let want = mlp.forward(&xs).unwrap();
    for state in ["plain", "prepared"] {
        let rows = mlp.forward(&xs.reshape((30, 24)).unwrap()).unwrap().reshape((2, 3, 5, 24)).unwrap();
        let added = (mlp.forward_add(&xs, &xs).unwrap() - &xs).unwrap();
        for ys in [rows, added, mlp.forward(&xs).unwrap()] {
            let difference = relative_difference(&ys, &want);
            assert!(difference < 1e-6, "{state}: {difference:.1e}");
        }
        mlp.prepare().unwrap();
    }
}

#[test]
fn gradients_are_difference_quotients_until_the_block_is_prepared() {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
    let cfg = TransformerConfig { channels: 6, heads: 2, hidden: 10, eps: 1e-6 };
    let block = TransformerBlock::new(&cfg, vb.pp("block")).unwrap();
    let xs = vb.get((2, 5, 6), "xs").unwrap();
    let bias = vb.get((2, 5, 5), "positions").unwrap();
    seed(&map);
    let loss =
        |block: &TransformerBlock| block.forward(&xs, &[&bias]).unwrap().sqr().unwrap().sum_all().unwrap();
    check_gradients(&map, "", &|| loss(&block));

    let mut prepared = block.clone();
    prepared.prepare().unwrap();
    let (before, after) =
        (loss(&block).to_scalar::<f64>().unwrap(), loss(&prepared).to_scalar::<f64>().unwrap());
    assert!((before - after).abs() < 1e-12 * before, "{before} {after}");
}

#[test]
fn a_prepared_block_leaves_no_graph() {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let mut block = TransformerBlock::new(&TransformerConfig::vit(24, 3), vb).unwrap();
    let xs = named_input("tokens", &[2, 7, 24]);
    assert!(block.forward(&xs, &[]).unwrap().track_op());
    block.prepare().unwrap();
    assert!(!block.forward(&xs, &[]).unwrap().track_op());
}

#[test]
fn faults_are_named() {
    let vb = weights();
    let block = TransformerBlock::new(&TransformerConfig::vit(24, 3), vb.pp("block")).unwrap();
    let attention = SelfAttention::new(24, 3, vb.pp("attn.qkv"), vb.pp("attn.proj")).unwrap();
    let norm = LayerNorm::new(24, 1e-6, vb.pp("norm")).unwrap();
    let xs = named_input("tokens", &[2, 7, 24]);
    let wrong = named_input("tokens", &[2, 7, 20]);
    let map = input([2, 5, 8, 8]);
    let windows = Windows::of(&map, 4).unwrap();
    for (message, expected) in [
        (
            SelfAttention::new(24, 5, vb.pp("attn.qkv"), vb.pp("attn.proj")).unwrap_err(),
            "attn.qkv: 5 heads do not divide 24 channels",
        ),
        (attention.forward(&wrong, &[]).unwrap_err(), "attn.qkv: expected [.., 24], got [2, 7, 20]"),
        (attention.forward(&map, &[]).unwrap_err(), "attn.qkv: expected [B, N, 24], got [2, 5, 8, 8]"),
        (
            attention.forward_add(&xs, &[], &wrong).unwrap_err(),
            "attn.proj: expected a residual of [2, 7, 24]",
        ),
        (attention.forward(&xs, &[&wrong]).unwrap_err(), "attention: expected a bias of"),
        (block.forward(&wrong, &[]).unwrap_err(), "layer-norm: expected [.., N]"),
        (norm.forward(&wrong).unwrap_err(), "layer-norm: expected [.., N]"),
        (Windows::of(&map, 0).unwrap_err(), "windows: expected [B, C, H, W] and a side of at least 1"),
        (Windows::of(&xs, 2).unwrap_err(), "got [2, 7, 24] and 2"),
        (
            windows.split(&input([2, 5, 8, 9])).unwrap_err(),
            "windows: expected [2, 5, 8, 8], got [2, 5, 8, 9]",
        ),
        (windows.join(&xs).unwrap_err(), "windows: expected [8, 16, C], got [2, 7, 24]"),
    ] {
        let message = message.to_string();
        assert!(message.contains(expected), "{message}");
    }
}
