"""One table of settings. The first of these wins: flag, environment, `inhouse.yaml`, default.

In: flags, an environment, a file. Out: `Settings`, or a refusal that names place, key and value.
"""

from serve.settings.groups import Setting, Settings, table
from serve.settings.reading import load, without_secrets
from serve.settings.sections import ModelTerms

__all__ = ["ModelTerms", "Setting", "Settings", "load", "table", "without_secrets"]
