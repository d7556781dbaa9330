"""A client of a Sluice gateway over HTTP: submits jobs, follows them, resumes and interrupts. Standard library only.

usage: http_client.py BASE_URL KEY MODEL        for example: http://127.0.0.1:8080 my-key sim-n200-g10
"""
import json
import sys
import urllib.request
import uuid

TERMINAL = {"finished", "interrupted", "failed"}


class Client:
    def __init__(self, base, key):
        self.base, self.key = base, key

    def open(self, method, path, body=None, headers=None):
        """Sends one request. Returns the response, which the caller closes."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method, headers=headers or {})
        request.add_header("Authorization", f"Bearer {self.key}")
        request.add_header("Content-Type", "application/json")
        # A quiet event stream carries a comment every 15 s, so a longer silence means a lost connection.
        return urllib.request.urlopen(request, timeout=45)

    def submit(self, model, prompt):
        """Returns the job's id. The Idempotency-Key makes it safe to repeat the request when the answer is lost."""
        job = {"class": "interactive", "request": {"model": model, "messages": [{"role": "user", "content": prompt}]}}
        with self.open("POST", "/v1/jobs", job, {"Idempotency-Key": str(uuid.uuid4())}) as response:
            return json.load(response)["id"]

    def events(self, job, after=None):
        """Yields the job's events in order, from the first one or from the one that follows `after`."""
        headers = {"Last-Event-ID": after} if after else {}
        with self.open("GET", f"/v1/jobs/{job}/events", headers=headers) as response:
            data = None
            for line in response:
                line = line.decode().rstrip("\r\n")
                if line.startswith("data:"):
                    data = line[5:].strip()
                elif line == "" and data is not None:
                    yield json.loads(data)
                    data = None

    def interrupt(self, job, reason="USER_STOP"):
        """Returns the state in which the job was found. Safe to repeat."""
        with self.open("POST", f"/v1/jobs/{job}/interrupt", {"reason": reason}) as response:
            return json.load(response)


class Answer:
    """The text of a job, kept up to date by its events."""

    def __init__(self):
        self.text, self.last, self.end = "", None, None

    def take(self, event):
        if event["type"] == "text":
            self.text += event["text"]
        elif event["type"] == "restarted":
            self.text = ""
        elif event["type"] == "resumed":
            self.text = self.text.encode()[: event["text_offset"]].decode()
        elif event["type"] in TERMINAL:
            self.end = event
        self.last = event["id"]


def main(base, key, model):
    client = Client(base, key)

    # Submit and follow. The connection is given up after 40 characters, and the stream is resumed behind the last event.
    job, answer = client.submit(model, "hello"), Answer()
    for event in client.events(job):
        answer.take(event)
        if len(answer.text) >= 40:
            break
    print("read", len(answer.text), "characters, resuming after", answer.last, file=sys.stderr)
    while answer.end is None:
        for event in client.events(job, after=answer.last):
            answer.take(event)
    print(f"{answer.end['type']}: {len(answer.text)} characters")

    # Interrupt in mid-stream. The terminal event says how the job ended.
    job, answer, sent = client.submit(model, "hello"), Answer(), None
    for event in client.events(job):
        answer.take(event)
        if event["type"] == "text" and sent is None:
            sent = client.interrupt(job)
    print(f"{answer.end['type']}: {answer.end['reason']} while {answer.end['phase']}, the request found it {sent['state']}")


main(*sys.argv[1:])
