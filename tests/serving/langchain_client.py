"""Asks a server everything through LangChain: langchain_client.py http://127.0.0.1:8080/v1"""

import asyncio
import sys

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field

URL = sys.argv[1]


def chat(most=10, **more):
    known = {"base_url": URL, "api_key": "sesame", "model": "any", "temperature": 0, "max_retries": 0}
    return ChatOpenAI(**known, max_tokens=most, **more)


class Child(BaseModel):
    """A child."""

    name: str = Field(max_length=10)
    age: int = Field(ge=0, le=99)


@tool
def look(place: str) -> str:
    """Looks somewhere."""
    return f"a cat at {place}"


def joined(chunks):
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


# Whole, streamed, several at once.
text = chat().invoke("One day").content
assert len(text) > 20, text
assert chat().invoke([SystemMessage("Be kind."), HumanMessage("One day")]).content
assert chat().invoke([HumanMessage([{"type": "text", "text": "One day"}])]).content == text
chunks = list(chat(stream_usage=True).stream("One day"))
assert len(chunks) > 8 and joined(chunks).content == text and joined(chunks).usage_metadata["output_tokens"] == 10
assert [answer.content for answer in chat().batch(["One day"] * 3)] == [text] * 3
word = text.split()[2]
assert chat(stop=[word]).invoke("One day").content == text[: text.index(word)]

# Likelihoods.
for likely in (
    chat(logprobs=True, top_logprobs=2).invoke("One day"),
    joined(list(chat(logprobs=True, top_logprobs=2).stream("One day"))),
):
    found = likely.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in found) == text, found

# Tools, forced and free, whole and streamed, and what they found.
for forced in ("required", "look"):
    called = chat(80).bind_tools([look], tool_choice=forced).invoke("Look at the hill.")
    [call] = called.tool_calls
    assert call["name"] == "look" and set(call["args"]) == {"place"}, called
streamed = joined(list(chat(80).bind_tools([look], tool_choice="any").stream("Look at the hill.")))
assert set(streamed.tool_calls[0]["args"]) == {"place"}, streamed
talk = ["Look at the hill.", called, ToolMessage(look.invoke(call["args"]), tool_call_id=call["id"])]
assert chat().bind_tools([look]).invoke(talk).content

# Answers by a schema, in every way that there is.
for more in ({"method": "json_schema"}, {"method": "json_schema", "strict": True}, {"method": "function_calling"}):
    assert isinstance(chat(80).with_structured_output(Child, **more).invoke("Tim was a boy."), Child), more
schema = {"title": "pet", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
assert set(chat(80).with_structured_output(schema).invoke("A dog")) == {"name"}

# Completions.
plain = OpenAI(base_url=URL, api_key="sesame", model="any", temperature=0, max_tokens=10, max_retries=0)
assert plain.invoke("One day") == text and "".join(plain.stream("One day")) == text


async def later():
    assert (await chat().ainvoke("One day")).content == text
    assert "".join([chunk.content async for chunk in chat().astream("One day")]) == text
    assert {answer.content for answer in await chat().abatch(["One day"] * 6)} == {text}
    assert len([event async for event in chat().astream_events("One day", version="v2")]) > 10


asyncio.run(later())
