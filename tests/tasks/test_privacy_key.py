"""The key of the seals: made closed, refused open, never told."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from editors.errors import ConfigError
from flows.house import privacy_key_of
from flows.settings import Settings, read_settings
from tasks.privacy_key import PrivacyKey

GIVEN = "0123456789abcdef0123456789abcdef"


def test_a_given_key_is_used(tmp_path: Path) -> None:
    assert PrivacyKey(SecretStr(GIVEN), tmp_path / "none").read() == GIVEN.encode()


def test_the_homes_own_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    key = PrivacyKey(None, tmp_path / "home" / "privacy.key", may_create=True)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: key.read(), range(8)))
    assert len(set(read)) == 1
    assert stat.S_IMODE(key.file.stat().st_mode) == 0o600
    assert [path.name for path in key.file.parent.iterdir()] == ["privacy.key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    file.write_text(GIVEN)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"its mode is {mode:04o}, expected 0600") as caught:
        PrivacyKey(None, file).read()
    assert caught.value.hint == f"chmod 600 {file}"


def test_a_short_or_missing_key_is_refused_untold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 6 characters, expected 32 or more") as caught:
        PrivacyKey(SecretStr("abc123"), tmp_path / "none").read()
    assert "abc123" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read: FileNotFoundError"):
        PrivacyKey(None, tmp_path / "none").read()


def test_settings_name_the_key_or_its_file_and_never_tell_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUTURE_HOME", str(tmp_path))
    assert privacy_key_of(read_settings()) == PrivacyKey(None, tmp_path / "privacy.key", may_create=True)
    monkeypatch.setenv("SUTURE_PRIVACY_KEY_FILE", str(tmp_path / "mine"))
    assert privacy_key_of(read_settings()) == PrivacyKey(None, tmp_path / "mine", may_create=False)
    monkeypatch.setenv("SUTURE_PRIVACY_KEY", GIVEN)
    assert privacy_key_of(read_settings()).read() == GIVEN.encode()
    assert GIVEN not in repr(read_settings())
    (tmp_path / "suture.toml").write_text(f'privacy_key = ["{GIVEN}"]\n')
    monkeypatch.delenv("SUTURE_PRIVACY_KEY")
    with pytest.raises(ConfigError, match="privacy_key") as caught:
        read_settings()
    assert GIVEN not in str(caught.value)
    assert "privacy_key" in Settings.model_fields
