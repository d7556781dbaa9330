"use strict";

// Sound of the chat page: playback of the voice, the microphone, and the detection of speech.

/** Plays the voice of one answer at a time: chunks of 16-bit mono PCM, one after the other without gaps. */
class AudioPlayer {
  /** The sample rate that the page asks for, in Hz: that of the speech upstreams, so that the voice is not converted on its way. */
  static preferredRate = 24000;

  context = null;
  /** The answer being played. */
  turnID = null;
  /** The scheduled chunks with their start times, on the audio context's clock, in seconds. */
  sources = new Map();
  /** Where the last scheduled chunk ends, in samples on the audio context's clock. */
  endFrame = 0;
  /** The length of the chunks that were played to their end, in seconds. */
  playedTime = 0;

  /** @param onIdle(turnID) all chunks received so far were played */
  constructor(onIdle) { this.onIdle = onIdle; }

  get isPlaying() { return this.sources.size > 0; }

  /** Browsers allow sound only after a user gesture, so this must be called from an event handler of one. */
  unlock() {
    this.context ??= new AudioContext({ sampleRate: AudioPlayer.preferredRate });
    if (this.context.state === "suspended") this.context.resume();
  }

  /** @param sampleRate in Hz, as the first frame of an answer states it; undefined: as before */
  play(turnID, base64, sampleRate) {
    if (turnID !== this.turnID) {
      this.stop();
      this.turnID = turnID;
    }
    if (!this.context) return;
    if (sampleRate && sampleRate !== this.context.sampleRate) this.setRate(sampleRate);
    const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
    const count = bytes.length >> 1;
    if (count === 0) return;
    // The context has the rate of the voice: chunks are neither converted, which would be heard at their borders, nor moved by a fraction of
    // a sample.
    const { context } = this;
    const view = new DataView(bytes.buffer);
    const buffer = context.createBuffer(1, count, context.sampleRate);
    const samples = buffer.getChannelData(0);
    for (let index = 0; index < count; index++) samples[index] = view.getInt16(index * 2, true) / 32768;
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    source.onended = () => this.ended(source);
    const now = context.currentTime * context.sampleRate;
    const startFrame = this.endFrame > now ? this.endFrame : Math.ceil(now + 0.05 * context.sampleRate);
    source.start(startFrame / context.sampleRate);
    this.endFrame = startFrame + count;
    this.sources.set(source, startFrame / context.sampleRate);
  }

  setRate(sampleRate) {
    this.context.close();
    this.context = new AudioContext({ sampleRate });
    this.sources.clear();
    this.endFrame = 0;
  }

  ended(source) {
    if (!this.sources.delete(source)) return;
    this.playedTime += source.buffer.duration;
    if (!this.isPlaying) this.onIdle(this.turnID);
  }

  /** How much of the answer has been heard. */
  get playedMilliseconds() {
    let time = this.playedTime;
    if (this.context) {
      const now = this.context.currentTime - (this.context.outputLatency || 0);
      for (const [source, startTime] of this.sources) time += Math.min(Math.max(now - startTime, 0), source.buffer.duration);
    }
    return Math.round(time * 1000);
  }

  /** Stops at once. Returns the answer that was being played and how much of it was heard; null when there was none. */
  stop() {
    const stopped = this.isPlaying || this.playedTime > 0 ? { turnID: this.turnID, milliseconds: this.playedMilliseconds } : null;
    const sources = [...this.sources.keys()];
    this.sources.clear();
    for (const source of sources) source.stop();
    this.turnID = null;
    this.endFrame = 0;
    this.playedTime = 0;
    return stopped;
  }
}

/**
 * Runs in the audio thread, to which its text is sent: it must not refer to anything outside. Converts the microphone's samples to 16 kHz with
 * a windowed-sinc low-pass filter and posts them in frames of 20 ms, as 16-bit PCM with their level (root mean square, 0 to 1).
 */
