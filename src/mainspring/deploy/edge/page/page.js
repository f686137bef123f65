// The page of one package: load it, test it on its golden rows, then predict what a person types in.

import { load } from "./device.js";

const main = document.querySelector("main");
const state = document.querySelector("#state");
const form = document.querySelector("#row");
const answer = document.querySelector("#answer");

// Return the value of a text for an input; an empty one is null.
function typed(text, dtype) {
  if (text === "") {
    return null;
  }
  if (dtype === "boolean") {
    return text === "true" ? true : text === "false" ? false : text;
  }
  if (dtype === "tensor") {
    return JSON.parse(text);
  }
  return ["int32", "float32", "float64"].includes(dtype) && text.trim() !== "" && !isNaN(text) ? Number(text) : text;
}

function show(device) {
  for (const [name, dtype] of Object.entries(device.inputs)) {
    const label = document.createElement("label");
    const field = document.createElement("input");
    field.name = name;
    field.placeholder = dtype === "timestamp" ? "2026-01-31T09:00:00+01:00" : dtype;
    label.append(name, field);
    document.querySelector("#inputs").append(label);
  }
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const row = {};
    try {
      for (const [name, text] of new FormData(form)) {
        row[name] = typed(text, device.inputs[name]);
      }
      const found = Object.entries(await device.predict([row]));
      answer.textContent = found.map(([name, [value]]) => `${name}: ${value}`).join("\n");
    } catch (error) {
      answer.textContent = error.message;
    }
  });
}

try {
  const device = await load(new URL("package/", import.meta.url), main.dataset.key, main.dataset.name);
  await device.selfTest();
  show(device);
  state.textContent = `Version ${device.version}: signature, files and golden rows are right in this browser.`;
  main.dataset.state = "ready";
} catch (error) {
  state.textContent = error.message;
  main.dataset.state = error.reason ?? "failed";
}
