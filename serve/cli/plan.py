"""`inhouse plan`: does it fit, on what, for how many, and what would help. Nothing is started."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer

from serve.cli import machine, output, rooms, verdicts
from serve.cli.errors import FIT
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.planned import Finder, Planned
from serve.cli.planning import as_typed, over, settled, with_wishes
from serve.errors import SettingsError
from serve.hardware import Machine, imagine
from serve.plan import Verdict, Wishes, judge
from serve.profiles import Profile, ProfileKey
from serve.settings import Settings

Models = Annotated[
    list[str],
    typer.Argument(
        help="Catalog names, repositories on the Hub, folders, or config.json files.",
        metavar="MODEL",
    ),
]
Gpus = Annotated[
    list[str] | None,
    typer.Option(
        "--gpus",
        help='Cards that need not be here: "4x RTX 4090", "2x79.2GiB"; more than once to compare.',
        metavar="CARDS",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        "--variant", help="fp8, awq, …; auto: the first number format that fits.", metavar="NAME"
    ),
]
Exact = Annotated[
    bool,
    typer.Option("--headers", help="Read the files' headers on the Hub, for exact sizes."),
]


@with_settings("paths", "hub")
@with_wishes
def plan(
    settings: Settings,
    models: Models,
    wishes: Wishes,
    gpus: Gpus = None,
    variant: Variant = None,
    is_exact: Exact = False,
    is_comparing: Annotated[
        bool, typer.Option("--compare", help="One line for each model and machine.", metavar=" ")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say whether models fit, with what context for how many, before a download."""
    planner = _Planner(settings, wishes, is_exact, variant)
    try:
        places: list[str | None] = [*gpus] if gpus else [None]
        found = [planner.judged(model, cards) for model in models for cards in places]
    except SettingsError as error:
        raise as_typed(error) from error
    is_alone = len(found) == 1 and not is_comparing
    if as_json:
        records = [verdicts.record(verdict) for verdict in found]
        output.put_json(records[0] if is_alone else records)
    elif is_alone:
        verdicts.put(found[0])
    else:
        verdicts.put_comparison(found)
    if not any(verdict.estimate.fits for verdict in found):
        raise typer.Exit(FIT)


class _Planner:
    """The models and machines of one command line."""

    def __init__(
        self, settings: Settings, wishes: Wishes, is_exact: bool, variant: str | None
    ) -> None:
        self._wishes, self._settled = wishes, over(wishes, settled(settings))
        self._finder = Finder(settings, wishes, is_exact)
        self._book = rooms.book(settings)
        self._variant, self._settings = variant, settings
        self._here: Machine | None = None

    def judged(self, model: str, cards: str | None) -> Verdict:
        """One model on one machine: this one, or one that is imagined."""
        if self._variant == "auto":
            return self._first_that_fits(self._finder.find(model), cards)
        return self._judged(self._finder.find(model, self._variant), cards)

    def _first_that_fits(self, base: Planned, cards: str | None) -> Verdict:
        variants = self._finder.variants(base.spec) if base.spec else ()
        tried = [self._judged(each, cards) for each in (base, *variants)]
        return next((each for each in tried if each.estimate.fits), tried[0])

    def _judged(self, planned: Planned, cards: str | None) -> Verdict:
        place = imagine(cards) if cards is not None else self._machine()
        wishes = self._wishes if cards is not None else self._settled
        others: tuple[Planned, ...] = ()
        if planned.spec is not None and planned.spec.variant_of is None:
            others = self._finder.variants(planned.spec)
        return judge(
            planned.geometry, place, wishes, planned.spec or planned.name, self._measured(planned),
            tuple((each.name, each.geometry) for each in others),
        )  # fmt: skip

    def _measured(self, planned: Planned) -> Callable[[ProfileKey], Profile | None] | None:
        """Launches of the very same bytes; without weights here there are none."""
        if not planned.digest:
            return None
        told = (self._settings.engine.args, planned.spec.engine_args if planned.spec else ())
        return lambda key: self._book.find(replace(key, weights=planned.digest).told(*told))

    def _machine(self) -> Machine:
        if self._here is None:
            self._here = machine.read(self._settings)
        return self._here
