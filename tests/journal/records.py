"""Records for tests."""

from serve.journal import End, Refusal, Start


def start(number: int, at: float = 1000.0, slot: int = 0) -> Start:
    """The beginning of request number so-and-so."""
    return Start(f"r{number}", at, "k1", "acme", "tiny", "chat/completions", 10 + number, slot)


def end(number: int, at: float = 1000.0) -> End:
    """Its end."""
    return End(
        f"r{number}", at, "k1", "acme", "tiny", "chat/completions", "tiny/0", 200, "ok",
        input_tokens=10 + number, cached_tokens=4, output_tokens=20, reasoning_tokens=5,
        queue_s=0.25, ttft_s=0.5, duration_s=2.0, cost_nanos=1_000 + number,
    )  # fmt: skip


def refusal(number: int) -> Refusal:
    """Of a request that was never begun."""
    return Refusal(f"x{number}", 1000.0, "", "", "models", 401, "invalid_api_key", "10.0.0.9")
