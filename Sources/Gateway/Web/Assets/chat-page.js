"use strict";

/** The chat page. */
class ChatPage {
  constructor() {
    this.requiresKey = document.body.dataset.requiresKey === "true";
    this.turns = new Map();
    this.player = new AudioPlayer(turnID => {
      // The end of what has been received; the answer may go on.
      if (this.turns.get(turnID)?.ended) this.stopVoice();
    });
    /** The question that is being spoken. */
    this.utterance = null;
    this.voice = new VoiceControl({
      isReady: () => this.connection.isRegistered,
      isPlaying: () => this.player.isPlaying,
      onBargeIn: () => this.bargeIn(),
      onStart: () => this.startUtterance(),
      onAudio: samples => { if (this.utterance?.isUploading) this.connection.sendAudio(samples); },
      onEnd: () => this.endUtterance(),
      onCancel: () => this.stop(),
      onError: text => this.setStatus(element("status").dataset.state, text)
    });
    this.composer = new Composer({
      onSend: question => this.ask(question),
      onStop: () => { if (this.runningTurns.length) this.stop(); },
      onInput: () => this.refreshComposer()
    });
    this.scroller = new Scroller(element("scroller"));
    /** Turns to send as soon as the connection is registered. */
    this.unsent = [];
    this.connection = new Connection({
      onReady: isResumed => this.connected(isResumed),
      onMessage: (type, payload) => this.receive(type, payload),
      onWaiting: reason => this.disconnected(reason),
      onUnauthenticated: () => this.showSignIn("This API key is not valid.")
    });
    this.signIn = new SignIn(key => this.connect(key));
    this.addEventHandlers();
    this.restoreConversation();
    const { key } = this.signIn;
    if (this.requiresKey && !key) this.showSignIn(""); else this.connect(key ?? "");
  }

  // MARK: the conversation

  get runningTurns() { return [...this.turns.values()].filter(turn => !turn.ended); }

  /** Shows the conversation that this tab saved before a reload. Its session is kept by the gateway. */
  restoreConversation() {
    const saved = SavedConversation.read();
    if (!saved) return;
    this.connection.sessionID = saved.session;
    for (const entry of saved.turns) {
      const turn = new Turn(entry.question, entry);
      this.turns.set(turn.id, turn);
      turn.restore(entry);
      element("turns").append(turn.node);
      if (entry.unsent) this.unsent.push(turn);
    }
    element("welcome").hidden = this.turns.size > 0;
    this.scroller.scrollToEnd(true);
  }

  saveConversation() {
    const turns = [...this.turns.values()].map(turn => ({ ...turn.savedState, unsent: this.unsent.includes(turn) }));
    SavedConversation.write(this.connection.sessionID, turns);
  }

  /** Stops running answers, ends the session and clears the page. */
  clearConversation() {
    this.voice.cancel();
    this.stop();
    this.connection.send("SHUTDOWN", { reason: "USER_STOP" });
    this.connection.close();
    this.turns.clear();
    this.unsent = [];
    element("turns").replaceChildren();
    element("welcome").hidden = false;
    element("settings").open = false;
    this.saveConversation();
    this.refreshComposer();
  }

  // MARK: the page

  addEventHandlers() {
    document.onkeydown = event => {
      if (event.key === "Escape" && !event.isComposing) {
        if (element("settings").open) return element("settings").open = false;
        this.voice.cancel();
        this.stop();
      }
    };
    document.onclick = event => {
      if (!element("settings").contains(event.target)) element("settings").open = false;
    };
    addEventListener("pagehide", () => this.saveConversation());
    element("speak").onchange = event => {
      this.hasChosenVoice = true;
      if (event.target.checked) this.player.unlock(); else this.stopVoice();
    };
    element("sign-out").onclick = () => {
      this.clearConversation();
      this.showSignIn("");
    };
    element("new-conversation").onclick = () => {
      const key = this.connection.key;
      this.clearConversation();
      this.connect(key);
    };
  }

  setStatus(state, text) {
    element("status").dataset.state = state;
    element("status").textContent = text;
    this.refreshComposer();
  }

  refreshComposer() {
    this.composer.refresh(this.runningTurns.length > 0);
    element("microphone").disabled = this.voice.mode === "off" && !this.connection?.isRegistered;
  }

  // MARK: the key

  connect(key) {
    this.signIn.hide();
    element("sign-out").hidden = !this.requiresKey;
    this.setStatus("waiting", "connecting");
    this.connection.open(key);
    loadModels(key);
  }

  showSignIn(error) {
    element("sign-out").hidden = true;
    this.setStatus("failed", "not signed in");
    this.signIn.show(error);
  }

  // MARK: messages to the gateway

  ask(question) {
    this.voice.discard();
    if (element("speak").checked) this.player.unlock();
    this.stopVoice();
    const turn = new Turn(question);
    this.add(turn);
    this.composer.clear();
    if (this.connection.isRegistered) this.sendRequest(turn); else this.unsent.push(turn);
    this.saveConversation();
    this.refreshComposer();
  }

  /** Shows a new question, which supersedes those that are running. */
  add(turn) {
    element("welcome").hidden = true;
    for (const old of this.runningTurns) old.stoppedAt ??= performance.now();
    this.turns.set(turn.id, turn);
    element("turns").append(turn.node);
    this.scroller.scrollToEnd(true);
  }

