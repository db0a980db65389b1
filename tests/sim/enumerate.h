/*
 * Small spaces, whole
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SIM_ENUMERATE_H
#define TESTS_SIM_ENUMERATE_H

#include <stdbool.h>

/* Goes through all of them and prints how many there were.  Returns false if one has gone wrong, which is printed. */
bool enumerate_all(void);

#endif /* TESTS_SIM_ENUMERATE_H */
