/* record.c - encode, check and decode embedding records. See record.h for the layout.
 *
 * Reading goes in three steps, each trusting only the one before: the header must be consistent
 * with itself and with the length, then the checksum must hold, then the values must be finite.
 * Checking the values belongs to mr_record_check, so that what a store accepted always decodes, and
 * decoding writes nothing before all of it is known to be good.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/record.h"

#include <math.h>
#include <string.h>

#include "core/half.h"
#include "core/hash.h"

enum {
    AT_MAGIC = 0,
    AT_LAYOUT = 4,
    AT_DTYPE = 5,
    AT_FLAGS = 6,
    AT_ZERO_1 = 7,
    AT_VERSION = 8,
    AT_SPACE = 16,
    AT_EVENT_MS = 24,
    AT_TOKENS = 32,
    AT_DIM = 34,
    AT_PAYLOAD = 36,
    AT_CRC = 40,
    AT_ZERO_2 = 44
};

#define LAYOUT         1
#define FLAG_TOMBSTONE 1u
#define INT8_MAX_STEP  127

static const char magic[4] = {'M', 'R', 'E', '1'};

static const struct {
    const char *name;
    size_t value_bytes;
    const char *largest; /* for the message about a value that does not fit */
} dtypes[MR_RECORD_DTYPE_COUNT] = {
    [MR_RECORD_F32] = {"f32", 4, "3.40e38"},
    [MR_RECORD_F16] = {"f16", 2, "65504"},
    [MR_RECORD_BF16] = {"bf16", 2, "3.39e38"},
    [MR_RECORD_I8] = {"int8", 1, "3.37e38"},
};

const char *mr_record_dtype_name(mr_record_dtype dtype)
{
    return (size_t)dtype < MR_RECORD_DTYPE_COUNT ? dtypes[dtype].name : "unknown";
}

bool mr_record_dtype_from_name(const char *name, mr_record_dtype *out)
{
    for (size_t i = 0; name && i < MR_RECORD_DTYPE_COUNT; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            *out = (mr_record_dtype)i;
            return true;
        }
    }
    return false;
}

static size_t scales_bytes(size_t tokens)
{
    return mr_size_round_up(tokens * sizeof(float), 16);
}

/* Cannot overflow: tokens and dim are 16 bits wide. */
static size_t payload_bytes(const mr_record_info *info)
{
    if (info->tombstone)
        return 0;
    size_t values = (size_t)info->tokens * info->dim * dtypes[info->dtype].value_bytes;
    return info->dtype == MR_RECORD_I8 ? scales_bytes(info->tokens) + values : values;
}

static bool has_shape(const mr_record_info *info)
{
    return info->tokens >= 1 && info->tokens <= MR_RECORD_MAX_TOKENS && info->dim >= 1 &&
           info->dim <= MR_RECORD_MAX_DIM;
}

size_t mr_record_bytes(const mr_record_info *info)
{
    if ((size_t)info->dtype >= MR_RECORD_DTYPE_COUNT || (!info->tombstone && !has_shape(info)))
        return 0;
    return MR_RECORD_HEADER_BYTES + payload_bytes(info);
}

/* The checksum field counts as zero, so that the sum can stand inside what it covers. */
static uint32_t checksum(const uint8_t *record, size_t len)
{
    static const uint8_t zero[4] = {0};
    uint32_t crc = mr_hash_crc32c(0, record, AT_CRC);
    crc = mr_hash_crc32c(crc, zero, sizeof zero);
    return mr_hash_crc32c(crc, record + AT_ZERO_2, len - AT_ZERO_2);
}

/* ---- encode ---------------------------------------------------------------------------------- */

static mr_status fail_value(const mr_record_info *info, const float *values, size_t i,
                            mr_error *err)
{
    const size_t dim = info->dim ? info->dim : 1, token = i / dim, column = i % dim;
    if (!isfinite(values[i]))
        return MR_FAIL(err, INVALID,
                       "value [%zu, %zu] of a [%d, %d] embedding is %g; embeddings must be finite",
                       token, column, info->tokens, info->dim, (double)values[i]);
    return MR_FAIL(
        err, INVALID,
        "value [%zu, %zu] of a [%d, %d] embedding is %g and does not fit %s (largest %s); "
        "store it as f32",
        token, column, info->tokens, info->dim, (double)values[i], dtypes[info->dtype].name,
        dtypes[info->dtype].largest);
}

