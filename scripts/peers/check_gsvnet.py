"""Holds gsvnet.py, swiftnet.py and bisenet.py to the golden files of the crate `gsvnet-seg`, plain and folded.

    target/peers/venv/bin/python scripts/peers/check_gsvnet.py

Prints the largest differences, relative to the largest value of each map; the exit status is 1 if one is too large."""
import json
from pathlib import Path

import torch
from safetensors import safe_open

import gsvnet
import seeded
from bisenet import resized_like
from check_hyperseg import stored
from gsvnet import Between, FlowNetS, LightFlow, Propagation, Warp
from nets import folded

GOLDEN = Path(__file__).parents[2] / "models/gsvnet-seg/tests/golden"
LARGEST = 1e-4
# In checkpoints, but of no effect on the result.
UNUSED = ("backbone.img_", "heads.0.", "heads.1.")


class Golden:
    def __init__(self, name):
        self.name = name
        with safe_open(GOLDEN / f"gsvnet_{name}.safetensors", "np") as file:
            self.meta = json.loads(file.metadata()["meta"])
            self.stored = {of: (stride, torch.from_numpy(values)) for of, stride, values in stored(file)}

    def input(self, name):
        return torch.from_numpy(seeded.tensor(name, self.meta["inputs"][name]))

    def given(self, name):
        return self.stored[name][1].reshape(self.meta["output_shapes"][name])

    def fill(self, net, group=None, prefix=""):
        """Gives the net its weights, of a group of the file's where it has some; the file's names are without `prefix`
        to those of the net's. Names and shapes must be the same."""
        state = self.meta["state"]
        if group:
            counts = self.meta["groups"]
            start = sum(list(counts.values())[: list(counts).index(group)])
            state = state[start : start + counts[group]]
        state = {name: shape for name, shape in state if not name.startswith(UNUSED)}
        own = {prefix + name: list(tensor.shape) for name, tensor in net.state_dict().items()}
        assert own == state, f"{self.name}: other names or shapes: {sorted(own.items() ^ state.items())}"
        gain = self.meta.get("gain", [])
        weights = {n.removeprefix(prefix): torch.from_numpy(seeded.weight(n, s, gain)) for n, s in state.items()}
        net.load_state_dict(weights)
        return net.eval()

    def difference(self, seen, skipped=()):
        """The largest one of the maps that were seen, and whose it is."""
        differences = {}
        for name, (stride, expected) in self.stored.items():
            if name in seen and not name.startswith(tuple(skipped)):
                actual = seen[name].flatten()[::stride]
                assert actual.shape == expected.shape, f"{self.name}: {name} has another shape"
                differences[name] = float((actual - expected).abs().max() / expected.abs().max())
        worst = max(differences, key=differences.get)
        return f"of {len(differences)} maps {worst} differs the most, by {differences[worst]:.1e}", differences[worst]


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
        golden = Golden(name)
        for fold in (False, *([] if name in WITHOUT_NORMS else [True])):
            with torch.inference_mode():
                text, worst = golden.difference(*maps(golden, fold))
            is_well &= worst <= LARGEST
            print(f"{name}, {'folded' if fold else 'plain'}: {text}")
    if not is_well:
        raise SystemExit(f"too large: maps may differ by {LARGEST:.0e} of their largest value")
