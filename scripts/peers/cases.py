"""The cases: a name for people, and what the engines build, KIND:ARGUMENT/ARGUMENT/.."""

LEVELS = "128x100x168/128x50x84/128x25x42/128x13x21/128x7x11"

# (name, spec, whether --quick has it)
CASES = [
    ("MobileNetV2 @224", "mobilenet_v2:1x3x224x224", True),
    ("MobileNetV2 @384", "mobilenet_v2:1x3x384x384", True),
    ("ResNet-18 @224", "resnet18:1x3x224x224", True),
    ("ResNet-50 @224", "resnet50:1x3x224x224", True),
    ("ResNet-50 @800×1344", "resnet50:1x3x800x1344", False),
    ("EfficientNet-B1 @384×288", "efficientnet_b1:1x3x384x288", True),
    ("EfficientNet-B1 @768×576", "efficientnet_b1:1x3x768x576", False),
    ("EfficientNet-Lite0 @224", "efficientnet_lite0:1x3x224x224", True),
    ("12 × 3×3×128 on P3…P7 of 800×1344", f"tower:12/{LEVELS}", True),
    ("ViT block, d = 384, 196 tokens", "vit:6/1x196x384", True),
    ("ViT block, d = 96, 64 windows of 49", "vit:3/64x49x96", True),
    ("HyperSeg-L (PASCAL VOC) @512×512", "hyperseg:voc-l/1x3x512x512", False),
    ("HyperSeg-S (Cityscapes) @768×1536", "hyperseg:cityscapes-s/1x3x768x1536", False),
    ("HyperSeg-M (Cityscapes) @512×1024", "hyperseg:cityscapes-m/1x3x512x1024", False),
    ("HyperSeg-S (CamVid) @576×768", "hyperseg:camvid-s/1x3x576x768", False),
    ("HyperSeg-L (CamVid) @768×1024", "hyperseg:camvid-l/1x3x768x1024", False),
    ("patch-wise 1×1, 34→68, 16×32 patches of 16×16", "patchwise:68/1/16x32/1x34x256x512", False),
    ("patch-wise 3×3, 68, 16×32 patches of 16×16", "patchwise:68/3/16x32/1x68x256x512", False),
    ("SwiftNet-R18 @768×1536", "gsvnet:swiftnet-r18/1x3x768x1536", False),
    ("SwiftNet-R18 @384×768", "gsvnet:swiftnet-r18/1x3x384x768", False),
    ("BiSeNet-R18 @768×1536", "gsvnet:bisenet-r18/1x3x768x1536", False),
    ("BiSeNet-R18 @384×768", "gsvnet:bisenet-r18/1x3x384x768", False),
    ("light flow @128×256", "gsvnet:light-flow/1x3x128x256", False),
    ("FlowNet2S @128×256", "gsvnet:flownet-s/1x3x128x256", False),
    ("GSVNet between key frames @128×256 (of 1024×2048)", "gsvnet:between/1x3x128x256", False),
    ("PackDet-R50 @800×1344", "packdet:r50-m4/1x3x800x1344", False),
    ("PackDet-MobileNetV2 @800×1344", "packdet:mnv2-m4/1x3x800x1344", False),
    ("ResNet-18 @224, 8 images, forward and backward", "train:resnet18/8x3x224x224", False),
    ("MobileNetV2 @224, 8 images, forward and backward", "train:mobilenet_v2/8x3x224x224", False),
]

# Single layers, which only --cases asks for.
LAYERS = [
    ("3×3 128→128 on 50×84", "conv:128/3/1/1x128x50x84"),
    ("3×3 64→64 on 56×56", "conv:64/3/1/1x64x56x56"),
    ("3×3 512→512 on 7×7", "conv:512/3/1/1x512x7x7"),
    ("3×3 3→32 on 224×224, stride 2", "conv:32/3/2/1x3x224x224"),
    ("1×1 256→64 on 50×84", "conv:64/1/1/1x256x50x84"),
    ("1×1 576→96 on 24×24", "conv:96/1/1/1x576x24x24"),
    ("depthwise 3×3 96 on 56×56", "dw:3/1/1x96x56x56"),
    ("depthwise 5×5 240 on 48×48", "dw:5/1/1x240x48x48"),
]


# Of scores, which have one value in squares of so many pixels: on the edges of labels hangs what is made of them, and a
# pixel that nearly ties is another label in another engine. Of the names that were tried, these leave the widest gaps.
SCORES, CLASSES, BLOCK = "scores.205", 19, 16


def choose(wanted, quick):
    """(name, spec) of the cases that are meant: their names or specs contain a part of `wanted`."""
    if not wanted:
        return [(name, spec) for name, spec, is_quick in CASES if is_quick or not quick]
    known = [case[:2] for case in CASES] + LAYERS
    chosen = []
    for part in wanted.split(","):
        hits = [case for case in known if part.lower() in case[0].lower() or part in case[1]]
        if not hits and ":" in part:
            hits = [(part, part)]
        if not hits:
            raise SystemExit(f"no case contains '{part}'; there are:\n" + "\n".join(f"  {c[0]}  ({c[1]})" for c in known))
        chosen += [case for case in hits if case not in chosen]
    return chosen


def shape(text):
    return [int(n) for n in text.split("x")]


def parse(spec):
    kind, arguments = spec.split(":")
    return kind, arguments.split("/")


def calls(spec):
    """The inputs, {name: shape}, of each call that one run makes."""
    kind, arguments = parse(spec)
    if kind == "tower":
        return [{f"input.{i}": [1, *shape(level)]} for i, level in enumerate(arguments[1:])]
    last = shape(arguments[-1])
    if kind == "patchwise":
        outputs, kernel, grid = int(arguments[0]), int(arguments[1]), shape(arguments[2])
        weights = last[1] * outputs if kernel == 1 else last[1] * kernel**2
        return [{"input": last, "weights": [last[0], weights, *grid]}]
    if kind == "gsvnet" and arguments[0] in ("light-flow", "flownet-s"):
        return [{"now": last, "before": last}]
    if kind == "gsvnet" and arguments[0] == "between":
        return [{"now": last, "before": last, SCORES: [last[0], CLASSES, *last[2:]]}]
    return [{"input": last}]
