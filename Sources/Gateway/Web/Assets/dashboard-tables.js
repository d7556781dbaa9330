"use strict";

/** Creates the tables of the dashboard, as properties that `Rows.show` fills. */
function createTables(dashboard) {
  const tag = (text, isWarning) => createElement("span", { className: "tag", state: isWarning ? "warning" : "" }, text);
  const button = (title, action, className = "") => createElement("button", { type: "button", className, onclick: action }, title);
  const uptime = node => formatDuration(Math.max(0, dashboard.now - node.started) * 1000);

  const queueColumns = [["name", ""], ["waiting", "n"], ["running", "n"], ["oldest", "n"], ["state", ""], ["action", ""]];
  dashboard.queues = new Rows("queues", queueColumns, "", (cells, queue, isNew) => {
    cells.name.textContent = queue.class;
    cells.waiting.textContent = formatCount(queue.waiting);
    cells.running.textContent = formatCount(queue.running);
    cells.oldest.textContent = queue.oldest_wait_ms == null ? "–" : formatDuration(queue.oldest_wait_ms * 1000);
    cells.state.replaceChildren(tag(queue.paused ? "paused" : "open", queue.paused));
    if (isNew) cells.action.append(button("", () => dashboard.setPaused(queue.class, cells.action.firstChild.dataset.paused !== "true")));
    const action = cells.action.firstChild;
    action.dataset.paused = queue.paused;
    action.textContent = queue.paused ? "Resume" : "Pause";
    action.hidden = !dashboard.isAdmin;
  });

  const latencyColumns = [["name", ""], ["p50", "n"], ["p90", "n more"], ["p99", "n"], ["count", "n"]];
  dashboard.latencies = new Rows("latencies", latencyColumns, "", (cells, latency) => {
    cells.name.textContent = latency.name;
    for (const percentile of ["p50", "p90", "p99"]) cells[percentile].textContent = formatDuration(latency[percentile + "_us"]);
    cells.count.textContent = formatCount(latency.count);
  });

  const workerColumns = [
    ["name", "name"], ["slots", ""], ["tokens", "n"], ["jobs", "n more"], ["state", ""], ["up", "n more"], ["action", ""]
  ];
  dashboard.workers = new Rows("workers", workerColumns, "no worker is running", (cells, worker, isNew) => {
    cells.name.textContent = cells.name.title = worker.name;
    if (isNew) {
      cells.slots.append(createElement("span"), createElement("progress"));
      cells.action.append(button("Drain", () => dashboard.drain(worker.name), "danger"));
    }
    const [text, bar] = cells.slots.children;
    text.textContent = `${formatCount(worker.in_flight)} / ${formatCount(worker.capacity)}`;
    bar.max = Math.max(1, worker.capacity);
    bar.value = worker.in_flight;
    cells.tokens.textContent = formatRate(worker.tokens_per_second);
    cells.jobs.textContent = formatRate(worker.jobs_per_second);
    cells.state.replaceChildren(tag(worker.draining ? "draining" : "working", worker.draining));
    cells.up.textContent = uptime(worker);
    cells.action.firstChild.hidden = !dashboard.isAdmin || worker.draining;
  });

  const jobColumns = [
    ["id", "name"], ["age", "n"], ["phase", ""], ["tokens", "n more"], ["model", "more"], ["worker", "more"], ["action", ""]
  ];
  dashboard.jobs = new Rows("jobs", jobColumns, "no job is running", (cells, job, isNew) => {
    if (isNew) {
      cells.id.append(button(job.id, () => dashboard.showJob(job.id)));
      cells.id.title = job.id;
      cells.action.append(button("Interrupt", () => dashboard.interrupt(job.id), "danger"));
    }
    cells.age.textContent = formatDuration(job.age_ms * 1000);
    cells.phase.textContent = job.phase;
    cells.tokens.textContent = formatCount(job.tokens);
    cells.model.textContent = job.model;
    cells.worker.textContent = job.worker;
    cells.action.firstChild.hidden = !dashboard.isAdmin;
  });

  const usageColumns = [
    ["tenant", "name"], ["jobs", "n"], ["interrupted", "n more"], ["tokens", "n"], ["estimated", "n more"], ["saved", "n more"],
    ["yesterday", "n"]
  ];
  dashboard.usage = new Rows("usage", usageColumns, "no job has ended today or yesterday", (cells, { tenant, today, yesterday }) => {
    cells.tenant.textContent = cells.tenant.title = tenant || "(no tenant)";
    cells.jobs.textContent = formatCount(today.jobs);
    cells.interrupted.textContent = formatCount(today.interrupted);
    cells.tokens.textContent = formatCount(today.tokens);
    cells.estimated.textContent = formatCount(today.estimated_tokens);
    cells.saved.textContent = formatCount(today.saved_tokens);
    cells.yesterday.textContent = formatCount(yesterday.tokens);
  });

  const redisColumns = [
    ["primary", "name"], ["state", ""], ["version", "more"], ["partitions", "n"], ["slots", "n more"], ["replicas", ""], ["lag", "n"]
  ];
  dashboard.redis = new Rows("redis", redisColumns, "no server is known", (cells, shard) => {
    const state = !shard.reachable ? "unreachable" : shard.role === "master" ? "primary" : "replica";
    cells.primary.textContent = cells.primary.title = shard.primary;
    cells.state.replaceChildren(tag(state, state !== "primary"));
    cells.version.textContent = shard.version || "–";
    cells.partitions.textContent = formatCount(shard.partitions.length);
    cells.slots.textContent = shard.slots.length ? formatCount(shard.slots.reduce((sum, [first, last]) => sum + last - first + 1, 0)) : "–";
    cells.replicas.textContent = shard.replicas.map(replica => replica.address).join(", ") || "–";
    const lags = shard.replicas.map(replica => replica.state === "online" ? formatCount(replica.lag_bytes) + " B" : replica.state);
    cells.lag.textContent = lags.join(", ") || "–";
  });

  const gatewayColumns = [["name", "name"], ["sockets", "n"], ["requests", "n"], ["state", ""], ["up", "n more"]];
  dashboard.gateways = new Rows("gateways", gatewayColumns, "no gateway is running", (cells, gateway) => {
    cells.name.textContent = cells.name.title = gateway.name;
    cells.sockets.textContent = formatCount(gateway.sockets);
    cells.requests.textContent = formatCount(gateway.in_flight);
    cells.state.replaceChildren(tag(gateway.draining ? "draining" : "working", gateway.draining));
    cells.up.textContent = uptime(gateway);
  });
}
