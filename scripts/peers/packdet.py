"""PackDet (Ding et al., ECCV 2020) in PyTorch, restated from our crate `packdet`, whose README says where the paper is:
ResNet-50 in the Caffe flavour or MobileNetV2, the pyramid, layout type 4, the packed head. Tensors have the names of the
authors' checkpoints. check_packdet.py holds it to golden files."""
import torch
import torch.nn.functional as F
from torch import nn

from folding import fold_neighbours

CLASSES, PYRAMID, HEAD, BLOCKS, TOWER, GROUPS = 80, 256, 128, 12, 2, 32
STRIDES = [8, 16, 32, 64, 128]
# Levels of the maps in the plane: the last three are made from P5, P6 and P7.
LEVELS = [0, 1, 2, 3, 4, 2, 3, 4]


def gain(name):
    """Factors on seeded weights, as in the golden files: deep nets of frozen norms explode without."""
    return [{"min_dims": 2, "factor": 0.75}] if name == "r50-m4" else []


class FrozenNorm(nn.BatchNorm2d):
    """Without an epsilon, and without a count of batches in checkpoints."""

    def __init__(self, channels):
        super().__init__(channels, eps=0.0)
        del self.num_batches_tracked
        self.register_buffer("num_batches_tracked", None)

    def _load_from_state_dict(self, *args):
        nn.Module._load_from_state_dict(self, *args)  # the norm's own would make up a count


class Bottleneck(nn.Module):
    def __init__(self, inputs, inner, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, stride, bias=False), FrozenNorm(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False), FrozenNorm(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), FrozenNorm(outputs)
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), FrozenNorm(outputs))

    def forward(self, x):
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.relu_(self.bn3(self.conv3(x)).add_(shortcut))


class ResNet50(nn.Module):
    channels = [512, 1024, 2048]

    def __init__(self):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv1, self.stem.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), FrozenNorm(64)
        inputs = 64
        for i, blocks in enumerate([3, 4, 6, 3]):
            outputs, layers = 256 << i, []
            for block in range(blocks):
                stride = 2 if i > 0 and block == 0 else 1
                layers.append(Bottleneck(inputs, 64 << i, outputs, stride))
                inputs = outputs
            self.add_module(f"layer{i + 1}", nn.Sequential(*layers))

    def forward(self, x, seen):
        x = F.max_pool2d(F.relu_(self.stem.bn1(self.stem.conv1(x))), 3, 2, 1)
        seen["stem"] = x
        for i in range(4):
            seen[f"c{i + 2}"] = x = getattr(self, f"layer{i + 1}")(x)
        return [seen["c3"], seen["c4"], seen["c5"]]


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, widening, stride):
        super().__init__()
        inner = inputs * widening
        layers = [nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(True)]
        if widening > 1:
            layers = [nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(True), *layers]
        self.conv = nn.Sequential(*layers, nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return self.conv(x).add_(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    channels = [32, 96, 320]
    # Widening, channels, blocks, stride.
    STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    TAPS = {3: "c2", 6: "c3", 13: "c4", 17: "c5"}

    def __init__(self):
        super().__init__()
        stem = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(True)]
        features, inputs = [nn.Sequential(*stem)], 32
        for widening, outputs, blocks, stride in self.STAGES:
            for block in range(blocks):
                features.append(InvertedResidual(inputs, outputs, widening, stride if block == 0 else 1))
                inputs = outputs
        self.features = nn.Sequential(*features)

    def forward(self, x, seen):
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.TAPS:
                seen[self.TAPS[i]] = x
        return [seen["c3"], seen["c4"], seen["c5"]]


class Pyramid(nn.Module):
    def __init__(self, channels):
        super().__init__()
        for i, inputs in enumerate(channels, 2):
            self.add_module(f"fpn_inner{i}", nn.Conv2d(inputs, PYRAMID, 1))
            self.add_module(f"fpn_layer{i}", nn.Conv2d(PYRAMID, PYRAMID, 3, padding=1))
        self.top_blocks = nn.Module()
        self.top_blocks.p6 = nn.Conv2d(PYRAMID, PYRAMID, 3, 2, 1)
        self.top_blocks.p7 = nn.Conv2d(PYRAMID, PYRAMID, 3, 2, 1)

    def forward(self, maps, seen):
        levels, x = [], None
        for i, map in reversed(list(enumerate(maps, 2))):
            lateral = getattr(self, f"fpn_inner{i}")(map)
            x = lateral if x is None else lateral + F.interpolate(x, scale_factor=2.0, mode="nearest")
            levels.insert(0, getattr(self, f"fpn_layer{i}")(x))
        levels.append(self.top_blocks.p6(levels[-1]))
        levels.append(self.top_blocks.p7(F.relu(levels[-1])))
        seen.update({f"p{i}": level for i, level in enumerate(levels, 3)})
        return levels


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel):
        super().__init__()
        self.conv, self.gn = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(GROUPS, outputs)

    def forward(self, x):
        return F.relu_(self.gn(self.conv(x)))


class LongHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.reduction = Block(PYRAMID, HEAD, 1)
        self.conv_blocks = nn.ModuleList(Block(HEAD, HEAD, 3) for _ in range(BLOCKS))

    def forward(self, plane, seen):
        seen["fe_reduction"] = x = first = self.reduction(plane)
        for block in self.conv_blocks:
            x = block(x).add_(first)
        seen["fe"] = x
        return x


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        tower = lambda: nn.Sequential(*(Block(HEAD, HEAD, 3) for _ in range(TOWER)))
        self.cls_tower, self.bbox_tower = tower(), tower()
        self.cls_logits = nn.Conv2d(HEAD, CLASSES, 3, padding=1)
        self.bbox_pred = nn.Conv2d(HEAD, 4, 3, padding=1)
        self.centerness = nn.Conv2d(HEAD, 1, 3, padding=1)
        self.scale_layer = nn.Module()
        self.scale_layer.scales = nn.Parameter(torch.ones(len(STRIDES)))


def boxes_of(levels):
    """Left, top, right and bottom of each map in the plane (type 4), from the maps' sizes."""
    (a, b) = zip(*((level.shape[2], level.shape[3]) for level in levels))
    height, width = a[0] + a[1], b[0]
    y5, y6, y7 = height - a[2], height - a[2] - a[3], height - a[2] - a[3] - a[4]
    places = [(0, 0), (0, a[0]), (width - b[2], y5), (width - b[2] - b[3], y6), (width - b[2] - b[3] - b[4], y7)]
    places += [(b[1], y5), (width - b[3], y6), (width - b[3] - b[4], y7)]
    return [(x, y, x + b[level], y + a[level]) for (x, y), level in zip(places, LEVELS)], height, width


class PackDet(nn.Module):
    def __init__(self, body, is_exp):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.body, self.backbone.fpn = body, Pyramid(body.channels)
        self.rpn = nn.Module()
        self.rpn.head = head = nn.Module()
        head.mf = nn.Module()
        for level in (2, 3, 4):
            head.mf.add_module(f"mf_s{level}_1", Block(PYRAMID, PYRAMID, 3))
        head.fe, head.predictor = LongHead(), Predictor()
        self.is_exp = is_exp
        self.tables = None

    def folded(self):
        return fold_neighbours(self)

    def pack(self, maps):
        """The plane: P3 on top; below it P4 and, in a square of P4's size, the small maps."""
        boxes, height, width = boxes_of(maps[:5])
        top, side = maps[0].shape[2], maps[1].shape[3]
        small = 0
        for map, (x0, y0, x1, y1) in list(zip(maps, boxes))[2:]:
            small = small + F.pad(map, (x0 - side, width - x1, y0 - top, height - y1))
        return torch.cat([maps[0], torch.cat([maps[1], small], 3)], 2)

    def level_tables(self, levels):
        """The level of each cell, and its stride; 0 and 8 in gaps."""
        boxes, height, width = boxes_of(levels)
        if self.tables is None or self.tables[0].shape != (height, width):
            with torch.inference_mode(False):  # an export could not take them otherwise
                table = torch.zeros(height, width, dtype=torch.long)
                for level, (x0, y0, x1, y1) in zip(LEVELS, boxes):
                    table[y0:y1, x0:x1] = level
                self.tables = table, torch.tensor(STRIDES, dtype=torch.float32)[table]
        return self.tables

    def forward(self, x, seen=None):
        """[B, 3, H, W] → logits, boxes and centerness, [B, 85, h, w] together."""
        seen = {} if seen is None else seen
        levels = self.backbone.fpn(self.backbone.body(x, seen), seen)
        head, predictor = self.rpn.head, self.rpn.head.predictor
        extra = [getattr(head.mf, f"mf_s{level}_1")(levels[level]) for level in (2, 3, 4)]
        shared = head.fe(self.pack([*levels, *extra]), seen)
        classes, boxes = predictor.cls_tower(shared), predictor.bbox_tower(shared)
        table, strides = self.level_tables(levels)
        distances = predictor.bbox_pred(boxes) * predictor.scale_layer.scales[table]
        distances = distances.exp() if self.is_exp else F.relu(distances) * strides
        outputs = {
            "logits": predictor.cls_logits(classes),
            "bbox_reg": distances,
            "centerness": predictor.centerness(classes if self.is_exp else boxes),
        }
        seen.update(outputs)
        return torch.cat(list(outputs.values()), 1)


def build(name):
    return {"r50-m4": lambda: PackDet(ResNet50(), False), "mnv2-m4": lambda: PackDet(MobileNetV2(), True)}[name]()
