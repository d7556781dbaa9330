"use strict";

/** A chart of the last minutes: one line per series, or their areas stacked. Redrawn as SVG with each snapshot. */
class Chart {
  static width = 320;
  static height = 100;
  /** How much history is shown, in milliseconds. */
  static window = 300000;

  /** @param colours index of each series' colour in the style sheet */
  constructor(title, names, { format = formatRate, stacked = false, colours = [0, 1, 2] } = {}) {
    Object.assign(this, { names, format, stacked, colours, points: [] });
    this.svg = createShape("svg", {
      viewBox: `0 0 ${Chart.width} ${Chart.height}`, preserveAspectRatio: "none", role: "img", "aria-label": title
    });
    this.maximum = createElement("small", { className: "empty" });
    this.period = createElement("small", { className: "empty period" });
    this.values = names.map(() => createElement("b"));
    const legend = createElement("ul", { className: "legend" });
    names.forEach((name, index) => {
      legend.append(createElement("li", { className: `s${colours[index]}` }, name + " ", this.values[index]));
    });
    this.node = createElement(
      "div", { className: "chart" }, createElement("h3", {}, title + " ", this.maximum, this.period), this.svg, legend);
  }

  /**
   * @param time in milliseconds since 1970
   * @param values one per series; null: unknown
   */
  add(time, values) {
    this.points.push({ time, values });
    while (this.points.length > 2 && this.points[0].time < time - Chart.window) this.points.shift();
    values.forEach((value, index) => this.values[index].textContent = value == null ? "–" : this.format(value));
    this.draw();
  }

  draw() {
    const end = this.points.at(-1).time;
    const start = Math.max(this.points[0].time, end - Chart.window);
    const heights = this.points.map(({ values }) => {
      const known = values.map(value => value ?? 0);
      return this.stacked ? known.reduce((sum, value) => sum + value, 0) : Math.max(...known);
    });
    const maximum = Math.max(...heights);
    this.maximum.textContent = maximum > 0 ? `max ${this.format(maximum)}` : "";
    this.period.textContent = end > start ? `last ${formatDuration((end - start) * 1000)}` : "";
    const top = maximum || 1;
    const x = time => end > start ? (time - start) / (end - start) * Chart.width : Chart.width;
    const y = value => (Chart.height - 2) * (1 - value / top) + 1;
    const position = (time, value) => `${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
    const grid = [0, .5, 1].map(part => createShape("path", { class: "grid", d: `M0 ${1 + part * (Chart.height - 2)}H${Chart.width}` }));
    this.svg.replaceChildren(...grid, ...(this.stacked ? this.areas(position) : this.lines(position)));
  }

  areas(position) {
    let lower = this.points.map(() => 0);
    return this.names.map((_, index) => {
      const upper = this.points.map(({ values }, point) => lower[point] + (values[index] ?? 0));
      const upperEdge = this.points.map(({ time }, point) => position(time, upper[point]));
      const lowerEdge = this.points.map(({ time }, point) => position(time, lower[point])).reverse();
      lower = upper;
      return createShape("path", { class: `area s${this.colours[index]}`, d: `M${upperEdge.join("L")}L${lowerEdge.join("L")}Z` });
    });
  }

  lines(position) {
    return this.names.flatMap((_, index) => {
      let path = "";
      let isConnected = false;
      for (const { time, values } of this.points) {
        if (values[index] == null) {
          // An unknown value leaves a gap in the line.
          isConnected = false;
          continue;
        }
        path += (isConnected ? "L" : "M") + position(time, values[index]);
        isConnected = true;
      }
      return path ? [createShape("path", { class: `series s${this.colours[index]}`, d: path })] : [];
    });
  }
}
