#!/usr/bin/env python3
"""Drives a served model with the official `openai` client: what that client cannot parse or mistakes is a bug here.

    pip install --require-hashes -r requirements.txt
    coterie serve --model DIR --port 8080 --max-running 4 --max-waiting 4 &
    python3 openai_client.py http://127.0.0.1:8080/v1 NAME

The model should talk: answers are compared with each other, not with what a good answer is. The queue should be short.
"""

import sys
import time
from typing import Annotated, Literal

import openai
from pydantic import BaseModel, Field

QUESTION = [{"role": "user", "content": "What is gravity?"}]


class Planet(BaseModel):
    """Bounded in every field, so that any model ends."""

    name: Literal["Mars", "Venus"]
    moons: Annotated[int, Field(ge=0, le=2)]
    rings: bool


class GetWeather(BaseModel):
    """The weather at a place."""

    city: Literal["Paris", "Rome"]
    celsius: bool


def check(what, holds, seen):
    """Says what was checked; ends at the first thing that does not hold."""
    print(("ok    " if holds else "WRONG ") + what, flush=True)
    if not holds:
        sys.exit(f"saw: {seen!r}")


def refused(what, error, call):
    """`call` must raise `error`; gives it back."""
    try:
        seen = call()
    except error as refusal:
        check(what, True, refusal)
        return refusal
    check(what, False, seen)


