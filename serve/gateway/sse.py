"""Server-sent events out of bytes that may be cut anywhere."""


class Events:
    """Feed it what comes; it gives back the data of each event that is complete.

    After the WHATWG's rules, as far as they matter here: lines end with LF, CRLF or CR, a line
    with a colon first is a comment, several `data` lines are one text. What is incomplete at the
    end is dropped. Costs as much as there are bytes, however they are cut.
    """

    __slots__ = ("_bytes_of_line", "_data", "_ends_with_cr")

    def __init__(self) -> None:
        self._bytes_of_line: list[bytes] = []  # of the line that has no end yet
        self._data: list[bytes] = []  # of the event that has no end yet
        self._ends_with_cr = False  # then an LF that comes first belongs to it

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that ends in `piece`, in order."""
        if not piece:
            return []
        if self._ends_with_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._ends_with_cr = False
            if not piece:
                return []
        self._ends_with_cr = piece.endswith(b"\r")
        lines = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._bytes_of_line.append(lines[0])
        if len(lines) == 1:
            return []
        lines[0] = b"".join(self._bytes_of_line)
        self._bytes_of_line = [lines.pop()]
        found = (self._take(line) for line in lines)
        return [data for data in found if data is not None]

    def _take(self, line: bytes) -> bytes | None:
        if not line:
            data, self._data = self._data, []
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None