  /** @param fields of the payload: the kind of the question and its content */
  sendRequest(turn, fields = { data_type: "TEXT", stream_flag: false, stream_seq: 0, content: { text: turn.question } }) {
    const payload = {
      request_id: turn.id, ...fields, require_tts: element("speak").checked, supersede: true, update_session: { reasoning: true }
    };
    const model = element("model").value.trim();
    if (model) payload.model = model;
    this.connection.send("REQUEST", payload);
  }

  /** @param played how much of the voice was heard, in milliseconds; undefined: there was none */
  sendInterrupt(requestIDs, reason, played) {
    this.connection.send("INTERRUPT", { interrupt_request_id: requestIDs, reason, ...(played !== undefined && { played_ms: played }) });
  }

  sendPlayed(turnID, milliseconds) { this.connection.send("PLAYED", { request_id: turnID, ms: milliseconds }); }

  /** Stops the voice. The model's next answer then continues from what was heard. */
  stopVoice() {
    const stopped = this.player.stop();
    if (stopped) this.sendPlayed(stopped.turnID, stopped.milliseconds);
  }

  /** The user begins to talk: the voice and the answer stop at once. */
  bargeIn() {
    // Who talks wants to be talked to, unless the visitor has decided otherwise.
    if (!this.hasChosenVoice) element("speak").checked = true;
    if (element("speak").checked) this.player.unlock();
    this.stop("USER_VOICE_INPUT");
  }

  startUtterance() {
    const turn = new Turn("", { isVoice: true });
    turn.isUploading = true;
    this.utterance = turn;
    this.add(turn);
    this.sendRequest(turn, this.voiceFields(0));
    this.refreshComposer();
  }

  endUtterance() {
    const turn = this.utterance;
    this.utterance = null;
    if (!turn?.isUploading) return;
    this.sendRequest(turn, this.voiceFields(-1));
    turn.uploaded();
    this.saveConversation();
  }

  /** The beginning (0) and the end (-1) of a spoken question, between which its audio is sent in binary frames. */
  voiceFields(sequence) {
    return { data_type: "VOICE", stream_flag: true, stream_seq: sequence, content: { voice_mode: "BINARY", audio_format: "pcm" } };
  }

  /** Stops all running answers and the voice. */
  stop(reason = "USER_STOP") {
    const heard = this.player.stop();
    const turns = this.runningTurns.filter(turn => !turn.stoppedAt);
    for (const turn of turns) {
      turn.stoppedAt = performance.now();
      const index = this.unsent.indexOf(turn);
      if (index >= 0) {
        this.unsent.splice(index, 1);
        turn.end("stopped", ["before it was sent"], "Stopped");
      }
    }
    const requestIDs = turns.filter(turn => !turn.ended).map(turn => turn.id);
    if (heard && !requestIDs.includes(heard.turnID)) this.sendPlayed(heard.turnID, heard.milliseconds);
    for (const id of requestIDs) this.sendInterrupt(id, reason, id === heard?.turnID ? heard.milliseconds : undefined);
    this.refreshComposer();
  }

  disconnected(reason) {
    // The gateway discards a question whose connection is lost before its end.
    if (this.utterance) this.voice.cancel();
    this.setStatus("waiting", reason);
  }

  /** The session is registered: resumes the running answers and sends the questions that waited. */
  connected(isResumed) {
    this.setStatus("ready", "connected");
    for (const turn of this.runningTurns) {
      if (this.unsent.includes(turn)) continue;
      if (!isResumed) {
        turn.end("failed", ["The session expired while there was no connection."], "Lost");
        continue;
      }
      if (turn.isUploading) {
        turn.end("failed", ["The connection was lost while you were talking."], "Lost");
        continue;
      }
      const payload = { request_id: turn.id };
      if (turn.lastEventID) payload.last_event_id = turn.lastEventID;
      this.connection.send("RESUME", payload);
      // Stop may have been pressed while there was no connection.
      if (turn.stoppedAt) this.sendInterrupt(turn.id, "USER_STOP");
    }
    for (const turn of this.unsent.splice(0)) this.sendRequest(turn);
    this.saveConversation();
    this.refreshComposer();
  }

  // MARK: messages from the gateway

  receive(type, payload) {
    const turn = this.turns.get(payload.request_id);
    switch (type) {
      case "RESPONSE":
        if (!turn || turn.ended) return;
        if (payload.content?.voice && !turn.stoppedAt) this.player.play(turn.id, payload.content.voice, payload.voice_sample_rate);
        turn.receive(payload);
        if (turn.ended && turn.id === this.player.turnID && !this.player.isPlaying) this.stopVoice();
        break;
      case "INTERRUPT_ACK":
        for (const id of payload.interrupted_request_ids ?? []) {
          const stopped = this.turns.get(id);
          if (stopped?.stoppedAt) stopped.acknowledgedAfter ??= performance.now() - stopped.stoppedAt;
        }
        return;
      case "ERROR":
        if (turn && !turn.ended) {
          const detail = payload.error_detail ? [`${payload.error_detail}`] : [];
          turn.end("failed", [payload.error_msg, ...detail], payload.retryable ? "Failed, please retry" : "Failed");
        } else if (!turn) {
          this.setStatus("ready", payload.error_msg);
        }
        break;
      case "SESSION_WARN":
        this.setStatus("ready", payload.message ?? `the session expires in ${payload.remaining_seconds} s`);
        return;
      default: return;
    }
    if (turn?.ended) this.saveConversation();
    this.refreshComposer();
    this.scroller.scrollToEnd(false);
  }
}

new ChatPage();
