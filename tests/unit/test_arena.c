/* test_arena.c - alignment, zeroing, limits, rewinding.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "tests/support.h"

static bool is_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

static void memory_is_aligned_zeroed_and_apart(void **state)
{
    (void)state;
    mr_arena arena = {0};
    unsigned char *before = NULL;
    size_t before_len = 0;
    for (size_t align = 1; align <= 4096; align *= 2) {
        for (size_t n = 1; n < 200; n += 37) {
            unsigned char *p = mr_arena_alloc(&arena, n, 3, align);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % align, 0);
            assert_true(is_zero(p, 3 * n));
            memset(p, 0xAB, 3 * n);
            if (before) {
                assert_true(before + before_len <= p || p + 3 * n <= before);
                for (size_t i = 0; i < before_len; i++)
                    assert_int_equal(before[i], 0xAB);
            }
            before = p;
            before_len = 3 * n;
        }
    }
    mr_arena_done(&arena);
}

static void requests_that_cannot_be_met_give_null(void **state)
{
    (void)state;
    static const struct {
        size_t count, size, align;
    } cases[] = {
        {SIZE_MAX, 2, 1}, {2, SIZE_MAX, 1},     {SIZE_MAX / 2, 3, 8},
        {SIZE_MAX, 1, 1}, {SIZE_MAX - 8, 1, 8}, {1, 1, 0},
        {1, 1, 3},        {1, 1, 8192},
    };
    mr_arena arena = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (mr_arena_alloc(&arena, cases[i].count, cases[i].size, cases[i].align))
            fail_msg("case %zu was met", i);
    assert_int_equal(arena.used, 0);
    assert_non_null(mr_arena_array(&arena, int, 4)); /* still usable */
    mr_arena_done(&arena);
}

static void the_limit_is_exact_and_rewinding_gives_it_back(void **state)
{
    (void)state;
    mr_arena arena = {.limit = 100};
    mr_arena_mark start = mr_arena_now(&arena);
    assert_non_null(mr_arena_alloc(&arena, 60, 1, 1));
    assert_null(mr_arena_alloc(&arena, 41, 1, 1));
    assert_non_null(mr_arena_alloc(&arena, 40, 1, 1));
    assert_int_equal(arena.used, 100);
    assert_null(mr_arena_alloc(&arena, 1, 1, 1));
    assert_non_null(mr_arena_alloc(&arena, 0, 1, 1)); /* nothing always fits */
    mr_arena_rewind(&arena, start);
    assert_int_equal(arena.used, 0);
    assert_non_null(mr_arena_alloc(&arena, 100, 1, 1));
    mr_arena_done(&arena);
    assert_int_equal(arena.limit, 100);
    assert_null(arena.first);
}

static void rewinding_reuses_blocks_and_hands_out_zeroed_memory(void **state)
{
    (void)state;
    mr_arena arena = {0};
    char *kept = mr_arena_strndup(&arena, "kept", 4);
    mr_arena_mark mark = mr_arena_now(&arena);
    static const size_t sizes[] = {1000, 70000, 200000, 64, 300000, 5};
    mr_arena_block *first_blocks = NULL;
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            unsigned char *p = mr_arena_alloc(&arena, sizes[i], 1, 16);
            assert_non_null(p);
            assert_true(is_zero(p, sizes[i]));
            memset(p, 0xFF, sizes[i]);
        }
        if (round == 0)
            first_blocks = arena.current;
        else
            assert_ptr_equal(arena.current, first_blocks); /* no new block at the end */
        mr_arena_rewind(&arena, mark);
        assert_string_equal(kept, "kept");
        assert_int_equal(arena.used, 5);
    }
    mr_arena_done(&arena);
}

static void marks_nest(void **state)
{
    (void)state;
    mr_arena arena = {0};
    mr_arena_mark outer = mr_arena_now(&arena);
    char *a = mr_arena_alloc(&arena, 50000, 1, 1);
    mr_arena_mark inner = mr_arena_now(&arena);
    char *b = mr_arena_alloc(&arena, 50000, 1, 1); /* needs a second block */
    memset(a, 'a', 50000);
    memset(b, 'b', 50000);
    mr_arena_rewind(&arena, inner);
    assert_int_equal(arena.used, 50000);
    assert_int_equal(a[49999], 'a');
    char *c = mr_arena_alloc(&arena, 50000, 1, 1);
    assert_ptr_equal(c, b);
    mr_arena_rewind(&arena, outer);
    assert_int_equal(arena.used, 0);
    assert_ptr_equal(mr_arena_alloc(&arena, 1, 1, 1), a);
    mr_arena_done(&arena);
}

static void strndup_copies_and_terminates(void **state)
{
    (void)state;
    mr_arena arena = {0};
    assert_string_equal(mr_arena_strndup(&arena, "hello world", 5), "hello");
    assert_string_equal(mr_arena_strndup(&arena, NULL, 0), "");
    assert_null(mr_arena_strndup(&arena, "x", SIZE_MAX));
    mr_arena_done(&arena);
    mr_arena_done(&arena); /* idempotent */
    mr_arena_done(NULL);
}

static void checked_sizes_refuse_overflow_and_leave_the_output(void **state)
{
    (void)state;
    size_t out = 7;
    assert_false(mr_size_mul(SIZE_MAX / 2, 3, &out));
    assert_false(mr_size_add(SIZE_MAX, 1, &out));
    assert_int_equal(out, 7);
    assert_true(mr_size_mul(SIZE_MAX, 1, &out));
    assert_true(out == SIZE_MAX);
    assert_true(mr_size_mul(SIZE_MAX, 0, &out));
    assert_int_equal(out, 0);
    assert_true(mr_size_add(SIZE_MAX - 1, 1, &out));
    assert_true(out == SIZE_MAX);
}

static void little_endian_loads_and_stores_need_no_alignment(void **state)
{
    (void)state;
    const unsigned char bytes[] = {0, 1, 2, 3, 4, 5, 6, 0x87, 0x88};
    assert_int_equal(mr_load_u16le(bytes + 1), 0x0201);
    assert_int_equal(mr_load_u32le(bytes + 5), 0x88870605u);
    assert_true(mr_load_u64le(bytes + 1) == UINT64_C(0x8887060504030201));
    unsigned char out[9] = {0};
    mr_store_u64le(out + 1, UINT64_C(0x8887060504030201));
    assert_memory_equal(out, bytes, sizeof out);
    mr_store_f32le(out + 1, -1.5f);
    assert_true(mr_load_f32le(out + 1) == -1.5f);
    assert_int_equal(mr_load_u32le(out + 1), 0xBFC00000u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_zeroed_and_apart),
        cmocka_unit_test(requests_that_cannot_be_met_give_null),
        cmocka_unit_test(the_limit_is_exact_and_rewinding_gives_it_back),
        cmocka_unit_test(rewinding_reuses_blocks_and_hands_out_zeroed_memory),
        cmocka_unit_test(marks_nest),
        cmocka_unit_test(strndup_copies_and_terminates),
        cmocka_unit_test(checked_sizes_refuse_overflow_and_leave_the_output),
        cmocka_unit_test(little_endian_loads_and_stores_need_no_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
