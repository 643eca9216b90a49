"""Every request's answer: who may ask, what is asked for, and what of it is here."""

import hmac
import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from urllib.parse import parse_qs

from serve.errors import WeightsDamaged
from serve.log import fields
from serve.mirror import listing
from serve.mirror.metrics import CONTENT_TYPE, Metrics
from serve.mirror.ranges import span
from serve.mirror.reply import Part, Reply, Request, refusal, with_json, with_text
from serve.mirror.route import Name, Route, route
from serve.mirror.stock import File, Repo, Revision, Stock

_log = logging.getLogger(__name__)
_MOST_ROWS = 1000
_MOST_FIELDS = 2000
_WHO = {
    "type": "user", "id": "mirror", "name": "mirror", "fullname": "Reader of this mirror",
    "isPro": False, "orgs": [],
    "auth": {"type": "access_token", "accessToken": {"displayName": "mirror", "role": "read"}},
}  # fmt: skip


class Desk:
    """Answers requests, and never touches the network. `key` None: everybody may ask."""

    def __init__(self, stock: Stock, metrics: Metrics, key: str | None = None) -> None:
        self._stock, self._metrics = stock, metrics
        self._key = sha256(key.encode()).digest() if key else None
        self._answers: Mapping[Name, Callable[[Request, Route], Reply]] = {
            "healthz": lambda request, asked: with_text(b"ok\n", "text/plain"),
            "metrics": lambda request, asked: with_text(metrics.text(), CONTENT_TYPE),
            "whoami": lambda request, asked: with_json(_WHO),
            "list": self._list,
            "info": self._info,
            "tree": self._tree,
            "paths": self._paths,
            "refs": self._refs,
            "resolve": self._resolve,
            "other": lambda request, asked: _no_repo(),
        }

    def answer(self, request: Request) -> tuple[Route, Reply]:
        """The reply. A part of a file still has to be opened, and may prove to be damaged."""
        asked = route(request.raw_path)
        if not self._may(request, asked):
            return asked, _no_key()
        allowed = ("POST",) if asked.name == "paths" else ("GET", "HEAD")
        if request.method not in allowed:
            return asked, refusal(405, "Method not allowed", Allow=", ".join(allowed))
        try:
            return asked, self._answers[asked.name](request, asked)
        except WeightsDamaged:
            return asked, self.damaged()
        except OSError as error:
            _log.error("the store cannot be read: %s", fields(reason=error.strerror))
            return asked, refusal(503, "The store cannot be read now", Retry_After="5")

    def damaged(self, code: str = "") -> Reply:
        """The reply about what is not what was verified any more.

        Without a code for single files: the client writes down which files do not exist.
        """
        self._metrics.damaged.inc()
        message = "Files have changed since they were verified; ask who runs this mirror"
        return refusal(410, message, code)

    def _may(self, request: Request, asked: Route) -> bool:
        if self._key is None or asked.name == "healthz":
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        digest = sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
        return scheme.lower() == "bearer" and hmac.compare_digest(digest, self._key)

    def _list(self, request: Request, asked: Route) -> Reply:
        query = _query(request.query)
        wanted, author = query.get("search", "").casefold(), query.get("author", "")
        limit = query.get("limit", "")
        most = min(int(limit[:9]), _MOST_ROWS) if limit.isdecimal() else _MOST_ROWS
        rows = [
            listing.summary(revision)
            for name, repo in self._stock.repos().items()
            if wanted in name.casefold()
            and (not author or name.startswith(f"{author}/"))
            and (revision := repo.find(None))
        ]
        return with_json(rows[:most])

    def _info(self, request: Request, asked: Route) -> Reply:
        found = self._revision(asked)
        if isinstance(found, Reply):
            return found
        return with_json(listing.info(found, self._stock.oid, _is_set(request.query, "blobs")))

    def _tree(self, request: Request, asked: Route) -> Reply:
        found = self._revision(asked)
        if isinstance(found, Reply):
            return found
        is_recursive, is_expanded = (_is_set(request.query, n) for n in ("recursive", "expand"))
        rows = listing.tree(found, self._stock.oid, asked.path, is_recursive, is_expanded)
        return _no_entry(found) if rows is None else with_json(rows)

    def _paths(self, request: Request, asked: Route) -> Reply:
        found = self._revision(asked)
        if isinstance(found, Reply):
            return found
        try:
            form = parse_qs(request.body.decode(), max_num_fields=_MOST_FIELDS)
        except ValueError:
            return refusal(400, "The body is not a form")
        is_expanded = form.get("expand", [""])[-1].lower() == "true"
        return with_json(listing.paths(found, self._stock.oid, form.get("paths", []), is_expanded))

    def _refs(self, request: Request, asked: Route) -> Reply:
        repo = self._repo(asked)
        return with_json(listing.refs(repo)) if repo else _no_repo()

    def _resolve(self, request: Request, asked: Route) -> Reply:
        repo = self._repo(asked)
        revision = repo and repo.find(asked.revision)
        if not repo or not revision:
            return _no_revision(asked) if repo else _no_repo()
        file = revision.files.get(asked.path)
        return self._file(request, revision, file) if file else _no_entry(revision)

    def _file(self, request: Request, revision: Revision, file: File) -> Reply:
        oid = self._stock.oid(file)
        known = {"X-Repo-Commit": revision.commit, "ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        if len(oid) == 64:
            known |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(file.size)}
        wanted = span(file.size, oid, request.method, request.headers)
        match wanted.status:
            case 304:
                return Reply(304, known)
            case 416:
                return Reply(416, known | {"Content-Range": f"bytes */{file.size}"})
            case 206:
                shown = f"bytes {wanted.begin}-{wanted.end - 1}/{file.size}"
                known["Content-Range"] = shown
        known |= {
            "Content-Type": "application/octet-stream",
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": "attachment",
        }
        part = Part(file, wanted.begin, wanted.end)
        return Reply(wanted.status, known, wanted.size, part=part)

    def _repo(self, asked: Route) -> Repo | None:
        return self._stock.repos().get(asked.repo)

    def _revision(self, asked: Route) -> Revision | Reply:
        """An intact revision, or why there is none."""
        repo = self._repo(asked)
        if repo is None:
            return _no_repo()
        found = repo.find(asked.revision)
        if found is None:
            return _no_revision(asked)
        return found if self._stock.is_intact(found) else self.damaged("RevisionNotFound")


def _no_key() -> Reply:
    message = "This mirror asks for its key: set HF_TOKEN to it"
    return refusal(401, message, "GatedRepo", WWW_Authenticate="Bearer")


def _no_repo() -> Reply:
    return refusal(404, "Repository not found", "RepoNotFound")


def _no_revision(asked: Route) -> Reply:
    return refusal(404, "Revision not found", "RevisionNotFound")


def _no_entry(revision: Revision) -> Reply:
    return refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=revision.commit)


def _query(text: str) -> dict[str, str]:
    """The first value of each field; nothing at all if it cannot be read."""
    try:
        fields = parse_qs(text, max_num_fields=100)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _is_set(query: str, name: str) -> bool:
    return _query(query).get(name, "").lower() in ("true", "1")
