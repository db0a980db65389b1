# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sourced by the programs in scripts/: runs one module of colokit with its
# arguments, installing python3 first where there is none.

colokit() {
    PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
    scripts=$(dirname "$(readlink -f "$0")")     # also if called by a link

    # Debian's own interpreter, not whatever else may be first in PATH.
    if [ ! -x /usr/bin/python3 ]; then
        echo "${0##*/}: installing python3" >&2
        as_root=
        if [ "$(id -u)" -ne 0 ]; then
            command -v sudo >/dev/null || {
                echo "${0##*/}: python3 is missing; run this as root, or install python3" >&2
                exit 1
            }
            as_root=sudo
        fi
        { $as_root apt-get --quiet --quiet install --yes --no-install-recommends python3 ||
          { $as_root apt-get --quiet --quiet update &&
            $as_root apt-get --quiet --quiet install --yes --no-install-recommends python3; }
        } >/dev/null || exit 1
    fi

    module=$1
    shift
    PYTHONPATH=$scripts${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m "colokit.$module" "$@"
}
