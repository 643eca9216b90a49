"""The entry of a gateway process."""

import sys

from serve import log
from serve.gateway.config import Config
from serve.gateway.server import run


def main() -> None:
    config = Config.from_json(sys.argv[1])
    log.configure(config.log_level, "gateway")
    run(config)


main()
