// The operations of expressions, on one value each: those of the Python runtime's operations.py.
//
// Null is null. Integers of 64 bits, instants and durations are BigInt, all other numbers Number. Every operation gives
// the same bits as there, but for `log` and `exp`, whose last bit is the browser's.

import { FIRST_INSTANT, LAST_INSTANT } from "./wall_clocks.js";

export const ofOne = (apply) => (a) => (a === null ? null : apply(a));
export const ofTwo = (apply) => (a, b) => (a === null || b === null ? null : apply(a, b));

const int64 = (value) => (BigInt.asIntN(64, value) === value ? value : null);
const instant = (value) => (value >= FIRST_INSTANT && value <= LAST_INSTANT ? value : null);

// Compare texts by code point, where JavaScript compares by the units of UTF-16.
function compared(a, b) {
  if (typeof a !== "string") {
    return a < b ? -1 : a > b ? 1 : a === b ? 0 : NaN;
  }
  const length = Math.min(a.length, b.length);
  for (let place = 0; place < length; place += 1) {
    const x = a.charCodeAt(place);
    const y = b.charCodeAt(place);
    if (x !== y) {
      return rank(x) - rank(y);
    }
  }
  return a.length - b.length;
}

function rank(unit) {
  return unit < 0xd800 ? unit : unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}

function rounded(x) {
  if (!Number.isFinite(x)) {
    return x;
  }
  const below = Math.floor(x);
  const rest = x - below;
  const whole = rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
  return whole === 0 && (x < 0 || Object.is(x, -0)) ? -0 : whole;
}

const WHITE_SPACE = /^[ \t\n\r\f\v]+|[ \t\n\r\f\v]+$/g;

export const OPERATIONS = {
  int_add: ofTwo((a, b) => int64(a + b)),
  int_sub: ofTwo((a, b) => int64(a - b)),
  int_mul: ofTwo((a, b) => int64(a * b)),
  int_neg: ofOne((a) => int64(-a)),
  int_abs: ofOne((a) => int64(a < 0n ? -a : a)),
  float_add: ofTwo((a, b) => a + b),
  float_sub: ofTwo((a, b) => a - b),
  float_mul: ofTwo((a, b) => a * b),
  float_div: ofTwo((a, b) => (b === 0 ? null : a / b)),
  float_neg: ofOne((a) => -a),
  float_abs: ofOne((a) => Math.abs(a)),
  instant_add: ofTwo((a, b) => instant(a + b)),
  instant_sub: ofTwo((a, b) => instant(a - b)),
  instant_between: ofTwo((a, b) => a - b),
  eq: ofTwo((a, b) => a === b),
  ne: ofTwo((a, b) => a !== b),
  lt: ofTwo((a, b) => compared(a, b) < 0),
  le: ofTwo((a, b) => compared(a, b) <= 0),
  gt: ofTwo((a, b) => compared(a, b) > 0),
  ge: ofTwo((a, b) => compared(a, b) >= 0),
  and: (a, b) => (a === false || b === false ? false : a === null || b === null ? null : true),
  or: (a, b) => (a === true || b === true ? true : a === null || b === null ? null : false),
  not: ofOne((a) => !a),
  is_null: (a) => a === null,
  coalesce: (a, b) => (a === null ? b : a),
  when: (condition, then, otherwise) => (condition === true ? then : otherwise),
  is_nan: ofOne((a) => Number.isNaN(a)),
  floor: ofOne((a) => Math.floor(a)),
  ceil: ofOne((a) => Math.ceil(a)),
  round: ofOne(rounded),
  sqrt: ofOne((a) => (a < 0 ? null : Math.sqrt(a))),
  log: ofOne((a) => (a <= 0 ? null : Math.log(a))),
  exp: ofOne((a) => Math.exp(a)),
  lower: ofOne((a) => a.replace(/[A-Z]/g, (letter) => letter.toLowerCase())),
  upper: ofOne((a) => a.replace(/[a-z]/g, (letter) => letter.toUpperCase())),
  length: ofOne((a) => Array.from(a).length),
  strip: ofOne((a) => a.replace(WHITE_SPACE, "")),
  concat: ofTwo((a, b) => a + b),
  contains: ofTwo((text, part) => text.includes(part)),
  starts_with: ofTwo((text, part) => text.startsWith(part)),
  ends_with: ofTwo((text, part) => text.endsWith(part)),
  replace: (text, old, by) =>
    text === null || old === null || by === null ? null : old === "" ? text : text.split(old).join(by),
};

