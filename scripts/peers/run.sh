#!/usr/bin/env bash
# Times PyTorch, ONNX Runtime and the zoo on the same nets, inputs and threads; see README.md beside.
#
#   scripts/peers/run.sh [--quick] [--json FILE] [--threads 1,2] [--cases A,B]
#
# Prints a table in markdown on stdout, and what it does on stderr.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
home=$target/peers
venv=$home/venv

if ! cmp -s "$here/requirements.txt" "$venv/installed"; then
    echo "installing the peers in $venv (several GB)" >&2
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$venv/installed"
fi
if [[ -z ${PEERS_OURS:-} ]]; then
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" -p zoo-cli --no-default-features --example peers >&2
    PEERS_OURS=$target/release/examples/peers
fi
exec "$venv/bin/python" "$here/peers.py" --ours "$PEERS_OURS" --home "$home" "$@"
