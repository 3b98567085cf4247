/* redis_put.c - writes to Redis: the write rule runs in the server, as a script.
 *
 * The script compares the versions as two numbers of 32 bits, numerically, high half first. Lua's
 * numbers are doubles (whole up to 2^53 only), and its strings compare by strcoll, which another
 * LANG of the server changes: neither may decide. Equality of strings is by bytes.
 * A stored value that is no plausible record of ours (magic, layout, length) loses to any; damage
 * within its payload is not seen there, and is replaced when a newer version comes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include <openssl/evp.h>

#include "core/hash.h"
#include "core/rng.h"
#include "featurestore/record.h"
#include "featurestore/store_redis.h"

#define WINDOW       1024 /* records that are sent together */
#define WINDOW_BYTES ((size_t)8 << 20)
#define GROUP        32 /* records per call of the script: it holds up the server for so long */
#define GROUP_BYTES  ((size_t)256 << 10)
#define LIFE_BYTES   24

/* KEYS: of records. ARGV: a record and its life in ms ("0": for ever) per key. Replies with a
 * number per key: WRITTEN, STALE (an equal or newer one stays) or FOREIGN (a value of another
 * type). Many keys per call, since a call costs as much as a write. */
enum { STALE, WRITTEN, FOREIGN };
static const char script[] =
    "local call, pcall, byte, sub = redis.call, redis.pcall, string.byte, string.sub\n"
    "local function u32(s, at)\n"
    "  local a, b, c, d = byte(s, at, at + 3)\n"
    "  return a + b * 256 + c * 65536 + d * 16777216\n"
    "end\n"
    "local out = {}\n"
    "for i, key in ipairs(KEYS) do\n"
    "  local new, life = ARGV[2 * i - 1], ARGV[2 * i]\n"
    "  local old = pcall('GETRANGE', key, 0, 47)\n"
    "  local verdict = 1\n"
    "  if type(old) == 'table' then\n"
    "    if sub(old.err, 1, 9) ~= 'WRONGTYPE' then return old end\n"
    "    verdict = 2\n"
    "  elseif #old == 48 and sub(old, 1, 4) == 'MRE1' and byte(old, 5) == 1 then\n"
    "    local old_high, new_high = u32(old, 13), u32(new, 13)\n"
    "    if (new_high < old_high or (new_high == old_high and u32(new, 9) <= u32(old, 9)))\n"
    "        and call('STRLEN', key) == 48 + u32(old, 37) then\n"
    "      verdict = 0\n"
    "    end\n"
    "  end\n"
    "  if verdict == 1 then\n"
    "    if life == '0' then call('SET', key, new) else call('SET', key, new, 'PX', life) end\n"
    "  end\n"
    "  out[i] = verdict\n"
    "end\n"
    "return out\n";

void mr_redis_script_sha(char sha[41])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    memset(sha, '0', 40);
    sha[40] = '\0';
    /* Without SHA-1 (a strict policy) the server does not know the name, and gets the text. */
    if (EVP_Digest(script, sizeof script - 1, digest, &len, EVP_sha1(), NULL) != 1 || len != 20)
        return;
    for (size_t i = 0; i < 20; i++)
        snprintf(sha + 2 * i, 3, "%02x", digest[i]);
}

/* Spread over 10 % to either side, so that what was written together does not expire together. The
 * same record gets the same life again: a repeated put changes nothing. */
static int64_t life_ms(const mr_redis_store *store, mr_bytes key, const mr_store_write *write)
{
    mr_record_info info;
    bool tombstone = mr_record_peek(NULL, write->record, &info, NULL) == MR_OK && info.tombstone;
    int64_t ms = tombstone ? store->options.tombstone_ttl_ms : store->options.record_ttl_ms;
    if (ms <= 0)
        return 0;
    mr_rng rng = mr_rng_seed(mr_hash_xxh3(key.data, key.len) ^ write->version);
    double spread = 0.9 + 0.2 * mr_rng_uniform(&rng);
    int64_t life = (int64_t)((double)ms * spread);
    return life > 0 ? life : 1;
}

/* Records that go in one call of the script. */
typedef struct {
    size_t from, n;
} group;

/* The group's request, added to the batch, or in place of request `index` with the script's text.
 */
