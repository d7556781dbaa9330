/// What the chat page runs. Whatever a model says gets into the page as text, never as markup.
enum ChatPageScript {
    static let text = ChatPageClient.text + "\n\n" + page

    private static let page = #"""
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
            this.restore();
            const key = sessionStorage.getItem("sluice-key");
            if (this.asksForKey && !key) this.askForKey(""); else this.enter(key ?? "");
          }

          /** A tab keeps its conversation over a reload; the session is the gateway's. */
          restore() {
            let kept = null;
            try {
              kept = JSON.parse(sessionStorage.getItem("sluice-conversation"));
            } catch {
              // Not ours to read: begun anew.
            }
            if (!kept) return;
            this.connection.sessionID = kept.session;
            for (const entry of kept.turns) {
              const turn = new Turn(entry.question, entry.id);
              this.turns.set(turn.id, turn);
              turn.restore(entry);
              element("turns").append(turn.node);
              if (entry.unsent) this.unsent.push(turn);
            }
            element("welcome").hidden = this.turns.size > 0;
            this.follow(true);
          }

          keep() {
            const turns = [...this.turns.values()].slice(-50).map(turn => ({ ...turn.kept, unsent: this.unsent.includes(turn) }));
            try {
              sessionStorage.setItem("sluice-conversation", JSON.stringify({ session: this.connection.sessionID, turns }));
            } catch {
              // Larger than a browser keeps: a reload begins anew.
              sessionStorage.removeItem("sluice-conversation");
            }
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
            addEventListener("pagehide", () => this.keep());
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
              this.keep();
              this.askForKey("");
            };
            element("renew").onclick = () => {
              this.renew();
              const key = this.connection.key;
              this.connection.close();
              this.keep();
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
            element("suggestions").hidden = false;
            element("composer").hidden = false;
            element("forget").hidden = !this.asksForKey;
            this.show("waiting", "connecting");
            this.connection.open(key);
            this.loadModels(key);
          }

          askForKey(why) {
            sessionStorage.removeItem("sluice-key");
            element("gate").hidden = false;
            element("suggestions").hidden = true;
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
            this.keep();
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
            this.keep();
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
            if (turn?.ended) this.keep();
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
