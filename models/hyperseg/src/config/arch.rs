//! The description that the authors' checkpoints carry: one line of Python that calls a constructor.

use super::{BackboneName, Config, FEATURES, Version};
use crate::{Error, Result};

/// Characters of a description that an error repeats.
const SHOWN: usize = 200;
/// Lists inside lists.
const MAX_DEPTH: usize = 8;
/// The constructor's own arguments, by position.
const POSITIONAL: [&str; 5] = ["model_name", "pretrained", "out_feat_scale", "levels", "weights_path"];
const POSITIONAL_V0_1: [&str; 8] = [
    "model_name",
    "pretrained",
    "levels",
    "down_groups",
    "flat_groups",
    "weight_groups",
    "avg_pool",
    "weights_path",
];
/// Arguments that say nothing about the layers.
const WITHOUT_EFFECT: [&str; 6] =
    ["pretrained", "weights_path", "inference_hflip", "inference_gather", "coords_res", "decoder_dropout"];

/// A Python literal.
#[derive(Debug, Clone, PartialEq)]
enum Literal {
    None,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Literal>),
}

impl Config {
    /// The configuration that a checkpoint's `arch` asks for, such as
    /// `hyperseg.models.hyperseg_v1_0.hyperseg_efficientnet('efficientnet-b1',levels=2,…,num_classes=12)`.
    /// What it leaves out is as the constructor's defaults have it.
    ///
    /// # Errors
    /// If it is no such call, names an unknown version, backbone or argument, or asks for what none of
    /// the released models has (further layers a level, a last fully connected layer).
    pub fn from_arch(arch: &str) -> Result<Self> {
        Call::parse(arch)
            .and_then(|call| call.config())
            .map_err(|problem| Error::Arch { problem, arch: arch.chars().take(SHOWN).collect() })
    }
}

/// A call of the constructor.
struct Call {
    version: Version,
    arguments: Vec<(String, Literal)>,
}

impl Call {
    fn parse(arch: &str) -> Result<Self, String> {
        let (path, arguments) = arch.split_once('(').ok_or("is not a call")?;
        let module = path.trim().rsplit_once('.').map_or(path, |(module, _)| module);
        let name = module.rsplit('.').next().unwrap_or(module);
        let version = name.strip_prefix("hyperseg_").and_then(Version::parse).ok_or_else(|| {
            format!("names the module '{name}', expected one of {}", {
                Version::ALL.map(|version| format!("hyperseg_{version}")).join(", ")
            })
        })?;
        let positional: &[&str] = if version == Version::V0_1 { &POSITIONAL_V0_1 } else { &POSITIONAL };
        let mut text = Text(arguments.trim());
        let mut arguments = Vec::new();
        while !text.take(")") {
            let name = match text.name() {
                Some(name) => name.to_owned(),
                None => {
                    let at = arguments.len();
                    positional.get(at).ok_or_else(|| format!("has a nameless argument {at}"))?.to_string()
                }
            };
            let value = text.literal(0).ok_or_else(|| format!("has no plain value for '{name}'"))?;
            arguments.push((name, value));
            if !text.take(",") && !text.0.starts_with(')') {
                return Err("does not end".to_owned());
            }
        }
        if text.0.is_empty() {
            Ok(Self { version, arguments })
        } else {
            Err("goes on after the call".to_owned())
        }
    }

    fn config(mut self) -> Result<Config, String> {
        let version = self.version;
        let name = match self.take("model_name") {
            Some(Literal::Text(name)) => name,
            _ => return Err("names no backbone".to_owned()),
        };
        let backbone = BackboneName::parse(&name).map_err(|error| format!("is not understood: {error}"))?;
        for (name, only) in [
            ("in_nc", 3.0),
            ("level_layers", 1.0),
            ("groups", 1.0),
            ("decoder_groups", 1.0),
            ("down_groups", 1.0),
            ("flat_groups", 1.0),
        ] {
            let values = self.numbers(name)?;
            if values.as_ref().is_some_and(|values| values.list.iter().any(|value| *value != only)) {
                return Err(format!("has {name} other than {only}, which no released model has"));
            }
        }
        for (name, only) in [("with_out_fc", false), ("avg_pool", true), ("bias", false)] {
            if self.take(name).is_some_and(|value| value != Literal::Bool(only)) {
                return Err(format!("has {name} other than {only}, which no released model has"));
            }
        }
        for name in WITHOUT_EFFECT {
            self.take(name);
        }
        let level_channels = self.counts("level_channels")?.map(|channels| channels.list);
        // With a count for each level, those are its levels; else the six features.
        let levels = level_channels.as_ref().map_or(FEATURES + 1, Vec::len);
        let kernel_sizes =
            self.counts("kernel_sizes")?.map_or(vec![3; levels], |kernels| kernels.repeated(levels));
        let mut expansions = self.numbers("expand_ratio")?.map_or(vec![1.0], |ratio| ratio.list);
        expansions.dedup();
        let [expand_ratio] = expansions[..] else {
            return Err(format!("has several expand_ratio {expansions:?}, expected the same for all levels"));
        };
        let unify_level = self.counts("unify_level")?.and_then(|level| level.list.first().copied());
        let weight_groups = self.counts("weight_groups")?;
        let scales =
            self.numbers("out_feat_scale")?.map_or(vec![0.25; FEATURES], |scales| scales.repeated(FEATURES));
        let out_feat_scale = scales.try_into().map_err(|scales: Vec<f64>| {
            format!("has {} out_feat_scale, expected {FEATURES}", scales.len())
        })?;
        let cfg = Config {
            version,
            backbone,
            num_classes: self.count("num_classes")?.unwrap_or(3),
            out_feat_scale,
            head_levels: self.count("levels")?.unwrap_or(3),
            weight_groups: weight_groups
                .map_or(vec![1; kernel_sizes.len()], |groups| groups.repeated(kernel_sizes.len())),
            kernel_sizes,
            // The last one gives way to num_classes.
            level_channels: level_channels
                .map(|channels| channels.split_last().map(|(_, others)| others.to_vec()).unwrap_or_default()),
            expand_ratio,
            unify_level,
            signal_grid: None,
            positions: true,
        };
        if let Some((name, _)) = self.arguments.first() {
            return Err(format!("has the argument '{name}', which is not known"));
        }
        cfg.validate().map_err(|error| format!("is not understood: {error}"))?;
        Ok(cfg)
    }

