/* ranker_support.h - bundles, stores and vectors for tests of ranker/.
 *
 *     json_t *spec = test_json("{'format': 1, 'name': '%s', ...}", name);      ' for "
 *     test_bundle_create(path, spec);                    from data/mixed, spec is released
 *     mr_bundle *bundle = test_bundle_open(path, 2);
 *
 * Include after cmocka.h; add ranker_support.c to the test's sources.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_RANKER_SUPPORT_H
#define MR_TESTS_RANKER_SUPPORT_H

#include "core/api.h"
#include "core/json.h"
#include "core/rng.h"
#include "engine/safetensors.h"
#include "featurestore/store.h"
#include "ranker/model/bundle_write.h"
#include "ranker/model/scorer.h"

/* Formats, turns every ' into ", parses. */
json_t *test_json(const char *fmt, ...) MR_PRINTF(1, 2);

/* Prompt "Query: <query>, User: <up to 4 items>" / "<item> <title> <|endoftext|>", width 32, an
 * encoder of `tokens` tokens, yes and no as in the reference. The caller owns it. */
json_t *test_mixed_spec(int tokens);

/* data/mixed/llm and data/mixed/encoder under this spec, released. projector: a file, or NULL. */
mr_status test_bundle_make(const char *path, json_t *spec, const char *projector, mr_error *err);
mr_bundle *test_bundle_open(const char *path, int threads);

/* Reads "bundle.json" in the folder, hands it to edit, writes it back. */
void test_bundle_edit(const char *path, void (*edit)(json_t *root, const void *context),
                      const void *context);

/* n x dim small random numbers, for free(). */
float *test_vectors(mr_rng *rng, size_t n, size_t dim);

/* Writes a f32 record. values NULL: a tombstone. */
void test_store_put(mr_store *store, mr_entity entity, uint64_t space, const char *id,
                    const float *values, size_t tokens, size_t dim);
/* The same bytes that test_store_put would write; for free(). */
void *test_record(uint64_t space, const float *values, size_t tokens, size_t dim, size_t *len);

/* A tensor of a reference file as f32, for free(). NULL when there is none. */
float *test_tensor(const mr_safetensors *file, const char *name, size_t *n);

/* Entries of a folder: what was left behind. */
size_t test_count_entries(const char *folder);

mr_scorer *test_scorer(const mr_bundle *bundle, size_t max_rows);
/* One margin; fails the test when it has none. */
double test_score(mr_scorer *scorer, const mr_scorer_candidate *candidate);

#endif
