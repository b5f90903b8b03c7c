"""The conversion on a made-up graph with the real names and an eighth of the channels.

    python -m unittest discover scripts/weights
"""

import json
import struct
import unittest
from unittest import mock

import coco_ssdlite as coco
import numpy as np

SHRINK, CLASSES = 8, 3
DENSE = "FeatureExtractor/MobilenetV2/expanded_conv_4/expand"
DEPTHWISE = "FeatureExtractor/MobilenetV2/expanded_conv_4/depthwise"
BOX = "BoxPredictor_1/BoxEncodingPredictor"


def table() -> list[coco.Rule]:
    return list(coco.rules(SHRINK, CLASSES))


def made_up_graph() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    claims = [rule for rule in table() if isinstance(rule, coco.Claim)]
    return {claim.source: rng.standard_normal(claim.shape).astype(np.float32) for claim in claims}


def manifest(tensors: dict[str, np.ndarray], shards: int = 3) -> tuple[dict, dict[str, bytes]]:
    """A `model.json` and shards whose cuts fall inside tensors."""
    data = b"".join(values.astype("<f4").tobytes() for values in tensors.values())
    cut = len(data) // shards + 1
    parts = {f"shard{i}": data[i * cut : (i + 1) * cut] for i in range(shards)}
    entries = [{"name": name, "shape": list(v.shape), "dtype": "float32"} for name, v in tensors.items()]
    return {"weightsManifest": [{"paths": list(parts), "weights": entries}]}, parts