/* One scale per token, symmetric. The scale is rounded to f32 first and the integers are chosen for
 * the rounded one, which keeps the error within half a step. A row whose scale would round to zero
 * holds nothing larger than 1e-43 and becomes zeros. */
static mr_status encode_i8(const mr_record_info *info, const float *values, uint8_t *payload,
                           mr_error *err)
{
    size_t scales = scales_bytes(info->tokens), dim = info->dim;
    memset(payload, 0, scales);
    for (size_t t = 0; t < info->tokens; t++) {
        const float *row = values + t * dim;
        size_t at_largest = 0;
        for (size_t d = 0; d < dim; d++) {
            if (!isfinite(row[d]))
                return fail_value(info, values, t * dim + d, err);
            if (fabsf(row[d]) > fabsf(row[at_largest]))
                at_largest = d;
        }
        float scale = fabsf(row[at_largest]) / INT8_MAX_STEP;
        if (!isfinite(scale * 128.0f))
            return fail_value(info, values, t * dim + at_largest, err);
        mr_store_f32le(payload + t * sizeof(float), scale);
        for (size_t d = 0; d < dim; d++) {
            double steps = scale > 0 ? rint((double)row[d] / (double)scale) : 0;
            steps = steps > INT8_MAX_STEP ? INT8_MAX_STEP : steps;
            steps = steps < -INT8_MAX_STEP ? -INT8_MAX_STEP : steps;
            payload[scales + t * dim + d] = (uint8_t)(int8_t)steps;
        }
    }
    return MR_OK;
}

static mr_status encode_payload(const mr_record_info *info, const float *values, uint8_t *payload,
                                mr_error *err)
{
    size_t n = (size_t)info->tokens * info->dim;
    switch (info->dtype) {
    case MR_RECORD_F32:
        for (size_t i = 0; i < n; i++) {
            if (!isfinite(values[i]))
                return fail_value(info, values, i, err);
            mr_store_f32le(payload + 4 * i, values[i]);
        }
        return MR_OK;
    case MR_RECORD_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t bits = mr_f32_to_f16(values[i]);
            if ((bits & 0x7c00u) == 0x7c00u)
                return fail_value(info, values, i, err);
            mr_store_u16le(payload + 2 * i, bits);
        }
        return MR_OK;
    case MR_RECORD_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t bits = mr_f32_to_bf16(values[i]);
            if ((bits & 0x7f80u) == 0x7f80u)
                return fail_value(info, values, i, err);
            mr_store_u16le(payload + 2 * i, bits);
        }
        return MR_OK;
    default: return encode_i8(info, values, payload, err);
    }
}

mr_status mr_record_encode(const mr_record_info *info, const float *values, void *out,
                           mr_error *err)
{
    size_t bytes = mr_record_bytes(info);
    if ((size_t)info->dtype >= MR_RECORD_DTYPE_COUNT)
        return MR_FAIL(err, INVALID, "record dtype is %d; expected 0 (f32) to %d (int8)",
                       (int)info->dtype, MR_RECORD_DTYPE_COUNT - 1);
    if (!info->tombstone && !has_shape(info))
        return MR_FAIL(
            err, INVALID,
            "an embedding of %d tokens x %d values; a record holds 1 to %d tokens of 1 to "
            "%d values",
            info->tokens, info->dim, MR_RECORD_MAX_TOKENS, MR_RECORD_MAX_DIM);
    if (!info->tombstone && !values)
        return MR_FAIL(err, INVALID,
                       "no values for a record of %d tokens; only a tombstone has none",
                       info->tokens);

    uint8_t *record = out;
    memset(record, 0, MR_RECORD_HEADER_BYTES);
    memcpy(record + AT_MAGIC, magic, sizeof magic);
    record[AT_LAYOUT] = LAYOUT;
    record[AT_DTYPE] = (uint8_t)info->dtype;
    record[AT_FLAGS] = info->tombstone ? FLAG_TOMBSTONE : 0;
    mr_store_u64le(record + AT_VERSION, info->version);
    mr_store_u64le(record + AT_SPACE, info->space);
    mr_store_u64le(record + AT_EVENT_MS, (uint64_t)info->event_ms);
    if (!info->tombstone) {
        mr_store_u16le(record + AT_TOKENS, info->tokens);
        mr_store_u16le(record + AT_DIM, info->dim);
        mr_store_u32le(record + AT_PAYLOAD, (uint32_t)payload_bytes(info));
        mr_status status = encode_payload(info, values, record + MR_RECORD_HEADER_BYTES, err);
        if (status != MR_OK)
            return status;
    }
    mr_store_u32le(record + AT_CRC, checksum(record, bytes));
    return MR_OK;
}

