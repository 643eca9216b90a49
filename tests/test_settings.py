import math
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from serve.errors import SettingsError
from serve.settings import Settings, kinds, load, table, without_secrets
from serve.settings.kinds import Secret
from serve.units import parse_bytes, parse_seconds

File = Callable[[str], Path]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, without an inhouse.yaml."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def file(tmp_path: Path) -> File:
    def write(text: str) -> Path:
        path = tmp_path / "conf.yaml"
        path.write_text(text)
        return path

    return write


def at(settings: Settings, key: str) -> Any:
    group, name = key.split(".")
    return getattr(getattr(settings, group), name)


def refusal(flags: dict[str, Any], environ: dict[str, str], path: Path | None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(flags, environ, path)
    return caught.value


def test_defaults_need_nothing_but_a_home() -> None:
    settings = load({}, {"HOME": "/home/ada"})
    assert settings.paths.home == Path("/home/ada/.local/share/inhouse")
    assert settings.paths.run == Path("/home/ada/.local/share/inhouse/run")
    assert settings.hub.home == Path("/home/ada/.cache/huggingface")
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)
    assert settings.server.api_key is None


@pytest.mark.parametrize(
    ("environ", "key", "path"),
    [
        ({"XDG_DATA_HOME": "/data"}, "paths.home", "/data/inhouse"),
        ({"XDG_DATA_HOME": "/data", "INHOUSE_HOME": "/own"}, "paths.home", "/own"),
        ({"INHOUSE_HOME": "/own"}, "paths.run", "/own/run"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "paths.run", "/run/user/7/inhouse"),
        ({"XDG_RUNTIME_DIR": "/run/user/7", "INHOUSE_RUN": "/r"}, "paths.run", "/r"),
        ({"XDG_CACHE_HOME": "/cache"}, "hub.home", "/cache/huggingface"),
        ({"HF_HOME": "/hf"}, "hub.home", "/hf"),
        ({"INHOUSE_HOME": "~/own"}, "paths.home", "/home/ada/own"),
    ],
)
def test_folders_follow_the_usual_variables(environ: dict[str, str], key: str, path: str) -> None:
    assert at(load({}, {"HOME": "/home/ada", **environ}), key) == Path(path)


def test_paths_become_absolute_and_keep_their_links(empty_folder: Path) -> None:
    (empty_folder / "python").symlink_to("/bin/true")
    settings = load({"engine.python": "python"}, {"HOME": "/h", "INHOUSE_HOME": "data"})
    assert settings.paths.home == empty_folder / "data"
    assert settings.engine.python == empty_folder / "python"


def test_flag_beats_environment_beats_file_beats_default(file: File) -> None:
    path = file("server:\n  port: 2000\n")
    environ = {"INHOUSE_SERVER_PORT": "3000"}
    assert load({}, {}).server.port == 8000
    assert load({}, {}, path).server.port == 2000
    assert load({}, environ, path).server.port == 3000
    assert load({"server.port": 4000}, environ, path).server.port == 4000


def test_a_flag_not_given_and_an_empty_variable_do_not_count(file: File) -> None:
    path = file("server:\n  port: 2000\n")
    assert load({"server.port": None}, {"INHOUSE_SERVER_PORT": ""}, path).server.port == 2000


def test_the_file_is_the_named_one_else_the_variables_else_the_usual(
    file: File, empty_folder: Path
) -> None:
    (empty_folder / "inhouse.yaml").write_text("log: {level: debug}")
    named = file("log: {level: error}")
    other = empty_folder / "other.yaml"
    other.write_text("log: {level: warning}")
    environ = {"INHOUSE_CONFIG": str(other)}
    assert load({}, environ, named).log.level == "error"
    assert load({}, environ).log.level == "warning"
    assert load({}, {}).log.level == "debug"


