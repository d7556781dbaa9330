// A client of a Sluice gateway over HTTP: submits jobs, follows them, resumes and interrupts. Node 20 or later, no packages.
//
// usage: node http_client.mjs BASE_URL KEY MODEL        for example: http://127.0.0.1:8080 my-key sim-n200-g10
import { randomUUID } from "node:crypto";

const terminal = new Set(["finished", "interrupted", "failed"]);

class Client {
  constructor(base, key) {
    this.base = base;
    this.key = key;
  }

  async send(method, path, { body, headers = {}, signal } = {}) {
    const response = await fetch(this.base + path, {
      method,
      signal,
      headers: { authorization: `Bearer ${this.key}`, "content-type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response;
  }

  // Resolves to the job's id. The Idempotency-Key makes it safe to repeat the request when the answer is lost.
  async submit(model, prompt) {
    const body = { class: "interactive", request: { model, messages: [{ role: "user", content: prompt }] } };
    const response = await this.send("POST", "/v1/jobs", { body, headers: { "idempotency-key": randomUUID() } });
    return (await response.json()).id;
  }

  // Yields the job's events in order, from the first one or from the one that follows `after`.
  async *events(job, after) {
    const abort = new AbortController();
    const headers = after ? { "last-event-id": after } : {};
    const response = await this.send("GET", `/v1/jobs/${job}/events`, { headers, signal: abort.signal });
    if (response.status === 204) return; // The job has ended, and nothing follows `after`.
    try {
      let text = "";
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const data = block.split("\n").find((line) => line.startsWith("data:"));
          if (data) yield JSON.parse(data.slice(5));
        }
      }
    } finally {
      abort.abort();
    }
  }

  // Resolves to the state in which the job was found. Safe to repeat.
  async interrupt(job, reason = "USER_STOP") {
    return (await this.send("POST", `/v1/jobs/${job}/interrupt`, { body: { reason } })).json();
  }
}

// The text of a job, kept up to date by its events.
class Answer {
  text = "";
  last = undefined;
  end = undefined;

  take(event) {
    if (event.type === "text") this.text += event.text;
    else if (event.type === "restarted") this.text = "";
    else if (event.type === "resumed") this.text = Buffer.from(this.text).subarray(0, event.text_offset).toString();
    else if (terminal.has(event.type)) this.end = event;
    this.last = event.id;
  }
}

const [base, key, model] = process.argv.slice(2);
const client = new Client(base, key);

// Submit and follow. The connection is given up after 40 characters, and the stream is resumed behind the last event.
{
  const job = await client.submit(model, "hello");
  const answer = new Answer();
  for await (const event of client.events(job)) {
    answer.take(event);
    if (answer.text.length >= 40) break;
  }
  console.error("read", answer.text.length, "characters, resuming after", answer.last);
  while (!answer.end) for await (const event of client.events(job, answer.last)) answer.take(event);
  console.log(`${answer.end.type}: ${answer.text.length} characters`);
}

// Interrupt in mid-stream. The terminal event says how the job ended.
{
  const job = await client.submit(model, "hello");
  const answer = new Answer();
  let sent;
  for await (const event of client.events(job)) {
    answer.take(event);
    if (event.type === "text" && !sent) sent = await client.interrupt(job);
  }
  console.log(`${answer.end.type}: ${answer.end.reason} while ${answer.end.phase}, the request found it ${sent.state}`);
}
