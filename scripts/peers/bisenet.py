"""BiSeNet (Yu, Wang, Peng, Gao, Yu and Sang, ECCV 2018) on ResNet-18 and Xception39 in PyTorch, as GSVNet uses it;
tensors have the names of GSVNet's checkpoints. check_gsvnet.py holds it to golden files."""
import torch
import torch.nn.functional as F
from torch import nn

from resnet import ResNet18

FEATURES = 128


class Conv(nn.Module):
    """Convolution, norm and ReLU, or less."""

    def __init__(self, inputs, outputs, kernel=1, stride=1, norm=True, relu=True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        if norm:
            self.bn = nn.BatchNorm2d(outputs)
        self.has_norm, self.relu = norm, relu

    def forward(self, x):
        x = self.conv(x)
        x = self.bn(x) if self.has_norm else x
        return F.relu(x, inplace=True) if self.relu else x


class Separable(nn.Module):
    def __init__(self, inputs, outputs, stride=1, relu=True):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.point_wise_cbr = Conv(inputs, outputs, relu=relu)

    def forward(self, x):
        return self.point_wise_cbr(self.conv1(x))


class Block(nn.Module):
    """Xception39's."""

    def __init__(self, inputs, inner, stride):
        super().__init__()
        outputs = 4 * inner
        first = Separable(inputs, inner, stride)
        self.residual_branch = nn.Sequential(first, Separable(inner, inner), Separable(inner, outputs, relu=False))
        self.proj = Separable(inputs, outputs, stride, relu=False) if stride > 1 else nn.Identity()

    def forward(self, x):
        return F.relu(self.residual_branch(x).add_(self.proj(x)), inplace=True)


class Xception39(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = Conv(3, 8, 3, 2)
        inputs = 8
        for i, (blocks, inner) in enumerate([(4, 16), (8, 32), (4, 64)], 1):
            stage = nn.Sequential()
            for j in range(blocks):
                stage.append(Block(inputs, inner, 1 if j else 2))
                inputs = 4 * inner
            self.add_module(f"layer{i}", stage)

    def maps(self, x, seen):
        """The three stages' maps, at strides 8, 16 and 32."""
        x = F.max_pool2d(self.conv1(x), 3, 2, 1)
        maps = []
        for i, stage in enumerate([self.layer1, self.layer2, self.layer3], 1):
            seen[f"layer{i}"] = x = stage(x)
            maps.append(x)
        return maps


class Refinement(nn.Module):
    """Attention refinement module: a map times its channels' gates, plus `addend`."""

    def __init__(self, channels):
        super().__init__()
        self.conv_3x3 = Conv(channels, FEATURES, 3)
        gates = Conv(FEATURES, FEATURES, relu=False)
        self.channel_attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), gates, nn.Sigmoid())

    def forward(self, x, addend):
        x = self.conv_3x3(x)
        return torch.addcmul(addend, x, self.channel_attention(x))


class Fusion(nn.Module):
    """Feature fusion module."""

    def __init__(self):
        super().__init__()
        channels = 2 * FEATURES
        self.conv_1x1 = Conv(channels, channels)
        gates = Conv(channels, channels, norm=False), Conv(channels, channels, norm=False, relu=False)
        self.channel_attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), *gates, nn.Sigmoid())

    def forward(self, *maps):
        x = self.conv_1x1(torch.cat(maps, 1))
        return x.mul_(self.channel_attention(x) + 1)


class SpatialPath(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_7x7 = Conv(3, 64, 7, 2)
        self.conv_3x3_1 = Conv(64, 64, 3, 2)
        self.conv_3x3_2 = Conv(64, 64, 3, 2)
        self.conv_1x1 = Conv(64, FEATURES)

    def forward(self, x):
        return self.conv_1x1(self.conv_3x3_2(self.conv_3x3_1(self.conv_7x7(x))))


class Head(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv_3x3 = Conv(2 * FEATURES, 64, 3)
        self.conv_1x1 = nn.Conv2d(64, classes, 1)

    def forward(self, x):
        return self.conv_1x1(self.conv_3x3(x))


class BiSeNet(nn.Module):
    """Without the two heads that are there for training only."""

    # Maps that norms' scales are folded into.
    scaled = ()

    def __init__(self, context="resnet18", classes=19):
        super().__init__()
        resnet = context == "resnet18"
        self.context_path = ResNet18() if resnet else Xception39()
        c4, c5 = (256, 512) if resnet else (128, 256)
        self.spatial_path = SpatialPath()
        self.global_context = nn.Sequential(nn.AdaptiveAvgPool2d(1), Conv(c5, FEATURES))
        self.arms = nn.ModuleList([Refinement(c5), Refinement(c4)])
        self.refines = nn.ModuleList([Conv(FEATURES, FEATURES, 3), Conv(FEATURES, FEATURES, 3)])
        self.ffm = Fusion()
        self.heads = nn.ModuleDict({"2": Head(classes)})

    def forward(self, x, seen=None):
        """Images, normalised, [B, 3, H, W], → logits, [B, classes, H/8, W/8]. `seen` gets the maps on the way."""
        seen = {} if seen is None else seen
        seen["spatial"] = spatial = self.spatial_path(x)
        *_, c3, c4, c5 = self.context_path.maps(x, seen)
        seen["global"] = y = self.global_context(c5)
        for i, (c, finer) in enumerate([(c5, c4), (c4, c3)]):
            y = self.refines[i](resized_like(self.arms[i](c, y), finer))
            seen[f"refine{i}"] = y
        seen["ffm"] = y = self.ffm(spatial, y)
        return self.heads["2"](y)


def resized_like(y, x):
    """Corner pixels' centres on corner pixels' centres."""
    return F.interpolate(y, size=tuple(map(int, x.shape[2:])), mode="bilinear", align_corners=True)
