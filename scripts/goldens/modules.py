"""Makes crates/layers/tests/fixtures/modules.json: what modules of torchvision and timm hold and give.

    pip install torch torchvision timm
    python scripts/goldens/modules.py crates/layers/tests/fixtures/modules.json

Of each module: its tensors by name and shape, its parameters, its multiply-adds for a batch of 1, and what comes out
of it for a larger batch; `described.py` says how.
"""

import json
import sys
from functools import partial
from pathlib import Path

import timm
import torch
import torchvision
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import Block
from torch import nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

from described import described, listing, multiply_adds, seed, table, tensor

# Channels and sizes of a backbone's maps at strides 8, 16 and 32: odd, and none twice the next.
CHANNELS = (12, 20, 28)
SIZES = ((17, 23), (9, 12), (5, 6))
LEVEL = 16


class Maps(nn.Module):
    """A pyramid on a list of maps."""

    def __init__(self, fpn):
        super().__init__()
        self.fpn = fpn

    def forward(self, *maps):
        return list(self.fpn(dict(zip(map(str, range(len(maps))), maps))).values())


def case(name, source, net, inputs, rename=lambda name: name, batch=2, more=()):
    """`inputs`: shapes of one element of the batch; `more`: what else the net takes, after them."""
    print(name, file=sys.stderr)
    net.eval()
    tensors = table(net, rename)
    seed(tensors)
    outputs = net(*(tensor(f"input.{i}", (batch, *shape)) for i, shape in enumerate(inputs)), *more)
    return {
        "name": name,
        "source": source,
        "tensors": listing(tensors),
        "params": sum(p.numel() for p in net.parameters()),
        "macs": multiply_adds(net, *(torch.zeros(1, *shape) for shape in inputs)),
        "outputs": [described(ys) for ys in (outputs if isinstance(outputs, list) else [outputs])],
    }


def cases():
    version = f"timm {timm.__version__}"
    block = Block(48, 3, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    yield case("transformer block", version, block, [(13, 48)])
    windows = WindowAttention(24, 3, window_size=4)
    # As if the second window of an image held two parts that do not belong together.
    part = torch.arange(16) % 4 // 2
    mask = torch.stack([torch.zeros(16, 16), torch.where(part[:, None] == part, 0.0, -100.0)])
    yield case("window attention", version, windows, [(16, 24)], batch=4, more=[mask])

    version = f"torchvision {torchvision.__version__.split('+')[0]}"
    maps = [(c, *size) for c, size in zip(CHANNELS, SIZES)]
    unwrap = lambda name: name.removeprefix("fpn.")

    def flat(name):
        _, kind, rest = name.split(".", 2)
        return f"{kind}.{rest}" if kind == "extra_blocks" else f"{kind}.{rest.replace('.0.', '.')}"

    def maskrcnn(name):
        _, kind, rest = name.split(".", 2)
        if kind == "extra_blocks":
            return f"top_blocks.{rest}"
        level, _, entry = rest.split(".")
        return f"fpn_{kind.removesuffix('_blocks')}{int(level) + 2}.{entry}"

    for name, extra, rename in (
        ("pyramid", None, unwrap),
        ("pyramid, pool", LastLevelMaxPool(), unwrap),
        ("pyramid, from p5", LastLevelP6P7(LEVEL, LEVEL), unwrap),
        ("pyramid, from c5", LastLevelP6P7(CHANNELS[-1], LEVEL), unwrap),
        ("pyramid, flat names", LastLevelP6P7(LEVEL, LEVEL), flat),
        ("pyramid, maskrcnn-benchmark's names", LastLevelP6P7(CHANNELS[-1], LEVEL), maskrcnn),
    ):
        net = Maps(FeaturePyramidNetwork(CHANNELS, LEVEL, extra))
        yield case(name, version, net, maps, rename)


if __name__ == "__main__":
    with torch.no_grad():
        modules = ",\n".join(json.dumps(module) for module in cases())
    Path(sys.argv[1]).write_text(f"[\n{modules}\n]\n")
