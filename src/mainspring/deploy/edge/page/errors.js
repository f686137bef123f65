// Errors of the runtime. Each says what is wrong with which values.

export class Refused extends Error {
  // `reason` is one word: missing, key, signature, cut, changed, format, name, model, features.
  constructor(reason, what) {
    super(what);
    this.name = "Refused";
    this.reason = reason;
  }
}

export class InvalidRow extends Error {
  name = "InvalidRow";
}

export class SelfTestFailed extends Error {
  name = "SelfTestFailed";
}
