"""Holds hyperseg.py to the golden files of the crate `hyperseg`, plain and with norms folded.

    target/peers/venv/bin/python scripts/peers/check_hyperseg.py [FILE...]

Prints the largest differences; the exit status is 1 if one is too large."""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

import seeded
from golden import stored
from hyperseg import HyperSeg

GOLDEN = Path(__file__).parents[2] / "models/hyperseg/tests/golden"
NETS = ["hyperseg_camvid_s_128x192", "hyperseg_city_m_128x256", "hyperseg_voc_l_128x128"]
# Absolute for the logits, whose largest value is about one; relative to the largest value for maps on the way.
LOGITS, INNER = 1e-4, 1e-3


def check(path):
    """The lines of a report, and whether all is well."""
    lines, is_well = [], True
    with safe_open(path, "np") as file, torch.inference_mode():
        meta = json.loads(file.metadata()["meta"])
        net = HyperSeg(meta["config"]).eval()
        net.skips_dead_head = False
        state = net.state_dict()
        assert {n: list(t.shape) for n, t in state.items()} == dict(meta["state"]), f"{path}: other names or shapes"
        gain = meta.get("gain", [])
        net.load_state_dict({n: torch.from_numpy(seeded.weight(n, t.shape, gain)) for n, t in state.items()})
        (name, shape), = meta["inputs"].items()
        x = torch.from_numpy(seeded.tensor(name, shape))
        for kind in ("plain", "folded"):
            net = net.folded() if kind == "folded" else net
            seen = {}
            seen["output"] = net(x, seen)
            worst = {}
            for name, stride, expected in stored(file):
                if name not in seen or kind == "folded" and name.startswith("weights."):
                    continue  # the classes; and weights that norms' scales are folded into
                difference = np.abs(seen[name].numpy().flatten()[::stride] - expected).max()
                is_logits = name == "output"
                worst[name] = difference / (1 if is_logits else np.abs(expected).max())
                is_well &= bool(worst[name] <= (LOGITS if is_logits else INNER))
            inner = max((n for n in worst if n != "output"), key=worst.get)
            lines.append(
                f"{path.stem}, {kind}: logits differ by {worst['output']:.1e} at most; "
                f"of {len(worst) - 1} maps before them {inner} the most, by {worst[inner]:.1e} of its largest value"
            )
    return lines, is_well


if __name__ == "__main__":
    reports = [check(Path(path)) for path in sys.argv[1:] or [GOLDEN / f"{net}.safetensors" for net in NETS]]
    for lines, is_well in reports:
        print(*lines, sep="\n")
    if not all(is_well for _, is_well in reports):
        raise SystemExit(f"too large: logits may differ by {LOGITS:.0e}, other maps by {INNER:.0e} of their largest")
