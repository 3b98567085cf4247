/* refresh_message.c - see refresh_message.h.
 *
 * protobuf-c allocates for every field that it does not know, so that a message of a megabyte can
 * ask for many times its size: its memory comes from the scratch arena, whose limit ends that.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/refresh_message.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/half.h"
#include "core/json.h"
#include "proto/mixrank/v1/embedding.pb-c.h"

#define MAX_DIGITS 20 /* of 2^64 - 1 */
#define EPOCH_BITS 48

const char *mr_refresh_code_name(mr_refresh_code code)
{
    static const char *const names[] = {
#define MR_REFRESH_CODE_TEXT(name, text) text,
        MR_REFRESH_CODE_MAP(MR_REFRESH_CODE_TEXT)
#undef MR_REFRESH_CODE_TEXT
    };
    return (size_t)code < MR_REFRESH_CODE_COUNT ? names[code] : "unknown";
}

/* The words go through mr_error, which makes printable what they quote. */
static mr_status reject(mr_refresh_parsed *out, mr_refresh_code code, const char *fmt, ...)
    MR_PRINTF(3, 4);
static mr_status reject(mr_refresh_parsed *out, mr_refresh_code code, const char *fmt, ...)
{
    char text[sizeof((mr_error *)NULL)->message];
    mr_error clean = {0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)MR_FAIL(&clean, INVALID, "%s", text);
    out->kind = MR_REFRESH_REJECTED;
    out->code = code;
    snprintf(out->reason, sizeof out->reason, "%.*s", (int)sizeof out->reason - 1, clean.message);
    return MR_OK;
}

