"""The Responses API of the OpenAI SDK against two gateways.

Arguments: base URLs of two gateways, API key, another tenant's key, and the models of the steps.
"""

import sys
import time

import openai

first, second, key, other, whole, reasons, tools, slow, left, cut = sys.argv[1:]
client = openai.OpenAI(base_url=first, api_key=key, max_retries=0, timeout=30)
peer = openai.OpenAI(base_url=second, api_key=key, max_retries=0, timeout=30)
stranger = openai.OpenAI(base_url=second, api_key=other, max_retries=0, timeout=30)
words = lambda count: "".join(f" w{i}" for i in range(count))

def refused(kind, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as error:
        return error
    raise AssertionError(f"{kind} was expected for {arguments} {named}")

def gapless(events, after=-1):
    assert [event.sequence_number for event in events] == list(range(after + 1, after + 1 + len(events))), events

# Create, retrieve on another gateway, list the input, delete.
answer = client.responses.create(
    model=whole, input="hello", instructions="be brief", metadata={"a": "b"}, max_output_tokens=500, temperature=0.5)
assert answer.id.startswith("resp_") and answer.status == "completed" and answer.output_text == words(20), answer
assert answer.usage.output_tokens == 20 and answer.metadata == {"a": "b"} and answer.instructions == "be brief", answer
again = peer.responses.retrieve(answer.id)
assert again.to_dict() == answer.to_dict(), (again, answer)
items = peer.responses.input_items.list(answer.id).data
assert [(item.role, item.content[0].text) for item in items] == [("user", "hello")], items
refused(openai.NotFoundError, stranger.responses.retrieve, answer.id)
refused(openai.NotFoundError, stranger.responses.cancel, answer.id)
refused(openai.NotFoundError, stranger.responses.delete, answer.id)

# A conversation by previous_response_id, on the other gateway.
follow = peer.responses.create(model=whole, input="and?", previous_response_id=answer.id)
assert follow.previous_response_id == answer.id and follow.output_text == words(20), follow
refused(openai.BadRequestError, stranger.responses.create, model=whole, input="and?", previous_response_id=answer.id)
client.responses.delete(answer.id)
refused(openai.NotFoundError, peer.responses.retrieve, answer.id)
refused(openai.BadRequestError, client.responses.create, model=whole, input="and?", previous_response_id=answer.id)
unstored = client.responses.create(model=whole, input="hello", store=False)
refused(openai.NotFoundError, client.responses.retrieve, unstored.id)

# Streams.
with client.responses.stream(model=whole, input="hello") as stream:
    events = [event for event in stream]
    final = stream.get_final_response()
gapless(events)
assert [event.type for event in events[:4]] == [
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"], events[:4]
assert [event.type for event in events[-4:]] == [
    "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"], events[-4:]
assert final.output_text == words(20), final
with client.responses.stream(model=reasons, input="hello", reasoning={"effort": "low", "summary": "auto"}) as stream:
    final = stream.get_final_response()
assert [item.type for item in final.output] == ["reasoning", "message"] and final.output[0].summary[0].text, final

# A tool loop.
tool = {"type": "function", "name": "get_weather", "strict": False,
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}}}
with client.responses.stream(model=tools, input="weather?", tools=[tool]) as stream:
    asked = stream.get_final_response()
call = asked.output[-1]
assert call.type == "function_call" and call.name and call.call_id and call.arguments, asked
result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
told = client.responses.create(model=whole, previous_response_id=asked.id, input=[result], tools=[tool])
assert told.output_text == words(20), told
told = client.responses.create(
    model=whole, input=[{"role": "user", "content": "weather?"}] + [item.to_dict() for item in asked.output] + [result])
assert told.output_text == words(20), told
# A call whose result is missing does not spoil the conversation.
told = client.responses.create(model=whole, previous_response_id=asked.id, input="never mind")
assert told.output_text == words(20), told

# Refusals.
assert "max_tool_calls" in str(refused(openai.BadRequestError, client.responses.create, model=whole, input="x", max_tool_calls=1))
assert "tools[0].type" in str(
    refused(openai.BadRequestError, client.responses.create, model=whole, input="x", tools=[{"type": "web_search"}]))
refused(openai.RateLimitError, client.responses.create, model="sim-e429", input="x")
refused(openai.BadRequestError, client.responses.create, model=whole, input="x", background=True, store=False)

# In the background: retrieve, cancel on the other gateway, cancel twice.
running = client.responses.create(model=slow, input="hello", background=True)
assert running.status in ("queued", "in_progress"), running
stopped = peer.responses.cancel(running.id)
assert stopped.status == "cancelled", stopped
assert client.responses.cancel(running.id).status == "cancelled"
assert client.responses.retrieve(running.id).status == "cancelled"
done = client.responses.create(model=whole, input="hello", background=True)
while done.status in ("queued", "in_progress"):
    time.sleep(0.05)
    done = peer.responses.retrieve(done.id)
assert done.status == "completed" and done.output_text == words(20), done
failed = client.responses.create(model="sim-e400", input="hello", background=True)
while failed.status in ("queued", "in_progress"):
    time.sleep(0.05)
    failed = peer.responses.retrieve(failed.id)
assert failed.status == "failed" and failed.error.message, failed

# A stream of a background response is left and resumed on the other gateway.
seen = []
stream = client.responses.create(model=cut, input="hello", background=True, stream=True)
for event in stream:
    seen.append(event)
    if len(seen) == 12: break
stream.close()
identifier = seen[0].response.id
rest = list(peer.responses.retrieve(identifier, stream=True, starting_after=seen[-1].sequence_number))
gapless(seen + rest)
assert rest[-1].type == "response.completed" and rest[-1].response.output_text == words(100), rest[-1]
assert "".join(event.delta for event in seen + rest if event.type == "response.output_text.delta") == words(100)
assert [event.to_dict() for event in client.responses.retrieve(identifier, stream=True)] == [event.to_dict() for event in seen + rest]

# The client leaves a stream in the foreground: an interrupt.
stream = client.responses.create(model=left, input="hello", stream=True)
for number, event in enumerate(stream):
    if number == 0: identifier = event.response.id
    if number == 8: break
stream.close()
gone = peer.responses.retrieve(identifier)
while gone.status == "in_progress":
    time.sleep(0.05)
    gone = peer.responses.retrieve(identifier)
assert gone.status == "cancelled" and gone.output[0].status == "incomplete", gone
print("all checks passed")
