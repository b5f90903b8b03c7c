"""Computes the Patchwork golden files anew in PyTorch, and compares with what they hold.

    pip install numpy safetensors torch
    python scripts/goldens/patchwork.py models/patchwork-det/tests/golden/*.safetensors
    python scripts/goldens/patchwork.py FILE... -o DIR     # also writes each file anew, under its own metadata

What to build stands in a file's metadata; weights and inputs follow from their names and shapes (`seeded`, the
formulas of the crate `zoo-parity`). The nets are functions: a layer asks
for its weights by the checkpoint's names, and at the end the names and shapes that were asked for have to be the
file's table. There is one mode only, a window in a frame: a single frame is the window that is as large as the frame.

Exit status 1 if a tensor is off by more than 1e-3 of its largest value (nets; 1e-5 otherwise) or was not computed.
"""

import argparse
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

# MobileNetV2, Table 2: expansion, channels, repeats, stride of the first.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
PYRAMID = (512, 256, 256, 128)
ANCHORS = (3, 6, 6, 6, 6, 6)


# --- seeded values -------------------------------------------------------------------------------------------------


def uniform(name, shape):
    """24 random bits for each element: splitmix64 from the name's FNV-1a hash."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    n = math.prod(shape)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(2**24)).reshape(shape)


def drawn(name, shape):
    """An input."""
    return torch.from_numpy(2 * uniform(name, shape) - 1)


class Weights:
    """Gives a tensor for a name and a shape, and remembers what was asked for."""

    def __init__(self):
        self.asked = {}

    def __call__(self, name, *shape):
        self.asked[name] = list(shape)
        u = uniform(name, shape)
        if name.endswith("running_var"):
            u = 0.5 + u
        elif name.endswith(("running_mean", "bias")):
            u = (u - np.float32(0.5)) * np.float32(0.2)
        elif len(shape) < 2:
            u = np.float32(0.75) + np.float32(0.5) * u
        else:
            u = (2 * u - 1) * np.float32(math.sqrt(6 / math.prod(shape[1:])))
        return torch.from_numpy(u)


# --- cells and layers ----------------------------------------------------------------------------------------------


def same(size, kernel, stride, mode):
    """What SAME padding adds before and after an axis."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before = total // 2 if mode == "tf" else kernel // 2
    return before, max(total - before, 0)


