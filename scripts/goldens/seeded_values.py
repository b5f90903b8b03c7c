"""Makes crates/parity/tests/data/seeded.json: bits of seeded values, by numpy in float32.

    pip install numpy
    python scripts/goldens/seeded_values.py crates/parity/tests/data/seeded.json

Of each tensor the first values and the last, as the 32 bits of the float. The formulas are the ones of
the crate's `seeded` module, written down a second time.
"""
import json
import sys

import numpy as np

KEEP = 6
F = np.float32
CASES = [
    ("features.0.0.weight", [32, 3, 3, 3]),
    ("features.0.1.weight", [32]),
    ("features.0.1.bias", [32]),
    ("features.0.1.running_mean", [32]),
    ("features.0.1.running_var", [32]),
    ("features.0.1.num_batches_tracked", []),
    ("classifier.1.weight", [100, 128]),
    ("attention.relative_bias", [8, 15]),
    ("scale", []),
    ("ß.weight", [5, 7]),
    ("one.weight", [3, 1]),
    ("empty.weight", [0, 4]),
]
INPUTS = [("input", [1, 3, 16, 24]), ("input.1", [2, 5]), ("met.scores", [40])]


def fnv1a(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return h


def uniform(name, n):
    out = np.empty(n, F)
    for i in range(n):
        z = (fnv1a(name) + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        out[i] = F((z ^ (z >> 31)) >> 40) / F(2**24)
    return out


def value(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if name.endswith("num_batches_tracked"):
        return np.zeros_like(u)
    if name.endswith("running_var"):
        return F(0.5) + u
    if name.endswith(("running_mean", "bias")):
        return (u - F(0.5)) * F(0.2)
    if len(shape) < 2:
        return F(0.75) + F(0.5) * u
    return (F(2) * u - F(1)) * F(np.sqrt(6.0 / np.prod(shape[1:])))


def entry(role, name, shape, values):
    bits = np.ascontiguousarray(values, F).view(np.uint32).tolist()
    return {"role": role, "name": name, "shape": shape, "first": bits[:KEEP], "last": bits[-KEEP:]}


def main(path):
    entries = [entry("weight", n, s, value(n, s)) for n, s in CASES]
    entries += [entry("input", n, s, F(2) * uniform(n, int(np.prod(s))) - F(1)) for n, s in INPUTS]
    with open(path, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(e, ensure_ascii=False) for e in entries) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
