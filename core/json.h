/* json.h - jansson with bounds, paths in error messages, and unknown-key checks.
 *
 *     json_t *root = NULL;
 *     mr_status s = mr_json_load_file(&root, "config.json", MR_JSON_MAX_CONFIG, &err);
 *     mr_json_cursor cur = mr_json_cursor_of("config.json", root, &err);
 *     int64_t layers = mr_json_int(&cur, "num_hidden_layers", 1, 1024, MR_JSON_REQUIRED);
 *     double eps = mr_json_real(&cur, "rms_norm_eps", 0, 1, 1e-6);
 *     if (cur.status != MR_OK) ...                    one check for many reads
 *
 * A cursor keeps its first error and answers later reads with the default, so that ten reads need
 * one check. Messages read: config.json: 'num_hidden_layers' is the string "two", expected an
 * integer from 1 to 1024. Text that is not JSON, duplicate keys and nesting deeper than 64 are
 * CORRUPT; files over the bound and more than 8 million values are EXHAUSTED; a key that is
 * missing, unknown, of the wrong type or out of range is INVALID. Threads: a json_t tree is used by
 * one thread at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_JSON_H
#define MR_CORE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/bytes.h"
#include "core/error.h"

#define MR_JSON_MAX_CONFIG    ((size_t)8 << 20)
#define MR_JSON_MAX_TOKENIZER ((size_t)256 << 20)
#define MR_JSON_MAX_DEPTH     64

/* name is for messages: a path, or "line 12 of items.jsonl". The caller owns *out (json_decref).
 * Text with NUL escapes in strings is accepted; invalid UTF-8 is CORRUPT. If an integer somewhere
 * does not fit 64 bits (Hugging Face's "model_max_length": 1e30 written out), every number of the
 * tree is a real: read numbers through a cursor, which takes whole reals for integers. */
mr_status mr_json_parse(json_t **out, const char *name, mr_str text, mr_error *err);
mr_status mr_json_load_file(json_t **out, const char *path, size_t max_bytes, mr_error *err);
/* Pretty-printed with sorted keys, atomically replaced. */
mr_status mr_json_save_file(const json_t *value, const char *path, mr_error *err);

typedef struct {
    const char *name;     /* borrowed */
    const json_t *object; /* borrowed; a missing object reads as all defaults */
    mr_error *err;
    mr_status status; /* first failure, sticky */
} mr_json_cursor;

/* object must be a JSON object (else the cursor starts failed). */
mr_json_cursor mr_json_cursor_of(const char *name, const json_t *object, mr_error *err);

#define MR_JSON_REQUIRED INT64_MIN /* as a fallback: the key must be there */

/* Each reads one key. A null value counts as absent. */
/* A real without a fraction, up to 2^53, is an integer too: JSON does not tell them apart. */
int64_t mr_json_int(mr_json_cursor *cur, const char *key, int64_t min, int64_t max,
                    int64_t fallback);
/* fallback NAN: required. */
double mr_json_real(mr_json_cursor *cur, const char *key, double min, double max, double fallback);
bool mr_json_bool(mr_json_cursor *cur, const char *key, bool fallback);
/* Borrowed from the tree; required: must be there. A string with a NUL inside is refused: as a C
 * string it would be another one. */
const char *mr_json_string(mr_json_cursor *cur, const char *key, const char *fallback,
                           bool required);
const json_t *mr_json_object(mr_json_cursor *cur, const char *key, bool required);
const json_t *mr_json_array(mr_json_cursor *cur, const char *key, bool required);
/* Fails with the key and the nearest known one if the object has a key outside the list
 * (NULL-terminated). Config written by hand is checked so; Hugging Face's own files are not. */
void mr_json_only(mr_json_cursor *cur, const char *const *known);

/* "an object", "the string \"two\"", "the number 3": for messages. Static or per-thread storage. */
const char *mr_json_describe(const json_t *value);

#endif
