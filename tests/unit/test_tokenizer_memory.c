/* test_tokenizer_memory.c - memory may run out at any allocation: the call then says so, and
 * nothing leaks or is left half done.
 *
 * Made with ALLOC_FAILURE: the k-th allocation of our code fails, for k = 1, 2, ... until all
 * succeed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/alloc_failure.h"
#include "tests/support.h"
#include "tests/unit/tokenizer_fixture.h"

/* Opens, encodes and decodes; what failed first. */
static mr_status work(const char *json, mr_str text, mr_ids *ids, mr_error *err)
{
    mr_tokenizer *tok = NULL;
    char *back = NULL;
    size_t len = 0;
    mr_status status = mr_tokenizer_parse(&tok, "t.json", mr_str_of(json), err);
    if (status == MR_OK)
        status = mr_tokenizer_encode(tok, text, 3, ids, err);
    if (status != MR_OK)
        assert_int_equal(ids->n, 0);
    if (status == MR_OK)
        status = mr_tokenizer_decode(tok, ids->data, ids->n, false, &back, &len, err);
    assert_true((status == MR_OK) == (back != NULL));
    free(back);
    mr_tokenizer_close(tok);
    return status;
}

static void the_kth_allocation_fails_cleanly_for_every_k(void **state)
{
    (void)state;
    static const tokenizer_parts parts[] = {
        {.added = ADDED(7, "<s>") "," ADDED_AS(8, "x_", true, true, true, true, false),
         .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
                       "\"Prepend\",\"prepend\":\"_\"},{\"type\":\"Replace\",\"pattern\":{"
                       "\"String\":\" \"},\"content\":\"_\"}]}",
         .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                          "\"pattern\":{\"Regex\":\"_?[^_]+\"},\"behavior\":\"Isolated\","
                          "\"invert\":false},{\"type\":\"Metaspace\",\"replacement\":\"_\","
                          "\"prepend_scheme\":\"always\"}]}",
         .decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
                    "\"Regex\":\"_\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":"
                    "\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}",
         .options = "\"unk_token\":\"?\","},
        {.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":"
                          "true}",
         .decoder = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true}"},
        {.added = ADDED_AS(7, "\xC4\xB0X", false, false, false, true, false),
         .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
                       "\"Lowercase\"}]}",
         .options = "\"unk_token\":\"?\","},
        {0},
    };
    char text[600] = "<s>ab e\xCC\x81 x_ ABC \xC4\xB0x abc";
    for (size_t n = strlen(text); n + 1 < sizeof text; n++)
        text[n] = "abcca"[n % 5]; /* a word long enough for the heap */
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char *json = tokenizer_json(&parts[i]);
        long k = 1;
        for (bool done = false; !done; k++) {
            mr_error err = {0};
            mr_ids ids = {0};
            alloc_fail_at(k);
            mr_status status = work(json, mr_str_of(text), &ids, &err);
            done = !alloc_failed(); /* there were fewer allocations than k */
            if (done)
                assert_status(status, MR_OK, &err);
            else
                assert_status(status, MR_NO_MEMORY, &err);
            mr_ids_release(&ids);
        }
        assert_true(k > 10);
        free(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kth_allocation_fails_cleanly_for_every_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
