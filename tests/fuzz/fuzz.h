/* fuzz.h - the entry point that every fuzz target defines; libFuzzer or replay.c calls it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_FUZZ_H
#define MR_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
