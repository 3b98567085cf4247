/* test_rank_wire.c - requests and replies between protobuf and the pipeline's structs: nothing is
 * lost, nothing is trusted.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "encoders/template.h"
#include "proto/mixrank/v1/ranking.pb-c.h"
#include "ranker/service/rank_wire.h"
#include "tests/support.h"

/* Two tokens of two values: 1, -2, 0.5, 4 in each dtype. */
static uint8_t f32_bytes[] = {0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0, 0, 0, 0, 0x3F, 0, 0, 0x80, 0x40};
static uint8_t f16_bytes[] = {0x00, 0x3C, 0x00, 0xC0, 0x00, 0x38, 0x00, 0x44};
static uint8_t bf16_bytes[] = {0x80, 0x3F, 0x00, 0xC0, 0x00, 0x3F, 0x80, 0x40};
static uint8_t nan_bytes[] = {0, 0, 0xC0, 0x7F, 0, 0, 0, 0xC0, 0, 0, 0, 0x3F, 0, 0, 0x80, 0x40};

typedef struct {
    Mixrank__V1__RankRequest request;
    Mixrank__V1__User user;
    Mixrank__V1__Tokens tokens[2];
    Mixrank__V1__Prior prior;
    Mixrank__V1__Candidate candidate[3];
    Mixrank__V1__Candidate__FieldsEntry title;
    Mixrank__V1__RankRequest__FieldsEntry instruction;
    Mixrank__V1__Candidate *candidates[3];
    Mixrank__V1__Candidate__FieldsEntry *titles[1];
    Mixrank__V1__RankRequest__FieldsEntry *instructions[1];
    char *history[2];
} message;

/* A request that uses everything. */
static void fill(message *m)
{
    mixrank__v1__rank_request__init(&m->request);
    mixrank__v1__user__init(&m->user);
    mixrank__v1__prior__init(&m->prior);
    for (size_t i = 0; i < 2; i++) {
        mixrank__v1__tokens__init(&m->tokens[i]);
        m->tokens[i].dtype = MIXRANK__V1__TOKENS__DTYPE__F32;
        m->tokens[i].tokens = m->tokens[i].dim = 2;
        m->tokens[i].values = (ProtobufCBinaryData){sizeof f32_bytes, f32_bytes};
        m->tokens[i].space = 7 + i;
    }
    for (size_t i = 0; i < 3; i++) {
        mixrank__v1__candidate__init(&m->candidate[i]);
        m->candidates[i] = &m->candidate[i];
    }
    mixrank__v1__candidate__fields_entry__init(&m->title);
    mixrank__v1__rank_request__fields_entry__init(&m->instruction);
    m->title.key = (char *)"title";
    m->title.value = (char *)"Red kettle";
    m->titles[0] = &m->title;
    m->instruction.key = (char *)"instruction";
    m->instruction.value = (char *)"Rank";
    m->instructions[0] = &m->instruction;
    m->history[0] = (char *)"x";
    m->history[1] = (char *)"yy";

    m->candidate[0].id = (char *)"a";
    m->prior.score = 0;
    m->candidate[0].prior = &m->prior;
    m->candidate[1].id = (char *)"b";
    m->candidate[1].n_fields = 1;
    m->candidate[1].fields = m->titles;
    m->candidate[1].image = (ProtobufCBinaryData){3, f32_bytes};
    m->candidate[2].tokens = &m->tokens[0];
    m->user.id = (char *)"u";
    m->user.tokens = &m->tokens[1];
    m->user.n_history = 2;
    m->user.history = m->history;
    m->request.query = (char *)"tea";
    m->request.user = &m->user;
    m->request.n_candidates = 3;
    m->request.candidates = m->candidates;
    m->request.n_fields = 1;
    m->request.fields = m->instructions;
    m->request.top_k = 2;
    m->request.model = (char *)"canary";
    m->request.request_id = (char *)"r-1";
    m->request.blend = 0.25;
    m->request.explain = 1;
}

static uint8_t *pack(const message *m, size_t *len)
{
    *len = mixrank__v1__rank_request__get_packed_size(&m->request);
    uint8_t *bytes = malloc(*len);
    assert_non_null(bytes);
    mixrank__v1__rank_request__pack(&m->request, bytes);
    return bytes;
}

static mr_status read_message(const message *m, mr_arena *arena, mr_rank_wire *out, mr_error *err)
{
    size_t len;
    uint8_t *bytes = pack(m, &len);
    mr_status status = mr_rank_wire_read(out, (mr_bytes){bytes, len}, arena, err);
    free(bytes); /* what was read must not need it */
    return status;
}

static void assert_text(mr_str got, const char *want)
{
    if (!mr_str_equal(got, mr_str_of(want)))
        fail_msg("got '%.*s', expected '%s'", MR_STR_ARG(got), want);
}

