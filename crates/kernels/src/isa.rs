//! Which instruction set the kernels use.
//!
//! Every kernel is written once, over [`Simd`](crate::simd::Simd), and compiled for each
//! instruction set below; which one runs is decided when it is called.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

use candle_core::{Error, Result};

/// The variable that forces an instruction set: `avx512`, `avx2` or `portable`.
const VARIABLE: &str = "ZOO_ISA";

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of the target has.
    Portable,
    /// AVX2 and FMA: 8 lanes, 16 registers.
    Avx2,
    /// AVX-512F: 16 lanes, 32 registers.
    Avx512,
}

thread_local! {
    static SCOPED: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    /// All of them, narrowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Its name, as `ZOO_ISA` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => std::arch::is_x86_feature_detected!("avx512f") && Self::Avx2.is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Those that this processor has, narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The one that kernels called from this thread use: the widest, unless `ZOO_ISA` or
    /// [`Isa::scoped`] says otherwise.
    ///
    /// # Errors
    /// If `ZOO_ISA` names none, or one that this processor lacks.
    pub fn current() -> Result<Self> {
        static CHOSEN: OnceLock<std::result::Result<Isa, String>> = OnceLock::new();
        if let Some(isa) = SCOPED.get() {
            return Ok(isa);
        }
        CHOSEN.get_or_init(|| choose(std::env::var(VARIABLE).ok().as_deref())).clone().map_err(Error::Msg)
    }

    /// Runs `work` with this instruction set for the kernels that it calls from this thread.
    ///
    /// # Errors
    /// If this processor lacks it.
    pub fn scoped<T>(self, work: impl FnOnce() -> T) -> Result<T> {
        /// Puts the former choice back, also after a panic.
        struct Restore(Option<Isa>);
        impl Drop for Restore {
            fn drop(&mut self) {
                SCOPED.set(self.0);
            }
        }
        if !self.is_available() {
            return Err(Error::Msg(missing(self)));
        }
        let _restore = Restore(SCOPED.replace(Some(self)));
        Ok(work())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn choose(asked: Option<&str>) -> std::result::Result<Isa, String> {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        return Ok(Isa::available().last().unwrap_or(Isa::Portable));
    };
    match Isa::ALL.into_iter().find(|isa| isa.name() == asked) {
        Some(isa) if isa.is_available() => Ok(isa),
        Some(isa) => Err(missing(isa)),
        None => {
            Err(format!("{VARIABLE}: expected one of {}, got '{asked}'", Isa::ALL.map(Isa::name).join(", ")))
        }
    }
}

fn missing(isa: Isa) -> String {
    let here: Vec<_> = Isa::available().map(Isa::name).collect();
    format!("this processor has no {isa}; it has {}", here.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_read_strictly() {
        assert_eq!(choose(Some("portable")), Ok(Isa::Portable));
        assert_eq!(choose(None), choose(Some("")));
        assert_eq!(choose(None).ok(), Isa::available().max());
        assert_eq!(
            choose(Some("sse")),
            Err("ZOO_ISA: expected one of portable, avx2, avx512, got 'sse'".to_owned())
        );
    }

    #[test]
    fn a_scope_ends() -> Result<()> {
        let before = Isa::current()?;
        assert_eq!(Isa::Portable.scoped(Isa::current)??, Isa::Portable);
        assert_eq!(Isa::current()?, before);
        Ok(())
    }
}
