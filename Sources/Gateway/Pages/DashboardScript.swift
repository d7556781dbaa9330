/// What the dashboard runs. Names and ids get into the page as text, never as markup; the key stays in this tab.
enum DashboardScript {
    static let text = DashboardChart.text + "\n\n" + page

    private static let page = #"""
        /** Table rows by key: a row that stays keeps its node, so that nothing moves under the pointer while it is pressed. */
        class Rows {
          constructor(body, columns, nothing, fill) {
            Object.assign(this, { body: element(body), columns, nothing, fill, rows: new Map() });
          }

          show(items, key) {
            const old = this.rows;
            this.rows = new Map();
            for (const item of items) {
              let row = old.get(key(item));
              if (!row) {
                row = { node: make("tr"), cells: {} };
                for (const [name, style] of this.columns) row.node.append(row.cells[name] = make("td", { className: style }));
              }
              this.rows.set(key(item), row);
              this.fill(row.cells, item, !old.has(key(item)));
            }
            const nodes = [...this.rows.values()].map(row => row.node);
            if (nodes.length === 0) nodes.push(make("tr", {}, make("td", { className: "empty", colSpan: this.columns.length }, this.nothing)));
            const same = nodes.length === this.body.children.length && nodes.every((node, index) => node === this.body.children[index]);
            if (!same) this.body.replaceChildren(...nodes);
          }
        }

        class Dashboard {
          static period = 1000;
          static hiddenPeriod = 10000;

          constructor() {
            this.key = sessionStorage.getItem("sluice-operator-key");
            this.charts = {
              tokens: new Chart("Tokens/s", ["relayed"]),
              depth: new Chart("Waiting jobs", ["interactive", "standard", "batch"], { format: count }),
              latency: new Chart("Interrupt → closed", ["p50", "p99"], { format: span, colours: [0, 3] }),
              outcomes: new Chart("Endings/s", ["finished", "interrupted", "failed"], { stacked: true, colours: [0, 1, 3] })
            };
            element("charts").append(...Object.values(this.charts).map(chart => chart.node));
            this.figures = {};
            for (const [name, title] of [["tokens", "Tokens/s"], ["jobs", "Jobs/s"], ["slots", "Slots in use"], ["waiting", "Waiting"], ["failed", "Failed since start"], ["dead", "Dead letters"]]) {
              const value = make("dd", {}, "–");
              const node = make("dl", { className: "figure" }, make("dt", {}, title), value);
              this.figures[name] = { node, value };
              element("figures").append(node);
            }
            this.tables();
            element("gate").onsubmit = event => {
              event.preventDefault();
              this.enter(element("key").value.trim());
            };
            element("forget").onclick = () => this.leave("");
            element("search").onsubmit = event => {
              event.preventDefault();
              this.find(element("job").value.trim());
            };
            document.addEventListener("visibilitychange", () => { if (!document.hidden && this.key) this.poll(); });
            if (this.key) this.enter(this.key); else this.leave("");
          }

          get mayAct() { return this.role === "admin"; }

          // MARK: the key

          enter(key) {
            this.key = key;
            element("gate").hidden = true;
            this.say("waiting", "connecting");
            this.poll();
          }

          leave(why) {
            this.key = null;
            this.role = null;
            clearTimeout(this.timer);
            sessionStorage.removeItem("sluice-operator-key");
            for (const id of ["main", "role", "forget"]) element(id).hidden = true;
            element("gate").hidden = false;
            element("key").value = "";
            element("gate-error").textContent = why;
            element("key").focus();
            this.say("waiting", "locked");
          }

          say(state, text) {
            element("status").dataset.state = state;
            element("status").textContent = text;
          }

          // MARK: asking

          async ask(path, method = "GET") {
            const key = this.key;
            const answer = await fetch("/dashboard/" + path, {
              method, headers: { authorization: "Bearer " + key }, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(8000)
            });
            const body = await answer.json();
            if (answer.status === 401 && key === this.key) this.leave("This key is not known here.");
            if (!answer.ok) throw new Error(body.error?.message ?? `status ${answer.status}`);
            return body;
          }

