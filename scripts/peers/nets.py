"""The cases' nets in PyTorch, as their projects publish them where they do."""
import torch.nn.functional as F
import torchvision
from torch import nn

import gsvnet
import hyperseg
import packdet
from cases import parse, shape
from folding import fold_neighbours
from patchwise import Patchwise


class Tower(nn.Sequential):
    def __init__(self, blocks, channels):
        super().__init__(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks)))

    def forward(self, x):
        for conv in self:
            x = F.relu(conv(x), inplace=True)
        return x


class ConvRelu(nn.Conv2d):
    def forward(self, x):
        return F.relu(super().forward(x), inplace=True)


def build(spec):
    """The net of a case, in eval mode, its weights whatever they are."""
    kind, arguments = parse(spec)
    if kind == "train":
        return build(f"{arguments[0]}:{arguments[1]}")
    last = shape(arguments[-1])
    if kind in ("mobilenet_v2", "resnet18", "resnet50", "efficientnet_b1"):
        net = getattr(torchvision.models, kind)()
    elif kind == "efficientnet_lite0":
        import timm

        net = timm.create_model(kind)
    elif kind == "tower":
        net = Tower(int(arguments[0]), shape(arguments[1])[0])
    elif kind == "vit":
        from timm.models.vision_transformer import Block

        net = Block(last[-1], int(arguments[0]), qkv_bias=True)
    elif kind == "conv":
        outputs, kernel, stride = map(int, arguments[:3])
        net = ConvRelu(last[1], outputs, kernel, stride, kernel // 2)
    elif kind == "dw":
        kernel, stride = map(int, arguments[:2])
        net = ConvRelu(last[1], last[1], kernel, stride, kernel // 2, groups=last[1])
    elif kind == "patchwise":
        net = Patchwise(int(arguments[1]), shape(arguments[2]))
    elif kind == "hyperseg":
        net = hyperseg.HyperSeg(hyperseg.PRESETS[arguments[0]])
    elif kind == "gsvnet":
        net = gsvnet.build(arguments[0])
    elif kind == "packdet":
        net = packdet.build(arguments[0])
    else:
        raise SystemExit(f"{spec}: no such net")
    return net.eval()


def gain(spec):
    """Factors on the net's seeded weights."""
    kind, arguments = parse(spec)
    if kind == "hyperseg":
        return hyperseg.GAIN
    if kind == "packdet":
        return packdet.gain(arguments[0])
    return gsvnet.GAIN if kind == "gsvnet" else []


def exportable(net):
    """The net without what the exporter to ONNX cannot trace, and with norms folded that ONNX Runtime cannot fold."""
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return net.folded() if hasattr(net, "folded") else net


def folded(net):
    """The net with its batch norms folded into what makes or holds the weights of the convolutions before them; some
    nets have a way of their own, which no engine finds by itself."""
    return net.folded() if hasattr(net, "folded") else fold_neighbours(net)


def has_norms(net):
    return any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
