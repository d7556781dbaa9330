"use strict";

// The chat page's client: the WebSocket protocol, one question with its answer, and audio playback.

const element = id => document.getElementById(id);

const createElement = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

/** 96 random bits in hexadecimal. crypto.randomUUID exists only on secure origins, and a gateway on the local network is not one. */
const newIdentifier = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(12)), byte => byte.toString(16).padStart(2, "0")).join("");

const formatCount = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** @param time in milliseconds */
const formatDuration = time => time < 1000 ? `${Math.max(1, Math.round(time))} ms` : `${(time / 1000).toFixed(1)} s`;

/** Plays chunks of 16-bit mono PCM one after the other. */
class AudioPlayer {
  context = null;
  /** In Hz; stated by the first voice frame of an answer. */
  sampleRate = 16000;
  sources = new Set();
  /** When the last scheduled chunk ends, on the audio context's clock, in seconds. */
  endTime = 0;

  /** Browsers allow sound only after a user gesture, so this must be called from an event handler of one. */
  unlock() {
    this.context ??= new AudioContext();
    if (this.context.state === "suspended") this.context.resume();
  }

  /** @param sampleRate as stated by the frame; undefined: as before */
  play(base64, sampleRate) {
    this.sampleRate = sampleRate ?? this.sampleRate;
    if (!this.context) return;
    const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
    const sampleCount = bytes.length >> 1;
    if (sampleCount === 0) return;
    const view = new DataView(bytes.buffer);
    const buffer = this.context.createBuffer(1, sampleCount, this.sampleRate);
    const samples = buffer.getChannelData(0);
    for (let index = 0; index < sampleCount; index++) samples[index] = view.getInt16(index * 2, true) / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    source.onended = () => this.sources.delete(source);
    const startTime = Math.max(this.context.currentTime + 0.05, this.endTime);
    source.start(startTime);
    this.endTime = startTime + buffer.duration;
    this.sources.add(source);
  }

  stop() {
    for (const source of this.sources) source.stop();
    this.sources.clear();
    this.endTime = 0;
  }
}

/** One question and its answer. All text from the model is added as text nodes, never as markup. */
class Turn {
  constructor(question, id = newIdentifier()) {
    this.id = id;
    this.question = question;
    this.lastEventID = null;
    this.ended = false;
    this.sentAt = performance.now();
    this.firstTextAt = null;
    /** When the user stopped the answer. */
    this.stoppedAt = null;
    /** Milliseconds from the stop to the gateway's INTERRUPT_ACK. */
    this.acknowledgedAfter = null;
    this.node = createElement("li", "running");
    this.answer = createElement("div", "answer");
    this.text = document.createTextNode("");
    this.answer.append(this.text);
    this.receipt = createElement("p", "receipt plain");
    this.node.append(createElement("div", "question", question), this.answer, this.receipt);
  }

  /** The state to save for a reload. The gateway still has the answer of a turn that is running. */
  get savedState() {
    const { id, question, result } = this;
    if (!this.ended) return { id, question };
    const calls = [...this.node.querySelectorAll(".call")].map(call => call.textContent);
    return { id, question, result, calls, answer: this.text.data, reasoning: this.reasoning?.lastChild.textContent };
  }

  restore({ result, calls, answer, reasoning }) {
    if (!result) return;
    if (reasoning) this.appendReasoning(reasoning);
    this.text.data = answer;
    for (const call of calls) this.appendCall(call);
    this.end(...result);
  }

  /** Whether an event was already received, before the connection was lost. Event ids are `<attempt>-<sequence>`. */
  hasReceived(eventID) {
    if (!this.lastEventID) return false;
    const [attempt, sequence] = eventID.split("-").map(Number);
    const [lastAttempt, lastSequence] = this.lastEventID.split("-").map(Number);
    return attempt < lastAttempt || (attempt === lastAttempt && sequence <= lastSequence);
  }

  /** Applies the payload of a RESPONSE message. */
  receive(payload) {
    if (payload.event_id) {
      if (this.hasReceived(payload.event_id)) return;
      this.lastEventID = payload.event_id;
    }
    if (payload.restarted) this.clear();
    if (payload.reasoning) this.appendReasoning(payload.reasoning);
    const text = payload.content?.text;
    if (text) {
      this.firstTextAt ??= performance.now();
      this.text.appendData(this.text.length ? text : text.trimStart());
    }
    if (payload.function_call) {
      const call = payload.function_call;
      this.appendCall(`${call.name}(${JSON.stringify(call.parameters, null, 2)})`);
    }
    if (payload.finish_reason) this.finish(payload);
  }

  /** Another worker starts the answer again. */
  clear() {
    this.text.data = "";
    this.reasoning?.remove();
    this.reasoning = null;
    for (const call of this.node.querySelectorAll(".call")) call.remove();
  }

