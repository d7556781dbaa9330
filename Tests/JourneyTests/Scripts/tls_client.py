"""HTTPS and WSS with Python's standard library, while the gateway's certificate is replaced.

Arguments: port, a PEM file of trusted certificates, an API key. Prints the serial number of each certificate that is served.
"""

import http.client
import json
import os
import socket
import ssl
import struct
import sys
import time

port, authority, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=authority)

class Socket:
    def __init__(self):
        self.tls = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
        self.tls.sendall(b"GET /ws/agent/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head: head += self.tls.recv(1)
        assert head.startswith(b"HTTP/1.1 101") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head

    def ask(self, kind, **payload):
        text = json.dumps({"version": "1.0", "msg_type": kind, "session_id": "", "payload": payload, "timestamp": 1}).encode()
        mask = os.urandom(4)
        self.tls.sendall(struct.pack("!BBH", 0x81, 0x80 | 126, len(text)) + mask + bytes(b ^ mask[i & 3] for i, b in enumerate(text)))
        length = self.read(2)[1]
        if length == 126: length = struct.unpack("!H", self.read(2))[0]
        return json.loads(self.read(length))

    def read(self, count):
        data = b""
        while len(data) < count:
            piece = self.tls.recv(count - len(data))
            assert piece, "closed"
            data += piece
        return data

def served_serial():
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
    connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + key})
    serial = connection.sock.getpeercert()["serialNumber"]
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    return serial

# TLS 1.0 and 1.1 are rejected (RFC 8996).
outdated = ssl.create_default_context(cafile=authority)
outdated.set_ciphers("ALL:@SECLEVEL=0")
outdated.minimum_version, outdated.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
try:
    outdated.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
    sys.exit("TLS 1.1 was accepted")
except ssl.SSLError as error: print("refused", error.reason, flush=True)

connected = Socket()
assert connected.ask("REGISTER", auth={"type": "API_KEY", "api_key": key}, platform="TV")["msg_type"] == "REGISTER_ACK"
first = served_serial()
print("serial", first, flush=True)
# The test replaces the certificate now. An open connection survives that.
deadline = time.monotonic() + 15
while served_serial() == first: assert time.monotonic() < deadline, "the certificate is not replaced"
assert connected.ask("HEALTH_CHECK")["msg_type"] == "HEALTH_CHECK_ACK"
print("serial", served_serial(), flush=True)
