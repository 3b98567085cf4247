/* chaos.c - a store that is kept fresh while everything around it dies, and whether it is right in
 * the end.
 *
 *     ninja chaos                             100,000 events, 10 kills, Redis twice, the broker
 * once chaos --events 3000 --kills 2           the short form, which is a test chaos --store lmdb
 * a store of the members' own instead of Redis
 *
 * Three members of one group read two topics of a real broker (load.h says what is in them). While
 * messages come, members are killed with SIGKILL and started again, one leaves politely and comes
 * back, Redis is stopped once and killed once, and the broker is restarted. Meanwhile the store is
 * looked at: a version that goes back is a failure at once. In the end every record must equal a
 * plain single-threaded replay of the log, and every poisoned message must have its letter, with
 * the right reason, and no other message one.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/options.h"
#include "core/rng.h"
#include "tests/chaos/load.h"
#include "tests/chaos/member.h"
#include "tests/kafka_broker.h"
#include "tests/kafka_support.h"
#include "tests/redis_server.h"
#include "tests/support.h"

#define MEMBERS     3
#define STEPS       60 /* of the load */
#define STEP_MS     400
#define REDIS_MS    3000 /* what a restart takes, about */
#define BROKER_MS   12000
#define DRAIN_MS    180000
#define WATCHED     64 /* items looked at while it runs */
#define MAX_LETTERS 65536

typedef struct {
    int64_t events, kills, redis_restarts, broker_restarts, seed;
    int store;
} chaos_options;

static const char *const stores[] = {"redis", "lmdb", NULL};
static const mr_option table[] = {
    MR_OPTION_INT("events", 0, "N", chaos_options, events, 100, 10000000, "events"),
    MR_OPTION_INT("kills", 0, "N", chaos_options, kills, 0, 40, "members killed with SIGKILL"),
    MR_OPTION_INT("redis-restarts", 0, "N", chaos_options, redis_restarts, 0, 10,
                  "stopped and killed in turn"),
    MR_OPTION_INT("broker-restarts", 0, "N", chaos_options, broker_restarts, 0, 10, "killed"),
    MR_OPTION_INT("seed", 0, "N", chaos_options, seed, 0, 9e15, "of the events"),
    MR_OPTION_CHOICE("store", 0, "KIND", chaos_options, store, stores, "where members write"),
    MR_OPTION_END,
};

typedef struct {
    const chaos_options *opt;
    chaos_load load;
    kafka_broker *broker;
    kafka_client *client;
    redis_server *redis;
    char *folder; /* of LMDB */
    const char *url;
    mr_store *store; /* our own, to look */
    chaos_member members[MEMBERS];
    uint64_t seen[WATCHED]; /* highest version seen of an item */
    int failures;
} chaos;

static void went_wrong(chaos *c, const char *fmt, ...) MR_PRINTF(2, 3);
static void went_wrong(chaos *c, const char *fmt, ...)
{
    if (c->failures++ >= 20)
        return;
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "chaos: FAILED: ");
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* ---- setting up ------------------------------------------------------------------------------ */

static bool open_store(chaos *c)
{
    mr_error err = {0};
    mr_store_options options = MR_STORE_OPTIONS_DEFAULT;
    options.max_bytes = (uint64_t)1 << 30;
    options.fast_writes = true;
    if (c->opt->store == 0) {
        const redis_server_options redis = {.appendonly = true, .extra = "appendfsync always\n"};
        c->redis = redis_server_start(&redis);
        if (!c->redis)
            return false;
        c->url = redis_server_url(c->redis);
    } else {
        c->folder = test_folder_new();
        c->url = c->folder;
    }
    if (mr_store_open(&c->store, c->url, &options, &err) == MR_OK)
        return true;
    fprintf(stderr, "chaos: %s\n", err.message);
    return false;
}

static bool start(chaos *c)
{
    if (!open_store(c) ||
        !chaos_load_make(&c->load, (size_t)c->opt->events, (uint64_t)c->opt->seed))
        return false;
    c->client = kafka_client_new(kafka_broker_address(c->broker));
    kafka_make_topic(c->client, CHAOS_ITEMS, CHAOS_PARTITIONS, NULL);
    kafka_make_topic(c->client, CHAOS_USERS, CHAOS_PARTITIONS, NULL);
    for (int m = 0; m < MEMBERS; m++) {
        if (!chaos_member_start(&c->members[m], kafka_broker_address(c->broker), c->url))
            return false;
    }
    return true;
}

static void finish(chaos *c)
{
    for (int m = 0; m < MEMBERS; m++)
        chaos_member_kill(&c->members[m]);
    mr_store_close(c->store);
    kafka_client_free(c->client);
    redis_server_free(c->redis);
    kafka_broker_free(c->broker);
    test_folder_free(c->folder);
    chaos_load_free(&c->load);
}

