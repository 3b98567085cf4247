/* test_rpc_server.c - life of servers and calls: threads that answer, cancellation, drain, options.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "ranker/service/rpc_server.h"
#include "tests/rpc_client.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define ONE          .body = (const uint8_t *)"\0\0\0\0\1x", .len = 6

/* The last call that came, kept for the test to answer. */
static mr_rpc_call *_Atomic kept;
static atomic_int cancelled, writable, destroyed;

static void count_destroyed(void *user)
{
    (void)user;
    atomic_fetch_add(&destroyed, 1);
}

static void count_cancelled(mr_rpc_call *call, void *user)
{
    (void)user;
    assert_true(mr_rpc_call_is_cancelled(call));
    atomic_fetch_add(&cancelled, 1);
}

static void count_writable(mr_rpc_call *call, void *user)
{
    (void)call;
    (void)user;
    atomic_fetch_add(&writable, 1);
}

static void keep(void *context, mr_rpc_call *call)
{
    (void)context;
    mr_rpc_call_ref(call);
    mr_rpc_call_attach(call, &destroyed, count_destroyed);
    mr_rpc_call_on_cancel(call, count_cancelled);
    mr_rpc_call_on_writable(call, count_writable);
    mr_rpc_call_unref(atomic_exchange(&kept, call)); /* one that nobody took */
}

static const mr_rpc_method methods[] = {
    {.path = "/test.T/Keep", .kind = MR_RPC_SERVER_STREAM, .handle = keep},
    {.path = "/test.T/Watch", .kind = MR_RPC_SERVER_STREAM, .handle = keep, .long_lived = true}};

static mr_rpc_server *open_server(mr_rpc_options opt)
{
    static const char *const listen[] = {"127.0.0.1:0"};
    mr_rpc_server *server = NULL;
    mr_error err = {0};
    if (!opt.n_listen) {
        opt.listen = listen;
        opt.n_listen = 1;
    }
    opt.methods = methods;
    opt.n_methods = COUNT(methods);
    assert_status(mr_rpc_server_new(&server, &opt, &err), MR_OK, &err);
    assert_status(mr_rpc_server_start(server, &err), MR_OK, &err);
    atomic_store(&kept, NULL);
    atomic_store(&cancelled, 0);
    atomic_store(&writable, 0);
    atomic_store(&destroyed, 0);
    return server;
}

static void wait_for(const atomic_int *counter, int value)
{
    for (int i = 0; i < 4000 && atomic_load(counter) < value; i++)
        usleep(5000);
    assert_int_equal(atomic_load(counter), value);
}

/* Starts a call and lets the client run until the handler has it. */
static mr_rpc_call *take_call(rpc_client *client, const char *path, rpc_result **result)
{
    mr_rpc_call *call = NULL;
    *result = rpc_client_start(client, &(rpc_request){.path = path, ONE});
    for (int i = 0; i < 4000 && !call; i++) {
        (void)rpc_client_wait(client, *result, 5);
        call = atomic_exchange(&kept, NULL);
    }
    assert_non_null(call);
    return call;
}

static void a_call_is_answered_by_another_thread(void **state)
{
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_result *r;
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    assert_string_equal(mr_rpc_call_path(call), "/test.T/Keep");
    assert_int_equal(strncmp(mr_rpc_call_peer(call), "127.0.0.1:", 10), 0);
    assert_int_equal(mr_rpc_call_request(call).len, 1);
    const int64_t left = mr_rpc_call_deadline_us(call) - mr_clock_monotonic_us();
    assert_true(left > 50000000 && left <= 60000000); /* the server's own */
    assert_int_equal(mr_rpc_call_write(call, "one", 3), MR_RPC_WRITTEN);
    assert_true(rpc_client_wait_bytes(client, r, 8, 10000)); /* it leaves before the end */
    mr_rpc_call_reply(call, "two", 3);
    assert_int_equal(atomic_load(&destroyed), 0);
    assert_true(rpc_client_wait(client, r, 10000));
    assert_int_equal(r->code, MR_RPC_OK);
    assert_int_equal(r->len, 16);
    mr_rpc_call_unref(call);
    wait_for(&destroyed, 1);
    assert_int_equal(atomic_load(&cancelled), 0);
    rpc_client_close(client);
    mr_rpc_server_free(server);
}

