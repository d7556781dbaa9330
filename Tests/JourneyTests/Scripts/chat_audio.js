"use strict";

// Checks the chat page's sound processing without a browser. Argument: the path of chat-audio.js.

const assert = require("node:assert");
const { readFileSync } = require("node:fs");
const vm = require("node:vm");

const source = readFileSync(process.argv[2], "utf8");

/** The frames that the microphone's processor makes of a tone of amplitude 0.5 and one second. */
function frames(sampleRate, frequency) {
  let Processor;
  const messages = [];
  const context = vm.createContext({
    sampleRate,
    AudioWorkletProcessor: class { port = { postMessage: message => messages.push(message) }; },
    registerProcessor: (name, processor) => { Processor = processor; }
  });
  vm.runInContext(`${source}\n(${"defineMicrophoneProcessor"})();`, context);
  const processor = new Processor();
  const samples = Float32Array.from({ length: sampleRate }, (_, index) => 0.5 * Math.sin(2 * Math.PI * frequency * index / sampleRate));
  // The audio thread works in blocks of 128 samples.
  for (let start = 0; start < samples.length; start += 128) processor.process([[samples.subarray(start, start + 128)]]);
  return messages;
}

for (const rate of [16000, 22050, 44100, 48000, 96000]) {
  const heard = frames(rate, 440);
  assert(heard.length >= 48 && heard.length <= 50, `${rate} Hz: ${heard.length} frames of 20 ms in a second`);
  assert(heard.every(({ samples }) => samples.byteLength === 640));
  // Without the first frame, which the filter begins.
  for (const { level } of heard.slice(1)) assert(Math.abs(level - 0.5 / Math.SQRT2) < 0.01, `${rate} Hz: level ${level}`);
  // The tone goes on over the borders of frames: no step is larger than a tone of 440 Hz makes.
  const samples = heard.slice(1).flatMap(({ samples }) => [...new Int16Array(samples)]);
  const step = Math.max(...samples.slice(1).map((value, index) => Math.abs(value - samples[index])));
  assert(step < 1.05 * 0.5 * 32768 * 2 * Math.PI * 440 / 16000, `${rate} Hz: step ${step}`);
  // A tone above the new Nyquist frequency must not come back as another one.
  if (rate >= 44100) for (const { level } of frames(rate, 11000).slice(1)) assert(level < 0.003, `${rate} Hz: ${level} of 11 kHz`);
}

const VoiceDetector = vm.runInContext(`${source}\nVoiceDetector`, vm.createContext({}));

/** What the detector says to levels: [level, count] pairs. Returns [frame, event] pairs. */
function events(pairs, { isPlaying = false, detector = new VoiceDetector() } = {}) {
  const found = [];
  let frame = 0;
  for (const [level, count] of pairs) {
    for (let index = 0; index < count; index++, frame++) {
      const event = detector.feed(level, isPlaying);
      if (event) found.push([frame, event]);
    }
  }
  return found;
}

assert.deepStrictEqual(events([[0.003, 500]]), [], "silence");
assert.deepStrictEqual(events([[0.003, 50], [0.1, 100], [0.003, 100]]), [[53, "start"], [189, "end"]], "a sentence");
assert.deepStrictEqual(events([[0.003, 50], [0.1, 50], [0.003, 30], [0.1, 50], [0.003, 60]]), [[53, "start"], [219, "end"]], "a pause");
assert.deepStrictEqual(events([[0.003, 50], [0.1, 2], [0.003, 50]]), [], "a click");
assert.deepStrictEqual(events([[0.003, 50], [0.02, 100]], { isPlaying: true }), [], "the rest of the voice that is played");
assert.deepStrictEqual(events([[0.003, 50], [0.1, 20]], { isPlaying: true }), [[57, "start"]], "who talks into it is heard");
const detector = new VoiceDetector();
const noise = events([[0.003, 50], [0.03, 1000]], { detector });
assert(noise.length === 2 && noise[1][0] < 400, `a noise that begins ends as an utterance, once: ${noise}`);
assert.deepStrictEqual(events([[0.2, 50]], { detector }).map(([, event]) => event), ["start"], "speech is louder than the noise");
console.log("all checks passed");
