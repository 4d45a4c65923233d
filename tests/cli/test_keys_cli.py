"""`fivefold keys`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.cli.main import run


def test_new_and_show_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lead.key"
    assert run(["keys", "new", str(path)]) == 0
    printed = capsys.readouterr().out
    public = keys.public_of(keys.read_key(path))
    assert public.hex() in printed
    assert keys.fingerprint(public) in printed
    assert run(["keys", "show", str(path)]) == 0
    assert capsys.readouterr().out == printed
    assert run(["keys", "show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["public_key"] == public.hex()


def test_a_private_key_is_never_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lead.key"
    run(["keys", "new", str(path)])
    run(["keys", "show", str(path)])
    shown = capsys.readouterr()
    assert keys.read_key(path).hex() not in shown.out + shown.err


def test_a_passphrase_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lead.key"
    monkeypatch.setenv("FIVEFOLD_PASSPHRASE", "open sesame")
    assert run(["keys", "new", str(path), "--passphrase"]) == 0
    printed = capsys.readouterr().out
    assert keys.is_encrypted(path)
    assert run(["keys", "show", str(path)]) == 0
    assert capsys.readouterr().out == printed
    monkeypatch.setenv("FIVEFOLD_PASSPHRASE", "wrong")
    assert run(["keys", "show", str(path)]) == 15
    assert "does not open" in capsys.readouterr().err


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lead.key"
    assert run(["keys", "new", str(path)]) == 0
    assert run(["keys", "new", str(path)]) == 15
    assert "never overwritten" in capsys.readouterr().err
    assert run(["keys", "show", str(tmp_path / "absent.key")]) == 15
    (tmp_path / "lead.pub").write_text("ab" * 32)
    assert run(["keys", "show", str(tmp_path / "lead.pub")]) == 15
    assert "ends in .key" in capsys.readouterr().err  # and no advice to hide a public file
    path.chmod(0o644)
    assert run(["keys", "show", str(path)]) == 15
    assert "chmod 600" in capsys.readouterr().err
