# SPDX-License-Identifier: GPL-2.0-or-later
"""The distribution's QEMU source package, without touching the system's apt.

What the machine installs binary packages from is asked of apt; the same places
are asked for source packages, with a configuration and lists of our own under
build/apt. Signatures are verified by apt with the keys that the machine trusts
for those places.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from .machine import BUILD, Failure, as_root, need, output_of, run_logged

# Which release of Debian has which series.
RELEASES = {
    "7.2": "bookworm",
}

APT = BUILD / "apt"
LOG = BUILD / "log" / "source.log"


def pristine_source(series: str, target: Path) -> Path:
    """The unpacked source package, fetched at the first call."""
    if target.exists():
        return target
    need(["apt", "ca-certificates", "dpkg-dev", "xz-utils"])
    description = _fetch(series)
    unpacked = target.with_name(target.name + ".partial")
    shutil.rmtree(unpacked, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    run_logged(["dpkg-source", "--no-check", "--no-copy", "-x", description, unpacked], LOG,
               "unpacking QEMU's source", append=True)
    version = (unpacked / "VERSION").read_text(encoding="utf-8").strip()
    if not version.startswith(series + "."):
        raise Failure(f"Debian's {description.name} holds QEMU {version}, not a {series}; give a "
                      "source tree of that series with --source")
    unpacked.rename(target)
    return target


def _fetch(series: str) -> Path:
    """Download the source package; the path of its .dsc."""
    places = _source_places(RELEASES[series])
    sources = APT / "sources.list.d"
    shutil.rmtree(APT, ignore_errors=True)
    for directory in (sources, APT / "lists" / "partial", APT / "cache", APT / "download"):
        directory.mkdir(parents=True)
    for number, (name, text) in enumerate(places):
        suffix = ".sources" if name.endswith(".sources") else ".list"
        (sources / f"{number:02}{suffix}").write_text(text, encoding="utf-8")
    configuration = APT / "apt.conf"
    configuration.write_text("".join(f'{name} "{value}";\n' for name, value in {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": sources,
        "Dir::State::lists": APT / "lists",
        "Dir::Cache": APT / "cache",
        # apt's own user may have no way into this directory.
        "APT::Sandbox::User": "root",
    }.items()) +
        # Nor are the hooks for the system's lists meant for ours.
        "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n",
        encoding="utf-8")

    apt_get = ["apt-get", "--config-file", configuration, "--quiet"]
    run_logged([*apt_get, "update"], LOG, "fetching the lists of source packages")
    run_logged([*apt_get, "source", "--download-only", "qemu"], LOG, "fetching QEMU's source",
               on_line=_percentage, cwd=APT / "download", append=True)
    found = sorted((APT / "download").glob("qemu_*.dsc"))
    if len(found) != 1:
        raise Failure(f"apt-get source left {len(found)} descriptions in {APT / 'download'} "
                      f"instead of one; see {LOG}")
    return found[0]


def _percentage(progress, line: str) -> None:
    found = re.match(r"\s*(\d+)% \[", line)
    progress.update(int(found[1]) / 100 if found else None)


# ------------------------------------------- where the machine's packages come from

def _source_places(release: str) -> list[tuple[str, str]]:
    """(file name, text): apt's entries for Debian's release, for source packages."""
    entries = _entries(release)
    if not entries:
        # On an image without package lists apt does not know what is whose.
        run_logged(as_root(["apt-get", "--quiet", "update"]), LOG, "updating the package lists")
        entries = _entries(release)
    if not entries:
        raise Failure(f"this machine has no packages of Debian {release} to install, so there is "
                      "no telling where its source packages are; unpack a QEMU source tree "
                      "yourself and give it with --source")
    return [(name, _as_source_entry(Path(name), number)) for name, number in entries]


def _entries(release: str) -> list[tuple[str, int]]:
    """(file, number of the entry in it) of each of the release's entries."""
    wanted = {release, f"{release}-updates", f"{release}-security"}
    listing = output_of(["apt-get", "indextargets", "--format",
                         "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(SOURCESENTRY)",
                         "Created-By: Packages"])
    entries = []
    for line in listing.splitlines():
        origin, codename, component, entry = line.split("|", 3)
        name, _, number = entry.rpartition(":")
        if (origin == "Debian" and codename in wanted and component == "main"
                and (name, int(number)) not in entries):
            entries.append((name, int(number)))
    return entries


def _as_source_entry(path: Path, number: int) -> str:
    """An entry of the system's as it would be for source packages.

    Its other fields and options stay as they are, among them whose signature
    is good for it.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sources":
        # apt counts the stanzas, and does not count comments.
        stanzas = [stanza for stanza in re.split(r"\n(?:[ \t]*\n)+", text.strip("\n"))
                   if re.search(r"^[^#\s]", stanza, re.MULTILINE)]
        stanza = re.sub(r"(?im)^types:.*$", "Types: deb-src", stanzas[number - 1])
        return stanza + "\n"
    line = text.splitlines()[number - 1]
    return re.sub(r"^\s*deb\s", "deb-src ", line) + "\n"