function defineMicrophoneProcessor() {
  const rate = 16000, frameLength = 320, phases = 64;

  class MicrophoneProcessor extends AudioWorkletProcessor {
    constructor() {
      super();
      this.step = sampleRate / rate;
      // In samples of the input on each side; the cut-off frequency is 92 % of the lower Nyquist frequency.
      const cutoff = 0.92 * Math.min(1, 1 / this.step);
      this.reach = Math.ceil(10 / cutoff);
      this.rows = Array.from({ length: phases + 1 }, (_, phase) => {
        const row = Float32Array.from({ length: 2 * this.reach }, (_, tap) => {
          const distance = phase / phases - (tap - this.reach + 1);
          const angle = Math.PI * distance * cutoff;
          const sinc = Math.abs(angle) < 1e-9 ? 1 : Math.sin(angle) / angle;
          return Math.abs(distance) < this.reach ? sinc * (0.5 + 0.5 * Math.cos(Math.PI * distance / this.reach)) : 0;
        });
        const sum = row.reduce((left, right) => left + right, 0);
        return row.map(weight => weight / sum);
      });
      this.input = new Float32Array(8192);
      this.count = this.reach;
      this.position = this.reach;
      this.startFrame();
    }

    startFrame() {
      this.frame = new Int16Array(frameLength);
      this.length = 0;
      this.energy = 0;
    }

    process([[channel]]) {
      if (!channel || this.count + channel.length > this.input.length) return true;
      this.input.set(channel, this.count);
      this.count += channel.length;
      while (this.position + this.reach < this.count) {
        const whole = Math.floor(this.position);
        const row = this.rows[Math.round((this.position - whole) * phases)];
        let sum = 0;
        for (let tap = 0; tap < row.length; tap++) sum += this.input[whole - this.reach + 1 + tap] * row[tap];
        this.add(sum);
        this.position += this.step;
      }
      const used = Math.floor(this.position) - this.reach;
      this.input.copyWithin(0, used, this.count);
      this.count -= used;
      this.position -= used;
      return true;
    }

    add(value) {
      this.frame[this.length++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
      this.energy += value * value;
      if (this.length < frameLength) return;
      this.port.postMessage({ samples: this.frame.buffer, level: Math.sqrt(this.energy / frameLength) }, [this.frame.buffer]);
      this.startFrame();
    }
  }

  registerProcessor("microphone", MicrophoneProcessor);
}

/** The microphone, as frames of 20 ms: 16 kHz, 16-bit mono PCM. */
class Microphone {
  /** Whether the browser offers one to this page: only on secure origins and on this machine. */
  static get isAvailable() { return Boolean(navigator.mediaDevices?.getUserMedia) && "audioWorklet" in AudioContext.prototype; }

  /** @param onFrame(samples, level) with an ArrayBuffer and the root mean square, 0 to 1 */
  constructor(onFrame) { this.onFrame = onFrame; }

  /** Asks for permission where needed, and starts. Throws when the browser or its user refuses. */
  async open() {
    this.isWanted = true;
    if (this.stream) return;
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const context = new AudioContext();
    const module = URL.createObjectURL(new Blob([`(${defineMicrophoneProcessor})()`], { type: "text/javascript" }));
    try {
      await context.audioWorklet.addModule(module);
    } catch (error) {
      Microphone.end(stream, context);
      throw error;
    } finally {
      URL.revokeObjectURL(module);
    }
    // Closed, or opened a second time, while the user was asked.
    if (!this.isWanted || this.stream) return Microphone.end(stream, context);
    [this.stream, this.context] = [stream, context];
    const node = new AudioWorkletNode(context, "microphone");
    node.port.onmessage = ({ data }) => { if (stream === this.stream) this.onFrame(data.samples, data.level); };
    context.createMediaStreamSource(stream).connect(node);
    // It is silent; an unconnected node would not run.
    node.connect(context.destination);
  }

  close() {
    this.isWanted = false;
    if (this.stream) Microphone.end(this.stream, this.context);
    this.stream = this.context = null;
  }

  static end(stream, context) {
    for (const track of stream.getTracks()) track.stop();
    context.close();
  }
}

/** Finds the beginning and the end of speech by the level of frames of 20 ms, compared with that of the room. */
class VoiceDetector {
  /** The level of the room. */
  floor = 0.004;
  /** The lowest level during speech, which rises slowly: speech has pauses, and a noise that begins in the room has none. */
  lowest = 0;
  isActive = false;
  loudFrames = 0;
  quietFrames = 0;

  /**
   * @param isPlaying whether the page is playing a voice, which the microphone may pick up
   * @returns "start", "end" or null
   */
  feed(level, isPlaying) {
    const threshold = Math.max(this.floor * 3, isPlaying ? 0.03 : 0.012);
    if (this.isActive) {
      this.lowest = Math.min(this.lowest * 1.01, level);
      this.quietFrames = level > Math.max(threshold * 0.6, this.lowest * 2) ? 0 : this.quietFrames + 1;
      // A pause of 800 ms ends what was said.
      if (this.quietFrames < 40) return null;
      this.floor = Math.max(this.floor, this.lowest);
      this.reset();
      return "end";
    }
    this.floor += (level - this.floor) * (level < this.floor ? 0.2 : 0.01);
    this.loudFrames = level > threshold ? this.loudFrames + 1 : Math.max(0, this.loudFrames - 1);
    if (this.loudFrames < (isPlaying ? 8 : 4)) return null;
    this.isActive = true;
    this.quietFrames = 0;
    this.lowest = this.floor;
    return "start";
  }

  reset() {
    this.isActive = false;
    this.loudFrames = this.quietFrames = 0;
  }
}