def converted(graph: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return coco.convert(coco.read_tensors(*manifest(graph)), table())


def convolve(window: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """One output position of a convolution: window [in, kh, kw], kernel [out, in, kh, kw]."""
    return np.einsum("ihw,oihw->o", window, kernel)


def batch_norm(values: np.ndarray, ours: dict[str, np.ndarray], name: str) -> np.ndarray:
    variance = ours[f"{name}.running_var"] + np.float32(coco.BN_EPS)
    scaled = (values - ours[f"{name}.running_mean"]) / np.sqrt(variance) * ours[f"{name}.weight"]
    return scaled + ours[f"{name}.bias"]


def check_folded_norm(graph: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> None:
    """Our norm must do exactly what is left of the graph's: multiply and add."""
    values = np.linspace(-3, 3, graph[f"{DEPTHWISE}/BatchNorm/batchnorm/mul"].size, dtype=np.float32)
    theirs = values * graph[f"{DEPTHWISE}/BatchNorm/batchnorm/mul"] + graph[f"{DEPTHWISE}/BatchNorm/batchnorm/sub"]
    np.testing.assert_array_equal(batch_norm(values, ours, "backbone.features.5.conv.1.1"), theirs)
    values = values[: graph[f"{DENSE}/BatchNorm/batchnorm/sub"].size]
    theirs = values + graph[f"{DENSE}/BatchNorm/batchnorm/sub"]
    np.testing.assert_array_equal(batch_norm(values, ours, "backbone.features.5.conv.0.1"), theirs)


def check_dense_kernel(graph: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> None:
    """The stem on one 3×3 window of an image, rows, columns and channels last."""
    kernel = graph["FeatureExtractor/MobilenetV2/Conv/Conv2D/merged_input"]
    window = np.random.default_rng(8).standard_normal((3, 3, 3)).astype(np.float32)
    got = convolve(window.transpose(2, 0, 1), ours["backbone.features.0.0.weight"])
    np.testing.assert_allclose(got, np.einsum("hwi,hwio->o", window, kernel), rtol=1e-5)


def check_depthwise_kernel(graph: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> None:
    kernel, got = graph[f"{DEPTHWISE}/depthwise_weights"], ours["backbone.features.5.conv.1.0.weight"]
    assert got.shape == (kernel.shape[2], 1, 3, 3), got.shape
    for channel, y, x in [(0, 0, 1), (1, 2, 0), (5, 1, 2)]:
        assert got[channel, 0, y, x] == kernel[y, x, channel, 0], (channel, y, x)


def check_box_channels(graph: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> None:
    kernel, bias = ours["box.1.1.weight"], ours["box.1.1.bias"]
    for anchor in range(6):
        for axis, (mine, theirs) in enumerate([("dx", 1), ("dy", 0), ("dw", 3), ("dh", 2)]):
            here, there = 4 * anchor + axis, 4 * anchor + theirs
            assert bias[here] == graph[f"{BOX}/biases"][there], mine
            np.testing.assert_array_equal(kernel[here, :, 0, 0], graph[f"{BOX}/weights"][0, 0, :, there], mine)


CHECKS = (check_folded_norm, check_dense_kernel, check_depthwise_kernel, check_box_channels)


class Conversion(unittest.TestCase):
    def test_every_layer_computes_what_the_graph_computes(self):
        graph = made_up_graph()
        ours = converted(graph)
        for check in CHECKS:
            with self.subTest(check.__name__):
                check(graph, ours)

    def test_a_broken_conversion_does_not_pass(self):
        """Each mistake that is easy to make, made once: the matching check must notice."""
        graph = made_up_graph()
        for what, broken, check in [
            ("FOLDED_VARIANCE", np.float32(1), check_folded_norm),
            ("dense_kernel", lambda kernel: kernel.transpose(3, 2, 1, 0), check_dense_kernel),
            ("depthwise_kernel", lambda kernel: kernel.transpose(2, 3, 1, 0), check_depthwise_kernel),
            ("BOX_ORDER", (0, 1, 2, 3), check_box_channels),
        ]:
            with self.subTest(what), mock.patch.object(coco, what, broken):
                ours = converted(graph)
                with self.assertRaises(AssertionError):
                    check(graph, ours)

    def test_class_predictors_keep_their_channels_and_statistics(self):
        graph = made_up_graph()
        ours = converted(graph)
        source = "BoxPredictor_5/ClassPredictor"
        np.testing.assert_array_equal(ours["cls.5.1.bias"], graph[f"{source}/biases"])
        np.testing.assert_array_equal(
            ours["cls.5.0.1.running_var"], graph[f"{source}_depthwise/BatchNorm/moving_variance"]
        )

    def test_the_folded_variance_vanishes_exactly(self):
        self.assertEqual(coco.FOLDED_VARIANCE + np.float32(coco.BN_EPS), np.float32(1))

    def test_the_real_sizes(self):
        rules = list(coco.rules())
        shapes = {rule.source: rule.shape for rule in rules if isinstance(rule, coco.Claim)}
        fills = sum(isinstance(rule, coco.Fill) for rule in rules)
        for name, shape in [
            (f"{coco.FEATURES}/Conv_1/Conv2D/merged_input", (1, 1, 320, 1280)),
            ("BoxPredictor_0/ClassPredictor/weights", (1, 1, 576, 273)),
            ("BoxPredictor_1/BoxEncodingPredictor/weights", (1, 1, 1280, 24)),
            (f"{coco.FEATURES}/layer_19_2_Conv2d_5_3x3_s2_128_depthwise/depthwise_weights", (3, 3, 64, 1)),
        ]:
            self.assertEqual(shapes[name], shape, name)
        self.assertEqual((len(shapes), len(shapes) + fills), (233, 404))


class Refusals(unittest.TestCase):
    def assert_refused(self, message: str, *arguments):
        with self.assertRaisesRegex(coco.ConversionError, message):
            coco.convert(coco.read_tensors(*arguments), table())

    def test_a_graph_that_does_not_fit(self):
        def missing(graph):
            del graph[f"{BOX}/biases"]

        def unclaimed(graph):
            graph["SomethingNew/weights"] = np.zeros((2, 3), np.float32)

        def mis_shaped(graph):
            graph[f"{BOX}/biases"] = np.zeros(5, np.float32)

        def not_finite(graph):
            graph[f"{BOX}/biases"][3] = np.nan

        for break_it, message in [
            (missing, rf"missing     {BOX}/biases"),
            (unclaimed, r"unclaimed   SomethingNew/weights \[2, 3\]"),
            (mis_shaped, rf"wrong shape {BOX}/biases: expected \[24\], got \[5\]"),
            (not_finite, rf"not finite  {BOX}/biases"),
        ]:
            with self.subTest(break_it.__name__):
                graph = made_up_graph()
                break_it(graph)
                self.assert_refused(message, *manifest(graph))

    def test_a_container_that_lies(self):
        def no_shard(model, shards):
            del shards["shard1"]

        def short_shard(model, shards):
            shards["shard2"] = shards["shard2"][:-4]

        def long_shard(model, shards):
            shards["shard2"] += bytes(8)

        def quantized(model, shards):
            model["weightsManifest"][0]["weights"][0]["quantization"] = {"dtype": "uint8"}

        def other_dtype(model, shards):
            model["weightsManifest"][0]["weights"][0]["dtype"] = "string"

        def twice(model, shards):
            weights = model["weightsManifest"][0]["weights"]
            weights[1] = weights[0]

        for break_it, message in [
            (no_shard, "shards missing: shard1"),
            (short_shard, "ends at byte"),
            (long_shard, "8 bytes left over"),
            (quantized, "quantized tensors are not supported"),
            (other_dtype, "dtype string, expected float32 or int32"),
            (twice, "listed twice"),
        ]:
            with self.subTest(break_it.__name__):
                model, shards = manifest(made_up_graph())
                break_it(model, shards)
                self.assert_refused(message, model, shards)

    def test_constants_and_integers_are_ignored(self):
        graph = made_up_graph() | {"Preprocessor/mul/x": np.float32([1]), "Postprocessor/x": np.float32([np.inf])}
        model, shards = manifest(graph)
        model["weightsManifest"][0]["weights"].append({"name": "stack/1", "shape": [2], "dtype": "int32"})
        shards["shard2"] += bytes(8)
        self.assertEqual(coco.convert(coco.read_tensors(model, shards), table()).keys(), converted(made_up_graph()).keys())

    def test_a_kernel_too_large_for_f16(self):
        with self.assertRaisesRegex(coco.ConversionError, "a.weight: does not fit into f16, largest value 70000"):
            coco.half_kernels({"a.weight": np.full((1, 1), 7e4, np.float32)})


class File(unittest.TestCase):
    def test_the_bytes_are_the_same_each_time_and_aligned(self):
        ours = coco.half_kernels(converted(made_up_graph()))
        data = coco.safetensors_bytes(ours, coco.METADATA)
        self.assertEqual(data, coco.safetensors_bytes(dict(reversed(ours.items())), coco.METADATA))
        (length,) = struct.unpack("<Q", data[:8])
        self.assertEqual(length % 8, 0)
        header = json.loads(data[8 : 8 + length])
        self.assertEqual(header.pop("__metadata__"), coco.METADATA)
        self.assertEqual(header.keys(), ours.keys())
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            dtype = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}[entry["dtype"]]
            self.assertEqual(begin % dtype.itemsize, 0, name)
            self.assertEqual(entry["dtype"], "F16" if len(entry["shape"]) > 1 else "F32", name)
            stored = np.frombuffer(data[8 + length + begin : 8 + length + end], dtype).reshape(entry["shape"])
            np.testing.assert_array_equal(stored, ours[name], name)


if __name__ == "__main__":
    unittest.main()