    /// The value of an argument, the last if it is there twice.
    fn take(&mut self, name: &str) -> Option<Literal> {
        let mut found = None;
        self.arguments.retain_mut(|(other, value)| {
            let is_other = other != name;
            if !is_other {
                found = Some(std::mem::replace(value, Literal::None));
            }
            is_other
        });
        found
    }

    /// One number or a list of such.
    fn numbers(&mut self, name: &str) -> Result<Option<Numbers<f64>>, String> {
        let number = |value: &Literal| match value {
            Literal::Number(number) => Ok(*number),
            other => Err(format!("has {other:?} in {name}, expected numbers")),
        };
        Ok(match self.take(name) {
            None | Some(Literal::None) => None,
            Some(Literal::List(items)) => {
                Some(Numbers { list: items.iter().map(number).collect::<Result<_, _>>()?, is_one: false })
            }
            Some(one) => Some(Numbers { list: vec![number(&one)?], is_one: true }),
        })
    }

    /// The same of whole numbers.
    fn counts(&mut self, name: &str) -> Result<Option<Numbers<usize>>, String> {
        let count = |value: &f64| {
            let is_count = value.fract() == 0.0 && (0.0..=1e6).contains(value);
            is_count
                .then_some(*value as usize)
                .ok_or_else(|| format!("has {value} in {name}, expected counts"))
        };
        self.numbers(name)?
            .map(|Numbers { list, is_one }| {
                Ok(Numbers { list: list.iter().map(count).collect::<Result<_, _>>()?, is_one })
            })
            .transpose()
    }

    fn count(&mut self, name: &str) -> Result<Option<usize>, String> {
        match self.counts(name)? {
            None => Ok(None),
            Some(Numbers { list, .. }) => match list[..] {
                [count] => Ok(Some(count)),
                _ => Err(format!("has several {name}, expected one")),
            },
        }
    }
}

/// One number, or a list.
struct Numbers<T> {
    list: Vec<T>,
    is_one: bool,
}

impl<T: Clone> Numbers<T> {
    /// The list; one number stands for `count` of it.
    fn repeated(self, count: usize) -> Vec<T> {
        match (self.list.as_slice(), self.is_one) {
            ([one], true) => vec![one.clone(); count],
            _ => self.list,
        }
    }
}

/// What is left to read.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// Goes past `expected`, if it is next.
    fn take(&mut self, expected: &str) -> bool {
        match self.0.strip_prefix(expected) {
            Some(rest) => {
                self.0 = rest.trim_start();
                true
            }
            None => false,
        }
    }

    /// Goes past as many characters as satisfy `which`.
    fn take_while(&mut self, which: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !which(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest.trim_start();
        taken
    }

    /// An argument's name and its equals sign, if those are next.
    fn name(&mut self) -> Option<&'a str> {
        let before = self.0;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if !name.is_empty() && self.take("=") {
            return Some(name);
        }
        self.0 = before;
        None
    }

    fn literal(&mut self, depth: usize) -> Option<Literal> {
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.take(open) {
                return if depth < MAX_DEPTH { self.list(close, depth) } else { None };
            }
        }
        for quote in ['\'', '"'] {
            if let Some(rest) = self.0.strip_prefix(quote) {
                let (text, rest) = rest.split_once(quote)?;
                self.0 = rest.trim_start();
                return Some(Literal::Text(text.to_owned()));
            }
        }
        match self.take_while(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c)) {
            "None" => Some(Literal::None),
            "True" => Some(Literal::Bool(true)),
            "False" => Some(Literal::Bool(false)),
            number => number.parse().ok().filter(|number: &f64| number.is_finite()).map(Literal::Number),
        }
    }

    fn list(&mut self, close: &str, depth: usize) -> Option<Literal> {
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(self.literal(depth + 1)?);
            if !self.take(",") && !self.0.starts_with(close) {
                return None;
            }
        }
        Some(Literal::List(items))
    }
}
