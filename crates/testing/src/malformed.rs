/// The beginnings of a file: cut at 0, `step`, 2 · `step` … bytes, never whole.
pub fn truncations(bytes: &[u8], step: usize) -> impl Iterator<Item = &[u8]> {
    (0..bytes.len()).step_by(step).filter_map(|length| bytes.get(..length))
}

/// Copies of a file, each with all bits of one byte turned over: byte 0, `step`, 2 · `step` …
pub fn flips(bytes: &[u8], step: usize) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len()).step_by(step).map(|at| {
        let mut copy = bytes.to_vec();
        if let Some(byte) = copy.get_mut(at) {
            *byte = !*byte;
        }
        (at, copy)
    })
}

/// A safetensors file with any header and any data, sound or not.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}
