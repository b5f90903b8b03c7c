"""Makes crates/layers/tests/fixtures/backbones.json: what the backbones of other projects hold and give.

    pip install torch torchvision timm efficientnet_pytorch efficientnet-lite-pytorch
    python scripts/goldens/backbones.py crates/layers/tests/fixtures/backbones.json

Of each net: its tensors by name and shape, its parameters, its multiply-adds, and what comes out of it; `described.py`
says how.

`NAME.*` stands for the four tensors of a batch norm.
"""

import json
import sys
from pathlib import Path

import timm
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet as LiteNet
from efficientnet_pytorch import EfficientNet
from torch import nn

from described import described, listing, multiply_adds, seed, table, tensor

# Odd and not square, so that every stage has a border to get wrong.
INPUT = (1, 3, 65, 94)


def case(name, source, net, levels, size, rename=lambda name: name, tap_before_relu=False):
    """`levels`: the modules whose outputs are features; `size`: the images that the multiply-adds are of."""
    print(name, file=sys.stderr)
    net.eval()
    tensors = table(net, rename)
    seed(tensors)
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
    logits = described(net(tensor("input", INPUT)))
    features = [described(kept[level]) for level in range(len(levels))]
    return {
        "name": name,
        "source": source,
        "tensors": listing(tensors),
        "params": sum(p.numel() for p in net.parameters()),
        "size": size,
        "macs": multiply_adds(net, torch.zeros(1, 3, size, size)),
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