@pytest.mark.parametrize("setting", list(table()), ids=lambda setting: setting.key)
def test_every_setting_can_come_from_its_variable(setting: Any) -> None:
    texts = {"server.max_body": "1M", "server.drain": "5m", "engine.kv_cache": "2GiB"}
    choices = {
        "engine.device": "cpu",
        "engine.isolation": "off",
        "engine.compile": "off",
        "engine.dtype": "float16",
        "engine.kv_dtype": "fp8",
        "engine.gpu_memory_utilization": "0.5",
        "log.level": "debug",
        "server.batches": "on",
        "request.max_logprobs": "5",
        "ledger.commit": "each",
        "ledger.audit": "all",
        "traces.sample": "0.5",
        "policy.sources": "hf,dir",
    }
    text = texts.get(setting.key) or choices.get(setting.key) or "20"
    text = "3" if setting.key == "engine.spares" else text
    assert at(load({}, {setting.variable: text}), setting.key) != setting.default


@pytest.mark.parametrize(
    ("yaml", "key", "value"),
    [
        ("server: {models: [a, b]}", "server.models", ("a", "b")),
        ("server: {max_body: 1MiB}", "server.max_body", 2**20),
        ("server: {drain: 2m}", "server.drain", 120.0),
        ("engine: {kv_cache: 4G}", "engine.kv_cache", 4 * 2**30),
        ("engine: {isolation: off}", "engine.isolation", "off"),
        ("engine: {compile: off}", "engine.compile", "off"),
        ("engine: {spares: 0}", "engine.spares", 0),
        ("engine: {context: 32k}", "engine.context", 32768),
        ("engine: {context: 5000}", "engine.context", 5000),
        ("engine: {gpu_memory_utilization: 0.5}", "engine.gpu_memory_utilization", 0.5),
        ("engine: {tensor_parallel: 2}", "engine.tensor_parallel", 2),
        ("engine:\n  # spares: 1\n", "engine.spares", None),
        ("server:\n  port:\n", "server.port", 8000),
        ("paths:\n  home:\n", "paths.home", Path("/h/.local/share/inhouse")),
        ("paths: {home: ~/big}", "paths.home", Path("/h/big")),
        ("", "server.port", 8000),
    ],
)
def test_the_file_says_it_as_people_write_it(yaml: str, key: str, value: Any, file: File) -> None:
    assert at(load({}, {"HOME": "/h"}, file(yaml)), key) == value


def test_lists_have_commas_in_the_environment() -> None:
    assert load({}, {"INHOUSE_SERVER_MODELS": "a, b,c"}).server.models == ("a", "b", "c")


@pytest.mark.parametrize(
    ("yaml", "key", "suggestion"),
    [
        ("server: {prot: 9000}", "server.prot", "server.port"),
        ("engine: {isolatoin: off}", "engine.isolatoin", "engine.isolation"),
        ("sever: {port: 9000}", "sever", "server"),
        ("sever: 9000", "sever", "server"),
        ("zebra: {stripes: 2}", "zebra", None),
        ("1: {2: 3}", "1", None),
    ],
)
def test_a_typo_is_refused_with_file_key_and_suggestion(
    yaml: str, key: str, suggestion: str | None, file: File
) -> None:
    path = file(yaml)
    error = refusal({}, {}, path)
    assert (error.place, error.key, error.suggestion) == (str(path), key, suggestion)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("INHOUSE_SERVER_PROT", "INHOUSE_SERVER_PORT"), ("INHOUSE_APIKEY", "INHOUSE_API_KEY")],
)
def test_an_unknown_variable_of_ours_is_refused(name: str, suggestion: str) -> None:
    error = refusal({}, {name: "x", "OTHER_VARIABLE": "y"}, None)
    assert (error.place, error.key, error.suggestion) == ("environment", name, suggestion)