class Memories:
    """Full-frame maps by name, and where in the frame the current window lies."""

    def __init__(self, frame):
        self.frame, self.maps, self.window = frame, {}, None

    def place(self, xs):
        """The window's rows and columns on a map of `xs`'s stride, and that stride."""
        stride = self.window[2] // xs.shape[2]
        top, left, height, width = (v // stride for v in self.window)
        return slice(top, top + height), slice(left, left + width), stride

    def write(self, name, xs):
        rows, columns, stride = self.place(xs)
        if name not in self.maps:
            self.maps[name] = xs.new_zeros(*xs.shape[:2], self.frame[0] // stride, self.frame[1] // stride)
        self.maps[name][..., rows, columns] = xs
        return self.maps[name].clone()


def bordered(xs, kernel, stride, mode, memories=None, cell=None):
    """`xs` with its border: from the cell's memory, or zeros where there is none and outside the frame."""
    vertical, horizontal = (same(n, kernel, stride, mode) for n in xs.shape[2:])
    if cell is None:
        return F.pad(xs, (*horizontal, *vertical))
    rows, columns, _ = memories.place(xs)
    plane = F.pad(memories.write(cell, xs), (*horizontal, *vertical))
    return plane[..., rows.start : rows.stop + sum(vertical), columns.start : columns.stop + sum(horizontal)]


class Net:
    def __init__(self, config):
        self.w, self.config = Weights(), config
        self.memories = Memories(config["frame"])
        self.found = {}

    def keep(self, name, xs):
        self.found[name] = xs.clone()
        return xs

    def unit(self, name, xs, out, kernel=1, stride=1, depthwise=False, cell=None, norm=None, act=True):
        """Convolution, batch norm, ReLU6, called `name.0` and `name.1` unless the norm has a name of its own."""
        conv, norm = (f"{name}.0", f"{name}.1") if norm is None else (name, norm)
        inputs = 1 if depthwise else xs.shape[1]
        if kernel > 1:
            xs = bordered(xs, kernel, stride, self.config["pad"], self.memories, cell)
        weight = self.w(f"{conv}.weight", out, inputs, kernel, kernel)
        xs = F.conv2d(xs, weight, stride=stride, groups=out if depthwise else 1)
        scale, shift = self.w(f"{norm}.weight", out), self.w(f"{norm}.bias", out)
        mean, var = self.w(f"{norm}.running_mean", out), self.w(f"{norm}.running_var", out)
        xs = F.batch_norm(xs, mean, var, scale, shift, eps=self.config["bn_eps"])
        return F.relu6(xs) if act else xs

    def plain(self, name, xs, out):
        """A 1×1 convolution with a bias."""
        return F.conv2d(xs, self.w(f"{name}.weight", out, xs.shape[1], 1, 1), self.w(f"{name}.bias", out))

    def channels(self, base):
        v, divisor = base * self.config["depth"], self.config["divisor"]
        if divisor == 1:
            return int(v + 1e-6)
        n = max(divisor, int(v + divisor / 2) // divisor * divisor)
        return n + divisor if n < 0.9 * v else n

    def backbone(self, xs):
        """Maps f0 to f18, and c4, the expansion in block 14."""
        at = "backbone.features"
        maps = {}
        xs = maps["f0"] = self.unit(f"{at}.0", xs, self.channels(32), 3, 2, cell="features.0")
        i = 0
        for expansion, out, repeats, stride in STAGES:
            for repeat in range(repeats):
                i += 1
                block, step = f"{at}.{i}.conv", stride if repeat == 0 else 1
                ys = xs if expansion == 1 else self.unit(f"{block}.0", xs, expansion * xs.shape[1])
                if i == 14:
                    maps["c4"] = ys
                k = 0 if expansion == 1 else 1
                ys = self.unit(f"{block}.{k}", ys, ys.shape[1], 3, step, depthwise=True, cell=f"features.{i}")
                ys = self.unit(f"{block}.{k + 1}", ys, self.channels(out), norm=f"{block}.{k + 2}", act=False)
                xs = maps[f"f{i}"] = xs + ys if step == 1 and xs.shape == ys.shape else ys
        maps["f18"] = self.unit(f"{at}.18", xs, self.channels(1280))
        return maps

    def attention(self, xs, actions):
        width = self.config["attention_width"]
        for name in ("conv1", "conv2"):
            xs = self.unit(f"attention.{name}", xs, width, 3, 2)
        xs = xs.flatten(1)
        return F.linear(xs, self.w("attention.fc.weight", actions, xs.shape[1]), self.w("attention.fc.bias", actions))

    def head(self, kind, level, xs, cell=None):
        name = f"{kind}.{level}"
        out = ANCHORS[level] * (self.config["classes"] if kind == "cls" else 4)
        ys = self.unit(f"{name}.0", xs, xs.shape[1], 3, depthwise=True, cell=cell)
        return self.plain(f"{name}.1", ys, out)

    def detector(self, xs, window, prefix=""):
        """One step: predictions for the whole frame, of which the fine levels are new in the window only."""
        self.memories.window = window
        maps = self.backbone(xs)
        for name, ys in maps.items():
            self.keep(prefix + name, ys)
        fine = {"cls": [], "box": []}
        seen = []
        for level, ys in enumerate((maps["c4"], maps["f18"])):
            for kind, levels in fine.items():
                predicted = self.head(kind, level, ys, f"head.{level}")
                self.keep(f"{prefix}{kind}{level}.win", predicted)
                levels.append(self.memories.write(f"{kind}.{level}", predicted))
            mark = self.memories.write(f"seen.{level}", torch.ones_like(ys[:, :1]))
            seen.append(mark.flatten(1).repeat_interleave(ANCHORS[level], 1))
        wide = [max(16, int(c * self.config["depth"] + 1e-6)) for c in PYRAMID]
        ys = self.memories.write("restore", self.unit("extras.0.0", maps["f18"], wide[0] // 2))
        self.keep(f"{prefix}restore", ys)
        for i, out in enumerate(wide):
            if i > 0:
                ys = self.unit(f"extras.{i}.0", ys, out // 2)
            ys = self.unit(f"extras.{i}.1", ys, out // 2, 3, 2, depthwise=True)
            ys = self.keep(f"{prefix}p{i + 1}", self.unit(f"extras.{i}.2", ys, out))
            for kind, levels in fine.items():
                levels.append(self.head(kind, i + 2, ys))
            seen.append(torch.ones(1, ANCHORS[i + 2] * ys.shape[2] * ys.shape[3]))

        def rows(maps, width):
            flat = [m.permute(0, 2, 3, 1).reshape(1, -1, width) for m in maps]
            return torch.cat(flat, 1)

        self.keep(f"{prefix}logits", rows(fine["cls"], self.config["classes"]))
        self.keep(f"{prefix}boxes", rows(fine["box"], 4))
        self.keep(f"{prefix}seen", torch.cat(seen, 1))
        return [m.shape[2:] for m in fine["cls"]]

    def segmenter(self, xs, window, prefix=""):
        self.memories.window = window
        maps = self.backbone(xs)
        for name, ys in maps.items():
            self.keep(prefix + name, ys)
        width = self.config["width"]
        ys = self.unit("lateral.3", maps["f18"], width, act=False)
        for i, tap in ((2, "f13"), (1, "f6"), (0, "f3")):
            side = self.unit(f"lateral.{i}", maps[tap], width, 3, cell=f"lateral.{i}", act=False)
            ys = ys.repeat_interleave(2, 2).repeat_interleave(2, 3) + side
        self.keep(f"{prefix}fused", ys)
        ys = self.plain("logits", F.relu6(ys), self.config["out"])
        self.keep(f"{prefix}logits", self.memories.write("logits", ys))
        self.keep(f"{prefix}seen", self.memories.write("seen", torch.ones_like(ys[:, :1])))
        self.keep(f"{prefix}restore", self.memories.write("restore", maps["f17"]))


def stream(meta, kind):
    """Every step of a windowed file, or the one frame of a file without windows."""
    config = meta["config"]
    net = Net(config)
    if "windows_yxhw" not in config:
        levels = net.detector(drawn("input", meta["inputs"]["input"]), [0, 0, *config["frame"]])
        boxes = priors(levels)
        backbone = {f"backbone.{name}": xs for name, xs in net.found.items() if name[0] == "f" or name == "c4"}
        net.found |= backbone | {"anchors": boxes, "decoded": decode(net.found["boxes"][0], boxes)}
        return net
    actions = (config["M"] - config["N"] + 1) ** 2
    for t, (window, name) in enumerate(zip(config["windows_yxhw"], config["steps"])):
        top, left, height, width = window
        xs = drawn(name, meta["inputs"][name])[..., top : top + height, left : left + width]
        getattr(net, kind)(xs, window, f"step{t}.")
        net.keep(f"step{t}.q", net.attention(net.found[f"step{t}.restore"], actions))
    net.found |= {f"mem.{name}": xs for name, xs in net.memories.maps.items()}
    return net


def cell(meta):
    """One convolution behind one cell."""
    config = meta["config"]
    net = Net(config)
    kernel = config["kernel"]
    for stride in config["strides"]:
        weight = net.w(f"s{stride}.weight", *dict(meta["state"])[f"s{stride}.weight"])
        bias = net.w(f"s{stride}.bias", weight.shape[0])
        memories = Memories(config["frame"])
        for t, (window, name) in enumerate(zip(config["windows_yxhw"], config["steps"])):
            top, left, height, width = memories.window = window
            frame = drawn(name, meta["inputs"][name])
            xs = frame[..., top : top + height, left : left + width]
            xs = net.keep(f"s{stride}.step{t}.bordered", bordered(xs, kernel, stride, config["pad"], memories, "it"))
            net.keep(f"s{stride}.step{t}.out", F.conv2d(xs, weight, bias, stride))
        net.keep(f"s{stride}.memory", memories.maps["it"])
        net.keep(f"s{stride}.full_same", F.conv2d(bordered(frame, kernel, stride, config["pad"]), weight, bias, stride))
    return net


# --- after the net -------------------------------------------------------------------------------------------------


def priors(levels):
    """Anchors of all levels as centre and size, in fractions of the frame."""
    scales = [0.2 + 0.15 * k for k in range(6)] + [1.0]
    boxes = []
    for k, (rows, columns) in enumerate(levels):
        shapes = [(scales[k], ratio) for ratio in (1, 2, 1 / 2, 3, 1 / 3)]
        shapes.append((math.sqrt(scales[k] * scales[k + 1]), 1))
        if k == 0:
            shapes = [(0.1, 1), (scales[0], 2), (scales[0], 1 / 2)]
        for y in range(rows):
            for x in range(columns):
                centre = ((x + 0.5) / columns, (y + 0.5) / rows)
                boxes += [(*centre, s * math.sqrt(ratio), s / math.sqrt(ratio)) for s, ratio in shapes]
    return torch.tensor(boxes)


def decode(codes, boxes):
    centre = codes[:, :2] / 10 * boxes[:, 2:] + boxes[:, :2]
    size = (codes[:, 2:] / 5).clamp(max=math.log(1000 / 16)).exp() * boxes[:, 2:]
    return torch.cat([centre - size / 2, centre + size / 2], 1)


def overlap(box, others, limit):
    """Whether each box shares more with `box` than `limit` of their union."""
    area = lambda b: (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1)
    inside = torch.cat([torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])], 1)
    shared = area(inside)
    return shared > limit * (area(box) + area(others) - shared)


def postprocess(meta):
    config = meta["config"]
    logits = drawn("post.logits", meta["inputs"]["post.logits"]) * config["gain"] - 0.6 * config["gain"]
    codes = drawn("post.boxes", meta["inputs"]["post.boxes"]) * 2
    seen = drawn("post.seen", meta["inputs"]["post.seen"]) > -0.5
    net = Net({"frame": None})
    boxes = net.keep("anchors", priors(config["sizes"]))
    corners = net.keep("decoded", decode(codes, boxes)).clamp(0, 1)
    scores = logits.sigmoid() * seen[:, None]
    found = []
    for label in range(1, config["classes"]):
        left = scores[:, label].argsort(descending=True, stable=True)
        left = left[scores[left, label] > config["score_thr"]]
        for _ in range(min(len(left), config["per_class"])):
            best, left = int(left[0]), left[1:]
            found.append((-float(scores[best, label]), label, best))
            left = left[~overlap(corners[best], corners[left], config["nms_iou"])]
            if len(left) == 0:
                break
    found = sorted(found)[: config["total"]]
    net.keep("det.score", torch.tensor([-score for score, _, _ in found]))
    net.keep("det.class", torch.tensor([label for _, label, _ in found]))
    net.keep("det.anchor", torch.tensor([a for _, _, a in found]))
    net.keep("det.box", corners[[a for _, _, a in found]])
    return net


def contour(mask):
    """DAVIS: pixels unlike their right, lower or lower right neighbour, the edge being its own neighbour."""
    p = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != p[:-1, 1:]) | (mask != p[1:, :-1]) | (mask != p[1:, 1:])


def near(edge, radius):
    """Pixels within a disk of an edge pixel."""
    reach = range(-radius, radius + 1)
    disk = [(y, x) for y in reach for x in reach if y * y + x * x <= radius * radius]
    p = np.pad(edge, radius)
    height, width = edge.shape
    return np.any([p[radius + y :, radius + x :][:height, :width] for y, x in disk], axis=0)


def davis(predicted, truth):
    """J and F of a pair of masks."""
    union = (predicted | truth).sum()
    j = (predicted & truth).sum() / union if union else 1.0
    a, b = contour(predicted), contour(truth)
    if not (a.any() and b.any()):
        return j, float(a.any() == b.any())
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    precision = (a & near(b, radius)).sum() / a.sum()
    recall = (b & near(a, radius)).sum() / b.sum()
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def average_precision(scores, hits, positives):
    """The area under precision's envelope over recall."""
    hits = hits[np.argsort(-scores, kind="stable")]
    true = hits.cumsum()
    precision = true / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * hits).sum() / positives)


def metrics(meta):
    config = meta["config"]
    draw = lambda name: drawn(f"{config['prefix']}.{name}", config["shape"]).numpy()
    mask = lambda name, above: np.kron(draw(name) > np.float32(above), np.ones([config["up"]] * 2, bool))
    pairs = []
    for i in range(5):
        truth = mask(f"gt.{i}", 0.2)
        k = 2 * i + 1
        moved = np.roll(truth, (k % 4, k // 2), (0, 1))
        pairs.append((moved if i < 3 else mask(f"m.{i}", 0.1 + 0.1 * i), truth))
    (first, truth), empty = pairs[0], np.zeros_like(pairs[0][0])
    pairs += [(empty, empty), (first, empty), (empty, truth)]
    scores, hits = (drawn(f"{config['prefix']}.{name}", [40]).numpy() for name in ("scores", "tp"))
    lists = [(scores, hits > 0)] * 2 + [(scores[:1], hits[:1] > 0)]
    net = Net({"frame": None})
    j, f = zip(*(davis(*pair) for pair in pairs))
    net.keep("J", torch.tensor(j))
    net.keep("F", torch.tensor(f))
    net.keep("AP", torch.tensor([average_precision(*l, n) for l, n in zip(lists, config["npos"])]))
    net.keep("boundary.0", torch.from_numpy(contour(truth)))
    return net


# --- files ---------------------------------------------------------------------------------------------------------

MODELS = {
    "patchwork_detector": (lambda meta: stream(meta, "detector"), 1e-3),
    "patchwork_segmenter": (lambda meta: stream(meta, "segmenter"), 1e-3),
    "patchwork_cell": (cell, 1e-5),
    "patchwork_postprocess": (postprocess, 1e-5),
    "patchwork_metrics": (metrics, 1e-5),
}


def stored_form(name, found):
    """What a file stores under a name: all values, every n-th, or mean, standard deviation, largest."""
    base, _, form = name.partition("@")
    xs = found[base].numpy().astype(np.float32)
    if form == "stats":
        return np.array([xs.mean(), xs.std(), np.abs(xs).max()], np.float32)
    return np.ascontiguousarray(xs.reshape(-1)[:: int(form.removeprefix("stride="))] if form else xs)


def check(path, out):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    text = header["__metadata__"]["meta"]
    meta = json.loads(text)
    run, allowed = MODELS[meta["model"]]
    with torch.no_grad():
        net = run(meta)
    table = {name: shape for name, shape in meta.get("state", []) if not name.endswith("num_batches_tracked")}
    unlike = [name for name in {**table, **net.w.asked} if table.get(name) != net.w.asked.get(name)]
    if unlike:
        raise SystemExit(f"{path}: the net's weights are not the file's: {', '.join(unlike)}")
    stored = load_file(path)
    made = {name: stored_form(name, net.found) for name in stored}
    apart = {}
    for name, expected in stored.items():
        if made[name].shape != expected.shape:
            raise SystemExit(f"{path}: {name} has shape {made[name].shape}, the file {expected.shape}")
        apart[name] = float(np.abs(made[name] - expected).max() / max(np.abs(expected).max(), 1e-30))
    worst = max(apart, key=apart.get)
    passed = apart[worst] <= allowed
    print(f"{path.name}: {'ok' if passed else 'FAILED'}, {len(stored)} tensors, {worst} is off by {apart[worst]:.1e}")
    if out:
        save_file(made, out / path.name, metadata={"meta": text})
    return passed


def main():
    parser = argparse.ArgumentParser(description="Computes the Patchwork golden files anew, and compares.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, help="folder to write the files to")
    args = parser.parse_args()
    sys.exit(0 if all([check(path, args.out) for path in args.files]) else 1)


if __name__ == "__main__":
    main()
