"""A client of a Sluice gateway over its WebSocket: registers, asks, resumes and interrupts. Standard library only.

usage: websocket_client.py HOST PORT KEY MODEL          for example: 127.0.0.1 8080 my-key sim-n200-g10
"""
import base64
import json
import os
import socket
import struct
import sys
import time


class WebSocket:
    """RFC 6455 as far as this protocol needs it: whole text frames, pings and the close frame."""

    def __init__(self, host, port, path):
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.stream = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        status = self.stream.readline().decode()
        if " 101 " not in status:
            raise ConnectionError(status)
        while self.stream.readline() not in (b"\r\n", b""):
            pass

    def send(self, payload, opcode=1):
        size, mask = len(payload), os.urandom(4)
        head = bytes([0x80 | opcode, 0x80 | size]) if size < 126 else struct.pack(">BBH", 0x80 | opcode, 0xFE, size)
        self.socket.sendall(head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)))

    def receive(self):
        """The next text message. Raises ConnectionError with the close code when the gateway closes."""
        while True:
            first, second = self.stream.read(2)
            size = second & 0x7F
            if size == 126:
                size = struct.unpack(">H", self.stream.read(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.stream.read(8))[0]
            payload, opcode = self.stream.read(size), first & 0x0F
            if opcode == 1:
                return payload.decode()
            if opcode == 9:
                self.send(payload, 10)
            if opcode == 8:
                raise ConnectionError(f"closed with {struct.unpack('>H', payload[:2])[0]}")


class Client:
    def __init__(self, host, port, key, session=None):
        self.socket, self.session = WebSocket(host, port, "/ws/agent/stream"), ""
        payload = {"auth": {"type": "API_KEY", "api_key": key}, "platform": "APP", "require_tts": False, "enable_srs": False,
                   "function_calling": []}
        if session:
            payload["resume_session_id"] = session
        self.send("REGISTER", payload)
        self.session = self.expect("REGISTER_ACK")["session_id"]

    def send(self, kind, payload):
        message = {"version": "1.0", "msg_type": kind, "session_id": self.session, "payload": payload,
                   "timestamp": int(time.time() * 1000)}
        self.socket.send(json.dumps(message).encode())

    def receive(self):
        while True:
            message = json.loads(self.socket.receive())
            if message["msg_type"] == "HEARTBEAT":
                self.send("HEARTBEAT_REPLY", {})
            elif message["msg_type"] == "ERROR":
                raise RuntimeError(message["payload"])
            else:
                return message["msg_type"], message["payload"]

    def expect(self, wanted):
        while True:
            kind, payload = self.receive()
            if kind == wanted:
                return payload

    def request(self, identifier, model, prompt):
        self.send("REQUEST", {"request_id": identifier, "data_type": "TEXT", "stream_flag": False, "stream_seq": 0,
                              "content": {"text": prompt}, "model": model})

    def frames(self, identifier):
        """Yields the request's RESPONSE frames; the last one has text_stream_seq -1."""
        while True:
            kind, payload = self.receive()
            if kind == "RESPONSE" and payload["request_id"] == identifier:
                yield payload
                if payload["text_stream_seq"] == -1:
                    return


def main(host, port, key, model):
    client = Client(host, port, key)

    # Ask. The connection is lost after 40 characters; the session and its request wait for SLUICE_GRACE (10 s).
    client.request("first", model, "hello")
    text, last = "", None
    for frame in client.frames("first"):
        text, last = text + frame["content"].get("text", ""), frame["event_id"]
        if len(text) >= 40:
            break
    client.socket.socket.close()
    client.socket.stream.close()
    print("read", len(text), "characters, resuming after", last, file=sys.stderr)
    client = Client(host, port, key, session=client.session)
    client.send("RESUME", {"request_id": "first", "last_event_id": last})
    for frame in client.frames("first"):
        if frame.get("restarted"):
            text = ""
        text += frame["content"].get("text", "")
    print(f"{frame['finish_reason']}: {len(text)} characters")

    # Interrupt in mid-stream. The closing frame says how the request ended.
    client.request("second", model, "hello")
    sent = False
    for frame in client.frames("second"):
        if not sent:
            client.send("INTERRUPT", {"interrupt_request_id": "second", "reason": "USER_STOP"})
            sent = True
    print(f"{frame['finish_reason']}: {frame['interrupt_reason']} while {frame['phase']}")
    client.send("SHUTDOWN", {})


main(*sys.argv[1:])
