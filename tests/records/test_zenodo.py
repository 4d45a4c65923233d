"""Zenodo, played by a double on loopback: states, errors, cuts at every request, and where the token may not appear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fivefold.coordinator.publication import metadata_of, token
from fivefold.errors import DepositInterrupted, DepositRefused
from fivefold.records.repository_http import Server, ask
from fivefold.records.zenodo import Deposit, deposit
from tests.records.package_values import study
from tests.records.repository_double import READER, STRANGER, TOKEN, Repository, repository

MARK = "urn:uuid:9796155a-fe44-5614-89b8-71945f718ffb"


@pytest.fixture
def zenodo() -> Iterator[Repository]:
    with repository() as found:
        yield found


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "lung-crate.zip"
    path.write_bytes(bytes(range(256)) * 12_000)  # three blocks
    return path


@pytest.fixture
def waits() -> list[float]:
    return []


def send(zenodo: Repository, package: Path, waits: list[float] | None = None, **more: Any) -> Deposit:
    who = more.pop("token", TOKEN)
    server = Server(zenodo.base, who, (waits if waits is not None else []).append)
    values: dict[str, Any] = {"publish": False} | more
    metadata = values.pop("metadata", metadata_of(study(), "ab" * 32, ["heart"], [("isSupplementTo", "10.1234/abc")]))
    return deposit(server, package, metadata, MARK, package.with_suffix(".zenodo.json"), **values)


def test_a_package_becomes_a_draft_and_is_published_only_when_asked(zenodo: Repository, package: Path) -> None:
    heard: list[tuple[int, int]] = []
    draft = send(zenodo, package, tell=lambda done, size: heard.append((done, size)))
    assert (draft.published, draft.doi) == (False, f"10.5072/zenodo.{draft.number}")
    assert not zenodo.deposits[draft.number]["submitted"]
    assert zenodo.files[draft.number] == {"lung-crate.zip": package.read_bytes()}
    assert heard[-1] == (package.stat().st_size, package.stat().st_size)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert len(heard) > 3
    assert "POST /deposit/depositions/1001/actions/publish" not in zenodo.seen
    done = send(zenodo, package, publish=True)
    assert (done.number, done.published) == (draft.number, True)
    assert done.page.endswith(f"/records/{draft.number}")
    assert sum(line.startswith("PUT /files/") for line in zenodo.seen) == 1


def test_the_metadata_are_those_of_the_study(zenodo: Repository, package: Path) -> None:
    found = zenodo.deposits[send(zenodo, package).number]["metadata"]
    assert found["title"] == "Survival in advanced lung cancer"
    assert found["creators"] == [{"name": "Ada Lead", "affiliation": "University of Example", "orcid": "0000-0002-1825-0097"}]
    assert (found["license"], found["access_right"], found["upload_type"]) == ("cc-by-4.0", "open", "dataset")
    assert found["communities"] == [{"identifier": "heart"}]
    assert found["related_identifiers"] == [
        {"relation": "isSupplementTo", "identifier": "10.1234/abc"},
        {"relation": "isAlternateIdentifier", "identifier": MARK},
    ]


def test_publishing_again_changes_nothing(zenodo: Repository, package: Path) -> None:
    first = send(zenodo, package, publish=True)
    assert send(zenodo, package, publish=True) == first
    assert len(zenodo.deposits) == 1


def test_a_new_version_holds_the_new_file_alone(zenodo: Repository, package: Path, tmp_path: Path) -> None:
    first = send(zenodo, package, publish=True)
    other = tmp_path / "lung-2-crate.zip"
    other.write_bytes(b"another run")
    second = send(zenodo, other, publish=True, new_version_of=first.number)
    assert second.number != first.number
    assert zenodo.files[second.number] == {"lung-2-crate.zip": b"another run"}
    assert zenodo.files[first.number] == {"lung-crate.zip": package.read_bytes()}
    assert len(zenodo.deposits) == 2


def test_a_draft_has_no_new_version(zenodo: Repository, package: Path, tmp_path: Path) -> None:
    first = send(zenodo, package)
    other = tmp_path / "other.zip"
    other.write_bytes(b"x")
    with pytest.raises(DepositRefused, match="is not published"):
        send(zenodo, other, new_version_of=first.number)


STEPS = [
    ("GET", r"/deposit/depositions\?"),
    ("POST", r"/deposit/depositions$"),
    ("PUT", r"/files/"),
    ("PUT", r"/depositions/\d+$"),
    ("POST", r"/actions/publish"),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]} {step[1]}")
@pytest.mark.parametrize("fault", ["cut early", "cut before", "cut after", "503"])
def test_after_a_cut_at_any_step_the_same_command_goes_on(
    zenodo: Repository, package: Path, step: tuple[str, str], fault: str, waits: list[float]
) -> None:
    zenodo.faults = [(*step, fault)]
    for _ in range(2):
        try:
            done = send(zenodo, package, waits, publish=True)
            break
        except DepositInterrupted:
            continue
    assert done.published
    assert zenodo.faults == []
    assert [d["submitted"] for d in zenodo.deposits.values()] == [True]
    assert zenodo.files[done.number] == {"lung-crate.zip": package.read_bytes()}


@pytest.mark.parametrize("fault", ["cut before", "cut after", "503"])
@pytest.mark.parametrize("step", [("POST", "newversion"), ("DELETE", "/files/"), ("GET", r"/depositions/\d+$")])
def test_a_new_version_survives_cuts_too(
    zenodo: Repository, package: Path, tmp_path: Path, step: tuple[str, str], fault: str
) -> None:
    first = send(zenodo, package, publish=True)
    other = tmp_path / "second.zip"
    other.write_bytes(b"another run")
    zenodo.faults = [(*step, fault)]
    for _ in range(2):
        try:
            second = send(zenodo, other, publish=True, new_version_of=first.number)
            break
        except DepositInterrupted:
            continue
    assert second.published
    assert zenodo.files[second.number] == {"second.zip": b"another run"}
    assert len(zenodo.deposits) == 2


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]} {step[1]}")
def test_a_busy_server_is_waited_for_as_long_as_it_says(
    zenodo: Repository, package: Path, step: tuple[str, str], waits: list[float]
) -> None:
    zenodo.faults = [(*step, "429")]
    assert send(zenodo, package, waits, publish=True).published
    assert waits == [7.0]
    assert len(zenodo.deposits) == 1


def test_a_server_that_stays_busy_ends_in_a_sentence(zenodo: Repository, package: Path, waits: list[float]) -> None:
    zenodo.faults = [("PUT", "/files/", "503")] * 5
    with pytest.raises(DepositInterrupted, match="busy \\(HTTP 503\\), 5 times"):
        send(zenodo, package, waits)
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_a_wrong_checksum_publishes_nothing(zenodo: Repository, package: Path) -> None:
    zenodo.faults = [("PUT", "/files/", "checksum")]
    with pytest.raises(DepositInterrupted, match="another checksum"):
        send(zenodo, package, publish=True)
    assert not any(d["submitted"] for d in zenodo.deposits.values())


def test_a_changed_package_is_sent_anew_into_the_same_draft(zenodo: Repository, package: Path) -> None:
    first = send(zenodo, package)
    package.write_bytes(b"packed again")
    second = send(zenodo, package)
    assert second.number == first.number
    assert zenodo.files[second.number] == {"lung-crate.zip": b"packed again"}


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"token": "wrong"}, "401", "does not accept the token"),
        ({"token": READER}, "403", "the token may not do this: Insufficient scope"),
        ({"token": STRANGER}, "403", "the token may not do this: Not yours"),
        ({"metadata": {"title": "t"}}, "400", "metadata.creators: Missing data"),
        ({"new_version_of": 77}, "404", "has no such record"),
    ],
)
def test_a_refusal_is_a_sentence_with_a_next_step(
    zenodo: Repository, package: Path, more: dict[str, Any], status: str, words: str
) -> None:
    with pytest.raises(DepositRefused, match=words) as found:
        send(zenodo, package, **more)
    assert (found.value.rule, found.value.exit_code) == (status, 92)
    assert found.value.hint


def test_a_record_deleted_or_published_by_hand_is_told(zenodo: Repository, package: Path) -> None:
    first = send(zenodo, package)
    zenodo.deposits[first.number]["submitted"] = True
    assert send(zenodo, package).published
    del zenodo.deposits[first.number]
    with pytest.raises(DepositRefused, match="no such record"):
        send(zenodo, package)


def test_a_wrong_state_is_told(zenodo: Repository) -> None:
    number = zenodo.make({"title": "t"})
    server = Server(zenodo.base, TOKEN, lambda _: None)
    with pytest.raises(DepositRefused, match="state that does not permit this"):
        ask(server, "POST", f"/deposit/depositions/{number}/actions/newversion")


# ---- the token -----------------------------------------------------------------------------------------------------
def test_the_token_stands_in_no_file_and_no_error(zenodo: Repository, package: Path) -> None:
    send(zenodo, package)
    state = package.with_suffix(".zenodo.json")
    assert TOKEN not in state.read_text()
    assert set(json.loads(state.read_bytes())) == {"server", "mark", "md5", "number", "new_version_of"}
    zenodo.faults = [("GET", "/depositions", "cut before")] * 5
    with pytest.raises(DepositInterrupted) as found:
        send(zenodo, package)
    assert TOKEN not in f"{found.value} {found.value.hint} {found.value.__cause__} {found.value.__context__!r}"
    assert TOKEN not in repr(Server(zenodo.base, TOKEN, print))


@pytest.mark.parametrize("fault", ["elsewhere", "redirect"])
def test_the_token_goes_to_no_other_host(zenodo: Repository, package: Path, fault: str) -> None:
    zenodo.faults = [("POST", "/depositions$", fault)]
    with pytest.raises(DepositRefused, match=r"another host|HTTP 302"):
        send(zenodo, package)
    assert not any("steal" in line for line in zenodo.seen)


def test_a_token_travels_encrypted_or_not_at_all() -> None:
    with pytest.raises(DepositRefused, match="not an address of https"):
        Server("http://zenodo.org/api", TOKEN, print)
    for bad in ("", "a\nb", "ü"):
        with pytest.raises(DepositRefused, match="no token"):
            Server("https://zenodo.org/api", bad, print)


def test_the_environment_comes_before_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    errors = types.ModuleType("keyring.errors")
    errors.KeyringError = type("KeyringError", (Exception,), {})
    keyring = types.ModuleType("keyring")
    keyring.errors = errors
    keyring.get_password = lambda service, name: f"{service}/{name}"
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    monkeypatch.delenv("FIVEFOLD_ZENODO_TOKEN", raising=False)
    assert token() == "fivefold-zenodo/token"
    monkeypatch.setenv("FIVEFOLD_ZENODO_TOKEN", " from the environment ")
    assert token() == "from the environment"
    monkeypatch.delenv("FIVEFOLD_ZENODO_TOKEN")
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert token() == ""


def test_an_answer_that_is_no_record_is_told(zenodo: Repository, package: Path) -> None:
    zenodo.faults = [("POST", "/depositions$", "not json")]
    with pytest.raises(DepositInterrupted, match="HTTPException"):
        send(zenodo, package)
    assert send(zenodo, package).number == 1001


def test_a_damaged_state_file_is_told(zenodo: Repository, package: Path) -> None:
    package.with_suffix(".zenodo.json").write_text("[]")
    with pytest.raises(DepositRefused, match="is damaged"):
        send(zenodo, package)


def test_a_licence_in_words_makes_a_restricted_record() -> None:
    from dataclasses import replace

    own = replace(study(), outputs=replace(study().outputs, licence="On request only: <ask> the lead"))
    found = metadata_of(own, "ab" * 32)
    assert found["access_right"] == "restricted"
    assert found["access_conditions"] == "On request only: &lt;ask&gt; the lead"
    assert "license" not in found