/* ---- check ----------------------------------------------------------------------------------- */

static const char *shown(const char *key)
{
    return key ? key : "(unnamed)";
}

mr_status mr_record_peek(const char *key, mr_bytes record, mr_record_info *info, mr_error *err)
{
    const uint8_t *head = record.data;
    key = shown(key);
    if (!head || record.len < MR_RECORD_HEADER_BYTES)
        return MR_FAIL(err, CORRUPT, "record '%.300s' is %zu bytes; its header alone takes %d", key,
                       record.len, MR_RECORD_HEADER_BYTES);
    if (memcmp(head + AT_MAGIC, magic, sizeof magic) != 0)
        return MR_FAIL(err, CORRUPT,
                       "record '%.300s' begins with %02x %02x %02x %02x, expected \"MRE1\": not an "
                       "embedding record, or damaged",
                       key, head[0], head[1], head[2], head[3]);
    if (head[AT_LAYOUT] != LAYOUT)
        return MR_FAIL(
            err, CORRUPT,
            "record '%.300s' has layout %d; this build reads layout %d: was it written by "
            "a newer version?",
            key, head[AT_LAYOUT], LAYOUT);
    if (head[AT_DTYPE] >= MR_RECORD_DTYPE_COUNT)
        return MR_FAIL(err, CORRUPT, "record '%.300s' has dtype %d, expected 0 (f32) to %d (int8)",
                       key, head[AT_DTYPE], MR_RECORD_DTYPE_COUNT - 1);
    if ((head[AT_FLAGS] & ~FLAG_TOMBSTONE) || head[AT_ZERO_1] || mr_load_u32le(head + AT_ZERO_2))
        return MR_FAIL(err, CORRUPT,
                       "record '%.300s' has bits set that layout %d keeps zero (flags 0x%02x)", key,
                       LAYOUT, head[AT_FLAGS]);

    mr_record_info found = {
        .dtype = (mr_record_dtype)head[AT_DTYPE],
        .tombstone = (head[AT_FLAGS] & FLAG_TOMBSTONE) != 0,
        .version = mr_load_u64le(head + AT_VERSION),
        .space = mr_load_u64le(head + AT_SPACE),
        .event_ms = (int64_t)mr_load_u64le(head + AT_EVENT_MS),
        .tokens = mr_load_u16le(head + AT_TOKENS),
        .dim = mr_load_u16le(head + AT_DIM),
    };
    if (found.tombstone && (found.tokens || found.dim))
        return MR_FAIL(
            err, CORRUPT,
            "record '%.300s' is a tombstone with %d tokens x %d values; it must have none", key,
            found.tokens, found.dim);
    if (!found.tombstone && !has_shape(&found))
        return MR_FAIL(
            err, CORRUPT,
            "record '%.300s' has %d tokens x %d values; expected 1 to %d tokens of 1 to %d "
            "values",
            key, found.tokens, found.dim, MR_RECORD_MAX_TOKENS, MR_RECORD_MAX_DIM);
    size_t payload = payload_bytes(&found);
    if (mr_load_u32le(head + AT_PAYLOAD) != payload)
        return MR_FAIL(err, CORRUPT,
                       "record '%.300s' says its payload is %lu bytes; %d tokens x %d values of %s "
                       "take %zu",
                       key, (unsigned long)mr_load_u32le(head + AT_PAYLOAD), found.tokens,
                       found.dim, dtypes[found.dtype].name, payload);
    if (record.len != MR_RECORD_HEADER_BYTES + payload)
        return MR_FAIL(err, CORRUPT, "record '%.300s' is %zu bytes, its header says %zu: %s", key,
                       record.len, MR_RECORD_HEADER_BYTES + payload,
                       record.len < MR_RECORD_HEADER_BYTES + payload ? "cut short?"
                                                                     : "bytes were added?");
    *info = found;
    return MR_OK;
}

