# SPDX-License-Identifier: GPL-2.0-or-later
"""How the suite takes its place in a host's tree.

What is ours is not listed here but found: every C file under net/ and
include/net/, the tests tests/qtest/colo-*, and the schema qapi/colo-proxy.json
go to the same place in the host.
"""

from __future__ import annotations

import functools
from pathlib import Path

from .edits import Cut, Edit, Insert, Put, Remove, Replace, Step
from .machine import Failure
from .series import SERIES, Series

# Files of the host that ours of the same name take the place of.
REPLACED = ("net/colo-compare.c", "net/colo-compare.h", "net/filter-mirror.c",
                "net/filter-rewriter.c")

PROXY_PROPERTIES = """\
##
# @ColoProxyMode:
#
# The sides of a colo-proxy object.
#
# @primary: its guest serves the clients
#
# @secondary: its guest follows the other
#
# Since: 7.2
##
{ 'enum': 'ColoProxyMode', 'data': [ 'primary', 'secondary' ] }

##
# @ColoProxyPolicy:
#
# When output may leave.
#
# @compare: when the secondary has sent the same, or with a checkpoint
#
# @hold: with the next checkpoint; nothing is compared
#
# Since: 7.2
##
{ 'enum': 'ColoProxyPolicy', 'data': [ 'compare', 'hold' ] }

##
# @ColoProxyProperties:
#
# Properties for colo-proxy objects.  @queue must be all.
#
# @mode: the side
#
# @addr: where the primary listens: host:port, or the path of a unix
#        socket
#
# @policy: when output may leave; can be changed at any time, and
#          counts from the next checkpoint on (default: compare)
#
# @tls-creds: the id of TLS credentials; both nodes need them, or none
#
# @reconnect: seconds between two attempts to connect to the primary
#             (default: 1)
#
# @heartbeat: milliseconds between two signs of life (default: 500)
#
# @heartbeat_timeout: milliseconds of silence after which the other
#                     node is lost (default: 3000)
#
# @compare_timeout: milliseconds that output is held at most before a
#                   checkpoint is asked for (default: 3000)
#
# @max_queue_size: packets per connection that are held at most before
#                  the secondary is made to wait, or a checkpoint
#                  asked for (default: 1024)
#
# Since: 7.2
##
{ 'struct': 'ColoProxyProperties',
  'base': 'NetfilterProperties',
  'data': { 'mode': 'ColoProxyMode',
            'addr': 'str',
            '*policy': 'ColoProxyPolicy',
            '*tls-creds': 'str',
            '*reconnect': 'uint32',
            '*heartbeat': 'uint32',
            '*heartbeat_timeout': 'uint32',
            '*compare_timeout': 'uint32',
            '*max_queue_size': 'uint32' } }

"""

COMPARE_PROPERTIES = "{ 'struct': 'ColoCompareProperties',"


def _found(root: Path, *patterns: str) -> list[str]:
    """The repository's files that match, as paths relative to it."""
    return sorted({str(path.relative_to(root))
                   for pattern in patterns for path in root.glob(pattern) if path.is_file()})


