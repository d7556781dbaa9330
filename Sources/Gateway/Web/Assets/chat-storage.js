"use strict";

/** The conversation that this tab saves for a reload of the page. The gateway keeps its session. */
class SavedConversation {
  static item = "sluice-conversation";
  /** How many turns are saved. */
  static maximumTurns = 50;

  /** @returns `{ session, turns }`; null when none is saved */
  static read() {
    try {
      return JSON.parse(sessionStorage.getItem(this.item));
    } catch {
      // Damaged: start a new conversation.
      return null;
    }
  }

  /** @param turns the states of all turns, oldest first */
  static write(session, turns) {
    try {
      sessionStorage.setItem(this.item, JSON.stringify({ session, turns: turns.slice(-this.maximumTurns) }));
    } catch {
      // Over the browser's storage quota: a reload starts a new conversation.
      sessionStorage.removeItem(this.item);
    }
  }
}
