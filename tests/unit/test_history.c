/* test_history.c - which items of a history stand for a user.
 *
 * Order by XXH3-64 of the one-letter ids, computed with libxxhash through Python's ctypes:
 * "" 2d06.., d 45f8.., b 575a.., c 8c40.., e e5e7.., a e6c6..
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/rng.h"
#include "encoders/history.h"
#include "tests/support.h"

#define MANY 200

/* Ids are single characters of the text; '-' stands for the empty id. */
static size_t choose(const char *text, mr_history_order order, size_t most, size_t *chosen)
{
    mr_str ids[MANY];
    const size_t n = strlen(text);
    assert_true(n <= MANY);
    for (size_t i = 0; i < n; i++)
        ids[i] = (mr_str){text + i, text[i] == '-' ? 0 : 1};
    /* Exactly as much as is asked for, so that the sanitizer sees a step outside. */
    void *scratch = malloc(mr_history_scratch_bytes(n) + (n == 0));
    assert_non_null(scratch);
    size_t count = mr_history_choose(ids, n, order, most, chosen, scratch);
    free(scratch);
    return count;
}

static void histories_give_these_items(void **state)
{
    static const struct {
        const char *what;
        const char *ids;
        mr_history_order order;
        size_t most;
        const char *chosen; /* indexes, as digits */
    } row[] = {
        {"nothing", "", MR_HISTORY_SET, 4, ""},
        {"nothing in order", "", MR_HISTORY_SEQUENCE, 4, ""},
        {"no room", "abc", MR_HISTORY_SET, 0, ""},
        {"no room in order", "abc", MR_HISTORY_SEQUENCE, 0, ""},
        {"one", "a", MR_HISTORY_SET, 4, "0"},
        {"a set by hash", "abcde", MR_HISTORY_SET, 9, "31240"},
        {"the first of a set", "abcde", MR_HISTORY_SET, 2, "31"},
        {"the same set turned round", "edcba", MR_HISTORY_SET, 9, "13204"},
        {"an empty id is an id", "a-b", MR_HISTORY_SET, 9, "120"},
        {"repeats in a set count once, at their first place", "dbdbb", MR_HISTORY_SET, 9, "01"},
        {"all the same", "aaaaa", MR_HISTORY_SET, 9, "0"},
        {"a sequence in its order", "abcde", MR_HISTORY_SEQUENCE, 9, "01234"},
        {"the last of a sequence", "abcde", MR_HISTORY_SEQUENCE, 2, "34"},
        {"repeats in a sequence count at their last place", "abcab", MR_HISTORY_SEQUENCE, 9, "234"},
        {"repeats do not use up the room", "abccc", MR_HISTORY_SEQUENCE, 3, "014"},
        {"all the same in order", "aaaaa", MR_HISTORY_SEQUENCE, 9, "4"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        size_t chosen[16];
        char text[17] = "";
        size_t n = choose(row[i].ids, row[i].order, row[i].most, chosen);
        for (size_t k = 0; k < n; k++)
            text[k] = (char)('0' + chosen[k]);
        text[n] = '\0';
        if (strcmp(text, row[i].chosen) != 0)
            fail_msg("%s: chose '%s', expected '%s'", row[i].what, text, row[i].chosen);
    }
}

static void a_set_gives_the_same_ids_in_any_order(void **state)
{
    (void)state;
    char text[64];
    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = (char)('0' + i);
    text[sizeof text - 1] = '\0';
    char first[10] = "";
    mr_rng rng = mr_rng_seed(7);
    for (int round = 0; round < 50; round++) {
        size_t chosen[9];
        assert_int_equal(choose(text, MR_HISTORY_SET, 9, chosen), 9);
        char ids[10] = "";
        for (size_t k = 0; k < 9; k++)
            ids[k] = text[chosen[k]];
        if (round == 0)
            memcpy(first, ids, sizeof ids);
        assert_string_equal(ids, first);
        for (size_t i = sizeof text - 2; i > 0; i--) {
            size_t k = (size_t)mr_rng_below(&rng, i + 1);
            char kept = text[i];
            text[i] = text[k];
            text[k] = kept;
        }
    }
}

static bool seen(const mr_str *ids, size_t begin, size_t end, mr_str id)
{
    for (size_t i = begin; i < end; i++) {
        if (mr_str_equal(ids[i], id))
            return true;
    }
    return false;
}

/* The definition, in quadratic time. */
static size_t choose_slowly(const mr_str *ids, size_t n, mr_history_order order, size_t most,
                            size_t *chosen)
{
    size_t count = 0;
    if (order == MR_HISTORY_SEQUENCE) {
        size_t picked[MANY];
        for (size_t i = n; i-- > 0 && count < most;) {
            if (!seen(ids, i + 1, n, ids[i]))
                picked[count++] = i;
        }
        for (size_t i = 0; i < count; i++)
            chosen[i] = picked[count - 1 - i];
        return count;
    }
    bool taken[MANY] = {false};
    for (; count < most; count++) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < n; i++) {
            if (taken[i] || seen(ids, 0, i, ids[i]))
                continue;
            if (best == SIZE_MAX ||
                mr_hash_xxh3(ids[i].data, ids[i].len) < mr_hash_xxh3(ids[best].data, ids[best].len))
                best = i;
        }
        if (best == SIZE_MAX)
            break;
        taken[best] = true;
        chosen[count] = best;
    }
    return count;
}