class Client:
    """The official client and one model."""

    def __init__(self, base_url, model):
        self.openai = openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=300)
        self.model = model

    def chat(self, messages=QUESTION, **more):
        return self.openai.chat.completions.create(
            **{"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 12, **more})

    def complete(self, prompt, **more):
        return self.openai.completions.create(
            **{"model": self.model, "prompt": prompt, "temperature": 0, "max_tokens": 6, **more})


def models(client):
    listed = [entry.id for entry in client.openai.models.list()]
    check("models.list", listed == [client.model], listed)
    check("models.retrieve", client.openai.models.retrieve(client.model).id == client.model, None)
    refusal = refused("models.retrieve of another", openai.NotFoundError, lambda: client.openai.models.retrieve("gpt-4"))
    check("... is told", refusal.code == "model_not_found", refusal.body)


def chat(client):
    whole = client.chat()
    choice = whole.choices[0]
    check("chat", choice.message.role == "assistant" and choice.message.content, choice)
    check("finish_reason", choice.finish_reason in ("stop", "length"), choice)
    usage = whole.usage
    check("usage adds up", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)

    chunks = list(client.chat(stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check("the stream is the same answer", text == choice.message.content, text)
    last = chunks[-1]
    counted = (last.usage.prompt_tokens, last.usage.completion_tokens)
    check("the stream counts the same", counted == (usage.prompt_tokens, usage.completion_tokens), last)
    check("... in a chunk of its own", not last.choices and all(c.usage is None for c in chunks[:-1]), last)
    check("the stream begins with the role", chunks[0].choices[0].delta.role == "assistant", chunks[0])
    check("one id in all of it", len({c.id for c in chunks}) == 1, {c.id for c in chunks})

    with client.openai.chat.completions.stream(
            model=client.model, messages=QUESTION, temperature=0, max_tokens=12) as events:
        text = "".join(event.delta for event in events if event.type == "content.delta")
        final = events.current_completion_snapshot.choices[0].message.content
    check("the stream helper assembles it", text == choice.message.content == final, (text, final))

    again = client.chat().usage
    cached = again.prompt_tokens_details.cached_tokens
    check("a prompt that came before is cached", 0 < cached < usage.prompt_tokens, again)
    vllm = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "priority": 3, "cache_salt": "mine"}
    turned = client.chat(presence_penalty=0.5, frequency_penalty=0.5, logit_bias={"5": 100}, extra_body=vllm)
    check("all knobs at once", turned.choices[0].message.content != choice.message.content, turned)
    check("a salt keeps the cache apart", turned.usage.prompt_tokens_details.cached_tokens == 0, turned.usage)

    stop = choice.message.content.split()[2]
    cut = client.chat(stop=[stop]).choices[0]
    check("a stop string cuts", stop not in cut.message.content and cut.finish_reason == "stop", cut)

    scored = client.chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
    spelled = b"".join(bytes(token.bytes) for token in scored).decode()
    check("logprobs spell the answer", spelled == choice.message.content, spelled)
    check("greedy takes the most probable", all(t.token == t.top_logprobs[0].token for t in scored), scored)


def choices(client):
    seeded = {"seed": 7, "temperature": 1, "max_tokens": 8}
    first, again = [client.chat(**seeded).choices[0].message.content for _ in range(2)]
    check("a seed repeats itself", first == again, (first, again))
    several = client.chat(n=3, **seeded)
    texts = [choice.message.content for choice in several.choices]
    check("n choices in order", [choice.index for choice in several.choices] == [0, 1, 2], several.choices)
    check("the first is that of its seed alone", texts[0] == first, (texts, first))
    check("they differ", len(set(texts)) > 1, texts)
    pieces = ["", "", ""]
    for chunk in client.chat(n=3, stream=True, **seeded):
        for choice in chunk.choices:
            pieces[choice.index] += choice.delta.content or ""
    check("... and stream as they are", pieces == texts, pieces)
    usage = several.usage
    check("their prompt counts once", usage.prompt_tokens == client.chat().usage.prompt_tokens, usage)
    refused("n that is too much", openai.BadRequestError, lambda: client.chat(n=10_000))


def completions(client):
    choice = client.complete("The sea is", logprobs=2, echo=True).choices[0]
    check("completion with echo", choice.text.startswith("The sea is"), choice)
    columns = choice.logprobs
    lengths = {len(column) for column in (
        columns.tokens, columns.token_logprobs, columns.top_logprobs, columns.text_offset)}
    check("its columns are equally long", len(lengths) == 1, columns)
    pieces = [c.choices[0].text for c in client.complete("The sea is", stream=True)]
    check("completion stream", "The sea is" + "".join(pieces) == choice.text, pieces)
    tokens = client.complete([1, 2, 3], max_tokens=2).usage
    check("completion of token ids", tokens.prompt_tokens == 3 and tokens.completion_tokens <= 2, tokens)
    both = client.complete(["The sea is", "The sky is"], n=2)
    check("several prompts, two choices each", [c.index for c in both.choices] == [0, 1, 2, 3], both)
    check("... each for itself", "The sea is" + both.choices[0].text == choice.text, both)


def structure(client):
    parsed = client.openai.chat.completions.parse(
        model=client.model, messages=[{"role": "user", "content": "Name a planet, as JSON."}], temperature=0,
        max_tokens=120, response_format=Planet).choices[0]
    check("a pydantic model is parsed", isinstance(parsed.message.parsed, Planet), parsed)
    text = client.chat(response_format={"type": "json_object"}, max_tokens=4).choices[0].message.content
    check("a JSON object begins as one", text.lstrip().startswith("{"), text)
    refusal = refused("a schema that is none", openai.BadRequestError, lambda: client.chat(response_format={
        "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}))
    check("... is named", (refusal.param or "").startswith("response_format"), refusal.body)


def tools(client):
    asked = [{"role": "user", "content": "How is the weather in Rome?"}]
    tool = openai.pydantic_function_tool(GetWeather)
    forced = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 120}
    whole = client.chat(asked, **forced).choices[0]
    calls = whole.message.tool_calls or []
    check("a required call is made", [call.function.name for call in calls] == ["GetWeather"], whole)
    check("... and is why the answer ends", whole.finish_reason == "tool_calls", whole)
    arguments = GetWeather.model_validate_json(calls[0].function.arguments)

    with client.openai.chat.completions.stream(
            model=client.model, messages=asked, temperature=0, **forced) as events:
        deltas = "".join(e.arguments_delta for e in events if e.type == "tool_calls.function.arguments.delta")
        final = events.get_final_completion().choices[0].message.tool_calls
    check("the stream helper assembles a call", final[0].function.parsed_arguments == arguments, final)
    check("... from deltas", GetWeather.model_validate_json(deltas) == arguments, deltas)

    named = {"type": "function", "function": {"name": "GetWeather"}}
    chosen = client.chat(asked, **{**forced, "tool_choice": named}).choices[0].message.tool_calls
    check("a function that is named is called", chosen[0].function.name == "GetWeather", chosen)
    turn = [*asked, whole.message.to_dict(),
            {"role": "tool", "tool_call_id": calls[0].id, "content": "Sunny, 25 degrees."}]
    check("the answer to a call goes on", client.chat(turn, tools=[tool], tool_choice="none").choices, None)
    refused("a call without tools", openai.BadRequestError, lambda: client.chat(asked, tool_choice="required"))


def refusals(client):
    refusal = refused("an unknown parameter", openai.BadRequestError,
                      lambda: client.chat(extra_body={"no_such_thing": 1}))
    check("... is named", refusal.param == "no_such_thing" and refusal.code == "unknown_parameter", refusal.body)
    refusal = refused("a wrong temperature", openai.BadRequestError, lambda: client.chat(temperature=9))
    check("... is named", refusal.param == "temperature", refusal.body)
    long = [{"role": "user", "content": "word " * 100_000}]
    refusal = refused("a prompt too long", openai.BadRequestError, lambda: client.chat(long))
    check("... is told", refusal.code == "context_length_exceeded", refusal.body)
    refusal = refused("another model", openai.NotFoundError, lambda: client.chat(model="gpt-4"))
    check("... is told", refusal.code == "model_not_found", refusal.body)
    large = [{"role": "user", "content": "x" * (11 << 20)}]
    refusal = refused("a body too large", openai.APIStatusError, lambda: client.chat(large))
    check("... is told", refusal.status_code == 413, refusal)


def crowd(client):
    """Fills the queue, and leaves."""
    streams = []

    def fill():
        for _ in range(100):
            stream = client.chat(stream=True, max_tokens=500, extra_body={"ignore_eos": True})
            next(iter(stream))
            streams.append(stream)

    refusal = refused("a full queue", openai.RateLimitError, fill)
    check("... says when to come back", int(refusal.response.headers["retry-after"]) > 0, refusal.response.headers)
    for stream in streams:
        stream.close()
    for _ in range(600):
        try:
            check("streams that are left make room", client.chat().choices, None)
            return
        except openai.RateLimitError:
            time.sleep(0.1)
    check("streams that are left make room", False, "the queue stays full")


def main(base_url, model):
    client = Client(base_url, model)
    for part in (models, chat, choices, completions, structure, tools, refusals, crowd):
        print(f"-- {part.__name__}", flush=True)
        part(client)
    print("all of it holds")


if __name__ == "__main__":
    main(*sys.argv[1:])
