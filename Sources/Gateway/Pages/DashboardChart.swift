/// The dashboard's charts: plain SVG that is drawn anew with each snapshot.
enum DashboardChart {
    static let text = #"""
        "use strict";

        const element = id => document.getElementById(id);

        function make(name, properties = {}, ...children) {
          const node = document.createElement(name);
          for (const [key, value] of Object.entries(properties)) {
            if (key === "state") node.dataset.state = value; else node[key] = value;
          }
          node.append(...children);
          return node;
        }

        function shape(name, attributes, text = "") {
          const node = document.createElementNS("http://www.w3.org/2000/svg", name);
          for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
          node.textContent = text;
          return node;
        }

        const count = value => Math.round(value).toLocaleString("en");
        const rate = value => value > 0 && value < 10 ? value.toFixed(1).replace(/\.0$/, "") : count(value);

        /** Microseconds as people read them. */
        function span(value) {
          if (value == null) return "–";
          if (value < 1000) return `${Math.round(value)} µs`;
          if (value < 1e4) return `${(value / 1e3).toFixed(1)} ms`;
          if (value < 1e6) return `${Math.round(value / 1e3)} ms`;
          if (value < 6e7) return `${(value / 1e6).toFixed(1)} s`;
          const minutes = Math.floor(value / 6e7);
          if (minutes < 60) return `${minutes}m ${Math.floor(value / 1e6) % 60}s`;
          return minutes < 1440 ? `${Math.floor(minutes / 60)}h ${minutes % 60}m` : `${Math.floor(minutes / 1440)}d ${Math.floor(minutes / 60) % 24}h`;
        }

        /** Lines, or parts of a whole one above the other, over the last minutes. */
        class Chart {
          static width = 320;
          static height = 100;
          static window = 300000;

          constructor(title, names, { format = rate, stacked = false, colours = [0, 1, 2] } = {}) {
            Object.assign(this, { names, format, stacked, colours, points: [] });
            this.svg = shape("svg", { viewBox: `0 0 ${Chart.width} ${Chart.height}`, preserveAspectRatio: "none", role: "img", "aria-label": title });
            this.scale = make("small", { className: "empty" });
            this.reach = make("small", { className: "empty reach" });
            this.values = names.map(() => make("b"));
            const legend = make("ul", { className: "legend" });
            names.forEach((name, index) => legend.append(make("li", { className: `s${colours[index]}` }, name + " ", this.values[index])));
            this.node = make("div", { className: "chart" }, make("h3", {}, title + " ", this.scale, this.reach), this.svg, legend);
          }

          /** A value for each name; null: not known. */
          add(time, values) {
            this.points.push({ time, values });
            while (this.points.length > 2 && this.points[0].time < time - Chart.window) this.points.shift();
            values.forEach((value, index) => this.values[index].textContent = value == null ? "–" : this.format(value));
            this.draw();
          }

          draw() {
            const last = this.points[this.points.length - 1].time;
            const begin = Math.max(this.points[0].time, last - Chart.window);
            const sums = this.points.map(({ values }) => this.stacked ? values.reduce((sum, value) => sum + (value ?? 0), 0) : Math.max(...values.map(value => value ?? 0)));
            const top = Math.max(...sums, Number.MIN_VALUE);
            this.scale.textContent = Math.max(...sums) > 0 ? `max ${this.format(top)}` : "";
            this.reach.textContent = last > begin ? `last ${span((last - begin) * 1000)}` : "";
            const x = time => last > begin ? (time - begin) / (last - begin) * Chart.width : Chart.width;
            const y = value => (Chart.height - 2) * (1 - value / top) + 1;
            const nodes = [0, .5, 1].map(part => shape("path", { class: "grid", d: `M0 ${1 + part * (Chart.height - 2)}H${Chart.width}` }));
            let below = this.points.map(() => 0);
            this.names.forEach((_, index) => {
              const colour = `s${this.colours[index]}`;
              if (this.stacked) {
                const above = this.points.map(({ values }, place) => below[place] + (values[index] ?? 0));
                const forth = this.points.map(({ time }, place) => `${x(time).toFixed(1)} ${y(above[place]).toFixed(1)}`);
                const back = this.points.map(({ time }, place) => `${x(time).toFixed(1)} ${y(below[place]).toFixed(1)}`).reverse();
                nodes.push(shape("path", { class: `area ${colour}`, d: `M${forth.join("L")}L${back.join("L")}Z` }));
                below = above;
              } else {
                let path = "";
                let isDown = false;
                for (const { time, values } of this.points) {
                  if (values[index] == null) { isDown = false; continue; }
                  path += `${isDown ? "L" : "M"}${x(time).toFixed(1)} ${y(values[index]).toFixed(1)}`;
                  isDown = true;
                }
                if (path) nodes.push(shape("path", { class: `series ${colour}`, d: path }));
              }
            });
            this.svg.replaceChildren(...nodes);
          }
        }
        """#
}
