"""The golden files of our crates, as nets in PyTorch are held to them."""
import json
from pathlib import Path

import torch
from safetensors import safe_open

import seeded

MODELS = Path(__file__).parents[2] / "models"


def stored(file):
    """(name, stride, values) of the outputs; large ones are stored in part."""
    for key in file.keys():
        name, _, form = key.partition("@")
        if form != "stats":
            yield name, int(form.removeprefix("stride=") or 1), file.get_tensor(key).flatten()


class Golden:
    # Of tensors in checkpoints that have no effect on the results.
    unused = ()

    def __init__(self, crate, name):
        self.name = name
        with safe_open(MODELS / crate / "tests/golden" / f"{name}.safetensors", "np") as file:
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
        state = {name: shape for name, shape in state if not name.startswith(self.unused)}
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
