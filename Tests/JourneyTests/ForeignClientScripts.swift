/// What clients of others do with a gateway, in Python. Each script ends with an exception at the first thing that is not as it should be.
enum ForeignClientScripts {
    /// Arguments: base URL, key, and the models of the steps.
    static let openai = #"""
        import json, sys, time
        import openai
        base, key, whole, streamed, tools, left, hung = sys.argv[1:]
        client = openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=20)
        messages = [{"role": "user", "content": "hello"}]
        words = lambda count: "".join(f" w{i}" for i in range(count))

        assert [model.id for model in client.models.list()] == ["house-model"], client.models.list()

        answer = client.chat.completions.create(model=whole, messages=messages)
        assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion", answer
        assert answer.choices[0].message.content == words(20), answer
        assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens == 20, answer

        raw = client.chat.completions.with_raw_response.create(model=whole, messages=messages)
        assert raw.parse().id == "chatcmpl-" + raw.headers["x-sluice-job"] and "GMT" in raw.headers["date"], raw.headers

        text, reason, usage = "", None, None
        for chunk in client.chat.completions.create(
                model=streamed, messages=messages, stream=True, stream_options={"include_usage": True}):
            if chunk.usage: usage = chunk.usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
        assert text == words(50) and reason == "stop" and usage.completion_tokens == 50, (text, reason, usage)

        function = {"name": "get_weather", "parameters": {"type": "object", "properties": {"location": {"type": "string"}}}}
        asked = dict(model=tools, messages=messages, tools=[{"type": "function", "function": function}])
        answer = client.chat.completions.create(**asked)
        call = answer.choices[0].message.tool_calls[0]
        assert answer.choices[0].finish_reason == "tool_calls" and call.id and call.type == "function", answer
        expected = (call.function.name, json.loads(call.function.arguments))
        name, arguments = "", ""
        for chunk in client.chat.completions.create(stream=True, **asked):
            for choice in chunk.choices:
                for part in choice.delta.tool_calls or []:
                    name += part.function.name or ""
                    arguments += part.function.arguments or ""
        assert (name, json.loads(arguments)) == expected, (name, arguments, expected)

        def refused(kind, **arguments):
            try:
                client.with_options(**arguments.pop("options", {})).chat.completions.create(**arguments)
            except kind as error:
                return error
            raise AssertionError(f"{kind} was due for {arguments}")

        assert refused(openai.RateLimitError, model="sim-e429", messages=messages).code == "rate_limited"
        refused(openai.NotFoundError, model="sim-e404", messages=messages)
        refused(openai.BadRequestError, model=whole, messages=messages, n=2)
        refused(openai.AuthenticationError, model=whole, messages=messages, options={"api_key": "wrong"})

        # Leaving in mid-stream, and while a whole answer is waited for.
        stream = client.chat.completions.create(model=left, messages=messages, stream=True)
        for number, chunk in enumerate(stream):
            if number == 5: break
        stream.close()
        refused(openai.APITimeoutError, model=hung, messages=messages, options={"timeout": 0.7})
        print("all as it should be")
        """#

    /// Arguments: URL, key, and the models of the steps.
    static let websockets = #"""
        import asyncio, json, sys, time
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
                """Its text and its closing frame; None instead of that when stop_after bytes have come first."""
                due, last = 0, None
                while True:
                    kind, payload = await self.receive()
                    if kind != "RESPONSE" or payload["request_id"] != identifier: continue
                    if payload["text_stream_seq"] == -1: return text, payload, last
                    assert payload["text_stream_seq"] == due, payload
                    due, last = due + 1, payload["event_id"]
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
            print("all as it should be")

        asyncio.run(main())
        """#
}