static mr_status send_group(mr_redis_store *store, mr_redis_batch *batch, mr_store_key *key,
                            const mr_store_write *writes, group g, const size_t *index,
                            mr_error *err)
{
    mr_bytes args[3 + 3 * GROUP];
    char keys[GROUP * MR_STORE_KEY_MAX], lives[GROUP * LIFE_BYTES], count[24], *to = keys;
    snprintf(count, sizeof count, "%zu", g.n);
    args[0] = index ? MR_REDIS_ARG("EVAL") : MR_REDIS_ARG("EVALSHA");
    args[1] = index ? (mr_bytes){script, sizeof script - 1} : (mr_bytes){store->script_sha, 40};
    args[2] = (mr_bytes){count, strlen(count)};
    for (size_t i = 0; i < g.n; i++) {
        const mr_store_write *write = &writes[g.from + i];
        char *life = lives + i * LIFE_BYTES;
        (void)mr_store_key_set(key, write->id); /* checked by store.c */
        memcpy(to, key->bytes, key->len);
        const mr_bytes name = {to, key->len};
        to += key->len;
        snprintf(life, LIFE_BYTES, "%" PRId64, life_ms(store, name, write));
        args[3 + i] = name;
        args[3 + g.n + 2 * i] = write->record;
        args[3 + g.n + 2 * i + 1] = (mr_bytes){life, strlen(life)};
    }
    if (index)
        return mr_redis_batch_replace(batch, *index, args, 3 + 3 * g.n, err);
    mr_status status = mr_redis_batch_add(batch, args, 3 + 3 * g.n, args[3], NULL, err);
    if (status == MR_OK)
        mr_redis_batch_expect(batch, MR_REDIS_ARRAY, g.n);
    return status;
}

/* The group that begins at `from`; in a cluster every key goes by itself. */
static group group_at(const mr_redis_store *store, const mr_store_write *writes, size_t from,
                      size_t n)
{
    group g = {from, 1};
    size_t bytes = writes[from].record.len;
    while (!store->router->one_key && g.n < GROUP && from + g.n < n && bytes < GROUP_BYTES)
        bytes += writes[from + g.n++].record.len;
    return g;
}

/* Those that the server knew no script for, with its text; the first one leaves it there. */
static mr_status send_text(mr_redis_store *store, mr_redis_batch *batch, mr_store_key *key,
                           const mr_store_write *writes, const group *groups, bool *any,
                           mr_error *err)
{
    *any = false;
    for (size_t i = 0; i < mr_redis_batch_count(batch); i++) {
        if (!mr_redis_is_error(mr_redis_batch_value(batch, i), "NOSCRIPT"))
            continue;
        mr_status status = send_group(store, batch, key, writes, groups[i], &i, err);
        if (status != MR_OK)
            return status;
        *any = true;
    }
    return MR_OK;
}

/* What went wrong with one record, after all are through; the first such is told. */
typedef struct {
    mr_status status;
    mr_error err;
} trouble;

/* A foreign value is one record's trouble. */
static void note_foreign(mr_redis_store *store, mr_store_key *key, const mr_store_write *write,
                         trouble *t)
{
    atomic_fetch_add(&store->foreign_values, 1);
    if (t->status != MR_OK)
        return;
    (void)mr_store_key_set(key, write->id);
    t->status = MR_FAIL(&t->err, MISMATCH,
                        "key '%.*s' holds a value of another type, which no put replaces; "
                        "another program uses the namespace? Delete the key, or choose another "
                        "namespace",
                        (int)(key->len > 200 ? 200 : key->len), key->bytes);
}

static void take_answer(mr_redis_store *store, mr_store_key *key, const mr_store_write *writes,
                        group g, const mr_redis_value *value, mr_store_put_result *result,
                        trouble *t)
{
    if (value->type == MR_REDIS_ERROR) {
        if (t->status == MR_OK || t->status == MR_MISMATCH)
            t->status = mr_redis_store_refused(store, value, &t->err);
        return;
    }
    for (size_t i = 0; i < g.n; i++) { /* the node has seen to the number of elements */
        const mr_redis_value *verdict = value->element[i];
        if (verdict->type == MR_REDIS_INTEGER && verdict->integer == WRITTEN)
            result->written++;
        else if (verdict->type == MR_REDIS_INTEGER && verdict->integer == STALE)
            result->stale++;
        else if (verdict->type == MR_REDIS_INTEGER && verdict->integer == FOREIGN)
            note_foreign(store, key, &writes[g.from + i], t);
        else if (t->status == MR_OK || t->status == MR_MISMATCH)
            t->status = mr_redis_store_odd(store, "EVALSHA", &t->err);
    }
}

