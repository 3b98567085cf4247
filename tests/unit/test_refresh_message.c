/* test_refresh_message.c - messages into records, rows and rejections; nothing in a message can do
 * more than be rejected.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "core/hash.h"
#include "core/rng.h"
#include "featurestore/refresh_message.h"
#include "proto/mixrank/v1/embedding.pb-c.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SPACE        UINT64_C(0x9f00c0ffee000001)
#define DIM          3

static const mr_refresh_rule vectors_rule = {
    .entity = MR_ENTITY_ITEM, .space = SPACE, .dim = DIM, .dtype = MR_RECORD_F32, .epoch = 2};
static const mr_refresh_rule rows_rule = {
    .entity = MR_ENTITY_USER, .rows = true, .space = SPACE, .dim = DIM, .epoch = 2};

typedef struct {
    mr_arena arena, scratch;
    mr_refresh_parsed parsed;
} parse_state;

static int setup(void **state)
{
    parse_state *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->scratch.limit = (size_t)64 << 20;
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    parse_state *s = *state;
    mr_arena_done(&s->arena);
    mr_arena_done(&s->scratch);
    free(s);
    return 0;
}

/* The value is copied to a block of exactly its length, so that a sanitizer sees a byte too many.
 */
static const mr_refresh_parsed *parse(parse_state *s, const mr_refresh_rule *rule, const char *key,
                                      const char *version, const void *value, size_t len)
{
    mr_error err = {0};
    void *exact = value ? malloc(len ? len : 1) : NULL;
    if (value) {
        assert_non_null(exact);
        memcpy(exact, value, len);
    }
    const mr_refresh_message message = {.key = {key, key ? strlen(key) : 0},
                                        .value = {exact, len},
                                        .version = {version, version ? strlen(version) : 0},
                                        .offset = 70,
                                        .timestamp_ms = 1000};
    assert_status(mr_refresh_parse(rule, &message, &s->arena, &s->scratch, &s->parsed, &err), MR_OK,
                  &err);
    if (s->parsed.kind == MR_REFRESH_RECORD && s->parsed.record.data == exact) {
        void *copy = mr_arena_alloc(&s->arena, len, 1, 16);
        assert_non_null(copy);
        memcpy(copy, exact, len);
        s->parsed.record.data = copy;
    }
    s->parsed.json = (mr_str){0};
    free(exact);
    return &s->parsed;
}

static const mr_refresh_parsed *parse_json(parse_state *s, const char *text)
{
    return parse(s, &rows_rule, "ada", NULL, text, strlen(text));
}

static void assert_version(const mr_refresh_parsed *parsed, uint64_t version)
{
    if (parsed->version != version)
        fail_msg("version %llu, expected %llu", (unsigned long long)parsed->version,
                 (unsigned long long)version);
}

static void assert_rejected(const mr_refresh_parsed *parsed, const char *code, const char *reason)
{
    assert_int_equal(parsed->kind, MR_REFRESH_REJECTED);
    assert_string_equal(mr_refresh_code_name(parsed->code), code);
    assert_contains(parsed->reason, reason);
}

static Mixrank__V1__Embedding embedding(const void *values, size_t bytes)
{
    Mixrank__V1__Embedding message = MIXRANK__V1__EMBEDDING__INIT;
    message.version = 7;
    message.space = SPACE;
    message.event_time_ms = 5;
    message.tokens = 2;
    message.dim = DIM;
    message.dtype = MIXRANK__V1__EMBEDDING__DTYPE__F32;
    message.values = (ProtobufCBinaryData){bytes, (uint8_t *)(uintptr_t)values};
    return message;
}

static const float six[6] = {1, 2, 3, -4, 0.5f, 6};

static const mr_refresh_parsed *parse_embedding(parse_state *s, const mr_refresh_rule *rule,
                                                const char *version,
                                                const Mixrank__V1__Embedding *message)
{
    uint8_t packed[512];
    const size_t len = mixrank__v1__embedding__get_packed_size(message);
    assert_true(len <= sizeof packed);
    mixrank__v1__embedding__pack(message, packed);
    return parse(s, rule, "i1", version, packed, len);
}

