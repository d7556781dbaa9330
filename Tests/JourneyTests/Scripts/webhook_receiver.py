"""Receives webhooks of responses with the OpenAI SDK.

Arguments: base URL, API key, webhook secret, port to listen on, models: a short one, a slow one, and a failing one.
"""

import http.server
import queue
import sys
import threading

import openai

base, key, secret, port, short, slow, failing = sys.argv[1:]
client = openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=30, webhook_secret=secret)
received = queue.Queue()
seen = {}


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        event = client.webhooks.unwrap(body, self.headers)
        try:
            client.webhooks.verify_signature(body + " ", self.headers)
            raise AssertionError("a changed body was accepted")
        except openai.InvalidWebhookSignatureError:
            pass
        attempt = seen[event.id] = seen.get(event.id, 0) + 1
        # The first attempt fails: it is made again with the same id.
        self.send_response(500 if attempt == 1 else 204)
        self.end_headers()
        if attempt > 1:
            received.put((event.type, event.data.id, self.headers["webhook-id"] == event.id))

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()

expected = {}
expected[client.responses.create(model=short, input="hello", background=True).id] = "response.completed"
expected[client.responses.create(model=slow, input="hello", background=True).id] = "response.cancelled"
expected[client.responses.create(model=failing, input="hello", background=True).id] = "response.failed"
foreground = client.responses.create(model=short, input="hello")
for id, kind in expected.items():
    if kind == "response.cancelled":
        client.responses.cancel(id)
print("created", flush=True)
got = {}
while len(got) < len(expected):
    kind, id, same = received.get(timeout=60)
    assert same and id != foreground.id, (kind, id)
    got[id] = kind
assert got == expected, (got, expected)
print("all checks passed")
