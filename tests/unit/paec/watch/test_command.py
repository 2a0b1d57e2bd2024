"""The command: what it serves, how it ends, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from report_runs import write_run
from terminals import ROOT

from recipe.paec.watch.command import main


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} has no metrics.jsonl: give the directory of a run, outputs/<name>\n"
    )


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_is_none(tmp_path, capsys, port):
    with pytest.raises(SystemExit):
        main([str(tmp_path), f"--port={port}"])
    assert f"{port}: must be a port, 1 to 65535" in capsys.readouterr().err


def test_it_serves_until_ctrl_c(tmp_path):
    folder = write_run(tmp_path / "first")
    before = sorted(path.name for path in folder.iterdir())
    env = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    command = [sys.executable, "-m", "recipe.paec.watch", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        (url,) = re.findall(rf"^{re.escape(str(folder))}: (http://127.0.0.1:\d+/) \(Ctrl-C ends it\)$", line)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=60) as answer:
            assert b"finished: 8 of 8 steps" in answer.read()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert sorted(path.name for path in folder.iterdir()) == before, "the run is only read"
