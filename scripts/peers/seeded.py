"""Seeded weights and inputs: values that follow from a tensor's name, as crates/parity's `seeded` module
makes them, so that every engine computes the same net on the same input."""
import numpy as np

F = np.float32


def fnv1a(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return h


def uniform(name, shape):
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(F) / F(2**24)).reshape(shape)


def weight(name, shape, gain=()):
    """`gain`: factors on tensors of a name, whose names start so, or of so many dims, as golden files have them."""
    value = plain(name, shape)
    for entry in gain:
        if "min_dims" in entry:
            is_meant = len(shape) >= entry["min_dims"]
        else:
            is_meant = name == entry["name"] if "name" in entry else name.startswith(entry["prefix"])
        if is_meant:
            value = value * F(entry["factor"])
    return value


def plain(name, shape):
    u = uniform(name, shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return F(0.5) + u
    if name.endswith(("running_mean", "bias")):
        return (u - F(0.5)) * F(0.2)
    if len(shape) < 2:
        return F(0.75) + F(0.5) * u
    return (F(2) * u - F(1)) * F(np.sqrt(6.0 / np.prod(shape[1:])))


def tensor(name, shape, block=1):
    """An input. With blocks, squares of so many pixels have one value a channel."""
    *outer, h, w = shape
    if block > 1:
        return tensor(name, [*outer, h // block, w // block]).repeat(block, -2).repeat(block, -1)
    return F(2) * uniform(name, shape) - F(1)
