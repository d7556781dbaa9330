"use strict";

/** The dashboard. Names and ids are added to the page as text, never as markup. The key is kept in this tab only. */
class Dashboard {
  static keyItem = "sluice-operator-key";
  /** Time between snapshots, in milliseconds. */
  static pollInterval = 1000;
  static hiddenPollInterval = 10000;
  static usageInterval = 15000;
  static redisInterval = 5000;
  static outcomes = ["finished", "interrupted", "failed"];

  constructor() {
    this.key = sessionStorage.getItem(Dashboard.keyItem);
    this.charts = {
      tokens: new Chart("Tokens/s", ["relayed"]),
      depth: new Chart("Waiting jobs", ["interactive", "standard", "batch"], { format: formatCount }),
      latency: new Chart("Interrupt → closed", ["p50", "p99"], { format: formatDuration, colours: [0, 3] }),
      outcomes: new Chart("Ended jobs/s", Dashboard.outcomes, { stacked: true, colours: [0, 1, 3] })
    };
    element("charts").append(...Object.values(this.charts).map(chart => chart.node));
    this.figures = {};
    for (const [name, title] of [
      ["tokens", "Tokens/s"], ["jobs", "Jobs/s"], ["slots", "Slots in use"], ["waiting", "Waiting"], ["failed", "Failed since start"],
      ["dead", "Dead letters"]
    ]) {
      const value = createElement("dd", {}, "–");
      const node = createElement("dl", { className: "figure" }, createElement("dt", {}, title), value);
      this.figures[name] = { node, value };
      element("figures").append(node);
    }
    createTables(this);
    this.addEventHandlers();
    if (this.key) this.signIn(this.key); else this.signOut("");
  }

  addEventHandlers() {
    element("sign-in").onsubmit = event => {
      event.preventDefault();
      this.signIn(element("key").value.trim());
    };
    element("sign-out").onclick = () => this.signOut("");
    element("search").onsubmit = event => {
      event.preventDefault();
      this.showJob(element("job").value.trim());
    };
    document.addEventListener("visibilitychange", () => { if (!document.hidden && this.key) this.poll(); });
  }

  get isAdmin() { return this.role === "admin"; }

  // MARK: the key

  signIn(key) {
    this.key = key;
    element("sign-in").hidden = true;
    this.setStatus("waiting", "connecting");
    this.poll();
  }

  signOut(error) {
    this.key = null;
    this.role = null;
    this.usageTime = this.redisTime = null;
    clearTimeout(this.pollTimer);
    sessionStorage.removeItem(Dashboard.keyItem);
    for (const id of ["main", "role", "sign-out"]) element(id).hidden = true;
    element("sign-in").hidden = false;
    element("key").value = "";
    element("sign-in-error").textContent = error;
    element("key").focus();
    this.setStatus("waiting", "not signed in");
  }

  setStatus(state, text) {
    element("status").dataset.state = state;
    element("status").textContent = text;
  }

  // MARK: requests

  async request(path, method = "GET") {
    const key = this.key;
    const answer = await fetch("/dashboard/" + path, {
      method, headers: { authorization: "Bearer " + key }, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(8000)
    });
    const body = await answer.json();
    if (answer.status === 401 && key === this.key) this.signOut("This key is not valid.");
    if (!answer.ok) throw new Error(body.error?.message ?? `status ${answer.status}`);
    return body;
  }

  async poll() {
    clearTimeout(this.pollTimer);
    // The answer of an older poll is ignored.
    const number = this.pollNumber = (this.pollNumber ?? 0) + 1;
    try {
      const { role, snapshot } = await this.request("snapshot");
      if (number !== this.pollNumber || !this.key) return;
      sessionStorage.setItem(Dashboard.keyItem, this.key);
      this.role = role;
      this.failingSince = null;
      this.show(snapshot);
      await Promise.all([this.updateUsage(), this.updateRedis()]);
      if (number !== this.pollNumber || !this.key) return;
      const nodes = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
      const time = new Date(snapshot.time_ms).toLocaleTimeString("en-GB");
      this.setStatus("live", `${nodes(snapshot.workers.length, "worker")}, ${nodes(snapshot.gateways.length, "gateway")} · ${time}`);
    } catch (error) {
      if (number !== this.pollNumber || !this.key) return;
      this.failingSince ??= new Date();
      this.setStatus("failed", `no update since ${this.failingSince.toLocaleTimeString("en-GB")}: ${error.message}`);
    }
    this.pollTimer = setTimeout(() => this.poll(), document.hidden ? Dashboard.hiddenPollInterval : Dashboard.pollInterval);
  }

