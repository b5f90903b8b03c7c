//! Files as memory, without reading them first. The only unsafe code of the crate.
#![allow(unsafe_code, reason = "a memory map cannot be made otherwise; this module is nothing but one")]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::Result;
use crate::error::io;

/// Maps a file for reading. An empty file gives an empty map.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(io("open", path))?;
    // SAFETY: The map is read-only and private to this process's view, so nothing here can write through
    // it. What remains is another process truncating or rewriting the file meanwhile: the bytes seen
    // could then change under a `&[u8]`, or a page could be gone. No API can rule that out; it is kept
    // unlikely and harmless. This crate itself only ever replaces files by renaming, which leaves the
    // old map intact; every tensor is copied out, so a map lives no longer than one load or conversion;
    // and all offsets are checked against the map's own length, never against a second look at the file.
    unsafe { Mmap::map(&file) }.map_err(io("map into memory", path))
}