static void random_histories_agree_with_the_definition(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(11);
    for (int round = 0; round < 200; round++) {
        const size_t n = (size_t)mr_rng_below(&rng, MANY + 1);
        const size_t most = (size_t)mr_rng_below(&rng, MANY + 1);
        const uint64_t variety = 1 + mr_rng_below(&rng, 2 * MANY);
        char text[MANY][16];
        mr_str ids[MANY];
        for (size_t i = 0; i < n; i++) {
            snprintf(text[i], sizeof text[i], "item-%u", (unsigned)mr_rng_below(&rng, variety));
            ids[i] = mr_str_of(text[i]);
        }
        for (int order = 0; order < 2; order++) {
            size_t got[MANY], want[MANY];
            void *scratch = malloc(mr_history_scratch_bytes(n) + (n == 0));
            size_t n_got = mr_history_choose(ids, n, (mr_history_order)order, most, got, scratch);
            free(scratch);
            size_t n_want = choose_slowly(ids, n, (mr_history_order)order, most, want);
            assert_int_equal(n_got, n_want);
            for (size_t k = 0; k < n_want; k++)
                assert_int_equal(got[k], want[k]);
        }
    }
}

static void a_long_history_of_one_item_is_no_trap(void **state)
{
    (void)state;
    const size_t n = 200000;
    mr_str *ids = malloc(n * sizeof *ids);
    void *scratch = malloc(mr_history_scratch_bytes(n));
    assert_non_null(ids);
    assert_non_null(scratch);
    for (size_t i = 0; i < n; i++)
        ids[i] = mr_str_of("the-same-item");
    size_t chosen[4];
    assert_int_equal(mr_history_choose(ids, n, MR_HISTORY_SET, 4, chosen, scratch), 1);
    assert_int_equal(chosen[0], 0);
    assert_int_equal(mr_history_choose(ids, n, MR_HISTORY_SEQUENCE, 4, chosen, scratch), 1);
    assert_int_equal(chosen[0], n - 1);
    free(scratch);
    free(ids);
}

static void scratch_is_sixteen_bytes_an_item_and_never_wraps(void **state)
{
    (void)state;
    assert_int_equal(mr_history_scratch_bytes(0), 0);
    assert_int_equal(mr_history_scratch_bytes(10), 160);
    assert_true(mr_history_scratch_bytes(SIZE_MAX / 8) == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histories_give_these_items),
        cmocka_unit_test(a_set_gives_the_same_ids_in_any_order),
        cmocka_unit_test(random_histories_agree_with_the_definition),
        cmocka_unit_test(a_long_history_of_one_item_is_no_trap),
        cmocka_unit_test(scratch_is_sixteen_bytes_an_item_and_never_wraps),
    };
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
