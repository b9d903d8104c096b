// Shows /openapi.json and tries its GET operations. Everything from the document goes in as text.
"use strict";

function make(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

// Text in which `words` between backticks are code.
function prose(tag, text) {
  const parts = text.split("`");
  return make(tag, "", ...parts.map((part, at) => (at % 2 ? make("code", part) : part)));
}

function spoken(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(spoken).join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return "list of " + spoken(schema.items);
  return schema.format || schema.type || "any";
}

function table(heads, rows) {
  const head = make("tr", "", ...heads.map((text) => make("th", text)));
  const body = rows.map((cells) => make("tr", "", ...cells.map(
    (cell) => (typeof cell === "string" ? prose("td", cell) : make("td", "", cell)))));
  return make("table", "", make("thead", "", head), make("tbody", "", ...body));
}

function fields(api, name) {
  const schema = api.components.schemas[name];
  if (!schema || !schema.properties) return make("p");
  const rows = Object.entries(schema.properties).map(([field, about]) => {
    const named = [about, ...(about.anyOf || [])].map((part) => part.description).find(Boolean);
    return [field, spoken(about), named || ""];
  });
  const block = make("details", "", make("summary", name), table(["field", "type", ""], rows));
  if (schema.description) block.append(prose("p", schema.description));
  const inner = new Set(JSON.stringify(schema.properties).match(/schemas\/\w+/g) || []);
  for (const each of inner) block.append(fields(api, each.split("/").pop()));
  return block;
}

async function attempt(path, inputs, shown) {
  let address = path;
  const query = new URLSearchParams();
  for (const [param, input] of inputs) {
    if (param.in === "path") {
      address = address.replace(`{${param.name}}`, encodeURIComponent(input.value));
    } else if (input.value) {
      query.append(param.name, input.value);
    }
  }
  const token = document.getElementById("token").value;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const target = query.size ? `${address}?${query}` : address;
  shown.textContent = `GET ${target} …`;
  try {
    const answer = await fetch(target, { headers });
    const text = await answer.text();
    const isJson = (answer.headers.get("Content-Type") || "").includes("json");
    const body = isJson ? JSON.stringify(JSON.parse(text), null, 2) : text;
    shown.textContent = `GET ${target}\n${answer.status} ${answer.statusText}\n\n${body}`;
  } catch (error) {
    shown.textContent = `GET ${target}\n${error}`;
  }
}

function operation(api, path, method, described) {
  const verb = make("span", method.toUpperCase());
  verb.className = "method";
  const said = make("span", " " + described.summary);
  said.className = "said";
  const block = make("details", "", make("summary", "", verb, path, said));
  if (described.description) block.append(prose("p", described.description));
  const inputs = (described.parameters || []).map((param) => [param, make("input")]);
  if (inputs.length) {
    block.append(table(["parameter", "type", "", "value"], inputs.map(([param, input]) => {
      input.setAttribute("aria-label", param.name);
      return [param.name, spoken(param.schema), param.description || "", input];
    })));
  }
  if (method === "get") {
    const shown = make("pre");
    const button = make("button", "Try it");
    button.addEventListener("click", () => attempt(path, inputs, shown));
    block.append(button, shown);
  }
  block.append(table(["answer", ""], Object.entries(described.responses).map(
    ([status, answer]) => [status, answer.description])));
  const taken = [described.requestBody, described.responses["200"]];
  for (const content of taken.filter(Boolean)) {
    const schema = (Object.values(content.content || {})[0] || {}).schema;
    if (schema && schema.$ref) block.append(fields(api, schema.$ref.split("/").pop()));
  }
  return block;
}

async function show() {
  const main = document.getElementById("operations");
  const api = await (await fetch("/openapi.json")).json();
  document.getElementById("about").replaceChildren(prose("span", api.info.description));
  main.replaceChildren();
  for (const tag of api.tags) {
    main.append(make("h2", tag.name), prose("p", tag.description));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, described] of Object.entries(methods)) {
        if (described.tags.includes(tag.name)) {
          main.append(operation(api, path, method, described));
        }
      }
    }
  }
}

show().catch((error) => {
  document.getElementById("operations").replaceChildren(make("p", String(error)));
});
