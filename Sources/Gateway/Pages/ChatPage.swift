import Hummingbird

/// `GET /`: the chat page, one document that needs nothing else.
struct ChatPage: Sendable {
    private let response: Response

    /// - Parameter asksForKey: whether a visitor needs a key.
    init(asksForKey: Bool) {
        let document = Self.document(asksForKey: asksForKey)
        response = PageResponse.make(document, script: ChatPageScript.text, style: ChatPageStyle.text)
    }

    func add(to router: Router<GatewayRequestContext>) {
        router.get("/") { [response] _, _ in response }
    }

    private static func document(asksForKey: Bool) -> String {
        #"""
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover, interactive-widget=resizes-content">
        <meta name="color-scheme" content="light dark">
        <title>Sluice</title>
        <link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='8' fill='%230e7c86'/%3E%3Cpath d='M7 11q4.5-4 9 0t9 0M7 17q4.5-4 9 0t9 0M7 23q4.5-4 9 0t9 0' stroke='%23fff' stroke-width='2.4' fill='none' stroke-linecap='round'/%3E%3C/svg%3E">
        <style>\#(ChatPageStyle.text)</style>
        </head>
        <body data-asks-for-key="\#(asksForKey)">
        <header>
          <h1><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8"/><path d="M7 11q4.5-4 9 0t9 0M7 17q4.5-4 9 0t9 0M7 23q4.5-4 9 0t9 0"/></svg>Sluice</h1>
          <p id="status" role="status" data-state="waiting">connecting</p>
          <details id="settings">
            <summary aria-label="Settings" title="Settings"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 7h9m5 0h2M4 17h2m5 0h9"/><circle cx="15.5" cy="7" r="2.5"/><circle cx="8.5" cy="17" r="2.5"/></svg></summary>
            <div>
              <label>Model <input id="model" list="models" placeholder="default" autocomplete="off" spellcheck="false" maxlength="200"></label>
              <datalist id="models"></datalist>
              <label class="switch"><input id="speak" type="checkbox"> Read answers aloud</label>
              <button id="renew" type="button">New conversation</button>
              <button id="forget" type="button" hidden>Forget the key</button>
            </div>
          </details>
        </header>
        <main id="scroller">
          <section id="welcome">
            <h2>What shall we talk about?</h2>
            <p>Stop an answer at any moment with <span class="keyboard"><kbd>Esc</kbd> or </span>the button, or just send your next message: the old answer ends, and so does its bill.</p>
            <div id="suggestions"></div>
          </section>
          <ol id="turns" role="log" aria-label="Conversation" aria-live="polite"></ol>
        </main>
        <form id="gate" hidden>
          <label for="key">This gateway asks for a key.</label>
          <div><input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="API key" required><button>Enter</button></div>
          <p id="gate-error" role="alert"></p>
        </form>
        <form id="composer">
          <textarea id="text" rows="1" placeholder="Message" aria-label="Message" enterkeyhint="send" maxlength="200000"></textarea>
          <button id="send" aria-label="Send"><svg viewBox="0 0 24 24" aria-hidden="true"><path class="arrow" d="M12 19V5m-6 6 6-6 6 6"/><rect class="square" x="7" y="7" width="10" height="10" rx="2"/></svg></button>
        </form>
        <script>\#(ChatPageScript.text)</script>
        </body>
        </html>

        """#
    }
}
