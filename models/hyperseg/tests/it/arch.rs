//! Checkpoints' descriptions of themselves, and configurations that make no net.

use hyperseg::{Config, Preset, Version};

/// The five published training configurations, as the authors' code writes them into a checkpoint.
const PUBLISHED: [(Preset, &str); 5] = [
    (
        Preset::VocL,
        "hyperseg.models.hyperseg_v0_1.hyperseg_efficientnet('efficientnet-b3',pretrained=True,levels=3,\
         kernel_sizes=(1,1,3,3,3,3),expand_ratio=2,inference_hflip=True,with_out_fc=False,decoder_dropout=None,\
         weight_groups=16,num_classes=21)",
    ),
    (
        Preset::CityscapesS,
        "hyperseg.models.hyperseg_v1_0_unify.hyperseg_efficientnet('efficientnet-b1',pretrained=True,levels=2,\
         out_feat_scale=[1.0,0.166,0.2,0.25,0.4],kernel_sizes=[1,1,1,3,3],level_channels=[32,16,8,8,8],\
         expand_ratio=2,with_out_fc=False,decoder_dropout=None,weight_groups=[32,16,8,16,4],decoder_groups=1,\
         inference_hflip=True,unify_level=4,coords_res=[(768,768),(768,1536)],num_classes=19)",
    ),
    (
        Preset::CityscapesM,
        "hyperseg.models.hyperseg_v1_0.hyperseg_efficientnet('efficientnet-b1',pretrained=True,levels=2,\
         out_feat_scale=[1.0,0.25,0.25,0.25,0.25],kernel_sizes=[1,1,1,3,3],level_channels=[64,32,16,16,16],\
         expand_ratio=2,weight_groups=[32,16,8,16,4],num_classes=19)",
    ),
    (
        Preset::CamvidS,
        "models.hyperseg_v1_0.hyperseg_efficientnet(\"efficientnet-b1\",True,0.25,2,kernel_sizes=[1,1,1,3,3],\
         level_channels=[64,32,16,16,16],expand_ratio=2,weight_groups=[64,32,32,16,8],num_classes=12,)",
    ),
    (
        Preset::CamvidL,
        "hyperseg.models.hyperseg_v1_0.hyperseg_efficientnet(model_name='efficientnet-b1', levels=2, \
         kernel_sizes=[1,1,1,3,3,3], level_channels=[64,32,16,16,16,12], expand_ratio=2, \
         weight_groups=[64,32,32,16,8,8], coords_res=[(768,768),(768,1024)], num_classes=12)",
    ),
];

#[test]
fn the_published_configurations_are_the_presets() {
    for (preset, arch) in PUBLISHED {
        assert_eq!(Config::from_arch(arch).unwrap(), preset.config(), "{}", preset.name());
    }
}

#[test]
fn what_is_left_out_is_the_constructors_default() {
    let cfg =
        Config::from_arch("hyperseg.models.hyperseg_v0_1.hyperseg_efficientnet('efficientnet-b1')").unwrap();
    assert_eq!(cfg.kernel_sizes, [3; 6]);
    assert_eq!((cfg.num_classes, cfg.head_levels, cfg.expand_ratio), (3, 3, 1.0));
    assert_eq!((cfg.weight_groups.clone(), cfg.out_feat_scale), (vec![1; 6], [0.25; 5]));
    let v0_2 = PUBLISHED[3].1.replace("v1_0", "v0_2");
    assert_eq!(
        Config::from_arch(&v0_2).unwrap(),
        Config { version: Version::V0_2, ..Preset::CamvidS.config() }
    );
}

