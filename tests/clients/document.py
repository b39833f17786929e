#!/usr/bin/env python3
"""Holds a server to the OpenAPI document that it publishes: schemathesis asks for what the document allows and for what
it does not, and streams are read event by event.

    python3 document.py http://127.0.0.1:8080
"""

import json
import subprocess
import sys
import tempfile
import urllib.request

import jsonschema_rs

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
]
EXAMPLES = 120


def schema_of(document, name):
    """The component `name` as a schema that stands for itself."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"],
            "$ref": f"#/components/schemas/{name}"}


def streams(base_url, document):
    """Every event of a stream is what the document says."""
    model = document["components"]["schemas"]["ChatRequest"]["properties"]["model"]["const"]
    shared = {"model": model, "stream": True, "max_tokens": 8, "n": 2, "seed": 1}
    options = {"include_usage": True, "continuous_usage_stats": True}
    chat = {"messages": [{"role": "user", "content": "Hi."}]}
    for path, body in [
        ("/v1/chat/completions", {**shared, **chat}),
        ("/v1/chat/completions", {**shared, **chat, "stream_options": options, "logprobs": True, "top_logprobs": 2}),
        ("/v1/completions", {**shared, "prompt": "Hi."}),
        ("/v1/completions", {**shared, "prompt": ["a", [1, 2]], "stream_options": options, "logprobs": 2, "echo": True}),
    ]:
        content = document["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]
        validator = jsonschema_rs.validator_for(schema_of(document, content["x-event"]["$ref"].split("/")[-1]))
        request = urllib.request.Request(base_url + path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            *events, done = answer.read().decode().strip().split("\n\n")
        assert done == "data: [DONE]", done
        for event in events:
            validator.validate(json.loads(event.removeprefix("data: ")))
        print(f"ok    {len(events)} events of {path}", flush=True)


def main(base_url):
    with urllib.request.urlopen(base_url + "/openapi.json", timeout=60) as answer:
        document = json.load(answer)
    streams(base_url, document)
    schemathesis = [
        sys.executable, "-m", "schemathesis.cli", "run", base_url + "/openapi.json", "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1", "--max-failures", "5",
        "--request-timeout", "60", "--suppress-health-check", "all", "--no-color",
    ]
    # It keeps what it found in the folder that it runs in.
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(subprocess.run(schemathesis, cwd=folder).returncode)


if __name__ == "__main__":
    main(*sys.argv[1:])
