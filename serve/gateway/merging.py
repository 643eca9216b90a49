"""Several pages of Prometheus' text as one: the engines', and those of the gateways beside us."""

from collections.abc import Mapping


def merge(texts: Mapping[str, str], prefix: str = "vllm:", label: str = "replica") -> str:
    """One page out of `texts` (value of `label` → Prometheus text).

    Only series that begin with `prefix`, each sample with the label, each family described once and
    its samples together, as the format demands.
    """
    families: dict[str, list[str]] = {}
    comments = (f"# HELP {prefix}", f"# TYPE {prefix}")
    for value, text in texts.items():
        pair = f'{label}="' + value.replace("\\", r"\\").replace('"', r"\"") + '"'
        family = ""
        for line in text.splitlines():
            if line.startswith(comments):
                family = line.split(" ", 3)[2]
                lines = families.setdefault(family, [])
                if line not in lines[:2]:
                    _describe(lines, line)
            elif line.startswith(prefix) and line[:1] not in ("", "#"):
                name = line.partition(" ")[0].partition("{")[0]
                owner = family if family and name.startswith(family) else name
                families.setdefault(owner, []).append(_labelled(line, name, pair))
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _describe(lines: list[str], line: str) -> None:
    """Put a HELP or TYPE line before the samples, unless another page has said it already."""
    kind = line[:6]
    described = [known for known in lines if known.startswith("# ")]
    if not any(known.startswith(kind) for known in described):
        lines.insert(len(described), line)


def _labelled(line: str, name: str, pair: str) -> str:
    rest = line[len(name) :]
    if not rest.startswith("{"):
        return f"{name}{{{pair}}}{rest}"
    separator = "" if rest.startswith("{}") else ","
    return f"{name}{{{pair}{separator}{rest[1:]}"
