// Values of rows: what a device accepts for each type, and how values stand in a package's JSON.

import { InvalidRow } from "./errors.js";
import { daysOf, FIRST_INSTANT, LAST_INSTANT } from "./wall_clocks.js";

const WIDE = ["int64", "timestamp", "duration"];
const SPECIAL = { NaN, Infinity, "-Infinity": -Infinity };
const ISO = /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6}))?)?(Z|[+-]\d\d:?\d\d)$/;

// Return a value from a package's JSON, where integers of 64 bits and floats that are not finite are texts.
export function fromJson(value, dtype) {
  if (value === null || dtype === "string" || dtype === "boolean" || dtype === "tensor") {
    return value;
  }
  if (WIDE.includes(dtype)) {
    return BigInt(value);
  }
  return typeof value === "string" ? SPECIAL[value] : value;
}

// Return the value for JSON, which has no BigInt and only finite numbers.
export function toJson(value) {
  if (typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value))) {
    return String(value);
  }
  return value;
}

// Return a function that accepts a value of an input, or throws InvalidRow. Numbers, BigInt and texts of digits stand for
// integers of 64 bits; a timestamp is microseconds since 1970 in UTC, a Date, or ISO 8601 with its offset from UTC.
export function reader(name, dtype) {
  const accept = READERS[dtype];
  return (value) => {
    if (value === null) {
      return null;
    }
    const found = accept(value);
    if (found === undefined) {
      throw new InvalidRow(`Input '${name}' is ${shown(value)}, which is not a ${dtype}.`);
    }
    return found;
  };
}

function shown(value) {
  return typeof value === "bigint" ? `${value}` : (JSON.stringify(value) ?? String(value)).slice(0, 80);
}

function integer64(value) {
  const whole = typeof value === "string" && /^[+-]?[0-9]{1,19}$/.test(value) ? BigInt(value.replace("+", "")) : value;
  const wide = Number.isSafeInteger(whole) ? BigInt(whole) : whole;
  return typeof wide === "bigint" && BigInt.asIntN(64, wide) === wide ? wide : undefined;
}

function integer32(value) {
  return Number.isInteger(value) && value >= -0x80000000 && value <= 0x7fffffff ? value + 0 : undefined;
}

function float32(value) {
  if (typeof value !== "number") {
    return undefined;
  }
  const single = Math.fround(value);
  return Math.abs(single) === Infinity && Math.abs(value) !== Infinity ? undefined : single;
}

function timestamp(value) {
  let found = typeof value === "string" ? fromIso(value) : integer64(value);
  if (value instanceof Date) {
    found = BigInt(value.getTime()) * 1000n;
  }
  return found !== undefined && found >= FIRST_INSTANT && found <= LAST_INSTANT ? found : undefined;
}

function fromIso(text) {
  const match = ISO.exec(text);
  if (match === null) {
    return undefined;
  }
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map((part) => Number(part ?? 0));
  const fits = month >= 1 && month <= 12 && day >= 1 && day <= daysIn(year, month) && hour < 24 && minute < 60;
  if (!fits || second > 59) {
    return undefined;
  }
  const zone = match[8] === "Z" ? "+0000" : match[8].replace(":", "");
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(3));
  const seconds = daysOf(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
  const offset = (zone[0] === "-" ? -60 : 60) * minutes;
  return BigInt(seconds - offset) * 1_000_000n + BigInt((match[7] ?? "").padEnd(6, "0"));
}

function daysIn(year, month) {
  return month === 12 ? 31 : daysOf(year, month + 1, 1) - daysOf(year, month, 1);
}

const READERS = {
  string: (value) => (typeof value === "string" ? value : undefined),
  boolean: (value) => (typeof value === "boolean" ? value : undefined),
  int32: integer32,
  int64: integer64,
  float32,
  float64: (value) => (typeof value === "number" ? value : undefined),
  timestamp,
  tensor: (value) => value,
};
