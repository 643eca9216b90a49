"""Every operation of our OpenAPI document, asked with generated requests."""

import json
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.core import result as results
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve.gateway.openapi import document

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@dataclass
class Walk:
    """What was asked, and what was not as the document says."""

    count: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def walk(url: str, examples: int, seed: int, model: str) -> Walk:
    """Ask each operation `examples` times with what the document allows, half of it of `model`, and
    as often with what it does not allow."""
    done = Walk()
    schema = schemathesis.openapi.from_dict(json.loads(document()))
    for result in schema.get_all_operations():
        assert isinstance(result, results.Ok), result
        operation = result.ok()
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            _ask(operation, mode, (url, examples, seed, model), done)
    return done


def _ask(operation: Any, mode: GenerationMode, how: tuple[Any, ...], done: Walk) -> None:
    url, examples, seed, model = how

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        done.count += 1
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and done.count % 2:
            case.body["model"] = model
        response = case.call(base_url=url)
        done.statuses[response.status_code] = done.statuses.get(response.status_code, 0) + 1
        case.validate_response(response, checks=_CHECKS)

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        pass  # there is nothing that such a request could do wrong
    except (Failure, FailureGroup) as failure:
        done.failures.append(f"{operation.label} {mode.value}: {failure}")