          async poll() {
            clearTimeout(this.timer);
            const turn = this.turn = (this.turn ?? 0) + 1;
            try {
              const { role, snapshot } = await this.ask("snapshot");
              if (turn !== this.turn || !this.key) return;
              sessionStorage.setItem("sluice-operator-key", this.key);
              this.role = role;
              this.failedSince = null;
              this.show(snapshot);
              const nodes = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;
              this.say("live", `${nodes(snapshot.workers.length, "worker")}, ${nodes(snapshot.gateways.length, "gateway")} · ${new Date(snapshot.time_ms).toLocaleTimeString("en-GB")}`);
            } catch (error) {
              if (turn !== this.turn || !this.key) return;
              this.failedSince ??= new Date();
              this.say("broken", `old since ${this.failedSince.toLocaleTimeString("en-GB")}: ${error.message}`);
            }
            this.timer = setTimeout(() => this.poll(), document.hidden ? Dashboard.hiddenPeriod : Dashboard.period);
          }

          // MARK: showing

          show(snapshot) {
            for (const id of ["main", "forget"]) element(id).hidden = false;
            element("role").hidden = this.mayAct;
            element("role").textContent = "read only";
            this.chart(snapshot);
            const total = name => snapshot.queues.reduce((sum, queue) => sum + queue[name], 0);
            const slots = snapshot.workers.reduce((sum, worker) => sum + worker.capacity, 0);
            const { finished, interrupted, failed } = snapshot.totals;
            const share = failed / Math.max(1, finished + interrupted + failed);
            this.figure("tokens", rate(snapshot.rates.tokens_per_second));
            this.figure("jobs", rate(snapshot.rates.jobs_per_second));
            this.figure("slots", count(total("running")), `of ${count(slots)}`, total("running") >= slots && total("waiting") > 0 ? "warn" : "");
            this.figure("waiting", count(total("waiting")), "", snapshot.workers.length === 0 && total("waiting") > 0 ? "wrong" : "");
            this.figure("failed", count(failed), failed ? `${(share * 100).toFixed(1)} %` : "", share > .05 ? "wrong" : "");
            this.figure("dead", count(snapshot.dead), "", snapshot.dead > 0 ? "warn" : "");
            this.now = snapshot.time_ms;
            this.queues.show(snapshot.queues, queue => queue.class);
            const names = { queue_wait: "Queue wait", first_token: "First token", interrupt_close: "Interrupt to closed" };
            this.latencies.show(Object.entries(snapshot.latencies).map(([key, value]) => ({ name: names[key] ?? key, ...value })), latency => latency.name);
            this.workers.show(snapshot.workers, worker => worker.name);
            this.jobs.show(snapshot.slowest, job => job.id);
            this.gateways.show(snapshot.gateways, gateway => gateway.name);
          }

          figure(name, text, addition = "", state = "") {
            const { node, value } = this.figures[name];
            node.dataset.state = state;
            value.replaceChildren(text + " ", make("small", {}, addition));
          }

          chart(snapshot) {
            const time = snapshot.time_ms;
            this.charts.tokens.add(time, [snapshot.rates.tokens_per_second]);
            this.charts.depth.add(time, snapshot.queues.map(queue => queue.waiting));
            const closed = snapshot.latencies.interrupt_close;
            this.charts.latency.add(time, [closed.p50_us, closed.p99_us]);
            // A worker that ends takes its counts with it: that is no negative number of endings.
            const before = this.before;
            const seconds = before ? (time - before.time_ms) / 1000 : 0;
            if (seconds > 0) {
              this.charts.outcomes.add(time, ["finished", "interrupted", "failed"].map(name => Math.max(0, snapshot.totals[name] - before.totals[name]) / seconds));
            }
            if (!before || seconds > 0) this.before = snapshot;
          }

