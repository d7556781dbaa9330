import TestSupport

enum Chromium {
    static let path = Program.find("chromium", "chromium-browser", "google-chrome")
}

/// A headless Chromium driven by the DevTools protocol over a pipe; needs nothing but Python's own library.
enum BrowserScript {
    static let text = #"""
        import base64, json, os, select, subprocess, sys, time

        class Browser:
            def __init__(self, chromium, folder):
                commands, self.output = os.pipe()
                self.input, answers = os.pipe()
                def descriptors():
                    os.dup2(commands, 13); os.dup2(answers, 14); os.dup2(13, 3); os.dup2(14, 4)
                self.process = subprocess.Popen(
                    [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--no-proxy-server", "--autoplay-policy=no-user-gesture-required",
                     "--remote-debugging-pipe", "--window-size=1100,800",
                     f"--user-data-dir={folder}/profile"],
                    preexec_fn=descriptors, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                os.close(commands); os.close(answers)
                self.buffer, self.number, self.faults, self.session = b"", 0, [], None
                target = self.call("Target.createTarget", url="about:blank")["targetId"]
                self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
                for domain in ("Page", "Runtime", "Log"): self.call(domain + ".enable")

            def read(self):
                while b"\0" not in self.buffer:
                    assert select.select([self.input], [], [], 30)[0], "the browser is silent"
                    piece = os.read(self.input, 1 << 16)
                    assert piece, "the browser ended"
                    self.buffer += piece
                text, self.buffer = self.buffer.split(b"\0", 1)
                message = json.loads(text)
                if message.get("method") == "Runtime.exceptionThrown": self.faults.append(message["params"])
                if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                    self.faults.append(message["params"])
                return message

            def call(self, method, **params):
                self.number += 1
                command = {"id": self.number, "method": method, "params": params}
                if self.session: command["sessionId"] = self.session
                os.write(self.output, json.dumps(command).encode() + b"\0")
                while True:
                    message = self.read()
                    if message.get("id") != self.number: continue
                    assert "error" not in message, (method, message)
                    return message["result"]

            def evaluate(self, expression):
                result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
                assert "exceptionDetails" not in result, (expression, result)
                return result["result"].get("value")

            def until(self, expression, seconds=20):
                end = time.monotonic() + seconds
                while True:
                    value = self.evaluate(expression)
                    if value: return value
                    assert time.monotonic() < end, ("waited in vain for", expression, self.evaluate("document.body.innerText"), self.faults)
                    time.sleep(.02)

            def type(self, selector, text):
                self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
                self.call("Input.insertText", text=text)

            def press(self, name, code, text="", shift=False):
                for kind in ("keyDown", "keyUp"):
                    self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code,
                              modifiers=8 if shift else 0,
                              **({"text": text} if text and kind == "keyDown" else {}))

            def screenshot(self, name):
                with open(f"{folder}/{name}.png", "wb") as file:
                    file.write(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

        """#
}
