"use strict";

/** The microphone button: hold it to talk, or tap it to talk hands-free. Turns the microphone's frames into utterances. */
class VoiceControl {
  /** A shorter press is a tap. Milliseconds. */
  static holdTime = 350;
  /** Frames of 20 ms kept from before the beginning of speech: the detector needs some of them. */
  static keptFrames = 20;
  /** Maximum length of an utterance, in frames: one minute. */
  static maximumFrames = 3000;

  /** "off", "held" (the button is pressed) or "handsFree" */
  mode = "off";
  isSpeaking = false;
  /** Frames that may belong to the next utterance. */
  frames = [];
  /** Frames of the current utterance. */
  count = 0;

  /** @param handlers isReady, isPlaying, onBargeIn(), onStart(), onAudio(samples), onEnd(), onCancel(), onError(text) */
  constructor(handlers) {
    this.handlers = handlers;
    this.detector = new VoiceDetector();
    this.microphone = new Microphone((samples, level) => this.receive(samples, level));
    const button = element("microphone");
    button.hidden = document.body.dataset.recognizes !== "true" || !Microphone.isAvailable;
    button.onpointerdown = event => {
      if (event.button !== 0) return;
      button.setPointerCapture(event.pointerId);
      this.press();
    };
    button.onpointerup = () => this.release();
    button.onpointercancel = () => this.cancel();
    // A long touch would open the menu.
    button.oncontextmenu = event => event.preventDefault();
    button.onkeydown = event => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      if (!event.repeat) this.press();
    };
    button.onkeyup = event => { if (event.key === " " || event.key === "Enter") this.release(); };
    button.onblur = () => { if (this.mode === "held") this.cancel(); };
  }

  press() {
    if (this.mode !== "off") return this.cancel();
    if (!this.handlers.isReady()) return;
    this.pressedAt = performance.now();
    this.isPressed = true;
    this.handlers.onBargeIn();
    this.setMode("held");
    this.microphone.open().catch(error => {
      this.cancel();
      const isRefused = error.name === "NotAllowedError";
      this.handlers.onError(isRefused ? "The browser does not allow this page to use the microphone." : "There is no microphone.");
    });
  }

  release() {
    if (!this.isPressed) return;
    this.isPressed = false;
    if (this.mode !== "held") return;
    if (this.isSpeaking) {
      this.end();
      this.leave();
    } else if (performance.now() - this.pressedAt < VoiceControl.holdTime) {
      this.detector = new VoiceDetector();
      this.frames = [];
      this.setMode("handsFree");
    } else {
      // The browser asked its user, or the microphone was slow.
      this.leave();
      this.handlers.onError("The microphone is ready now: hold the button to talk.");
    }
  }

  /** Discards what is being said. */
  discard() {
    if (!this.isSpeaking) return;
    this.isSpeaking = false;
    this.detector.reset();
    this.handlers.onCancel();
  }

  /** Discards what is being said and switches the microphone off. */
  cancel() {
    if (this.mode === "off") return;
    this.discard();
    this.isPressed = false;
    this.leave();
  }

  leave() {
    this.microphone.close();
    this.frames = [];
    this.setMode("off");
  }

  setMode(mode) {
    this.mode = mode;
    this.refresh(0);
  }

  /** Handles a frame of the microphone. */
  receive(samples, level) {
    this.refresh(level);
    if (this.isSpeaking) {
      this.handlers.onAudio(samples);
      if (++this.count >= VoiceControl.maximumFrames) return this.end();
    } else {
      this.frames.push(samples);
      if (this.frames.length > VoiceControl.keptFrames && this.mode === "handsFree") this.frames.shift();
    }
    if (this.mode === "held") {
      if (!this.isSpeaking && performance.now() - this.pressedAt >= VoiceControl.holdTime) this.start();
      return;
    }
    switch (this.detector.feed(level, this.handlers.isPlaying())) {
      case "start":
        if (!this.isSpeaking && this.handlers.isReady()) {
          this.handlers.onBargeIn();
          this.start();
        }
        break;
      case "end": if (this.isSpeaking) this.end();
    }
  }

  start() {
    this.isSpeaking = true;
    this.count = this.frames.length;
    this.handlers.onStart();
    for (const samples of this.frames.splice(0)) this.handlers.onAudio(samples);
  }

  end() {
    this.isSpeaking = false;
    this.detector.reset();
    this.handlers.onEnd();
    this.refresh(0);
  }

  /** Shows mode and level. */
  refresh(level) {
    const button = element("microphone");
    button.dataset.mode = this.mode;
    button.setAttribute("aria-pressed", String(this.mode !== "off"));
    button.style.setProperty("--level", Math.min(1, level * 6).toFixed(3));
    element("voice").hidden = this.mode === "off";
    const hint = this.mode === "held" ? "Listening. Release to send." : this.isSpeaking ? "Listening." : "Hands-free: just talk. Tap the microphone to end.";
    if (element("voice").textContent !== hint) element("voice").textContent = hint;
  }
}
