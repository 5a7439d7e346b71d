// transformers.js, with its defaults: fp32 in Node.
//
//     ONNXRUNTIME_NODE_INSTALL_CUDA=skip npm install @huggingface/transformers
//     node benchmarks/clients/transformers_js.mjs WORK
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { AutoModelForSequenceClassification, AutoTokenizer, env } from "@huggingface/transformers";

const work = path.resolve(process.argv[2]);
const expected = JSON.parse(fs.readFileSync(path.join(work, "expected.json")));
env.localModelPath = work;
env.allowRemoteModels = false;
const tokenizer = await AutoTokenizer.from_pretrained(expected.hub);
const loaded = [];
for (const [options, file, engine] of [
  [{}, "onnx/model.onnx", "onnxruntime fp32"],
  [{ dtype: "q8" }, "onnx/model_quantized.onnx", "onnxruntime int8"],
]) {
  const model = await AutoModelForSequenceClassification.from_pretrained(expected.hub, options);
  let largest = 0;
  let equal = 0;
  for (const [row, texts] of expected.texts.entries()) {
    const inputs = tokenizer(texts[0], { text_pair: texts[1] ?? null, truncation: true });
    const { logits } = await model(inputs);
    const theirs = Array.from(logits.data);
    const ours = expected.logits[engine][row];
    largest = Math.max(largest, ...theirs.map((value, index) => Math.abs(value - ours[index])));
    equal += theirs.indexOf(Math.max(...theirs)) === ours.indexOf(Math.max(...ours)) ? 1 : 0;
  }
  const labels = expected.labels.every((label, index) => model.config.id2label[index] === label);
  loaded.push({
    call: `from_pretrained(NAME, ${JSON.stringify(options)})`, file, engine, rows: expected.texts.length,
    largest_difference: largest, equal_labels: equal, label_names_equal: labels,
  });
}
fs.mkdirSync(path.join(work, "clients"), { recursive: true });
const value = {
  client: "transformers.js", command: "node transformers_js.mjs WORK",
  date: new Date().toISOString().slice(0, 10), processor: os.cpus()[0].model,
  versions: { "transformers.js": env.version, node: process.version }, loaded,
};
fs.writeFileSync(path.join(work, "clients/transformers.js.json"), JSON.stringify(value, null, 1) + "\n");
console.log(JSON.stringify(loaded));