static mr_record_info decode(const mr_refresh_parsed *parsed, float *values, size_t n)
{
    mr_error err = {0};
    mr_record_info info;
    assert_int_equal(parsed->kind, MR_REFRESH_RECORD);
    assert_status(mr_record_decode("record", parsed->record, &info, values, n, &err), MR_OK, &err);
    return info;
}

static void an_embedding_becomes_a_record(void **state)
{
    float values[6];
    const Mixrank__V1__Embedding message = embedding(six, sizeof six);
    const mr_refresh_parsed *parsed = parse_embedding(*state, &vectors_rule, NULL, &message);
    const mr_record_info info = decode(parsed, values, 6);
    assert_memory_equal(values, six, sizeof six);
    assert_int_equal(info.tokens, 2);
    assert_int_equal(info.dim, DIM);
    assert_int_equal(info.event_ms, 5);
    assert_true(info.version == 7 && info.space == SPACE);
    assert_version(parsed, 7);
    assert_true(parsed->id.len == 2 && memcmp(parsed->id.data, "i1", 2) == 0);
}

static void half_floats_keep_their_values(void **state)
{
    uint8_t f16[12], bf16[12];
    float values[6];
    for (size_t i = 0; i < 6; i++) {
        mr_store_u16le(f16 + 2 * i, mr_f32_to_f16(six[i]));
        mr_store_u16le(bf16 + 2 * i, mr_f32_to_bf16(six[i]));
    }
    Mixrank__V1__Embedding message = embedding(f16, sizeof f16);
    message.dtype = MIXRANK__V1__EMBEDDING__DTYPE__F16;
    decode(parse_embedding(*state, &vectors_rule, NULL, &message), values, 6);
    assert_memory_equal(values, six, sizeof six);
    message = embedding(bf16, sizeof bf16);
    message.dtype = MIXRANK__V1__EMBEDDING__DTYPE__BF16;
    decode(parse_embedding(*state, &vectors_rule, NULL, &message), values, 6);
    assert_memory_equal(values, six, sizeof six);
}

static void the_rule_says_how_an_embedding_is_kept(void **state)
{
    float values[6];
    const Mixrank__V1__Embedding message = embedding(six, sizeof six);
    for (int dtype = 0; dtype < MR_RECORD_DTYPE_COUNT; dtype++) {
        mr_refresh_rule rule = vectors_rule;
        rule.dtype = (mr_record_dtype)dtype;
        const mr_record_info info =
            decode(parse_embedding(*state, &rule, NULL, &message), values, 6);
        assert_int_equal(info.dtype, dtype);
        assert_floats_near(values, six, 6, 0.01);
    }
}

static void a_version_comes_from_the_value_the_header_or_the_offset(void **state)
{
    Mixrank__V1__Embedding message = embedding(six, sizeof six);
    const uint64_t of_offset = UINT64_C(2) << 48 | 70;
    assert_version(parse_embedding(*state, &vectors_rule, "9", &message), 7);
    message.version = 0;
    assert_version(parse_embedding(*state, &vectors_rule, "9", &message), 9);
    assert_version(parse_embedding(*state, &vectors_rule, NULL, &message), of_offset);
    assert_version(parse_embedding(*state, &vectors_rule, "0", &message), of_offset);
    message.version = UINT64_MAX;
    assert_version(parse_embedding(*state, &vectors_rule, NULL, &message), UINT64_MAX);
    message.event_time_ms = 0;
    assert_int_equal(parse_embedding(*state, &vectors_rule, NULL, &message)->event_ms, 1000);
}

static void a_message_without_a_value_is_a_tombstone(void **state)
{
    static const mr_refresh_rule *const rules[] = {&vectors_rule, &rows_rule};
    for (size_t i = 0; i < COUNT(rules); i++) {
        const mr_refresh_parsed *parsed = parse(*state, rules[i], "ada", NULL, NULL, 0);
        mr_record_info info = decode(parsed, NULL, 0);
        assert_true(info.tombstone && parsed->tombstone && info.space == SPACE);
        assert_version(parsed, UINT64_C(2) << 48 | 70);
        assert_true(info.version == parsed->version);
        info = decode(parse(*state, rules[i], "ada", "18446744073709551615", NULL, 0), NULL, 0);
        assert_true(info.version == UINT64_MAX);
    }
    assert_rejected(parse(*state, &vectors_rule, "ada", NULL, "", 0), "value", "is empty");
    assert_rejected(parse(*state, &rows_rule, "ada", NULL, "", 0), "value", "is empty");
}

