"""Talks to the chat page in a headless Chromium, whose microphone plays a sentence of espeak-ng again and again.

Arguments: chromium, the page's URL, a folder for the profile, the sound and the screenshots, and espeak-ng.
"""

import json
import pathlib
import subprocess
import sys
import wave

from browser import Browser

chromium, url, folder, espeak = sys.argv[1:]
probe = pathlib.Path(__file__).with_name("chat_page_probe.js").read_text()
sound = f"{folder}/microphone.wav"
is_ready = "document.getElementById('status').dataset.state === 'ready'"
nothing_runs = "!document.querySelector('#turns li.running')"
microphone = "document.getElementById('microphone')"


def record(seconds_of_silence):
    """Writes a sentence with silence around it."""
    subprocess.run([espeak, "-v", "en-us", "-s", "140", "-w", sound, "Please tell me a very long story about rivers and their locks"], check=True)
    with wave.open(sound) as file:
        settings, frames = file.getparams(), file.readframes(file.getnframes())
    silence = bytes(2 * settings.framerate)
    with wave.open(sound, "wb") as file:
        file.setparams(settings)
        file.writeframes(silence[: len(silence) // 2 & ~1] + frames + silence * seconds_of_silence)


class VoiceBrowser(Browser):
    def press(self):
        self.mouse("mousePressed", "#microphone")

    def release(self):
        self.mouse("mouseReleased", "#microphone")

    def question(self, index):
        return self.evaluate(f"document.querySelectorAll('.question')[{index}].textContent")

    def wait_for_turn(self, index, condition):
        self.wait_for(f"(turn => Boolean(turn && {condition}))(document.querySelectorAll('#turns li')[{index}])", seconds=40)

    def interrupts(self):
        return self.evaluate("sent.filter(({ msg_type }) => msg_type === 'INTERRUPT').map(({ payload }) => payload)")


record(4)
arguments = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={sound}"]
with VoiceBrowser(chromium, folder, arguments) as page:
    page.call("Page.addScriptToEvaluateOnNewDocument", source=probe)
    page.navigate(url)
    page.wait_for(is_ready)
    assert not page.evaluate(f"{microphone}.hidden || {microphone}.disabled")

    # Hold to talk: the audio goes out while the button is pressed.
    page.press()
    page.wait_for(f"{microphone}.dataset.mode === 'held' && document.querySelector('.question.pending')?.textContent === 'Listening'")
    page.wait_for(f"{microphone}.style.getPropertyValue('--level') > .3")
    page.wait_for("sentAudio > 40000")
    page.screenshot("held")
    page.release()
    page.wait_for_turn(0, "turn.querySelector('.question').textContent.startsWith('speech of')")
    start, end = page.evaluate("sent.filter(({ payload }) => payload.data_type === 'VOICE').map(({ payload }) => payload)")
    assert (start["stream_seq"], end["stream_seq"]) == (0, -1) and start["request_id"] == end["request_id"], (start, end)
    assert start["supersede"] and start["require_tts"] and start["content"]["voice_mode"] == "BINARY", start
    # 16,000 samples a second of 2 bytes; the page kept what was said before the button counted as held.
    heard = int(page.question(0).split()[2])
    assert heard == page.evaluate("sentAudio") // 32, (heard, page.evaluate("sentAudio"))
    # Who talks is answered with a voice.
    page.wait_for("audio.started >= 3 && audio.ended >= 1")

    # A tap interrupts the answer at once, and the page listens. On a busy machine it may take long.
    page.evaluate("VoiceControl.holdTime = Infinity")
    page.press()
    page.release()
    page.wait_for("audio.stopped > 0")
    page.wait_for_turn(0, "turn.querySelector('.receipt.stopped')")
    interrupt = page.interrupts()[0]
    assert interrupt["reason"] == "USER_VOICE_INPUT" and interrupt["played_ms"] > 0, interrupt
    assert page.evaluate(f"{microphone}.dataset.mode") == "handsFree"

    # Hands-free: the sentence is found between the silences, recognized and answered.
    page.wait_for_turn(1, "turn.querySelector('.question').textContent.startsWith('speech of')")
    page.wait_for_turn(1, "turn.querySelector('.answer').textContent.includes('simulator')")
    length = int(page.question(1).split()[2])
    assert 2_000 < length < 8_000, length
    page.screenshot("hands-free")
    # The user speaks again while the answer is spoken: it stops, and the next question begins.
    page.wait_for_turn(2, "turn.querySelector('.question')")
    page.wait_for_turn(1, "turn.querySelector('.receipt.stopped')")
    interrupt = page.interrupts()[1]
    assert interrupt["reason"] == "USER_VOICE_INPUT" and interrupt["played_ms"] > 0, interrupt
    page.resize(390, 844, is_phone=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot("voice-phone")
    page.resize(1100, 800)

    # Escape ends the listening and the answer.
    Browser.press(page, "Escape", 27)
    page.wait_for(f"{microphone}.dataset.mode === 'off' && {nothing_runs}")
    assert page.evaluate("document.getElementById('voice').hidden")
    count = page.evaluate("audio.started")

    # An answer that is heard to its end is reported as heard.
    page.evaluate("document.getElementById('model').value = 'sim-n12-g1'")
    page.type("#text", "In writing")
    page.click("#send")
    page.wait_for("sent.at(-1).msg_type === 'PLAYED'", seconds=40)
    played = page.evaluate("sent.at(-1).payload")
    assert played["request_id"] == page.evaluate("sent.findLast(({ msg_type }) => msg_type === 'REQUEST').payload.request_id")
    expected = page.evaluate("audio.seconds") * 1_000
    assert 0 < played["ms"] <= expected and page.evaluate("audio.started") > count, (played, expected)

    # Without permission the page says so, and works.
    page.evaluate("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
    page.press()
    page.wait_for("document.getElementById('status').textContent.includes('does not allow')")
    page.release()
    assert page.evaluate(f"{microphone}.dataset.mode") == "off"
    page.type("#text", "Still in writing")
    page.click("#send")
    page.wait_for("document.querySelector('#turns li:last-child .answer').textContent.includes('w3')")
    page.screenshot("no-microphone")
    assert not page.errors, json.dumps(page.errors)
print("all checks passed")
