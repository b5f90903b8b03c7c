//! What the crate promises, through its public interface.

#[cfg(test)]
mod decode;
#[cfg(test)]
mod draw;
#[cfg(test)]
#[cfg(test)]
mod labelled;
#[cfg(test)]
mod normalize;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod resize;
#[cfg(test)]
mod source;
#[cfg(test)]
mod write;