static void a_client_that_resets_cancels(void **state)
{
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_result *r;
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    assert_false(mr_rpc_call_is_cancelled(call));
    rpc_client_reset(client, r, NGHTTP2_CANCEL);
    (void)rpc_client_wait(client, r, 1000);
    wait_for(&cancelled, 1);
    assert_int_equal(mr_rpc_call_write(call, "x", 1), MR_RPC_GONE);
    mr_rpc_call_finish(call, MR_RPC_OK, NULL); /* goes nowhere */
    mr_rpc_call_on_cancel(call, count_cancelled);
    assert_int_equal(atomic_load(&cancelled), 2); /* already cancelled: runs at once */
    mr_rpc_call_unref(call);
    wait_for(&destroyed, 1);
    rpc_client_close(client);
    mr_rpc_server_free(server);
}

static void a_connection_that_breaks_cancels(void **state)
{
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_result *r;
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    rpc_client_close(client);
    wait_for(&cancelled, 1);
    mr_rpc_call_unref(call);
    wait_for(&destroyed, 1);
    mr_rpc_server_free(server);
}

static void a_deadline_cancels_and_says_so(void **state)
{
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){.max_deadline_ms = 200});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_result *r;
    const int64_t start = mr_clock_monotonic_us();
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    assert_true(rpc_client_wait(client, r, 10000));
    const int64_t took = mr_clock_monotonic_us() - start;
    assert_int_equal(r->code, MR_RPC_DEADLINE_EXCEEDED);
    assert_true(took >= 200000);
    wait_for(&cancelled, 1);
    mr_rpc_call_unref(call);
    /* A call that lives long has none of the server's. */
    call = take_call(client, "/test.T/Watch", &r);
    assert_true(mr_rpc_call_deadline_us(call) == INT64_MAX);
    assert_false(rpc_client_wait(client, r, 400));
    mr_rpc_call_finish(call, MR_RPC_OK, NULL);
    assert_true(rpc_client_wait(client, r, 10000));
    mr_rpc_call_unref(call);
    rpc_client_close(client);
    mr_rpc_server_free(server);
}

static void a_dropped_call_is_answered_with_internal(void **state)
{
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_result *r;
    mr_rpc_call_unref(take_call(client, "/test.T/Keep", &r));
    assert_true(rpc_client_wait(client, r, 10000));
    assert_int_equal(r->code, MR_RPC_INTERNAL);
    rpc_client_close(client);
    mr_rpc_server_free(server);
}

static void a_writer_is_stopped_and_called_again(void **state)
{
    static uint8_t block[50000];
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){.stream_buffer_bytes = 100000});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_client_set_window(client, 10);
    rpc_result *r;
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    int written = 0;
    mr_rpc_write_result result;
    while ((result = mr_rpc_call_write(call, block, sizeof block)) == MR_RPC_WRITTEN)
        written++;
    assert_int_equal(result, MR_RPC_WOULD_BLOCK);
    assert_int_equal(written, 2);
    assert_int_equal(atomic_load(&writable), 0);
    rpc_client_set_window(client, 1 << 20);
    assert_true(rpc_client_wait_bytes(client, r, 2 * (sizeof block + 5), 10000));
    wait_for(&writable, 1);
    mr_rpc_call_reply(call, block, sizeof block);
    assert_true(rpc_client_wait(client, r, 10000));
    assert_int_equal(r->code, MR_RPC_OK);
    assert_int_equal(r->len, 3 * (sizeof block + 5));
    mr_rpc_call_unref(call);
    rpc_client_close(client);
    mr_rpc_server_free(server);
}

static void metadata_keeps_to_the_rules(void **state)
{
    static const struct {
        const char *name, *value, *message;
    } refused[] = {{"X-Upper", "v", "a-z 0-9"},
                   {"", "v", "a-z 0-9"},
                   {"grpc-status", "0", "protocol's own"},
                   {"content-type", "v", "protocol's own"},
                   {":status", "200", "a-z 0-9"},
                   {"x-text", "a\nb", "byte 1 is 0x0a"},
                   {"x-text", "\xc3\xb6", "-bin"},
                   {"x-text", " v", "blank"}};
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_result *r;
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    for (size_t i = 0; i < COUNT(refused); i++) {
        mr_error err = {0};
        const mr_bytes value = {refused[i].value, strlen(refused[i].value)};
        assert_status(mr_rpc_call_add_header(call, refused[i].name, value, &err), MR_INVALID, &err);
        assert_contains(err.message, refused[i].message);
    }
    mr_error err = {0};
    char large[9000] = {0};
    assert_status(mr_rpc_call_add_trailer(call, "x-bin", (mr_bytes){large, sizeof large}, &err),
                  MR_EXHAUSTED, &err);
    assert_status(mr_rpc_call_add_header(call, "x-a", (mr_bytes){"1", 1}, &err), MR_OK, &err);
    assert_status(mr_rpc_call_add_trailer(call, "x-b-bin", (mr_bytes){"\0", 1}, &err), MR_OK, &err);
    assert_int_equal(mr_rpc_call_write(call, NULL, 0), MR_RPC_WRITTEN);
    assert_status(mr_rpc_call_add_header(call, "x-late", (mr_bytes){"1", 1}, &err), MR_INVALID,
                  &err);
    assert_contains(err.message, "after it was sent");
    mr_rpc_call_finish(call, MR_RPC_OK, NULL);
    assert_true(rpc_client_wait(client, r, 10000));
    assert_non_null(strstr(r->text, "x-a: 1\n"));
    assert_non_null(strstr(r->text, "x-b-bin: AA\n"));
    mr_rpc_call_unref(call);
    rpc_client_close(client);
    mr_rpc_server_free(server);
}