/* The scans below look at all values without leaving early: compilers turn that into vector code,
 * and damage is rare. */
static bool all_finite_f32(const uint8_t *p, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (mr_load_u32le(p + 4 * i) & UINT32_C(0x7f800000)) == UINT32_C(0x7f800000);
    return !bad;
}

static bool all_finite_half(const uint8_t *p, size_t n, uint16_t exponent)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (mr_load_u16le(p + 2 * i) & exponent) == exponent;
    return !bad;
}

static bool all_finite_i8(const uint8_t *p, size_t tokens)
{
    for (size_t t = 0; t < tokens; t++) {
        if (!isfinite(mr_load_f32le(p + 4 * t) * 128.0f))
            return false;
    }
    return true;
}

static bool values_finite(const mr_record_info *info, const uint8_t *payload)
{
    size_t n = (size_t)info->tokens * info->dim;
    switch (info->dtype) {
    case MR_RECORD_F32: return all_finite_f32(payload, n);
    case MR_RECORD_F16: return all_finite_half(payload, n, 0x7c00u);
    case MR_RECORD_BF16: return all_finite_half(payload, n, 0x7f80u);
    default: return all_finite_i8(payload, info->tokens);
    }
}

static bool padding_is_zero(const mr_record_info *info, const uint8_t *payload)
{
    unsigned bad = 0;
    if (!info->tombstone && info->dtype == MR_RECORD_I8) {
        for (size_t i = info->tokens * sizeof(float); i < scales_bytes(info->tokens); i++)
            bad |= payload[i];
    }
    return !bad;
}

mr_status mr_record_check(const char *key, mr_bytes record, mr_record_info *info, mr_error *err)
{
    mr_record_info found;
    mr_status status = mr_record_peek(key, record, &found, err);
    if (status != MR_OK)
        return status;

    const uint8_t *bytes = record.data;
    uint32_t said = mr_load_u32le(bytes + AT_CRC), is = checksum(bytes, record.len);
    if (said != is)
        return MR_FAIL(err, CORRUPT,
                       "record '%.300s' has checksum %08lx, its bytes give %08lx: it is damaged; "
                       "encode it again",
                       shown(key), (unsigned long)said, (unsigned long)is);
    if (!padding_is_zero(&found, bytes + MR_RECORD_HEADER_BYTES))
        return MR_FAIL(err, CORRUPT, "record '%.300s' has bits set in the padding of its scales",
                       shown(key));
    if (!values_finite(&found, bytes + MR_RECORD_HEADER_BYTES))
        return MR_FAIL(err, CORRUPT,
                       "record '%.300s' holds a value that is not finite; its encoder is at fault",
                       shown(key));
    *info = found;
    return MR_OK;
}

/* ---- decode ---------------------------------------------------------------------------------- */

mr_status mr_record_decode(const char *key, mr_bytes record, mr_record_info *info, float *out,
                           size_t out_values, mr_error *err)
{
    mr_record_info found;
    mr_status status = mr_record_check(key, record, &found, err);
    if (status != MR_OK)
        return status;
    size_t n = (size_t)found.tokens * found.dim, dim = found.dim;
    if (n > out_values)
        return MR_FAIL(err, INVALID,
                       "record '%.300s' holds %d tokens x %d values; there is room for %zu values",
                       shown(key), found.tokens, found.dim, out_values);

    const uint8_t *payload = (const uint8_t *)record.data + MR_RECORD_HEADER_BYTES;
    switch (found.dtype) {
    case MR_RECORD_F32:
        for (size_t i = 0; i < n; i++)
            out[i] = mr_load_f32le(payload + 4 * i);
        break;
    case MR_RECORD_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = mr_f16_to_f32(mr_load_u16le(payload + 2 * i));
        break;
    case MR_RECORD_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = mr_bf16_to_f32(mr_load_u16le(payload + 2 * i));
        break;
    default:
        for (size_t t = 0; t < found.tokens; t++) {
            const uint8_t *row = payload + scales_bytes(found.tokens) + t * dim;
            float scale = mr_load_f32le(payload + 4 * t);
            for (size_t d = 0; d < dim; d++)
                out[t * dim + d] = scale * (float)(int8_t)row[d];
        }
        break;
    }
    *info = found;
    return MR_OK;
}