static void everything_of_a_request_arrives(void **state)
{
    (void)state;
    message m;
    mr_arena arena = {.limit = MR_RANK_WIRE_BYTES};
    mr_rank_wire wire;
    mr_error err = {0};
    fill(&m);
    assert_status(read_message(&m, &arena, &wire, &err), MR_OK, &err);
    const mr_rank_request *r = &wire.request;
    assert_text(r->query, "tea");
    assert_text(wire.model, "canary");
    assert_text(wire.request_id, "r-1");
    assert_text(r->user_id, "u");
    assert_int_equal(r->n_history, 2);
    assert_text(r->history[1], "yy");
    assert_int_equal(r->top_k, 2);
    assert_true(r->blend == 0.25 && r->explain);
    assert_text(mr_fields_get(r->fields, "instruction"), "Rank");
    assert_int_equal(r->n_candidates, 3);
    assert_text(r->candidates[0].id, "a");
    assert_true(r->candidates[0].has_prior && r->candidates[0].prior == 0);
    assert_false(r->candidates[1].has_prior);
    assert_text(mr_fields_get(r->candidates[1].fields, "title"), "Red kettle");
    assert_int_equal(r->candidates[1].image.len, 3);
    assert_null(r->candidates[0].image.data);
    assert_int_equal(r->candidates[2].tokens, 2);
    assert_int_equal(r->candidates[2].dim, 2);
    assert_true(wire.item_space == 7 && wire.user_space == 8);
    mr_arena_done(&arena);
}

static void tokens_of_every_dtype_are_the_same_numbers(void **state)
{
    (void)state;
    static const float want[] = {1, -2, 0.5f, 4};
    const struct {
        Mixrank__V1__Tokens__DType dtype;
        ProtobufCBinaryData values;
    } row[] = {
        {MIXRANK__V1__TOKENS__DTYPE__F32, {sizeof f32_bytes, f32_bytes}},
        {MIXRANK__V1__TOKENS__DTYPE__F16, {sizeof f16_bytes, f16_bytes}},
        {MIXRANK__V1__TOKENS__DTYPE__BF16, {sizeof bf16_bytes, bf16_bytes}},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        message m;
        mr_arena arena = {.limit = MR_RANK_WIRE_BYTES};
        mr_rank_wire wire;
        mr_error err = {0};
        fill(&m);
        m.tokens[0].dtype = row[i].dtype;
        m.tokens[0].values = row[i].values;
        assert_status(read_message(&m, &arena, &wire, &err), MR_OK, &err);
        assert_memory_equal(wire.request.candidates[2].vectors, want, sizeof want);
        mr_arena_done(&arena);
    }
}

static void bad_dtype(message *m)
{
    m->tokens[0].dtype = (Mixrank__V1__Tokens__DType)9;
}
static void no_shape(message *m)
{
    m->tokens[0].dim = 0;
}
static void huge_shape(message *m)
{
    m->tokens[0].tokens = m->tokens[0].dim = 4000000000u;
}
static void short_values(message *m)
{
    m->tokens[0].values.len--;
}
static void not_a_number(message *m)
{
    m->tokens[1].values = (ProtobufCBinaryData){sizeof nan_bytes, nan_bytes};
}
static void two_spaces(message *m)
{
    m->candidate[0].tokens = &m->tokens[1];
    m->user.tokens = NULL;
}
static void infinite_prior(message *m)
{
    m->prior.score = (double)INFINITY;
}
static void long_id(message *m)
{
    static char id[402];
    memset(id, 'i', 401);
    m->candidate[1].id = id;
}
static void long_request_id(message *m)
{
    static char id[130];
    memset(id, 'i', 129);
    m->request.request_id = id;
}

