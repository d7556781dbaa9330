/// What the chat page does: the client's side of the WebSocket protocol. Whatever a model says gets into the page as text, never as markup.
enum ChatPageScript {
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
          constructor(question) {
            this.id = newIdentifier();
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
              this.text.appendData(text);
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
            if (this.stopped) facts.push(`stopped in ${milliseconds(performance.now() - this.stopped)}`);
            if (this.acknowledged) facts.push(`acknowledged in ${milliseconds(this.acknowledged)}`);
            const title = payload.interrupt_reason === "USER_NEW_INPUT" ? "Superseded" : "Stopped";
            this.end("stopped", facts, title);
          }

          end(kind, facts, title) {
            this.ended = true;
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

        /** The page. */
        class Chat {
          constructor() {
            this.asksForKey = document.body.dataset.asksForKey === "true";
            this.voice = new Voice();
            this.turns = new Map();
            this.unsent = [];
            this.connection = new Connection({
              ready: resumed => this.ready(resumed), message: (type, payload) => this.message(type, payload),
              waiting: why => this.show("waiting", why), unauthenticated: () => this.askForKey("This key is not known here.")
            });
            this.bind();
            const key = sessionStorage.getItem("sluice-key");
            if (this.asksForKey && !key) this.askForKey(""); else this.enter(key ?? "");
          }

          get running() { return [...this.turns.values()].filter(turn => !turn.ended); }

          bind() {
            const text = element("text");
            element("composer").onsubmit = event => {
              event.preventDefault();
              const words = text.value.trim();
              if (words) this.ask(words); else if (this.running.length) this.stop();
            };
            text.oninput = () => this.refresh();
            text.onkeydown = event => {
              // A telephone's return key makes a line; there the button sends.
              const hasKeyboard = matchMedia("(hover: hover)").matches;
              if (event.key === "Enter" && !event.shiftKey && !event.isComposing && hasKeyboard) {
                event.preventDefault();
                if (text.value.trim()) element("composer").requestSubmit();
              }
            };
            document.onkeydown = event => {
              if (event.key === "Escape" && !event.isComposing) {
                if (element("settings").open) element("settings").open = false; else this.stop();
              }
            };
            document.onclick = event => {
              if (!element("settings").contains(event.target)) element("settings").open = false;
            };
            element("gate").onsubmit = event => {
              event.preventDefault();
              const key = element("key").value.trim();
              element("key").value = "";
              if (!key) return;
              sessionStorage.setItem("sluice-key", key);
              this.enter(key);
            };
            element("speak").onchange = event => event.target.checked ? this.voice.unlock() : this.voice.stop();
            element("forget").onclick = () => {
              sessionStorage.removeItem("sluice-key");
              this.renew();
              this.connection.close();
              this.askForKey("");
            };
            element("renew").onclick = () => {
              this.renew();
              const key = this.connection.key;
              this.connection.close();
              this.enter(key);
            };
            for (const words of ["How does an interrupt reach the model?", "Tell me a long story", "Explain tides to a child"]) {
              const button = make("button", "", words);
              button.type = "button";
              button.onclick = () => this.ask(words);
              element("suggestions").append(button);
            }
          }

          /** The conversation is forgotten, and what runs of it is stopped. */
          renew() {
            this.stop();
            this.connection.send("SHUTDOWN", { reason: "USER_STOP" });
            this.turns.clear();
            this.unsent = [];
            element("turns").replaceChildren();
            element("welcome").hidden = false;
            element("settings").open = false;
            this.refresh();
          }

          enter(key) {
            element("gate").hidden = true;
            element("composer").hidden = false;
            element("forget").hidden = !this.asksForKey;
            this.show("waiting", "connecting");
            this.connection.open(key);
            this.loadModels(key);
          }

          askForKey(why) {
            sessionStorage.removeItem("sluice-key");
            element("gate").hidden = false;
            element("composer").hidden = true;
            element("forget").hidden = true;
            element("gate-error").textContent = why;
            this.show("broken", "not signed in");
            element("key").focus();
          }

          async loadModels(key) {
            try {
              const answer = await fetch("/v1/models", { headers: { authorization: `Bearer ${key || "anonymous"}` } });
              if (!answer.ok) return;
              const models = (await answer.json()).data.map(({ id }) => {
                const option = make("option");
                option.value = id;
                return option;
              });
              element("models").replaceChildren(...models);
            } catch {
              // The list is a convenience: a model's name can be typed.
            }
          }

          show(state, words) {
            element("status").dataset.state = state;
            element("status").textContent = words;
            this.refresh();
          }

          refresh() {
            const text = element("text");
            text.style.height = "auto";
            text.style.height = `${text.scrollHeight}px`;
            const canStop = this.running.length > 0 && !text.value.trim();
            const send = element("send");
            send.classList.toggle("stop", canStop);
            send.setAttribute("aria-label", canStop ? "Stop" : "Send");
            send.disabled = !canStop && !text.value.trim();
          }

          ask(words) {
            if (element("speak").checked) this.voice.unlock();
            this.voice.stop();
            element("welcome").hidden = true;
            const turn = new Turn(words);
            for (const old of this.running) old.stopped ??= performance.now();
            this.turns.set(turn.id, turn);
            element("turns").append(turn.node);
            element("text").value = "";
            if (this.connection.registered) this.request(turn); else this.unsent.push(turn);
            this.refresh();
            this.follow(true);
          }

          request(turn) {
            const payload = {
              request_id: turn.id, data_type: "TEXT", stream_flag: false, stream_seq: 0, content: { text: turn.question },
              require_tts: element("speak").checked, supersede: true, update_session: { reasoning: true }
            };
            const model = element("model").value.trim();
            if (model) payload.model = model;
            this.connection.send("REQUEST", payload);
          }

          stop() {
            const running = this.running.filter(turn => !turn.stopped);
            this.voice.stop();
            for (const turn of running) {
              turn.stopped = performance.now();
              const place = this.unsent.indexOf(turn);
              if (place >= 0) {
                this.unsent.splice(place, 1);
                turn.end("stopped", ["before it was sent"], "Stopped");
              }
            }
            const sent = running.filter(turn => !turn.ended).map(turn => turn.id);
            if (sent.length) this.connection.send("INTERRUPT", { interrupt_request_id: sent, reason: "USER_STOP" });
            this.refresh();
          }

          ready(resumed) {
            this.show("ready", "connected");
            for (const turn of this.running) {
              if (this.unsent.includes(turn)) continue;
              if (!resumed) {
                turn.end("wrong", ["The connection was away for too long."], "Lost");
                continue;
              }
              const payload = { request_id: turn.id };
              if (turn.lastEventID) payload.last_event_id = turn.lastEventID;
              this.connection.send("RESUME", payload);
              // A stop that was pressed while there was no connection.
              if (turn.stopped) this.connection.send("INTERRUPT", { interrupt_request_id: turn.id, reason: "USER_STOP" });
            }
            for (const turn of this.unsent.splice(0)) this.request(turn);
            this.refresh();
          }

          message(type, payload) {
            const turn = this.turns.get(payload.request_id);
            switch (type) {
              case "RESPONSE":
                if (!turn || turn.ended) return;
                if (payload.content?.voice && !turn.stopped) this.voice.play(payload.content.voice);
                turn.take(payload);
                break;
              case "INTERRUPT_ACK":
                for (const id of payload.interrupted_request_ids ?? []) {
                  const stopped = this.turns.get(id);
                  if (stopped?.stopped) stopped.acknowledged ??= performance.now() - stopped.stopped;
                }
                return;
              case "ERROR":
                if (turn && !turn.ended) {
                  const detail = payload.error_detail ? [`${payload.error_detail}`] : [];
                  turn.end("wrong", [payload.error_msg, ...detail], payload.retryable ? "Failed, try again" : "Failed");
                } else if (!turn) {
                  this.show("ready", payload.error_msg);
                }
                break;
              case "SESSION_WARN":
                this.show("ready", payload.message ?? `the session ends in ${payload.remaining_seconds} s`);
                return;
              default: return;
            }
            this.refresh();
            this.follow(false);
          }

          /** Keeps the end in sight, unless the reader has scrolled up. */
          follow(always) {
            const scroller = element("scroller");
            const isNear = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 160;
            if (always || isNear) scroller.scrollTop = scroller.scrollHeight;
          }
        }

        new Chat();
        """#
}
