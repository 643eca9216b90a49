"""Every error has its words at both edges; everything shipped can be read."""

import pytest

from serve.catalog import load_catalog
from serve.cli.errors import TABLE as CLI
from serve.errors import InhouseError, leaves
from serve.gateway.errors import TABLE as GATEWAY

STARTER = "smollm2-135m-instruct"


@pytest.mark.parametrize("kind", leaves())
def test_every_error_has_a_row_at_both_edges(kind: type[InhouseError]) -> None:
    assert kind in GATEWAY, f"serve/gateway/errors.py: TABLE has no row for {kind.__name__}"
    assert kind in CLI, f"serve/cli/errors.py: TABLE has no row for {kind.__name__}"


@pytest.mark.parametrize("table", [GATEWAY, CLI], ids=["gateway", "cli"])
def test_no_row_is_for_an_error_that_is_no_more(table: dict[type[InhouseError], object]) -> None:
    gone = [kind.__name__ for kind in table if kind not in leaves()]
    assert not gone, f"rows for what is no leaf of the tree: {gone}"


def test_statuses_say_whose_fault_it_is() -> None:
    for kind, row in GATEWAY.items():
        is_clients = row.type in ("invalid_request_error", "rate_limit_error")
        assert (400 <= row.status < 500) == is_clients, f"{kind.__name__}: {row.status} {row.type}"


def test_the_shipped_catalog_loads_and_every_name_means_one_model() -> None:
    catalog = load_catalog()
    names = [name.casefold() for spec in catalog.specs for name in (spec.name, *spec.aliases)]
    assert sorted(names) == sorted(set(names))
    assert all(catalog.find(name) for name in names)


def test_the_starter_is_in_the_catalog_and_needs_no_hub() -> None:
    assert type(load_catalog().find(STARTER).source).__name__ == "WheelSource"
