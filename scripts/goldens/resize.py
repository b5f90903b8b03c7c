"""Writes crates/vision/tests/data/resize.safetensors: small pictures resized by four frameworks.

    pip install numpy safetensors "pillow<13" "opencv-python-headless<5" torch tensorflow-cpu
    python scripts/goldens/resize.py

For each pair of sizes the file holds `CASE.input` (u8 [H, W, 3]) and, from each framework,
`CASE.pil`, `CASE.pil_bicubic`, `CASE.opencv`, `CASE.nearest` (u8) and `CASE.half_pixel`, `CASE.tensorflow1` (f32), all
[h, w, 3]. Pillow 13 swaps the passes when rows shrink and columns grow; all weights trained so far saw
the older order. The pictures are noise over a slope, from a fixed seed, so that every pixel counts.
"""

from pathlib import Path

import cv2
import numpy as np
import PIL
import tensorflow as tf
import torch
from PIL import Image
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parents[2] / "crates/vision/tests/data/resize.safetensors"

# name: (input height, width), (output height, width)
CASES = {
    "shrink": ((37, 53), (11, 17)),
    "enlarge": ((13, 9), (29, 31)),
    "half": ((24, 36), (12, 18)),
    "double": ((10, 14), (20, 28)),
    "mixed": ((40, 12), (15, 33)),
    "near": ((31, 32), (30, 33)),
    "one_pixel": ((1, 1), (4, 5)),
    "to_one": ((19, 23), (1, 1)),
    "same": ((12, 10), (12, 10)),
}


def picture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    slope = np.linspace(0, 160, height)[:, None, None] + np.linspace(0, 40, width)[None, :, None]
    return np.clip(slope + rng.integers(-60, 96, (height, width, 3)), 0, 255).astype(np.uint8)


def main() -> None:
    rng = np.random.default_rng(20)
    tensors = {}
    for name, (size, (height, width)) in CASES.items():
        rgb = picture(*size, rng)
        as_pil = Image.fromarray(rgb)
        as_torch = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
        half_pixel = torch.nn.functional.interpolate(
            as_torch, (height, width), mode="bilinear", align_corners=False
        )
        tensorflow1 = tf.compat.v1.image.resize_bilinear(
            tf.constant(rgb[None], tf.float32), (height, width), half_pixel_centers=False
        )
        tensors |= {
            f"{name}.input": rgb,
            f"{name}.pil": np.asarray(as_pil.resize((width, height), Image.BILINEAR)),
            f"{name}.pil_bicubic": np.asarray(as_pil.resize((width, height), Image.BICUBIC)),
            f"{name}.nearest": np.asarray(as_pil.resize((width, height), Image.NEAREST)),
            f"{name}.opencv": cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR),
            f"{name}.half_pixel": half_pixel[0].permute(1, 2, 0).numpy(),
            f"{name}.tensorflow1": tensorflow1[0].numpy(),
        }
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    versions = {
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
        "torch": torch.__version__,
        "tensorflow": tf.__version__,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT, metadata=versions)
    print(f"{OUT}: {len(tensors)} tensors, {OUT.stat().st_size} bytes, {versions}")


if __name__ == "__main__":
    main()