          tables() {
            const tag = (text, state) => make("span", { className: "tag", state }, text);
            const button = (title, action, style = "") => make("button", { type: "button", className: style, onclick: action }, title);
            this.queues = new Rows("queues", [["name", ""], ["waiting", "n"], ["running", "n"], ["oldest", "n"], ["state", ""], ["act", ""]], "", (cells, queue, isNew) => {
              cells.name.textContent = queue.class;
              cells.waiting.textContent = count(queue.waiting);
              cells.running.textContent = count(queue.running);
              cells.oldest.textContent = queue.oldest_wait_ms == null ? "–" : span(queue.oldest_wait_ms * 1000);
              cells.state.replaceChildren(tag(queue.paused ? "paused" : "open", queue.paused ? "warn" : ""));
              if (isNew) cells.act.append(button("", () => this.pause(queue.class, cells.act.firstChild.dataset.paused !== "true")));
              const act = cells.act.firstChild;
              act.dataset.paused = queue.paused;
              act.textContent = queue.paused ? "Resume" : "Pause";
              act.hidden = !this.mayAct;
            });
            this.latencies = new Rows("latencies", [["name", ""], ["p50", "n"], ["p90", "n more"], ["p99", "n"], ["count", "n"]], "", (cells, latency) => {
              cells.name.textContent = latency.name;
              for (const part of ["p50", "p90", "p99"]) cells[part].textContent = span(latency[part + "_us"]);
              cells.count.textContent = count(latency.count);
            });
            this.workers = new Rows("workers", [["name", "name"], ["slots", ""], ["tokens", "n"], ["jobs", "n more"], ["state", ""], ["up", "n more"], ["act", ""]], "no worker is running", (cells, worker, isNew) => {
              cells.name.textContent = cells.name.title = worker.name;
              if (isNew) {
                cells.slots.append(make("span"), make("progress"));
                cells.act.append(button("Drain", () => this.drain(worker.name), "danger"));
              }
              const [text, bar] = cells.slots.children;
              text.textContent = `${count(worker.in_flight)} / ${count(worker.capacity)}`;
              bar.max = Math.max(1, worker.capacity);
              bar.value = worker.in_flight;
              cells.tokens.textContent = rate(worker.tokens_per_second);
              cells.jobs.textContent = rate(worker.jobs_per_second);
              cells.state.replaceChildren(tag(worker.draining ? "draining" : "working", worker.draining ? "warn" : ""));
              cells.up.textContent = span(Math.max(0, this.now - worker.started) * 1000);
              cells.act.firstChild.hidden = !this.mayAct || worker.draining;
            });
            this.jobs = new Rows("jobs", [["id", "name"], ["age", "n"], ["phase", ""], ["tokens", "n more"], ["model", "more"], ["worker", "more"], ["act", ""]], "no job is running", (cells, job, isNew) => {
              if (isNew) {
                cells.id.append(button(job.id, () => this.find(job.id)));
                cells.id.title = job.id;
                cells.act.append(button("Interrupt", () => this.interrupt(job.id), "danger"));
              }
              cells.age.textContent = span(job.age_ms * 1000);
              cells.phase.textContent = job.phase;
              cells.tokens.textContent = count(job.tokens);
              cells.model.textContent = job.model;
              cells.worker.textContent = job.worker;
              cells.act.firstChild.hidden = !this.mayAct;
            });
            this.gateways = new Rows("gateways", [["name", "name"], ["sockets", "n"], ["requests", "n"], ["state", ""], ["up", "n more"]], "no gateway is running", (cells, gateway) => {
              cells.name.textContent = cells.name.title = gateway.name;
              cells.sockets.textContent = count(gateway.sockets);
              cells.requests.textContent = count(gateway.in_flight);
              cells.state.replaceChildren(tag(gateway.draining ? "draining" : "working", gateway.draining ? "warn" : ""));
              cells.up.textContent = span(Math.max(0, this.now - gateway.started) * 1000);
            });
          }

          // MARK: acting

