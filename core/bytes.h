/* bytes.h - PUBLIC. Byte spans, overflow-checked sizes and little-endian loads and stores.
 *
 * Every size that comes from a file, a peer or a user goes through the checked functions before it
 * becomes a length. Loads assume no alignment. Parses as C++ too: hence the casts.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_BYTES_H
#define MR_CORE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A borrowed run of bytes. data may be NULL when len is 0. */
typedef struct {
    const void *data;
    size_t len;
} mr_bytes;

/* A borrowed run of text, UTF-8 unless said, not terminated. */
typedef struct {
    const char *data;
    size_t len;
} mr_str;

static inline mr_str mr_str_of(const char *terminated)
{
    const mr_str text = {terminated, terminated ? strlen(terminated) : 0};
    return text;
}

static inline bool mr_str_equal(mr_str a, mr_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Both terminated. */
static inline bool mr_ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A named text, and a list of them: a query, a title. All borrowed. */
typedef struct {
    mr_str name;
    mr_str value;
} mr_field;

typedef struct {
    const mr_field *field;
    size_t n;
} mr_fields;

/* For "%.*s": a precision is an int. */
#define MR_STR_ARG(s) (int)((s).len > 200 ? 200 : (s).len), (s).data ? (s).data : ""

/* *out = a * b; false, and *out untouched, on overflow. */
static inline bool mr_size_mul(size_t a, size_t b, size_t *out)
{
    if (b != 0 && a > SIZE_MAX / b)
        return false;
    *out = a * b;
    return true;
}

static inline bool mr_size_add(size_t a, size_t b, size_t *out)
{
    if (a > SIZE_MAX - b)
        return false;
    *out = a + b;
    return true;
}

static inline size_t mr_size_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline size_t mr_size_round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static inline uint16_t mr_load_u16le(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;
    return (uint16_t)(b[0] | (unsigned)b[1] << 8);
}

static inline uint32_t mr_load_u32le(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t mr_load_u64le(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;
    return (uint64_t)mr_load_u32le(b) | (uint64_t)mr_load_u32le(b + 4) << 32;
}

static inline float mr_load_f32le(const void *p)
{
    uint32_t bits = mr_load_u32le(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void mr_store_u16le(void *p, uint16_t v)
{
    uint8_t *b = (uint8_t *)p;
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static inline void mr_store_u32le(void *p, uint32_t v)
{
    mr_store_u16le(p, (uint16_t)v);
    mr_store_u16le((uint8_t *)p + 2, (uint16_t)(v >> 16));
}

static inline void mr_store_u64le(void *p, uint64_t v)
{
    mr_store_u32le(p, (uint32_t)v);
    mr_store_u32le((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

static inline void mr_store_f32le(void *p, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    mr_store_u32le(p, bits);
}

#endif
