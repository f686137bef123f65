// A device: a verified package whose features are computed and whose model is run in this page, by onnxruntime-web.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { InvalidRow, Refused, SelfTestFailed } from "./errors.js";
import { Features } from "./features.js";
import { fetched, openPackage } from "./package.js";
import { fromJson } from "./values.js";

ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // so that bits repeat, and no header for shared memory is needed

const SAME = 1e-12; // relative: browsers differ in the last bits of log and exp
const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

// Return the device of the package under a URL, signed by the trusted key (64 hexadecimal digits).
export async function load(url, trustedKey, name = null) {
  const { index, files } = await openPackage(fetched(url), trustedKey, name);
  const features = new Features(json(files["features.json"]));
  const odd = index.model.feeds.find((feed) => feed.datatype !== "object" && !Object.hasOwn(ARRAYS, feed.datatype));
  if (odd) {
    throw new Refused("model", `The model takes '${odd.name}' as ${odd.datatype}, which a page cannot give.`);
  }
  let session;
  try {
    session = await ort.InferenceSession.create(files["model.onnx"], { executionProviders: ["wasm"], logSeverityLevel: 3 });
  } catch (error) {
    throw new Refused("model", `onnxruntime-web cannot run the model: ${error.message}`);
  }
  return new Device(index, features, session, json(files["golden.json"]));
}

export class Device {
  constructor(index, features, session, golden) {
    this.index = index;
    this.name = index.name;
    this.version = index.version;
    this.inputs = features.inputs;
    this.outputs = index.model.outputs.map((output) => output.name);
    this.computed = features;
    this.session = session;
    this.golden = golden;
  }

  // Return output -> one value a row, of an array of rows.
  async predict(rows) {
    return rows.length ? this.#run(this.features(rows), rows.length) : this.#each(() => []);
  }

  // Return feature -> one value a row.
  features(rows) {
    const found = this.computed.rows(rows);
    return Object.fromEntries(this.computed.names.map((name, place) => [name, found.map((row) => row[place])]));
  }

  // Compute the golden rows and compare them with what the package says.
  async selfTest() {
    const { columns, outputs, rows, features, answers } = this.golden;
    if (Object.keys(outputs).length) {
      await this.#check(decoded(columns, this.index.columns), outputs, "model");
    }
    const inputs = Object.entries(decoded(rows, this.inputs));
    if (!Object.keys(answers).length) {
      return;
    }
    const count = inputs[0][1].length;
    const given = Array.from({ length: count }, (_, row) =>
      Object.fromEntries(inputs.map(([name, values]) => [name, values[row]])),
    );
    const found = this.features(given);
    for (const [name, values] of Object.entries(decoded(features, this.index.columns))) {
      values.forEach((wanted, row) => {
        if (!same(found[name][row], wanted)) {
          throw new SelfTestFailed(`Feature ${name} of golden row ${row} is ${found[name][row]}; expected ${wanted}.`);
        }
      });
    }
    await this.#check(found, answers, "row");
  }

  async #check(columns, expected, kind) {
    const rows = Object.values(expected)[0].length;
    const found = await this.#run(columns, rows);
    for (const [name, values] of Object.entries(expected)) {
      values.forEach((wanted, row) => {
        if (!near(found[name][row], wanted, this.index.tolerance)) {
          throw new SelfTestFailed(
            `Output ${name} of golden ${kind} ${row} is ${found[name][row]}; expected ${wanted} within ` +
              `${this.index.tolerance}.`,
          );
        }
      });
    }
  }

  async #run(columns, rows) {
    if (this.index.model.batch === 1 && rows !== 1) {
      const parts = [];
      for (let row = 0; row < rows; row += 1) {
        parts.push(await this.#run(mapped(columns, (values) => [values[row]]), 1));
      }
      return this.#each((name) => parts.map((part) => part[name][0]));
    }
    const feeds = {};
    for (const feed of this.index.model.feeds) {
      feeds[feed.name] = tensor(feed, columns, rows, this.index.model.finite);
    }
    const found = await this.session.run(feeds);
    const outputs = Object.fromEntries(this.index.model.outputs.map((output) => [output.name, output]));
    return this.#each((name) => split(found[outputs[name].fetch], outputs[name].column, rows));
  }

  #each(make) {
    return Object.fromEntries(this.outputs.map((name) => [name, make(name)]));
  }
}

