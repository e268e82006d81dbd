"""The progress bar: on stderr alone, or silent."""

from __future__ import annotations

import pytest

from gradnoise.show.progress import progress_bar


class TestProgressBar:
    def test_it_is_silent_when_off(self, capfd: pytest.CaptureFixture[str]) -> None:
        with progress_bar(False) as start:
            start("sharpness", None)(1)
            start("probes", 2)(2)

        assert capfd.readouterr() == ("", "")

    def test_it_names_the_task_on_stderr_alone_when_on(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal

        with progress_bar(True) as start:
            start("sharpness", None)(1)
            start("probes", 2)(2)

        shown = capsys.readouterr()
        assert shown.out == ""
        assert "sharpness" in shown.err
        assert "probes" in shown.err

    def test_a_task_of_unknown_length_is_complete_when_the_next_begins(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")

        with progress_bar(True) as start:
            start("sharpness", None)(7)
            start("probes", 4)(1)

        shown = capsys.readouterr().err
        assert "100%" in shown
        assert "25%" in shown
