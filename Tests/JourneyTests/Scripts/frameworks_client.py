"""Clients built on the OpenAI and Anthropic APIs: openai-agents, langchain-openai, litellm, pydantic-ai and llm.

Arguments: base URL, API key, models: a short one, one with a tool call, and a slow one.
"""

import os
import subprocess
import tempfile
import sys

base, key, short, tools, slow = sys.argv[1:]
os.environ["OPENAI_API_KEY"] = key
os.environ["OPENAI_BASE_URL"] = base
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
words = lambda count: "".join(f" w{i}" for i in range(count))
calls = []

# openai-agents: a run with a tool, on the Responses API and on chat completions.
import asyncio

import agents
import openai

agents.set_tracing_disabled(True)


@agents.function_tool(name_override="lookup", strict_mode=False)
def lookup(query: str = "") -> str:
    """Looks something up."""
    calls.append(query)
    return "found"


api = openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0)


async def run_agents():
    for model in (
        agents.OpenAIResponsesModel(model=tools, openai_client=api),
        agents.OpenAIChatCompletionsModel(model=tools, openai_client=api),
    ):
        calls.clear()
        agent = agents.Agent(name="a", instructions="be brief", model=model, tools=[lookup])
        result = await agents.Runner.run(agent, "look it up", max_turns=4)
        assert len(calls) == 1 and result.final_output, (calls, result)
        streamed = agents.Runner.run_streamed(agent, "look it up", max_turns=4)
        async for _ in streamed.stream_events():
            pass
        assert len(calls) == 2 and streamed.final_output, calls


asyncio.run(run_agents())
print("openai-agents", flush=True)

# openai-agents: a realtime session in text with a tool, and an answer that is interrupted.
from agents.realtime import RealtimeAgent, RealtimeRunner


async def run_realtime(model, tools):
    agent = RealtimeAgent(name="a", instructions="be brief", tools=tools)
    settings = {"model_name": model, "modalities": ["text"], "turn_detection": None}
    runner = RealtimeRunner(agent)
    url = base.replace("http", "ws", 1) + "/realtime?model=" + model
    return await runner.run(model_config={"api_key": key, "url": url, "initial_model_settings": settings})


async def wait(events, wanted):
    """Receives events up to one of a type: of the session, or of the model inside it."""
    async for event in events:
        assert event.type != "error", event
        if wanted in (event.type, getattr(getattr(event, "data", None), "type", "")):
            return event


async def converse():
    calls.clear()
    async with await run_realtime(tools, [lookup]) as session:
        events = aiter(session)
        await session.send_message("look it up")
        for kind in ("tool_end", "turn_started", "turn_ended"):
            await wait(events, kind)
        assert len(calls) == 1, calls
    async with await run_realtime(slow, []) as session:
        events = aiter(session)
        await session.send_message("hello")
        await wait(events, "output_text_delta")
        await session.interrupt()
        await wait(events, "turn_ended")
        # The connection serves the next question.
        await session.send_message("again")
        await wait(events, "output_text_delta")


asyncio.run(converse())
print("openai-agents realtime", flush=True)

# langchain-openai: chat completions and Responses, streaming and not, and tools.
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

for responses in (False, True):
    chat = ChatOpenAI(model=short, base_url=base, api_key=key, max_retries=0, use_responses_api=responses)
    text = lambda message: message.text if isinstance(message.text, str) else message.text()
    assert text(chat.invoke("hello")) == words(20), responses
    assert "".join(text(chunk) for chunk in chat.stream("hello")) == words(20), responses
    caller = ChatOpenAI(model=tools, base_url=base, api_key=key, max_retries=0, use_responses_api=responses).bind_tools(
        [{"type": "function", "function": {"name": "lookup", "description": "", "parameters": {"type": "object", "properties": {}}}}])
    message = caller.invoke("look it up")
    assert message.tool_calls[0]["name"] == "lookup", message
    reply = caller.invoke(
        [HumanMessage("look it up"), message, ToolMessage("found", tool_call_id=message.tool_calls[0]["id"])])
    assert text(reply), reply
print("langchain-openai", flush=True)

# litellm: chat completions, Responses and Anthropic's Messages.
import litellm

litellm.telemetry = False
answer = litellm.completion(
    model="openai/" + short, api_base=base, api_key=key, messages=[{"role": "user", "content": "hello"}], num_retries=0)
assert answer.choices[0].message.content == words(20), answer
stream = litellm.completion(
    model="openai/" + short, api_base=base, api_key=key, messages=[{"role": "user", "content": "hello"}], stream=True)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == words(20)
answer = litellm.responses(model="openai/" + short, api_base=base, api_key=key, input="hello")
assert answer.output[0].content[0].text == words(20), answer
answer = litellm.completion(
    model="anthropic/" + short, api_base=base.removesuffix("/v1"), api_key=key,
    messages=[{"role": "user", "content": "hello"}], max_tokens=100)
assert answer.choices[0].message.content == words(20), answer
print("litellm", flush=True)

# pydantic-ai: chat completions and Responses.
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=base, api_key=key)
for kind in (OpenAIChatModel, OpenAIResponsesModel):
    output = Agent(kind(short, provider=provider)).run_sync("hello").output
    assert output.strip() == words(20).strip(), (kind, output)
print("pydantic-ai", flush=True)

# llm: its command line.
home = tempfile.mkdtemp()

with open(os.path.join(home, "extra-openai-models.yaml"), "w") as file:
    file.write(f"- model_id: house\n  model_name: {short}\n  api_base: \"{base}\"\n  api_key_name: openai\n")
outcome = subprocess.run(
    [sys.executable, "-m", "llm", "-m", "house", "--key", key, "hello"], env={**os.environ, "LLM_USER_PATH": home},
    capture_output=True, text=True)
assert outcome.stdout.strip() == words(20).strip(), outcome
print("all checks passed")
