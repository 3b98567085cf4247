/* test_tokenizer_threads.c - many threads share a tokenizer.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "core/rng.h"
#include "tests/support.h"
#include "tests/unit/tokenizer_fixture.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define N_THREADS    8
#define N_TEXTS      200

static mr_tokenizer *open_case(const char *name)
{
    char path[256];
    mr_tokenizer *tok = NULL;
    mr_error err = {0};
    snprintf(path, sizeof path, "data/tokenizers/%s", name);
    assert_status(mr_tokenizer_open(&tok, path, &err), MR_OK, &err);
    return tok;
}

typedef struct {
    const mr_tokenizer *tok;
    const mr_str *texts;
    mr_ids ids;
    mr_status status;
} worker;

static void *encode_all(void *context)
{
    worker *w = context;
    for (int round = 0; round < 3 && w->status == MR_OK; round++) {
        w->ids.n = 0;
        for (size_t i = 0; i < N_TEXTS && w->status == MR_OK; i++)
            w->status =
                mr_tokenizer_encode(w->tok, w->texts[i], MR_TOKENIZE_PARSE_SPECIAL, &w->ids, NULL);
        char *text = NULL;
        size_t len = 0;
        if (w->status == MR_OK)
            w->status = mr_tokenizer_decode(w->tok, w->ids.data, w->ids.n, true, &text, &len, NULL);
        free(text);
    }
    return NULL;
}

static void threads_that_share_a_tokenizer_get_the_same_ids(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen2", "llama-sp", "added-flags"};
    static const char *const parts[] = {"the ",  "kettle",       "12",       " red",
                                        "<sep>", "caf\xC3\xA9",  "\n",       "  ",
                                        "ing",   "\xE5\x95\x86", "e\xCC\x81"};
    mr_rng rng = mr_rng_seed(9);
    static char storage[N_TEXTS][256];
    mr_str texts[N_TEXTS];
    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t len = 0;
        for (int k = 0; k < 20; k++) {
            const char *part = parts[mr_rng_below(&rng, COUNT(parts))];
            memcpy(storage[i] + len, part, strlen(part));
            len += strlen(part);
        }
        texts[i] = (mr_str){storage[i], len};
    }
    for (size_t t = 0; t < COUNT(names); t++) {
        /* Opened here, so that all threads meet a tokenizer that has made no notes yet. */
        mr_tokenizer *tok = open_case(names[t]);
        worker workers[N_THREADS];
        pthread_t threads[N_THREADS];
        for (size_t i = 0; i < N_THREADS; i++) {
            workers[i] = (worker){.tok = tok, .texts = texts};
            assert_int_equal(pthread_create(&threads[i], NULL, encode_all, &workers[i]), 0);
        }
        for (size_t i = 0; i < N_THREADS; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        for (size_t i = 0; i < N_THREADS; i++) {
            assert_int_equal(workers[i].status, MR_OK);
            assert_true(workers[i].ids.n > N_TEXTS);
            assert_int_equal(workers[i].ids.n, workers[0].ids.n);
            assert_memory_equal(workers[i].ids.data, workers[0].ids.data,
                                workers[0].ids.n * sizeof(int32_t));
        }
        for (size_t i = 0; i < N_THREADS; i++)
            mr_ids_release(&workers[i].ids);
        mr_tokenizer_close(tok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_share_a_tokenizer_get_the_same_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
