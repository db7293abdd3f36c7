// The API as openapi.json describes it, to be read.

function make(tag, text, ...inner) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...inner);
  return element;
}

function table(headings, rows) {
  const cells = (tag, texts) => make("tr", "", ...texts.map((text) => make(tag, text)));
  return make("table", "", cells("th", headings), ...rows.map((row) => cells("td", row)));
}

function typeOf(schema) {
  if (schema.anyOf) return schema.anyOf.map(typeOf).filter((type) => type !== "null").join(" or ");
  if (schema.type === "array") return `${typeOf(schema.items)}, several`;
  const limits = [schema.minimum, schema.maximum].filter((limit) => limit !== undefined).join(" to ");
  return schema.enum ? schema.enum.join(" or ") : `${schema.type}${limits ? ` ${limits}` : ""}`;
}

function example(method, path, types) {
  const address = `${new URL(".", location)}${path.slice(1)}`.replace("{name}", "NAME");
  return `curl ${types.includes("multipart/form-data") ? "-F images=@photo.jpg " : ""}'${address}'`;
}

function section(path, method, operation) {
  const types = Object.keys(operation.requestBody?.content ?? {}), parameters = operation.parameters ?? [];
  const parts = [make("h2", `${method.toUpperCase()} ${path}`), make("p", operation.description ?? operation.summary)];
  if (types.length) parts.push(make("p", `Body: ${types.join(" or ")}`));
  if (parameters.length) {
    const rows = parameters.map(({ name, schema, description, required }) => [name, typeOf(schema), description ?? (required ? "required" : "")]);
    parts.push(table(["parameter", "values", "meaning"], rows));
  }
  const responses = Object.entries(operation.responses ?? {});
  parts.push(table(["status", "meaning"], responses.map(([status, { description }]) => [status, description])));
  parts.push(make("pre", "", make("code", example(method, path, types))));
  return make("section", "", ...parts);
}

const { info, paths } = await (await fetch("openapi.json")).json();
const operations = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map((found) => [path, ...found]));
document.getElementById("api").append(make("p", `${info.description} Version ${info.version}.`), ...operations.map((found) => section(...found)));
