"""Makes crates/layers/tests/fixtures/backbones.json: what the backbones of other projects hold and give.

    pip install torch torchvision timm efficientnet_pytorch efficientnet-lite-pytorch
    python scripts/goldens/backbones.py crates/layers/tests/fixtures/backbones.json

Of each net: its tensors by name and shape, its parameters, its multiply-adds, and what comes out of it with weights
and an input that follow from their names and shapes (the formulas of the crate `zoo-parity`'s `seeded` module). Of
an output: its shape, its mean, deviation and largest absolute value, and some values at a stride.

`NAME.*` stands for the four tensors of a batch norm.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet as LiteNet
from efficientnet_pytorch import EfficientNet
from torch import nn

# Odd and not square, so that every stage has a border to get wrong.
INPUT = (1, 3, 65, 94)
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


def table(net, rename):
    """Names and shapes of a net's tensors, less the counters of batches."""
    return {rename(name): t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}


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


def multiply_adds(net, size):
    """Of convolutions and linear layers, for one image of `size`."""
    total = 0

    def count(module, _, output):
        nonlocal total
        outputs = output.numel() if isinstance(module, nn.Linear) else output[0].numel()
        total += outputs * module.weight[0].numel()

    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [m.register_forward_hook(count) for m in layers]
    net(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


def described(tensor):
    flat = tensor.flatten().double().numpy()
    stride = -(-flat.size // KEEP) | 1  # odd, so that it walks rows and channels
    digits = lambda values: [float(f"{v:.8g}") for v in values]
    stats = digits([flat.mean(), flat.std(), np.abs(flat).max()])
    return {"shape": list(tensor.shape), "stats": stats, "stride": stride, "values": digits(flat[::stride])}


def case(name, source, net, levels, size, rename=lambda name: name, tap_before_relu=False):
    """`levels`: the modules whose outputs are features; `size`: the images that the multiply-adds are of."""
    print(name, file=sys.stderr)
    net.eval()
    tensors = table(net, rename)
    for key, tensor in tensors.items():
        tensor.copy_(torch.from_numpy(value(key, tuple(tensor.shape))))
    kept = {}

    def keep(level):
        def hook(_, inputs, output=None):
            kept[level] = (inputs[0] if output is None else output).clone()

        return hook

    for level, module in enumerate(levels):
        if tap_before_relu:
            module[-1].relu.register_forward_pre_hook(keep(level))  # called last for the sum
        else:
            module.register_forward_hook(keep(level))
    logits = described(net(torch.from_numpy(2 * uniform("input", INPUT) - 1)))
    features = [described(kept[level]) for level in range(len(levels))]
    return {
        "name": name,
        "source": source,
        "tensors": listing(tensors),
        "params": sum(p.numel() for p in net.parameters()),
        "size": size,
        "macs": multiply_adds(net, size),
        "features": features,
        "logits": logits,
    }


def resnet_levels(net):
    return [net.layer1, net.layer2, net.layer3, net.layer4]


def caffe(net):
    """Stride in the first 1x1 convolution, batch norm without an epsilon."""
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return net


def stage_ends(net):
    """The last of EfficientNet-PyTorch's blocks at strides 4, 8, 16 and 32."""
    blocks = list(net._blocks)
    starts = [i for i, block in enumerate(blocks) if block._depthwise_conv.stride[0] == 2]
    return [blocks[i - 1] for i in starts[1:]] + [blocks[-1]]


def cases():
    zoo = torchvision.models
    version = f"torchvision {torchvision.__version__.split('+')[0]}"
    net = zoo.mobilenet_v2()
    yield case("mobilenet_v2", version, net, [net.features[i] for i in (3, 6, 13, 17)], 224)
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_64x4d"):
        net = zoo.get_model(name)
        yield case(name, version, net, resnet_levels(net), 224)
    for name, size in (("b0", 224), ("b1", 240), ("b2", 288), ("b3", 300)):
        net = zoo.get_model(f"efficientnet_{name}")
        yield case(f"efficientnet_{name}", version, net, [net.features[i] for i in (2, 3, 5, 7)], size)
    net = zoo.resnet18()
    yield case("resnet18 before relu", version, net, resnet_levels(net), 224, tap_before_relu=True)
    nested = lambda name: f"stem.{name}" if name.startswith(("conv1", "bn1")) else name
    net = caffe(zoo.resnet50())
    yield case("resnet50 caffe", version, net, resnet_levels(net), 224, rename=nested)

    version = f"timm {timm.__version__}"
    for name, size in (
        ("resnet50", 224),
        ("efficientnet_b0", 224),
        ("tf_efficientnet_b0", 224),
        ("tf_efficientnet_b1", 240),
        ("tf_efficientnet_b3", 300),
        ("efficientnet_lite0", 224),
        ("tf_efficientnet_lite0", 224),
        ("tf_efficientnet_lite1", 240),
        ("tf_efficientnet_lite2", 260),
    ):
        net = timm.create_model(name)
        levels = resnet_levels(net) if name == "resnet50" else [net.blocks[i] for i in (1, 2, 4, 6)]
        yield case(f"timm {name}", version, net, levels, size)

    # Padding that was computed for 240 pixels is another one for INPUT.
    net = EfficientNet.from_name("efficientnet-b1")
    yield case("EfficientNet-PyTorch b1", "efficientnet_pytorch 0.7.1", net, stage_ends(net), 240)
    net = LiteNet.from_name("efficientnet-lite0")
    yield case("EfficientNet-PyTorch lite0", "efficientnet-lite-pytorch 0.1.0", net, stage_ends(net), 224)


if __name__ == "__main__":
    with torch.no_grad():
        nets = ",\n".join(json.dumps(net) for net in cases())
    Path(sys.argv[1]).write_text(f"[\n{nets}\n]\n")
