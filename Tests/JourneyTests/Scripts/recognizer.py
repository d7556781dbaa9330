"""A small offline recognizer behind OpenAI's transcription API: pocketsphinx with its English model and a grammar of questions.

Arguments: pocketsphinx_continuous and the port to listen on.
"""

import array
import email.parser
import email.policy
import http.server
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import wave

recognizer, port = sys.argv[1], int(sys.argv[2])

GRAMMAR = """#JSGF V1.0;
grammar questions;
public <question> = (tell me about | where is | how far is | who made | when was)
    (the weather | the station | the river | the market | the music | the window);
"""


def resampled(file, rate=16_000):
    """The samples of a WAV file at the rate of the model, by linear interpolation."""
    with wave.open(file) as source:
        assert source.getnchannels() == 1 and source.getsampwidth() == 2, source.getparams()
        samples = array.array("h", source.readframes(source.getnframes()))
        step = source.getframerate() / rate
    out = array.array("h")
    for index in range(int(len(samples) / step)):
        place = int(index * step)
        share = index * step - place
        following = samples[min(place + 1, len(samples) - 1)]
        out.append(round(samples[place] * (1 - share) + following * share))
    return out


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {"ready": True})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        parts = {part.get_param("name", header="Content-Disposition"): part.get_payload(decode=True) for part in form.iter_parts()}
        if self.path != "/v1/audio/transcriptions" or parts.get("model") != b"en-us":
            return self.answer(404, {"error": {"message": f"{self.path}: no such model"}})
        with tempfile.TemporaryDirectory() as folder:
            grammar, sound = pathlib.Path(folder, "questions.jsgf"), pathlib.Path(folder, "sound.wav")
            grammar.write_text(GRAMMAR)
            with wave.open(str(sound), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16_000)
                file.writeframes(resampled(io.BytesIO(parts["file"])).tobytes())
            run = subprocess.run(
                [recognizer, "-infile", str(sound), "-jsgf", str(grammar), "-logfn", "/dev/null"], capture_output=True, text=True,
                timeout=60)
        if run.returncode:
            return self.answer(500, {"error": {"message": run.stderr[-500:]}})
        self.answer(200, {"text": " ".join(run.stdout.split())})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
