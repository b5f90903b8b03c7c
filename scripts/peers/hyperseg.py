"""HyperSeg (Nirkin, Wolf and Hassner, CVPR 2021) in PyTorch, restated from our crate `hyperseg`, whose README says
where the paper is; tensors have the names of the authors' checkpoints. check_hyperseg.py holds it to golden files."""
import math
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import nn

from efficientnet import EfficientNet
from folding import fold_neighbours, scale_and_shift
from patchwise import cut, depthwise, join, pointwise, weights_of_patches

# As the published training configurations have them; the keys are those of the golden files.
CAMVID_S = {
    "version": "v1_0",
    "backbone": "efficientnet-b1",
    "num_classes": 12,
    "out_feat_scale": [0.25] * 5,
    "head_levels": 2,
    "kernel_sizes": [1, 1, 1, 3, 3],
    "level_channels": [64, 32, 16, 16],
    "expand_ratio": 2,
    "weight_groups": [64, 32, 32, 16, 8],
}
PRESETS = {
    "voc-l": CAMVID_S
    | {
        "version": "v0_1",
        "backbone": "efficientnet-b3",
        "num_classes": 21,
        "head_levels": 3,
        "kernel_sizes": [1, 1, 3, 3, 3, 3],
        "level_channels": [96, 34, 12, 8, 6],
        "weight_groups": [16] * 6,
    },
    "cityscapes-s": CAMVID_S
    | {
        "version": "v1_0_unify",
        "num_classes": 19,
        "out_feat_scale": [1.0, 0.166, 0.2, 0.25, 0.4],
        "level_channels": [32, 16, 8, 8],
        "weight_groups": [32, 16, 8, 16, 4],
        "unify_level": 4,
    },
    "cityscapes-m": CAMVID_S
    | {"num_classes": 19, "out_feat_scale": [1.0] + [0.25] * 4, "weight_groups": [32, 16, 8, 16, 4]},
    "camvid-s": CAMVID_S,
    "camvid-l": CAMVID_S
    | {
        "kernel_sizes": [1, 1, 1, 3, 3, 3],
        "level_channels": [64, 32, 16, 16, 16],
        "weight_groups": [64, 32, 32, 16, 8, 8],
    },
}
# Factors on seeded weights: of the oldest version's weight mappings, which have that name. With more, its dynamic weights
# multiply rounding until no two ways of computing the same agree; the golden file, of a small image, gets by with a half.
GAIN = [{"prefix": "weight_mapper.out_conv.", "factor": 0.25}]


