//! The properties E1 to E4 of the chain of cells, on random weights.

use candle_core::{DType, Tensor};
use patchwork_det::detector::RawDetections;
use patchwork_det::{Grid, Memories, Window, WindowedNet};
use zoo_core::FrameSize;
use zoo_layers::ZeroBorder;

use crate::support::{crop, largest_difference, noise, relative_l2, small_detector, small_segmenter};

const FRAME: FrameSize = FrameSize::new(128, 128);

/// Errors below this are float noise: kernels of other shapes round differently.
const EQUAL: f64 = 1e-4;

fn worst(a: &RawDetections, b: &RawDetections) -> f64 {
    largest_difference(&a.logits, &b.logits).max(largest_difference(&a.boxes, &b.boxes))
}

#[test]
fn e1_a_window_that_is_the_frame_equals_a_single_frame_whatever_came_before() {
    let net = small_detector(FRAME, None, DType::F32);
    let mut memories = Memories::new();
    let corner = Grid::new(2, 1).unwrap().window(3, FRAME).unwrap();
    net.step(&crop(&noise("past", FRAME, DType::F32), corner), FRAME, corner, &mut memories, false).unwrap();
    for t in 0..3 {
        let frame = noise(&format!("frame.{t}"), FRAME, DType::F32);
        let step = net.step(&frame, FRAME, Window::full(FRAME), &mut memories, false).unwrap();
        assert_eq!(worst(&step, &net.single_frame(&frame).unwrap()), 0.0, "frame {t}");
    }
}

#[test]
fn e2_with_empty_memories_a_window_equals_the_crop_as_a_frame() {
    let net = small_detector(FRAME, None, DType::F32);
    let frame = noise("frame", FRAME, DType::F32);
    let grid = Grid::new(2, 1).unwrap();
    let maps = |around: &mut dyn zoo_layers::Surroundings, xs: &Tensor| {
        let mut maps = Vec::new();
        net.forward(xs, around, false, &mut |name, map| {
            // Everything but what is built on the restored map.
            if name.starts_with('f') || name.ends_with(".win") || name == "c4" {
                maps.push((name.to_owned(), map.copy()?));
            }
            Ok(())
        })
        .unwrap();
        maps
    };
    for action in 0..grid.actions() {
        let window = grid.window(action, FRAME).unwrap();
        let xs = crop(&frame, window);
        let stepped = maps(&mut Memories::new().at(FRAME, window), &xs);
        let alone = maps(&mut ZeroBorder, &xs);
        assert_eq!(stepped.len(), 24, "19 features, C4, four predictions");
        for ((name, a), (_, b)) in stepped.iter().zip(&alone) {
            assert_eq!(largest_difference(a, b), 0.0, "window {action}, {name}");
        }
    }
}

/// Relative error of logits and boxes against the single frame after each sweep over `order`.
fn sweep_errors(grid: Grid, order: &[usize], sweeps: usize) -> Vec<f64> {
    let net = small_detector(FRAME, None, DType::F64);
    let frame = noise("frame", FRAME, DType::F64);
    let single = net.single_frame(&frame).unwrap();
    let mut memories = Memories::new();
    (0..sweeps)
        .map(|_| {
            let mut last = None;
            for &action in order {
                let window = grid.window(action, FRAME).unwrap();
                last = Some(net.step(&crop(&frame, window), FRAME, window, &mut memories, false).unwrap());
            }
            let last = last.unwrap();
            relative_l2(&last.logits, &single.logits).max(relative_l2(&last.boxes, &single.boxes))
        })
        .collect()
}

#[test]
fn e3_a_static_video_settles_after_twenty_sweeps_in_any_order_and_after_fifteen_in_raster_order() {
    let grid = Grid::new(2, 1).unwrap();
    struct Case(&'static str, [usize; 4], usize);
    for Case(name, order, bound) in [
        Case("raster", [0, 1, 2, 3], 15),
        Case("reverse", [3, 2, 1, 0], 20),
        Case("shuffled", [2, 0, 3, 1], 20),
    ] {
        let errors = sweep_errors(grid, &order, bound);
        let settled = errors[bound - 1];
        assert!(settled < 1e-12, "{name}: {settled:e} after {bound} sweeps");
        // One sweep is not enough: only the image memory is complete.
        assert!(errors[0] > 0.05, "{name}: {:e} after the first sweep", errors[0]);
    }
}

#[test]
fn e4_after_a_whole_frame_every_window_of_a_static_video_equals_the_single_frame() {
    let net = small_detector(FRAME, None, DType::F32);
    let frame = noise("frame", FRAME, DType::F32);
    let single = net.single_frame(&frame).unwrap();
    let mut memories = Memories::new();
    net.step(&frame, FRAME, Window::full(FRAME), &mut memories, false).unwrap();
    for (m, n) in [(2, 1), (4, 2), (4, 1)] {
        let grid = Grid::new(m, n).unwrap();
        for action in (0..grid.actions()).rev() {
            let window = grid.window(action, FRAME).unwrap();
            let step = net.step(&crop(&frame, window), FRAME, window, &mut memories, false).unwrap();
            let error =
                relative_l2(&step.logits, &single.logits).max(relative_l2(&step.boxes, &single.boxes));
            assert!(error < EQUAL, "M={m} N={n} window {action}: {error:e}");
        }
    }
}

#[test]
fn e4_holds_for_the_segmenter() {
    let net = small_segmenter(FRAME);
    let frame = noise("frame", FRAME, DType::F32);
    let single = net.single_frame(&frame).unwrap();
    let mut memories = Memories::new();
    let whole = net.step(&frame, FRAME, Window::full(FRAME), &mut memories, false).unwrap();
    assert_eq!(largest_difference(&whole.logits, &single.logits), 0.0);
    let grid = Grid::new(4, 2).unwrap();
    for action in 0..grid.actions() {
        let window = grid.window(action, FRAME).unwrap();
        let step = net.step(&crop(&frame, window), FRAME, window, &mut memories, false).unwrap();
        let error = relative_l2(&step.logits, &single.logits);
        assert!(error < EQUAL, "window {action}: {error:e}");
    }
}