static mr_status put_window(mr_redis_store *store, mr_store_key *key, const mr_store_write *writes,
                            size_t n, mr_store_put_result *result, trouble *t, mr_error *err)
{
    mr_redis_batch *batch = NULL;
    group groups[WINDOW];
    size_t n_groups = 0;
    mr_status status = mr_redis_batch_new(&batch, store->router, err);
    for (size_t from = 0; status == MR_OK && from < n; from += groups[n_groups++].n) {
        groups[n_groups] = group_at(store, writes, from, n);
        status = send_group(store, batch, key, writes, groups[n_groups], NULL, err);
    }
    if (status == MR_OK)
        status = mr_redis_store_run(store, batch, err);
    bool again = false;
    if (status == MR_OK)
        status = send_text(store, batch, key, writes, groups, &again, err);
    if (status == MR_OK && again)
        status = mr_redis_store_run(store, batch, err);
    for (size_t i = 0; status == MR_OK && i < n_groups; i++)
        take_answer(store, key, writes, groups[i], mr_redis_batch_value(batch, i), result, t);
    mr_redis_batch_free(batch);
    return status;
}

/* KEYS[1], the new value, "1" when there must be a value before, that value. 1: it is the new one
 * now, or was already. */
static const char swap_script[] = "local held = redis.call('GET', KEYS[1])\n"
                                  "local fits = held == false\n"
                                  "if ARGV[2] == '1' then\n"
                                  "  fits = held == ARGV[3]\n"
                                  "end\n"
                                  "if held == ARGV[1] then\n"
                                  "  return 1\n"
                                  "end\n"
                                  "if not fits then\n"
                                  "  return 0\n"
                                  "end\n"
                                  "redis.call('SET', KEYS[1], ARGV[1])\n"
                                  "return 1\n";

static mr_status swap_note(mr_redis_store *store, const mr_store_note *note, mr_error *err)
{
    char space[MR_STORE_KEY_MAX];
    const mr_bytes key = mr_redis_note_key(note->key, space);
    const bool is_held = note->expected.data != NULL;
    mr_redis_batch *batch = NULL;
    const mr_redis_value *value;
    const mr_bytes args[] = {MR_REDIS_ARG("EVAL"),
                             {swap_script, sizeof swap_script - 1},
                             MR_REDIS_ARG("1"),
                             key,
                             {note->value.data, note->value.len},
                             is_held ? MR_REDIS_ARG("1") : MR_REDIS_ARG("0"),
                             {is_held ? note->expected.data : "", note->expected.len}};
    mr_status status = mr_redis_store_ask(store, args, 7, key, NULL, &batch, &value, err);
    if (status == MR_OK && value->type != MR_REDIS_INTEGER)
        status = mr_redis_store_odd(store, "EVAL", err);
    else if (status == MR_OK && value->integer != 1)
        status = mr_store_note_differs(note, err);
    mr_redis_batch_free(batch);
    return status;
}

static mr_status put_note(mr_redis_store *store, const mr_store_note *note, mr_error *err)
{
    if (note->is_swap)
        return swap_note(store, note, err);
    char space[MR_STORE_KEY_MAX];
    const mr_bytes key = mr_redis_note_key(note->key, space);
    mr_redis_batch *batch = NULL;
    const mr_redis_value *value;
    const mr_bytes args[] = {MR_REDIS_ARG("SET"), key, {note->value.data, note->value.len}};
    mr_status status = mr_redis_store_ask(store, args, 3, key, NULL, &batch, &value, err);
    if (status == MR_OK && (value->type != MR_REDIS_STATUS || strcmp(value->str, "OK") != 0))
        status = mr_redis_store_odd(store, "SET", err);
    mr_redis_batch_free(batch);
    return status;
}

mr_status mr_redis_put(void *self, mr_store_key *key, const mr_store_write *writes, size_t n,
                       const mr_store_note *note, mr_store_put_result *result, mr_error *err)
{
    mr_redis_store *store = self;
    trouble t = {0};
    for (size_t from = 0, to; from < n; from = to) {
        size_t bytes = 0;
        for (to = from; to < n && to - from < WINDOW; to++) {
            if (to > from && writes[to].record.len > WINDOW_BYTES - bytes)
                break;
            bytes += writes[to].record.len < WINDOW_BYTES ? writes[to].record.len : WINDOW_BYTES;
        }
        mr_status status = put_window(store, key, writes + from, to - from, result, &t, err);
        if (status != MR_OK)
            return status;
        /* A value of another type is one record's trouble; a full or closed server is everybody's.
         */
        if (t.status != MR_OK && t.status != MR_MISMATCH)
            break;
    }
    if (t.status != MR_OK) {
        if (err)
            *err = t.err;
        return t.status;
    }
    return note ? put_note(store, note, err) : MR_OK;
}
