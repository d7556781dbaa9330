"""A client of the WebSocket protocol with the websockets package.

Arguments: URL, API key, and the models of the steps.
"""

import asyncio
import json
import sys
import time

import websockets

url, key, interrupted, resumed, short = sys.argv[1:]
words = lambda count: "".join(f" w{i}" for i in range(count))

class Client:
    async def open(self, **fields):
        self.socket, self.session = await websockets.connect(url), ""
        await self.send("REGISTER", auth={"type": "API_KEY", "api_key": key}, platform="APP", require_tts=False, enable_srs=False,
                        function_calling=[], **fields)
        ack = await self.expect("REGISTER_ACK")
        self.session = ack["session_id"]
        assert ack["status"] == "SUCCESS", ack
        return self

    async def send(self, kind, **payload):
        await self.socket.send(json.dumps({"version": "1.0", "msg_type": kind, "session_id": self.session, "payload": payload,
                                           "timestamp": int(time.time() * 1000)}))

    async def receive(self):
        message = json.loads(await asyncio.wait_for(self.socket.recv(), 15))
        assert message["version"] == "1.0" and isinstance(message["timestamp"], int), message
        return message["msg_type"], message["payload"]

    async def expect(self, kind, where=lambda payload: True):
        while True:
            got, payload = await self.receive()
            if got == kind and where(payload): return payload

    async def request(self, identifier, model):
        await self.send("REQUEST", request_id=identifier, data_type="TEXT", stream_flag=False, stream_seq=0,
                        content={"text": "hello"}, model=model)

    async def answer(self, identifier, text="", stop_after=None):
        """The text, the last RESPONSE and the last event id.

        After `stop_after` characters of text it returns at once, with None as the last RESPONSE.
        """
        expected, last = 0, None
        while True:
            kind, payload = await self.receive()
            if kind != "RESPONSE" or payload["request_id"] != identifier: continue
            if payload["text_stream_seq"] == -1: return text, payload, last
            assert payload["text_stream_seq"] == expected, payload
            expected, last = expected + 1, payload["event_id"]
            text += payload["content"].get("text", "")
            if stop_after is not None and len(text) >= stop_after: return text, None, last

async def main():
    client = await Client().open()
    await client.request("a", short)
    text, closing, _ = await client.answer("a")
    assert text == words(20) and closing["finish_reason"] == "stop" and closing["usage"]["completion_tokens"] == 20, (text, closing)

    await client.request("b", interrupted)
    text, closing, _ = await client.answer("b", stop_after=30)
    await client.send("INTERRUPT", interrupt_request_id="b", reason="USER_STOP")
    ack, closing = None, None
    while not (ack and closing):
        kind, payload = await client.receive()
        if kind == "INTERRUPT_ACK": ack = payload
        elif kind == "RESPONSE" and payload["text_stream_seq"] == -1: closing = payload
    assert ack["status"] == "SUCCESS" and ack["interrupted_request_ids"] == ["b"], ack
    assert closing["interrupted"] is True and closing["interrupt_reason"] == "USER_STOP" and closing["phase"] == "streaming", closing

    await client.send("HEALTH_CHECK")
    health = await client.expect("HEALTH_CHECK_ACK")
    assert health["health_status"]["status"] == "HEALTHY", health
    await client.send("SESSION_QUERY", query_fields=["platform", "active_request_ids"])
    info = await client.expect("SESSION_INFO")
    assert info["session_data"] == {"platform": "APP", "active_request_ids": []}, info

    await client.request("c", resumed)
    before, closing, last = await client.answer("c", stop_after=100)
    client.socket.transport.abort()
    again = await Client().open(resume_session_id=client.session)
    assert again.session == client.session
    await again.send("RESUME", request_id="c", last_event_id=last)
    text, closing, _ = await again.answer("c", text=before)
    assert text == words(300) and closing["finish_reason"] == "stop", (len(text), closing)

    await again.send("SHUTDOWN", reason="bye")
    await again.expect("SHUTDOWN")
    try:
        await again.socket.recv()
    except websockets.ConnectionClosed as end:
        assert end.rcvd.code == 1000, end
    print("all checks passed")

asyncio.run(main())
