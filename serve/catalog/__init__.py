"""What may be served: `models.yaml`, parsed and checked once. Knows nothing of disks or devices."""

from serve.catalog.catalog import Catalog
from serve.catalog.facts import Extension, Facts
from serve.catalog.load import load_catalog
from serve.catalog.spec import License, ModelSpec

__all__ = ["Catalog", "Extension", "Facts", "License", "ModelSpec", "load_catalog"]
