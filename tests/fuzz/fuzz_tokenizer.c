/* fuzz_tokenizer.c - whatever tokenizer.json holds and whatever the text is: a refusal with a
 * message, or ids that are tokens, the same ids twice, and text back.
 *
 * Input: a line with the length of the JSON in decimal, the JSON, the text.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"
#include "engine/tokenizer.h"
#include "tests/fuzz/fuzz.h"

#define MAX_TEXT 4096 /* a regex of the input may cost its square, within bounds */

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_failure(mr_status status, const mr_error *err)
{
    require(err->status == status && err->message[0] != '\0');
    require(mr_utf8_valid_prefix(err->message, strlen(err->message)) == strlen(err->message));
}

static void decode(const mr_tokenizer *tok, const mr_ids *ids)
{
    for (int skip = 0; skip < 2; skip++) {
        mr_error err = {0};
        char *text = NULL;
        size_t len = 0;
        mr_status status =
            mr_tokenizer_decode(tok, ids->data, ids->n, skip != 0, &text, &len, &err);
        if (status != MR_OK) {
            require(!text);
            check_failure(status, &err);
        } else {
            require(text[len] == '\0' && mr_utf8_valid_prefix(text, len) == len);
        }
        free(text);
    }
}

static void encode(const mr_tokenizer *tok, mr_str text, int flags)
{
    mr_ids ids = {0}, again = {0};
    mr_error err = {0};
    mr_status status = mr_tokenizer_encode(tok, text, flags, &ids, &err);
    if (status != MR_OK) {
        require(ids.n == 0);
        check_failure(status, &err);
    } else {
        for (size_t i = 0; i < ids.n; i++) {
            const char *token = mr_tokenizer_token(tok, ids.data[i]);
            require(token != NULL);
        }
        require(mr_tokenizer_encode(tok, text, flags, &again, &err) == MR_OK);
        require(again.n == ids.n);
        require(ids.n == 0 || memcmp(again.data, ids.data, ids.n * sizeof *ids.data) == 0);
        decode(tok, &ids);
    }
    mr_ids_release(&again);
    mr_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 0, json_len = 0;
    for (; at < size && data[at] >= '0' && data[at] <= '9' && json_len <= size; at++)
        json_len = json_len * 10 + (size_t)(data[at] - '0');
    at += at < size;
    if (json_len > size - at)
        json_len = size - at;
    const mr_str json = {(const char *)data + at, json_len};
    mr_str text = {(const char *)data + at + json_len, size - at - json_len};
    if (text.len > MAX_TEXT)
        text.len = MAX_TEXT;

    mr_tokenizer *tok = NULL;
    mr_error err = {0};
    mr_status status = mr_tokenizer_parse(&tok, "fuzz", json, &err);
    if (status != MR_OK) {
        require(!tok);
        check_failure(status, &err);
        return 0;
    }
    const int32_t n = mr_tokenizer_vocab_size(tok);
    require(n > 0 && !mr_tokenizer_token(tok, -1) && !mr_tokenizer_token(tok, n));
    require(mr_tokenizer_token(tok, n - 1) != NULL);
    for (int flags = 0; flags < 4; flags++)
        encode(tok, text, flags);
    /* What is not UTF-8 was refused above; what is goes on here. */
    text.len = text.len ? mr_utf8_valid_prefix(text.data, text.len) : 0;
    encode(tok, text, MR_TOKENIZE_PARSE_SPECIAL);

    int32_t every[64];
    mr_ids ids = {.data = every};
    for (int32_t id = 0; id < n && ids.n < sizeof every / sizeof *every; id++) {
        if (mr_tokenizer_token(tok, id))
            every[ids.n++] = id;
    }
    decode(tok, &ids);
    mr_tokenizer_close(tok);
    return 0;
}
