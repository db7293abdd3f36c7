// What a prediction shows, whatever the model: rows of a legend, and a drawing on a canvas.
// Objects have boxes and perhaps masks, a label map has a class for each pixel, anything else has classes alone.

const FONT_PIXELS = 14;
const BACKGROUND = "background"; // pixels of a class of this name stay as they are until it is asked for

// Neighboring indices differ by the golden angle; the same colors as in drawings of the Python package.
export function classColor(index) {
  const hue = (index * 0.618034) % 1, saturation = 0.75 - 0.3 * (Math.floor(index / 8) % 2), value = 0.95;
  const channel = (n) => {
    const k = (n + hue * 6) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;
const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;

// The compressed run lengths of the COCO tools: five bits a letter, low bits first, differences to the run before the
// last. Runs of 0 and 1 take turns, column by column.
export function decodeRuns(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, letter;
    do {
      letter = text.charCodeAt(at++) - 48;
      value += (letter & 31) * 2 ** shift;
      shift += 5;
    } while (letter & 32);
    if (letter & 16) value -= 2 ** shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

// A canvas that is transparent outside of a mask.
function maskCanvas(mask, color) {
  const [height, width] = mask.size, canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
  const word = new Uint32Array(pixels.data.buffer), paint = 0xff000000 + (color[2] << 16) + (color[1] << 8) + color[0];
  let at = 0, on = false;
  for (const run of decodeRuns(mask.counts)) {
    if (on) for (let i = at; i < at + run; i++) word[(i % height) * width + Math.floor(i / height)] = paint;
    at += run;
    on = !on;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

class Objects {
  constructor(prediction) {
    this.usesThreshold = true;
    this.usesOpacity = prediction.objects.some((object) => object.mask);
    this.objects = prediction.objects.map((object) => {
      const color = classColor(object.label);
      return { ...object, color, canvas: object.mask ? maskCanvas(object.mask, color) : null };
    });
  }

  shown(view) {
    return this.objects.filter((object) => object.score >= view.threshold && !view.hidden.has(object.name));
  }

  summary(view) {
    const number = this.shown(view).length;
    return `${number} ${number === 1 ? "object" : "objects"} of ${this.objects.length} found`;
  }

  rows(view) {
    const rows = new Map();
    for (const object of this.objects.filter((object) => object.score >= view.threshold)) {
      const row = rows.get(object.name) ?? { name: object.name, color: object.color, number: 0, best: 0 };
      rows.set(object.name, { ...row, number: row.number + 1, best: Math.max(row.best, object.score) });
    }
    return [...rows.values()].map((row) => ({ ...row, value: `${row.number} × up to ${percent(row.best)}` }));
  }

  draw(context, view, scale) {
    const shown = this.shown(view).reverse(); // the best on top
    context.globalAlpha = view.opacity;
    for (const { canvas } of shown) if (canvas) context.drawImage(canvas, 0, 0);
    context.globalAlpha = 1;
    context.lineWidth = 2 * scale;
    context.font = `600 ${FONT_PIXELS * scale}px system-ui, "DejaVu Sans", sans-serif`;
    context.textBaseline = "top";
    for (const { box_xyxy: [left, top, right, bottom], color } of shown) {
      context.strokeStyle = css(color);
      context.strokeRect(left, top, right - left, bottom - top);
    }
    for (const { box_xyxy: [left, top], color, name, score } of shown) this.tag(context, left, top, `${name} ${Math.round(100 * score)} %`, color, scale);
  }

  tag(context, left, top, text, color, scale) {
    const pad = 4 * scale, height = FONT_PIXELS * scale + 2 * pad, width = context.measureText(text).width + 2 * pad;
    const x = Math.max(0, Math.min(left, context.canvas.width - width)), y = top >= height ? top - height : top;
    context.fillStyle = css(color);
    context.fillRect(x, y, width, height);
    context.fillStyle = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 140 ? "#11161d" : "#ffffff";
    context.fillText(text, x + pad, y + pad);
  }
}

class LabelMap {
  constructor(prediction, labels) {
    this.usesOpacity = true;
    this.prediction = prediction;
    this.labels = labels; // ImageData whose red channel is the class
    this.canvas = new OffscreenCanvas(labels.width, labels.height);
    this.drawnFor = null;
    this.hiddenAtFirst = prediction.classes.map(({ name }) => name).filter((name) => name === BACKGROUND);
  }

  summary() {
    return `${this.prediction.classes.length} classes in ${this.labels.width} × ${this.labels.height} pixels`;
  }

  color(label) {
    return this.prediction.label_map.colors[label] ?? classColor(label);
  }

  rows() {
    return this.prediction.classes.map(({ label, name, share }) => ({ name, color: this.color(label), value: percent(share), share }));
  }

  draw(context, view) {
    const key = [...view.hidden].sort().join("\n");
    if (this.drawnFor !== key) this.paint(view.hidden);
    this.drawnFor = key;
    context.globalAlpha = view.opacity;
    context.drawImage(this.canvas, 0, 0);
    context.globalAlpha = 1;
  }

  paint(hidden) {
    const words = new Uint32Array(256);
    for (const { label, name } of this.prediction.classes) {
      const [red, green, blue] = this.color(label);
      if (!hidden.has(name)) words[label] = 0xff000000 + (blue << 16) + (green << 8) + red;
    }
    const painted = new ImageData(this.labels.width, this.labels.height);
    const target = new Uint32Array(painted.data.buffer), source = this.labels.data;
    for (let i = 0; i < target.length; i++) target[i] = words[source[4 * i]];
    this.canvas.getContext("2d").putImageData(painted, 0, 0);
  }
}

class Classes {
  constructor(prediction) {
    this.prediction = prediction;
  }

  summary() {
    return `Most probable: ${this.prediction.name}`;
  }

  rows() {
    return this.prediction.top.map(({ name, score }) => ({ name, value: percent(score), share: score, isFixed: true }));
  }

  draw() {}
}

// A result of another kind, or with more classes than a gray image of 8 bits has: as the server draws it.
class Drawing {
  constructor(drawn) {
    this.drawn = drawn;
  }

  summary() {
    return "As the server draws it";
  }

  rows() {
    return [];
  }

  draw(context) {
    context.canvas.width = this.drawn.width;
    context.canvas.height = this.drawn.height;
    context.drawImage(this.drawn, 0, 0);
  }
}

// Read a prediction; `drawOnServer` gives a drawing where the page cannot draw it itself.
export async function readResult(prediction, numClasses, drawOnServer) {
  if (prediction.objects) return new Objects(prediction);
  if (prediction.label_map && numClasses <= 256) return new LabelMap(prediction, await readLabels(prediction.label_map.png));
  if (prediction.top) return new Classes(prediction);
  return new Drawing(await drawOnServer());
}

async function readLabels(png) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const exact = { colorSpaceConversion: "none", premultiplyAlpha: "none" }; // values are classes, not colors
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }), exact);
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}
