// The features of a package: typed operations in the order in which they are computed, one row at a time.

import { InvalidRow, Refused } from "./errors.js";
import { cast, clip, extreme, ofOne, oneOf, OPERATIONS, sliceOf } from "./operations.js";
import { fromJson, reader } from "./values.js";
import { partOf, startOf } from "./wall_clocks.js";

const FORMAT = 1;

export class Features {
  // `inputs` maps input -> type; `names` are the features, in order.
  constructor(document) {
    if (document.format !== FORMAT) {
      throw new Refused("format", `features.json has the format ${document.format}; this runtime reads ${FORMAT}.`);
    }
    this.inputs = document.inputs;
    this.names = Object.keys(document.features);
    this.readers = Object.entries(this.inputs).map(([name, dtype]) => [name, reader(name, dtype)]);
    this.steps = [];
    this.dtypes = [];
    for (const step of document.steps) {
      this.steps.push(this.#compile(step, document.zones));
      this.dtypes.push(step.dtype);
    }
    this.places = Object.values(document.features).map((place) => this.readers.length + place);
  }

  // Return each row's features, in the order of `names`.
  rows(rows) {
    return rows.map((row) => {
      const values = this.readers.map(([name, read]) => {
        if (!Object.hasOwn(row, name)) {
          throw new InvalidRow(`The row lacks the input '${name}'; it has ${Object.keys(row).sort()}.`);
        }
        return read(row[name]);
      });
      for (const step of this.steps) {
        values.push(step(values));
      }
      return this.places.map((place) => values[place]);
    });
  }

  #compile(step, zones) {
    if (step.op === "column") {
      const place = this.readers.findIndex(([name]) => name === step.name);
      return (values) => values[place];
    }
    if (step.op === "literal") {
      const constant = fromJson(step.value, step.dtype);
      return () => constant;
    }
    const apply = this.#operation(step, zones);
    const places = step.args.map((place) => this.readers.length + place);
    if (!apply || !step.args.every((place) => place < this.steps.length)) {
      throw new Refused("features", `A feature needs the operation '${step.op}' of ${step.dtype}, unknown to this runtime.`);
    }
    return (values) => apply(...places.map((place) => values[place]));
  }

  #operation(step, zones) {
    if (step.op === "time_part" || step.op === "time_start") {
      const field = (step.op === "time_part" ? partOf : startOf)(step.name, zones[step.zone]);
      return field && ofOne(field);
    }
    if (step.op === "least" || step.op === "greatest") {
      return extreme(step.op, step.dtype);
    }
    if (step.op === "slice") {
      return sliceOf(...step.options);
    }
    const source = this.dtypes[step.args[0]];
    if (step.op === "cast") {
      return cast(source, step.dtype);
    }
    if (step.op === "clip" || step.op === "one_of") {
      const options = step.options.map((option) => fromJson(option, source));
      return step.op === "clip" ? clip(...options) : oneOf(options);
    }
    return Object.hasOwn(OPERATIONS, step.op) ? OPERATIONS[step.op] : null;
  }
}
