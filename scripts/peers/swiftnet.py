"""SwiftNet (Oršić, Krešo, Bevandić and Šegvić, CVPR 2019) on ResNet-18 in PyTorch. Like our crate `gsvnet-seg`, it is
written from a description of what the net computes; the authors' code, under the GPL, was not read. Tensors have the
names of its checkpoints. check_gsvnet.py holds it to a golden file."""
import torch
import torch.nn.functional as F
from torch import nn

from folding import append, fold_neighbours, scale_and_shift
from resnet import ResNet18

FEATURES = 128
# Rows of the pooling's grids.
GRIDS = [8, 4, 2]
LEVEL = FEATURES // len(GRIDS)


class NormReluConv(nn.Module):
    def __init__(self, inputs, outputs, kernel=1, bias=False):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x):
        # Without a norm of its own it overwrites its input, which then nothing else reads.
        return self.conv(F.relu(self.norm(x), inplace=True))


class PyramidPooling(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.spp_bn = NormReluConv(channels, FEATURES)
        for i in range(len(GRIDS)):
            self.add_module(f"spp{i}", NormReluConv(FEATURES, LEVEL))
        self.spp_fuse = NormReluConv(FEATURES + len(GRIDS) * LEVEL, FEATURES)

    def forward(self, x):
        x = self.spp_bn(x)
        h, w = map(int, x.shape[2:])
        maps = [x]
        for i, rows in enumerate(GRIDS):
            level = getattr(self, f"spp{i}")(means(x, (rows, max(1, round(w / h * rows)))))
            maps.append(resized_like(level, x))
        return self.spp_fuse(torch.cat(maps, 1))


def means(x, grid):
    """Of the cells of a grid, which may overlap. The exporter to ONNX can only do grids that divide the map; others are
    two matrix products there."""
    size = tuple(map(int, x.shape[2:]))
    if torch.onnx.is_in_onnx_export() and any(n % cells for n, cells in zip(size, grid)):
        rows, columns = (averages(n, cells) for n, cells in zip(size, grid))
        return rows @ x @ columns.T
    return F.adaptive_avg_pool2d(x, grid)


def averages(n, cells):
    """[cells, n]: each cell's shares of the values from the one that its start falls into to the one before its end."""
    weights = torch.zeros(cells, n)
    for i in range(cells):
        first, end = i * n // cells, -(-(i + 1) * n // cells)
        weights[i, first:end] = 1 / (end - first)
    return weights


def resized_like(y, x):
    return F.interpolate(y, size=tuple(map(int, x.shape[2:])), mode="bilinear", align_corners=False)


class Step(nn.Module):
    """One of the ladder: the coarse map, resized, on the projection of a finer one."""

    def __init__(self, channels):
        super().__init__()
        self.bottleneck = NormReluConv(channels, FEATURES)
        self.blend_conv = NormReluConv(FEATURES, FEATURES, 3)

    def forward(self, x, skip):
        skip = self.bottleneck(skip)
        return self.blend_conv(skip.add_(resized_like(x, skip)))


class Backbone(ResNet18):
    def __init__(self):
        super().__init__()
        self.spp = nn.Module()
        self.spp.spp = PyramidPooling(512)
        self.upsample = nn.ModuleList(Step(channels) for channels in (256, 128, 64))

    def forward(self, x, seen):
        *skips, x = self.maps(x, seen)
        seen["spp"] = x = self.spp.spp(x)
        for i, (step, skip) in enumerate(zip(self.upsample, reversed(skips))):
            seen[f"up{i}"] = x = step(x, skip)
        return x


class SwiftNet(nn.Module):
    # Maps that norms' scales are folded into.
    scaled = ("spp", "up")

    def __init__(self, classes=19):
        super().__init__()
        self.backbone = Backbone()
        self.logits = NormReluConv(FEATURES, classes, bias=True)

    def forward(self, x, seen=None):
        """Images, normalised, [B, 3, H, W], → logits, [B, classes, H/4, W/4]. `seen` gets the maps on the way."""
        return self.logits(self.backbone(x, {} if seen is None else seen))

    @torch.no_grad()
    def folded(self):
        """Folds the encoder's norms, and of the others those whose input nothing else reads and no ReLU makes: a step's
        norm is over a sum, both addends of which are scaled where they are made, and one is shifted."""
        producer = self.backbone.spp.spp.spp_fuse
        for step in self.backbone.upsample:
            scale, shift = scale_and_shift(step.blend_conv.norm)
            append(producer.conv, scale)
            append(step.bottleneck.conv, scale, shift)
            step.blend_conv.norm = nn.Identity()
            producer = step.blend_conv
        append(producer.conv, *scale_and_shift(self.logits.norm))
        self.logits.norm = nn.Identity()
        return fold_neighbours(self)
