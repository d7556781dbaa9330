/// The chat page's client: the WebSocket protocol, one question with its answer, and the voice.
enum ChatPageClient {
    static let text = #"""
        "use strict";
        const element = id => document.getElementById(id);
        const make = (tag, className, text) => {
          const node = document.createElement(tag);
          if (className) node.className = className;
          if (text !== undefined) node.textContent = text;
          return node;
        };
        // crypto.randomUUID is there on secure origins alone; a gateway on the local network is none.
        const newIdentifier = () =>
          Array.from(crypto.getRandomValues(new Uint8Array(12)), byte => byte.toString(16).padStart(2, "0")).join("");
        const plural = (count, noun) => `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
        const milliseconds = time => time < 1000 ? `${Math.max(1, Math.round(time))} ms` : `${(time / 1000).toFixed(1)} s`;

        /** Plays 16-bit mono PCM of 24 kHz, each piece where the last one ends. */
        class Voice {
          static rate = 24000;
          context = null;
          playing = new Set();
          end = 0;

          /** Browsers allow sound only after a gesture: to be called from one. */
          unlock() {
            this.context ??= new AudioContext({ sampleRate: Voice.rate });
            if (this.context.state === "suspended") this.context.resume();
          }

          play(base64) {
            if (!this.context) return;
            const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
            const count = bytes.length >> 1;
            if (count === 0) return;
            const view = new DataView(bytes.buffer);
            const buffer = this.context.createBuffer(1, count, Voice.rate);
            const samples = buffer.getChannelData(0);
            for (let index = 0; index < count; index++) samples[index] = view.getInt16(index * 2, true) / 32768;
            const source = this.context.createBufferSource();
            source.buffer = buffer;
            source.connect(this.context.destination);
            source.onended = () => this.playing.delete(source);
            const start = Math.max(this.context.currentTime + 0.05, this.end);
            source.start(start);
            this.end = start + buffer.duration;
            this.playing.add(source);
          }

          stop() {
            for (const source of this.playing) source.stop();
            this.playing.clear();
            this.end = 0;
          }
        }

        /** One question and its answer. */
        class Turn {
          constructor(question, id = newIdentifier()) {
            this.id = id;
            this.question = question;
            this.lastEventID = null;
            this.ended = false;
            this.sent = performance.now();
            this.stopped = null;
            this.acknowledged = null;
            this.node = make("li", "running");
            this.answer = make("div", "answer");
            this.text = document.createTextNode("");
            this.answer.append(this.text);
            this.receipt = make("p", "receipt plain");
            this.node.append(make("div", "question", question), this.answer, this.receipt);
          }

          /** What a reload keeps of it: of one that runs the gateway has the rest. */
          get kept() {
            const { id, question, ending } = this;
            if (!this.ended) return { id, question };
            const calls = [...this.node.querySelectorAll(".call")].map(call => call.textContent);
            return { id, question, ending, calls, answer: this.text.data, thoughts: this.thoughts?.lastChild.textContent };
          }

          restore({ ending, calls, answer, thoughts }) {
            if (!ending) return;
            if (thoughts) this.think(thoughts);
            this.text.data = answer;
            for (const call of calls) this.receipt.before(make("div", "call", call));
            this.end(...ending);
          }

          /** Whether a frame is one that was here before a break of the connection. */
          knows(eventID) {
            const [attempt, sequence] = eventID.split("-").map(Number);
            const [lastAttempt, lastSequence] = this.lastEventID.split("-").map(Number);
            return attempt < lastAttempt || (attempt === lastAttempt && sequence <= lastSequence);
          }

          take(payload) {
            if (payload.event_id) {
              if (this.lastEventID && this.knows(payload.event_id)) return;
              this.lastEventID = payload.event_id;
            }
            if (payload.restarted) this.restart();
            if (payload.reasoning) this.think(payload.reasoning);
            const text = payload.content?.text;
            if (text) {
              this.first ??= performance.now();
              this.text.appendData(this.text.length ? text : text.trimStart());
            }
            if (payload.function_call) {
              const call = payload.function_call;
              this.receipt.before(make("div", "call", `${call.name}(${JSON.stringify(call.parameters, null, 2)})`));
            }
            if (payload.finish_reason) this.finish(payload);
          }

          restart() {
            this.text.data = "";
            this.thoughts?.remove();
            this.thoughts = null;
            for (const call of this.node.querySelectorAll(".call")) call.remove();
          }

          think(text) {
            if (!this.thoughts) {
              this.thoughts = make("details", "thinking");
              this.thoughts.append(make("summary", "", "Thinking"), make("p"));
              this.answer.before(this.thoughts);
            }
            this.thoughts.lastChild.append(text);
          }

          finish(payload) {
            const tokens = payload.usage && [
              `${payload.usage.estimated ? "about " : ""}${plural(payload.usage.completion_tokens, "token")} generated`
            ];
            if (!payload.interrupted) {
              const facts = [...(tokens ?? []), `${milliseconds(performance.now() - this.sent)}`];
              if (this.first) facts.push(`first word after ${milliseconds(this.first - this.sent)}`);
              if (payload.finish_reason === "length") facts.unshift("cut at the length limit");
              return this.end("plain", facts);
            }
            const facts = [`phase: ${payload.phase ?? "unknown"}`, ...(tokens ?? [])];
            if (payload.saved_tokens) facts.push(`${plural(payload.saved_tokens, "token")} saved`);
            if (this.stopped) facts.push(`stopped in ${milliseconds(performance.now() - this.stopped)}`);
            if (this.acknowledged) facts.push(`acknowledged in ${milliseconds(this.acknowledged)}`);
            const title = payload.interrupt_reason === "USER_NEW_INPUT" ? "Superseded" : "Stopped";
            this.end("stopped", facts, title);
          }

          end(kind, facts, title) {
            this.ended = true;
            this.ending = [kind, facts, title];
            this.node.classList.remove("running");
            this.receipt.className = `receipt ${kind}`;
            this.receipt.replaceChildren(...(title ? [make("b", "", title)] : []), ...facts.map(fact => make("span", "", fact)));
          }
        }

        /** The socket: registers, beats, comes back after a break with its session. */
        class Connection {
          constructor(handlers) {
            this.handlers = handlers;
            this.sessionID = null;
            this.tries = 0;
          }

          open(key) {
            this.key = key;
            clearTimeout(this.timer);
            const scheme = location.protocol === "https:" ? "wss:" : "ws:";
            const socket = new WebSocket(`${scheme}//${location.host}/ws/agent/stream`);
            this.socket = socket;
            this.registered = false;
            socket.onopen = () => this.register();
            socket.onmessage = message => { if (socket === this.socket) this.receive(JSON.parse(message.data)); };
            socket.onclose = event => { if (socket === this.socket) this.closed(event); };
          }

          close() {
            const socket = this.socket;
            this.socket = null;
            this.registered = false;
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
                const resumed = this.sessionID === payload.session_id;
                this.sessionID = payload.session_id;
                this.registered = true;
                this.tries = 0;
                return this.handlers.ready(resumed);
              }
              case "HEARTBEAT": return this.send("HEARTBEAT_REPLY", {});
              case "ERROR":
                if (!this.registered) return this.refused(payload);
            }
            this.handlers.message(type, payload);
          }

          refused(payload) {
            if (payload.error_code === "SESSION_INVALID" && this.sessionID) {
              // The session ended meanwhile: a new one, at once.
              this.sessionID = null;
              this.socket.onclose = null;
              this.socket.close();
              return this.open(this.key);
            }
            if (payload.error_code === "AUTH_FAILED") {
              this.close();
              return this.handlers.unauthenticated();
            }
            this.handlers.waiting(payload.error_msg);
          }

          closed(event) {
            this.registered = false;
            if (event.code === 4401 || event.code === 4403) {
              this.close();
              return this.handlers.unauthenticated();
            }
            const wait = Math.min(8000, 250 * 2 ** this.tries++) * (0.5 + Math.random() / 2);
            this.handlers.waiting(this.tries > 1 ? "no connection, trying again" : "reconnecting");
            this.timer = setTimeout(() => this.open(this.key), wait);
          }
        }
        """#
}
