"""A program of somebody who uses langchain-openai: URL and model on the command line, what it got
as JSON on stdout. Runs in an environment of its own.
"""

import asyncio
import json
import sys

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str


def main(url: str, model: str) -> None:
    chat = ChatOpenAI(
        base_url=f"{url}/v1", api_key="none", model=model, temperature=0, max_tokens=32,
        max_retries=0,
    )  # fmt: skip
    question = "What is the capital of France?"
    whole = chat.invoke(question)
    streamed = "".join(str(chunk.content) for chunk in chat.stream(question))
    awaited = asyncio.run(chat.ainvoke(question))
    city = chat.with_structured_output(City, method="json_schema").invoke(question)
    told = {
        "whole": whole.content,
        "streamed": streamed,
        "awaited": awaited.content,
        "usage": dict(whole.usage_metadata),
        "city": city.name,
    }
    print(json.dumps(told, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
