//! Layouts and what cells are about.

use packdet::plane::{Layout, Locations, Places, Plane, level_sizes};
use packdet::{FrameSize, Packing, Preset};

fn edges(plane: &Plane) -> Vec<[usize; 4]> {
    plane.boxes.iter().map(|at| [at.left, at.top, at.left + at.width, at.top + at.height]).collect()
}

#[test]
fn the_worked_example_comes_out() {
    let sizes = level_sizes(FrameSize::new(800, 1344));
    let all = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)];
    assert_eq!(sizes, all.map(|(h, w)| FrameSize::new(h, w)));
    let plane = Layout::Type4.place(sizes).unwrap();
    assert_eq!(plane.size, FrameSize::new(150, 168));
    let expected = [
        [0, 0, 168, 100],
        [0, 100, 84, 150],
        [126, 125, 168, 150],
        [105, 112, 126, 125],
        [94, 105, 105, 112],
        [84, 125, 126, 150],
        [147, 112, 168, 125],
        [136, 105, 147, 112],
    ];
    assert_eq!(edges(&plane), expected);
    let covered: usize = plane.boxes.iter().map(|at| at.width * at.height).sum();
    assert_eq!((covered, plane.size.area()), (23_800, 25_200));
}

#[test]
fn every_layout_has_room_for_every_padded_size_from_64_on() {
    for layout in Layout::ALL {
        for h in (64..=512).step_by(32) {
            for w in (64..=1344).step_by(32) {
                let input = FrameSize::new(h, w);
                let places = Places::packed(layout, input, Locations::Centres).unwrap();
                let cells = &places.grids[0].cells;
                let gaps = cells.iter().filter(|cell| cell.map.is_none());
                assert!(gaps.clone().all(|gap| (gap.level, gap.x, gap.y) == (0, -1.0, -1.0)));
                let covered: usize = places.maps.iter().map(|map| map.at.width * map.at.height).sum();
                assert_eq!(covered + gaps.count(), cells.len(), "{layout:?} of {input}");
            }
        }
    }
}

#[test]
fn a_side_of_32_is_an_error() {
    // Beside each other, short maps have room; nets refuse them all the same.
    for (layout, h, w) in [
        (Layout::Type2, 64, 32),
        (Layout::Type2, 32, 32),
        (Layout::Type4, 64, 32),
        (Layout::Type4, 32, 64),
        (Layout::Type4, 32, 1344),
    ] {
        let error = layout.place(level_sizes(FrameSize::new(h, w))).unwrap_err().to_string();
        assert!(error.contains(&format!("layout {} has no room for maps of", layout.name())), "{error}");
    }
    let config = Preset::R50M4.config();
    let error = config.check_input(FrameSize::new(32, 100)).unwrap_err().to_string();
    assert!(error.contains("multiples of 32 and at least 64: pad it to 64×128"), "{error}");
    assert!(Preset::FcosR50.config().check_input(FrameSize::new(32, 64)).is_ok());
}

#[test]
fn maps_that_are_apart_stand_for_the_same_points() {
    let input = FrameSize::new(224, 352);
    let packed = Places::packed(Layout::Type4, input, Locations::Centres).unwrap();
    let separate = Places::separate(Layout::Type4, input, Locations::Centres);
    assert!(packed.is_packed() && !separate.is_packed());
    for (i, (a, b)) in packed.maps.iter().zip(&separate.maps).enumerate() {
        assert_eq!((a.level, b.grid, a.at.width, a.at.height), (b.level, i, b.at.width, b.at.height));
        for y in 0..a.at.height {
            let from = (a.at.top + y) * packed.grids[0].size.width + a.at.left;
            let row = &packed.grids[0].cells[from..from + a.at.width];
            assert_eq!(row, &separate.grids[i].cells[y * b.at.width..][..b.at.width]);
        }
    }
}

#[test]
fn torchvisions_points_lie_at_shares_of_the_input() {
    // P6 has 7 columns of 352 pixels: 58 apart, not 64.
    let places = Places::separate(Layout::Type1, FrameSize::new(224, 352), Locations::Shares);
    let last = places.grids[3].cells.last().unwrap();
    assert_eq!((last.x, last.y), (5.0 * 58.0, 3.0 * 56.0));
    let corners = Places::separate(Layout::Type1, FrameSize::new(224, 352), Locations::Corners);
    let last = corners.grids[3].cells.last().unwrap();
    assert_eq!((last.x, last.y, last.stride()), (5.0 * 64.0, 3.0 * 64.0, 64.0));
}

#[test]
fn presets_have_names_of_their_own_and_configurations_survive_json() {
    for preset in Preset::ALL {
        assert_eq!(Preset::parse(preset.name()).unwrap(), preset);
        let config = preset.config();
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<packdet::Config>(&text).unwrap(), config, "{text}");
    }
    let error = Preset::parse("r50").unwrap_err().to_string();
    assert!(error.contains("unknown preset 'r50': expected one of r50-m4, r50-m2"), "{error}");
}

#[test]
fn configurations_that_contradict_themselves_are_refused() {
    use packdet::{Config, Flavour, HeadConfig};
    let r50 = Preset::R50M4.config();
    let long = |change: fn(&mut packdet::LongHeadConfig)| {
        let mut config = r50;
        if let HeadConfig::PackDet { long, .. } = &mut config.head {
            change(long);
        }
        config
    };
    let mut pack = Preset::RetinaPackR50.config();
    if let HeadConfig::RetinaPack(long) = &mut pack.head {
        long.packing = Packing::CrossHead;
    }
    for (config, expected) in [
        (Config { classes: 0, ..r50 }, "0 classes"),
        (Config { pyramid: 100, ..r50 }, "a pyramid of 100 channels: the 32 groups"),
        (long(|long| long.channels = 0), "a long head of 0 channels"),
        (long(|long| long.tower = 0), "towers of 0 convolutions"),
        (Config { flavour: Flavour::Torchvision, ..r50 }, "torchvision has RetinaNet's head and FCOS's"),
        (pack, "RetinaPack's towers have no norms"),
    ] {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("invalid configuration: ") && error.contains(expected), "{error}");
    }
}
