//! Targets, losses and the recipe.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use packdet::plane::{Layout, Locations, Places};
use packdet::training::{AnchorLoss, PointLoss, Recipe, TrueBox, initial, is_trained};
use packdet::{FrameSize, Preset, RawMap, RawMaps};

const INPUT: FrameSize = FrameSize::new(64, 96);

fn var(shape: (usize, usize, usize, usize), value: f32) -> Var {
    Var::from_tensor(&Tensor::full(value, shape, &Device::Cpu).unwrap()).unwrap()
}

struct Maps {
    raw: RawMaps,
    vars: Vec<Var>,
}

/// Maps of constants for one image: of points in a plane, or of anchors map by map.
fn maps(anchors: bool) -> Maps {
    let places = match anchors {
        false => Places::packed(Layout::Type4, INPUT, Locations::Centres).unwrap(),
        true => Places::separate(Layout::Type1, INPUT, Locations::Corners),
    };
    let mut vars = Vec::new();
    let each = if anchors { 9 } else { 1 };
    let maps = places.grids.iter().map(|grid| {
        let FrameSize { height, width } = grid.size;
        let own = [(3 * each, -2.0), (4 * each, 5.0), (1, 0.5)].map(|(c, v)| var((1, c, height, width), v));
        let [scores, boxes, centerness] = own.clone().map(|var| var.as_tensor().clone());
        vars.extend(own.into_iter().take(if anchors { 2 } else { 3 }));
        RawMap { scores, boxes, centerness: (!anchors).then_some(centerness) }
    });
    let maps = maps.collect();
    Maps { raw: RawMaps { maps, places: Arc::new(places) }, vars }
}

fn value(tensor: &Tensor) -> f32 {
    tensor.to_dtype(DType::F32).unwrap().to_scalar().unwrap()
}

/// Every map learns from an image with objects, and from one without.
#[test]
fn gradients_reach_every_map_with_objects_and_without() {
    let objects = vec![
        TrueBox { class: 2, bbox: [10.0, 10.0, 40.0, 40.0] },
        TrueBox { class: 0, bbox: [50.0, 20.0, 90.0, 60.0] },
    ];
    for truth in [vec![objects], vec![vec![]]] {
        for anchors in [false, true] {
            let Maps { raw, vars } = maps(anchors);
            let loss = match anchors {
                false => PointLoss::improved().of(&raw, &truth).unwrap(),
                true => AnchorLoss::default().of(&raw, &truth).unwrap(),
            };
            assert_eq!(value(&loss.boxes) > 0.0, !truth[0].is_empty());
            let total = loss.total().unwrap();
            assert!(value(&total) > 0.0 && value(&total).is_finite());
            let gradients = total.backward().unwrap();
            for (i, var) in vars.iter().enumerate() {
                let gradient = gradients.get(var).unwrap_or_else(|| panic!("map {i} has no gradient"));
                assert!(value(&gradient.abs().unwrap().sum_all().unwrap()).is_finite());
            }
        }
    }
}

#[test]
fn faults_are_named() {
    let Maps { raw, .. } = maps(false);
    let said = |truth: &[Vec<TrueBox>]| PointLoss::plain().of(&raw, truth).unwrap_err().to_string();
    assert!(said(&[]).contains("1 images, but objects of 0"));
    let far = TrueBox { class: 3, bbox: [10.0, 10.0, 40.0, 40.0] };
    assert!(said(&[vec![far]]).contains("an object is of class 3, but there are 3 (0 to 2)"));
    let Maps { raw, .. } = maps(true);
    let error = PointLoss::plain().of(&raw, &[vec![]]).unwrap_err().to_string();
    assert!(error.contains("it has no centerness"), "{error}");
}

#[test]
fn the_recipe_is_the_papers() {
    let (short, long) = (Recipe::of(Preset::R50M4), Recipe::of(Preset::Mnv2M4Long));
    assert_eq!((short.steps, short.short_sides, short.batch), (90_000, [800, 800], 16));
    assert_eq!((long.steps, long.short_sides), (180_000, [640, 800]));
    let share = |recipe: &Recipe, step| (recipe.schedule.factor(step) * 1e6).round() / 1e6;
    assert_eq!(
        [0, 499, 500, 60_000, 80_000].map(|s| share(&short, s)),
        [0.333_333, 0.333_333, 1.0, 0.1, 0.01]
    );
    assert_eq!([60_000, 120_000, 160_000].map(|s| share(&long, s)), [1.0, 0.1, 0.01]);
    assert_eq!(short.biases.weight_decay, 0.0);
}

#[test]
fn weights_begin_and_learn_as_the_authors_do() {
    use candle_nn::Init;
    let head = "rpn.head.predictor.";
    let normal = |init| matches!(init, Some(Init::Randn { mean: 0.0, stdev: 0.01 }));
    let constant = |init, of: f64| matches!(init, Some(Init::Const(v)) if (v - of).abs() < 1e-9);
    let uniform = |init, of: f64| matches!(init, Some(Init::Uniform { up, .. }) if (up - of).abs() < 1e-9);
    assert!(normal(initial(&format!("{head}cls_logits.weight"), &[80, 128, 3, 3])));
    assert!(constant(initial(&format!("{head}cls_logits.bias"), &[80]), -(99f64.ln())));
    assert!(constant(initial(&format!("{head}bbox_pred.bias"), &[4]), 0.0));
    assert!(constant(initial("rpn.head.fe.reduction.gn.weight", &[128]), 1.0));
    assert!(constant(initial(&format!("{head}scale_layer.scales"), &[5]), 1.0));
    assert!(constant(initial("rpn.head.scales.0.scale", &[1]), 1.0));
    assert!(uniform(initial("backbone.fpn.fpn_layer2.weight", &[256, 256, 3, 3]), (3f64 / 2304.0).sqrt()));
    let tower = format!("{head}cls_tower.1.conv.");
    assert!(uniform(initial(&format!("{tower}offset.weight"), &[27, 128, 3, 3]), (3f64 / 1152.0).sqrt()));
    assert!(uniform(initial(&format!("{tower}conv.weight"), &[128, 128, 3, 3]), (1f64 / 1152.0).sqrt()));
    assert!(initial("backbone.body.layer2.0.conv1.weight", &[128, 256, 1, 1]).is_none());

    let (resnet, mobilenet) = (Preset::R50M4.config().backbone, Preset::Mnv2M4.config().backbone);
    for (backbone, name, learns) in [
        (&resnet, "backbone.body.stem.conv1.weight", false),
        (&resnet, "backbone.body.layer1.0.conv1.weight", false),
        (&resnet, "backbone.body.layer2.0.conv1.weight", true),
        (&resnet, "backbone.body.layer2.0.bn1.weight", false),
        (&resnet, "backbone.body.layer2.0.downsample.1.bias", false),
        (&resnet, "backbone.fpn.fpn_layer2.bias", true),
        (&mobilenet, "backbone.body.features.0.1.weight", true),
        (&mobilenet, "backbone.body.features.0.1.running_mean", false),
    ] {
        assert_eq!(is_trained(backbone, name), learns, "{name}");
    }
}
