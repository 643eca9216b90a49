"""`inhouse key`: who may come in, to what, how much of it, until when."""

import sys
import time
from typing import Annotated, Any, get_args

import typer

from serve.cli import output
from serve.cli.books import books, changed
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.terms import parse_end, parse_limits, split
from serve.errors import SettingsError
from serve.quota import NANOS, Key, Priority, Scope
from serve.settings import Settings
from serve.units import parse_seconds, show_ago

_HEAD = ("ID", "NAME", "TENANT", "STATE", "EXPIRES", "USED", "MAY")
_LIMITS = {
    "rpm": "{:,} requests/min", "tpm": "{:,} tokens/min", "concurrency": "{:,} at once",
    "tokens_per_day": "{:,} tokens/day", "tokens_per_month": "{:,} tokens/month",
}  # fmt: skip
_BUDGETS = {"nanos_per_day": "budget {:g}/day", "nanos_per_month": "budget {:g}/month"}
_TIMES = ("created_at", "expires_at", "revoked_at", "used_at")
_STDIN = "-"

Name = Annotated[str, typer.Argument(help="Its id, or its name.", metavar="KEY")]


@with_settings("paths", "ledger.url")
def create(
    settings: Settings,
    tenant: Annotated[str, typer.Option("--tenant", help="Who pays, and shares caches.")],
    name: Annotated[str, typer.Option("--name", help="What people call it.")] = "",
    models: Annotated[
        list[str] | None,
        typer.Option("--models", help="Names or patterns, as qwen*; default: all.", metavar="LIST"),
    ] = None,
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help="inference (default), admin, metrics; with commas.", metavar="LIST"
        ),
    ] = None,
    rpm: Annotated[
        str | None, typer.Option("--rpm", help="Requests per minute.", metavar="N")
    ] = None,
    tpm: Annotated[
        str | None, typer.Option("--tpm", help="Tokens per minute: 20k, 2M.", metavar="N")
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option("--concurrency", help="Requests at once.", metavar="N")
    ] = None,
    tokens: Annotated[
        list[str] | None,
        typer.Option("--tokens", help="5M/day, 100M/month, or both.", metavar="N/PERIOD"),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="Money: 20/day, 500/month, or both.", metavar="MONEY/PERIOD"),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", help="90d, a date (UTC), or never.", metavar="WHEN")
    ] = "never",
    priority: Annotated[
        str, typer.Option("--priority", help="Most urgent class that it may ask for.")
    ] = "default",
    as_json: JsonFlag = False,
) -> None:
    """Make a key; its text is printed now and never again."""
    terms = Key(
        "", "", tenant, name,
        _words("--scope", split(scopes or ["inference"]), get_args(Scope)),
        split(models or ()),
        parse_limits(rpm, tpm, concurrency, tokens or (), budget or ()),
        parse_end(expires, time.time(), "--expires"),
        _words("--priority", (priority,), get_args(Priority))[0],
    )  # fmt: skip
    made = changed(
        settings,
        lambda client: client.create_key(terms),
        lambda ledger, by: ledger.keys.issue(terms, by),
    )
    _tell_new(made, as_json)


@with_settings("paths", "ledger.url")
def ls(
    settings: Settings,
    is_everything: Annotated[
        bool, typer.Option("--all", help="Also those that are revoked or expired.", metavar=" ")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the keys: never their text, which nobody has but their holders."""
    with books(settings) as ledger:
        cards = [ledger.keys.card(record) for record in ledger.keys.all(is_with_use=True)]
    shown = [card for card in cards if is_everything or card["state"] in ("active", "rotated")]
    if as_json:
        output.put_json([_record(card) for card in shown])
    elif shown:
        output.put_table(_HEAD, [_row(card) for card in shown])
    else:
        output.say("no key: inhouse key create --tenant NAME")


@with_settings("paths", "ledger.url")
def show(
    settings: Settings,
    key: Annotated[
        str,
        typer.Argument(help="Its id or name; -: the text of one, on stdin.", metavar="KEY"),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Show what a key may do, and whether it works; finds typos in the text of one."""
    with books(settings) as ledger:
        if key == _STDIN:
            found = ledger.keys.find_text(sys.stdin.readline(1000).strip())
        else:
            found = ledger.keys.find(key)
        card = ledger.keys.card(found)
    if as_json:
        output.put_json(_record(card))
        return
    facts = [(name, card[name]) for name in ("id", "name", "tenant", "state", "priority")]
    times = [(name.removesuffix("_at"), card[name]) for name in _TIMES]
    output.put_facts(
        [
            *facts,
            ("may", _may(card)),
            *((name, output.moment(at)) for name, at in times if at),
            *([("successor", card["replaced_by"])] if card["replaced_by"] else []),
        ]
    )


@with_settings("paths", "ledger.url")
def revoke(settings: Settings, key: Name, as_json: JsonFlag = False) -> None:
    """Take a key back, at once and for ever."""
    card = changed(
        settings,
        lambda client: client.revoke_key(key),
        lambda ledger, by: ledger.keys.card(ledger.keys.revoke(key, by)),
    )
    if as_json:
        output.put_json(_record(card))
    else:
        output.say(f"revoked: {card['id']} of {card['tenant']}")


@with_settings("paths", "ledger.url")
def rotate(
    settings: Settings,
    key: Name,
    overlap: Annotated[
        str, typer.Option("--overlap", help="How long the old one works on.", metavar="TIME")
    ] = "24h",
    as_json: JsonFlag = False,
) -> None:
    """Make a successor on the same terms; the old key works on for a while."""
    try:
        overlap_s = parse_seconds(overlap)
    except ValueError as error:
        raise SettingsError("flag", "--overlap", str(error)) from None
    made = changed(
        settings,
        lambda client: client.rotate_key(key, overlap_s),
        lambda ledger, by: ledger.keys.reissue(key, overlap_s, by),
    )
    _tell_new(made, as_json)


def _tell_new(made: dict[str, Any], as_json: bool) -> None:
    card = made["key"]
    if as_json:
        output.put_json(made | {"key": _record(card)})
        return
    output.say(f"key {card['id']} of {card['tenant']}: {_may(card)}", "dim")
    output.say("its text is shown only now:")
    output.put(made["text"])


def _words(flag: str, given: tuple[str, ...], known: tuple[str, ...]) -> Any:
    for word in given:
        if word not in known:
            raise SettingsError("flag", flag, f"{word!r} is none of {', '.join(known)}")
    return given


def _row(card: dict[str, Any]) -> tuple[str, ...]:
    used = show_ago(time.time() - card["used_at"]) if card["used_at"] else "never"
    expires = output.day(card["expires_at"]) if card["expires_at"] else "never"
    return card["id"], card["name"], card["tenant"], card["state"], expires, used, _may(card)


def _may(card: dict[str, Any]) -> str:
    limits = card["limits"]
    parts = [", ".join(card["scopes"]), ", ".join(card["models"]) or "all models"]
    parts += [form.format(limits[name]) for name, form in _LIMITS.items() if limits[name]]
    parts += [
        form.format(limits[name] / NANOS)
        for name, form in _BUDGETS.items()
        if limits[name] is not None
    ]
    return "; ".join(parts)


def _record(card: dict[str, Any]) -> dict[str, Any]:
    """Times as text."""
    return card | {name: card[name] and output.moment(card[name]) for name in _TIMES}
