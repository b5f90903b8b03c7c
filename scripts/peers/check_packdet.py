"""Holds packdet.py to the golden files of the crate `packdet`, plain and folded.

    target/peers/venv/bin/python scripts/peers/check_packdet.py

Prints the largest differences, relative to the largest value of each map; the exit status is 1 if one is too large."""
import torch

import packdet
from golden import Golden

LARGEST = 1e-4
NETS = {"r50-m4": "packdet_r50_m4", "mnv2-m4": "packdet_mnv2_m4"}

if __name__ == "__main__":
    is_well = True
    for name, file in NETS.items():
        for fold in (False, True):
            file_of_net, seen = Golden("packdet", file), {}
            net = file_of_net.fill(packdet.build(name))
            with torch.inference_mode():
                net = net.folded() if fold else net
                net(file_of_net.input("input"), seen)
                text, worst = file_of_net.difference(seen)
            is_well &= worst <= LARGEST
            print(f"{name}, {'folded' if fold else 'plain'}: {text}")
    if not is_well:
        raise SystemExit(f"too large: maps may differ by {LARGEST:.0e} of their largest value")