static void a_header_that_is_no_number_is_rejected(void **state)
{
    static const char *const bad[] = {
        "", "x", "-1", "1.0", " 1", "18446744073709551616", "1 ", "0x10", "000000000000000000001"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        const mr_refresh_parsed *parsed = parse(*state, &vectors_rule, "ada", bad[i], NULL, 0);
        assert_rejected(parsed, "version", "mixrank-version");
    }
}

static void a_bad_embedding_is_rejected_with_its_reason(void **state)
{
    static const float nan_inside[6] = {1, 2, NAN, 4, 5, 6}, huge[6] = {1e9f, 1, 1, 1, 1, 1};
    mr_refresh_rule f16 = vectors_rule;
    f16.dtype = MR_RECORD_F16;
    Mixrank__V1__Embedding message = embedding(six, sizeof six);
    message.space = 5;
    assert_rejected(parse_embedding(*state, &vectors_rule, NULL, &message), "space",
                    "space is 0000000000000005, expected 9f00c0ffee000001");
    message = embedding(six, sizeof six);
    message.dim = 2;
    message.tokens = 3;
    assert_rejected(parse_embedding(*state, &vectors_rule, NULL, &message), "shape",
                    "vectors are [3, 2], expected 1 to 1024 rows of 3");
    message = embedding(six, sizeof six - 1);
    assert_rejected(parse_embedding(*state, &vectors_rule, NULL, &message), "shape",
                    "23 bytes of values, expected 24");
    message = embedding(six, sizeof six);
    message.dtype = MIXRANK__V1__EMBEDDING__DTYPE__DTYPE_UNSPECIFIED;
    assert_rejected(parse_embedding(*state, &vectors_rule, NULL, &message), "shape", "dtype is 0");
    message.dtype = (Mixrank__V1__Embedding__DType)99;
    assert_rejected(parse_embedding(*state, &vectors_rule, NULL, &message), "shape", "dtype is 99");
    message = embedding(nan_inside, sizeof nan_inside);
    assert_rejected(parse_embedding(*state, &vectors_rule, NULL, &message), "values", "nan");
    message = embedding(huge, sizeof huge);
    assert_rejected(parse_embedding(*state, &f16, NULL, &message), "values", "1e+09");
    message = embedding(six, sizeof six);
    message.event_time_ms = -1;
    assert_rejected(parse_embedding(*state, &vectors_rule, NULL, &message), "value",
                    "event_time_ms");
    static const uint32_t shapes[][2] = {
        {0, DIM}, {1025, DIM}, {UINT32_MAX, DIM}, {2, 0}, {UINT32_MAX, UINT32_MAX}};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        message = embedding(six, sizeof six);
        message.tokens = shapes[i][0];
        message.dim = shapes[i][1];
        assert_rejected(parse_embedding(*state, &vectors_rule, NULL, &message), "shape",
                        "vectors are [");
    }
}

static void a_key_must_be_an_id(void **state)
{
    char key[MR_STORE_MAX_ID_BYTES + 2];
    memset(key, 'k', sizeof key);
    key[MR_STORE_MAX_ID_BYTES + 1] = '\0';
    assert_rejected(parse(*state, &vectors_rule, NULL, NULL, NULL, 0), "key", "no key");
    assert_rejected(parse(*state, &vectors_rule, "", NULL, NULL, 0), "key", "no key");
    assert_rejected(parse(*state, &vectors_rule, key, NULL, NULL, 0), "key", "401 bytes long");
    key[MR_STORE_MAX_ID_BYTES] = '\0';
    assert_int_equal(parse(*state, &vectors_rule, key, NULL, NULL, 0)->kind, MR_REFRESH_RECORD);
}

