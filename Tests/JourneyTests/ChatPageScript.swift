/// Drives a headless Chromium through the chat page.
enum ChatPageScript {
    /// Arguments: chromium, the page's address, key, folder for the profile and the screenshots, models that are stopped and that run over a reload.
    static let text =
        BrowserScript.text + #"""
            chromium, url, key, folder, stopped, reloaded = sys.argv[1:]
            words = lambda count: "".join(f" w{i}" for i in range(count)).strip()

            class ChatBrowser(Browser):
                def ask(self, words, model):
                    self.evaluate(f"document.getElementById('model').value = {json.dumps(model)}")
                    self.type("#text", words)
                    # A headless browser has no mouse that hovers, so that Enter makes a line here, as on a telephone.
                    self.evaluate("document.getElementById('send').click()")

            page = ChatBrowser(chromium, folder)
            try:
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
                page.until("document.querySelectorAll('#turns li').length === 2 && !document.querySelector('#turns li.running')")
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

                # A telephone.
                page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
                assert page.evaluate("document.documentElement.scrollWidth") <= 390
                page.screenshot("telephone")
                assert not page.faults, page.faults
                print("all as it should be")
            finally:
                page.process.kill()
                page.process.wait()
            """#
}
