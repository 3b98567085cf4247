/* test_tokenizer_large.c - ten megabytes of anything finish, and long words merge as short ones do.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/rng.h"
#include "tests/support.h"
#include "tests/unit/tokenizer_fixture.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define LARGE        ((size_t)10 << 20)

static mr_tokenizer *open_case(const char *name)
{
    char path[256];
    mr_tokenizer *tok = NULL;
    mr_error err = {0};
    snprintf(path, sizeof path, "data/tokenizers/%s", name);
    assert_status(mr_tokenizer_open(&tok, path, &err), MR_OK, &err);
    return tok;
}

/* The unit again and again, up to len bytes. */
static mr_str repeated(const char *unit, size_t len)
{
    const size_t size = strlen(unit);
    char *text = malloc(len);
    assert_non_null(text);
    for (size_t i = 0; i + size <= len; i += size)
        memcpy(text + i, unit, size);
    return (mr_str){text, len / size * size};
}

static void ten_megabytes_of_anything_finish(void **state)
{
    (void)state;
    static const struct {
        const char *tokenizer, *unit;
        size_t least; /* ids */
    } rows[] = {
        {"qwen2", "a", 1000000},                /* one word */
        {"qwen2", " ", 1000000},                /* one word of blanks */
        {"qwen2", "\n ", 1000000},              /* blanks that end at every other place */
        {"qwen2", "\xCC\x81\xCC\xA3", 1000000}, /* marks that NFC puts in order */
        {"llama3", "1", 1000000},
        {"llama-sp", "word ", 1000000}, /* no pre-tokeniser: one piece */
        {"llama-sp", "\xE6\xBC\xA2", 1000000},
        {"added-flags", "<sep> ", 1000000}, /* added tokens all the way */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        mr_error err = {0};
        mr_ids ids = {0};
        mr_tokenizer *tok = open_case(rows[i].tokenizer);
        mr_str text = repeated(rows[i].unit, LARGE);
        const int64_t began = mr_clock_monotonic_us();
        assert_status(mr_tokenizer_encode(tok, text, MR_TOKENIZE_PARSE_SPECIAL, &ids, &err), MR_OK,
                      &err);
        printf("%s, '%s': %zu ids, %.2f s\n", rows[i].tokenizer,
               (unsigned char)rows[i].unit[0] < ' ' ? "blanks" : rows[i].unit, ids.n,
               1e-6 * (double)(mr_clock_monotonic_us() - began));
        assert_true(ids.n >= rows[i].least && ids.n <= text.len + 1);
        free((char *)(uintptr_t)text.data);
        mr_ids_release(&ids);
        mr_tokenizer_close(tok);
    }
}

/* The rule of BPE as its authors wrote it down: look for the best pair, join it, start again. */
static size_t merge_plainly(int32_t *ids, size_t n)
{
    static const int32_t rules[][3] = {{0, 1, 3}, {3, 2, 4}, {0, 0, 5}, {5, 5, 6}, {4, 4, 7}};
    for (;;) {
        size_t best = n, best_rule = COUNT(rules);
        for (size_t i = 0; i + 1 < n; i++) {
            for (size_t r = 0; r < best_rule; r++) {
                if (ids[i] == rules[r][0] && ids[i + 1] == rules[r][1]) {
                    best_rule = r;
                    best = i;
                }
            }
        }
        if (best == n)
            return n;
        ids[best] = rules[best_rule][2];
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
    }
}

static void words_of_every_length_merge_by_the_same_rule(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(3);
    mr_tokenizer *tok = tokenizer_new(&(tokenizer_parts){
        .vocab = "\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"aa\":5,\"aaaa\":6,\"abcabc\":7",
        .merges = "\"a b\",\"ab c\",\"a a\",\"aa aa\",\"abc abc\""});
    for (size_t len = 0; len <= 300; len++) {
        mr_error err = {0};
        mr_ids ids = {0};
        char text[301];
        int32_t expected[301];
        for (size_t i = 0; i < len; i++) {
            expected[i] = (int32_t)mr_rng_below(&rng, 3);
            text[i] = (char)('a' + expected[i]);
        }
        const size_t n = merge_plainly(expected, len);
        assert_status(mr_tokenizer_encode(tok, (mr_str){text, len}, 0, &ids, &err), MR_OK, &err);
        char *want = strdup(ids_text(expected, n));
        assert_string_equal(ids_text(ids.data, ids.n), want);
        free(want);
        mr_ids_release(&ids);
    }
    mr_tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_megabytes_of_anything_finish),
        cmocka_unit_test(words_of_every_length_merge_by_the_same_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