static void what_cannot_be_meant_is_refused_and_named(void **state)
{
    (void)state;
    const struct {
        void (*change)(message *m);
        const char *message;
    } row[] = {
        {bad_dtype, "candidate 2: dtype is 9, expected F32 (1), F16 (2) or BF16 (3)"},
        {no_shape, "candidate 2: [2, 0] is no shape"},
        {huge_shape, "candidate 2: [4000000000, 4000000000] is no shape"},
        {short_values, "candidate 2: 15 bytes of values, expected 2 x 2 x 4 = 16"},
        {not_a_number, "user: value 0 of token 0 is not finite"},
        {two_spaces, "candidate 2: its space is 0000000000000007, that of others"},
        {infinite_prior, "candidate 0: its prior is not a finite number"},
        {long_id, "candidate 1: its id is 401 bytes long, at most 400"},
        {long_request_id, "request_id is 129 bytes long, at most 128"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        message m;
        mr_arena arena = {.limit = MR_RANK_WIRE_BYTES};
        mr_rank_wire wire;
        mr_error err = {0};
        fill(&m);
        row[i].change(&m);
        assert_status(read_message(&m, &arena, &wire, &err), MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
        mr_arena_done(&arena);
    }
}

static void a_message_cut_short_anywhere_is_read_or_refused(void **state)
{
    (void)state;
    message m;
    size_t len, refused = 0;
    fill(&m);
    uint8_t *bytes = pack(&m, &len);
    for (size_t n = 0; n < len; n++) {
        mr_arena arena = {.limit = MR_RANK_WIRE_BYTES};
        mr_rank_wire wire;
        mr_error err = {0};
        uint8_t *cut = malloc(n ? n : 1); /* an overread is a sanitizer's finding */
        assert_non_null(cut);
        memcpy(cut, bytes, n);
        mr_status status = mr_rank_wire_read(&wire, (mr_bytes){cut, n}, &arena, &err);
        assert_true(status == MR_OK || status == MR_INVALID);
        refused += status != MR_OK;
        free(cut);
        mr_arena_done(&arena);
    }
    print_message("  %zu of %zu lengths refused\n", refused, len);
    assert_true(refused > len / 2);
    free(bytes);
}

static void a_small_message_of_many_parts_takes_no_more_memory_than_it_may(void **state)
{
    (void)state;
    enum { PARTS = 200000 };
    uint8_t *bytes = malloc(2 * PARTS);
    assert_non_null(bytes);
    for (size_t i = 0; i < PARTS; i++) {
        bytes[2 * i] = 3 << 3 | 2; /* candidates, no bytes */
        bytes[2 * i + 1] = 0;
    }
    mr_arena arena = {.limit = 1 << 20};
    mr_rank_wire wire;
    mr_error err = {0};
    assert_status(mr_rank_wire_read(&wire, (mr_bytes){bytes, 2 * PARTS}, &arena, &err),
                  MR_EXHAUSTED, &err);
    assert_contains(err.message, "takes more than the 1048576");
    mr_arena_done(&arena);
    free(bytes);
}

static void a_reply_says_what_the_pipeline_said(void **state)
{
    (void)state;
    message m;
    mr_arena arena = {.limit = MR_RANK_WIRE_BYTES};
    mr_rank_wire wire;
    mr_error err = {0};
    fill(&m);
    assert_status(read_message(&m, &arena, &wire, &err), MR_OK, &err);
    const mr_ranked_item items[] = {
        {.index = 1, .score = 0.75, .margin = 1.1, .source = MR_SOURCE_MODEL},
        {.index = 0,
         .score = (double)NAN,
         .margin = (double)NAN,
         .source = MR_SOURCE_PRIOR,
         .reason = MR_REASON_STORE_AWAY},
    };
    const mr_rank_reply reply = {.items = items,
                                 .n_items = 2,
                                 .n_candidates = 3,
                                 .n_scored = 1,
                                 .n_found = 1,
                                 .degraded = 1u << MR_REASON_STORE_AWAY | 1u << MR_REASON_DEADLINE,
                                 .bundle_name = "demo",
                                 .bundle_version = "2",
                                 .item_space = 5,
                                 .work = {.total_us = 40, .fetch_us = 3}};
    const mr_rank_wire_extra extra = {.numerics_id = "n", .queue_us = 2, .untrained = true};
    mr_bytes bytes;
    assert_status(mr_rank_wire_write(&wire, &reply, &extra, &arena, &bytes, &err), MR_OK, &err);
    Mixrank__V1__RankReply *got =
        mixrank__v1__rank_reply__unpack(NULL, bytes.len, (const uint8_t *)bytes.data);
    assert_non_null(got);
    assert_int_equal(got->n_items, 2);
    assert_string_equal(got->items[0]->id, "b");
    assert_true(got->items[0]->score == 0.75 && got->items[0]->margin == 1.1);
    assert_int_equal(got->items[0]->source, MIXRANK__V1__SOURCE__SOURCE_MODEL);
    assert_string_equal(got->items[1]->id, "a");
    assert_true(got->items[1]->score == 0 && got->items[1]->margin == 0);
    assert_int_equal(got->items[1]->source, MIXRANK__V1__SOURCE__SOURCE_PRIOR);
    assert_int_equal(got->items[1]->reason, MIXRANK__V1__REASON__REASON_STORE_AWAY);
    assert_int_equal(got->n_degraded, 2);
    assert_int_equal(got->degraded[0], MIXRANK__V1__REASON__REASON_DEADLINE);
    assert_string_equal(got->request_id, "r-1");
    assert_string_equal(got->model, "demo");
    assert_string_equal(got->numerics_id, "n");
    assert_true(got->item_space == 5 && got->untrained && !got->partial);
    assert_true(got->timings->total_us == 42 && got->timings->queue_us == 2);
    mixrank__v1__rank_reply__free_unpacked(got, NULL);
    mr_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_of_a_request_arrives),
        cmocka_unit_test(tokens_of_every_dtype_are_the_same_numbers),
        cmocka_unit_test(what_cannot_be_meant_is_refused_and_named),
        cmocka_unit_test(a_message_cut_short_anywhere_is_read_or_refused),
        cmocka_unit_test(a_small_message_of_many_parts_takes_no_more_memory_than_it_may),
        cmocka_unit_test(a_reply_says_what_the_pipeline_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
