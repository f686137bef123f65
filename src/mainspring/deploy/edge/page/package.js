// A package: verified completely before anything in it is parsed further. The Python runtime's package.py says the same.

import { Refused } from "./errors.js";

const KIND = "mainspring-edge";
const FORMAT = 1;
const NEEDED = ["model.onnx", "features.json", "golden.json"];
const LARGEST_INDEX = 4 << 20;
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}$/;

// Return {index, files} of the package whose files `read(name)` gives as a Uint8Array, `null` where one is missing.
export async function openPackage(read, trustedKey, name = null) {
  const key = await publicKey(trustedKey);
  const content = await bytesOf(read, "edge.json", LARGEST_INDEX);
  const signature = await bytesOf(read, "edge.sig", 64);
  if (signature.length !== 64) {
    throw new Refused("cut", `edge.sig has ${signature.length} bytes; a signature has 64.`);
  }
  if (!(await crypto.subtle.verify("Ed25519", key, signature, content))) {
    throw new Refused("signature", `edge.json was changed, or signed by another key than ${trustedKey.slice(0, 12)}….`);
  }
  const index = parsed(content);
  if (name !== null && index.name !== name) {
    throw new Refused("name", `The package is of '${index.name}'; this device runs '${name}'.`);
  }
  const files = {};
  for (const [each, listed] of Object.entries(index.files)) {
    files[each] = await verified(read, each, listed);
  }
  return { index, files };
}

async function publicKey(text) {
  if (!/^[0-9a-f]{64}$/.test(text)) {
    throw new Refused("key", `'${text.slice(0, 80)}' is not a public key: give 64 hexadecimal digits.`);
  }
  const bytes = Uint8Array.from(text.match(/../g), (digits) => parseInt(digits, 16));
  return crypto.subtle.importKey("raw", bytes, { name: "Ed25519" }, false, ["verify"]);
}

function parsed(content) {
  let index;
  try {
    index = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch {
    index = null;
  }
  if (index === null || typeof index !== "object" || !("kind" in index) || !("format" in index)) {
    throw new Refused("format", "edge.json is signed, but is not the index of an edge package.");
  }
  if (index.kind !== KIND || !Number.isInteger(index.format)) {
    throw new Refused("format", `edge.json is signed, but is a '${index.kind}' of format ${index.format}.`);
  }
  if (index.format !== FORMAT) {
    throw new Refused("format", `The package has the format ${index.format}; this runtime reads ${FORMAT}. Upgrade it.`);
  }
  const names = Object.keys(index.files);
  if (!NEEDED.every((each) => names.includes(each)) || !names.every((each) => NAME.test(each))) {
    throw new Refused("format", `The package lists the files ${names}; it needs ${NEEDED}.`);
  }
  return index;
}

async function verified(read, name, listed) {
  const content = await bytesOf(read, name, listed.size);
  if (content.length < listed.size) {
    throw new Refused("cut", `${name} has ${content.length} bytes of ${listed.size}.`);
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  if (Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") !== listed.sha256) {
    throw new Refused("changed", `${name} is not the file that was signed: its SHA-256 differs.`);
  }
  return content;
}

async function bytesOf(read, name, most) {
  const content = await read(name);
  if (content === null) {
    throw new Refused("missing", `${name} cannot be read.`);
  }
  if (content.length > most) {
    throw new Refused("changed", `${name} has more than ${most} bytes.`);
  }
  return content;
}

// Return a reader of the files under a URL.
export function fetched(base) {
  return async (name) => {
    const answer = await fetch(new URL(name, base), { cache: "no-store" });
    return answer.ok ? new Uint8Array(await answer.arrayBuffer()) : null;
  };
}
