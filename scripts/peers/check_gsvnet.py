"""Holds gsvnet.py, swiftnet.py and bisenet.py to the golden files of the crate `gsvnet-seg`, plain and folded.

    target/peers/venv/bin/python scripts/peers/check_gsvnet.py

Prints the largest differences, relative to the largest value of each map; the exit status is 1 if one is too large."""
import torch

import golden
import gsvnet
from bisenet import resized_like
from gsvnet import Between, FlowNetS, LightFlow, Propagation, Warp
from nets import folded

LARGEST = 1e-4


class Golden(golden.Golden):
    unused = ("backbone.img_", "heads.0.", "heads.1.")


def keyframe_net(kind):
    def maps(golden, fold):
        net = golden.fill(gsvnet.build(kind))
        net, seen = folded(net) if fold else net, {}
        seen["logits"] = net(golden.input("input"), seen)
        return seen, net.scaled if fold else ()

    return maps


def flow_net(build):
    def maps(golden, fold):
        net, seen = golden.fill(build()), {}
        net = folded(net) if fold else net
        seen["flow"] = net.body(golden.input("input"), seen)
        return seen, ()

    return maps


def warped(golden, _):
    scores, warp = golden.input("input"), Warp()
    flows = [name for name in golden.stored if name.startswith("flow.")]
    return {name.replace("flow", "warped"): warp(scores, golden.given(name)) for name in flows}, ()


def filtered(golden, fold):
    net, seen = golden.fill(Propagation(), prefix="grm."), {}
    net = folded(net) if fold else net
    seen["out"] = net(golden.input("input.1"), golden.given("given_seg"), seen)
    return seen, ()


def between(golden, fold):
    """Each frame between key frames from our own scores of the one before; the first from the file's."""
    net, seen = Between(), {}
    golden.fill(net.ofnet, "ofnet")
    golden.fill(net.grm, "gsv", "grm.")
    net = (folded(net) if fold else net).eval()
    scores = golden.given("frame0.out")
    lows = [resized_like(golden.input(name), scores) for name in golden.meta["inputs"]]
    for i in range(1, len(lows)):
        maps = {}
        maps["out"] = scores = net(lows[i], lows[i - 1], scores, maps)
        seen |= {f"frame{i}.{name}": map for name, map in maps.items()}
    return seen, ()


WITHOUT_NORMS = ["flownet_s", "warp"]
FILES = {
    "swiftnet_r18": keyframe_net("swiftnet-r18"),
    "bisenet_r18": keyframe_net("bisenet-r18"),
    "bisenet_x39": keyframe_net("bisenet-x39"),
    "flow_light": flow_net(LightFlow),
    "flownet_s": flow_net(FlowNetS),
    "warp": warped,
    "guided_filter": filtered,
    "pipeline_swiftnet_l4": between,
}

if __name__ == "__main__":
    is_well = True
    for name, maps in FILES.items():
        file = Golden("gsvnet-seg", f"gsvnet_{name}")
        for fold in (False, *([] if name in WITHOUT_NORMS else [True])):
            with torch.inference_mode():
                text, worst = file.difference(*maps(file, fold))
            is_well &= worst <= LARGEST
            print(f"{name}, {'folded' if fold else 'plain'}: {text}")
    if not is_well:
        raise SystemExit(f"too large: maps may differ by {LARGEST:.0e} of their largest value")
