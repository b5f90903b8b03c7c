//! The authors' checkpoints: which version and classes they are of, what of them is used.
//!
//! A file is a dictionary with a `state_dict` and, under `arch`, the call that built the net
//! ([`Config::from_arch`]): that is the authority on the configuration. Shapes confirm it; the groups of
//! the weight mappings could not be read off them.

use std::collections::BTreeMap;

use zoo_hub::convert::{StateDict, TorchFile};

use crate::config::{Config, FEATURES, Layout, MapShape, Version};
use crate::{Error, Result};

/// Position maps of the training's and the test's sizes, which nets compute.
const POSITION_MAPS: &str = "decoder.coord";
/// Training's counters.
const COUNTER: &str = "num_batches_tracked";
/// The entry with the description.
const ARCH: &str = "arch";

/// Names and shapes of a checkpoint's tensors.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Whether a PyTorch file says that it is a HyperSeg net.
pub fn is_hyperseg(file: &TorchFile) -> bool {
    arch(file).is_some_and(|arch| arch.contains("hyperseg_v"))
}

fn arch(file: &TorchFile) -> Option<&str> {
    file.facts().get(ARCH)?.as_str()
}

/// The configuration of a PyTorch file, from its description.
///
/// # Errors
/// If there is no description, or it is not understood.
pub fn config(file: &TorchFile) -> Result<Config> {
    match arch(file) {
        Some(arch) => Config::from_arch(arch),
        None => Err(Error::Arch {
            problem: "is missing: name a preset that it should fit, such as --arch hyperseg/camvid-s"
                .to_owned(),
            arch: String::new(),
        }),
    }
}

/// Leaves out what no net asks for: cached position maps and training's counters.
pub fn leave_out_unused(state: &mut StateDict) {
    state.leave_out("a cached position map, which the net computes", |name| name.starts_with(POSITION_MAPS));
    state.leave_out("a counter of training", |name| name.ends_with(COUNTER));
}

/// Whether a checkpoint is one of this configuration: says which version, how many classes or which sizes
/// it has instead. That all tensors are there is for the loader to say.
///
/// # Errors
/// If it is not.
pub fn check(cfg: &Config, shapes: &Shapes) -> Result<()> {
    let layout = cfg.layout()?;
    check_version(cfg, shapes)?;
    check_classes(cfg, shapes)?;
    check_features(cfg, &layout, shapes)?;
    check_maps(cfg, &layout, shapes)
}

/// The version that names show, and one of the tensors that do; [`Version::V1_0`] stands for
/// [`Version::V0_2`] too, whose names are the same. `None` if there are no names of a decoder.
pub fn version_of(shapes: &Shapes) -> Option<(Version, &str)> {
    let first = |which: &dyn Fn(&str) -> bool| shapes.keys().map(String::as_str).find(|name| which(name));
    let oldest = || first(&|name| name.starts_with("weight_mapper.out_conv."));
    let unified = || first(&|name| name.starts_with("decoder.weight_blocks."));
    let others = || first(&|name| name.starts_with("decoder.level_") && name.contains("signal2weights"));
    (oldest().map(|name| (Version::V0_1, name)))
        .or_else(|| unified().map(|name| (Version::V1_0Unify, name)))
        .or_else(|| others().map(|name| (Version::V1_0, name)))
}

fn check_version(cfg: &Config, shapes: &Shapes) -> Result<()> {
    let Some((found, sign)) = version_of(shapes) else {
        return Err(Error::Checkpoint(
            "it has no tensor of a HyperSeg decoder, such as decoder.level_0.0.0.signal2weights.weight"
                .to_owned(),
        ));
    };
    let same_names = |version: Version| if version == Version::V0_2 { Version::V1_0 } else { version };
    if same_names(cfg.version) == found {
        return Ok(());
    }
    let other = if found == Version::V1_0 { " (or v0_2)" } else { "" };
    Err(other_version(found, &format!("it has {sign}"), cfg, other))
}

fn other_version(found: Version, sign: &str, cfg: &Config, alternative: &str) -> Error {
    Error::OtherVersion {
        found,
        sign: sign.to_owned(),
        expected: cfg.version,
        advice: format!(
            "load it with the config.json that `zoo convert` writes beside it, or with a configuration of version {found}{alternative}"
        ),
    }
}

fn check_classes(cfg: &Config, shapes: &Shapes) -> Result<()> {
    let tensor = format!("{}.weight", cfg.last_norm_name(cfg.levels() - 1));
    match shapes.get(&tensor).map(Vec::as_slice) {
        Some(&[found]) if found != cfg.num_classes => Err(Error::Classes {
            found,
            tensor,
            expected: cfg.num_classes,
            advice: format!(
                "set num_classes = {found}, or take the preset of the data set that it was trained on"
            ),
        }),
        _ => Ok(()),
    }
}

fn check_features(cfg: &Config, layout: &Layout, shapes: &Shapes) -> Result<()> {
    for i in 0..FEATURES {
        let name = format!("backbone._feat_fc_{i}.0.weight");
        let (raw, reduced) = (layout.raw_features[i], layout.features[i]);
        let expected = (cfg.out_feat_scale[i] != 1.0).then(|| vec![reduced, raw, 1, 1]);
        let found = shapes.get(&name);
        if found == expected.as_ref() {
            continue;
        }
        let says = match found.map(Vec::as_slice) {
            None => "a net without that reduction: 1".to_owned(),
            Some(&[out, inputs, ..]) => {
                format!("{inputs} → {out} channels: {:.3}", out as f64 / inputs as f64)
            }
            Some(other) => format!("a shape of {other:?}"),
        };
        return Err(Error::Checkpoint(format!(
            "{name} shows {says}, the configuration's out_feat_scale[{i}] is {} for {raw} channels: take the backbone and the factors that it was trained with",
            cfg.out_feat_scale[i]
        )));
    }
    Ok(())
}

/// The channels that each mapping reads tell the two divisions under the same names apart.
fn check_maps(cfg: &Config, layout: &Layout, shapes: &Shapes) -> Result<()> {
    let names = cfg.map_names();
    let fits = |layout: &Layout| {
        let mut faults = layout.maps.iter().zip(&names).filter_map(|(map, name)| {
            let found = shapes.get(&format!("{name}.weight"))?;
            let expected = [map.rows(), map.split / map.groups, 1, 1];
            (*found != expected).then(|| (map.clone(), format!("{name}.weight"), found.clone()))
        });
        faults.next()
    };
    let Some((MapShape { split, groups, params, .. }, name, found)) = fits(layout) else { return Ok(()) };
    let twin = match cfg.version {
        Version::V0_2 => Some(Version::V1_0),
        Version::V1_0 => Some(Version::V0_2),
        Version::V0_1 | Version::V1_0Unify => None,
    };
    if let Some(twin) = twin
        && let Ok(layout) = (Config { version: twin, ..cfg.clone() }).layout()
        && fits(&layout).is_none()
    {
        let sign = format!("{name} reads {} channels a group", found.get(1).copied().unwrap_or_default());
        return Err(other_version(twin, &sign, cfg, ""));
    }
    Err(Error::Checkpoint(format!(
        "{name} has the shape {found:?}, the configuration makes {params} parameters of {split} channels in {groups} groups: check weight_groups, level_channels and expand_ratio"
    )))
}
