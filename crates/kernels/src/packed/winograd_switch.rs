//! Whether Winograd's filtering may be used at all: it is asked when weights are packed.

use std::cell::Cell;
use std::sync::OnceLock;

use candle_core::{Error, Result};

/// The variable that forbids it: `0`, or `1` to leave it to the layers.
const VARIABLE: &str = "ZOO_WINOGRAD";

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`. Weights that this thread packs in it are not for Winograd's filtering, whatever their
/// [`ConvOptions`](crate::ConvOptions) say; `ZOO_WINOGRAD=0` means the same for a whole process.
pub fn without_winograd<T>(work: impl FnOnce() -> T) -> T {
    /// Puts the former choice back, also after a panic.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORBIDDEN.set(self.0);
        }
    }
    let _restore = Restore(FORBIDDEN.replace(true));
    work()
}

/// Whether weights that this thread packs may be for it.
///
/// # Errors
/// If `ZOO_WINOGRAD` is neither 0 nor 1.
pub(crate) fn is_allowed() -> Result<bool> {
    static CHOSEN: OnceLock<std::result::Result<bool, String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| choose(std::env::var(VARIABLE).ok().as_deref()));
    Ok(chosen.clone().map_err(Error::Msg)? && !FORBIDDEN.get())
}

fn choose(asked: Option<&str>) -> std::result::Result<bool, String> {
    match asked {
        None | Some("" | "1") => Ok(true),
        Some("0") => Ok(false),
        Some(other) => Err(format!("{VARIABLE}: expected 0 or 1, got '{other}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_read_strictly() {
        for (asked, expected) in [(None, true), (Some(""), true), (Some("1"), true), (Some("0"), false)] {
            assert_eq!(choose(asked), Ok(expected), "{asked:?}");
        }
        assert_eq!(choose(Some("no")), Err("ZOO_WINOGRAD: expected 0 or 1, got 'no'".to_owned()));
    }

    #[test]
    fn a_scope_ends() -> Result<()> {
        let before = is_allowed()?;
        assert!(!without_winograd(is_allowed)?);
        assert_eq!(is_allowed()?, before);
        Ok(())
    }
}