/* ---- the end of servers ---- */

static void a_drain_answers_what_was_accepted(void **state)
{
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0});
    char address[128];
    snprintf(address, sizeof address, "%s", mr_rpc_server_address(server, 0));
    rpc_client *client = rpc_client_open(address);
    rpc_result *r, *watch, *late;
    mr_rpc_call *watching = take_call(client, "/test.T/Watch", &watch);
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    mr_rpc_server_drain(server);
    assert_true(rpc_client_wait(client, watch, 10000));
    assert_int_equal(watch->code, MR_RPC_UNAVAILABLE); /* would never end by itself */
    assert_true(rpc_client_told_to_go(client));
    late = rpc_client_start(client, &(rpc_request){.path = "/test.T/Nope", ONE});
    (void)rpc_client_wait(client, late, 300); /* sent before the second GOAWAY, or not at all */
    mr_rpc_call_reply(call, "done", 4);
    assert_true(rpc_client_wait(client, r, 10000));
    assert_int_equal(r->code, MR_RPC_OK);
    assert_true(rpc_client_gone(client, 10000));
    assert_int_equal(mr_rpc_server_stop(server, 10000), 0);
    mr_rpc_call_unref(watching);
    mr_rpc_call_unref(call);
    rpc_client_close(client);
    mr_rpc_server_free(server);
}

static void a_stop_cancels_after_its_grace(void **state)
{
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_result *r;
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    assert_int_equal(mr_rpc_server_stop(server, 100), 1);
    assert_true(rpc_client_wait(client, r, 10000));
    assert_int_equal(r->code, MR_RPC_UNAVAILABLE);
    assert_int_equal(atomic_load(&cancelled), 1);
    mr_rpc_server_free(server);
    /* The call outlives its server: nothing of it can be sent, and nothing breaks. */
    assert_true(mr_rpc_call_is_cancelled(call));
    assert_int_equal(mr_rpc_call_request(call).len, 1);
    assert_int_equal(mr_rpc_call_write(call, "x", 1), MR_RPC_GONE);
    mr_rpc_call_finish(call, MR_RPC_OK, NULL);
    mr_rpc_call_unref(call);
    assert_int_equal(atomic_load(&destroyed), 1);
    rpc_client_close(client);
}

static void servers_that_never_started_are_freed(void **state)
{
    static const char *const listen[] = {"127.0.0.1:0", "127.0.0.1:0"};
    mr_rpc_server *server = NULL;
    mr_error err = {0};
    (void)state;
    const mr_rpc_options opt = {.listen = listen, .n_listen = 2};
    assert_status(mr_rpc_server_new(&server, &opt, &err), MR_OK, &err);
    assert_non_null(mr_rpc_server_address(server, 1));
    assert_null(mr_rpc_server_address(server, 2));
    mr_rpc_server_drain(server);
    mr_rpc_server_free(server);
    mr_rpc_server_free(NULL);
}

