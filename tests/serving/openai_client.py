"""Asks a server everything through the official client: openai_client.py http://127.0.0.1:8080/v1"""

import asyncio
import json
import sys

import openai

URL = sys.argv[1]
client = openai.OpenAI(base_url=URL, api_key="sesame", max_retries=0)
MODEL = client.models.list().data[0].id
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "One day"}], "temperature": 0, "max_tokens": 10}

# Whole and streamed.
whole = client.chat.completions.create(**ASK)
text = whole.choices[0].message.content
assert text and whole.usage.completion_tokens == 10 and whole.choices[0].finish_reason == "length", whole
pieces, usage = [], None
for chunk in client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    pieces += [choice.delta.content or "" for choice in chunk.choices]
assert "".join(pieces) == text and len(pieces) > 8 and usage.completion_tokens == 10, pieces

# Several texts, stop texts, likelihoods.
several = client.chat.completions.create(**{**ASK, "temperature": 1.2}, n=3, seed=1)
assert len({choice.message.content for choice in several.choices}) > 1, several
word = text.split()[2]
stopped = client.chat.completions.create(**ASK, stop=[word])
assert stopped.choices[0].finish_reason == "stop" and stopped.choices[0].message.content == text[: text.index(word)]
likely = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=2).choices[0].logprobs.content
assert "".join(token.token for token in likely) == text and len(likely[0].top_logprobs) == 2

# JSON by a schema, also as the client's own helper asks for it.
schema = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
form = {"type": "json_schema", "json_schema": {"name": "child", "strict": True, "schema": schema}}
child = client.chat.completions.create(**{**ASK, "max_tokens": 80}, response_format=form)
child = json.loads(child.choices[0].message.content)
assert set(child) == {"name", "age"} and isinstance(child["age"], int), child
try:
    from pydantic import BaseModel, Field

    class Child(BaseModel):
        name: str = Field(max_length=10)
        age: int = Field(le=99)

    parsed = client.chat.completions.parse(**{**ASK, "max_tokens": 80}, response_format=Child)
    assert isinstance(parsed.choices[0].message.parsed, Child), parsed
except ImportError:
    pass

# Tools.
place = {"type": "object", "properties": {"place": {"enum": ["hill", "sea"]}}, "required": ["place"]}
tool = {"type": "function", "function": {"name": "look", "parameters": {**place, "additionalProperties": False}}}
called = client.chat.completions.create(**{**ASK, "max_tokens": 80}, tools=[tool], tool_choice="required")
call = called.choices[0].message.tool_calls[0]
assert call.function.name == "look" and json.loads(call.function.arguments)["place"] in ("hill", "sea"), called
talk = ASK["messages"] + [called.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "a cat"}]
assert client.chat.completions.create(**{**ASK, "messages": talk}, tools=[tool]).choices

# Completions.
completed = client.completions.create(model=MODEL, prompt="One day", temperature=0, max_tokens=10)
assert completed.choices[0].text == text, completed

# Errors have the client's own exceptions.
for wrong, kind in [({"temperature": 1000}, openai.BadRequestError), ({"n": 0}, openai.BadRequestError)]:
    try:
        client.chat.completions.create(**{**ASK, **wrong})
        raise AssertionError(f"{wrong} was taken")
    except kind as problem:
        assert problem.param in wrong, problem
try:
    openai.OpenAI(base_url=URL, api_key="wrong", max_retries=0).models.list()
    raise AssertionError("a wrong key was taken")
except openai.AuthenticationError:
    pass


# Many at once.
async def many():
    crowd = openai.AsyncOpenAI(base_url=URL, api_key="sesame", max_retries=0)
    answers = await asyncio.gather(*(crowd.chat.completions.create(**ASK) for _ in range(8)))
    assert {answer.choices[0].message.content for answer in answers} == {text}


asyncio.run(many())