@pytest.mark.parametrize(
    ("yaml", "key", "part"),
    [
        ("server: {port: 0}", "server.port", "greater than or equal to 1: 0"),
        ("server: {port: 70000}", "server.port", "70000"),
        ("server: {port: many}", "server.port", "'many'"),
        ("server: {port: yes}", "server.port", "'on'"),
        ("server: {max_body: lots}", "server.max_body", "something like 4GiB: 'lots'"),
        ("server: {drain: .inf}", "server.drain", "finite"),
        ("server: {drain: -1}", "server.drain", "-1"),
        ("server: {models: qwen3}", "server.models", "'qwen3'"),
        ("server: {models: [a, 7]}", "server.models.1", "7"),
        ("engine: {device: tpu}", "engine.device", "'tpu'"),
        ("engine: {isolation: on}", "engine.isolation", "'on'"),
        ("engine: {context: 32kk}", "engine.context", "'32kk'"),
        ("engine: {context: 8}", "engine.context", "8"),
        ("engine: {concurrency: 0}", "engine.concurrency", "0"),
        ("engine: {gpu_memory_utilization: 0}", "engine.gpu_memory_utilization", "0"),
        ("engine: {gpu_memory_utilization: 1.1}", "engine.gpu_memory_utilization", "1.1"),
        ("engine: {gpu_memory_utilization: .nan}", "engine.gpu_memory_utilization", "nan"),
        ("engine: {kv_dtype: fp4}", "engine.kv_dtype", "'fp4'"),
        ("engine: {dtype: int8}", "engine.dtype", "'int8'"),
        ("engine: {tensor_parallel: -1}", "engine.tensor_parallel", "-1"),
        ("engine: {max_num_seqs: many}", "engine.max_num_seqs", "'many'"),
        ("log: {level: loud}", "log.level", "'loud'"),
    ],
)
def test_a_bad_value_names_file_key_and_value(yaml: str, key: str, part: str, file: File) -> None:
    path = file(yaml)
    error = refusal({}, {}, path)
    assert (error.place, error.key) == (str(path), key)
    assert part in error.problem
    assert "Value error" not in error.problem


def test_a_bad_value_names_the_place_that_won(file: File) -> None:
    path = file("server: {port: 1000}")
    error = refusal({}, {"INHOUSE_SERVER_PORT": "x"}, path)
    assert error.place == "environment INHOUSE_SERVER_PORT"
    assert refusal({"server.port": -1}, {}, path).place == "flag server.port"


@pytest.mark.parametrize(
    ("yaml", "part"),
    [
        ("- a\n- b\n", "must be a mapping"),
        ("just words", "must be a mapping"),
        ("server: [1]", "must be a mapping"),
        ("server: {port: 1", "line 1"),
        ("a: b\n\tc: d", "line 2"),
        ("server: {port: 2026-13-45}", "not YAML"),
        ("server: !!python/object:os.system {}", "could not determine a constructor"),
    ],
)
def test_what_is_no_settings_file_is_said_so(yaml: str, part: str, file: File) -> None:
    path = file(yaml)
    error = refusal({}, {}, path)
    assert error.place == str(path)
    assert part in error.problem


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    assert "No such file" in refusal({}, {}, tmp_path / "nowhere.yaml").problem
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not YAML" in refusal({}, {}, tmp_path / "binary.yaml").problem


@pytest.mark.parametrize(
    "yaml",
    [
        "server: {api_key: [hunter2hunter2]}",
        "hub: {token: {hunter2hunter2: 1}}",
        'server:\n  api_key: "hunter2hunter2\n',
        "server:\n  api_key: hunter2hunter2: x\n",
        "server:\n\tapi_key: hunter2hunter2\n",
    ],
)
def test_a_secret_is_never_in_an_error(yaml: str, file: File) -> None:
    error = refusal({}, {}, file(yaml))
    told = f"{error} {error.__cause__ or ''}"
    assert "hunter2" not in told


def test_a_secret_is_never_in_the_settings_text() -> None:
    settings = load({}, {"INHOUSE_API_KEY": "hunter2", "HF_TOKEN": "hunter2"})
    assert settings.server.api_key == Secret("hunter2")
    assert "hunter2" not in f"{settings!r} {settings} {asdict(settings)}"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="cannot assign"):
        load({}, {}).server.port = 1  # type: ignore[misc]


def test_keys_and_variables_are_unique_and_explained() -> None:
    rows = list(table())
    assert len({row.key for row in rows}) == len(rows)
    assert len({row.variable for row in rows}) == len(rows)
    assert all(row.help.endswith(".") for row in rows)