/* ---- the load -------------------------------------------------------------------------------- */

static void produce(chaos *c, size_t i)
{
    const chaos_event *event = &c->load.events[c->load.order[i]];
    const char *topic = event->user ? CHAOS_USERS : CHAOS_ITEMS;
    const uint64_t space = event->user ? KAFKA_USER_SPACE : KAFKA_SPACE;
    char key[32], version[32];
    uint8_t packed[256];
    chaos_key(event, c->load.order[i], key);
    snprintf(version, sizeof version, "%" PRIu64, event->version);
    kafka_message message = {.topic = topic,
                             .partition = (int32_t)(event->key % CHAOS_PARTITIONS),
                             .key = key,
                             .value = packed};
    if (event->kind == CHAOS_TOMBSTONE) {
        message.value = NULL;
        message.version = event->user ? NULL : version;
    } else if (event->kind == CHAOS_PUT) {
        message.len = kafka_pack_embedding(space, event->user ? 0 : event->version, event->mark,
                                           packed, sizeof packed);
    } else if (event->poison == 1) {
        message.value = "no embedding";
        message.len = 12;
    } else if (event->poison == 4) { /* two more values than its shape says */
        message.len = kafka_pack_embedding(space, 1, 1, packed, sizeof packed);
        packed[message.len++] = 0x20; /* field 4, tokens: 2 */
        packed[message.len++] = 2;
    } else {
        const float mark = event->poison == 2 ? NAN : 1;
        message.len =
            kafka_pack_embedding(event->poison == 0 ? 5 : space, 1, mark, packed, sizeof packed);
        if (event->poison == 3)
            message.key = NULL;
    }
    kafka_produce(c->client, &message);
}

/* ---- looking on ------------------------------------------------------------------------------ */

typedef struct {
    chaos *c;
    uint64_t version;
    float mark;
    bool tombstone, found;
} look;

static void on_record(void *context, size_t i, mr_bytes record)
{
    look *l = context;
    float values[KAFKA_DIM];
    mr_record_info info;
    (void)i;
    if (!record.data)
        return;
    if (mr_record_decode("record", record, &info, values, KAFKA_DIM, NULL) != MR_OK) {
        went_wrong(l->c, "a stored record is damaged");
        return;
    }
    l->found = true;
    l->version = info.version;
    l->tombstone = info.tombstone;
    l->mark = info.tombstone ? 0 : values[0];
    for (size_t k = 1; k < KAFKA_DIM && !info.tombstone; k++) {
        if (values[k] != values[0])
            went_wrong(l->c, "a stored record is torn");
    }
}

static mr_status look_at(chaos *c, bool user, uint32_t key, look *out, mr_error *err)
{
    char id[32];
    const chaos_event event = {.user = user, .key = key};
    chaos_key(&event, 0, id);
    *out = (look){.c = c};
    const mr_str name = mr_str_of(id);
    return mr_store_fetch(c->store, user ? MR_ENTITY_USER : MR_ENTITY_ITEM,
                          user ? KAFKA_USER_SPACE : KAFKA_SPACE, &name, 1, on_record, out, err);
}

/* No version goes back, and nothing comes to life again. */
static void watch(chaos *c)
{
    for (uint32_t i = 0; i < WATCHED && i < c->load.n_items; i++) {
        look now;
        if (look_at(c, false, i, &now, NULL) != MR_OK)
            return; /* the store is away */
        if (now.version < c->seen[i])
            went_wrong(c, "item %" PRIu32 " went from version %" PRIu64 " back to %" PRIu64, i,
                       c->seen[i], now.version);
        c->seen[i] = now.version;
    }
    for (int m = 0; m < MEMBERS; m++) {
        if (chaos_member_died(&c->members[m])) {
            went_wrong(c, "member %d ended by itself", m);
            chaos_member_start(&c->members[m], kafka_broker_address(c->broker), c->url);
        }
    }
}

/* ---- what happens ---------------------------------------------------------------------------- */

static void restart_redis(chaos *c, int step)
{
    fprintf(stderr, "chaos: step %d: Redis is %s\n", step, step % 2 ? "killed" : "stopped");
    if (step % 2)
        redis_server_kill(c->redis);
    else
        redis_server_stop(c->redis);
    kafka_sleep_ms(1500);
    if (!redis_server_restart(c->redis))
        went_wrong(c, "Redis does not come back");
}