  // MARK: the snapshot

  show(snapshot) {
    for (const id of ["main", "sign-out"]) element(id).hidden = false;
    element("role").hidden = this.isAdmin;
    element("role").textContent = "read only";
    this.updateCharts(snapshot);
    this.updateFigures(snapshot);
    this.now = snapshot.time_ms;
    this.queues.show(snapshot.queues, queue => queue.class);
    const titles = { queue_wait: "Queue wait", first_token: "First token", interrupt_close: "Interrupt to closed" };
    const latencies = Object.entries(snapshot.latencies).map(([key, value]) => ({ name: titles[key] ?? key, ...value }));
    this.latencies.show(latencies, latency => latency.name);
    this.workers.show(snapshot.workers, worker => worker.name);
    this.jobs.show(snapshot.slowest, job => job.id);
    this.gateways.show(snapshot.gateways, gateway => gateway.name);
    this.unread = [
      snapshot.unread_partitions > 0 && `the figures lack ${formatCount(snapshot.unread_partitions)} partitions`,
      !snapshot.nodes_known && "workers and gateways are unknown"
    ].filter(Boolean);
  }

  /** Reads the usage of today and yesterday, less often than snapshots. */
  async updateUsage() {
    if (Date.now() - (this.usageTime ?? 0) < Dashboard.usageInterval) return;
    this.usageTime = Date.now();
    const usage = await this.request("usage");
    const further = usage.further_tenants > 0 ? `, and ${formatCount(usage.further_tenants)} further tenants` : "";
    element("usage-days").textContent = `${usage.today} and ${usage.yesterday}, UTC${further}`;
    this.usage.show(usage.tenants, tenant => tenant.tenant);
  }

  /** Reads the topology of Redis, less often than snapshots. */
  async updateRedis() {
    if (Date.now() - (this.redisTime ?? 0) < Dashboard.redisInterval) return;
    this.redisTime = Date.now();
    const redis = await this.request("redis");
    const uncovered = redis.uncovered_slots > 0 && `${formatCount(redis.uncovered_slots)} slots are served by no server`;
    element("redis-note").textContent = [redis.kind, ...this.unread, uncovered].filter(Boolean).join("; ");
    this.redis.show(redis.shards, shard => shard.primary);
  }

  updateFigures(snapshot) {
    const total = name => snapshot.queues.reduce((sum, queue) => sum + queue[name], 0);
    const [running, waiting] = [total("running"), total("waiting")];
    const slots = snapshot.workers.reduce((sum, worker) => sum + worker.capacity, 0);
    const { finished, interrupted, failed } = snapshot.totals;
    const failedShare = failed / Math.max(1, finished + interrupted + failed);
    this.setFigure("tokens", formatRate(snapshot.rates.tokens_per_second));
    this.setFigure("jobs", formatRate(snapshot.rates.jobs_per_second));
    this.setFigure("slots", formatCount(running), `of ${formatCount(slots)}`, running >= slots && waiting > 0 ? "warning" : "");
    this.setFigure("waiting", formatCount(waiting), "", snapshot.workers.length === 0 && waiting > 0 ? "error" : "");
    this.setFigure("failed", formatCount(failed), failed ? `${(failedShare * 100).toFixed(1)} %` : "", failedShare > .05 ? "error" : "");
    this.setFigure("dead", formatCount(snapshot.dead), "", snapshot.dead > 0 ? "warning" : "");
  }

  setFigure(name, text, detail = "", state = "") {
    const { node, value } = this.figures[name];
    node.dataset.state = state;
    value.replaceChildren(text + " ", createElement("small", {}, detail));
  }

  updateCharts(snapshot) {
    const time = snapshot.time_ms;
    this.charts.tokens.add(time, [snapshot.rates.tokens_per_second]);
    this.charts.depth.add(time, snapshot.queues.map(queue => queue.waiting));
    const closed = snapshot.latencies.interrupt_close;
    this.charts.latency.add(time, [closed.p50_us, closed.p99_us]);
    const previous = this.previousSnapshot;
    const seconds = previous ? (time - previous.time_ms) / 1000 : 0;
    if (seconds > 0) {
      // The totals drop when a worker ends, because its counts end with it.
      const rates = Dashboard.outcomes.map(name => Math.max(0, snapshot.totals[name] - previous.totals[name]) / seconds);
      this.charts.outcomes.add(time, rates);
    }
    if (!previous || seconds > 0) this.previousSnapshot = snapshot;
  }

