"""Makes crates/metrics/tests/data/coco_ap.json: small COCO box evaluations and what pycocotools says.

    pip install pycocotools==2.0.11
    python scripts/goldens/coco_ap.py crates/metrics/tests/data/coco_ap.json

Coordinates are multiples of 1/4 and scores of 1/64, so that they are the same numbers in f32, and so
that scores tie often.
"""
import contextlib
import io
import json
import random
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

KEYS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def quarter(low, high, rng):
    return rng.randrange(int(4 * low), int(4 * high) + 1) / 4


def box(rng, largest=160):
    return [quarter(0, 300, rng), quarter(0, 200, rng), quarter(4, largest, rng), quarter(4, largest, rng)]


def jitter(rng, b, by):
    x, y, w, h = b
    return [x + quarter(-by, by, rng), y + quarter(-by, by, rng), max(w + quarter(-by, by, rng), 1.0), max(h + quarter(-by, by, rng), 1.0)]


def case(name, seed, images=8, classes=(1, 3, 7), objects=5, results=8, crowds=0.0, empty=0.0, unseen=(), scores=64, largest=160, mask_area=False):
    """A random evaluation: most results are jittered objects, the rest lie anywhere."""
    rng = random.Random(seed)
    annotations, found = [], []
    for image in range(images):
        here = []
        if rng.random() >= empty:
            for _ in range(rng.randint(0, objects)):
                b = box(rng, largest)
                area = b[2] * b[3] * (0.5 if mask_area else 1.0)
                here.append({"id": len(annotations) + 1, "image_id": image, "category_id": rng.choice(classes),
                             "bbox": b, "area": area, "iscrowd": int(rng.random() < crowds)})
                annotations.append(here[-1])
        if rng.random() >= empty:
            for _ in range(rng.randint(0, results)):
                if here and rng.random() < 0.7:
                    o = rng.choice(here)
                    b, c = jitter(rng, o["bbox"], rng.choice([0, 2, 8, 20])), o["category_id"]
                else:
                    b, c = box(rng, largest), rng.choice(classes)
                if unseen and rng.random() < 0.2:
                    c = rng.choice(unseen)
                found.append({"image_id": image, "category_id": c, "bbox": b, "score": rng.randint(1, scores) / 64})
    truth = {"images": [{"id": i, "width": 512, "height": 384} for i in range(images)],
             "categories": [{"id": c, "name": f"class {c}"} for c in classes], "annotations": annotations}
    return {"name": name, "truth": truth, "results": found}


def crowded_image():
    """More than 100 results of one class in an image: those past the hundredth do not count."""
    made = case("more than a hundred results in an image", 11, images=2, classes=(1,), objects=6, results=3)
    rng = random.Random(12)
    for _ in range(130):
        o = rng.choice(made["truth"]["annotations"])
        made["results"].append({"image_id": o["image_id"], "category_id": 1, "bbox": jitter(rng, o["bbox"], 40), "score": rng.randint(1, 64) / 64})
    return made


def evaluate(made):
    truth, found = COCO(), COCO()
    truth.dataset = made["truth"]
    truth.createIndex()
    results = [dict(r, id=i + 1, area=r["bbox"][2] * r["bbox"][3], iscrowd=0) for i, r in enumerate(made["results"])]
    found.dataset = {**made["truth"], "annotations": results}
    found.createIndex()
    run = COCOeval(truth, found, "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    per_class = {}
    for k, c in enumerate(run.params.catIds):
        p = run.eval["precision"][:, :, k, 0, -1]
        if (p > -1).any():
            per_class[str(c)] = {"ap": float(p[p > -1].mean()), "ap50": float(p[0][p[0] > -1].mean())}
    means = {key: (float(v) if v > -1 else None) for key, v in zip(KEYS, run.stats)}
    return {"means": means, "per_class": per_class}


def main(path):
    cases = [
        case("plain", 1),
        case("many ties", 2, scores=3),
        case("one score for all", 3, scores=1),
        case("crowds", 4, crowds=0.35, images=10),
        case("empty images on either side", 5, empty=0.5, images=12),
        case("results of classes nobody annotated", 6, unseen=(2, 99)),
        case("small objects, mask areas", 7, largest=60, mask_area=True, images=10),
        case("large objects", 8, largest=250),
        case("no results", 9, results=0),
        case("nothing annotated", 10, objects=0),
        crowded_image(),
        case("only crowds", 13, crowds=1.0, images=4),
    ]
    for made in cases:
        with contextlib.redirect_stdout(io.StringIO()):
            made["expected"] = evaluate(made)
    with open(path, "w") as f:
        f.write('{"reference": "pycocotools 2.0.11", "cases": [\n')
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        f.write("\n]}\n")


if __name__ == "__main__":
    main(sys.argv[1])
