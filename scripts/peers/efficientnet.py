"""EfficientNet under the names of EfficientNet-PyTorch, with that project's fixed padding, and with the 1×1 reductions
of HyperSeg's backbone."""
import math

import torch
import torch.nn.functional as F
from torch import nn

# Kernel, stride of the first block, expansion, channels and blocks of each stage of B0.
STAGES = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]
# Factors on channels and on blocks, and the images' nominal size.
SCALES = {"efficientnet-b1": (1.0, 1.1, 240), "efficientnet-b3": (1.2, 1.4, 300)}
EPS = 1e-3


class Conv(nn.Conv2d):
    """TensorFlow's "same" border of an image of the nominal size, whatever the image's size."""

    def __init__(self, inputs, outputs, kernel=1, stride=1, nominal=1, groups=1):
        total = max((math.ceil(nominal / stride) - 1) * stride + kernel - nominal, 0)
        before, after = total // 2, total - total // 2
        own = before if before == after else 0
        super().__init__(inputs, outputs, kernel, stride, own, groups=groups, bias=False)
        self.border = None if before == after else (before, after, before, after)

    def forward(self, x):
        # With its value spelt out: else ONNX Runtime does not join it to the convolution.
        return super().forward(x if self.border is None else F.pad(x, self.border, value=0.0))


def norm(channels):
    return nn.BatchNorm2d(channels, eps=EPS)


class Block(nn.Module):
    """An inverted residual with squeeze-and-excitation."""

    def __init__(self, inputs, outputs, kernel, stride, expansion, nominal):
        super().__init__()
        hidden, squeezed = inputs * expansion, max(1, inputs // 4)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = Conv(inputs, hidden)
            self._bn0 = norm(hidden)
        self._depthwise_conv = Conv(hidden, hidden, kernel, stride, nominal, hidden)
        self._bn1 = norm(hidden)
        self._se_reduce = nn.Conv2d(hidden, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, hidden, 1)
        self._project_conv = Conv(hidden, outputs)
        self._bn2 = norm(outputs)

    def forward(self, x):
        y = x
        if self.expands:
            y = F.silu(self._bn0(self._expand_conv(y)), inplace=True)
        y = F.silu(self._bn1(self._depthwise_conv(y)), inplace=True)
        gates = F.silu(self._se_reduce(F.adaptive_avg_pool2d(y, 1)), inplace=True)
        y = self._bn2(self._project_conv(y * torch.sigmoid(self._se_expand(gates))))
        return y + x if self.adds else y


class EfficientNet(nn.Module):
    """Features F_1 … F_5 and the last convolution's map E, at strides 2, 4, 8, 16, 32 and 32."""

    def __init__(self, name, feature_scales):
        super().__init__()
        width, depth, nominal = SCALES[name]

        def wide(channels):
            scaled = channels * width
            rounded = max(8, int(scaled + 4) // 8 * 8)
            return rounded if rounded >= 0.9 * scaled else rounded + 8

        channels = wide(32)
        self._conv_stem = Conv(3, channels, 3, 2, nominal)
        self._bn0 = norm(channels)
        nominal = math.ceil(nominal / 2)
        self._blocks, self.ends, raw = nn.ModuleList(), [], []
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for i in range(math.ceil(repeats * depth)):
                step = stride if i == 0 else 1
                if step == 2:
                    self.ends.append(len(self._blocks) - 1)
                    raw.append(channels)
                self._blocks.append(Block(channels, wide(outputs), kernel, step, expansion, nominal))
                channels, nominal = wide(outputs), math.ceil(nominal / step)
        self.ends.append(len(self._blocks) - 1)
        raw.append(channels)
        self.channels = wide(1280)
        self._conv_head = Conv(channels, self.channels)
        self._bn1 = norm(self.channels)
        self.features = [round(c * scale) for c, scale in zip(raw, feature_scales)]
        for i, scale in enumerate(feature_scales):
            if scale != 1:
                self.add_module(f"_feat_fc_{i}", nn.Sequential(Conv(raw[i], self.features[i]), norm(self.features[i])))

    def forward(self, x):
        x = F.silu(self._bn0(self._conv_stem(x)), inplace=True)
        features = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self.ends:
                reduction = getattr(self, f"_feat_fc_{len(features)}", nn.Identity())
                features.append(reduction(x))
        return features, F.silu(self._bn1(self._conv_head(x)), inplace=True)
