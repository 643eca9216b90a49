"""vLLM as a neighbour: runtimes, commands, and the lives of engines from spare to reaped."""

from serve.engine.doctor import doctor_checks
from serve.engine.life import Engine
from serve.engine.pool import EnginePool, PoolConfig
from serve.engine.process import Child
from serve.engine.runtime import Runtimes

__all__ = ["Child", "Engine", "EnginePool", "PoolConfig", "Runtimes", "doctor_checks"]