/* ---- records --------------------------------------------------------------------------------- */

static size_t make_record(uint8_t *out, size_t size, mr_record_info info)
{
    mr_error err = {0};
    assert_true(mr_record_bytes(&info) <= size);
    assert_status(mr_record_encode(&info, info.tombstone ? NULL : six, out, &err), MR_OK, &err);
    return mr_record_bytes(&info);
}

static void a_record_is_taken_as_it_is(void **state)
{
    uint8_t bytes[256];
    const mr_record_info info = {.dtype = MR_RECORD_I8,
                                 .version = 3,
                                 .space = SPACE,
                                 .event_ms = 44,
                                 .tokens = 2,
                                 .dim = DIM};
    size_t len = make_record(bytes, sizeof bytes, info);
    const mr_refresh_parsed *parsed = parse(*state, &vectors_rule, "i1", "99", bytes, len);
    assert_int_equal(parsed->kind, MR_REFRESH_RECORD);
    assert_int_equal(parsed->record.len, len);
    assert_memory_equal(parsed->record.data, bytes, len);
    assert_version(parsed, 3);
    assert_int_equal(parsed->event_ms, 44);
    assert_false(parsed->tombstone);
    len = make_record(bytes, sizeof bytes,
                      (mr_record_info){.version = 8, .space = SPACE, .tombstone = true});
    parsed = parse(*state, &vectors_rule, "i1", NULL, bytes, len);
    assert_true(parsed->kind == MR_REFRESH_RECORD && parsed->tombstone);
    assert_version(parsed, 8);
}

static void a_bad_record_is_rejected(void **state)
{
    uint8_t bytes[256];
    mr_record_info info = {.version = 3, .space = SPACE, .tokens = 2, .dim = DIM};
    size_t len = make_record(bytes, sizeof bytes, info);
    bytes[MR_RECORD_HEADER_BYTES + 1] ^= 1;
    assert_rejected(parse(*state, &vectors_rule, "i1", NULL, bytes, len), "value", "checksum");
    bytes[MR_RECORD_HEADER_BYTES + 1] ^= 1;
    for (size_t cut = 4; cut < len; cut++)
        assert_rejected(parse(*state, &vectors_rule, "i1", NULL, bytes, cut), "value", "value");
    info.space = 1;
    len = make_record(bytes, sizeof bytes, info);
    assert_rejected(parse(*state, &vectors_rule, "i1", NULL, bytes, len), "space", "another");
    info = (mr_record_info){.version = 3, .space = SPACE, .tokens = 3, .dim = 2};
    len = make_record(bytes, sizeof bytes, info);
    assert_rejected(parse(*state, &vectors_rule, "i1", NULL, bytes, len), "shape", "[3, 2]");
    len = make_record(bytes, sizeof bytes,
                      (mr_record_info){.version = 8, .space = 1, .tombstone = true});
    assert_rejected(parse(*state, &vectors_rule, "i1", NULL, bytes, len), "space", "another");
}

/* ---- hostile protobuf ------------------------------------------------------------------------ */

static void an_embedding_cut_anywhere_is_rejected(void **state)
{
    uint8_t packed[512];
    const Mixrank__V1__Embedding message = embedding(six, sizeof six);
    const size_t len = mixrank__v1__embedding__pack(&message, packed);
    assert_true(len < sizeof packed);
    for (size_t cut = 0; cut < len; cut++) {
        const mr_refresh_parsed *parsed = parse(*state, &vectors_rule, "i1", NULL, packed, cut);
        assert_int_equal(parsed->kind, MR_REFRESH_REJECTED);
        assert_true(parsed->reason[0] != '\0');
    }
}

static void hostile_protobuf_is_rejected(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"\x3a\xff\xff\xff\xff\x0f", 6},                          /* values of 4 GiB */
        {"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},     /* of 2^64 - 1 bytes */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* a varint of 11 bytes */
        {"\x0b\x0b\x0b\x0b", 4},                                  /* groups */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 10},         /* a tag without an end */
        {"\x00\x00", 2},                                          /* field 0 */
        {"{\"id\":\"i1\"}", 11},                                  /* JSON in the wrong topic */
        {"\x10\x00", 2},                                          /* space as a varint */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const mr_refresh_parsed *parsed =
            parse(*state, &vectors_rule, "i1", NULL, cases[i].bytes, cases[i].len);
        assert_int_equal(parsed->kind, MR_REFRESH_REJECTED);
    }
}

