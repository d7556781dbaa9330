"""The Anthropic SDK against a gateway.

Arguments: base URL, API key, and the models of the steps.
"""

import sys

import anthropic

base, key, whole, reasons, tools, left, hung = sys.argv[1:]
client = anthropic.Anthropic(base_url=base, api_key=key, max_retries=0, timeout=20)
messages = [{"role": "user", "content": "hello"}]
words = lambda count: "".join(f" w{i}" for i in range(count))
asked = dict(messages=messages, max_tokens=1000)

answer = client.messages.create(model=whole, system="be brief", stop_sequences=["END"], **asked)
assert answer.id.startswith("msg_") and answer.role == "assistant" and answer.type == "message", answer
assert [block.type for block in answer.content] == ["text"] and answer.content[0].text == words(20), answer
assert answer.stop_reason == "end_turn" and answer.usage.output_tokens == 20 and answer.usage.input_tokens > 0, answer

with client.messages.stream(model=whole, **asked) as stream:
    assert "".join(stream.text_stream) == words(20)
    final = stream.get_final_message()
assert final.stop_reason == "end_turn" and final.usage.output_tokens == 20 and final.content[0].text == words(20), final

kinds = [event.type for event in client.messages.create(model=whole, stream=True, **asked)]
assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds

thinking = {"type": "enabled", "budget_tokens": 1024}
answer = client.messages.create(model=reasons, thinking=thinking, messages=messages, max_tokens=2000)
assert [block.type for block in answer.content] == ["thinking", "text"], answer
assert [block.type for block in client.messages.create(model=reasons, **asked).content] == ["text"]

tool = {"name": "get_weather", "description": "the weather",
        "input_schema": {"type": "object", "properties": {"location": {"type": "string"}}}}
answer = client.messages.create(model=tools, tools=[tool], tool_choice={"type": "auto"}, **asked)
call = answer.content[-1]
assert answer.stop_reason == "tool_use" and call.type == "tool_use" and call.name and isinstance(call.input, dict), answer
with client.messages.stream(model=tools, tools=[tool], **asked) as stream:
    streamed = stream.get_final_message().content[-1]
assert streamed.name == call.name and streamed.input == call.input, (streamed, call)
result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
turns = messages + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
answer = client.messages.create(model=whole, tools=[tool], messages=turns, max_tokens=1000)
assert answer.content[0].text == words(20), answer

image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
answer = client.messages.create(
    model=whole, max_tokens=1000, messages=[{"role": "user", "content": [image, {"type": "text", "text": "what?"}]}])
assert answer.content[0].text == words(20), answer

counted = client.messages.with_raw_response.count_tokens(model=whole, messages=messages)
assert counted.headers["x-sluice-token-count"] == "estimated" and counted.parse().input_tokens > 0, counted

def refused(kind, **arguments):
    try:
        client.with_options(**arguments.pop("options", {})).messages.create(**arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind} was expected for {arguments}")

error = refused(anthropic.RateLimitError, model="sim-e429", **asked)
assert error.body["error"]["type"] == "rate_limit_error", error.body
refused(anthropic.NotFoundError, model="sim-e404", **asked)
error = refused(anthropic.BadRequestError, model=whole, extra_body={"mcp_servers": []}, **asked)
assert "mcp_servers" in error.body["error"]["message"], error.body
refused(anthropic.AuthenticationError, model=whole, options={"api_key": "wrong"}, **asked)

# The client disconnects during a stream, and while it waits for a complete answer.
with client.messages.stream(model=left, **asked) as stream:
    for number, text in enumerate(stream.text_stream):
        if number == 5: break
refused(anthropic.APITimeoutError, model=hung, options={"timeout": 0.7}, **asked)
print("all checks passed")