#[test]
fn other_descriptions_say_what_is_wrong() {
    let of = |arguments: &str| format!("hyperseg.models.hyperseg_v1_0.hyperseg_efficientnet({arguments})");
    for (arch, expected) in [
        ("hyperseg_b1".to_owned(), "is not a call"),
        (
            "torchvision.models.resnet18()".to_owned(),
            "names the module 'models', expected one of hyperseg_v0_1, ",
        ),
        (of("").replace("v1_0", "v2_0"), "names the module 'hyperseg_v2_0'"),
        (of("levels=2"), "names no backbone"),
        (of("'resnet18'"), "unknown backbone 'resnet18': expected one of efficientnet-b0, "),
        (of("'efficientnet-b1',with_out_fc=True"), "has with_out_fc other than false"),
        (of("'efficientnet-b1',level_layers=[1,2]"), "has level_layers other than 1"),
        (of("'efficientnet-b1',shuffle=3"), "has the argument 'shuffle', which is not known"),
        (of("'efficientnet-b1',weight_groups=[1,2"), "has no plain value for 'weight_groups'"),
        (of("'efficientnet-b1',levels=functools.partial(f)"), "has no plain value for 'levels'"),
        (of("'efficientnet-b1',levels=2.5"), "has 2.5 in levels, expected counts"),
        (of("'efficientnet-b1',expand_ratio=[1,2]"), "has several expand_ratio"),
        (of("'efficientnet-b1',out_feat_scale=[1,2]"), "has 2 out_feat_scale, expected 5"),
        (of("'efficientnet-b1',kernel_sizes=5"), "kernel_sizes has 5, expected 1 or 3"),
        (of("'efficientnet-b1',weight_groups=[]"), "weight_groups = [], expected 6 counts above 0"),
        (of("'efficientnet-b1'") + "+f()", "goes on after the call"),
        (of("'efficientnet-b1' 3"), "does not end"),
        (of(&"[".repeat(10_000)), "has no plain value"),
    ] {
        let error = Config::from_arch(&arch).unwrap_err().to_string();
        assert!(error.contains(expected), "{arch:.80}: {error}");
    }
}

#[test]
fn no_beginning_of_a_description_panics() {
    for (_, arch) in PUBLISHED {
        for end in 0..arch.len() {
            assert!(Config::from_arch(&arch[..end]).is_err(), "{}", &arch[..end]);
        }
    }
}

#[test]
fn configurations_that_make_no_net_say_why() {
    let camvid = Preset::CamvidS.config();
    let voc = Preset::VocL.config();
    let city = Preset::CityscapesS.config();
    for (cfg, expected) in [
        (Config { kernel_sizes: vec![], ..camvid.clone() }, "kernel_sizes has 0 levels, expected 1 to 6"),
        (Config { num_classes: 0, ..camvid.clone() }, "num_classes = 0"),
        (Config { level_channels: Some(vec![64]), ..camvid.clone() }, "expected 4 counts above 0"),
        (
            Config { weight_groups: vec![64, 32], ..camvid.clone() },
            "expected 5 counts above 0: one for each weight mapping",
        ),
        (
            Config { weight_groups: vec![48; 5], ..camvid.clone() },
            "1280 channels are no whole number of units of 48",
        ),
        (Config { weight_groups: vec![512; 5], ..camvid.clone() }, "units of 512"),
        (Config { weight_groups: vec![640; 5], ..camvid.clone() }, "fewer than the 5 weights"),
        (Config { weight_groups: vec![64, 3, 32, 16, 8], ..camvid.clone() }, "which 3 groups do not divide"),
        (Config { unify_level: Some(2), ..camvid.clone() }, "version v1_0 has no unify_level"),
        (Config { unify_level: None, ..city.clone() }, "expected 1 to 5 in version v1_0_unify"),
        (Config { kernel_sizes: vec![1, 1, 3, 3, 3], ..voc.clone() }, "version v0_1 always has 6"),
        (
            Config { level_channels: Some(vec![64, 32, 16, 16, 16]), ..voc.clone() },
            "have as many channels as their features: [96, 34, 12, 8, 6]",
        ),
        (Config { out_feat_scale: [0.0; 5], ..camvid.clone() }, "out_feat_scale has 0"),
        (Config { out_feat_scale: [0.01; 5], ..camvid.clone() }, "leaves no channels"),
        (Config { head_levels: 0, ..camvid.clone() }, "head_levels = 0"),
        (Config { expand_ratio: -1.0, ..camvid.clone() }, "expand_ratio = -1"),
        (Config { signal_grid: Some(0), ..camvid.clone() }, "signal_grid = 0"),
    ] {
        let error = cfg.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Config { level_channels: Some(vec![96, 34, 12, 8, 6]), ..voc }.validate().is_ok());
}

#[test]
fn configurations_go_through_json() {
    for preset in Preset::ALL {
        let cfg = Config { positions: preset != Preset::VocL, ..preset.config() };
        let text = serde_json::to_string(&cfg).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), cfg, "{text}");
        assert_eq!(Preset::parse(preset.name()).unwrap(), preset);
    }
    assert!(serde_json::from_str::<Config>(r#"{"version":"v9"}"#).is_err());
    assert!(Preset::parse("camvid-m").unwrap_err().to_string().contains("expected one of voc-l, "));
}
