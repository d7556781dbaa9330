// A front end that speaks to Redis itself: submits jobs, follows them, resumes and interrupts. Node 20 or later, no packages.
//
// usage: node redis_client.mjs HOST PORT MODEL          for example: 127.0.0.1 6379 sim-n200-g10
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";

const terminal = new Set(["finished", "interrupted", "failed"]);
const tag = "{sluice.0}"; // {SLUICE_NAMESPACE.partition}: partition 0 holds every job of a deployment with SLUICE_PARTITIONS=1

// One connection: RESP2 in about forty lines.
class Redis {
  buffer = Buffer.alloc(0);
  replies = [];
  waiting = [];

  static async open(host, port) {
    const redis = new Redis();
    redis.socket = connect(port, host);
    await once(redis.socket, "connect");
    redis.socket.on("data", (data) => redis.receive(data));
    redis.socket.on("error", () => {});
    return redis;
  }

  receive(data) {
    this.buffer = Buffer.concat([this.buffer, data]);
    for (let parsed; (parsed = this.parse(0)); ) {
      this.buffer = this.buffer.subarray(parsed.end);
      const next = this.waiting.shift();
      if (next) next(parsed.value);
      else this.replies.push(parsed.value);
    }
  }

  // Returns undefined while the reply at `start` is not complete.
  parse(start) {
    const eol = this.buffer.indexOf("\r\n", start);
    if (eol < 0) return undefined;
    const kind = String.fromCharCode(this.buffer[start]);
    const rest = this.buffer.toString("utf8", start + 1, eol);
    let end = eol + 2;
    if (kind === "$") {
      if (rest === "-1") return { value: null, end };
      const stop = end + Number(rest);
      return this.buffer.length < stop + 2 ? undefined : { value: this.buffer.toString("utf8", end, stop), end: stop + 2 };
    }
    if (kind === "*") {
      const value = [];
      for (let index = 0; index < Number(rest); index += 1) {
        const element = this.parse(end);
        if (!element) return undefined;
        value.push(element.value);
        end = element.end;
      }
      return { value, end };
    }
    return { value: kind === ":" ? Number(rest) : kind === "-" ? new Error(rest) : rest, end };
  }

  // The next reply or message; undefined when none comes within `milliseconds`.
  read(milliseconds = 10_000) {
    if (this.replies.length > 0) return Promise.resolve(this.replies.shift());
    return new Promise((resolve) => {
      const take = (value) => {
        clearTimeout(timer);
        resolve(value);
      };
      const timer = setTimeout(() => {
        this.waiting = this.waiting.filter((other) => other !== take);
        resolve(undefined);
      }, milliseconds);
      this.waiting.push(take);
    });
  }

  async command(...parts) {
    const bulk = parts.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`);
    this.socket.write(`*${parts.length}\r\n${bulk.join("")}`);
    const reply = await this.read();
    if (reply === undefined) throw new Error(`no answer to ${parts[0]}`);
    if (reply instanceof Error) throw reply;
    return reply;
  }

  close() {
    this.socket.destroy();
  }
}

// Event ids compare by attempt, then by sequence.
const parts = (id) => id.split("-").map(Number);
const isAfter = (id, last) => {
  const [attempt, sequence] = parts(id);
  const [lastAttempt, lastSequence] = parts(last);
  return attempt > lastAttempt || (attempt === lastAttempt && sequence > lastSequence);
};

class FrontEnd {
  constructor(host, port, redis) {
    Object.assign(this, { host, port, redis });
  }

  static async open(host, port) {
    return new FrontEnd(host, port, await Redis.open(host, port));
  }

  submit(job, model, prompt) {
    const body = { id: job, request: { model, messages: [{ role: "user", content: prompt }] } };
    return this.redis.command("XADD", `${tag}:queue:interactive`, "*", "job", JSON.stringify(body));
  }

  // First the key, which survives a lost message, then the message, which is fast.
  async interrupt(job, reason = "USER_STOP") {
    const value = JSON.stringify({ id: job, reason });
    await this.redis.command("SET", `${tag}:interrupt:${job}`, value, "EX", "86400");
    await this.redis.command("PUBLISH", `${tag}:cancel`, value);
  }

  // A connection that is subscribed to the job's channel. Subscribe before submitting, so that nothing is missed.
  async listen(job) {
    const channel = await Redis.open(this.host, this.port);
    await channel.command("SUBSCRIBE", `${tag}:out:${job}`);
    return channel;
  }

  async log(job, after) {
    const entries = await this.redis.command("XRANGE", `${tag}:log:${job}`, after ? `(${after}` : "-", "+");
    return entries.map(([, fields]) => JSON.parse(fields[1]));
  }

  // Yields events in order, without gap or duplicate, from the first one or from the one that follows `after`.
  async *events(job, channel, after) {
    let last = after;
    let due = await this.log(job, after);
    for (;;) {
      for (const event of due) {
        // PUBLISH is not fenced: an older attempt may still publish. Drop what is not newer.
        if (last && !isAfter(event.id, last)) continue;
        last = event.id;
        yield event;
        if (terminal.has(event.type)) return;
      }
      // Pub/sub may lose a message. The log never does: look there after a second of silence and at every gap.
      const message = await channel.read(1_000);
      due = message ? JSON.parse(message[2]) : await this.log(job, last);
      if (!message) continue;
      const [attempt, sequence] = last ? parts(last) : [1, -1];
      if (due[0].id !== `${attempt}-${sequence + 1}`) due = await this.log(job, last);
    }
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

const [host, port, model] = process.argv.slice(2);
const frontEnd = await FrontEnd.open(host, Number(port));

// Submit and follow. The connection is given up after 40 characters, and the job is followed again behind the last event.
{
  const job = `example-${randomUUID()}`;
  const answer = new Answer();
  const first = await frontEnd.listen(job);
  await frontEnd.submit(job, model, "hello");
  for await (const event of frontEnd.events(job, first)) {
    answer.take(event);
    if (answer.text.length >= 40) break;
  }
  first.close();
  console.error("read", answer.text.length, "characters, resuming after", answer.last);
  const second = await frontEnd.listen(job);
  for await (const event of frontEnd.events(job, second, answer.last)) answer.take(event);
  second.close();
  console.log(`${answer.end.type}: ${answer.text.length} characters`);
}

// Interrupt in mid-stream. The terminal event says how the job ended.
{
  const job = `example-${randomUUID()}`;
  const answer = new Answer();
  const channel = await frontEnd.listen(job);
  await frontEnd.submit(job, model, "hello");
  let sent = false;
  for await (const event of frontEnd.events(job, channel)) {
    answer.take(event);
    if (event.type !== "text" || sent) continue;
    await frontEnd.interrupt(job);
    sent = true;
  }
  channel.close();
  console.log(`${answer.end.type}: ${answer.end.reason} while ${answer.end.phase}`);
}
frontEnd.redis.close();
