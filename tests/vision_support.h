/* vision_support.h - reference tensors as floats, and folders with one thing wrong, for the tests
 * of CLIP and LLaVA.
 *
 * Include after cmocka.h. Part of the test, not of every test: add vision_support.c to its sources.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_VISION_SUPPORT_H
#define MR_TESTS_VISION_SUPPORT_H

#include <stddef.h>
#include <stdint.h>

#include "engine/safetensors.h"

mr_safetensors *test_reference_open(const char *path);
/* A tensor's elements, for free(); *n (may be NULL) is their count. */
float *test_reference_floats(const mr_safetensors *file, const char *name, size_t *n);
int32_t *test_reference_ids(const mr_safetensors *file, const char *name, size_t *n);
const mr_tensor *test_reference_find(const mr_safetensors *file, const char *name);

/* A copy of a model folder in which something differs. Members that are NULL change nothing. */
typedef struct {
    const char *drop;                  /* a tensor that is left out */
    const char *transpose;             /* a tensor whose shape is turned round */
    const char *spoil;                 /* a tensor whose first element becomes NaN */
    const char *add_from, *add_as;     /* a tensor that is there a second time */
    const char *prefix, *new_prefix;   /* all names that begin so begin otherwise */
    const char *config, *config_other; /* text in config.json and what takes its place */
} test_variant;

/* Copies every other file of the folder too; shards become one file. */
void test_variant_write(const char *folder, const char *original, const test_variant *variant);

#endif
