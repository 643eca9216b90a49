"""Lets vLLM look at architectures, once each: `learn.py ARCHITECTURE...`.

Run with a runtime's Python. vLLM keeps what it learns of an architecture in its cache; an engine
that finds nothing there starts one more Python for it, which imports all of vLLM: nine seconds.
"""

import sys

from vllm.model_executor.models import registry

if __name__ == "__main__":
    setattr(registry, "_run_in_subprocess", lambda look: look())  # noqa: B010
    for name in registry.ModelRegistry.models.keys() & sys.argv[1:]:  # another test says who is not
        registry.ModelRegistry.models[name].inspect_model_cls()
