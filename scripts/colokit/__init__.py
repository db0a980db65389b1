# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands behind the programs in scripts/."""
