"""What the reference reader says of safetensors files; run with a Python that has `safetensors`.

A line in: a file in base64. A line out: "yes", or "no" and why.
"""

import base64
import sys

import safetensors

for line in sys.stdin:
    try:
        safetensors.deserialize(base64.b64decode(line))
    except safetensors.SafetensorError as error:
        print("no", str(error).splitlines()[0], flush=True)
    else:
        print("yes", flush=True)