static void a_million_unknown_fields_end_at_the_limit(void **state)
{
    const size_t len = (size_t)2 << 20;
    parse_state *s = *state;
    char *bytes = malloc(len);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i += 2) {
        bytes[i] = 0x78; /* field 15, a varint */
        bytes[i + 1] = 1;
    }
    s->scratch.limit = (size_t)8 << 20;
    assert_rejected(parse(s, &vectors_rule, "i1", NULL, bytes, len), "value", "too many fields");
    free(bytes);
}

static void want_of_memory_is_a_failure_and_no_rejection(void **state)
{
    parse_state *s = *state;
    mr_error err = {0};
    uint8_t packed[512];
    const Mixrank__V1__Embedding embedded = embedding(six, sizeof six);
    const size_t len = mixrank__v1__embedding__pack(&embedded, packed);
    mr_refresh_message message = {.key = {"i1", 2}, .value = {packed, len}, .offset = 1};
    s->arena.limit = 16;
    assert_status(
        mr_refresh_parse(&vectors_rule, &message, &s->arena, &s->scratch, &s->parsed, &err),
        MR_NO_MEMORY, &err);
    message.value = (mr_bytes){0};
    assert_status(
        mr_refresh_parse(&vectors_rule, &message, &s->arena, &s->scratch, &s->parsed, &err),
        MR_NO_MEMORY, &err);
    s->arena.limit = 0;
    assert_status(
        mr_refresh_parse(&vectors_rule, &message, &s->arena, &s->scratch, &s->parsed, &err), MR_OK,
        &err);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void a_row_is_left_to_the_encoder(void **state)
{
    const mr_refresh_parsed *parsed =
        parse_json(*state, "{\"id\":\"ada\",\"history\":[\"a\"],\"event_time_ms\":12}");
    assert_int_equal(parsed->kind, MR_REFRESH_ROW);
    assert_int_equal(parsed->event_ms, 12);
    assert_version(parsed, UINT64_C(2) << 48 | 70);
    assert_int_equal(parse_json(*state, "{\"id\":\"ada\"}")->event_ms, 1000);
}

static void versions_of_rows_are_numbers_of_64_bits(void **state)
{
    static const struct {
        const char *version;
        uint64_t want; /* 0: rejected */
    } cases[] = {
        {"1", 1},
        {"9223372036854775807", INT64_MAX},
        {"\"1\"", 1},
        {"\"9007199254740993\"", UINT64_C(9007199254740993)},
        {"\"18446744073709551615\"", UINT64_MAX},
        {"\"0042\"", 42},
        {"null", UINT64_C(2) << 48 | 70},
        {"0", UINT64_C(2) << 48 | 70},
        {"\"18446744073709551616\"", 0},
        {"\"99999999999999999999\"", 0},
        {"\"123456789012345678901\"", 0},
        {"9223372036854775808", 0},
        {"-1", 0},
        {"1.5", 0},
        {"1e3", 0},
        {"\"\"", 0},
        {"\"-1\"", 0},
        {"\"1e3\"", 0},
        {"true", 0},
        {"[1]", 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"id\":\"ada\",\"version\":%s}", cases[i].version);
        const mr_refresh_parsed *parsed = parse_json(*state, text);
        if (cases[i].want)
            assert_version(parsed, cases[i].want);
        else
            assert_rejected(parsed, "version", "'version' is ");
    }
}

static void bad_rows_are_rejected_with_their_reason(void **state)
{
    static const struct {
        const char *text, *code, *reason;
    } cases[] = {
        {"[]", "value", "value is an array, expected a JSON object"},
        {"7", "value", "value"},
        {"{", "value", "value: "},
        {"{\"id\":\"ada\"} x", "value", "value: "},
        {"{\"id\":\"ada\",\"id\":\"ada\"}", "value", "duplicate"},
        {"{}", "key", "'id' is missing, expected the message's key 'ada'"},
        {"{\"id\":\"bob\"}", "key", "'id' is the string \"bob\", expected the message's key 'ada'"},
        {"{\"id\":7}", "key", "'id' is the number 7"},
        {"{\"id\":\"ada\",\"event_time_ms\":-1}", "value", "'event_time_ms' is the number -1"},
        {"{\"id\":\"ada\",\"event_time_ms\":\"1\"}", "value", "'event_time_ms' is the string"},
        {"{\"id\":\"\xff\"}", "value", "not valid UTF-8"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_rejected(parse_json(*state, cases[i].text), cases[i].code, cases[i].reason);
    char deep[4096];
    memset(deep, '[', sizeof deep);
    assert_rejected(parse(*state, &rows_rule, "ada", NULL, deep, sizeof deep), "value", "deeper");
}

static void a_row_cut_anywhere_is_rejected(void **state)
{
    static const char text[] =
        "{\"id\":\"ada\",\"history\":[\"a\",\"b\"],\"version\":\"77\",\"event_time_ms\":12}";
    const size_t len = sizeof text - 1;
    for (size_t cut = 0; cut < len; cut++) {
        const mr_refresh_parsed *parsed = parse(*state, &rows_rule, "ada", NULL, text, cut);
        assert_rejected(parsed, "value", "value");
    }
    assert_int_equal(parse(*state, &rows_rule, "ada", NULL, text, len)->kind, MR_REFRESH_ROW);
}

static void reasons_are_printable(void **state)
{
    const mr_refresh_parsed *parsed = parse(*state, &vectors_rule, "i1", "\x01\xff", NULL, 0);
    assert_rejected(parsed, "version", "expected digits");
    for (const char *c = parsed->reason; *c; c++)
        assert_true(*c >= 0x20 && *c < 0x7f);
}

static void random_bytes_never_do_harm(void **state)
{
    parse_state *s = *state;
    mr_rng rng = mr_rng_seed(5);
    uint8_t packed[512], changed[512];
    const Mixrank__V1__Embedding message = embedding(six, sizeof six);
    const size_t len = mixrank__v1__embedding__pack(&message, packed);
    for (int round = 0; round < 20000; round++) {
        memcpy(changed, packed, len);
        for (uint64_t i = 1 + mr_rng_below(&rng, 4); i > 0; i--)
            changed[mr_rng_below(&rng, len)] = (uint8_t)mr_rng_u64(&rng);
        const mr_refresh_parsed *parsed = parse(s, &vectors_rule, "i1", NULL, changed, len);
        if (parsed->kind == MR_REFRESH_RECORD) {
            float values[6];
            mr_record_info info = decode(parsed, values, 6);
            assert_true(info.space == SPACE && info.dim == DIM);
        }
        mr_arena_rewind(&s->arena, (mr_arena_mark){0});
    }
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(an_embedding_becomes_a_record),
        CASE(half_floats_keep_their_values),
        CASE(the_rule_says_how_an_embedding_is_kept),
        CASE(a_version_comes_from_the_value_the_header_or_the_offset),
        CASE(a_message_without_a_value_is_a_tombstone),
        CASE(a_header_that_is_no_number_is_rejected),
        CASE(a_bad_embedding_is_rejected_with_its_reason),
        CASE(a_key_must_be_an_id),
        CASE(a_record_is_taken_as_it_is),
        CASE(a_bad_record_is_rejected),
        CASE(an_embedding_cut_anywhere_is_rejected),
        CASE(hostile_protobuf_is_rejected),
        CASE(a_million_unknown_fields_end_at_the_limit),
        CASE(want_of_memory_is_a_failure_and_no_rejection),
        CASE(a_row_is_left_to_the_encoder),
        CASE(versions_of_rows_are_numbers_of_64_bits),
        CASE(bad_rows_are_rejected_with_their_reason),
        CASE(a_row_cut_anywhere_is_rejected),
        CASE(reasons_are_printable),
        CASE(random_bytes_never_do_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
