/* tokenizer_fixture.h - small tokenizers written out in C, and asserts that show ids.
 *
 * A file is put together from its parts, so that a test states only the part that it is about.
 * Include after cmocka.h and tests/support.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_TOKENIZER_FIXTURE_H
#define MR_TESTS_TOKENIZER_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"
#include "engine/tokenizer.h"

typedef struct {
    const char *added, *normalizer, *pre_tokenizer, *post_processor, *decoder; /* NULL: none */
    const char *options;                                                       /* of the model */
    const char *vocab, *merges;                                                /* NULL: letters */
} tokenizer_parts;

/* a 0, b 1, c 2, ab 3, abc 4, _ 5, ? 6 */
#define LETTERS_VOCAB  "\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"_\":5,\"?\":6"
#define LETTERS_MERGES "\"a b\",\"ab c\""

#define ADDED_AS(id, content, single, left, right, normal, special)                             \
    "{\"id\":" #id ",\"content\":\"" content "\",\"single_word\":" #single ",\"lstrip\":" #left \
    ",\"rstrip\":" #right ",\"normalized\":" #normal ",\"special\":" #special "}"
#define ADDED(id, content) ADDED_AS(id, content, false, false, false, false, true)

/* For free(). */
static inline char *tokenizer_json(const tokenizer_parts *parts)
{
    mr_strbuf json = {0};
    mr_strbuf_printf(
        &json,
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[%s],"
        "\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,\"decoder\":%s,"
        "\"model\":{\"type\":\"BPE\",%s\"vocab\":{%s},\"merges\":[%s]}}",
        parts->added ? parts->added : "", parts->normalizer ? parts->normalizer : "null",
        parts->pre_tokenizer ? parts->pre_tokenizer : "null",
        parts->post_processor ? parts->post_processor : "null",
        parts->decoder ? parts->decoder : "null", parts->options ? parts->options : "",
        parts->vocab ? parts->vocab : LETTERS_VOCAB,
        parts->merges ? parts->merges : LETTERS_MERGES);
    assert_false(json.failed);
    return json.data;
}

static inline mr_status tokenizer_try(mr_tokenizer **tok, const tokenizer_parts *parts,
                                      mr_error *err)
{
    char *json = tokenizer_json(parts);
    mr_status status = mr_tokenizer_parse(tok, "t.json", mr_str_of(json), err);
    free(json);
    return status;
}

static inline mr_tokenizer *tokenizer_new(const tokenizer_parts *parts)
{
    mr_error err = {0};
    mr_tokenizer *tok = NULL;
    assert_status(tokenizer_try(&tok, parts, &err), MR_OK, &err);
    return tok;
}

/* "1 2 3" in a static buffer. */
static inline const char *ids_text(const int32_t *ids, size_t n)
{
    static char text[4096];
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < n && at < sizeof text - 16; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%d", i ? " " : "", (int)ids[i]);
    return text;
}

static inline void assert_encodes(const mr_tokenizer *tok, mr_str text, int flags,
                                  const char *expected)
{
    mr_error err = {0};
    mr_ids ids = {0};
    assert_status(mr_tokenizer_encode(tok, text, flags, &ids, &err), MR_OK, &err);
    assert_string_equal(ids_text(ids.data, ids.n), expected);
    mr_ids_release(&ids);
}

static inline void assert_decodes(const mr_tokenizer *tok, const int32_t *ids, size_t n, bool skip,
                                  const char *expected)
{
    mr_error err = {0};
    char *text = NULL;
    size_t len = 0;
    assert_status(mr_tokenizer_decode(tok, ids, n, skip, &text, &len, &err), MR_OK, &err);
    assert_string_equal(text, expected);
    assert_int_equal(len, strlen(expected));
    free(text);
}

#endif
