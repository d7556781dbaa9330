"use strict";

// Elements, number formats and table rows of the dashboard.

const element = id => document.getElementById(id);

/** An HTML element with these properties; `state` becomes the attribute data-state. */
function createElement(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "state") node.dataset.state = value; else node[key] = value;
  }
  node.append(...children);
  return node;
}

function createShape(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

const formatCount = value => Math.round(value).toLocaleString("en");
const formatRate = value => value > 0 && value < 10 ? value.toFixed(1).replace(/\.0$/, "") : formatCount(value);

/** @param value in microseconds; null: unknown */
function formatDuration(value) {
  if (value == null) return "–";
  if (value < 1000) return `${Math.round(value)} µs`;
  if (value < 1e4) return `${(value / 1e3).toFixed(1)} ms`;
  if (value < 1e6) return `${Math.round(value / 1e3)} ms`;
  if (value < 6e7) return `${(value / 1e6).toFixed(1)} s`;
  const minutes = Math.floor(value / 6e7);
  if (minutes < 60) return `${minutes}m ${Math.floor(value / 1e6) % 60}s`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours}h ${minutes % 60}m` : `${Math.floor(hours / 24)}d ${hours % 24}h`;
}

/** The rows of a table by key. A row that stays keeps its nodes, so that a button does not move or vanish while it is pressed. */
class Rows {
  /**
   * @param body the id of the tbody element
   * @param columns pairs of a cell's name and its classes
   * @param emptyText the text of the table without rows
   * @param fill called with the row's cells by name, the item, and whether the row is new
   */
  constructor(body, columns, emptyText, fill) {
    Object.assign(this, { body: element(body), columns, emptyText, fill, rows: new Map() });
  }

  show(items, key) {
    const old = this.rows;
    this.rows = new Map();
    for (const item of items) {
      let row = old.get(key(item));
      if (!row) {
        row = { node: createElement("tr"), cells: {} };
        for (const [name, className] of this.columns) row.node.append(row.cells[name] = createElement("td", { className }));
      }
      this.rows.set(key(item), row);
      this.fill(row.cells, item, !old.has(key(item)));
    }
    const nodes = [...this.rows.values()].map(row => row.node);
    if (nodes.length === 0) {
      nodes.push(createElement("tr", {}, createElement("td", { className: "empty", colSpan: this.columns.length }, this.emptyText)));
    }
    const isUnchanged = nodes.length === this.body.children.length
      && nodes.every((node, index) => node === this.body.children[index]);
    if (!isUnchanged) this.body.replaceChildren(...nodes);
  }
}