static void unix_sockets_come_and_go(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    char address[256];
    struct stat info;
    snprintf(address, sizeof address, "unix:%s", test_path(folder, "socket"));
    const char *const listen[] = {address};
    mr_rpc_server *server = open_server((mr_rpc_options){.listen = listen, .n_listen = 1});
    assert_int_equal(stat(address + 5, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0660);
    rpc_client *client = rpc_client_open(address);
    rpc_result *r;
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    assert_string_equal(mr_rpc_call_peer(call), "unix");
    mr_rpc_call_reply(call, NULL, 0);
    assert_true(rpc_client_wait(client, r, 10000));
    mr_rpc_call_unref(call);
    rpc_client_close(client);

    mr_rpc_server *second = NULL; /* in use: refused, and not taken away */
    mr_error err = {0};
    const mr_rpc_options opt = {.listen = listen, .n_listen = 1};
    assert_status(mr_rpc_server_new(&second, &opt, &err), MR_UNAVAILABLE, &err);
    assert_contains(err.message, "another process listens there");
    assert_int_equal(stat(address + 5, &info), 0);
    mr_rpc_server_free(server);
    assert_int_not_equal(stat(address + 5, &info), 0);
    test_folder_free(folder);
}

static void options_that_cannot_be_are_refused(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    static const mr_rpc_method twice[] = {{.path = "/a.B/C", .handle = keep},
                                          {.path = "/a.B/C", .handle = keep}};
    static const mr_rpc_method wrong[] = {{.path = "a.B/C", .handle = keep}};
    test_file_write(test_path(folder, "none.pem"), "x", 1);
    test_file_write(test_path(folder, "keys"), "# nothing\n\n", 11);
    test_file_write(test_path(folder, "short"), "abc\n", 4);
    test_file_write(test_path(folder, "blank"), "0123456789 0123456789\n", 22);
    const char *pem = test_path(folder, "none.pem"), *missing = test_path(folder, "missing"),
               *keys = test_path(folder, "keys"), *weak = test_path(folder, "short"),
               *blank = test_path(folder, "blank");
    const struct {
        const char *listen;
        mr_rpc_options opt;
        const char *message;
    } refused[] = {
        {"127.0.0.1", {0}, "'127.0.0.1' is none of HOST:PORT"},
        {"127.0.0.1:", {0}, "none of HOST:PORT"},
        {"127.0.0.1:99999", {0}, "none of HOST:PORT"},
        {"127.0.0.1:http", {0}, "none of HOST:PORT"},
        {"::1:50051", {0}, "none of HOST:PORT"},
        {"unix:", {0}, "a path of 0 characters"},
        {"192.0.2.1:0", {0}, "cannot listen on '192.0.2.1:0'"},
        {"127.0.0.1:0", {.tls_certificate = pem}, "only the certificate is set"},
        {"127.0.0.1:0", {.tls_key = pem}, "only the key is set"},
        {"127.0.0.1:0", {.tls_client_ca = pem}, "no certificate of the server"},
        {"127.0.0.1:0", {.tls_certificate = pem, .tls_key = pem}, "cannot read certificates of"},
        {"127.0.0.1:0", {.tls_certificate = missing, .tls_key = pem}, "missing"},
        {"127.0.0.1:0", {.keys_file = missing}, "missing"},
        {"127.0.0.1:0", {.keys_file = keys}, "holds no key"},
        {"127.0.0.1:0", {.keys_file = weak}, "line 1: a key of 3 characters, expected 16"},
        {"127.0.0.1:0", {.keys_file = blank}, "line 1: character 11 is not printable"},
        {"127.0.0.1:0", {.methods = twice, .n_methods = 2}, "'/a.B/C' is given twice"},
        {"127.0.0.1:0", {.methods = wrong, .n_methods = 1}, "expected /package.Service/Method"},
        {"127.0.0.1:0", {.loops = 1000}, "1000 event loops, expected 1 to 64"},
        {"127.0.0.1:0", {.max_message_bytes = (size_t)1 << 32}, "max_message_bytes"},
    };
    for (size_t i = 0; i < COUNT(refused); i++) {
        mr_rpc_server *server = NULL;
        mr_error err = {0};
        mr_rpc_options opt = refused[i].opt;
        opt.listen = &refused[i].listen;
        opt.n_listen = 1;
        assert_int_not_equal(mr_rpc_server_new(&server, &opt, &err), MR_OK);
        assert_null(server);
        assert_contains(err.message, refused[i].message);
    }
    test_folder_free(folder);
}

static void an_address_in_use_is_named(void **state)
{
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0}), *second = NULL;
    const char *const listen[] = {mr_rpc_server_address(server, 0)};
    const mr_rpc_options opt = {.listen = listen, .n_listen = 1};
    mr_error err = {0};
    assert_status(mr_rpc_server_new(&second, &opt, &err), MR_UNAVAILABLE, &err);
    assert_contains(err.message, listen[0]);
    assert_contains(err.message, "another process listens there");
    mr_rpc_server_free(server);
}

