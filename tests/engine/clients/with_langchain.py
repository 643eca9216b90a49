"""A program of somebody who uses langchain-openai: URL and model on the command line, what it got
as JSON on stdout. Runs in an environment of its own.
"""

import asyncio
import json
import sys

from langchain_core.tools import tool  # type: ignore[import-not-found]
from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str


@tool  # type: ignore[untyped-decorator]
def look_up(city: str) -> str:
    """Look a city up."""
    return city


def main(url: str, model: str) -> None:
    chat = ChatOpenAI(
        base_url=f"{url}/v1", api_key="none", model=model, temperature=0, max_tokens=32,
        max_retries=0,
    )  # fmt: skip
    question = "What is the capital of France?"
    whole = chat.invoke(question)
    streamed = "".join(str(chunk.content) for chunk in chat.stream(question))
    awaited = asyncio.run(chat.ainvoke(question))
    called = chat.bind_tools([look_up], tool_choice="look_up").invoke("Look up Paris.")
    # Arguments that are no object make it an invalid call, which a model of this size may write.
    calls = [*called.tool_calls, *called.invalid_tool_calls]
    city = chat.with_structured_output(City, method="json_schema").invoke(question)
    told = {
        "whole": whole.content,
        "streamed": streamed,
        "awaited": awaited.content,
        "usage": dict(whole.usage_metadata),
        "tool": calls[0]["name"],
        "city": city.name,
    }
    print(json.dumps(told, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
