/// Drives a headless Chromium through the chat page.
enum ChatPageScript {
    /// Arguments: chromium, the page's address, key, folder for the profile and the screenshots; models of an answer that is stopped, that
    /// runs over a reload, that is read aloud, and that runs over a break of the connection.
    static let text =
        BrowserScript.text + #"""
            chromium, url, key, folder, stopped, reloaded, spoken, broken = sys.argv[1:]
            words = lambda count: "".join(f" w{i}" for i in range(count)).strip()

            # Pieces of sound that the page starts and stops, the sockets that it opens, and a keyboard, which a headless browser has not.
            watch = """
            window.sound = { started: 0, ended: 0, stopped: 0, seconds: 0 };
            const { start, stop } = AudioBufferSourceNode.prototype;
            AudioBufferSourceNode.prototype.start = function (when) {
              sound.started++;
              sound.seconds += this.buffer.duration;
              this.addEventListener("ended", () => sound.ended++);
              return start.call(this, when);
            };
            AudioBufferSourceNode.prototype.stop = function () { sound.stopped++; return stop.call(this); };
            const match = matchMedia;
            window.matchMedia = query => query === "(hover: hover)" && window.hasKeyboard ? { matches: true } : match.call(window, query);
            window.sockets = [];
            window.WebSocket = class extends WebSocket { constructor(...all) { super(...all); sockets.push(this); } };
            """

            class ChatBrowser(Browser):
                def ask(self, words, model):
                    self.evaluate(f"document.getElementById('model').value = {json.dumps(model)}")
                    self.type("#text", words)
                    # A headless browser has no mouse that hovers, so that Enter makes a line here, as on a telephone.
                    self.evaluate("document.getElementById('send').click()")

            page = ChatBrowser(chromium, folder)
            try:
                page.call("Page.addScriptToEvaluateOnNewDocument", source=watch)
                page.call("Page.navigate", url=url)
                page.until("document.readyState === 'complete' && !document.getElementById('gate').hidden")
                page.type("#key", key)
                page.press("Enter", 13, "\r")
                page.until("document.getElementById('status').dataset.state === 'ready'")
                page.until("document.querySelector('#models option')?.value === 'house-model'")

                # Type, stream, stop, and the receipt of what that saved.
                page.ask("Tell me a long story", stopped)
                page.until("document.querySelector('.answer')?.textContent.includes(' w20 ')")
                page.press("Escape", 27)
                receipt = page.until("document.querySelector('.receipt.stopped')?.innerText")
                page.until("document.querySelector('.receipt.stopped').innerText.includes('tokens generated')")
                assert "Stopped" in receipt and "phase: streaming" in receipt and "stopped in" in receipt, receipt
                first = page.evaluate("document.querySelector('.answer').textContent")
                page.screenshot("stopped")

                # What a model says is text, whatever it looks like.
                page.ask("<img src=x onerror=\"document.title='owned'\"><b>bold</b>", "readable")
                page.until("document.querySelectorAll('.answer')[1]?.textContent.includes('<img src=x')")
                page.press("Escape", 27)
                page.until("!document.querySelector('#turns li.running')")
                assert page.evaluate("document.querySelectorAll('#turns img, #turns .answer b').length") == 0
                assert page.evaluate("document.title") == "Sluice"

                # Reload in the middle of an answer: the conversation is there, and the answer goes on to its end.
                page.ask("And another one", reloaded)
                page.until("document.querySelectorAll('.answer')[2]?.textContent.includes(' w20 ')")
                page.evaluate("window.beforeReload = true")
                page.call("Page.reload")
                page.until("!window.beforeReload && document.readyState === 'complete'")
                page.until("document.getElementById('status').dataset.state === 'ready'")
                page.until("document.querySelectorAll('#turns li').length === 3")
                assert page.evaluate("document.querySelector('.answer').textContent") == first
                assert "Stopped" in page.evaluate("document.querySelector('.receipt.stopped').innerText")
                page.until("!document.querySelector('#turns li.running')")
                text = page.evaluate("document.querySelectorAll('.answer')[2].textContent")
                assert text == words(300), (len(text), text[-100:])
                assert page.evaluate("document.querySelectorAll('.receipt')[2].innerText").startswith("300 tokens generated")

                # With a keyboard Enter sends and Shift+Enter makes a line.
                page.evaluate("window.hasKeyboard = true")
                page.evaluate(f"document.getElementById('model').value = {json.dumps(broken)}")
                page.type("#text", "two")
                page.press("Enter", 13, "\r", shift=True)
                page.type("#text", "lines")
                assert page.evaluate("document.getElementById('text').value") == "two\nlines"
                page.press("Enter", 13, "\r")
                assert page.evaluate("document.getElementById('text').value") == ""
                page.until("document.querySelectorAll('.question')[3]?.textContent === 'two\\nlines'")

                # The connection breaks in the middle of the answer: it comes back by itself, and nothing is lost or doubled.
                page.until("document.querySelectorAll('.answer')[3].textContent.includes(' w20 ')")
                before = page.evaluate("sockets.length")
                page.evaluate("sockets.at(-1).close()")
                page.until("document.getElementById('status').dataset.state === 'waiting'")
                page.until(f"sockets.length > {before} && document.getElementById('status').dataset.state === 'ready'")
                page.until("!document.querySelector('#turns li.running')")
                text = page.evaluate("document.querySelectorAll('.answer')[3].textContent")
                assert text == words(300), (len(text), text[-100:])

                # The voice: its pieces are played one after the other while the text comes, and end with Stop.
                page.evaluate("document.querySelector('#settings summary').click()")
                page.screenshot("settings")
                page.evaluate("document.getElementById('speak').click()")
                page.evaluate("document.querySelector('h1').click()")
                page.ask("Read this to me", spoken)
                page.until("sound.started >= 3 && sound.seconds > .1")
                assert page.evaluate("document.querySelector('#turns li:last-child').classList.contains('running')"), "the voice comes with the text"
                page.evaluate("document.getElementById('send').click()")
                page.until("sound.stopped > 0")
                page.until("document.querySelectorAll('#turns li')[4].querySelector('.receipt.stopped') !== null")
                page.until("sound.started === sound.ended")

                # A telephone.
                page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
                assert page.evaluate("document.documentElement.scrollWidth") <= 390
                page.screenshot("telephone")
                page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
                page.evaluate("document.getElementById('renew').click()")
                page.until("!document.getElementById('welcome').hidden && document.getElementById('status').dataset.state === 'ready'")
                page.screenshot("telephone-empty")
                assert not page.faults, page.faults
                print("all as it should be")
            finally:
                page.process.kill()
                page.process.wait()
            """#
}
