"""What fixtures hold of other projects' nets: their tensors, their multiply-adds, and what comes out of them with
weights and inputs that follow from names and shapes (the formulas of the crate `zoo-parity`'s `seeded` module).

Of an output: its shape, its mean, deviation and largest absolute value, and some values at a stride.
"""

import math

import numpy as np
import torch
from torch import nn

KEEP = 24


def uniform(name, shape):
    """24 random bits for each element: splitmix64 from the name's FNV-1a hash."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(2**24)).reshape(shape)


def value(name, shape):
    u = uniform(name, shape)
    if name.endswith("running_var"):
        return np.float32(0.5) + u
    if name.endswith(("running_mean", "bias")):
        return (u - np.float32(0.5)) * np.float32(0.2)
    if len(shape) < 2:
        return np.float32(0.75) + np.float32(0.5) * u
    return (2 * u - 1) * np.float32(math.sqrt(6 / math.prod(shape[1:])))


def tensor(name, shape):
    """A seeded input."""
    return torch.from_numpy(2 * uniform(name, shape) - 1)


def table(net, rename=lambda name: name):
    """Names and shapes of a net's tensors, less the counters of batches."""
    return {rename(name): t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def seed(tensors):
    for name, tensor in tensors.items():
        tensor.copy_(torch.from_numpy(value(name, tuple(tensor.shape))))


def listing(tensors):
    """The table in lines, the four tensors of a batch norm in one."""
    lines = []
    for name, tensor in tensors.items():
        module, _, entry = name.rpartition(".")
        is_norm = f"{module}.running_var" in tensors
        if not is_norm:
            lines.append(f"{name} {'x'.join(map(str, tensor.shape))}")
        elif entry == "running_var":
            lines.append(f"{module}.* {len(tensor)}")
    return lines


def multiply_adds(net, *inputs):
    """Of convolutions and linear layers, for inputs of batch 1."""
    total = 0

    def count(module, _, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [m.register_forward_hook(count) for m in layers]
    net(*inputs)
    for hook in hooks:
        hook.remove()
    return total


def described(tensor):
    flat = tensor.flatten().double().numpy()
    stride = -(-flat.size // KEEP) | 1  # odd, so that it walks rows and channels
    digits = lambda values: [float(f"{v:.8g}") for v in values]
    stats = digits([flat.mean(), flat.std(), np.abs(flat).max()])
    return {"shape": list(tensor.shape), "stats": stats, "stride": stride, "values": digits(flat[::stride])}
