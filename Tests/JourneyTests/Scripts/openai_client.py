"""The OpenAI SDK against a gateway.

Arguments: base URL, API key, and the models of the steps.
"""

import json
import sys

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
    raise AssertionError(f"{kind} was expected for {arguments}")

assert refused(openai.RateLimitError, model="sim-e429", messages=messages).code == "rate_limited"
refused(openai.NotFoundError, model="sim-e404", messages=messages)
refused(openai.BadRequestError, model=whole, messages=messages, n=2)
refused(openai.AuthenticationError, model=whole, messages=messages, options={"api_key": "wrong"})

# The client disconnects during a stream, and while it waits for a complete answer.
stream = client.chat.completions.create(model=left, messages=messages, stream=True)
for number, chunk in enumerate(stream):
    if number == 5: break
stream.close()
refused(openai.APITimeoutError, model=hung, messages=messages, options={"timeout": 0.7})
print("all checks passed")
