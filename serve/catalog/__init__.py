"""What may be served: `models.yaml`, parsed and checked once. Knows nothing of disks or devices."""

from serve.catalog.catalog import Catalog
from serve.catalog.load import load_catalog
from serve.catalog.spec import ModelSpec

__all__ = ["Catalog", "ModelSpec", "load_catalog"]