static void trouble(chaos *c, int step, int *killed, int *redis, int *broker)
{
    const chaos_options *opt = c->opt;
    if (*killed < opt->kills &&
        2 * step * opt->kills >= (2 * (int64_t)*killed + 1) * (STEPS - 10)) {
        const int m = *killed % MEMBERS;
        fprintf(stderr, "chaos: step %d: member %d is killed\n", step, m);
        chaos_member_kill(&c->members[m]);
        if (!chaos_member_start(&c->members[m], kafka_broker_address(c->broker), c->url))
            went_wrong(c, "member %d does not start", m);
        ++*killed;
    }
    if (c->redis && *redis < opt->redis_restarts && step == 15 + 19 * *redis) {
        restart_redis(c, step);
        ++*redis;
    }
    if (*broker < opt->broker_restarts && step == 24 + 20 * *broker) {
        fprintf(stderr, "chaos: step %d: the broker is killed\n", step);
        if (!kafka_broker_kill(c->broker) || !kafka_broker_restart(c->broker))
            went_wrong(c, "the broker does not come back");
        ++*broker;
    }
    if (step == STEPS / 2) {
        fprintf(stderr, "chaos: step %d: member 1 leaves and comes back\n", step);
        if (!chaos_member_stop(&c->members[1]))
            went_wrong(c, "member 1 did not leave cleanly");
        chaos_member_start(&c->members[1], kafka_broker_address(c->broker), c->url);
    }
}

/* Evenly over the time that the trouble takes, so that there is always something on its way. */
static void *produce_all(void *context)
{
    chaos *c = context;
    const size_t n = c->load.n_messages;
    const int64_t started = mr_clock_monotonic_us();
    const int64_t lasts = INT64_C(1000) * (STEPS * STEP_MS + REDIS_MS * c->opt->redis_restarts +
                                           BROKER_MS * c->opt->broker_restarts);
    for (size_t sent = 0; sent < n;) {
        const int64_t passed = mr_clock_monotonic_us() - started;
        const size_t due =
            passed >= lasts ? n : (size_t)((double)n * (double)passed / (double)lasts);
        for (; sent < due; sent++)
            produce(c, sent);
        kafka_sleep_ms(2);
    }
    kafka_flush(c->client);
    return NULL;
}

static void run_load(chaos *c)
{
    pthread_t producer;
    int killed = 0, redis = 0, broker = 0;
    if (pthread_create(&producer, NULL, produce_all, c) != 0) {
        went_wrong(c, "no thread for the load");
        return;
    }
    for (int step = 0; step < STEPS; step++) {
        trouble(c, step, &killed, &redis, &broker);
        kafka_sleep_ms(STEP_MS);
        watch(c);
    }
    pthread_join(producer, NULL);
}

static void on_any(void *context, const rd_kafka_message_t *message)
{
    int64_t *ends = context;
    if (message->partition < CHAOS_PARTITIONS && message->offset >= ends[message->partition])
        ends[message->partition] = message->offset + 1;
}

/* Waits until the group has committed everything. */
static void drain(chaos *c)
{
    static const char *const topics[] = {CHAOS_ITEMS, CHAOS_USERS};
    const int64_t until = mr_clock_monotonic_us() + INT64_C(1000) * DRAIN_MS;
    for (size_t t = 0; t < 2; t++) {
        int64_t ends[CHAOS_PARTITIONS] = {0};
        kafka_read_all(c->client, topics[t], on_any, ends);
        for (int32_t p = 0; p < CHAOS_PARTITIONS; p++) {
            while (ends[p] && kafka_committed(c->client, "chaos", topics[t], p) < ends[p]) {
                if (mr_clock_monotonic_us() > until) {
                    went_wrong(c, "%s[%d] is not read to its end", topics[t], p);
                    return;
                }
                kafka_sleep_ms(200);
                watch(c);
            }
        }
    }
}

/* ---- whether it is right --------------------------------------------------------------------- */

static void compare(chaos *c, bool user, const chaos_record *want, uint32_t n)
{
    mr_error err = {0};
    for (uint32_t i = 0; i < n; i++) {
        look got;
        if (look_at(c, user, i, &got, &err) != MR_OK) {
            went_wrong(c, "%s", err.message);
            return;
        }
        const bool same = got.found == want[i].written &&
                          (!got.found || (got.tombstone == want[i].tombstone &&
                                          (got.tombstone || got.mark == want[i].mark) &&
                                          (user || got.version == want[i].version)));
        if (!same)
            went_wrong(c,
                       "%s %" PRIu32 " is %s, mark %g, version %" PRIu64
                       "; the replay says %s, mark %g, "
                       "version %" PRIu64,
                       user ? "user" : "item", i,
                       !got.found      ? "not there"
                       : got.tombstone ? "removed"
                                       : "there",
                       (double)got.mark, got.version,
                       !want[i].written    ? "not there"
                       : want[i].tombstone ? "removed"
                                           : "there",
                       (double)want[i].mark, want[i].version);
    }
}