          confirm(question, verb) {
            const dialog = element("confirm");
            element("question").textContent = question;
            element("yes").textContent = verb;
            return new Promise(resolve => {
              // Not by the dialog's close event: it comes late, and would answer a question that is asked meanwhile.
              const answer = isYes => {
                dialog.close();
                resolve(isYes);
              };
              element("yes").onclick = () => answer(true);
              element("no").onclick = () => answer(false);
              dialog.oncancel = event => {
                event.preventDefault();
                answer(false);
              };
              dialog.showModal();
            });
          }

          async act(path, told) {
            try {
              this.toast(told(await this.ask(path, "POST")));
            } catch (error) {
              this.toast("That failed: " + error.message);
            }
            if (this.key) this.poll();
          }

          async pause(name, isPaused) {
            const question = isPaused ? `Pause ${name}? Workers take no more of its jobs; what runs goes on.` : `Resume ${name}?`;
            if (!await this.confirm(question, isPaused ? "Pause" : "Resume")) return;
            await this.act(`queues/${name}/${isPaused ? "pause" : "resume"}`, () => `${name} is ${isPaused ? "paused" : "resumed"}`);
          }

          async drain(name) {
            if (!await this.confirm(`Drain ${name}? It takes nothing new, and ends.`, "Drain")) return;
            await this.act(`workers/${encodeURIComponent(name)}/drain`, () => `${name} was asked to drain`);
          }

          async interrupt(id) {
            if (!await this.confirm(`Interrupt ${id}?`, "Interrupt")) return;
            await this.act(`jobs/${encodeURIComponent(id)}/interrupt`, answer => answer.status === "SUCCESS" ? `${id} is being interrupted` : `${id} is ${answer.state} already`);
            if (this.shown === id) setTimeout(() => this.find(id), 300);
          }

          toast(text) {
            const toast = element("toast");
            toast.textContent = text;
            toast.hidden = false;
            clearTimeout(this.toastTimer);
            this.toastTimer = setTimeout(() => toast.hidden = true, 5000);
          }

          // MARK: one job

          async find(id) {
            if (!id) return;
            this.shown = id;
            element("job").value = id;
            try {
              this.tell(await this.ask("jobs/" + encodeURIComponent(id)));
            } catch (error) {
              element("story").replaceChildren(make("p", { className: "empty" }, error.message));
            }
            element("search").scrollIntoView({ block: "nearest" });
          }

          tell(job) {
            const facts = make("dl");
            const fact = (name, value) => { if (value != null && value !== "") facts.append(make("dt", {}, name), make("dd", {}, String(value))); };
            for (const name of ["id", "state", "code", "reason", "model", "class", "owner", "session", "gateway", "worker", "upstream", "attempt", "crashes", "retry_of"]) fact(name.replace("_", " "), job[name]);
            if (job.usage) fact("usage", `${job.usage.prompt_tokens} + ${job.usage.completion_tokens} tokens${job.usage.estimated ? " (estimated)" : ""}`);
            if (job.interrupt) fact("interrupt", `asked for, ${job.interrupt.reason}`);
            let before = null;
            for (const [name, title] of [["submitted_ms", "submitted"], ["claimed_ms", "claimed"], ["dialled_ms", "dialled"], ["first_token_ms", "first token"], ["finished_ms", "ended"]]) {
              if (job[name] == null) continue;
              fact(title, new Date(job[name]).toISOString().replace("T", " ") + (before == null ? "" : `  (+${span((job[name] - before) * 1000)})`));
              before = job[name];
            }
            const steps = make("ol");
            for (const step of job.events) {
              const what = step.bytes > 0 ? `${count(step.count)} × ${step.type}, ${count(step.bytes)} bytes` : step.type;
              steps.append(make("li", {}, what + " ", make("span", {}, step.detail)));
            }
            const parts = [facts, steps];
            if (this.mayAct && !["finished", "interrupted", "failed"].includes(job.state)) {
              parts.push(make("div", {}, make("button", { type: "button", className: "danger", onclick: () => this.interrupt(job.id) }, "Interrupt this job")));
            }
            element("story").replaceChildren(...parts);
          }
        }

        new Dashboard();
        """#
}
