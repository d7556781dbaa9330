"""A response whose gateway is killed is resumed on another one.

Arguments: base URLs of both gateways, API key, model, number of its tokens, and a file that is created when the first gateway may be killed.
"""

import pathlib
import sys

import openai

first, second, key, model, count, ready = sys.argv[1:]
client = openai.OpenAI(base_url=first, api_key=key, max_retries=0, timeout=30)
peer = openai.OpenAI(base_url=second, api_key=key, max_retries=0, timeout=60)
events = []
try:
    for event in client.responses.create(model=model, input="hello", background=True, stream=True):
        events.append(event)
        if len(events) == 20: pathlib.Path(ready).touch()
except Exception as error:
    # The SDK does not wrap the error of a connection that is lost inside a stream.
    print("the stream ended with", type(error).__name__)
assert events[-1].type != "response.completed", "the stream was complete before the gateway was killed"
events += peer.responses.retrieve(events[0].response.id, stream=True, starting_after=events[-1].sequence_number)
assert [event.sequence_number for event in events] == list(range(len(events))), [event.sequence_number for event in events]
text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
assert events[-1].type == "response.completed" and events[-1].response.output_text == text, events[-1]
assert text == "".join(f" w{i}" for i in range(int(count))), text
print("all checks passed")