export function extreme(name, dtype) {
  const sign = name === "least" ? 1 : -1;
  const floats = dtype === "float32" || dtype === "float64";
  return (a, b) => {
    if (a === null || b === null) {
      const only = a === null ? b : a;
      return only !== null && floats ? only + 0 : only;
    }
    if (floats && (Number.isNaN(a) || Number.isNaN(b))) {
      return name === "greatest" ? NaN : (Number.isNaN(a) ? b : a) + 0;
    }
    const picked = compared(a, b) * sign <= 0 ? a : b;
    return floats ? picked + 0 : picked;
  };
}

export function clip(low, high) {
  return ofOne((value) => {
    const above = low !== null && value < low ? low : value;
    return high !== null && above > high ? high : above;
  });
}

export function sliceOf(start, length) {
  const end = length === null ? undefined : start + length;
  return ofOne((text) => Array.from(text).slice(start, end).join(""));
}

export function oneOf(options) {
  const known = new Set(options);
  return ofOne((value) => known.has(value));
}

// Casts

const DECIMAL = /^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/;
const INTEGER = /^[+-]?[0-9]+$/;
const FLOATS = ["float32", "float64"];

function toSingle(x) {
  const single = Math.fround(x);
  return Math.abs(single) === Infinity && Math.abs(x) !== Infinity ? null : single;
}

// Rounded once, to 24 bits: below the 53 bits of a Number the rest only says that there is one ("round to odd").
function wideToSingle(value) {
  const wide = value >= 1n << 53n || value <= -(1n << 53n);
  const kept = wide ? ((value >> 11n) << 11n) | ((value & 0x7ffn) !== 0n ? 1n << 11n : 0n) : value;
  return Math.fround(Number(kept));
}

function within32(value) {
  return value >= -0x80000000 && value <= 0x7fffffff ? value + 0 : null;
}

function parsedInteger(text) {
  const digits = text.replace(/^[+-]+/, "").replace(/^0+/, "") || "0";
  if (!INTEGER.test(text) || digits.length > 19) {
    return null;
  }
  return int64(text[0] === "-" ? -BigInt(digits) : BigInt(digits));
}

function parsedFloat(text) {
  const number = DECIMAL.test(text) ? Number(text) : Infinity;
  return Number.isFinite(number) ? number : null;
}

function narrow(value) {
  return value === null ? null : within32(Number(value));
}

function fromFloat(target) {
  if (target === "int64") {
    return (x) => (Number.isFinite(x) ? int64(BigInt(Math.trunc(x))) : null);
  }
  return target === "int32" ? (x) => (Number.isFinite(x) ? within32(Math.trunc(x)) : null) : (x) => x;
}

const FROM_TEXT = {
  boolean: (text) => (/^true$/i.test(text) ? true : /^false$/i.test(text) ? false : null),
  int32: (text) => narrow(parsedInteger(text)),
  int64: parsedInteger,
  float32: (text) => {
    const number = parsedFloat(text);
    return number === null ? null : toSingle(number);
  },
  float64: parsedFloat,
};

export function cast(source, target) {
  if (target === "timestamp" && source === "int64") {
    return ofOne(instant);
  }
  if (source === "string") {
    return Object.hasOwn(FROM_TEXT, target) ? ofOne(FROM_TEXT[target]) : null;
  }
  if (target === "string") {
    return ofOne(String);
  }
  if (target === "boolean") {
    return ofOne((a) => (Number.isNaN(a) ? null : typeof a === "bigint" ? a !== 0n : a !== 0));
  }
  if (FLOATS.includes(source)) {
    return ofOne(target === "float32" ? toSingle : fromFloat(target));
  }
  if (FLOATS.includes(target)) {
    const single = target === "float32";
    return ofOne((a) => (single ? (typeof a === "bigint" ? wideToSingle(a) : Math.fround(Number(a))) : Number(a)));
  }
  return ofOne(target === "int32" ? (a) => narrow(a) : BigInt);
}
