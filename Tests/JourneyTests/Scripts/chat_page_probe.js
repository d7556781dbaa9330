"use strict";

// Runs before the chat page's own scripts: counts the audio chunks that the page starts and stops, collects the sockets that it opens,
// and lets the test switch a keyboard on, which a headless browser does not have.

window.audio = { started: 0, ended: 0, stopped: 0, seconds: 0 };
const { start, stop } = AudioBufferSourceNode.prototype;
AudioBufferSourceNode.prototype.start = function (when) {
  audio.started++;
  audio.seconds += this.buffer.duration;
  this.addEventListener("ended", () => audio.ended++);
  return start.call(this, when);
};
AudioBufferSourceNode.prototype.stop = function () {
  audio.stopped++;
  return stop.call(this);
};

const originalMatchMedia = matchMedia;
window.matchMedia = query =>
  query === "(hover: hover)" && window.hasKeyboard ? { matches: true } : originalMatchMedia.call(window, query);

window.sockets = [];
// The messages that the page sends, and the bytes of audio among them.
window.sent = [];
window.sentAudio = 0;
window.WebSocket = class extends WebSocket {
  constructor(...parameters) {
    super(...parameters);
    sockets.push(this);
  }
  send(data) {
    if (typeof data === "string") sent.push(JSON.parse(data)); else sentAudio += data.byteLength;
    super.send(data);
  }
};
