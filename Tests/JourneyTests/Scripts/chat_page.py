"""Drives the chat page in a headless Chromium.

Arguments: chromium, the page's URL, an API key, a folder for the profile and the screenshots, and the models of an answer that is stopped,
one that continues over a reload, one that is read aloud, and one that continues over a lost connection.
"""

import json
import pathlib
import sys

from browser import Browser

chromium, url, key, folder, stopped, reloaded, spoken, disconnected = sys.argv[1:]
probe = pathlib.Path(__file__).with_name("chat_page_probe.js").read_text()
is_ready = "document.getElementById('status').dataset.state === 'ready'"
nothing_runs = "!document.querySelector('#turns li.running')"


def answer_text(count):
    """What the simulated model says in `count` tokens."""
    return "".join(f" w{i}" for i in range(count)).strip()


class ChatBrowser(Browser):
    def set_model(self, model):
        self.evaluate(f"document.getElementById('model').value = {json.dumps(model)}")

    def ask(self, question, model):
        self.set_model(model)
        self.type("#text", question)
        # Without a keyboard, as on a phone, Enter inserts a line break.
        self.click("#send")

    def answer(self, index):
        return self.evaluate(f"document.querySelectorAll('.answer')[{index}].textContent")

    def wait_for_text(self, index, text):
        self.wait_for(f"document.querySelectorAll('.answer')[{index}]?.textContent.includes({json.dumps(text)})")


with ChatBrowser(chromium, folder) as page:
    page.call("Page.addScriptToEvaluateOnNewDocument", source=probe)
    page.navigate(url)
    assert not page.evaluate("document.getElementById('sign-in').hidden")
    page.type("#key", key)
    page.press("Enter", 13, "\r")
    page.wait_for(is_ready)
    page.wait_for("document.querySelector('#models option')?.value === 'house-model'")

    # Ask, stream, stop; the receipt says what that saved.
    page.ask("Tell me a long story", stopped)
    page.wait_for_text(0, " w20 ")
    page.press("Escape", 27)
    page.wait_for("document.querySelector('.receipt.stopped')?.innerText.includes('tokens generated')")
    receipt = page.evaluate("document.querySelector('.receipt.stopped').innerText")
    assert "Stopped" in receipt and "phase: streaming" in receipt and "stopped in" in receipt, receipt
    first_answer = page.answer(0)
    page.screenshot("stopped")

    # A model's output is shown as text, never as markup.
    page.ask("<img src=x onerror=\"document.title='owned'\"><b>bold</b>", "readable")
    page.wait_for_text(1, "<img src=x")
    page.press("Escape", 27)
    page.wait_for(nothing_runs)
    assert page.evaluate("document.querySelectorAll('#turns img, #turns .answer b').length") == 0
    assert page.evaluate("document.title") == "Sluice"

    # A reload during an answer: the conversation is restored, and the answer continues to its end.
    page.ask("And another one", reloaded)
    page.wait_for_text(2, " w20 ")
    page.evaluate("window.beforeReload = true")
    page.call("Page.reload")
    page.wait_for("!window.beforeReload && document.readyState === 'complete'")
    page.wait_for(is_ready)
    page.wait_for("document.querySelectorAll('#turns li').length === 3")
    assert page.answer(0) == first_answer
    assert "Stopped" in page.evaluate("document.querySelector('.receipt.stopped').innerText")
    page.wait_for(nothing_runs)
    assert page.answer(2) == answer_text(300), page.answer(2)
    assert page.evaluate("document.querySelectorAll('.receipt')[2].innerText").startswith("300 tokens generated")

    # With a keyboard Enter sends and Shift+Enter inserts a line break.
    page.evaluate("window.hasKeyboard = true")
    page.set_model(disconnected)
    page.type("#text", "two")
    page.press("Enter", 13, "\r", shift=True)
    page.type("#text", "lines")
    assert page.evaluate("document.getElementById('text').value") == "two\nlines"
    page.press("Enter", 13, "\r")
    assert page.evaluate("document.getElementById('text').value") == ""
    page.wait_for("document.querySelectorAll('.question')[3]?.textContent === 'two\\nlines'")

    # The connection is lost during the answer: the page reconnects, and no text is lost or repeated.
    page.wait_for_text(3, " w20 ")
    socket_count = page.evaluate("sockets.length")
    page.evaluate("sockets.at(-1).close()")
    page.wait_for("document.getElementById('status').dataset.state === 'waiting'")
    page.wait_for(f"sockets.length > {socket_count} && {is_ready}")
    page.wait_for(nothing_runs)
    assert page.answer(3) == answer_text(300), page.answer(3)

    # Speech: the chunks are played one after the other while the text arrives, and Stop ends them.
    page.click("#settings summary")
    page.screenshot("settings")
    page.click("#speak")
    page.click("h1")
    page.ask("Read this to me", spoken)
    page.wait_for("audio.started >= 3 && audio.seconds > .1")
    assert page.evaluate("document.querySelector('#turns li:last-child').classList.contains('running')"), "speech comes with the text"
    page.click("#send")
    page.wait_for("audio.stopped > 0")
    page.wait_for("document.querySelectorAll('#turns li')[4].querySelector('.receipt.stopped') !== null")
    page.wait_for("audio.started === audio.ended")

    # A phone.
    page.resize(390, 844, is_phone=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot("phone")
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.click("#new-conversation")
    page.wait_for(f"!document.getElementById('welcome').hidden && {is_ready}")
    page.screenshot("phone-empty")
    assert not page.errors, page.errors
print("all checks passed")
