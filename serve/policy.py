"""What the operator allows to be held and served: licences, kinds of sources, repositories."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from serve.catalog import ModelSpec
from serve.errors import NotAllowed
from serve.sources import Kind


@dataclass(frozen=True, slots=True)
class Policy:
    """Allow-lists; an empty one allows everything.

    `licenses`: names of licences ("Apache-2.0"), or "commercial:yes" for all that permit
    commercial use without conditions (as well :conditions, :no, :unknown). `sources`: kinds.
    `repos`: patterns of origins, as "Qwen/*". Case does not matter.
    """

    licenses: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    repos: tuple[str, ...] = ()

    def check(self, spec: ModelSpec, kind: Kind | None = None, origin: str | None = None) -> None:
        """NotAllowed, with the rule, unless every list allows the model.

        `kind`, `origin`: how and whence the weights really come, where that is not as the catalog
        says (a bundle, a source that the operator chose).
        """
        license_ = (spec.license.name, f"commercial:{spec.license.commercial}")
        _check(spec.name, "policy.licenses", license_, self.licenses)
        _check(spec.name, "policy.sources", (kind or spec.source.kind,), self.sources)
        _check(spec.name, "policy.repos", (origin or spec.origin,), self.repos)


def _check(name: str, rule: str, values: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    patterns = [pattern.casefold() for pattern in allowed]
    if patterns and not any(
        fnmatchcase(value.casefold(), pattern) for value in values for pattern in patterns
    ):
        raise NotAllowed(name, rule, values[0], allowed)