  appendReasoning(text) {
    if (!this.reasoning) {
      this.reasoning = createElement("details", "reasoning");
      this.reasoning.append(createElement("summary", "", "Reasoning"), createElement("p"));
      this.answer.before(this.reasoning);
    }
    this.reasoning.lastChild.append(text);
  }

  appendCall(text) {
    this.receipt.before(createElement("div", "call", text));
  }

  /** Applies the payload of the last RESPONSE message. */
  finish(payload) {
    const usage = payload.usage;
    const tokens = usage ? [`${usage.estimated ? "about " : ""}${formatCount(usage.completion_tokens, "token")} generated`] : [];
    if (!payload.interrupted) {
      const facts = [...tokens, formatDuration(performance.now() - this.sentAt)];
      if (this.firstTextAt) facts.push(`first text after ${formatDuration(this.firstTextAt - this.sentAt)}`);
      if (payload.finish_reason === "length") facts.unshift("truncated at the length limit");
      return this.end("plain", facts);
    }
    const facts = [`phase: ${payload.phase ?? "unknown"}`, ...tokens];
    if (payload.saved_tokens) facts.push(`${formatCount(payload.saved_tokens, "token")} saved`);
    if (this.stoppedAt) facts.push(`stopped in ${formatDuration(performance.now() - this.stoppedAt)}`);
    if (this.acknowledgedAfter) facts.push(`acknowledged in ${formatDuration(this.acknowledgedAfter)}`);
    this.end("stopped", facts, payload.interrupt_reason === "USER_NEW_INPUT" ? "Superseded" : "Stopped");
  }

  /** @param kind "plain", "stopped" or "failed" */
  end(kind, facts, title) {
    this.ended = true;
    this.result = [kind, facts, title];
    this.node.classList.remove("running");
    this.receipt.className = `receipt ${kind}`;
    this.receipt.replaceChildren(
      ...(title ? [createElement("b", "", title)] : []), ...facts.map(fact => createElement("span", "", fact)));
  }
}

/** The WebSocket connection: registers, answers heartbeats, and reconnects with its session after a loss. */
class Connection {
  /** @param handlers onReady(isResumed), onMessage(type, payload), onWaiting(text), onUnauthenticated() */
  constructor(handlers) {
    this.handlers = handlers;
    this.sessionID = null;
    this.attempts = 0;
  }

  open(key) {
    this.key = key;
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws/agent/stream`);
    this.socket = socket;
    this.isRegistered = false;
    socket.onopen = () => this.register();
    // Events of a socket that was replaced meanwhile are ignored.
    socket.onmessage = message => { if (socket === this.socket) this.receive(JSON.parse(message.data)); };
    socket.onclose = event => { if (socket === this.socket) this.reconnect(event); };
  }

  /** Closes the socket and forgets the session. */
  close() {
    const socket = this.socket;
    this.socket = null;
    this.isRegistered = false;
    this.sessionID = null;
    clearTimeout(this.timer);
    socket?.close();
  }

  register() {
    const payload = {
      auth: { type: "API_KEY", api_key: this.key || "anonymous" }, platform: "WEB", require_tts: false, enable_srs: false,
      function_calling: []
    };
    if (this.sessionID) payload.resume_session_id = this.sessionID;
    this.send("REGISTER", payload);
  }

  /** Returns false when there is no open socket. */
  send(type, payload) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify({
      version: "1.0", msg_type: type, session_id: this.sessionID ?? "", payload, timestamp: Date.now()
    }));
    return true;
  }

  receive({ msg_type: type, payload }) {
    switch (type) {
      case "REGISTER_ACK": {
        const isResumed = this.sessionID === payload.session_id;
        this.sessionID = payload.session_id;
        this.isRegistered = true;
        this.attempts = 0;
        return this.handlers.onReady(isResumed);
      }
      case "HEARTBEAT": return this.send("HEARTBEAT_REPLY", {});
      case "ERROR":
        if (!this.isRegistered) return this.registrationFailed(payload);
    }
    this.handlers.onMessage(type, payload);
  }

  registrationFailed(payload) {
    if (payload.error_code === "SESSION_INVALID" && this.sessionID) {
      // The session ended while there was no connection: start a new one at once.
      const key = this.key;
      this.close();
      return this.open(key);
    }
    if (payload.error_code === "AUTH_FAILED") {
      this.close();
      return this.handlers.onUnauthenticated();
    }
    this.handlers.onWaiting(payload.error_msg);
  }

  /** Opens a new socket after a jittered exponential back-off of at most 8 s, unless the key was rejected. */
  reconnect(event) {
    this.isRegistered = false;
    if (event.code === 4401 || event.code === 4403) {
      this.close();
      return this.handlers.onUnauthenticated();
    }
    const delay = Math.min(8000, 250 * 2 ** this.attempts++) * (0.5 + Math.random() / 2);
    this.handlers.onWaiting(this.attempts > 1 ? "no connection, retrying" : "reconnecting");
    this.timer = setTimeout(() => this.open(this.key), delay);
  }
}