def test_children_find_no_secrets() -> None:
    environ = {
        "INHOUSE_API_KEY": "a", "INHOUSE_MIRROR_KEY": "b", "HF_TOKEN": "c", "HF_HOME": "/hf",
        "PATH": "/bin",
    }  # fmt: skip
    assert without_secrets(environ) == {"HF_HOME": "/hf", "PATH": "/bin"}


NUMBERS = (
    5, -1, 0, 2**70, 5.0, 0.5, 1e300, 2.0**63, -(2.0**63), 2.0**62,
    math.inf, -math.inf, math.nan, True, "5", " 5 ", "+5", "-5",
    "5.0", "5.", "5.5", ".5", "1_0", "_5", "5_", "1__0", "0x5", "", " ", "５", "5e0", "inf", "NaN",
    "1" * 5000, b"5", b"\xff", [5], {"a": 1}, date(2026, 1, 1), "4GiB", "30s", "32k", "1kk",
)  # fmt: skip
TEXTS = ("a", "", "\udcff", b"a", b"\xff", 5, 0.5, ["a"], {"a": 1}, date(2026, 1, 1), Path("a"))
LISTS: tuple[Any, ...] = (
    [],
    ["a"],
    ("a", "b"),
    {"a"},
    ["a", 5],
    [5, 6],
    "a",
    b"a",
    {"a": 1},
    5,
    [["a"]],
)
WORDS = ("auto", "off", "of", "", 5, True, None, ["auto"], b"auto")


def parsed(parse: Callable[[str], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


@pytest.mark.parametrize(
    ("kind", "theirs", "values"),
    [
        (kinds.whole(1, 64), Annotated[int, Field(ge=1, le=64)], NUMBERS),
        (kinds.whole(16), Annotated[int, Field(ge=16)], NUMBERS),
        (
            kinds.whole(0, parse=parse_bytes),
            Annotated[int, parsed(parse_bytes), Field(ge=0)],
            NUMBERS,
        ),
        (kinds.number(above=0, most=1), Annotated[float, Field(gt=0, le=1)], NUMBERS),
        (
            kinds.number(0, parse=parse_seconds),
            Annotated[float, parsed(parse_seconds), Field(ge=0, allow_inf_nan=False)],
            NUMBERS,
        ),
        (kinds.TEXT, str, TEXTS),
        (kinds.PLACE, Annotated[Path, AfterValidator(Path.absolute)], TEXTS),
        (kinds.one_of("auto", "required", "off"), Literal["auto", "required", "off"], WORDS),
        (kinds.one_of("auto", "off"), Literal["auto", "off"], WORDS),
        (kinds.many(kinds.TEXT), tuple[str, ...], LISTS),
        (kinds.many(kinds.one_of("a", "b")), tuple[Literal["a", "b"], ...], LISTS),
        (
            kinds.many(kinds.PLACE),
            tuple[Annotated[Path, AfterValidator(Path.absolute)], ...],
            LISTS,
        ),
    ],
)
def test_values_are_read_and_refused_in_the_words_of_pydantic(
    kind: kinds.Kind, theirs: Any, values: tuple[Any, ...]
) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(theirs)
    for value in values:
        assert repr(ours_of(kind, value)) == repr(theirs_of(adapter, value)), repr(value)[:80]


def ours_of(kind: kinds.Kind, value: Any) -> Any:
    try:
        return kind.read(value)
    except kinds.Wrong as wrong:
        at = () if wrong.item is None else (wrong.item,)
        return wrong.problem, at, wrong.value, wrong.is_told


def theirs_of(adapter: TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        return problem, first["loc"], first["input"], first["type"] == "value_error"


def test_a_secret_is_what_it_was_made_of() -> None:
    secret = Secret("hunter2")
    assert secret.get_secret_value() == "hunter2"
    assert secret == Secret("hunter2") and hash(secret) == hash(Secret("hunter2"))
    assert secret != Secret("other") and secret != "hunter2"
    assert "hunter2" not in f"{secret} {secret!r}"


def test_a_flag_that_is_no_setting_is_refused() -> None:
    error = refusal({"server.prot": 1}, {}, None)
    assert (error.key, error.suggestion) == ("server.prot", "server.port")
