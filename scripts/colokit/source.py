# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's packages of a series' release, without touching the system's apt.

What the machine installs packages from is asked of apt; the same places are
asked for QEMU's source package, and for the tools that a newer QEMU is built
with, with a configuration and lists of our own under build/apt. For another
release than the machine's it is the same places with that release's name.
Signatures are verified by apt with the keys that the machine trusts for those
places.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from .machine import BUILD, Failure, as_root, need, output_of, run_logged
from .series import SERIES, Series

# The parts of a release that a package may be in; unstable is all in one.
SUFFIXES = ("", "-updates", "-security")
UNSTABLE = "sid"

LOG = BUILD / "log" / "source.log"


def pristine_source(series: Series, target: Path) -> Path:
    """The unpacked source package, fetched at the first call."""
    if target.exists():
        return target
    need(["apt", "ca-certificates", "dpkg-dev", "xz-utils"])
    version = _version_of(series)
    description = _download(series.release, "source", f"qemu={version}", "qemu_*.dsc", f"QEMU's source, {version}")
    unpacked = target.with_name(target.name + ".partial")
    shutil.rmtree(unpacked, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    run_logged(["dpkg-source", "--no-check", "--no-copy", "-x", description, unpacked], LOG,
               "unpacking QEMU's source", append=True)
    unpacked.rename(target)
    return target


def _version_of(series: Series) -> str:
    """The newest version of the source package that is of the series; unstable may have others beside it."""
    listing = output_of(["apt-cache", "--config-file", _prepared(series.release) / "apt.conf", "madison", "qemu"])
    there = sorted({line.split("|")[1].strip() for line in listing.splitlines() if line.endswith(" Sources")},
                   key=functools.cmp_to_key(_compare_versions))
    fitting = [version for version in there if re.match(rf"(\d+:)?{re.escape(series.name)}\b", version)]
    if not fitting:
        raise Failure(f"Debian {series.release} has QEMU {', '.join(there) or 'in no version'}, none of {series.name}; "
                      "give a source tree of that series with --source")
    return fitting[-1]


def _compare_versions(one: str, two: str) -> int:
    later = subprocess.run(["dpkg", "--compare-versions", one, "gt", two], check=False).returncode == 0
    return 1 if later else -1


def unpacked_tool(series: Series, package: str) -> Path:
    """Where a binary package of the series' release is unpacked, fetched at the first call.

    It is not installed: the machine's own one stays what it is.
    """
    release = series.release
    target = BUILD / "tools" / release / package
    if not target.exists():
        archive = _download(release, "download", package, f"{package}_*.deb", f"{release}'s {package}")
        unpacked = target.with_name(target.name + ".partial")
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        run_logged(["dpkg-deb", "--extract", archive, unpacked], LOG, f"unpacking {package}", append=True)
        unpacked.rename(target)
    return target


def _download(release: str, command: str, package: str, pattern: str, title: str) -> Path:
    """Have apt-get fetch a package; the path of the one file that fits the pattern."""
    apt = _prepared(release)
    directory = apt / "download" / package.partition("=")[0]
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    only = ["--download-only"] if command == "source" else []
    run_logged([*_apt_get(apt), command, *only, package], LOG, f"fetching {title}", on_line=_percentage,
               cwd=directory, append=True)
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise Failure(f"apt-get {command} left {len(found)} files {pattern} in {directory} instead of one; "
                      f"see {LOG}")
    return found[0]


def _apt_get(apt: Path) -> list:
    return ["apt-get", "--config-file", apt / "apt.conf", "--quiet"]


@functools.cache
def _prepared(release: str) -> Path:
    """The directory of an apt configuration with fresh lists of the release."""
    apt = BUILD / "apt" / release
    shutil.rmtree(apt, ignore_errors=True)
    sources = apt / "sources.list.d"
    for directory in (sources, apt / "lists" / "partial", apt / "cache", apt / "download"):
        directory.mkdir(parents=True)
    for number, place in enumerate(_places(release)):
        suffix = place.file.suffix if place.file.suffix == ".sources" else ".list"
        (sources / f"{number:02}{suffix}").write_text(place.entry(), encoding="utf-8")
    (apt / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": sources,
        "Dir::State::lists": apt / "lists",
        # What is installed is nothing to these lists.
        "Dir::State::status": "/dev/null",
        "Dir::Cache": apt / "cache",
        # apt's own user may have no way into this directory.
        "APT::Sandbox::User": "root",
    }.items()) +
        # Nor are the hooks for the system's lists meant for ours.
        "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n",
        encoding="utf-8")
    run_logged([*_apt_get(apt), "update"], LOG, f"fetching the lists of Debian {release}", append=True)
    return apt


def _percentage(progress, line: str) -> None:
    found = re.match(r"\s*(\d+)% \[", line)
    progress.update(int(found[1]) / 100 if found else None)


# ------------------------------------------- where the machine's packages come from

@dataclass
class _Place:
    """An entry of the system's, and the suites that we want of it."""
    file: Path
    number: int             # of the entry in the file, from 1
    suites: list[str]

    def entry(self) -> str:
        """The entry for source and binary packages of our suites.

        Its other fields and options stay as they are, among them whose
        signature is good for it.
        """
        text = self.file.read_text(encoding="utf-8")
        if self.file.suffix == ".sources":
            # apt counts the stanzas, and does not count comments.
            stanzas = [stanza for stanza in re.split(r"\n(?:[ \t]*\n)+", text.strip("\n"))
                       if re.search(r"^[^#\s]", stanza, re.MULTILINE)]
            stanza = re.sub(r"(?im)^types:.*$", "Types: deb deb-src", stanzas[self.number - 1])
            return re.sub(r"(?im)^suites:.*(\n[ \t].*)*$", f"Suites: {' '.join(self.suites)}", stanza) + "\n"
        line = text.splitlines()[self.number - 1]
        options, uri, components = re.match(r"\s*deb\s+((?:\[[^]]*\]\s+)?)(\S+)\s+\S+(.*)", line).groups()
        return "".join(f"{kind} {options}{uri} {suite}{components}\n"
                       for kind in ("deb", "deb-src") for suite in self.suites)


def _places(release: str) -> list[_Place]:
    """Where Debian's packages of the release are to be had."""
    places = list(_search(release))
    if not places:
        # On an image without package lists apt does not know what is whose.
        run_logged(as_root(["apt-get", "--quiet", "update"]), LOG, "updating the package lists")
        places = list(_search(release))
    if not places:
        raise Failure(f"this machine has no packages of Debian to install, so there is no telling "
                      f"where those of {release} are; unpack a QEMU source tree yourself and give it "
                      "with --source")
    return places


def _search(release: str) -> Iterator[_Place]:
    """The places of the release, or else those of the newest one that the machine has of those we know."""
    targets = [line.split("|", 3) for line in output_of(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(SOURCESENTRY)",
         "Created-By: Packages"]).splitlines()]
    known = [series.release for series in SERIES.values()]
    suffixes = SUFFIXES[:1] if release == UNSTABLE else SUFFIXES
    for there in (release, *reversed(known)):
        suites: dict[str, list[str]] = {}
        for origin, codename, component, entry in targets:
            suffix = codename.removeprefix(there)
            if origin == "Debian" and component == "main" and codename == there + suffix and suffix in suffixes:
                wanted = suites.setdefault(entry, [])
                wanted += [release + suffix] if release + suffix not in wanted else []
        for entry, wanted in suites.items():
            name, _, number = entry.rpartition(":")
            yield _Place(Path(name), int(number), wanted)
        if suites:
            return
