"""Disks that are full or read-only, for tests: real ones if this user may mount them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[Path]:
    done = subprocess.run(["mount", *arguments, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"only root may mount a disk: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)  # files may still be mapped


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    path.mkdir()
    with mounted(path, "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs") as disk:
        yield disk


@contextmanager
def read_only(path: Path) -> Iterator[Path]:
    if os.geteuid() == 0:  # permissions do not stop root
        with mounted(path, "--bind", "-o", "ro", str(path)):
            yield path
    else:
        modes = {p: p.stat().st_mode for p in (path, *path.rglob("*")) if p.is_dir()}
        for directory in modes:
            directory.chmod(0o555)
        try:
            yield path
        finally:
            for directory, mode in modes.items():
                directory.chmod(mode)
