"""What a request will take, before anybody has counted: learned from what others took. Pure."""

from serve.gateway.body import Asked

_FIRST_TOKENS_PER_BYTE = 0.3
_FIRST_OUTPUT_TOKENS = 256.0
_WEIGHT = 0.02  # of the newest answer
_MOST_TOKENS_PER_BYTE = 1.0  # a byte of text is at most one token, whatever an engine says


class Estimate:
    """What is usual for one model."""

    __slots__ = ("_output_tokens", "_tokens_per_byte")

    def __init__(self) -> None:
        self._tokens_per_byte = _FIRST_TOKENS_PER_BYTE
        self._output_tokens = _FIRST_OUTPUT_TOKENS

    def input_tokens(self, size_bytes: int) -> int:
        """Of a prompt of so many bytes."""
        return int(size_bytes * self._tokens_per_byte) + 1

    def output_tokens(self, asked: Asked, context_tokens: int) -> int:
        """Of all answers together: at most, if the client says so, else as usual."""
        most = asked.most_output or int(self._output_tokens) + 1
        return min(most, context_tokens or most) * asked.answers

    def learn(self, size_bytes: int, input_tokens: int, output_tokens: int) -> None:
        """A request has been answered."""
        if size_bytes and input_tokens:
            rate = min(input_tokens / size_bytes, _MOST_TOKENS_PER_BYTE)
            self._tokens_per_byte += _WEIGHT * (rate - self._tokens_per_byte)
        self._output_tokens += _WEIGHT * (output_tokens - self._output_tokens)
