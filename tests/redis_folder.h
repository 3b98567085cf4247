/* redis_folder.h - where a redis_server lives: a temporary folder that also goes after a crash.
 *
 * Its maker holds a lock on FOLDER/owner. A program that makes its first folder removes those whose
 * lock nobody holds any more.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_REDIS_FOLDER_H
#define MR_TESTS_REDIS_FOLDER_H

#include <stdbool.h>

#define REDIS_FOLDER_PATH 256

/* Under $TMPDIR where a socket's path is short enough there, else /tmp. The lock, for free; -1 with
 * the reason on stderr. */
int redis_folder_new(char path[REDIS_FOLDER_PATH]);
void redis_folder_free(const char *path, int lock);

#endif