def divide(version, channels, unit, weights):
    """Which share of the signal's channels makes which of `weights` (their counts): Algorithm 1 as the authors' code
    has it, or, for v0_1, what it had before."""
    units = channels // unit
    rate = units / sum(weights)
    counts = {value: len(list(same)) for value, same in groupby(sorted(weights))}
    order = sorted(counts, key=lambda value: (-value * counts[value], value))
    least = 0 if version == "v0_1" else 1
    shares = {value: least * n for value, n in counts.items()}
    left = units - least * len(weights)
    for value in order[:-1]:
        n = counts[value]
        due = max(value * n * rate, n if least else 1)
        more = int(due / n) * n - least * n
        more = min(more, left) if least else more
        shares[value] += more
        left -= more
    shares[order[-1]] += left
    return [shares[value] // counts[value] * unit for value in weights]


def conv(inputs, outputs, kernel=1, stride=1, relu=True):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def mean_everywhere(x):
    return x.mean((2, 3), keepdim=True).expand_as(x)


def twice(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


class FullWidthHead(nn.Module):
    """The context head of v0_1."""

    def __init__(self, channels, levels):
        super().__init__()
        self.levels = levels
        for j in range(levels - 1):
            self.add_module(f"down_{j}", conv(channels, channels, 2, 2))
        for j in range(levels - 1):
            self.add_module(f"flat_{j}", conv(2 * channels, channels, relu=j > 0))

    def forward(self, last, only_first_half=False):
        maps = [last]
        for j in range(self.levels - 1):
            maps.append(getattr(self, f"down_{j}")(maps[-1]))
        x = mean_everywhere(maps.pop())
        for j in reversed(range(self.levels - 1)):
            x = getattr(self, f"flat_{j}")(torch.cat([maps[j], twice(x)], 1))
        return x


class NestedHead(nn.Module):
    """The context head of all other versions."""

    def __init__(self, channels, levels):
        super().__init__()
        half = channels // 2
        self.in_conv = conv(channels, half)
        self.down_blocks = nn.ModuleList(conv(half, half, 2, 2) for _ in range(levels - 1))
        self.up_blocks = nn.ModuleList(conv(channels, half) for _ in range(levels - 1))

    def forward(self, last, only_first_half=False):
        maps = [self.in_conv(last)]
        if only_first_half:
            return maps[0]
        for down in self.down_blocks:
            maps.append(down(maps[-1]))
        x = mean_everywhere(maps[-1])
        for up, skip in zip(reversed(self.up_blocks), reversed(maps[1:])):
            x = twice(up(torch.cat([skip, x], 1)))
        return torch.cat([maps[0], x], 1)


class Mapping(nn.Conv2d):
    """w: a grouped 1×1 convolution from channels of the signal to the parameters of some levels, a row a patch."""

    def __init__(self, offset, split, groups, levels):
        self.params = sum(level.params for level in levels)
        super().__init__(split, math.ceil(self.params / groups) * groups, 1, groups=groups, bias=False)
        self.offset, self.split = offset, split

    def forward(self, signal):
        signal = signal.narrow(1, self.offset, self.split)
        # Channels last, whatever the layout of the rest: patch by patch is how the levels read the result.
        weights = super().forward(signal.contiguous(memory_format=torch.channels_last))
        return weights.narrow(1, 0, self.params)


class Level(nn.Module):
    """m_i: a dynamic 1×1 convolution through ReLU, or a block of three. What it has of its own is the norms; folded, a
    norm's shift is its convolution's bias."""

    def __init__(self, version, inputs, outputs, kernel, expand_ratio):
        super().__init__()
        hidden = round(inputs * expand_ratio)
        # Of each convolution: outputs, weights of an output.
        self.shapes = [(outputs, inputs)]
        self.norms, self.kernel, self.is_oldest = ["1"], kernel, version == "v0_1"
        if kernel > 1:
            self.shapes = [(hidden, inputs), (hidden, kernel**2), (outputs, hidden)]
            self.norms = [f"conv.{i}.1" if self.is_oldest else f"bn{i + 1}" for i in range(3)]
        for (channels, _), name in zip(self.shapes, self.norms):
            place(self, name, nn.BatchNorm2d(channels))
        self.biases = [None] * len(self.norms)
        self.sizes = [channels * weights for channels, weights in self.shapes]
        self.params = sum(self.sizes)

    def norm(self, i, x):
        return self.get_submodule(self.norms[i])(x)

    def fold(self):
        """The norms' scales, a factor for each parameter."""
        scales = []
        for i, (_, weights) in enumerate(self.shapes):
            scale, self.biases[i] = scale_and_shift(self.get_submodule(self.norms[i]))
            scales.append(scale.repeat_interleave(weights))
            place(self, self.norms[i], nn.Identity())
        return torch.cat(scales)

    def forward(self, x, params):
        grid, batch, halo = tuple(map(int, params.shape[2:])), len(x), self.kernel // 2
        weights = weights_of_patches(params).split(self.sizes, 1)
        # The oldest version's halo is the neighbours' hidden values; the others widen it with the patch's weights.
        x = cut(x, grid, 0 if self.is_oldest else halo)
        x = self.norm(0, pointwise(x, weights[0], self.biases[0]))
        if self.kernel == 1:
            return join(F.relu(x, inplace=True), grid, batch)
        x = F.relu6(x, inplace=True)
        if self.is_oldest:
            x = cut(join(x, grid, batch), grid, halo)
        x = F.relu6(self.norm(1, depthwise(x, weights[1], self.kernel, self.biases[1])), inplace=True)
        return join(self.norm(2, pointwise(x, weights[2], self.biases[2])), grid, batch)


def place(root, path, module):
    """Puts a module where the authors' checkpoints have it."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root._modules[parent]
    root._modules.pop(name, None)
    root.add_module(name, module)


class HyperSeg(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.version = version = config["version"]
        kernels, groups = config["kernel_sizes"], config["weight_groups"]
        groups = groups if isinstance(groups, list) else [groups] * len(kernels)
        self.backbone = EfficientNet(config["backbone"], config["out_feat_scale"])
        channels = self.backbone.channels
        head = FullWidthHead if version == "v0_1" else NestedHead
        self.weight_mapper = head(channels, config["head_levels"])
        self.decoder = nn.Module()

        features = [*reversed(self.backbone.features), 3]  # for a sixth level, the image
        outputs = [*config["level_channels"][: len(kernels) - 1], config["num_classes"]]
        self.levels, before = [], 0
        for k, kernel in enumerate(kernels):
            level = Level(version, 2 + features[k] + before, outputs[k], kernel, config["expand_ratio"])
            name = "level_blocks.{}.0" if version == "v1_0_unify" else "level_{}.0"
            place(self.decoder, name.format(k), level)
            self.levels.append(level)
            before = outputs[k]

        shared = config.get("unify_level", len(kernels)) - 1
        self.levels_of_maps = [self.levels[j : j + 1] for j in range(shared)] + [self.levels[shared:]]
        unit, weights = max(groups), [sum(level.params for level in levels) for levels in self.levels_of_maps]
        if version == "v0_1":
            unit, weights = max(8, unit), [math.ceil(n / g) * g for n, g in zip(weights, groups)]
        splits = divide(version, channels, unit, weights)
        self.maps, offset = [], 0
        for j, (split, levels) in enumerate(zip(splits, self.levels_of_maps)):
            self.maps.append(Mapping(offset, split, groups[j], levels))
            if version == "v0_1":
                place(self.weight_mapper, f"out_conv.conv_{j}", self.maps[j])
            elif version == "v1_0_unify":
                place(self.decoder, f"weight_blocks.{j}.signal2weights", self.maps[j])
            else:
                place(self.decoder, f"level_{j}.0." + "0." * (kernels[j] == 1) + "signal2weights", self.maps[j])
            # In v1_0 every mapping reads the signal from its first channel on.
            offset += 0 if version == "v1_0" else split
        # Where only the head's first convolution is ever read, the rest is left out.
        self.skips_dead_head = version != "v0_1" and max(m.offset + m.split for m in self.maps) <= channels // 2
        self.positions = {}

    def forward(self, x, seen=None):
        """Images, normalised, [B, 3, H, W], → logits, [B, classes, H, W]. `seen` gets the maps on the way."""
        seen = {} if seen is None else seen
        features, last = self.backbone(x)
        signal = self.weight_mapper(last, self.skips_dead_head)
        weights = []
        for j, (mapping, levels) in enumerate(zip(self.maps, self.levels_of_maps)):
            seen[f"weights.{j}"] = params = mapping(signal)
            weights += params.split([level.params for level in levels], 1)
        y = None
        for k, (level, feature) in enumerate(zip(self.levels, [*reversed(features), x])):
            parts = [self.positions_like(feature), feature]
            if y is not None:
                parts.append(resized_like(y, feature))
            seen[f"level.{k}"] = y = level(torch.cat(parts, 1), weights[k])
        seen.update({f"feature.{i}": feature for i, feature in enumerate([*features, last])}, signal=signal)
        return resized_like(y, x)

    def positions_like(self, x):
        """[B, 2, H, W]: column, then row, from -1 to 1 with both ends."""
        b, _, h, w = map(int, x.shape)
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        if (h, w, layout) not in self.positions:
            rows, columns = (torch.linspace(-1, 1, n, device=x.device) for n in (h, w))
            both = torch.stack([columns.expand(h, w), rows[:, None].expand(h, w)])[None]
            self.positions[h, w, layout] = both.contiguous(memory_format=layout)
        return self.positions[h, w, layout].expand(b, -1, -1, -1)

    @torch.no_grad()
    def folded(self):
        """Folds all norms: those of dynamic convolutions into the weight mappings' rows, less their shifts."""
        for mapping, levels in zip(self.maps, self.levels_of_maps):
            scales = torch.cat([level.fold() for level in levels])
            scales = F.pad(scales, (0, mapping.out_channels - mapping.params), value=1.0)
            mapping.weight = nn.Parameter(mapping.weight * scales[:, None, None, None], requires_grad=False)
        if self.skips_dead_head:
            del self.weight_mapper.down_blocks, self.weight_mapper.up_blocks
        return fold_neighbours(self)


def resized_like(y, x):
    size = tuple(map(int, x.shape[2:]))
    if tuple(map(int, y.shape[2:])) == size:
        return y
    return F.interpolate(y, size=size, mode="bilinear", align_corners=False)