static bool parse_digits(const char *text, size_t len, uint64_t *out)
{
    uint64_t value = 0;
    if (len == 0 || len > MAX_DIGITS)
        return false;
    for (size_t i = 0; i < len; i++) {
        const unsigned digit = (unsigned)(unsigned char)text[i] - '0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

/* The version of a message whose value has none. False: rejected. */
static bool outer_version(const mr_refresh_rule *rule, const mr_refresh_message *message,
                          mr_refresh_parsed *out)
{
    out->version = 0;
    if (message->version.data &&
        !parse_digits(message->version.data, message->version.len, &out->version)) {
        reject(out, MR_REFRESH_CODE_VERSION,
               "header '" MR_REFRESH_VERSION_HEADER "' is '%.*s', expected digits of a number "
               "below 2^64",
               (int)(message->version.len > 40 ? 40 : message->version.len),
               (const char *)message->version.data);
        return false;
    }
    if (out->version == 0)
        out->version = (uint64_t)rule->epoch << EPOCH_BITS |
                       ((uint64_t)message->offset & ((UINT64_C(1) << EPOCH_BITS) - 1));
    return true;
}

mr_status mr_refresh_make_tombstone(const mr_refresh_rule *rule, uint64_t version, int64_t event_ms,
                                    mr_arena *arena, mr_bytes *out, mr_error *err)
{
    const mr_record_info info = {
        .tombstone = true, .version = version, .space = rule->space, .event_ms = event_ms};
    const size_t bytes = mr_record_bytes(&info);
    void *record = mr_arena_alloc(arena, bytes, 1, 1);
    if (!record)
        return MR_FAIL(err, NO_MEMORY, "a tombstone");
    *out = (mr_bytes){record, bytes};
    return mr_record_encode(&info, NULL, record, err);
}

/* ---- records --------------------------------------------------------------------------------- */

static bool is_record(mr_bytes value)
{
    return value.len >= 4 && memcmp(value.data, "MRE1", 4) == 0;
}

static mr_status check_shape(const mr_refresh_rule *rule, uint64_t tokens, uint64_t dim,
                             mr_refresh_parsed *out, bool *fits)
{
    *fits = tokens > 0 && tokens <= MR_RECORD_MAX_TOKENS && dim > 0 && dim <= MR_RECORD_MAX_DIM &&
            (rule->dim == 0 || dim == rule->dim);
    if (*fits)
        return MR_OK;
    if (rule->dim)
        return reject(out, MR_REFRESH_CODE_SHAPE,
                      "vectors are [%" PRIu64 ", %" PRIu64 "], expected 1 to %d rows of %u", tokens,
                      dim, MR_RECORD_MAX_TOKENS, rule->dim);
    return reject(out, MR_REFRESH_CODE_SHAPE,
                  "vectors are [%" PRIu64 ", %" PRIu64 "], expected 1 to %d rows of 1 to %d",
                  tokens, dim, MR_RECORD_MAX_TOKENS, MR_RECORD_MAX_DIM);
}

static mr_status reject_space(const mr_refresh_rule *rule, uint64_t found, mr_refresh_parsed *out)
{
    return reject(out, MR_REFRESH_CODE_SPACE,
                  "space is %016" PRIx64 ", expected %016" PRIx64 ": another encoder?", found,
                  rule->space);
}

static mr_status take_record(const mr_refresh_rule *rule, mr_bytes value, mr_refresh_parsed *out)
{
    mr_error why = {0};
    mr_record_info info;
    bool fits;
    if (mr_record_check("value", value, &info, &why) != MR_OK)
        return reject(out, MR_REFRESH_CODE_VALUE, "%s", why.message);
    if (info.space != rule->space)
        return reject_space(rule, info.space, out);
    if (!info.tombstone) {
        mr_status status = check_shape(rule, info.tokens, info.dim, out, &fits);
        if (!fits)
            return status;
    }
    out->version = info.version;
    out->event_ms = info.event_ms;
    out->tombstone = info.tombstone;
    out->record = value;
    return MR_OK;
}

/* ---- mixrank.v1.Embedding -------------------------------------------------------------------- */

typedef struct {
    mr_arena *arena;
    bool failed, over; /* over: by the arena's limit, which is the message's fault */
} proto_memory;

static void *proto_alloc(void *context, size_t size)
{
    proto_memory *memory = context;
    void *block = mr_arena_alloc(memory->arena, size, 1, 16);
    if (!block) {
        const size_t limit = memory->arena->limit;
        memory->failed = true;
        memory->over |= limit && size > limit - memory->arena->used;
    }
    return block;
}

static void proto_free(void *context, void *block)
{
    (void)context;
    (void)block;
}

static mr_status encode_values(const mr_refresh_rule *rule, const Mixrank__V1__Embedding *message,
                               mr_arena *arena, mr_arena *scratch, mr_refresh_parsed *out,
                               mr_error *err)
{
    const size_t n = (size_t)message->tokens * message->dim; /* within check_shape */
    const mr_record_info info = {.dtype = rule->dtype,
                                 .version = out->version,
                                 .space = rule->space,
                                 .event_ms = out->event_ms,
                                 .tokens = (uint16_t)message->tokens,
                                 .dim = (uint16_t)message->dim};
    const size_t bytes = mr_record_bytes(&info);
    float *values = mr_arena_array(scratch, float, n);
    void *record = mr_arena_alloc(arena, bytes, 1, 16);
    if (!values || !record)
        return MR_FAIL(err, NO_MEMORY, "an embedding of %zu values", n);
    const uint8_t *raw = message->values.data;
    for (size_t i = 0; i < n; i++) {
        switch (message->dtype) {
        case MIXRANK__V1__EMBEDDING__DTYPE__F32: values[i] = mr_load_f32le(raw + 4 * i); break;
        case MIXRANK__V1__EMBEDDING__DTYPE__F16:
            values[i] = mr_f16_to_f32(mr_load_u16le(raw + 2 * i));
            break;
        default: values[i] = mr_bf16_to_f32(mr_load_u16le(raw + 2 * i)); break;
        }
    }
    mr_error why = {0};
    if (mr_record_encode(&info, values, record, &why) != MR_OK)
        return reject(out, MR_REFRESH_CODE_VALUES, "%s", why.message);
    out->record = (mr_bytes){record, bytes};
    return MR_OK;
}

static mr_status take_fields(const mr_refresh_rule *rule, const Mixrank__V1__Embedding *message,
                             mr_arena *arena, mr_arena *scratch, mr_refresh_parsed *out,
                             mr_error *err)
{
    if (message->space != rule->space)
        return reject_space(rule, message->space, out);
    bool fits;
    mr_status status = check_shape(rule, message->tokens, message->dim, out, &fits);
    if (!fits)
        return status;
    size_t width = 0;
    switch (message->dtype) {
    case MIXRANK__V1__EMBEDDING__DTYPE__F32: width = 4; break;
    case MIXRANK__V1__EMBEDDING__DTYPE__F16:
    case MIXRANK__V1__EMBEDDING__DTYPE__BF16: width = 2; break;
    default:
        return reject(out, MR_REFRESH_CODE_SHAPE,
                      "dtype is %d, expected 1 (F32), 2 (F16) or 3 "
                      "(BF16)",
                      (int)message->dtype);
    }
    const size_t want = (size_t)message->tokens * message->dim * width;
    if (message->values.len != want)
        return reject(out, MR_REFRESH_CODE_SHAPE,
                      "%zu bytes of values, expected %zu for [%u, %u] of %zu bytes",
                      message->values.len, want, (unsigned)message->tokens, (unsigned)message->dim,
                      width);
    if (message->event_time_ms < 0)
        return reject(out, MR_REFRESH_CODE_VALUE, "event_time_ms is %" PRId64 ", before 1970",
                      message->event_time_ms);
    if (message->event_time_ms)
        out->event_ms = message->event_time_ms;
    if (message->version)
        out->version = message->version;
    return encode_values(rule, message, arena, scratch, out, err);
}

static mr_status take_embedding(const mr_refresh_rule *rule, mr_bytes value, mr_arena *arena,
                                mr_arena *scratch, mr_refresh_parsed *out, mr_error *err)
{
    proto_memory memory = {.arena = scratch};
    ProtobufCAllocator allocator = {
        .alloc = proto_alloc, .free = proto_free, .allocator_data = &memory};
    Mixrank__V1__Embedding *message =
        mixrank__v1__embedding__unpack(&allocator, value.len, value.data);
    if (message)
        return take_fields(rule, message, arena, scratch, out, err);
    if (memory.failed && !memory.over)
        return MR_FAIL(err, NO_MEMORY, "an embedding of %zu bytes", value.len);
    return reject(out, MR_REFRESH_CODE_VALUE,
                  memory.over ? "value of %zu bytes has far too many fields for an Embedding"
                              : "value of %zu bytes is neither a mixrank.v1.Embedding nor a "
                                "record (MRE1)",
                  value.len);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* False: rejected. An absent version leaves out->version as it is. */
static bool read_version(const json_t *row, mr_refresh_parsed *out)
{
    const json_t *value = json_object_get(row, "version");
    uint64_t version = 0;
    bool good = true;
    if (!value || json_is_null(value))
        return true;
    if (json_is_integer(value)) {
        good = json_integer_value(value) >= 0;
        version = (uint64_t)json_integer_value(value);
    } else if (json_is_string(value)) {
        good = parse_digits(json_string_value(value), json_string_length(value), &version);
    } else {
        good = false;
    }
    if (!good) {
        reject(out, MR_REFRESH_CODE_VERSION,
               "'version' is %s, expected an integer from 0 to 2^63 - 1 or a string of digits "
               "below 2^64",
               mr_json_describe(value));
        return false;
    }
    if (version)
        out->version = version;
    return true;
}

static void take_object(const json_t *row, mr_refresh_parsed *out)
{
    if (!json_is_object(row)) {
        reject(out, MR_REFRESH_CODE_VALUE, "value is %s, expected a JSON object",
               mr_json_describe(row));
        return;
    }
    const json_t *id = json_object_get(row, "id"), *time = json_object_get(row, "event_time_ms");
    const mr_str name = {json_string_value(id), json_string_length(id)};
    if (!json_is_string(id) || !mr_str_equal(name, out->id)) {
        reject(out, MR_REFRESH_CODE_KEY, "'id' is %s, expected the message's key '%.*s'",
               id ? mr_json_describe(id) : "missing", MR_STR_ARG(out->id));
        return;
    }
    if (!read_version(row, out))
        return;
    if (time && !json_is_null(time)) {
        if (!json_is_integer(time) || json_integer_value(time) < 0) {
            reject(out, MR_REFRESH_CODE_VALUE,
                   "'event_time_ms' is %s, expected milliseconds since 1970",
                   mr_json_describe(time));
            return;
        }
        out->event_ms = json_integer_value(time);
    }
    out->kind = MR_REFRESH_ROW;
}

static mr_status take_row(mr_bytes value, mr_refresh_parsed *out, mr_error *err)
{
    json_t *row = NULL;
    mr_error why = {0};
    out->json = (mr_str){value.data, value.len};
    mr_status status = mr_json_parse(&row, "value", out->json, &why);
    if (status == MR_NO_MEMORY) {
        if (err)
            *err = why;
        return status;
    }
    if (status != MR_OK)
        return reject(out, MR_REFRESH_CODE_VALUE, "%s", why.message);
    take_object(row, out);
    json_decref(row);
    return MR_OK;
}

mr_status mr_refresh_parse(const mr_refresh_rule *rule, const mr_refresh_message *message,
                           mr_arena *arena, mr_arena *scratch, mr_refresh_parsed *out,
                           mr_error *err)
{
    const mr_bytes value = message->value;
    *out = (mr_refresh_parsed){.id = {message->key.data, message->key.len},
                               .event_ms = message->timestamp_ms > 0 ? message->timestamp_ms : 0};
    if (!message->key.data || message->key.len == 0)
        return reject(out, MR_REFRESH_CODE_KEY, "the message has no key, expected an id");
    if (message->key.len > MR_STORE_MAX_ID_BYTES)
        return reject(out, MR_REFRESH_CODE_KEY, "the key is %zu bytes long, expected at most %d",
                      message->key.len, MR_STORE_MAX_ID_BYTES);
    if (value.data && !rule->rows && is_record(value))
        return take_record(rule, value, out);
    if (!outer_version(rule, message, out))
        return MR_OK;
    if (!value.data) {
        out->tombstone = true;
        return mr_refresh_make_tombstone(rule, out->version, out->event_ms, arena, &out->record,
                                         err);
    }
    if (value.len == 0)
        return reject(out, MR_REFRESH_CODE_VALUE,
                      "the value is empty; a message that removes an id has no value at all");
    if (rule->rows)
        return take_row(value, out, err);
    mr_status status = take_embedding(rule, value, arena, scratch, out, err);
    mr_arena_rewind(scratch, (mr_arena_mark){0});
    return status;
}
