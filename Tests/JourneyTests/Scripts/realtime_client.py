"""The Realtime API of the OpenAI SDK, in text and audio, with client secrets.

Arguments: base URL, API key, models: a short one, one with a tool call, a slow one, and a slow one that is spoken.
"""

import base64
import math
import struct
import sys

import openai

base, key, short, tools, slow, spoken = sys.argv[1:]
client = openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=30)
words = lambda count: "".join(f" w{i}" for i in range(count))


def tone(milliseconds, amplitude):
    return b"".join(
        struct.pack("<h", int(amplitude * math.sin(2 * math.pi * 300 * i / 24000))) for i in range(24 * milliseconds))


def until(connection, kind, seen=None):
    """Receives events up to one of a type."""
    while True:
        event = connection.recv()
        if seen is not None:
            seen.append(event)
        assert event.type != "error" or kind == "error", event
        if event.type == kind:
            return event


def say(connection, text):
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})


try:
    with openai.OpenAI(base_url=base, api_key="wrong").realtime.connect(model=short):
        raise AssertionError("a wrong key was accepted")
except AssertionError:
    raise
except Exception as error:
    assert "401" in str(error), error

# Text.
with client.realtime.connect(model=short) as connection:
    assert until(connection, "session.created").session.model == short
    connection.session.update(session={
        "type": "realtime", "output_modalities": ["text"], "instructions": "be brief",
        "tools": [{"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}]})
    assert until(connection, "session.updated").session.output_modalities == ["text"]
    say(connection, "hello")
    connection.response.create()
    events = []
    done = until(connection, "response.done", events).response
    assert done.status == "completed" and done.output[0].content[0].text == words(20), done
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == words(20)
    kinds = [e.type for e in events if e.type not in ("response.output_text.delta",)]
    assert kinds == [
        "conversation.item.added", "conversation.item.done", "response.created", "conversation.item.added",
        "response.output_item.added", "response.content_part.added", "response.output_text.done", "response.content_part.done",
        "conversation.item.done", "response.output_item.done", "response.done"], kinds
    assert done.usage.output_tokens == 20, done.usage
    # Cancelled: at once, and followed by another one.
    connection.response.create()
    connection.response.cancel()
    connection.response.create()
    first, second = until(connection, "response.done").response, until(connection, "response.done").response
    assert (first.status, second.status) == ("cancelled", "completed"), (first, second)
    assert first.status_details.reason == "client_cancelled", first

# A function call.
with client.realtime.connect(model=tools) as connection:
    connection.session.update(session={
        "type": "realtime", "output_modalities": ["text"],
        "tools": [{"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}]})
    say(connection, "look it up")
    connection.response.create()
    call = until(connection, "response.function_call_arguments.done")
    done = until(connection, "response.done").response
    assert done.output[-1].type == "function_call" and done.output[-1].call_id == call.call_id, done
    connection.conversation.item.create(
        item={"type": "function_call_output", "call_id": call.call_id, "output": '{"found":true}'})
    connection.response.create()
    assert until(connection, "response.done").response.status == "completed"

# A client secret, and the end of the connection in mid-stream.
secret = client.realtime.client_secrets.create(
    expires_after={"anchor": "created_at", "seconds": 60},
    session={"type": "realtime", "model": slow, "output_modalities": ["text"]})
assert secret.value.startswith("ek_") and secret.session.model == slow, secret
with openai.OpenAI(base_url=base, api_key=secret.value).realtime.connect() as connection:
    assert until(connection, "session.created").session.model == slow
    say(connection, "count")
    connection.response.create()
    until(connection, "response.output_text.delta")

# Audio: the server finds the speech, and new speech interrupts the answer.
with client.realtime.connect(model=spoken) as connection:
    connection.session.update(session={
        "type": "realtime", "output_modalities": ["audio"],
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}, "transcription": {"model": "whisper-1"},
                            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300}},
                  "output": {"format": {"type": "audio/pcm", "rate": 24000}}}})
    until(connection, "session.updated")

    def hear(audio):
        for start in range(0, len(audio), 9600):
            connection.input_audio_buffer.append(audio=base64.b64encode(audio[start:start + 9600]).decode())

    hear(tone(300, 0) + tone(700, 8000) + tone(600, 0))
    item = until(connection, "input_audio_buffer.speech_started").item_id
    assert until(connection, "input_audio_buffer.committed").item_id == item
    transcript = until(connection, "conversation.item.input_audio_transcription.completed")
    assert transcript.item_id == item and transcript.transcript.startswith("speech of "), transcript
    delta = until(connection, "response.output_audio.delta")
    assert len(base64.b64decode(delta.delta)) % 2 == 0, delta
    hear(tone(300, 8000))
    until(connection, "input_audio_buffer.speech_started")
    connection.conversation.item.truncate(item_id=delta.item_id, content_index=0, audio_end_ms=0)
    cancelled = until(connection, "response.done").response
    assert cancelled.status == "cancelled" and cancelled.status_details.reason == "turn_detected", cancelled
    connection.conversation.item.retrieve(item_id=delta.item_id)
    assert until(connection, "conversation.item.retrieved").item.content[0].transcript == ""
    hear(tone(600, 0))
    until(connection, "response.created")
    connection.response.cancel()
    until(connection, "response.done")

print("all checks passed")
