"use strict";

/** The form for the next question: the text field, the button that sends it or stops the answers, and suggestions. */
class Composer {
  static suggestions = ["How does an interrupt reach the model?", "Tell me a long story", "Explain tides to a child"];

  /**
   * @param onSend receives the question
   * @param onStop called when the button is pressed without a question
   * @param onInput called when the text has changed
   */
  constructor({ onSend, onStop, onInput }) {
    this.text = element("text");
    element("composer").onsubmit = event => {
      event.preventDefault();
      if (this.question) onSend(this.question); else onStop();
    };
    this.text.oninput = onInput;
    this.text.onkeydown = event => {
      // On a phone the return key inserts a line break, and only the button sends.
      const hasKeyboard = matchMedia("(hover: hover)").matches;
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && hasKeyboard) {
        event.preventDefault();
        if (this.question) element("composer").requestSubmit();
      }
    };
    for (const question of Composer.suggestions) {
      const button = createElement("button", "", question);
      button.type = "button";
      button.onclick = () => onSend(question);
      element("suggestions").append(button);
    }
  }

  get question() { return this.text.value.trim(); }

  clear() { this.text.value = ""; }

  /** Fits the text field to its content and shows the button as Send or Stop. */
  refresh(isRunning) {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
    const canSend = this.question !== "";
    const canStop = !canSend && isRunning;
    const button = element("send");
    button.classList.toggle("stop", canStop);
    button.setAttribute("aria-label", canStop ? "Stop" : "Send");
    button.disabled = !canSend && !canStop;
  }
}

/** Keeps the end of the conversation visible for a reader who is there. */
class Scroller {
  constructor(node) {
    this.node = node;
    this.wasNearEnd = true;
    node.onscroll = () => this.wasNearEnd = this.isNearEnd;
    // A phone's keyboard makes the page smaller.
    addEventListener("resize", () => this.scrollToEnd(this.wasNearEnd));
  }

  get isNearEnd() { return this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < 160; }

  /** Scrolls to the end of the conversation, unless the reader has scrolled up. */
  scrollToEnd(isForced) {
    if (isForced || this.isNearEnd) this.node.scrollTop = this.node.scrollHeight;
  }
}
