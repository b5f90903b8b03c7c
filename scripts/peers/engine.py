"""One engine, asked line by line; what it answers is in README.md.

    python engine.py ENGINE THREADS       ENGINE: ort, or a key of TORCH below
    python engine.py export SPEC FOLDER   weights.pt, net.onnx and net.json of a case
"""
import json
import sys
import time
import warnings

import numpy as np

import seeded
from cases import BLOCK, SCORES, calls

# Layout; whether batch norms are folded; whether it is compiled.
TORCH = {
    "torch": ("nchw", False, False),
    "torch-cl": ("channels_last", False, False),
    "torch-folded": ("nchw", True, False),
    "torch-folded-cl": ("channels_last", True, False),
    "torch-compiled": ("nchw", False, True),
}
warnings.filterwarnings("ignore")


def inputs(spec):
    value = lambda name, shape: seeded.tensor(name, shape, BLOCK if name == SCORES else 1)
    return [{name: value(name, shape) for name, shape in call.items()} for call in calls(spec)]


def export(spec, folder):
    import nets
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    net = nets.build(spec)
    gain = nets.gain(spec)
    net.load_state_dict({n: torch.from_numpy(seeded.weight(n, p.shape, gain)) for n, p in net.state_dict().items()})
    torch.save(net.state_dict(), f"{folder}/weights.pt")
    xs = [[torch.from_numpy(x) for x in call.values()] for call in inputs(spec)]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for x in xs:
            net(*x)
    flops = counter.get_total_flops() * (3 if spec.startswith("train:") else 1)
    with open(f"{folder}/net.json", "w") as f:
        json.dump({"gflop": flops / 1e9, "has_norms": nets.has_norms(net)}, f)
    if not spec.startswith("train:"):
        names = [name.split(".")[0] for name in calls(spec)[0]]
        sizes = {names[0]: {2: "h", 3: "w"}} if len(xs) > 1 else None
        torch.onnx.export(
            nets.exportable(net),
            tuple(xs[0]),
            f"{folder}/net.onnx",
            dynamo=False,
            opset_version=17,
            input_names=names,
            dynamic_axes=sizes,
        )


class Engine:
    @staticmethod
    def compared(ys):
        """What of a result is compared with the other engines'."""
        return ys


class Ort(Engine):
    def __init__(self, threads):
        import onnxruntime

        self.ort, self.threads = onnxruntime, threads

    def load(self, spec, folder):
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        session = self.ort.InferenceSession(f"{folder}/net.onnx", options, providers=["CPUExecutionProvider"])
        feeds = [{name.split(".")[0]: x for name, x in call.items()} for call in inputs(spec)]
        return lambda: [session.run(None, feed)[0] for feed in feeds]


class Torch(Engine):
    def __init__(self, kind, threads):
        import nets
        import torch

        self.nets, self.torch = nets, torch
        self.layout, self.folded, self.compiled = TORCH[kind]
        torch.set_num_threads(threads)

    def load(self, spec, folder):
        torch = self.torch
        with torch.device("meta"):
            net = self.nets.build(spec)
        net.load_state_dict(torch.load(f"{folder}/weights.pt"), assign=True)
        layout = torch.channels_last if self.layout == "channels_last" else torch.contiguous_format
        xs = [[torch.from_numpy(x) for x in call.values()] for call in inputs(spec)]
        net = net.to(memory_format=layout)
        xs = [[x.to(memory_format=layout) if x.dim() == 4 else x for x in call] for call in xs]
        if spec.startswith("train:"):
            return self.training(net.train(), xs[0][0])
        with torch.inference_mode():
            if self.folded:
                net = self.nets.folded(net)
            if self.compiled:
                import torch._inductor.config

                torch._inductor.config.freezing = True
                for x in xs:
                    net(*x)  # fills what nets keep from run to run: else it is compiled without, and once more with
                net = torch.compile(net)

        def run():
            with torch.inference_mode():
                return [net(*x) for x in xs]

        return run

    def training(self, net, x):
        """Forward and backward; gives the gradients of filters and matrices, of which the norms are compared:
        a value that rounding moves across the corner of a ReLU moves every gradient before it."""
        torch = self.torch
        labels = torch.zeros(len(x), dtype=torch.long)
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # what it drops is not the same in any two engines

        def run():
            net.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(x), labels).backward()
            return [p.grad for p in net.parameters() if p.dim() > 1]

        self.compared = lambda grad: grad.norm()
        return run


def serve(engine):
    def answer(command, *arguments):
        nonlocal run
        if command == "ready":
            return "ok"
        if command == "load":
            run = engine.load(*arguments)
            return "ok"
        if command == "run":
            times = []
            for _ in range(int(arguments[0])):
                start = time.perf_counter()
                run()
                times.append((time.perf_counter() - start) * 1e3)
            return " ".join(f"{t:.4f}" for t in times)
        if command == "save":
            with open(arguments[0], "wb") as f:
                for ys in run():
                    f.write(np.ascontiguousarray(engine.compared(ys), np.float32).tobytes())
            return "ok"
        raise SystemExit(f"expected ready, load, run or save, got {command}")

    run = None
    for line in sys.stdin:
        print(answer(*line.split()), flush=True)


if __name__ == "__main__":
    kind, argument = sys.argv[1:3]
    if kind == "export":
        export(argument, sys.argv[3])
    else:
        serve(Ort(int(argument)) if kind == "ort" else Torch(kind, int(argument)))