function mapped(columns, change) {
  return Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, change(values)]));
}

function decoded(columns, types) {
  return Object.fromEntries(
    Object.entries(columns).map(([name, values]) => [name, values.map((value) => fromJson(value, types[name]))]),
  );
}

function json(content) {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
}

function tensor(feed, columns, rows, finite) {
  const beside = feed.columns.map((name) => columns[name]);
  const flat = [];
  for (let row = 0; row < rows; row += 1) {
    for (const values of beside) {
      flat.push(...[values[row]].flat(Infinity));
    }
  }
  const shape = [rows, ...feed.shape];
  const open = shape.filter((size) => size < 0).length;
  const known = shape.reduce((product, size) => (size < 0 ? product : product * size), 1);
  const dims = open === 1 ? shape.map((size) => (size < 0 ? flat.length / known : size)) : shape;
  if (open > 1 || dims.reduce((product, size) => product * size, 1) !== flat.length) {
    throw new InvalidRow(`Input '${feed.name}' of the model has ${flat.length} values for the shape ${shape}.`);
  }
  if (feed.datatype === "object") {
    return new ort.Tensor("string", flat.map((value) => value ?? ""), dims);
  }
  const wide = feed.datatype.endsWith("int64");
  const floats = feed.datatype.startsWith("float");
  const numbers = flat.map((value, place) => {
    if (value === null && floats) {
      return NaN;
    }
    if (finite && floats && Math.abs(finite === "float32" ? Math.fround(Number(value)) : Number(value)) === Infinity) {
      const name = feed.columns[feed.columns.length > 1 ? place % feed.columns.length : 0];
      const row = Math.floor(place / (flat.length / rows));
      throw new InvalidRow(`Input '${name}' is infinite, or too large for ${finite}, in row ${row}.`);
    }
    if (value === null || typeof value === "string") {
      throw new InvalidRow(`Input '${feed.name}' of the model is ${value}, which is not ${feed.datatype}.`);
    }
    return wide ? BigInt(value) : Number(value);
  });
  return new ort.Tensor(feed.datatype, ARRAYS[feed.datatype].from(numbers), dims);
}

function split(found, column, rows) {
  const values = Array.from(found.data);
  const width = values.length / rows;
  if (column !== null) {
    return Array.from({ length: rows }, (_, row) => values[row * width + column]);
  }
  return nested(values, found.dims);
}

function nested(values, dims) {
  if (dims.length <= 1) {
    return values;
  }
  const size = values.length / dims[0];
  return Array.from({ length: dims[0] }, (_, place) => nested(values.slice(place * size, (place + 1) * size), dims.slice(1)));
}

function same(one, other) {
  if (typeof one === "number" && typeof other === "number") {
    if (Number.isNaN(one) || Number.isNaN(other) || one === other) {
      return Object.is(one, other) || one === other;
    }
    return Math.abs(one - other) <= SAME * Math.max(Math.abs(one), Math.abs(other));
  }
  return one === other;
}

// Return whether outputs are equal within the tolerance, absolute and relative; a null expected is NaN.
function near(one, other, tolerance) {
  if (Array.isArray(other)) {
    return one.length === other.length && other.every((wanted, place) => near(one[place], wanted, tolerance));
  }
  if (typeof other === "string" || typeof one === "string") {
    return one === other;
  }
  if (other === null) {
    return Number.isNaN(one);
  }
  return Math.abs(Number(one) - Number(other)) <= tolerance * (1 + Math.abs(Number(other)));
}
