"""A program of somebody who uses litellm as a client: URL and model on the command line, what it
got as JSON on stdout. Runs in an environment of its own.
"""

import asyncio
import json
import sys
from typing import Any

import litellm  # type: ignore[import-not-found]

litellm.suppress_debug_info = True  # it prints advice among what we print
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def main(url: str, model: str) -> None:
    how: dict[str, Any] = {"messages": QUESTION, "temperature": 0, "max_tokens": 32}
    openai = how | {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "none"}
    whole = litellm.completion(**openai)
    chunks = list(litellm.completion(**openai, stream=True))
    awaited = asyncio.run(litellm.acompletion(**openai))
    anthropic = litellm.completion(**how, model=f"anthropic/{model}", api_base=url, api_key="none")
    ollama = litellm.completion(**how, model=f"ollama_chat/{model}", api_base=url)
    told = {
        "whole": whole.choices[0].message.content,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
        "awaited": awaited.choices[0].message.content,
        "anthropic": anthropic.choices[0].message.content,
        "ollama": ollama.choices[0].message.content,
        "tokens": whole.usage.prompt_tokens,
    }
    try:
        litellm.completion(**openai | {"model": "openai/nobody"})
    except litellm.NotFoundError:
        told["error"] = "not found"
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
