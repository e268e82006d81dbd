"""The progress bar: on stderr where it is asked for, else silence."""

from gradnoise.show.progress import progress_bar
from tests.reports import quadratic_profile


class TestProgressBar:
    def test_it_is_silent_when_off(self, capfd):
        with progress_bar(False) as stage:
            stage("sharpness", None)(1)
            stage("probes", 2)(2)

        assert capfd.readouterr() == ("", "")

    def test_it_names_the_stage_on_stderr_alone_when_on(self, capsys, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal

        with progress_bar(True) as stage:
            stage("sharpness", None)(1)
            stage("probes", 2)(2)

        shown = capsys.readouterr()
        assert shown.out == ""
        assert "sharpness" in shown.err
        assert "probes" in shown.err

    def test_a_profile_is_silent_by_default(self, capfd):
        quadratic_profile(1.0)

        assert capfd.readouterr() == ("", "")
