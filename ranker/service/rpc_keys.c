/* rpc_keys.c - bearer keys: a file of them, and whether a header brings one.
 *
 * Kept are SHA-256 digests. What a client sends is hashed too and compared with every digest,
 * whole, so that neither the time nor the place of the first difference tells anything about a key.
 * SPDX-License-Identifier: Apache-2.0 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/hash.h"
#include "ranker/service/rpc_private.h"

#define MOST_FILE  ((size_t)1 << 20)
#define MOST_KEYS  ((size_t)4096)
#define LEAST_KEY  ((size_t)16)
#define MOST_KEY   ((size_t)1024)
#define HEX_DIGITS ((size_t)MR_SHA256_HEX - 1)

struct mr_rpc_keys {
    char (*digest)[MR_SHA256_HEX]; /* owned */
    size_t n;
};

static mr_str trim(mr_str text)
{
    while (text.len && strchr(" \t\r", text.data[text.len - 1]))
        text.len--;
    while (text.len && strchr(" \t", text.data[0]))
        text = (mr_str){text.data + 1, text.len - 1};
    return text;
}

static mr_status add_key(mr_rpc_keys *keys, mr_str key, const char *path, size_t line,
                         mr_error *err)
{
    if (key.len < LEAST_KEY || key.len > MOST_KEY)
        return MR_FAIL(err, INVALID, "'%s' line %zu: a key of %zu characters, expected %zu to %zu",
                       path, line, key.len, LEAST_KEY, MOST_KEY);
    for (size_t i = 0; i < key.len; i++) {
        if (key.data[i] <= ' ' || key.data[i] > '~')
            return MR_FAIL(err, INVALID,
                           "'%s' line %zu: character %zu is not printable ASCII, as keys are", path,
                           line, i + 1);
    }
    if (keys->n == MOST_KEYS)
        return MR_FAIL(err, EXHAUSTED, "'%s' holds more than %zu keys", path, MOST_KEYS);
    return mr_hash_sha256_hex(key.data, key.len, keys->digest[keys->n++], err);
}

mr_status mr_rpc_keys_read(mr_rpc_keys **out, const char *path, mr_error *err)
{
    mr_arena arena = {.limit = 2 * MOST_FILE};
    mr_str text = {0};
    mr_rpc_keys *keys = calloc(1, sizeof *keys);
    mr_status status = keys ? mr_file_read(&arena, path, MOST_FILE, &text, err)
                            : MR_FAIL(err, NO_MEMORY, "keys of '%s'", path);
    if (status != MR_OK)
        goto out;
    size_t lines = 1;
    for (size_t i = 0; i < text.len; i++)
        lines += text.data[i] == '\n';
    keys->digest = calloc(lines < MOST_KEYS ? lines : MOST_KEYS, sizeof *keys->digest);
    if (!keys->digest) {
        status = MR_FAIL(err, NO_MEMORY, "keys of '%s'", path);
        goto out;
    }
    size_t line = 0;
    for (size_t from = 0; from < text.len && status == MR_OK;) {
        const char *end = memchr(text.data + from, '\n', text.len - from);
        const size_t to = end ? (size_t)(end - text.data) : text.len;
        const mr_str key = trim((mr_str){text.data + from, to - from});
        line++;
        from = to + 1;
        if (key.len && key.data[0] != '#')
            status = add_key(keys, key, path, line, err);
    }
    if (status == MR_OK && keys->n == 0)
        status = MR_FAIL(err, INVALID,
                         "'%s' holds no key: nobody could call; leave the option out "
                         "to let everybody in",
                         path);

out:
    if (text.len)
        OPENSSL_cleanse((void *)(uintptr_t)text.data, text.len);
    mr_arena_done(&arena);
    if (status == MR_OK)
        *out = keys;
    else
        mr_rpc_keys_free(keys);
    return status;
}

void mr_rpc_keys_free(mr_rpc_keys *keys)
{
    if (!keys)
        return;
    free(keys->digest);
    free(keys);
}

bool mr_rpc_keys_accept(const mr_rpc_keys *keys, mr_str header)
{
    static const char scheme[] = "bearer ";
    const size_t skip = sizeof scheme - 1;
    char digest[MR_SHA256_HEX];
    if (header.len <= skip || strncasecmp(header.data, scheme, skip) != 0)
        return false;
    const mr_str key = trim((mr_str){header.data + skip, header.len - skip});
    if (key.len > MOST_KEY || mr_hash_sha256_hex(key.data, key.len, digest, NULL) != MR_OK)
        return false;
    int found = 0;
    for (size_t i = 0; i < keys->n; i++)
        found |= CRYPTO_memcmp(digest, keys->digest[i], HEX_DIGITS) == 0;
    return found != 0;
}
