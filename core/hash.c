/* hash.c - see hash.h.
 *
 * CRC-32C by tables is "slicing by 8" (Kounavis and Berry, 2005): table k holds what a byte does to
 * the remainder when k more bytes follow it, so that eight look-ups replace eight dependent steps.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/hash.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <xxhash.h>

#include "core/bytes.h"
#include "core/crc32c.h"
#include "core/file.h"

#define POLYNOMIAL_REFLECTED UINT32_C(0x82F63B78)

uint64_t mr_hash_xxh3(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

static uint32_t crc_table[8][256];
static uint32_t (*crc_chosen)(uint32_t crc, const void *data, size_t len);
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL_REFLECTED : 0);
        crc_table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = crc_table[k - 1][byte];
            crc_table[k][byte] = before >> 8 ^ crc_table[0][before & 0xff];
        }
    }
    crc_chosen = mr_crc32c_tables;
#ifdef MR_HAVE_CRC32C_SSE42
    if (mr_crc32c_sse42_usable())
        crc_chosen = mr_crc32c_sse42;
#endif
}

#ifdef MR_HAVE_CRC32C_SSE42
bool mr_crc32c_sse42_usable(void)
{
#    if defined(__GNUC__) || defined(__clang__)
    return __builtin_cpu_supports("sse4.2");
#    else
    return false;
#    endif
}
#endif

uint32_t mr_crc32c_tables(uint32_t crc, const void *data, size_t len)
{
    (void)pthread_once(&crc_once, crc_prepare);
    const uint8_t *p = data;
    crc = ~crc;
    for (; len >= 8; p += 8, len -= 8) {
        uint32_t low = crc ^ mr_load_u32le(p);
        uint32_t high = mr_load_u32le(p + 4);
        crc = crc_table[7][low & 0xff] ^ crc_table[6][low >> 8 & 0xff] ^
              crc_table[5][low >> 16 & 0xff] ^ crc_table[4][low >> 24] ^ crc_table[3][high & 0xff] ^
              crc_table[2][high >> 8 & 0xff] ^ crc_table[1][high >> 16 & 0xff] ^
              crc_table[0][high >> 24];
    }
    for (; len > 0; p++, len--)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *p) & 0xff];
    return ~crc;
}

uint32_t mr_hash_crc32c(uint32_t crc, const void *data, size_t len)
{
    (void)pthread_once(&crc_once, crc_prepare);
    return crc_chosen(crc, data, len);
}

static void to_hex(const unsigned char *digest, char out[MR_SHA256_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[64] = '\0';
}

mr_status mr_hash_sha256_hex(const void *data, size_t len, char out[MR_SHA256_HEX], mr_error *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (!EVP_Digest(len ? data : "", len, digest, NULL, EVP_sha256(), NULL))
        return MR_FAIL(err, INTERNAL, "libcrypto could not compute SHA-256 of %zu bytes", len);
    to_hex(digest, out);
    return MR_OK;
}

static mr_status digest_chunk(void *context, const void *data, size_t len, mr_error *err)
{
    if (!EVP_DigestUpdate(context, data, len))
        return MR_FAIL(err, INTERNAL, "libcrypto could not compute SHA-256");
    return MR_OK;
}

mr_status mr_hash_sha256_file(const char *path, char out[MR_SHA256_HEX], mr_error *err)
{
    mr_status status;
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || !EVP_DigestInit_ex(ctx, EVP_sha256(), NULL)) {
        status = MR_FAIL(err, NO_MEMORY, "SHA-256 of '%s'", path);
        goto out;
    }
    status = mr_file_stream(path, digest_chunk, ctx, err);
    if (status != MR_OK)
        goto out;
    if (!EVP_DigestFinal_ex(ctx, digest, NULL)) {
        status = MR_FAIL(err, INTERNAL, "libcrypto could not compute SHA-256 of '%s'", path);
        goto out;
    }
    to_hex(digest, out);

out:
    EVP_MD_CTX_free(ctx);
    return status;
}