static void everything_is_counted(void **state)
{
    mr_metrics *metrics = NULL;
    mr_error err = {0};
    (void)state;
    assert_status(mr_metrics_new(&metrics, &err), MR_OK, &err);
    mr_rpc_server *server = open_server((mr_rpc_options){.metrics = metrics});
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    rpc_result *r;
    mr_rpc_call *call = take_call(client, "/test.T/Keep", &r);
    mr_rpc_call_finish(call, MR_RPC_NOT_FOUND, "x");
    mr_rpc_call_unref(call);
    assert_true(rpc_client_wait(client, r, 10000));
    call = take_call(client, "/test.T/Keep", &r);
    rpc_client_reset(client, r, NGHTTP2_CANCEL);
    (void)rpc_client_wait(client, r, 100);
    wait_for(&cancelled, 1);
    mr_rpc_call_unref(call);
    (void)rpc_client_call(client, &(rpc_request){.path = "/no.such/Method", ONE});
    mr_strbuf text = {0};
    mr_metrics_write(metrics, &text);
    static const char *const lines[] = {
        "mixrank_rpc_calls_total{method=\"/test.T/Keep\",code=\"NOT_FOUND\"} 1\n",
        "mixrank_rpc_calls_total{method=\"/test.T/Keep\",code=\"CANCELLED\"} 1\n",
        "mixrank_rpc_calls_total{method=\"/test.T/Keep\",code=\"OK\"} 0\n",
        "mixrank_rpc_calls_total{method=\"unknown\",code=\"UNIMPLEMENTED\"} 1\n",
        "mixrank_rpc_call_seconds_count{method=\"/test.T/Keep\"} 2\n",
        "mixrank_rpc_connections 1\n",
        "mixrank_rpc_connections_total 1\n",
        "mixrank_rpc_resets_received_total 1\n"};
    for (size_t i = 0; i < COUNT(lines); i++)
        assert_contains(text.data, lines[i]);
    mr_strbuf_release(&text);
    rpc_client_close(client);
    mr_rpc_server_free(server);
    mr_metrics_free(metrics);
}

/* ---- many threads at once ---- */

static atomic_bool done;

static void *answer_all(void *context)
{
    (void)context;
    while (!atomic_load(&done)) {
        mr_rpc_call *call = atomic_exchange(&kept, NULL);
        if (!call)
            continue;
        (void)mr_rpc_call_write(call, "abc", 3);
        mr_rpc_call_finish(call, MR_RPC_OK, NULL);
        mr_rpc_call_unref(call);
    }
    return NULL;
}

static void replies_race_with_cancellations(void **state)
{
    enum { ROUNDS = 300 };
    pthread_t threads[2];
    (void)state;
    mr_rpc_server *server = open_server((mr_rpc_options){0});
    atomic_store(&done, false);
    for (size_t i = 0; i < COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, answer_all, NULL), 0);
    rpc_client *client = rpc_client_open(mr_rpc_server_address(server, 0));
    for (int i = 0; i < ROUNDS; i++) {
        rpc_result *r = rpc_client_start(client, &(rpc_request){.path = "/test.T/Keep", ONE});
        (void)rpc_client_wait(client, r, 0);
        if (i % 3 == 0 && !r->done)
            rpc_client_reset(client, r, NGHTTP2_CANCEL);
        assert_true(rpc_client_wait(client, r, 20000));
        if (i % 100 == 99) { /* and with connections that break */
            (void)rpc_client_start(client, &(rpc_request){.path = "/test.T/Keep", ONE});
            (void)rpc_client_wait(client, r, 0);
            rpc_client_close(client);
            client = rpc_client_open(mr_rpc_server_address(server, 0));
        }
    }
    rpc_client_close(client);
    (void)mr_rpc_server_stop(server, 5000);
    atomic_store(&done, true);
    for (size_t i = 0; i < COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    mr_rpc_call_unref(atomic_exchange(&kept, NULL));
    mr_rpc_stats stats;
    mr_rpc_server_stats(server, &stats);
    assert_int_equal(stats.calls, 0);
    assert_int_equal(stats.buffered_bytes, 0);
    mr_rpc_server_free(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_is_answered_by_another_thread),
        cmocka_unit_test(a_client_that_resets_cancels),
        cmocka_unit_test(a_connection_that_breaks_cancels),
        cmocka_unit_test(a_deadline_cancels_and_says_so),
        cmocka_unit_test(a_dropped_call_is_answered_with_internal),
        cmocka_unit_test(a_writer_is_stopped_and_called_again),
        cmocka_unit_test(metadata_keeps_to_the_rules),
        cmocka_unit_test(a_drain_answers_what_was_accepted),
        cmocka_unit_test(a_stop_cancels_after_its_grace),
        cmocka_unit_test(servers_that_never_started_are_freed),
        cmocka_unit_test(unix_sockets_come_and_go),
        cmocka_unit_test(options_that_cannot_be_are_refused),
        cmocka_unit_test(an_address_in_use_is_named),
        cmocka_unit_test(everything_is_counted),
        cmocka_unit_test(replies_race_with_cancellations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
