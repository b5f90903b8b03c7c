"""The cases' nets in PyTorch, as their projects publish them where they do."""
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse

from cases import parse, shape


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


class Patchwise(nn.Module):
    """HyperSeg's dynamic convolution: the map in patches, each with its own weights, as one convolution
    with a group a patch. 1×1 is over all channels; larger ones are depthwise on the map reflected."""

    def __init__(self, outputs, kernel, grid):
        super().__init__()
        self.outputs, self.kernel, self.grid, self.gather = outputs, kernel, grid, False

    def forward(self, x, weights):
        (b, c, h, w), (rows, columns), k = map(int, x.shape), self.grid, self.kernel
        ph, pw, halo = h // rows, w // columns, k // 2
        if halo and self.gather:
            x = x.index_select(2, reflected(h, rows, halo)).index_select(3, reflected(w, columns, halo))
            x = x.reshape(b, c, rows, ph + 2 * halo, columns, pw + 2 * halo).permute(0, 2, 4, 1, 3, 5)
        else:
            x = F.pad(x, (halo,) * 4, mode="reflect") if halo else x
            x = x.unfold(2, ph + 2 * halo, ph).unfold(3, pw + 2 * halo, pw).permute(0, 2, 3, 1, 4, 5)
        x = x.reshape(1, -1, ph + 2 * halo, pw + 2 * halo)
        weights = weights.permute(0, 2, 3, 1).reshape(-1, c if k == 1 else 1, k, k)
        groups = b * rows * columns * (1 if k == 1 else c)
        y = F.conv2d(x, weights, groups=groups)
        return y.reshape(b, rows, columns, -1, ph, pw).permute(0, 3, 1, 4, 2, 5).reshape(b, -1, h, w)


def reflected(size, parts, halo):
    """The rows that the patches read, patch by patch, the map's border reflected."""
    part = size // parts
    at = torch.arange(parts)[:, None] * part + torch.arange(-halo, part + halo)
    return (size - 1 - (size - 1 - at.abs()).abs()).flatten()


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
        net = Patchwise(int(arguments[0]), int(arguments[1]), shape(arguments[2]))
    else:
        raise SystemExit(f"{spec}: no such net")
    return net.eval()


def exportable(net):
    """The net without what the exporter to ONNX cannot trace."""
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
        if isinstance(module, Patchwise):
            module.gather = True  # unfolding what is padded has no symbol
    return net


def folded(net):
    """The net with its batch norms folded into the convolutions before them."""
    for module in list(net.modules()):
        children = list(module.named_children())
        for (name, conv), (norm_name, norm) in zip(children, children[1:]):
            # timm's norm with its activation, which torch.fx does not know.
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and hasattr(norm, "drop"):
                setattr(module, name, nn.utils.fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, norm.act)
    return fuse(net) if any(isinstance(m, nn.BatchNorm2d) for m in net.modules()) else net


def has_norms(net):
    return any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
