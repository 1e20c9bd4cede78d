"""The part of `make lint` that needs more than one toolchain: other builds, and `cargo deny`.

Compiles with the oldest Rust that `Cargo.toml` promises and for the C library musl, and compares
the dependencies with the advisories. Must never download anything: what is not installed is named,
and skipped.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUSL = f"{platform.machine()}-unknown-linux-musl"
# The C of a dependency is compiled too, but not linked: the headers of any C library do.
C_COMPILER = {f"CC_{MUSL.replace('-', '_')}": "cc"}
MANIFESTS = ("Cargo.toml", "benchmarks/peers/Cargo.toml")


def rust_version() -> str:
    """The oldest Rust that `Cargo.toml` promises."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    return str(manifest["package"]["rust-version"])


def output(*command: str) -> str:
    """What a command prints; empty where it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def has_toolchain(version: str) -> bool:
    installed = output("rustup", "toolchain", "list").split()
    return any(
        name == version or name.startswith((f"{version}-", f"{version}.")) for name in installed
    )


def has_musl() -> bool:
    sysroot = output("rustc", "--print", "sysroot").strip()
    return bool(sysroot) and (Path(sysroot) / "lib/rustlib" / MUSL).is_dir()


def has_advisories() -> bool:
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    return any(home.glob("advisory-dbs/advisory-db-*"))


def commands() -> Iterator[tuple[str, ...] | str]:
    """Each command to run; or what is left out, and why."""
    version = rust_version()
    if has_toolchain(version):
        # A directory of its own, because each compiler would rebuild the other's work.
        yield ("cargo", f"+{version}", "check", "--target-dir", f"target/cargo-{version}")
    else:
        yield f"no build with Rust {version}, which is not installed"
    if has_musl():
        # Without the border: its build needs a Python of that C library.
        yield (
            "cargo",
            "check",
            "--no-default-features",
            "--target",
            MUSL,
            "--target-dir",
            "target/cargo",
        )
    else:
        yield f"no build for musl: the target {MUSL} is not installed"
    if not output("cargo", "deny", "--version"):
        yield "no check of the dependencies: cargo-deny is not installed"
        return
    which = ["bans", "licenses", "sources"]
    if has_advisories():
        which.append("advisories")
    else:
        yield "no check of advisories: `cargo deny fetch` has not been run"
    for manifest in MANIFESTS:
        at = ("--manifest-path", manifest, "--config", "deny.toml")
        yield ("cargo", "deny", "--offline", *at, "check", *which)


def main() -> int:
    for command in commands():
        if isinstance(command, str):
            print(f"lint: {command}", file=sys.stderr)
            continue
        print(*command, flush=True)
        code = subprocess.run(
            command, cwd=ROOT, env=os.environ | C_COMPILER, check=False
        ).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
