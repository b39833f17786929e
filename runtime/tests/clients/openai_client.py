#!/usr/bin/env python3
"""Drives a served model with the official `openai` client: what that client cannot parse or mistakes is a bug here.

    pip install openai
    coterie serve --model DIR --port 8080 &
    python3 openai_client.py http://127.0.0.1:8080/v1 NAME
"""

import sys

import openai


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


def main(base_url, model):
    client = openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=120)
    messages = [{"role": "user", "content": "What is gravity?"}]
    greedy = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24}

    listed = [entry.id for entry in client.models.list()]
    check("models.list", listed == [model], listed)
    check("models.retrieve", client.models.retrieve(model).id == model, None)

    whole = client.chat.completions.create(**greedy)
    choice = whole.choices[0]
    check("chat", choice.message.role == "assistant" and choice.message.content, choice)
    check("finish_reason", choice.finish_reason in ("stop", "length"), choice)
    usage = whole.usage
    check("usage adds up", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)

    chunks = list(client.chat.completions.create(**greedy, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check("the stream is the same answer", text == choice.message.content, text)
    check("the stream counts the same", chunks[-1].usage.total_tokens == usage.total_tokens and not chunks[-1].choices,
          chunks[-1])
    check("the stream begins with the role", chunks[0].choices[0].delta.role == "assistant", chunks[0])

    with client.chat.completions.stream(model=model, messages=messages, temperature=0, max_tokens=24) as events:
        text = "".join(event.delta for event in events if event.type == "content.delta")
    check("the stream helper assembles it", text == choice.message.content, text)

    seeded = {"model": model, "messages": messages, "seed": 7, "max_tokens": 12}
    first, again = [client.chat.completions.create(**seeded).choices[0].message.content for _ in range(2)]
    check("a seed repeats itself", first == again, (first, again))

    several = client.chat.completions.create(**seeded, n=3)
    check("n choices", [c.index for c in several.choices] == [0, 1, 2], several)
    check("the first is the one of n = 1", several.choices[0].message.content == first, several)
    check("their prompt counts once", several.usage.prompt_tokens == usage.prompt_tokens, several.usage)
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**seeded, n=3, stream=True):
        for part in chunk.choices:
            streamed[part.index] += part.delta.content or ""
    check("n choices streamed", streamed == [c.message.content for c in several.choices], streamed)
    again = client.chat.completions.create(**greedy).usage.prompt_tokens_details.cached_tokens
    check("a prompt that came before is cached", 0 < again < usage.prompt_tokens, again)

    vllm = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "priority": 3, "cache_salt": "mine"}
    knobs = client.chat.completions.create(
        **greedy, presence_penalty=0.5, frequency_penalty=0.5, logit_bias={"5": 100}, extra_body=vllm)
    check("all knobs at once", knobs.choices[0].message.content != choice.message.content, knobs)
    check("a salt keeps the cache apart", knobs.usage.prompt_tokens_details.cached_tokens == 0, knobs.usage)

    stop = choice.message.content.split()[2]
    cut = client.chat.completions.create(**greedy, stop=[stop]).choices[0]
    check("a stop string cuts", stop not in cut.message.content and cut.finish_reason == "stop", cut)

    scored = client.chat.completions.create(**greedy, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    spelled = b"".join(bytes(token.bytes) for token in scored).decode()
    check("logprobs spell the answer", spelled == choice.message.content, spelled)
    check("greedy takes the most probable", all(t.token == t.top_logprobs[0].token for t in scored), scored)

    completion = client.completions.create(model=model, prompt="The sea is", max_tokens=8, temperature=0, logprobs=2, echo=True)
    choice = completion.choices[0]
    check("completion with echo", choice.text.startswith("The sea is"), choice)
    check("its columns are equally long", len({len(column) for column in (
        choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs,
        choice.logprobs.text_offset)}) == 1, choice.logprobs)
    pieces = [c.choices[0].text for c in client.completions.create(
        model=model, prompt="The sea is", max_tokens=8, temperature=0, stream=True)]
    check("completion stream", "The sea is" + "".join(pieces) == choice.text, pieces)
    prompts = client.completions.create(model=model, prompt=["The sea is", "The sky is"], n=2, max_tokens=4, seed=3)
    check("two prompts, two choices each", [c.index for c in prompts.choices] == [0, 1, 2, 3], prompts)
    tokens = client.completions.create(model=model, prompt=[1, 2, 3], max_tokens=2).usage
    check("completion of token ids", tokens.prompt_tokens == 3 and tokens.completion_tokens <= 2, tokens)

    refusal = refused("an unknown parameter", openai.BadRequestError, lambda: client.chat.completions.create(
        **greedy, extra_body={"no_such_thing": 1}))
    check("... is named", refusal.param == "no_such_thing" and refusal.code == "unknown_parameter", refusal.body)
    refusal = refused("a wrong temperature", openai.BadRequestError, lambda: client.chat.completions.create(
        **{**greedy, "temperature": 9}))
    check("... is named", refusal.param == "temperature", refusal.body)
    refusal = refused("a prompt too long", openai.BadRequestError, lambda: client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "word " * 400_000}]))
    check("... is told", refusal.code == "context_length_exceeded", refusal.body)
    refusal = refused("another model", openai.NotFoundError, lambda: client.chat.completions.create(
        **{**greedy, "model": "gpt-4"}))
    check("... is told", refusal.code == "model_not_found", refusal.body)
    refused("a body too large", openai.APIStatusError, lambda: client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "x" * (11 << 20)}]))

    stream = client.chat.completions.create(**{**greedy, "max_tokens": 500}, stream=True)
    next(iter(stream))
    stream.close()
    check("a stream can be left", client.chat.completions.create(**greedy).choices, None)
    print("all of it holds")


if __name__ == "__main__":
    main(*sys.argv[1:])
