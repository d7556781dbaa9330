"use strict";

// The chat page's client: the WebSocket protocol, and one question with its answer.

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

/** One question and its answer. All text from the model is added as text nodes, never as markup. */
class Turn {
  /** @param isVoice whether the question is spoken; its text then comes with the transcript */
  constructor(question, { id = newIdentifier(), isVoice = false } = {}) {
    this.id = id;
    this.question = question;
    this.isVoice = isVoice;
    /** Whether the question is still being spoken. */
    this.isUploading = false;
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
    this.questionNode = createElement("div", "question", question);
    if (isVoice && !question) this.showInsteadOfQuestion("Listening", "pending");
    this.node.append(this.questionNode, this.answer, this.receipt);
  }

  /** Shows a state of a spoken question whose words are not known. */
  showInsteadOfQuestion(text, state) {
    this.questionNode.textContent = text;
    this.questionNode.className = `question ${state}`;
  }

  setQuestion(text) {
    this.question = text;
    this.showInsteadOfQuestion(text, "");
  }

  /** The spoken question was sent completely. */
  uploaded() {
    this.isUploading = false;
    this.sentAt = performance.now();
    this.showInsteadOfQuestion("Recognizing", "pending");
  }

  /** The state to save for a reload. The gateway still has the answer of a turn that is running. */
  get savedState() {
    const { id, question, isVoice, result } = this;
    if (!this.ended) return { id, question, isVoice };
    const calls = [...this.node.querySelectorAll(".call")].map(call => call.textContent);
    return { id, question, isVoice, result, calls, answer: this.text.data, reasoning: this.reasoning?.lastChild.textContent };
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
    if (payload.transcript) this.setQuestion(payload.transcript);
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
    if (payload.finish_reason === "no_speech") return this.end("plain", []);
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
    this.isUploading = false;
    if (this.isVoice && !this.question) this.showInsteadOfQuestion(kind === "plain" ? "Nothing was heard" : "Voice message", "unknown");
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
      auth: { type: "API_KEY", api_key: this.key || "anonymous" }, platform: "WEB", require_tts: false, enable_srs: true,
      function_calling: [], voice_sample_rate: AudioPlayer.preferredRate
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

  /** Sends audio of the open VOICE request. */
  sendAudio(samples) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(samples);
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

/** The form that asks for an API key, which is kept for this tab. */
class SignIn {
  static keyItem = "sluice-key";

  /** @param onKey(key) the visitor has given a key */
  constructor(onKey) {
    element("sign-in").onsubmit = event => {
      event.preventDefault();
      const key = element("key").value.trim();
      element("key").value = "";
      if (!key) return;
      sessionStorage.setItem(SignIn.keyItem, key);
      onKey(key);
    };
  }

  get key() { return sessionStorage.getItem(SignIn.keyItem); }

  /** Forgets the key and asks for another one. */
  show(error) {
    sessionStorage.removeItem(SignIn.keyItem);
    this.replaceComposer(true);
    element("sign-in-error").textContent = error;
    element("key").focus();
  }

  hide() { this.replaceComposer(false); }

  replaceComposer(isShown) {
    element("sign-in").hidden = !isShown;
    element("suggestions").hidden = isShown;
    element("composer").hidden = isShown;
  }
}

/** Fills the list of models that the model field offers. */
async function loadModels(key) {
  try {
    const answer = await fetch("/v1/models", { headers: { authorization: `Bearer ${key || "anonymous"}` } });
    if (!answer.ok) return;
    const options = (await answer.json()).data.map(({ id }) => {
      const option = createElement("option");
      option.value = id;
      return option;
    });
    element("models").replaceChildren(...options);
  } catch {
    // The list is only a convenience: a model's name can be typed.
  }
}