def _text(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Failure(f"{root / name} is missing; check out the repository anew") from None


def _puts(root: Path, names: list[str], replaced: tuple[str, ...]) -> tuple[Edit, ...]:
    return tuple(Put(name, (root / name).read_bytes(), replaces=name in replaced)
                 for name in names)


def _in_meson(host: Series, ours: list[str]) -> tuple[Edit, ...]:
    """Where net/meson.build has its COLO objects: instead of them, ours."""
    listed = "".join(f"  '{name}',\n" for name in ours)
    if host.name == "7.2":
        return (Replace("net/meson.build", "  'colo.c',\n", listed),)
    return (Insert("net/meson.build", "'filter-mirror.c',", listed + "  'colo-compare.c',\n  'filter-rewriter.c',\n"),
            Cut("net/meson.build", "if get_option('replication').allowed() or", "'filter-rewriter.c'))\nendif", text="""\
if not get_option('replication').allowed()
  error('The COLO proxy needs the COLO frame: configure without --disable-replication')
endif
"""))


def _steps(host: Series, root: Path) -> tuple[Step, ...]:
    core = _found(root, "net/colo/*.c", "net/colo/*.h", "net/colo/meson.build")
    objects = _found(root, "net/*.c", "net/*.h")
    headers = _found(root, "include/net/*.h", "include/net/colo/*.h")
    qtests = _found(root, "tests/qtest/colo-*.[ch]")
    qtest_names = [Path(name).stem for name in qtests if name.endswith("-test.c")]
    shared = [Path(name).name for name in qtests
              if name.endswith(".c") and not name.endswith("-test.c")]
    added = [Path(name).name for name in objects
             if name.endswith(".c") and name not in REPLACED]

    for name in (*REPLACED, "net/colo/meson.build"):
        if name not in objects and name not in core:
            raise Failure(f"{root / name} is missing; check out the repository anew")

    steps = [
        Step(
            name="files",
            reason="The core, which knows nothing of QEMU, the objects on top of it, and their "
                   "headers, in place of the host's.",
            edits=(*_puts(root, core + objects + headers, REPLACED),
                   Remove("net/colo.c"), Remove("net/colo.h"))),
        Step(
            name="no-colo-h",
            reason="Two files of the host include net/colo.h and use nothing of it.",
            edits=(Cut("migration/colo.c", '#include "net/colo.h"', '#include "net/colo.h"'),
                   Cut("net/filter.c", '#include "net/colo.h"', '#include "net/colo.h"'))),
        Step(
            name="epochs",
            reason="A secondary counts its checkpoints, and says with what it sends how many there have been.",
            edits=(Insert("migration/colo.c", "colo_notify_filters_event(COLO_EVENT_CHECKPOINT, &local_err);",
                          "    colo_checkpoint_loaded();\n"),)),
        Step(
            name="shutdown",
            reason="When QEMU exits, the filters hear of it, and go, after the migration that they ask whether there is COLO.",
            edits=(Insert("migration/colo.c", "MigrationState *s = NULL;", "\n    colo_shutting_down();\n",
                          within="void colo_shutdown(void)"),)),
        Step(
            name="build",
            reason="The objects that the host has no file for, and the core, which brings its own "
                   "meson.build.",
            edits=(*_in_meson(host, added),
                   Insert("net/meson.build", "subdir('can')",
                          f"subdir('colo')\n{host.system_sources}.add(colo_core_sources)\n"))),
        Step(
            name="trace-events",
            reason="Our trace events in place of the host's for COLO.",
            edits=(Cut("net/trace-events", "# colo.c", "colo_filter_rewriter_conn_offset",
                       text=_text(root, "net/trace-events")),)),
        Step(
            name="properties",
            reason="colo-proxy is an object like the other filters. colo-compare: iothread has a default now, "
                   "active says whether to compare when COLO is not running, and a full queue no longer "
                   "loses packets.",
            edits=(
                Insert("qapi/qom.json", "# @ColoCompareProperties:", before=True, text="""\
# @ColoCompareActive:
#
# When a colo-compare object compares packets.
#
# @auto: while COLO is running; else the primary's packets pass
#
# @on: always
#
# Since: 7.2
##
{ 'enum': 'ColoCompareActive',
  'data': [ 'auto', 'on' ] }

##
"""),
                Replace("qapi/qom.json", "# @iothread: name of the iothread to run in",
                        within="# @ColoCompareProperties:",
                        text="# @iothread: name of the iothread to run in (default: one of its own)"),
                Replace("qapi/qom.json", "queue is full and additional packets are received, the",
                        within="# @ColoCompareProperties:",
                        text="queue is full, that side's input is not read until"),
                Replace("qapi/qom.json", "additional packets are dropped.", within="# @ColoCompareProperties:",
                        text="there is room again."),
                Insert("qapi/qom.json", "# @vnet_hdr_support:", within="# @ColoCompareProperties:", before=True,
                       text="""\
# @active: when to compare packets
#          (default: auto, with @notify_dev: on)
#
# @peer_timeout: the secondary is lost when a checkpoint is due and
#                makes no headway for so long, in milliseconds
#                (default: 3000)
#
"""),
                Replace("qapi/qom.json", "'iothread': 'str',", within=COMPARE_PROPERTIES,
                        text="'*iothread': 'str',"),
                Insert("qapi/qom.json", "##\n# @InputBarrierProperties:", before=True, text=PROXY_PROPERTIES),
                Insert("qapi/qom.json", "    'colo-compare',", "    'colo-proxy',\n"),
                Insert("qapi/qom.json", "'colo-compare':               'ColoCompareProperties',",
                       "      'colo-proxy':                 'ColoProxyProperties',\n"),
                Insert("qapi/pragma.json", "'ColoCompareProperties',", before=True,
                       text="        'ColoProxyProperties',          # heartbeat_timeout, ...\n"),
                Insert(host.command_line, 'g_str_equal(type, "colo-compare") ||',
                       '        g_str_equal(type, "colo-proxy") ||\n'),
                Replace("qapi/qom.json", "'*vnet_hdr_support': 'bool' }", within=COMPARE_PROPERTIES,
                        text="'*vnet_hdr_support': 'bool',\n"
                             "            '*active': 'ColoCompareActive',\n"
                             "            '*peer_timeout': 'uint64' }"),
            )),
        Step(
            name="options",
            reason="The manual and -help tell of colo-proxy, and of what has changed about colo-compare.",
            edits=(
                Insert("qemu-options.hx", "    ``-object filter-dump,id=id,netdev=dev", before=True, text="""\
    ``-object colo-proxy,id=id,netdev=netdevid,queue=all,mode=primary|secondary,addr=host:port|path[,policy=compare|hold][,tls-creds=id][,reconnect=s][,heartbeat=ms][,heartbeat_timeout=ms][,compare_timeout=ms][,max_queue_size=n]``
        The whole COLO proxy as one object on each side, in place of
        filter-mirror, filter-redirector, filter-rewriter and colo-compare.
        The primary listens at addr, the secondary connects to it.

"""),
                Replace("qemu-options.hx", "outdev=chardevid,iothread=id[",
                        "outdev=chardevid[,iothread=id][,active=auto|on][,peer_timeout=ms]["),
                Insert("qemu-options.hx", "size depend on user environment.", text="""\
        Without iothread= the comparison runs in a thread of its own.
        Packets are compared while COLO is running and pass otherwise;
        active=on compares them always. When a checkpoint is due and makes
        no headway for peer_timeout (default: 3000 ms), the secondary is
        given up, and the primary goes on alone.
"""),
            )),
        Step(
            name="query",
            reason="The objects' counters can be read by query-colo-proxy and info colo-proxy.",
            edits=(
                *_puts(root, ["qapi/colo-proxy.json"] if _text(root, "qapi/colo-proxy.json") else [],
                       ()),
                Insert("qapi/meson.build", "    'acpi',", "    'colo-proxy',\n"),
                Insert("qapi/qapi-schema.json", "{ 'include': 'qom.json' }",
                       "{ 'include': 'colo-proxy.json' }\n"),
                Insert("include/monitor/hmp.h", "void hmp_x_colo_lost_heartbeat(",
                       "void hmp_info_colo_proxy(Monitor *mon, const QDict *qdict);\n"),
                Insert("hmp-commands-info.hx", "ERST\n", within="``info network``", text="""\

    {
        .name       = "colo-proxy",
        .args_type  = "",
        .params     = "",
        .help       = "show the counters of the COLO proxy's objects",
        .cmd        = hmp_info_colo_proxy,
    },

SRST
  ``info colo-proxy``
    Show the counters of the COLO proxy's objects.
ERST
"""),
            )),
        Step(
            name="events",
            reason="Of COLO_PROXY_DIVERGENCE at most one a second is sent for each object, however often "
                   "they diverge.",
            edits=(
                Insert("monitor/monitor.c", "[QAPI_EVENT_VSERPORT_CHANGE]   = { 1000 * SCALE_MS },",
                       "    [QAPI_EVENT_COLO_PROXY_DIVERGENCE] = { 1000 * SCALE_MS },\n"),
                *(Replace("monitor/monitor.c", f"{state}->event == QAPI_EVENT_VSERPORT_CHANGE", within=function,
                          text=f"{state}->event == QAPI_EVENT_VSERPORT_CHANGE ||\n"
                               f"        {state}->event == QAPI_EVENT_COLO_PROXY_DIVERGENCE")
                  for state, function in (("evstate", "qapi_event_throttle_hash(const void *key)"),
                                          ("eva", "qapi_event_throttle_equal(const void *a, const void *b)"))),
            )),
    ]
    if qtests:
        steps.append(Step(
            name="qtests",
            reason="Tests of the objects inside QEMU.",
            edits=(
                *_puts(root, qtests, ()),
                Insert("tests/qtest/meson.build", "dbus_daemon = find_program('dbus-daemon'",
                       before=True,
                       text="qtests_i386 += [\n"
                            + "".join(f"  '{name}',\n" for name in qtest_names)
                            + "]\n\n"),
                # What our tests share is linked to each.
                Insert("tests/qtest/meson.build", "'cdrom-test': files('boot-sector.c'),",
                       text="".join(f"  '{name}': files({shared!r}),\n" for name in qtest_names)),
            )))
    return tuple(steps)


STEPS = {name: functools.partial(_steps, host) for name, host in SERIES.items()}
