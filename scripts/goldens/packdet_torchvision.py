"""Makes golden files of torchvision's FCOS and RetinaNet, up to their raw outputs.

    pip install numpy safetensors torch torchvision
    python scripts/goldens/packdet_torchvision.py models/packdet/tests/golden

Weights and input follow from names and shapes (the formulas of the crate `zoo-parity`'s `seeded` module). RetinaNet's
batch norms have no epsilon, which is how torchvision runs its published weights. A file holds the levels of the
pyramid, and for each level the head's outputs as maps and the corners (RetinaNet) or centres (FCOS) of its anchors.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

from described import tensor, value

# P6 and P7 are rounded up.
INPUT = (1, 3, 96, 160)
GAIN = 0.75
# Values of a tensor that are kept at most.
KEEP = 14_000


def seeded(net):
    """Gives every tensor its value; their names and shapes."""
    table = []
    for name, stored in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        shape = list(stored.shape)
        gain = np.float32(GAIN if len(shape) >= 2 else 1)
        stored.copy_(torch.from_numpy(value(name, shape) * gain))
        table.append([name, shape])
    return table


def per_level(flat, levels):
    """[1, cells · anchors, C] as a map [1, anchors · C, h, w] for each level."""
    cells = [level.shape[2] * level.shape[3] for level in levels]
    anchors = flat.shape[1] // sum(cells)
    parts = flat.split([n * anchors for n in cells], dim=1)
    sizes = [(1, level.shape[2], level.shape[3], -1) for level in levels]
    return [part.reshape(size).permute(0, 3, 1, 2) for part, size in zip(parts, sizes)]


def write(path, model, outputs, table):
    stored, shapes = {}, {}
    for name, output in outputs.items():
        values = output.detach().contiguous().numpy().astype(np.float32)
        shapes[name] = list(values.shape)
        step = max(1, math.ceil(values.size / KEEP)) | 1
        if step > 1:
            stored[f"{name}@stride={step}"] = values.reshape(-1)[::step].copy()
        else:
            stored[name] = values
        wide = values.astype(np.float64)
        stats = [wide.mean(), wide.std(), np.abs(wide).max()]
        stored[f"{name}@stats"] = np.array(stats, np.float32)
    meta = {
        "model": model,
        "config": {"num_classes": 91},
        "state": table,
        "gain": [{"min_dims": 2, "factor": GAIN}],
        "inputs": {"input": list(INPUT)},
        "output_shapes": shapes,
        "notes": "torchvision, eval mode, the input as it is; FCOS's distances are in strides",
    }
    save_file(stored, path, {"meta": json.dumps(meta)})
    print(f"{path}: {path.stat().st_size} bytes, {len(table)} tensors", file=sys.stderr)


@torch.no_grad()
def main(folder):
    for model, build, eps in [
        ("fcos_resnet50_fpn", detection.fcos_resnet50_fpn, 1e-5),
        ("retinanet_resnet50_fpn", detection.retinanet_resnet50_fpn, 0.0),
    ]:
        net = build(weights=None, weights_backbone=None, num_classes=91).eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = eps
        table = seeded(net)
        image = tensor("input", INPUT)
        levels = list(net.backbone(image).values())
        outputs = {f"p{i + 3}": level for i, level in enumerate(levels)}
        head = net.head(levels)
        names = {"cls_logits": "logits", "bbox_regression": "bbox_reg", "bbox_ctrness": "centerness"}
        for name, flat in head.items():
            for i, level in enumerate(per_level(flat, levels)):
                outputs[f"{names[name]}.{i}"] = level
        [anchors] = net.anchor_generator(ImageList(image, [INPUT[2:]]), levels)
        per_cell = anchors.shape[0] // sum(level.shape[2] * level.shape[3] for level in levels)
        sizes = [level.shape[2] * level.shape[3] * per_cell for level in levels]
        for i, part in enumerate(anchors.split(sizes)):
            if per_cell == 1:
                outputs[f"points.{i}"] = (part[:, :2] + part[:, 2:]) / 2
            else:
                outputs[f"anchors.{i}"] = part
        write(folder / f"packdet_{model}.safetensors", model, outputs, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
