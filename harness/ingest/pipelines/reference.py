"""Starts a program of the reference pipeline, `harness/hostapp/ingest`, from wherever the harness is installed."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# last, so that no file of the harness takes the place of an installed package
sys.path.append(str(Path(__file__).resolve().parents[2]))
sys.argv[0] = "ingest"
runpy.run_module("hostapp.ingest", run_name="__main__", alter_sys=True)