  // MARK: actions

  /** Resolves to whether the operator pressed the button with this title. */
  confirm(question, title) {
    const dialog = element("confirm");
    element("question").textContent = question;
    element("confirm-yes").textContent = title;
    return new Promise(resolve => {
      // The dialog's close event is not used: it is dispatched late and could answer the next question.
      const answer = isConfirmed => {
        dialog.close();
        resolve(isConfirmed);
      };
      element("confirm-yes").onclick = () => answer(true);
      element("confirm-no").onclick = () => answer(false);
      dialog.oncancel = event => {
        event.preventDefault();
        answer(false);
      };
      dialog.showModal();
    });
  }

  /** @param describe the message for the answer */
  async perform(path, describe) {
    try {
      this.showToast(describe(await this.request(path, "POST")));
    } catch (error) {
      this.showToast("Failed: " + error.message);
    }
    if (this.key) this.poll();
  }

  async setPaused(queue, isPaused) {
    const question = isPaused
      ? `Pause the ${queue} queue? Workers start no more of its jobs. Running jobs continue.` : `Resume the ${queue} queue?`;
    if (!await this.confirm(question, isPaused ? "Pause" : "Resume")) return;
    await this.perform(`queues/${queue}/${isPaused ? "pause" : "resume"}`, () => `${queue} is ${isPaused ? "paused" : "resumed"}`);
  }

  async drain(worker) {
    if (!await this.confirm(`Drain ${worker}? It starts no more jobs and then ends.`, "Drain")) return;
    await this.perform(`workers/${encodeURIComponent(worker)}/drain`, () => `${worker} was asked to drain`);
  }

  async interrupt(id) {
    if (!await this.confirm(`Interrupt ${id}?`, "Interrupt")) return;
    await this.perform(`jobs/${encodeURIComponent(id)}/interrupt`, answer =>
      answer.status === "SUCCESS" ? `${id} is being interrupted` : `${id} is already ${answer.state}`);
    if (this.shownJob === id) setTimeout(() => this.showJob(id), 300);
  }

  showToast(text) {
    const toast = element("toast");
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => toast.hidden = true, 5000);
  }

  // MARK: one job

  async showJob(id) {
    if (!id) return;
    this.shownJob = id;
    element("job").value = id;
    try {
      const job = await this.request("jobs/" + encodeURIComponent(id));
      element("job-details").replaceChildren(...this.jobDetails(job));
    } catch (error) {
      element("job-details").replaceChildren(createElement("p", { className: "empty" }, error.message));
    }
    element("search").scrollIntoView({ block: "nearest" });
  }

  jobDetails(job) {
    const facts = createElement("dl");
    const addFact = (name, value) => {
      if (value != null && value !== "") facts.append(createElement("dt", {}, name), createElement("dd", {}, String(value)));
    };
    for (const name of [
      "id", "state", "code", "reason", "model", "class", "owner", "session", "gateway", "worker", "upstream", "attempt", "crashes",
      "retry_of"
    ]) addFact(name.replace("_", " "), job[name]);
    if (job.usage) {
      const estimated = job.usage.estimated ? " (estimated)" : "";
      addFact("usage", `${job.usage.prompt_tokens} + ${job.usage.completion_tokens} tokens${estimated}`);
    }
    if (job.interrupt) addFact("interrupt", `requested, ${job.interrupt.reason}`);
    let previous = null;
    for (const [name, title] of [
      ["submitted_ms", "submitted"], ["claimed_ms", "claimed"], ["dialled_ms", "dialled"], ["first_token_ms", "first token"],
      ["finished_ms", "ended"]
    ]) {
      const time = job[name];
      if (time == null) continue;
      const elapsed = previous == null ? "" : `  (+${formatDuration((time - previous) * 1000)})`;
      addFact(title, new Date(time).toISOString().replace("T", " ") + elapsed);
      previous = time;
    }
    const events = createElement("ol");
    for (const event of job.events) {
      const text = event.bytes > 0 ? `${formatCount(event.count)} × ${event.type}, ${formatCount(event.bytes)} bytes` : event.type;
      events.append(createElement("li", {}, text + " ", createElement("span", {}, event.detail)));
    }
    if (!this.isAdmin || Dashboard.outcomes.includes(job.state)) return [facts, events];
    const properties = { type: "button", className: "danger", onclick: () => this.interrupt(job.id) };
    return [facts, events, createElement("div", {}, createElement("button", properties, "Interrupt this job"))];
  }
}

new Dashboard();