typedef struct {
    chaos *c;
    size_t n, by_code[CHAOS_POISONS];
    char places[MAX_LETTERS][48]; /* topic/partition/offset, told once */
} letters;

/* A letter may come twice, from a member that died before its commit. */
static void on_letter(void *context, const rd_kafka_message_t *message)
{
    letters *seen = context;
    const char *topic = kafka_header(message, "mixrank-topic"),
               *partition = kafka_header(message, "mixrank-partition"),
               *offset = kafka_header(message, "mixrank-offset"),
               *code = kafka_header(message, "mixrank-code"),
               *reason = kafka_header(message, "mixrank-reason");
    if (!topic || !partition || !offset || !code || !reason || !*reason) {
        went_wrong(seen->c, "a letter without its headers");
        return;
    }
    if (message->key && strncmp(message->key, "poison", 6) != 0)
        went_wrong(seen->c, "a letter for '%.*s', which is no poison: %s", (int)message->key_len,
                   (const char *)message->key, reason);
    char place[48];
    snprintf(place, sizeof place, "%s/%s/%s", topic, partition, offset);
    for (size_t i = 0; i < seen->n; i++) {
        if (strcmp(seen->places[i], place) == 0)
            return;
    }
    if (seen->n == MAX_LETTERS)
        return;
    memcpy(seen->places[seen->n++], place, sizeof place);
    for (int k = 0; k < CHAOS_POISONS; k++)
        seen->by_code[k] += strcmp(code, chaos_poison_codes[k]) == 0;
}

static void check_letters(chaos *c)
{
    letters *seen = calloc(1, sizeof *seen);
    if (!seen) {
        went_wrong(c, "no memory");
        return;
    }
    seen->c = c;
    kafka_read_all(c->client, CHAOS_ITEMS ".dlq", on_letter, seen);
    kafka_read_all(c->client, CHAOS_USERS ".dlq", on_letter, seen);
    if (seen->n != c->load.poison)
        went_wrong(c, "%zu messages have letters, expected %zu", seen->n, c->load.poison);
    for (int k = 0; k < CHAOS_POISONS; k++) {
        if (seen->by_code[k] != c->load.poison_by_kind[k])
            went_wrong(c, "%zu letters say '%s', expected %zu", seen->by_code[k],
                       chaos_poison_codes[k], c->load.poison_by_kind[k]);
    }
    free(seen);
}

int main(int argc, char **argv)
{
    chaos_options opt = {
        .events = 100000, .kills = 10, .redis_restarts = 2, .broker_restarts = 1, .seed = 20260131};
    int n_positional = 0;
    bool help = false;
    mr_error err = {0};
    if (argc > 1 && strcmp(argv[1], "--member") == 0)
        return chaos_member_main(argc, argv);
    if (mr_options_parse(table, argc, argv, &opt, &n_positional, &help, &err) != MR_OK) {
        fprintf(stderr, "chaos: %s\n", err.message);
        return 2;
    }
    if (help) {
        static const mr_command_help about = {
            "chaos", "[options]", "Runs the refresher while everything around it dies.", NULL};
        mr_options_print_help(stdout, &about, table, &opt);
        return 0;
    }
    if (opt.store == 0 && redis_server_missing())
        return redis_server_skip();
    static chaos c;
    c.opt = &opt;
    c.broker = kafka_broker_start(NULL);
    if (!c.broker)
        return kafka_broker_skip();
    const int64_t started = mr_clock_monotonic_us();
    if (!start(&c)) {
        went_wrong(&c, "it does not start");
    } else {
        run_load(&c);
        drain(&c);
        for (int m = 0; m < MEMBERS; m++) {
            if (!chaos_member_stop(&c.members[m]))
                went_wrong(&c, "member %d did not leave cleanly", m);
        }
        compare(&c, false, c.load.items, c.load.n_items);
        compare(&c, true, c.load.users, c.load.n_users);
        check_letters(&c);
        printf("%zu events in %zu messages (%zu twice, %zu late, %zu tombstones, %zu poisoned); "
               "%" PRIu32 " items and %" PRIu32 " users compared; %.1f s; %d failures\n",
               c.load.n, c.load.n_messages, c.load.duplicates, c.load.late, c.load.tombstones,
               c.load.poison, c.load.n_items, c.load.n_users,
               (double)(mr_clock_monotonic_us() - started) / 1e6, c.failures);
    }
    const int failures = c.failures;
    finish(&c);
    return failures ? 1 : 0;
}
