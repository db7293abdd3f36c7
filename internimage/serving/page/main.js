// The page: an image in, a prediction on a canvas out.

import { css, readResult } from "./results.js";

const get = (id) => document.getElementById(id);
const view = { threshold: 0.3, opacity: 0.5, hidden: new Set() };
const state = { models: [], file: null, image: null, json: null, result: null, asked: 0 };

class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

async function ask(address, options = {}) {
  const key = get("key").value, headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch(address, { ...options, headers });
  if (response.ok) return response;
  const type = response.headers.get("content-type") ?? "";
  const detail = type.includes("json") ? (await response.json()).detail : await response.text();
  throw new Refused(response.status, typeof detail === "string" ? detail : JSON.stringify(detail));
}

function complain(error) {
  get("message").textContent = error.message;
  get("message").hidden = false;
  if (error.status === 401) get("key-form").hidden = false;
}

async function loadModels() {
  try {
    state.models = (await (await ask("v1/models")).json()).models;
    get("message").hidden = true;
    const chosen = get("model").value;
    get("model").replaceChildren(...state.models.map(({ name }) => new Option(name, name)));
    if (chosen) get("model").value = chosen;
    describe();
    if (state.models.some((model) => !model.task)) setTimeout(loadModels, 2000); // they still load
  } catch (error) {
    complain(error);
  }
}

const chosenModel = () => state.models.find(({ name }) => name === get("model").value);

function describe() {
  const model = chosenModel();
  const size = model?.input_hw ? `, usual input ${model.input_hw[1]} × ${model.input_hw[0]}` : "";
  get("about").textContent = model?.task ? `${model.task}, ${model.num_classes} classes${size}` : "The model is loading";
}

function form() {
  const data = new FormData();
  data.append("images", state.file, "image");
  return data;
}

async function drawOnServer() {
  const address = `v1/models/${encodeURIComponent(get("model").value)}/predict?format=png`;
  return createImageBitmap(await (await ask(address, { method: "POST", body: form() })).blob());
}

async function predict() {
  if (!state.file) return;
  const number = ++state.asked, model = chosenModel();
  const masks = !model?.options || model.options.includes("masks");
  const address = `v1/models/${encodeURIComponent(get("model").value)}/predict?${masks ? "top_k=1000&masks=true" : "top_k=5"}`;
  get("busy").hidden = false;
  get("message").hidden = true;
  try {
    const json = await (await ask(address, { method: "POST", body: form() })).json();
    const result = await readResult(json.predictions[0], model?.num_classes ?? 0, drawOnServer);
    if (number !== state.asked) return; // another image or model was chosen meanwhile
    Object.assign(state, { json, result });
    view.hidden = new Set(result.hiddenAtFirst);
  } catch (error) {
    if (number !== state.asked) return;
    Object.assign(state, { json: null, result: null });
    complain(error);
  }
  get("busy").hidden = true;
  show();
}

async function choose(file) {
  if (!file) return;
  state.file = file;
  Object.assign(state, { json: null, result: null, image: null });
  try {
    state.image = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    state.image = null; // a format that the server may know and the browser does not
  }
  show();
  await predict();
}

function show() {
  const { result, image } = state;
  get("invitation").hidden = Boolean(image);
  get("canvas").hidden = !image;
  get("drop").classList.toggle("filled", Boolean(image));
  if (image) drawCanvas();
  else if (state.file) get("invitation").firstElementChild.textContent = "This browser cannot show the image";
  get("threshold-field").hidden = !result?.usesThreshold;
  get("opacity-field").hidden = !result?.usesOpacity;
  get("summary").textContent = result ? result.summary(view) : "";
  get("legend").replaceChildren(...(result ? result.rows(view) : []).map(legendRow));
  get("save-json").disabled = !result;
  get("save-png").disabled = !result || !image;
}

function drawCanvas() {
  const canvas = get("canvas"), [height, width] = state.json?.predictions[0].original_hw ?? [state.image.height, state.image.width];
  canvas.width = width;
  canvas.height = height;
  // A small image is shown larger, pixel by pixel.
  const room = get("drop").clientWidth, shown = Math.min(room, Math.max(width, Math.min(room, 640, Math.round(width * 420 / height))));
  canvas.style.width = `${shown}px`;
  canvas.style.imageRendering = shown >= 3 * width ? "pixelated" : "auto";
  const context = canvas.getContext("2d");
  context.drawImage(state.image, 0, 0, width, height);
  state.result?.draw(context, view, Math.max(width / shown, 0.5));
}

function legendRow(row) {
  const item = document.createElement("li"), button = document.createElement("button");
  const swatch = document.createElement("canvas"), name = document.createElement("span"), value = document.createElement("span");
  swatch.width = swatch.height = 1;
  swatch.hidden = !row.color;
  if (row.color) {
    const context = swatch.getContext("2d");
    context.fillStyle = css(row.color);
    context.fillRect(0, 0, 1, 1);
  }
  name.textContent = row.name;
  value.textContent = row.value;
  value.className = "value";
  button.append(swatch, name, value);
  button.setAttribute("aria-pressed", String(!view.hidden.has(row.name)));
  if (row.share !== undefined) {
    const bar = document.createElement("progress");
    bar.value = row.share;
    button.append(bar);
  }
  if (row.isFixed) button.disabled = true;
  else button.title = "Show or hide";
  button.onclick = () => {
    if (!view.hidden.delete(row.name)) view.hidden.add(row.name);
    show();
  };
  item.append(button);
  return item;
}

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${(state.file.name ?? "image").replace(/\.\w+$/, "")}_${get("model").value}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function slide(name) {
  get(name).oninput = () => {
    view[name] = Number(get(name).value) / 100;
    get(`${name}-value`).textContent = `${get(name).value} %`;
    show();
  };
}

const drop = get("drop");
drop.onclick = () => get("file").click();
drop.onkeydown = (event) => {
  if (event.key === "Enter" || event.key === " ") get("file").click();
};
drop.ondragover = (event) => {
  event.preventDefault();
  drop.classList.add("over");
};
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  choose(event.dataTransfer.files[0]);
};
document.onpaste = (event) => choose(event.clipboardData.files[0]);
for (const id of ["file", "camera"]) {
  get(id).onchange = () => {
    choose(get(id).files[0]);
    get(id).value = ""; // so that the same file can be chosen again
  };
}
get("model").onchange = () => {
  describe();
  predict();
};
get("key-form").onsubmit = (event) => event.preventDefault();
get("key").onchange = async () => {
  await loadModels();
  await predict();
};
get("save-json").onclick = () => save(new Blob([JSON.stringify(state.json, null, 2)], { type: "application/json" }), "json");
get("save-png").onclick = () => get("canvas").toBlob((blob) => save(blob, "png"), "image/png");
window.onresize = show;
slide("threshold");
slide("opacity");
loadModels();
