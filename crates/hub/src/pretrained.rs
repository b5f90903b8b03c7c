use std::path::Path;

use candle_nn::VarBuilder;
use zoo_core::Weights as _;

use crate::fit::Fitting;
use crate::{BoxError, Checkpoint, Error, FitReport, LoadOptions, Result, resolve};

/// A net that can be built from a weight file.
///
/// ```
/// use candle_nn::{Linear, VarBuilder, linear};
/// use zoo_core::{Status, WeightSpec};
/// use zoo_hub::{LoadOptions, Pretrained};
///
/// struct Head(Linear);
///
/// enum Weights { Trained }
///
/// impl zoo_core::Weights for Weights {
///     fn spec(&self) -> WeightSpec {
///         WeightSpec {
///             name: "head/trained".into(),
///             file: "head.safetensors".into(),
///             status: Status::Convert("zoo convert head.pth".into()),
///             size: None,
///             sha256: None,
///             license: "MIT".into(),
///             trained_on: "nothing".into(),
///             metrics: vec![],
///         }
///     }
/// }
///
/// impl Pretrained for Head {
///     type Config = usize;
///     type Weights = Weights;
///
///     fn config(_: &Weights) -> usize {
///         21
///     }
///
///     fn new(classes: &usize, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
///         Ok(Self(linear(32, *classes, vb.pp("head"))?))
///     }
/// }
///
/// let error = Head::from_pretrained(Weights::Trained, &LoadOptions::default()).err().unwrap();
/// assert!(error.to_string().contains("zoo convert head.pth"));
/// ```
pub trait Pretrained: Sized {
    /// What decides the net's layers.
    type Config;
    /// The weight files that there are.
    type Weights: zoo_core::Weights;

    /// The configuration that a weight file was trained with.
    fn config(weights: &Self::Weights) -> Self::Config;

    /// Looks at a checkpoint before a net of this configuration is built for it: the place for errors that
    /// say more than which tensors differ.
    ///
    /// # Errors
    /// If it was made for another kind of net.
    fn check(_: &Self::Config, _: &Checkpoint) -> std::result::Result<(), BoxError> {
        Ok(())
    }

    /// Builds the net, asking `vb` for its tensors by their names in the checkpoint.
    ///
    /// # Errors
    /// If the configuration makes no net.
    fn new(config: &Self::Config, vb: VarBuilder<'static>) -> candle_core::Result<Self>;

    /// Called once the weights are in: the place to fold batch norms.
    ///
    /// # Errors
    /// If the weights do not allow it.
    fn prepare(&mut self) -> candle_core::Result<()> {
        Ok(())
    }

    /// Finds the weights, checks them, builds the net with them, and prepares it.
    ///
    /// # Errors
    /// If the weights cannot be had, are not what their specification says, or do not fit the net.
    fn from_pretrained(weights: Self::Weights, options: &LoadOptions) -> Result<Self> {
        let checkpoint = resolve(&weights, options)?.open()?;
        let name = format!("{} ({})", type_name::<Self>(), weights.spec().name);
        load_and_prepare(&name, &Self::config(&weights), checkpoint, options)
    }

    /// Builds the net with the weights of a local file, and prepares it. Never uses the network.
    ///
    /// # Errors
    /// If the file cannot be read or does not fit the net.
    fn from_file(config: &Self::Config, path: &Path, options: &LoadOptions) -> Result<Self> {
        load_and_prepare(type_name::<Self>(), config, Checkpoint::open(path)?, options)
    }
}

fn load_and_prepare<M: Pretrained>(
    name: &str,
    config: &M::Config,
    checkpoint: Checkpoint,
    options: &LoadOptions,
) -> Result<M> {
    M::check(config, &checkpoint).map_err(|source| Error::Refused {
        model: name.to_owned(),
        file: checkpoint.file().to_owned(),
        source,
    })?;
    let mut net = load(name, checkpoint, options, |vb| M::new(config, vb))?;
    net.prepare().map_err(|source| Error::Build { model: name.to_owned(), source: Box::new(source) })?;
    Ok(net)
}

/// `HyperSegNet` of `hyperseg::model::HyperSegNet<T>`.
fn type_name<M>() -> &'static str {
    let name = std::any::type_name::<M>();
    let name = name.split_once('<').map_or(name, |(name, _)| name);
    name.rsplit_once("::").map_or(name, |(_, name)| name)
}

/// Builds a net with any constructor and a checkpoint's tensors. All that does not fit is reported at
/// once: the constructor runs to its end, on zeros where need be, before anything is judged. What does fit goes
/// to the log; [`check_fit`] gives the report itself.
///
/// # Errors
/// [`Error::Fit`] if tensors are missing, unexpected or of another shape; [`Error::NonFinite`] or
/// [`Error::TensorType`] for one that fits and cannot be used; [`Error::Build`] if the constructor fails.
pub fn load<M>(
    model: &str,
    checkpoint: Checkpoint,
    options: &LoadOptions,
    build: impl FnOnce(VarBuilder<'static>) -> candle_core::Result<M>,
) -> Result<M> {
    let (built, report) = attempt(model, checkpoint, options, build)?;
    match built {
        Some(net) if report.fits() => {
            tracing::info!("{report}");
            Ok(net)
        }
        _ => Err(Error::Fit(Box::new(report))),
    }
}

/// Says how a checkpoint's tensors fit a net, without giving the net: for model cards.
///
/// # Errors
/// As [`load`], but that a report of differences is no error.
pub fn check_fit<M>(
    model: &str,
    checkpoint: Checkpoint,
    options: &LoadOptions,
    build: impl FnOnce(VarBuilder<'static>) -> candle_core::Result<M>,
) -> Result<FitReport> {
    Ok(attempt(model, checkpoint, options, build)?.1)
}

/// The net, unless its construction stopped for want of a tensor, and how the tensors fit it.
fn attempt<M>(
    model: &str,
    checkpoint: Checkpoint,
    options: &LoadOptions,
    build: impl FnOnce(VarBuilder<'static>) -> candle_core::Result<M>,
) -> Result<(Option<M>, FitReport)> {
    let fitting = Fitting::new(checkpoint, options.non_finite_allowed());
    let vb = VarBuilder::from_backend(Box::new(fitting.clone()), options.dtype(), options.device().clone());
    let built = build(vb);
    let report = fitting.report(model, options.unexpected_prefixes());
    // A tensor that is there but cannot be used is only worth a word if all others are there, too.
    if report.fits()
        && let Some(error) = fitting.take_unusable()
    {
        return Err(error);
    }
    match built {
        Ok(net) => Ok((Some(net), report)),
        Err(_) if fitting.stopped() && !report.fits() => Ok((None, report)),
        Err(source) => Err(Error::Build { model: model.to_owned(), source: Box::new(source) }),
    }
}
