"""A front end that speaks to Redis itself: submits jobs, follows them, resumes and interrupts. Standard library only.

usage: redis_client.py HOST PORT MODEL          for example: 127.0.0.1 6379 sim-n200-g10
"""
import json
import select
import socket
import sys
import uuid

TERMINAL = {"finished", "interrupted", "failed"}
TAG = "{sluice.0}"  # {SLUICE_NAMESPACE.partition}: partition 0 holds every job of a deployment with SLUICE_PARTITIONS=1


class Redis:
    """One connection: RESP2 in about forty lines."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.buffer = b""

    def command(self, *arguments):
        parts = [argument.encode() for argument in arguments]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self.read()

    def waits(self, seconds):
        """Whether something can be read within `seconds`."""
        return bool(self.buffer) or bool(select.select([self.socket], [], [], seconds)[0])

    def fill(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("Redis closed the connection")
        self.buffer += data

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        return self.take(self.buffer.index(b"\r\n") + 2)[:-2].decode()

    def read(self):
        kind, rest = (line := self.line())[0], line[1:]
        if kind == "$":
            return None if rest == "-1" else self.take(int(rest) + 2)[:-2].decode()
        if kind == "*":
            return None if rest == "-1" else [self.read() for _ in range(int(rest))]
        if kind == "-":
            raise RuntimeError(rest)
        return int(rest) if kind == ":" else rest


def order(event_id):
    attempt, sequence = event_id.split("-")
    return int(attempt), int(sequence)


class FrontEnd:
    def __init__(self, host, port):
        self.address = host, int(port)
        self.redis = Redis(*self.address)

    def submit(self, job, model, prompt):
        body = {"id": job, "request": {"model": model, "messages": [{"role": "user", "content": prompt}]}}
        self.redis.command("XADD", f"{TAG}:queue:interactive", "*", "job", json.dumps(body))

    def interrupt(self, job, reason="USER_STOP"):
        """First the key, which survives a lost message, then the message, which is fast."""
        value = json.dumps({"id": job, "reason": reason})
        self.redis.command("SET", f"{TAG}:interrupt:{job}", value, "EX", "86400")
        self.redis.command("PUBLISH", f"{TAG}:cancel", value)

    def listen(self, job):
        """A connection that is subscribed to the job's channel. Subscribe before submitting, so that nothing is missed."""
        channel = Redis(*self.address)
        channel.command("SUBSCRIBE", f"{TAG}:out:{job}")
        return channel

    def log(self, job, after):
        start = f"({after}" if after else "-"
        return [json.loads(fields[1]) for _, fields in self.redis.command("XRANGE", f"{TAG}:log:{job}", start, "+")]

    def events(self, job, channel, after=None):
        """Yields events in order, without gap or duplicate, from the first one or from the one that follows `after`."""
        last, due = after, self.log(job, after)
        while True:
            for event in due:
                # PUBLISH is not fenced: an older attempt may still publish. Drop what is not newer.
                if last is not None and order(event["id"]) <= order(last):
                    continue
                last = event["id"]
                yield event
                if event["type"] in TERMINAL:
                    return
            # Pub/sub may lose a message. The log never does: look there after a second of silence and at every gap.
            if not channel.waits(1):
                due = self.log(job, last)
                continue
            due = json.loads(channel.read()[2])
            expected = order(last) if last else (1, -1)
            if order(due[0]["id"]) != (expected[0], expected[1] + 1):
                due = self.log(job, last)


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


def main(host, port, model):
    front_end = FrontEnd(host, port)

    # Submit and follow. The connection is given up after 40 characters, and the job is followed again behind the last event.
    job, answer = f"example-{uuid.uuid4()}", Answer()
    channel = front_end.listen(job)
    front_end.submit(job, model, "hello")
    for event in front_end.events(job, channel):
        answer.take(event)
        if len(answer.text) >= 40:
            break
    channel.socket.close()
    print("read", len(answer.text), "characters, resuming after", answer.last, file=sys.stderr)
    for event in front_end.events(job, front_end.listen(job), after=answer.last):
        answer.take(event)
    print(f"{answer.end['type']}: {len(answer.text)} characters")

    # Interrupt in mid-stream. The terminal event says how the job ended.
    job, answer, sent = f"example-{uuid.uuid4()}", Answer(), False
    channel = front_end.listen(job)
    front_end.submit(job, model, "hello")
    for event in front_end.events(job, channel):
        answer.take(event)
        if event["type"] == "text" and not sent:
            front_end.interrupt(job)
            sent = True
    print(f"{answer.end['type']}: {answer.end['reason']} while {answer.end['phase']}")


main(*sys.argv[1:])
